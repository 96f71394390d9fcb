"""Verbs of ``disc-relaxometry``: plain functions; typer makes a command line of them when it is asked for."""

from __future__ import annotations

import inspect
import typing
from pathlib import Path

from .print import print_line, print_table, progress_bar
from .results import VERBS as RESULT_VERBS

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
    "first": "Table (TSV) of the first method, rater or session.",
    "second": "Table of the second one.",
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
    "errors": "Permutation: exchangeable (people change places), symmetric (signs are flipped), or auto (flipped where "
              "the residual spread depends on the tested variable).",
    "standard_errors": "classical, or hc3 where the residual spread differs between people.",
    "sensitivity": "Repeat the analysis on some people: a rule such as 'field_T == 1.5'.",
    "session": "BIDS session, such as ses-01.",
    "on_error": "skip a person that fails, or stop.",
    "dry_run": "Say what would be done, and do nothing.",
    "verify": "Check the content of existing results.",
    "quick": "Read headers only; truncated files are not found.",
    "people": "Number of people.",
    "confidence": "Confidence image to write.",
    "engine": "auto, onnx or torch.",
    "kind": "T1rho or T2.",
    "align": "Alignment of the echoes: auto, on or off.",
    "times": "Times in ms, comma-separated; replaces the sidecar's.",
    "sites": "1, or 2: every third person then comes from a second site.",
    "null": "Shuffle the participants' variables, so that nothing is related to the images.",
    "parametric": "Discs from the literature's geometry instead of real ones.",
    "with_labels": "Also write the true segmentation beside the images.",
    "region": "Region, such as whole, nucleus or anterior_annulus.",
    "table": "Table to use: regions or discs.",
    "slope": "Variable whose effect varies between people.",
    "name": "Name of the result.",
    "value": "Column to compare.",
    "on": "Columns that name a row, comma-separated [participant_id,level,region,map where both tables have them].",
    "unit": "Unit of the column [the sidecar's].",
    "map": "Quantity, such as T1rho.",
    "source": "DICOM folder of the examination, whose study the files join; of a study, with one folder a person.",
    "subject": "Patient ID where there is no source.",
    "algorithm": "What made the labels; without it they are coded as manual.",
    "labels": "Label image.",
    "study": "Study that was run.",
}
#: Where an option means something else than elsewhere: (verb, name) -> help.
_SPECIAL = {
    ("export_dicom", "map"): "QUANTITY=FILE, such as T1rho=T1rhomap.nii.gz; may be repeated.",
    ("mixed", "formula"): "Such as 'mean ~ pfirrmann + C(level) + age + C(sex)'.",
    ("agreement", "output"): "Table to write.",
}


def run(study: Path, formula: str = "", contrast: str = "", output: Path | None = None,
        person: list[str] | None = None, processes: int = 1, scheduler: str = "", memory: float | None = None,
        gpu: bool = False, maps: str = "", levels: str = "", analysis: str = "main", segmentation: str = "auto",
        registration: str = "coordinates", template: str = "shipped", t1rho_model: str = "mono2",
        t2_model: str = "mono2", estimator: str = "nlls", permutations: int = 5000, seed: int = 1,
        missing: str = "available", errors: str = "auto", standard_errors: str = "classical", sensitivity: str = "",
        session: str = "", on_error: str = "skip", dry_run: bool = False, verify: bool = False) -> None:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Run it again to resume."""
    from ..engine import Cluster
    from ..steps import plan_study, run_study

    settings = {"contrast": contrast, "analysis": analysis, "segmentation": segmentation, "seed": seed,
                "registration": registration, "template": template, "t1rho_model": t1rho_model, "t2_model": t2_model,
                "estimator": estimator, "permutations": permutations, "session": session, "on_error": on_error,
                "missing": missing, "errors": errors, "standard_errors": standard_errors, "sensitivity": sensitivity,
                "maps": tuple(filter(None, maps.split(",")))}
    if levels:
        settings["levels"] = tuple(levels.split(","))
    if dry_run:
        plan = plan_study(study, formula, output=output, people=person or (), verify=verify, **settings)
        _print_findings(plan.findings)
        _print_plan(plan)
        return
    cluster = Cluster(scheduler, memory, {"GPU": 1} if gpu else {})
    with progress_bar() as callback:
        result = run_study(study, formula, processes=processes, cluster=cluster, output=output, people=person or (),
                           verify=verify, progressCallback=callback, **settings)
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


def validate(study: Path, formula: str = "", segmentation: str = "auto", session: str = "",
             output: Path | None = None, quick: bool = False) -> None:
    """Say everything that is wrong with a study before anything runs. Exit status 1 if there are errors."""
    from ..folder import Study, make_settings
    from ..folder import validate as check

    settings = make_settings(formula=formula, segmentation=segmentation, session=session)
    findings = check(Study(study, session, output), settings, read_images=not quick)
    _print_findings(findings)
    errors = sum(f.severity == "error" for f in findings)
    print(f"{errors} error(s), {len(findings) - errors} other finding(s).")
    if errors:
        raise SystemExit(1)


def status(study: Path, output: Path | None = None, session: str = "") -> None:
    """Show how far each person is: done, to do, failed (with the reason); with the settings of the last run."""
    from ..after import status_table
    from ..steps import plan_again

    print_table(status_table(plan_again(study, output=output, session=session)), _STATE_COLORS)


def report(study: Path, output: Path | None = None, session: str = "") -> None:
    """Make group results and report again from what people have, with the settings of the last run."""
    from ..steps import make_report

    with progress_bar() as callback:
        path = make_report(study, output, session, progressCallback=callback)
    print_line("Report", "green", str(path))


def simulate(target: Path, people: int = 31, seed: int = 1, sites: int = 1, null: bool = False,
             parametric: bool = False, with_labels: bool = False) -> None:
    """Write a virtual cohort with known truth as a study folder; labelled SIMULATED everywhere."""
    from ..virtual import write_virtual_study

    with progress_bar() as callback:
        write_virtual_study(target, people, seed, sites=sites, null=null, real=() if parametric else None,
                            with_labels=with_labels, progressCallback=callback)
    print_line("Simulated study", "green", str(target))


def segment(image: Path, labels: Path, confidence: Path | None = None, engine: str = "auto") -> None:
    """Segment and label the discs of one volume."""
    from DiscRelaxometryLib.discs import segment as run_segment
    from DiscRelaxometryLib.image import read_image, write_image
    from DiscRelaxometryLib.measure import measure_discs

    result = run_segment(read_image(image), engine=engine)
    if not result.found:
        print_line("Empty", "bold red", result.reason)
        raise SystemExit(1)
    write_image(result.labels, labels)
    if confidence:
        write_image(result.confidence, confidence)
    print_table(measure_discs(result.labels))
    for flag in result.flags:
        print_line("Note", "yellow", flag)


def maps(series: list[Path], output: Path = Path("maps"), kind: str = "T1rho", times: str = "", model: str = "mono2",
         estimator: str = "nlls", align: str = "auto") -> None:
    """Fit T1rho or T2 maps of one echo series."""
    from DiscRelaxometryLib.fit import FitOptions, map_series
    from DiscRelaxometryLib.image import write_image

    from ..engine import load_series

    given = [float(t) for t in times.split(",")] if times else None
    mapped = map_series(load_series(series, kind, kind, given), FitOptions(model=model, estimator=estimator), align)
    for key, image in mapped.fit.images().items():
        print(write_image(image, output / f"{key}.nii.gz"))


VERBS = (run, validate, status, report, simulate, segment, maps, *RESULT_VERBS)


def build_app():
    """Return the typer application: each verb's parameters with their help."""
    import typer

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=_ABOUT)
    for verb in VERBS:
        hints = typing.get_type_hints(verb)
        for name, parameter in inspect.signature(verb).parameters.items():
            given = parameter.default is inspect.Parameter.empty
            words = _SPECIAL.get((verb.__name__, name)) or (_ARGUMENTS if given else _OPTIONS)[name]
            hints[name] = typing.Annotated[hints[name], (typer.Argument if given else typer.Option)(help=words)]
        verb.__annotations__ = hints
        app.command()(verb)
    return app


def _print_findings(findings) -> None:
    colors = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        where = finding.file or finding.person or "study"
        who = f" ({finding.person})" if finding.person and finding.person not in finding.file else ""
        print_line(finding.severity, colors[finding.severity], f"{where}{who}: {finding.problem} {finding.remedy}")


def _print_plan(result) -> None:
    pending = [o for o in result.outcomes if o.state == "pending"]
    for name in dict.fromkeys(o.person for o in pending):
        print(f"{name or 'group'}: {', '.join(o.step for o in pending if o.person == name)}")
    print(f"{len(pending)} step(s) to do; nothing was written.")
