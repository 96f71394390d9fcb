"""Verbs of ``disc-relaxometry`` that work on results: DICOM export, mixed models, agreement."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from DiscRelaxometryLib.atomic import check_folder

from .options import Labels, Output, Quantity, Region, Session, StudyFolder, numbers, require_place
from .print import print_line, print_notes, print_table, progress_bar


def export_dicom(target: Annotated[Path, Argument(help="New folder.")],
                 study: Annotated[Path | None, Option(help="Study that was run.")] = None,
                 participant_label: Labels = (),
                 map: Annotated[list[str], Option(
                     help="QUANTITY=FILE, such as T1rho=T1rhomap.nii.gz; may be repeated.")] = (),
                 labels: Annotated[Path | None, Option(help="Label image.")] = None,
                 source: Annotated[Path | None, Option(
                     help="DICOM folder of the examination, whose study the files join; of a study, with one folder "
                          "per participant.")] = None,
                 subject: Annotated[str, Option(help="Patient ID where there is no source.")] = "anonymous",
                 algorithm: Annotated[str, Option(
                     help="What made the labels; without it they are coded as manual.")] = "",
                 output: Output = None, session: Session = "") -> None:
    """Write DICOM Parametric Maps and Segmentations: of a study that was run, or of image files (--map, --labels)."""
    from DiscRelaxometryLib.errors import StudyError

    from ..after import export_files, export_people

    if (study is None) == (not map and labels is None):
        raise StudyError("Say what to export: --study FOLDER, or --map QUANTITY=FILE and --labels FILE.",
                         anchor="dicom-export")
    check_folder(target)
    if study is None:
        written = export_files(target, map, labels, source, subject, algorithm or None)
    else:
        with progress_bar() as callback:
            written = export_people(study, target, participant_label, source, output, session, callback)
    print_line("DICOM", "green", f"{len(written)} files in {target}")


def mixed(study: StudyFolder,
          formula: Annotated[str, Argument(help="Such as 'mean ~ pfirrmann + C(level) + age + C(sex)'.")],
          map: Quantity = "", region: Region = "whole",
          table: Annotated[str, Option(help="Table to use: regions or discs.")] = "regions",
          slope: Annotated[str, Option(help="Variable whose effect varies between participants.")] = "",
          name: Annotated[str, Option(help="Name of the result.")] = "main",
          output: Output = None, session: Session = "") -> None:
    """Fit a mixed model (random participant) to a study's table of regions or discs, and write it beside the table."""
    from ..after import mixed_model

    fit, paths = mixed_model(study, formula, map=map, region=region, table=table, slope=slope, name=name,
                             output=output, session=session)
    print_table(fit.fixed)
    print_table(fit.variances)
    print(f"{fit.n} rows of {fit.people} participants; {100 * fit.icc:.0f} % of the unexplained variance is between "
          "participants.")
    print_notes(fit.notes)
    print_line("Tables", "green", ", ".join(p.name for p in paths if p.suffix == ".tsv"))


def agreement(first: Annotated[Path, Argument(help="Table (TSV) of the first method, rater or session.")],
              second: Annotated[Path, Argument(help="Table of the second one.")],
              value: Annotated[str, Option(help="Column to compare.")] = "mean",
              on: Annotated[str, Option(help="Columns that name a row, comma-separated (default: those of "
                                        "participant_id, level, region, map that both have).")] = "",
              map: Quantity = "", region: Region = "",
              unit: Annotated[str, Option(help="Unit of the column (default: the sidecar's).")] = "",
              output: Annotated[Path | None, Option(help="Table (TSV) to write.")] = None) -> None:
    """Compare one column of two tables (two methods, raters or sessions): bias, limits, concordance, ICC."""
    from ..after import compare_tables

    if output:
        require_place(output, ".tsv", (first, second))
    names = tuple(n.strip() for n in on.split(",") if n.strip())
    result, unmatched = compare_tables(first, second, value, names, unit, map=map, region=region)
    print_table(result)
    print_notes(result.notes)
    if unmatched:
        print_line("Note", "yellow", f"{len(unmatched)} row(s) stand in one table only, such as {unmatched[0]}.")
    if output:
        print_line("Table", "green", str(result.write(output)))


def power(study: StudyFolder,
          formula: Annotated[str, Argument(help="Such as 'T1rho ~ pfirrmann + age'; the first term is tested.")],
          effect: Annotated[float, Option(help="Change of the map for one unit of the term.")],
          map: Quantity = "", region: Region = "whole",
          levels: Annotated[str, Option(help="Levels with the effect, comma-separated (default: all).")] = "",
          sizes: Annotated[str, Option(help="Sizes of study, such as 30,60 (default: its own).")] = "",
          sets: Annotated[int, Option(min=1, help="Simulated studies per size.")] = 100,
          output: Output = None, session: Session = "") -> None:
    """Simulate how often a study's analysis finds an effect, from its own residuals and participants."""
    from ..after import study_power

    with progress_bar() as callback:
        table, path = study_power(study, formula, effect, map=map, region=region,
                                  levels=tuple(v.strip() for v in levels.split(",") if v.strip()),
                                  sizes=tuple(numbers(sizes, "--sizes")), sets=sets, output=output,
                                  session=session, progressCallback=callback)
    print_table(table)
    print_notes(table.notes)
    print_line("Table", "green", str(path))


VERBS = (export_dicom, mixed, agreement, power)
