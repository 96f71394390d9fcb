"""Verbs of ``disc-relaxometry``: plain functions; typer makes a command line of them when it is asked for."""

from __future__ import annotations

import typing
from contextlib import contextmanager
from pathlib import Path

from DiscRelaxometryLib.tables import Table

_ABOUT = ("Sagittal lumbar MRI to labelled discs, T1rho and T2 maps, and voxel-wise cohort statistics. For research; "
          "not a medical device.")
_STATE_COLORS = {"done": "green", "to do": "yellow", "failed": "bold red", "blocked": "magenta"}
#: Help of arguments (given by position) and options, by name.
_ARGUMENTS = {
    "study": "Study folder: sub-XX/anat/..., participants.tsv (BIDS-like).",
    "image": "Sagittal lumbar volume (NIfTI, NRRD, MetaImage).",
    "labels": "Label image to write.",
    "target": "New folder.",
    "series": "4-D file, or one file an echo, with JSON sidecar.",
}
_OPTIONS = {
    "formula": "Model, such as 'pfirrmann + age + C(sex)'; empty for no statistics.",
    "contrast": "Term of interest [the formula's first].",
    "output": "Results folder [derivatives/disc-relaxometry in the study].",
    "person": "Only this person; may be repeated.",
    "processes": "People worked on at the same time, one thread each.",
    "scheduler": "Address or file of a Dask scheduler; its workers must see the study folder.",
    "memory": "GB a local worker may use.",
    "gpu": "Send people only to Dask workers with resource GPU=1.",
    "maps": "Maps to analyze, comma-separated: T1rho,T2,nT2w [all].",
    "levels": "Levels to analyze, such as L4-L5,L5-S1 [the five lumbar].",
    "analysis": "Name of the analysis.",
    "segmentation": "cnn, existing (_dseg files), or auto.",
    "registration": "coordinates, elastix or brainsfit.",
    "template": "shipped, or build one from these people.",
    "t1rho_model": "mono2 or mono3.",
    "t2_model": "mono2, mono3 or epg.",
    "model": "mono2, mono3 or epg.",
    "estimator": "nlls, loglinear or rician.",
    "permutations": "Permutations of the group analysis.",
    "seed": "Seed.",
    "missing": "Voxels to analyze: available (half of the people have them) or complete.",
    "session": "BIDS session, such as ses-01.",
    "on_error": "skip a person that fails, or stop.",
    "dry_run": "Say what would be done, and do nothing.",
    "verify": "Check the content of existing results.",
    "quick": "Read headers only; truncated files are not found.",
    "people": "Number of people.",
    "confidence": "Confidence image to write.",
    "engine": "auto, onnx or torch.",
    "kind": "T1rho or T2.",
    "times": "Times in ms, comma-separated; replaces the sidecar's.",
}


def run(study: Path, formula: str = "", contrast: str = "", output: Path | None = None,
        person: list[str] | None = None, processes: int = 1, scheduler: str = "", memory: float | None = None,
        gpu: bool = False, maps: str = "", levels: str = "", analysis: str = "main", segmentation: str = "auto",
        registration: str = "coordinates", template: str = "shipped", t1rho_model: str = "mono2",
        t2_model: str = "mono2", estimator: str = "nlls", permutations: int = 2000, seed: int = 1,
        missing: str = "available", session: str = "", on_error: str = "skip", dry_run: bool = False,
        verify: bool = False) -> None:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Run it again to resume."""
    from .runner import run_study

    settings = {"contrast": contrast, "analysis": analysis, "segmentation": segmentation, "seed": seed,
                "registration": registration, "template": template, "t1rho_model": t1rho_model, "t2_model": t2_model,
                "estimator": estimator, "permutations": permutations, "session": session, "on_error": on_error,
                "missing": missing, "maps": tuple(filter(None, maps.split(",")))}
    if levels:
        settings["levels"] = tuple(levels.split(","))
    with progress_bar() as callback:
        result = run_study(study, formula, processes=processes, scheduler=scheduler, output=output,
                           people=person or (), dry_run=dry_run, verify=verify, memory_gb=memory,
                           resources={"GPU": 1} if gpu else None, progressCallback=callback, **settings)
    _print_findings(result.findings)
    if dry_run:
        _print_plan(result)
        return
    _print_table(result.timings())
    for name, why in sorted(result.missing.items()):
        _print("Incomplete", "bold red", f"{name}: {why}")
    group = [o for o in result.failed if not o.person]
    for outcome in group:
        _print("Failed", "bold red", f"group step {outcome.step}: {outcome.message}")
    if result.report:
        _print("Report", "green", str(result.report))
    if group:
        raise SystemExit(1)


def validate(study: Path, formula: str = "", segmentation: str = "auto", session: str = "",
             output: Path | None = None, quick: bool = False) -> None:
    """Say everything that is wrong with a study before anything runs. Exit status 1 if there are errors."""
    from .study import Study
    from .study_settings import make_settings
    from .study_validate import validate as check

    settings = make_settings(formula=formula, segmentation=segmentation, session=session)
    findings = check(Study(study, session, output), settings, read_images=not quick)
    _print_findings(findings)
    errors = sum(f.severity == "error" for f in findings)
    print(f"{errors} error(s), {len(findings) - errors} other finding(s).")
    if errors:
        raise SystemExit(1)


def status(study: Path, output: Path | None = None, session: str = "") -> None:
    """Show how far each person is: done, to do, failed (with the reason); with the settings of the last run."""
    from .study_status import status_table

    _print_table(status_table(study, output, session=session), _STATE_COLORS)


def report(study: Path, output: Path | None = None, session: str = "") -> None:
    """Make group results and report again from what people have, with the settings of the last run."""
    from .runner import report_only

    with progress_bar() as callback:
        path = report_only(study, output, session, progressCallback=callback)
    _print("Report", "green", str(path))


def simulate(target: Path, people: int = 31, seed: int = 1) -> None:
    """Write a virtual cohort with known truth as a study folder; labelled SIMULATED everywhere."""
    from .virtual import write_virtual_study

    with progress_bar() as callback:
        write_virtual_study(target, people, seed, progressCallback=callback)
    _print("Simulated study", "green", str(target))


def segment(image: Path, labels: Path, confidence: Path | None = None, engine: str = "auto") -> None:
    """Segment and label the discs of one volume."""
    from DiscRelaxometryLib.image import read_image, write_image
    from DiscRelaxometryLib.measures import measure_discs
    from DiscRelaxometryLib.segment import segment as run_segment

    result = run_segment(read_image(image), engine=engine)
    if not result.found:
        _print("Empty", "bold red", result.reason)
        raise SystemExit(1)
    write_image(result.labels, labels)
    if confidence:
        write_image(result.confidence, confidence)
    _print_table(measure_discs(result.labels))
    for flag in result.flags:
        _print("Note", "yellow", flag)


def maps(series: list[Path], output: Path = Path("maps"), kind: str = "T1rho", times: str = "", model: str = "mono2",
         estimator: str = "nlls") -> None:
    """Fit T1rho or T2 maps of one echo series."""
    from DiscRelaxometryLib.image import write_image

    from .steps_maps import fit_files

    given = [float(t) for t in times.split(",")] if times else None
    _, fit = fit_files(series, kind, model, estimator, "auto", times_ms=given)
    for key, image in fit.images().items():
        print(write_image(image, output / f"{key}.nii.gz"))


VERBS = (run, validate, status, report, simulate, segment, maps)


def build_app():
    """Return the typer application: each verb's parameters with their help."""
    import typer

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_ABOUT)
    for verb in VERBS:
        hints = typing.get_type_hints(verb)
        required = [n for n in _ARGUMENTS if n in hints]
        verb.__annotations__ = {
            name: hint if name == "return" else typing.Annotated[
                hint, typer.Argument(help=_ARGUMENTS[name]) if name in required else typer.Option(help=_OPTIONS[name])]
            for name, hint in hints.items()}
        app.command()(verb)
    return app


def _console():
    from rich.console import Console

    return Console()


@contextmanager
def progress_bar():
    """Yield a ``progressCallback`` that draws a bar on a terminal, and plain lines elsewhere."""
    console = _console()
    if not console.is_terminal:
        yield _plain_progress()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def _plain_progress():
    last = {"step": -1}

    def callback(fraction: float, text: str) -> None:
        if int(fraction * 20) != last["step"]:
            last["step"] = int(fraction * 20)
            print(f"{100 * fraction:3.0f} % {text}", flush=True)
    return callback


def _print(title: str, color: str, text: str) -> None:
    from rich.markup import escape

    _console().print(f"[{color}]{title}[/] {escape(text)}", soft_wrap=True)


def _print_findings(findings) -> None:
    colors = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        where = finding.file or finding.person or "study"
        who = f" ({finding.person})" if finding.person and finding.person not in finding.file else ""
        _print(finding.severity, colors[finding.severity], f"{where}{who}: {finding.problem} {finding.remedy}")


def _print_plan(result) -> None:
    pending = [o for o in result.outcomes if o.state == "pending"]
    for name in dict.fromkeys(o.person for o in pending):
        print(f"{name or 'group'}: {', '.join(o.step for o in pending if o.person == name)}")
    print(f"{len(pending)} step(s) to do; nothing was written.")


def _print_table(table: Table, colors: dict | None = None) -> None:
    from rich.markup import escape
    from rich.table import Table as RichTable

    from .report import cell_text

    shown = RichTable(title=table.name, title_justify="left")
    for column in table.columns:
        shown.add_column(column.name + (f" ({column.unit})" if column.unit not in ("", "1") else ""))
    for row in table.rows:
        cells = [cell_text(row.get(n)) for n in table.names]
        shown.add_row(*(f"[{colors[c]}]{c}[/]" if colors and c in colors else escape(c) for c in cells))
    _console().print(shown)
