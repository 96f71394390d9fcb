"""Run a study: validate, work on people (in parallel), then on the group; resume where a run was interrupted."""

from __future__ import annotations

import errno
import functools
import importlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import SimpleITK as sitk

from DiscRelaxometryLib.errors import Cancelled, StudyError
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange
from DiscRelaxometryLib.tables import Column, Table

from ..folder import Finding, Settings, Study, describe_results, label_results, make_settings, validate
from . import provenance
from .steps import Outcome, Step, WorkDue, record_path, run_steps
from .workers import Workers

PIPELINE = "DiscStudyLib.steps.pipeline:stages"
#: How long to wait for the workers of a killed run to end.
LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Stage:
    """Steps that are run for each person (``person``) or once (``group``).

    Attributes
    ----------
    kind : str
    steps : tuple of Step
    imports : tuple of str
        Modules that take long to import, imported in this process while the last people are worked on in others.
    """

    kind: str
    steps: tuple[Step, ...]
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSpec:
    """What a worker needs to know to work on a person; plain and picklable."""

    root: str
    output: str
    settings: Settings
    pipeline: str = PIPELINE
    dry_run: bool = False
    verify: bool = False
    peek: bool = False

    def study(self, *people: str) -> Study:
        """Return the study, restricted to some people."""
        return Study(Path(self.root), self.settings.session, Path(self.output), people)

    def stages(self) -> list[Stage]:
        """Return the stages of the pipeline for these settings."""
        module, name = self.pipeline.split(":")
        return getattr(importlib.import_module(module), name)(self.settings)


@dataclass
class StudyRun:
    """Result of a run.

    Attributes
    ----------
    outcomes : list of Outcome
        One a person and step, in the order of people, group last.
    findings : list of Finding
        What validation found.
    report : Path, optional
        The HTML report, where it was made.
    missing : dict
        Person -> why the person's results are incomplete.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    report: Path | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes that failed."""
        return [o for o in self.outcomes if o.state == "failed"]

    def timings(self) -> Table:
        """Return seconds and peak memory per step over people."""
        table = Table("timings", [Column("step"), Column("n", "", "Times the step was run"),
                                  Column("mean_s", "s", "Mean duration"), Column("max_s", "s", "Longest duration"),
                                  Column("mean_cpu_s", "s", "Mean processor time, which other work does not lengthen"),
                                  Column("peak_memory", "MB", "Highest resident memory of a process so far")])
        for step in dict.fromkeys(o.step for o in self.outcomes if o.state == "done"):
            some = [o for o in self.outcomes if o.step == step and o.state == "done"]
            seconds, cpu = [o.seconds for o in some], [o.cpu_seconds for o in some]
            table.rows.append({"step": step, "n": len(some), "mean_s": sum(seconds) / len(seconds),
                               "max_s": max(seconds), "mean_cpu_s": sum(cpu) / len(cpu),
                               "peak_memory": max(o.peak_memory_mb for o in some)})
        return table


def run_study(path, formula: str = "", *, processes: int = 1, scheduler: str = "", output=None,
              people: Sequence[str] = (), dry_run: bool = False, verify: bool = False,
              memory_gb: float | None = None, resources: dict | None = None, pipeline: str = PIPELINE,
              progressCallback: ProgressCallback | None = None, **settings) -> StudyRun:
    """Run a whole study: segmentation, maps, atlas, statistics, report. Finished work is not done again.

    Parameters
    ----------
    path : path
        Study folder (BIDS-like; see Docs/method/study.md).
    formula : str
        Model of the group analysis, such as ``"pfirrmann + age + C(sex)"``; empty makes maps and tables only.
    processes : int
        People worked on at the same time, each in a process of one thread; no more than there are cores, or than
        the memory allows. Where fewer people than processes are left, they share the cores.
    scheduler : str
        Address of a Dask scheduler, instead of local processes; its workers must see the study folder.
    output : path, optional
        Results folder; by default ``derivatives/disc-relaxometry`` in the study.
    people : sequence of str
        Restrict the run to these people.
    dry_run : bool
        Only say what would be done.
    verify : bool
        Check the content of existing results, not only size and time.
    memory_gb : float, optional
        Memory a local worker may use.
    resources : dict, optional
        Dask resources a person needs, such as ``{"GPU": 1}``.
    pipeline : str
        ``module:function`` that gives the stages.
    progressCallback : callable, optional
        ``progressCallback(fraction, text)``; raises Cancelled to stop.
    **settings
        See :class:`DiscStudyLib.folder.settings.Settings`.

    Returns
    -------
    StudyRun

    Raises
    ------
    StudyError
        If nothing can be run, or a person failed and ``on_error`` is ``stop``.
    """
    # One person at a time may use all cores; people side by side get one thread each, but for the last ones.
    share = "threads" not in settings and not scheduler
    settings.setdefault("threads", 1 if scheduler or processes > 1 else os.cpu_count() or 1)
    settings = make_settings(formula=formula, **settings)
    study = Study(Path(path), settings.session, output, tuple(people))
    spec = RunSpec(str(study.root), str(study.output), settings, pipeline, dry_run, verify)
    progress = progressCallback or silent
    progress(0.0, "Checking the study")
    run = StudyRun(findings=validate(study, settings, trusted=read_before(study)))
    _stop_on_findings(run, settings)
    excluded = {f.person: f.problem for f in run.findings if f.severity == "error" and f.person}
    ids = [p.id for p in study.people if p.id not in excluded]
    run.missing.update(excluded)
    with nullcontext() if dry_run else _exclusive(study) as lock:
        if not dry_run:
            describe_results(study, settings)
        cluster = {"scheduler": scheduler, "processes": processes, "keep": [lock] if lock else []}
        if memory_gb:
            cluster["memory_gb"] = memory_gb
        with Workers({} if dry_run else cluster, resources, share) as workers:
            _run_stages(run, spec, ids, progress, workers)
        if not dry_run:
            _write_tables(run, study)
    report = study.output / "report.html"
    run.report = report if report.exists() else None
    progress(1.0, "Finished")
    return run


def _run_stages(run: StudyRun, spec: RunSpec, ids, progress, workers: Workers) -> None:
    stages = spec.stages()
    for number, stage in enumerate(stages):
        part = subrange(progress, 0.02 + 0.98 * number / len(stages), 0.02 + 0.98 * (number + 1) / len(stages))
        if stage.kind == "person":
            after = stages[number + 1].imports if number + 1 < len(stages) else ()
            _person_stage(run, spec, ids, number, workers, part, after)
        else:
            run.outcomes += run_group(spec, ids, number, part, dict(run.missing))
    order = {name: n for n, name in enumerate([*ids, ""])}
    run.outcomes.sort(key=lambda o: order[o.person])


def _person_stage(run: StudyRun, spec: RunSpec, ids, number: int, workers: Workers, progress,
                  imports: Sequence[str]) -> None:
    # Who has nothing to do needs no worker: a finished study starts none.
    settled = _settled(spec, ids, number) if workers.parallel(len(ids)) else {}
    due = [p for p in ids if p not in settled]
    if workers.parallel(len(due)):  # side by side, who takes longest begins first, so that all end together
        due.sort(key=functools.partial(_work, spec), reverse=True)
    results = workers.map(functools.partial(run_person, spec, stage=number), due, progress, imports)
    known = ((person, outcomes, "") for person, outcomes in settled.items())
    for finished, (person, outcomes, error) in enumerate(itertools.chain(known, results), start=1):
        outcomes = outcomes if outcomes is not None else [Outcome(person, "worker", "failed", error)]
        run.outcomes += outcomes
        failed = [o for o in outcomes if o.state == "failed"]
        if failed:
            run.missing.setdefault(person, f"{failed[0].step}: {failed[0].message}")
            if spec.settings.on_error == "stop" and not spec.dry_run:
                raise StudyError(f"{person}, step {failed[0].step}: {failed[0].message}", anchor="study-run")
        progress(finished / max(len(ids), 1), f"{person}: finished ({finished} of {len(ids)})")


def _work(spec: RunSpec, person: str) -> int:
    """Return the size of a person's images in bytes, as a guess at the work."""
    files = spec.study(person).person(person)
    paths = [*files.anatomical[:1], *(path for series in files.series for path in series.files)]
    return sum(path.stat().st_size for path in paths if path.exists())


def _settled(spec: RunSpec, ids: Sequence[str], number: int) -> dict[str, list[Outcome]]:
    """Return the outcomes of the people for whom no step of a stage has to be run."""
    found = {}
    for person in ids if not spec.verify else ():  # to verify is work
        with suppress(WorkDue):
            found[person] = run_person(replace(spec, peek=True), person, number)
    return found


def run_person(spec: RunSpec, person: str, stage: int = 0, progressCallback=None, threads: int = 0) -> list[Outcome]:
    """Run one stage of one person, the unit of work that is sent to a worker; `threads` replaces the settings'."""
    if threads:
        spec = replace(spec, settings=replace(spec.settings, threads=threads))
    # One thread a person: several people run at once, and sums in a fixed order give identical results everywhere.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    study = spec.study(person)
    stages = spec.stages()
    records = read_records(study, person, stages[:stage])
    records.update(read_records(study, "", stages[:stage], kind="group"))
    return run_steps(stages[stage].steps, study, spec.settings, study.person(person), spec.dry_run, spec.verify,
                     progressCallback, records, peek=spec.peek)


def run_group(spec: RunSpec, ids: Sequence[str], stage: int, progressCallback=None,
              missing: dict | None = None) -> list[Outcome]:
    """Run a group stage in this process, on the people in `ids`."""
    study = spec.study(*ids) if ids else spec.study()
    stages = spec.stages()
    records = read_records(study, "", stages[:stage], kind="group")
    everyone = {p: read_records(study, p, stages[:stage]) for p in ids}
    return run_steps(stages[stage].steps, study, spec.settings, None, spec.dry_run, spec.verify, progressCallback,
                     records, everyone, missing or {})


def read_records(study: Study, person: str, stages: Sequence[Stage], kind: str = "person") -> dict:
    """Return the finished records of a person (or, with kind ``group``, of the group) by step."""
    found = {}
    for stage in stages:
        for step in stage.steps if stage.kind == kind else ():
            record = provenance.read_record(record_path(study, person, step.name))
            if record and record.status == "done":
                found[step.name] = record
    return found


def report_only(path, output=None, session: str = "", pipeline: str = PIPELINE, progressCallback=None) -> Path:
    """Do the last group stage again, with the settings of the last run, from what people have; return the report.

    Raises
    ------
    StudyError
        If the study was never run, or its report can not be made.
    """
    study = Study(Path(path), session, output)
    spec = RunSpec(str(study.root), str(study.output), last_settings(study), pipeline)
    with _exclusive(study):
        outcomes = run_group(spec, [p.id for p in study.people], len(spec.stages()) - 1, progressCallback)
    failed = [o for o in outcomes if o.state == "failed"]
    report = study.output / "report.html"
    if failed or not report.exists():
        raise StudyError(f"The report can not be made: {failed[0].message if failed else 'nothing was run yet.'}")
    return report


def last_settings(study: Study) -> Settings:
    """Return the settings of the study's last run."""
    path = study.output / "settings.json"
    if not path.exists():
        raise StudyError("The study was not run yet: use 'disc-relaxometry run' first.", anchor="study-run")
    return make_settings(**json.loads(path.read_text(encoding="utf-8")))


def read_before(study: Study) -> set[Path]:
    """Return images that an earlier run read and that have not changed since (size and time)."""
    found: set[Path] = set()
    for path in study.output.glob("sub-*/prov/*_prov.json"):
        record = provenance.read_record(path)
        for name, entry in record.inputs.items() if record and record.status == "done" else ():
            file = study.absolute(name)
            if file.exists() and (file.stat().st_size, file.stat().st_mtime_ns) == (entry["size"], entry["mtime_ns"]):
                found.add(file)
    return found


def _stop_on_findings(run: StudyRun, settings: Settings) -> None:
    errors = [f for f in run.findings if f.severity == "error"]
    fatal = [f for f in errors if not f.person or settings.on_error == "stop"]
    if fatal:
        listed = "\n".join(f"- {f}" for f in fatal)
        raise StudyError(f"The study can not be run; {len(fatal)} problem(s):\n{listed}", anchor="study-validate")


def _write_tables(run: StudyRun, study: Study) -> None:
    table, path = run.timings(), study.output / "group" / "timings.tsv"
    if path.exists() and not table.rows:  # nothing was done: the last times stay
        return
    table.write(path)
    if study.simulated:
        label_results([path, path.with_suffix(".json")])


@contextmanager
def _exclusive(study: Study) -> Iterator[int]:
    """Hold the study's lock and yield its descriptor: two runs in one folder would overwrite each other.

    The system releases the lock of a killed run when its workers, which notice within a second, have ended too.
    """
    study.output.mkdir(parents=True, exist_ok=True)
    with open(study.output / ".lock", "w") as stream:
        patience = time.monotonic() + LOCK_SECONDS
        while not _locked(stream):
            if time.monotonic() > patience:
                raise StudyError("Another run is working on this study: wait for it, or stop it.", anchor="study-run")
            time.sleep(0.1)
        provenance.remove_partials(study.output)
        try:
            yield stream.fileno()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise StudyError("The disk is full: free some space and run again; finished steps are kept.",
                             anchor="study-run") from error


def _locked(stream) -> bool:
    try:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: no lock; the atomic writes still leave no half file
        pass
    except BlockingIOError:
        return False
    return True


__all__ = ["Cancelled", "RunSpec", "Stage", "StudyRun", "last_settings", "report_only", "run_group", "run_person",
           "run_study"]
