"""Verbs of ``disc-relaxometry`` (typer)."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from DiscRelaxometryLib.tables import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Sagittal lumbar MRI to labelled discs, T1rho and T2 maps, and voxel-wise cohort statistics. "
                       "For research; not a medical device.")
console = Console()
_STATE_COLORS = {"done": "green", "to do": "yellow", "failed": "bold red", "blocked": "magenta"}

StudyPath = Annotated[Path, typer.Argument(help="Study folder: sub-XX/anat/..., participants.tsv (BIDS-like).")]
Output = Annotated[Path | None, typer.Option(help="Results folder [derivatives/disc-relaxometry in the study].")]
People = Annotated[list[str] | None, typer.Option("--person", help="Only this person; may be repeated.")]
Formula = Annotated[str, typer.Option(help="Model, such as 'pfirrmann + age + C(sex)'; empty for no statistics.")]
Contrast = Annotated[str, typer.Option(help="Term of interest [the formula's first].")]
Session = Annotated[str, typer.Option(help="BIDS session, such as ses-01.")]
Segmentation = Annotated[str, typer.Option(help="cnn, existing (_dseg files), or auto.")]


@app.command()
def run(study: StudyPath, formula: Formula = "", contrast: Contrast = "", output: Output = None, person: People = None,
        processes: Annotated[int, typer.Option(help="People worked on at the same time, one thread each.")] = 1,
        scheduler: Annotated[str, typer.Option(help="Address or file of a Dask scheduler; its workers must see the "
                                                    "study folder.")] = "",
        memory: Annotated[float | None, typer.Option(help="GB a local worker may use.")] = None,
        gpu: Annotated[bool, typer.Option(help="Send people only to Dask workers with resource GPU=1.")] = False,
        maps: Annotated[str, typer.Option(help="Maps to analyze, comma-separated: T1rho,T2,nT2w [all].")] = "",
        levels: Annotated[str, typer.Option(help="Levels to analyze, such as L4-L5,L5-S1 [the five lumbar].")] = "",
        analysis: Annotated[str, typer.Option(help="Name of the analysis.")] = "main",
        segmentation: Segmentation = "auto",
        registration: Annotated[str, typer.Option(help="coordinates, elastix or brainsfit.")] = "coordinates",
        template: Annotated[str, typer.Option(help="shipped, or build one from these people.")] = "shipped",
        t1rho_model: Annotated[str, typer.Option(help="mono2 or mono3.")] = "mono2",
        t2_model: Annotated[str, typer.Option(help="mono2, mono3 or epg.")] = "mono2",
        estimator: Annotated[str, typer.Option(help="nlls, loglinear or rician.")] = "nlls",
        permutations: Annotated[int, typer.Option(help="Permutations of the group analysis.")] = 2000,
        seed: Annotated[int, typer.Option(help="Seed of the permutations.")] = 1,
        missing: Annotated[str, typer.Option(help="Voxels to analyze: available (half of the people have them) or "
                                                  "complete.")] = "available",
        session: Session = "",
        on_error: Annotated[str, typer.Option(help="skip a person that fails, or stop.")] = "skip",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
        verify: Annotated[bool, typer.Option(help="Check the content of existing results.")] = False) -> None:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Run it again to resume."""
    from .runner import run_study

    settings = {"contrast": contrast, "analysis": analysis, "segmentation": segmentation, "seed": seed,
                "registration": registration, "template": template, "t1rho_model": t1rho_model, "t2_model": t2_model,
                "estimator": estimator, "permutations": permutations, "session": session, "on_error": on_error,
                "missing": missing,
                "maps": tuple(filter(None, maps.split(",")))}
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
        console.print(f"[bold red]Incomplete[/] {escape(name)}: {escape(why)}")
    for outcome in result.failed:
        if not outcome.person:
            console.print(f"[bold red]Failed[/] group step {outcome.step}: {escape(outcome.message)}")
    if result.report:
        console.print(f"Report: {escape(str(result.report))}", soft_wrap=True)
    if any(not o.person for o in result.failed):
        raise typer.Exit(1)


@app.command()
def validate(study: StudyPath, formula: Formula = "", segmentation: Segmentation = "auto", session: Session = "",
             output: Output = None,
             quick: Annotated[bool, typer.Option(help="Read headers only; truncated files are not found.")] = False,
             ) -> None:
    """Say everything that is wrong with a study before anything runs. Exit status 1 if there are errors."""
    from .study import Study
    from .study_settings import make_settings
    from .study_validate import validate as check

    settings = make_settings(formula=formula, segmentation=segmentation, session=session)
    findings = check(Study(study, session, output), settings, read_images=not quick)
    _print_findings(findings)
    errors = sum(f.severity == "error" for f in findings)
    console.print(f"{errors} error(s), {len(findings) - errors} other finding(s).")
    if errors:
        raise typer.Exit(1)


@app.command()
def status(study: StudyPath, output: Output = None, session: Session = "") -> None:
    """Show how far each person is: done, to do, failed (with the reason); with the settings of the last run."""
    from .study_status import status_table

    table = status_table(study, output, session=session)
    _print_table(table, _STATE_COLORS)


@app.command()
def report(study: StudyPath, output: Output = None, session: Session = "") -> None:
    """Make group results and report again from what people have, with the settings of the last run."""
    from .runner import report_only

    with progress_bar() as callback:
        path = report_only(study, output, session, progressCallback=callback)
    console.print(f"Report: {escape(str(path))}", soft_wrap=True)


@app.command()
def simulate(output: Annotated[Path, typer.Argument(help="Folder for the simulated study.")],
             people: Annotated[int, typer.Option(help="Number of people.")] = 31,
             seed: Annotated[int, typer.Option(help="Seed.")] = 1) -> None:
    """Write a virtual cohort with known truth as a study folder; labelled SIMULATED everywhere."""
    from .virtual import write_virtual_study

    with progress_bar() as callback:
        write_virtual_study(output, people, seed=seed, progressCallback=callback)
    console.print(f"Simulated study: {escape(str(output))}", soft_wrap=True)


@app.command()
def segment(image: Annotated[Path, typer.Argument(help="Sagittal lumbar volume (NIfTI, NRRD, MetaImage).")],
            output: Annotated[Path, typer.Argument(help="Label image to write.")],
            confidence: Annotated[Path | None, typer.Option(help="Confidence image to write.")] = None,
            engine: Annotated[str, typer.Option(help="auto, onnx or torch.")] = "auto") -> None:
    """Segment and label the discs of one volume."""
    from DiscRelaxometryLib.image import read_image, write_image
    from DiscRelaxometryLib.measures import measure_discs
    from DiscRelaxometryLib.segment import segment as run_segment

    result = run_segment(read_image(image), engine=engine)
    write_image(result.labels, output)
    if confidence:
        write_image(result.confidence, confidence)
    _print_table(measure_discs(result.labels))
    for flag in result.flags:
        console.print(f"[yellow]Note[/] {escape(flag)}")


@app.command()
def maps(series: Annotated[list[Path], typer.Argument(help="4-D file, or one file an echo, with JSON sidecar.")],
         output: Annotated[Path, typer.Argument(help="Folder for the maps.")],
         kind: Annotated[str, typer.Option(help="T1rho or T2.")] = "T1rho",
         times: Annotated[str, typer.Option(help="Times in ms, comma-separated; replaces the sidecar's.")] = "",
         model: Annotated[str, typer.Option(help="mono2, mono3 or epg.")] = "mono2",
         estimator: Annotated[str, typer.Option(help="nlls, loglinear or rician.")] = "nlls") -> None:
    """Fit T1rho or T2 maps of one echo series."""
    from DiscRelaxometryLib.image import write_image

    from .steps_maps import fit_files

    given = [float(t) for t in times.split(",")] if times else None
    _, fit = fit_files(series, kind, model, estimator, "auto", times_ms=given)
    for key, image in fit.images().items():
        console.print(str(write_image(image, output / f"{key}.nii.gz")), soft_wrap=True)


@contextmanager
def progress_bar():
    """Yield a ``progressCallback`` that draws a bar on a terminal, and plain lines elsewhere."""
    if not console.is_terminal:
        yield _plain_progress()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def _plain_progress():
    last = {"tenth": -1}

    def callback(fraction: float, text: str) -> None:
        if int(fraction * 20) != last["tenth"]:
            last["tenth"] = int(fraction * 20)
            print(f"{100 * fraction:3.0f} % {text}", flush=True)
    return callback


def _print_findings(findings) -> None:
    colors = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        where = escape(finding.file or finding.person or "study")
        who = f" ({finding.person})" if finding.person and finding.person not in finding.file else ""
        console.print(f"[{colors[finding.severity]}]{finding.severity}[/] {where}{who}: {escape(finding.problem)} "
                      f"[dim]{escape(finding.remedy)}[/]", soft_wrap=True)


def _print_plan(result) -> None:
    pending = [o for o in result.outcomes if o.state == "pending"]
    for name in dict.fromkeys(o.person for o in pending):
        steps = ", ".join(o.step for o in pending if o.person == name)
        console.print(f"{escape(name or 'group')}: {steps}")
    console.print(f"{len(pending)} step(s) to do; nothing was written.")


def _print_table(table: Table, colors: dict | None = None) -> None:
    from .report import cell_text

    shown = RichTable(title=table.name, title_justify="left")
    for column in table.columns:
        shown.add_column(column.name + (f" [{column.unit}]" if column.unit not in ("", "1") else ""))
    for row in table.rows:
        cells = [cell_text(row.get(n)) for n in table.names]
        shown.add_row(*(f"[{colors[c]}]{c}[/]" if colors and c in colors else escape(c) for c in cells))
    console.print(shown)


