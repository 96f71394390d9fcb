"""Verbs of ``disc-relaxometry`` that make results: plain functions, whose options stand in their signatures."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.errors import DiscRelaxometryError

from .options import Engine, Labels, ResultsFolder, Session, StudyFolder, numbers, require_place, with_settings
from .print import print_line, print_notes, print_table, progress_bar
from .results import VERBS as RESULT_VERBS
from .review import review

_ABOUT = ("Sagittal lumbar MRI to labelled discs, T1rho and T2 maps, and voxel-wise cohort statistics. For research; "
          "not a medical device.")
_LEVELS = ("participant", "group")


@with_settings
def run(study: StudyFolder, output: ResultsFolder = None,
        level: Annotated[str, Argument(help="participant or group: work on these alone (default: both).")] = "",
        participant_label: Labels = (), n_procs: Annotated[int, Option(
            min=1, help="Participants worked on at the same time, one thread each.")] = 1,
        scheduler: Annotated[str, Option(
            help="Address or file of a Dask scheduler; its workers must see the study folder.")] = "",
        memory: Annotated[float | None, Option(help="GB a local worker may use.")] = None,
        gpu: Annotated[bool, Option("--gpu", help="Use only Dask workers with the resource GPU=1.")] = False,
        dry_run: Annotated[bool, Option("--dry-run", help="Say what would be done; do nothing.")] = False,
        verify: Annotated[bool, Option("--verify", help="Check the content of existing results.")] = False,
        **settings) -> None:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Run it again to resume."""
    from ..engine import Cluster
    from ..steps import plan_study, run_study

    if str(output) in _LEVELS and not level:  # run STUDY participant
        output, level = None, str(output)
    common = {"output": output, "people": participant_label, "verify": verify, **settings}
    if dry_run:
        plan = plan_study(study, **common)
        _print_findings(plan.findings)
        _print_plan(plan, level)
        return
    with progress_bar() as callback:
        result = run_study(study, level=level, processes=n_procs, cluster=Cluster(scheduler, memory, {"GPU": 1} if gpu
                                                                                  else {}),
                           progressCallback=callback, **common)
    _print_findings(result.findings)
    print_table(result.timings())
    for name, why in sorted(result.missing.items()):
        print_line("Incomplete", "bold red", f"{name}: {why}")
    group = [o for o in result.failed if not o.person]
    for outcome in group:
        print_line("Failed", "bold red", f"group step {outcome.step}: {outcome.message}")
    if result.report:
        print_line("Report", "green", str(result.report))
    if group:
        raise SystemExit(1)


@with_settings
def validate(study: StudyFolder, output: ResultsFolder = None, participant_label: Labels = (),
             quick: Annotated[bool, Option(
                 "--quick", help="Read headers only; truncated files are not found.")] = False,
             **settings) -> None:
    """Say everything that is wrong with a study before anything runs. Exit status 1 if there are errors."""
    from ..folder import Study, make_settings
    from ..folder import validate as check

    chosen = make_settings(**settings)
    findings = check(Study(study, chosen.session, output, tuple(participant_label)), chosen, read_images=not quick)
    _print_findings(findings)
    errors = sum(f.severity == "error" for f in findings)
    print(f"{errors} error(s), {len(findings) - errors} other finding(s).")
    if errors:
        raise SystemExit(1)


def status(study: StudyFolder, output: ResultsFolder = None, session: Session = "") -> None:
    """Show how far each participant is: done, to do, failed (with the reason); with the settings of the last run."""
    from ..after import status_table
    from ..steps import plan_again

    print_table(status_table(plan_again(study, output=output, session=session)))


def report(study: StudyFolder, output: ResultsFolder = None, session: Session = "") -> None:
    """Make group results and report again from what participants have, with the settings of the last run."""
    from ..steps import make_report

    with progress_bar() as callback:
        path = make_report(study, output, session, progressCallback=callback)
    print_line("Report", "green", str(path))


def simulate(target: Annotated[Path, Argument(help="New folder.")],
             participants: Annotated[int, Option(min=1, help="Number of participants.")] = 31,
             seed: Annotated[int, Option(min=0, help="Seed.")] = 1,
             sites: Annotated[int, Option(
                 min=1, max=2, help="1, or 2: every third participant then comes from a second site.")] = 1,
             null: Annotated[bool, Option("--null", help="Shuffle the participants' variables, so that nothing is "
                                          "related to the images.")] = False,
             parametric: Annotated[bool, Option(
                 "--parametric", help="Discs from the literature's geometry instead of real ones.")] = False,
             with_labels: Annotated[bool, Option(
                 "--with-labels", help="Also write the true segmentation beside the images.")] = False) -> None:
    """Write a virtual cohort with known truth as a study folder; labelled SIMULATED everywhere."""
    from ..virtual import write_virtual_study

    check_folder(target)
    with progress_bar() as callback:
        write_virtual_study(target, participants, seed, sites=sites, null=null, real=() if parametric else None,
                            with_labels=with_labels, progressCallback=callback)
    print_line("Simulated study", "green", str(target))


def import_spider(archive: Annotated[Path, Argument(help="Folder that the archive of SPIDER was unpacked in.")],
                  target: Annotated[Path, Argument(help="Study folder to write.")]) -> None:
    """Turn the published SPIDER archive into a study with grades and reference masks."""
    from ..folder import import_spider as run_import

    with progress_bar() as callback:
        notes = run_import(archive, target, callback)
    print_notes(notes)
    print_line("Study", "green", str(target))


def segment(image: Annotated[Path, Argument(help="Sagittal lumbar volume (NIfTI, NRRD, MetaImage).")],
            labels: Annotated[Path, Argument(help="Label image to write.")],
            confidence: Annotated[Path | None, Option(help="Confidence image to write.")] = None,
            engine: Engine = "auto") -> None:
    """Segment and label the discs of one volume."""
    from DiscRelaxometryLib.discs import segment as run_segment
    from DiscRelaxometryLib.image import check_output, read_image, write_image
    from DiscRelaxometryLib.measure import measure_discs

    for path in filter(None, (labels, confidence)):
        check_output(path)
        require_place(path, read=(image, labels if path is confidence else None))
    volume = read_image(image)
    result = run_segment(volume, engine=engine)
    if not result.found:
        print_line("Empty", "bold red", result.reason)
        raise SystemExit(1)
    write_image(result.labels, labels)
    if confidence:
        write_image(result.confidence, confidence)
    print_table(measure_discs(result.labels))
    print_notes([*volume.notes, *result.flags])


def grade(image: Annotated[Path, Argument(help="Sagittal T2-weighted volume or slice.")],
          labels: Annotated[Path | None, Option(help="Label image on its grid (default: segment it).")] = None,
          output: Annotated[Path | None, Option(help="Table (TSV) to write.")] = None,
          engine: Engine = "auto") -> None:
    """Estimate the Pfirrmann grade of each disc, with probabilities; not a reader's grade."""
    from DiscRelaxometryLib.discs import project_labels
    from DiscRelaxometryLib.discs import segment as run_segment
    from DiscRelaxometryLib.errors import SegmentationError
    from DiscRelaxometryLib.grades import ESTIMATED, grade_discs, grade_summary
    from DiscRelaxometryLib.image import read_image

    if output:
        require_place(output, ".tsv", (image, labels))
    volume, notes = read_image(image), []
    if labels:
        named, notes = project_labels(read_image(labels))
    else:
        result = run_segment(volume, engine=engine)
        if not result.found:
            raise SegmentationError(result.reason, anchor="no-spine-found")
        named, notes = result.labels, result.flags
    table = grade_discs(volume, named, engine)
    if output:
        table.write(output)
    print_table(grade_summary(table))
    print_notes(notes)
    if all(v is None for v in table[ESTIMATED]):
        raise SystemExit(1)


def maps(series: Annotated[list[Path], Argument(help="4-D file, or one file per echo, with JSON sidecar.")],
         output: Annotated[Path, Option(help="Folder of the maps.")] = Path("maps"),
         kind: Annotated[str, Option(help="T1rho or T2 (default: what the series says).")] = "",
         times: Annotated[str, Option(help="Times in ms, comma-separated; replaces the sidecar's.")] = "",
         model: Annotated[str, Option(help="mono2, mono3 or epg.")] = "mono2",
         estimator: Annotated[str, Option(help="nlls, loglinear or rician.")] = "nlls",
         align: Annotated[str, Option(help="Alignment of the echoes: auto, on or off.")] = "auto") -> None:
    """Fit T1rho or T2 maps of one echo series."""
    from DiscRelaxometryLib.fit import FitOptions, map_series
    from DiscRelaxometryLib.image import write_image
    from DiscRelaxometryLib.quantities import QUANTITIES

    given = numbers(times, "--times") if times else None
    options = FitOptions(model=model, estimator=estimator)
    check_folder(output)
    for key in QUANTITIES:
        require_place(output / f"{key}.nii.gz", read=series)
    mapped = map_series(_series(series, kind, given), options, align)
    for key, image in mapped.fit.images().items():
        print(write_image(image, output / f"{key}.nii.gz"))
    print_notes(mapped.notes)


def _series(files: list[Path], kind: str, times_ms):
    """Return the echo series; its kind is what it says of itself, and `kind` where it says nothing."""
    from DiscRelaxometryLib.echo import KINDS, read_echo_series

    names = {k.lower(): k for k in KINDS}
    if kind and kind.lower() not in names:
        raise DiscRelaxometryError(f"--kind '{kind}' is not known: choose {' or '.join(KINDS)}.")
    kind = names.get(kind.lower(), "")
    source = files[0] if len(files) == 1 else files
    try:
        found = read_echo_series(source, times_ms=times_ms)
    except DiscRelaxometryError:
        if not kind:
            raise
        return read_echo_series(source, kind, times_ms)
    if kind and found.kind != kind:
        raise DiscRelaxometryError(f"The series is {found.kind} by its name, sidecar or header, and --kind says "
                                   f"{kind}: leave --kind out, or correct what is wrong.")
    return found


VERBS = (run, validate, status, report, review, simulate, import_spider, segment, grade, maps, *RESULT_VERBS)


def build_app() -> typer.Typer:
    """Return the application."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_ABOUT)
    for verb in VERBS:
        app.command()(verb)
    return app


def _print_findings(findings) -> None:
    colors = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        where = finding.file or finding.person or "study"
        who = f" ({finding.person})" if finding.person and finding.person not in finding.file else ""
        print_line(finding.severity, colors[finding.severity], f"{where}{who}: {finding.problem} {finding.remedy}")


def _print_plan(result, level: str) -> None:
    pending = [o for o in result.outcomes if o.state == "pending" and level in ("", _LEVELS[not o.person])]
    for name in dict.fromkeys(o.person for o in pending):
        print(f"{name or 'group'}: {', '.join(o.step for o in pending if o.person == name)}")
    print(f"{len(pending)} step(s) to do; nothing was written.")
