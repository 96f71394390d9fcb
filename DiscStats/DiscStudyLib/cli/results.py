"""Verbs of ``disc-relaxometry`` that work on results: DICOM export, mixed models, agreement."""

from __future__ import annotations

from pathlib import Path

from .print import print_line, print_table, progress_bar


def export_dicom(target: Path, study: Path | None = None, person: list[str] | None = None,
                 map: list[str] | None = None, labels: Path | None = None, source: Path | None = None,
                 subject: str = "anonymous", algorithm: str = "", output: Path | None = None,
                 session: str = "") -> None:
    """Write DICOM Parametric Maps and Segmentations: of a study that was run, or of image files (--map, --labels)."""
    from DiscRelaxometryLib.errors import StudyError

    from ..after import export_files, export_people

    if (study is None) == (not map and labels is None):
        raise StudyError("Say what to export: --study FOLDER, or --map QUANTITY=FILE and --labels FILE.",
                         anchor="dicom-export")
    if study is None:
        written = export_files(target, map or (), labels, source, subject, algorithm or None)
    else:
        with progress_bar() as callback:
            written = export_people(study, target, person or (), source, output, session, callback)
    print_line("DICOM", "green", f"{len(written)} files in {target}")


def mixed(study: Path, formula: str, map: str = "", region: str = "whole", table: str = "regions", slope: str = "",
          name: str = "main", output: Path | None = None, session: str = "") -> None:
    """Fit a mixed model (random person) to a study's table of regions or discs, and write it beside the table."""
    from ..after import mixed_model

    fit, paths = mixed_model(study, formula, map=map, region=region, table=table, slope=slope, name=name,
                             output=output, session=session)
    print_table(fit.fixed)
    print_table(fit.variances)
    print(f"{fit.n} rows of {fit.people} people; {100 * fit.icc:.0f} % of the unexplained variance is between people.")
    for note in fit.notes:
        print_line("Note", "yellow", note)
    print_line("Tables", "green", ", ".join(p.name for p in paths if p.suffix == ".tsv"))


def agreement(first: Path, second: Path, value: str = "mean", on: str = "", map: str = "", region: str = "",
              unit: str = "", output: Path | None = None) -> None:
    """Compare one column of two tables (two methods, raters or sessions): bias, limits, concordance, ICC."""
    from ..after import compare_tables

    result, unmatched = compare_tables(first, second, value, tuple(filter(None, on.split(","))), unit, map=map,
                                       region=region)
    print_table(result)
    if unmatched:
        print_line("Note", "yellow", f"{len(unmatched)} row(s) stand in one table only, such as {unmatched[0]}.")
    if output:
        print_line("Table", "green", str(result.write(output)))


VERBS = (export_dicom, mixed, agreement)
