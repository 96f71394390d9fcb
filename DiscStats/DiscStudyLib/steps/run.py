"""Run a study with one call: check it, work on people (in parallel), then on the group."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange

from ..engine import (
    Cluster,
    RunSpec,
    Stage,
    StudyRun,
    Workers,
    exclusive,
    incomplete,
    plan_stages,
    read_before,
    run_group,
    run_stages,
)
from ..folder import REPORT, Settings, Study, describe_results, label_results, last_settings, make_settings, validate
from .pipeline import stages

#: Levels of a BIDS app, and the stages each runs.
LEVELS = {"": ("person", "group"), "participant": ("person",), "group": ("group",)}


def run_study(path, formula: str = "", *, level: str = "", processes: int = 1, cluster: Cluster | None = None,
              output=None, people: Sequence[str] = (), verify: bool = False,
              pipeline: Callable[[Settings], list[Stage]] = stages, progressCallback: ProgressCallback | None = None,
              **settings) -> StudyRun:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Finished work is not done again.

    Parameters
    ----------
    path : path
        Study folder (BIDS-like; see Docs/method/study.md).
    formula : str
        Model of the group analysis, such as ``"pfirrmann + age + C(sex)"``; empty makes maps and tables only.
    level : {"", "participant", "group"}
        Work on the people alone (several such runs may go on at once, each with its own `people`), or on the group
        alone, of those whose results are complete; by default on both.
    processes : int
        People worked on at the same time, each in a process of one thread; no more than there are cores, or than
        the memory allows. Where fewer people than processes are left, they share the cores of the processes.
    cluster : Cluster, optional
        A Dask scheduler instead of local processes, memory of a worker, resources a person needs.
    output : path, optional
        Results folder; by default ``derivatives/disc-relaxometry`` in the study.
    people : sequence of str
        Restrict the run to these people.
    verify : bool
        Check the content of existing results, not only size and time.
    pipeline : callable
        Gives the stages for the settings.
    progressCallback : callable, optional
        ``progressCallback(fraction, text)``; raises Cancelled to stop.
    **settings
        See :class:`DiscStudyLib.folder.settings.Settings`.

    Raises
    ------
    StudyError
        If nothing can be run, or a person failed and ``on_error`` is ``stop``.
    """
    if level not in LEVELS:
        raise StudyError(f"Level '{level}': use participant or group, or leave it out for both.")
    (progressCallback or silent)(0.0, "Checking the study")
    cluster = cluster or Cluster()
    # One person at a time may use all cores; people side by side get one thread each, but for the last ones.
    share = "threads" not in settings and not cluster.scheduler
    settings.setdefault("threads", 1 if cluster.scheduler or processes > 1 else os.cpu_count() or 1)
    run, spec, study = _checked(path, formula, output, people, pipeline, verify, settings)
    if level and any(stage.kind == "group" for stage in spec.stages()[:-1]):
        raise StudyError("A study that builds its own template is run with both levels at once: leave the level out.",
                         anchor="study-run")
    progress = subrange(progressCallback, 0.02, 1.0)
    ids = [p.id for p in study.people if p.id not in run.missing]
    with _resumable(study, alone=level != "participant"), Workers(cluster, processes, share) as workers:
        describe_results(study, spec.settings)
        if level == "group":
            run.missing.update(incomplete(spec, ids))
            ids = [p for p in ids if p not in run.missing]
        run_stages(run, spec, ids, progress, workers, LEVELS[level])
        if level != "participant":
            _write_timings(run, study)
    report = study.output / REPORT
    run.report = report if report.exists() else None
    progress(1.0, "Finished")
    return run


def plan_study(path, formula: str = "", *, output=None, people: Sequence[str] = (), verify: bool = False,
               pipeline: Callable[[Settings], list[Stage]] = stages, **settings) -> StudyRun:
    """Return what :func:`run_study` would do, as outcomes of state ``pending`` and others; nothing is written."""
    run, spec, study = _checked(path, formula, output, people, pipeline, verify, settings)
    plan_stages(run, spec, [p.id for p in study.people if p.id not in run.missing])
    return run


def plan_again(path, *, output=None, session: str = "") -> StudyRun:
    """Return what the last run would do if it were repeated now; images are not checked.

    Raises
    ------
    StudyError
        If the study was never run.
    """
    study = Study(Path(path), session, output)
    run = StudyRun()
    plan_stages(run, RunSpec(str(study.root), str(study.output), last_settings(study), stages),
                [p.id for p in study.people])
    return run


def make_report(path, output=None, session: str = "", progressCallback: ProgressCallback | None = None) -> Path:
    """Do the last group stage again, with the settings of the last run, from what people have; return the report.

    Raises
    ------
    StudyError
        If the study was never run, or its report cannot be made.
    """
    study = Study(Path(path), session, output)
    spec = RunSpec(str(study.root), str(study.output), last_settings(study), stages)
    with _resumable(study):
        outcomes = run_group(spec, [p.id for p in study.people], len(spec.stages()) - 1, progressCallback)
    failed = [o for o in outcomes if o.state == "failed"]
    report = study.output / REPORT
    if failed or not report.exists():
        raise StudyError(f"The report cannot be made: {failed[0].message if failed else 'nothing was run yet.'}")
    return report


def _checked(path, formula: str, output, people: Sequence[str], pipeline, verify: bool, settings: dict,
             ) -> tuple[StudyRun, RunSpec, Study]:
    """Validate a study; people with errors are missing from the run."""
    chosen = make_settings(formula=formula, **settings)
    study = Study(Path(path), chosen.session, output, tuple(people))
    run = StudyRun(findings=validate(study, chosen, trusted=read_before(study)))
    errors = [f for f in run.findings if f.severity == "error"]
    fatal = [f for f in errors if not f.person or chosen.on_error == "stop"]
    if fatal:
        listed = "\n".join(f"- {f}" for f in fatal)
        raise StudyError(f"The study cannot be run; {len(fatal)} problem(s):\n{listed}", anchor="study-validate")
    run.missing.update({f.person: f.problem for f in errors})
    return run, RunSpec(str(study.root), str(study.output), chosen, pipeline, verify), study


def _write_timings(run: StudyRun, study: Study) -> None:
    table, path = run.timings(), study.output / "group" / "timings.tsv"
    if path.exists() and not table.rows:  # nothing was done: the last times stay
        return
    table.write(path)
    if study.simulated:
        label_results([path, path.with_suffix(".json")])


@contextmanager
def _resumable(study: Study, alone: bool = True) -> Iterator[None]:
    """Hold the study's lock where a run is `alone` in it; a full disk is one sentence."""
    try:
        with exclusive(study.output) if alone else nullcontext():
            yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StudyError("The disk is full: free some space and run again; finished steps are kept.",
                         anchor="study-run") from error
