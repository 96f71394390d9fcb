"""Work on the stages of a study: people in parallel, then the group; resumed where a run was interrupted."""

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import SimpleITK as sitk

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.progress import subrange
from DiscRelaxometryLib.tables import Column, Table

from ..folder import Finding, Settings, Study
from . import provenance
from .context import GroupContext, PersonContext
from .lock import exclusive
from .reviewed import excluded_people, undecided
from .steps import Outcome, Planned, Stage, execute, plan, record_path
from .workers import Workers


@dataclass(frozen=True)
class RunSpec:
    """What a worker needs to know to work on a person; plain and picklable."""

    root: str
    output: str
    settings: Settings
    #: ``pipeline(settings) -> list of Stage``, a function of a module.
    pipeline: Callable[[Settings], list[Stage]]
    #: Whether existing results are checked by content.
    verify: bool = False

    def study(self, *people: str) -> Study:
        """Return the study, restricted to some people."""
        return Study(Path(self.root), self.settings.session, Path(self.output), people)

    def stages(self) -> list[Stage]:
        """Return the stages of the pipeline for these settings."""
        return self.pipeline(self.settings)


@dataclass
class StudyRun:
    """Result of a run."""

    #: One per person and step, in the order of people, group last.
    outcomes: list[Outcome] = field(default_factory=list)
    #: What validation found.
    findings: list[Finding] = field(default_factory=list)
    #: The HTML report, where it was made.
    report: Path | None = None
    #: Person -> why the person's results are incomplete.
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Outcome]:
        """Outcomes that failed."""
        return [o for o in self.outcomes if o.state == "failed"]

    def add(self, person: str, outcomes: Sequence[Outcome]) -> None:
        """Add a person's outcomes; the first failure says why results are missing."""
        self.outcomes += outcomes
        failed = next((o for o in outcomes if o.state == "failed"), None)
        if failed and person:
            self.missing.setdefault(person, f"{failed.step}: {failed.message}")

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


def run_stages(run: StudyRun, spec: RunSpec, ids: Sequence[str], progress, workers: Workers,
               kinds: Collection[str] = ("person", "group")) -> None:
    """Run the stages of `kinds` on the people in `ids`, adding to `run`."""
    stages = spec.stages()
    for number, stage in enumerate(stages):
        part = subrange(progress, number / len(stages), (number + 1) / len(stages))
        if stage.kind not in kinds:
            continue
        if stage.kind == "person":
            after = stages[number + 1].imports if number + 1 < len(stages) and "group" in kinds else ()
            _person_stage(run, spec, ids, number, workers, part, after)
        else:
            run.missing.update(excluded_people(spec.study(*ids), ids))
            wide = replace(spec.settings, threads=max(spec.settings.threads, workers.idle))
            run.add("", run_group(replace(spec, settings=wide), ids, number, part, run.missing, workers.distribute))
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
        run.add(person, outcomes if outcomes is not None else [Outcome(person, "worker", "failed", error)])
        if spec.settings.on_error == "stop" and person in run.missing:
            raise StudyError(f"{person}, step {run.missing[person]}", anchor="study-run")
        progress(finished / max(len(ids), 1), f"{person}: finished ({finished} of {len(ids)})")


def _work(spec: RunSpec, person: str) -> int:
    """Return the size of a person's images in bytes, as a guess at the work."""
    files = spec.study(person).person(person)
    paths = [*files.anatomical[:1], *(path for series in files.series for path in series.files)]
    return sum(path.stat().st_size for path in paths if path.exists())


def _settled(spec: RunSpec, ids: Sequence[str], number: int) -> dict[str, list[Outcome]]:
    """Return the outcomes of the people for whom a stage has nothing to write."""
    plans = {p: plan_person(spec, p, number) for p in ids} if not spec.verify else {}  # to verify is work
    return {person: [item.outcome() for item in planned] for person, planned in plans.items()
            if not any(item.has_work for item in planned)}


def plan_person(spec: RunSpec, person: str, stage: int = 0, due: Collection[str] = ()) -> list[Planned]:
    """Return what one stage has to do for one person; `due` are the steps of earlier stages still to be run."""
    study, stages = spec.study(person), spec.stages()
    records = read_records(study, person, stages[:stage])
    records.update(read_records(study, "", stages[:stage]))
    context = PersonContext(study, spec.settings, records, study.person(person), verify=spec.verify)
    return plan(stages[stage].steps, context, due)


def run_person(spec: RunSpec, person: str, stage: int = 0, progressCallback=None, threads: int = 0) -> list[Outcome]:
    """Run one stage of one person, the unit of work that is sent to a worker; `threads` replaces the settings'."""
    if threads:
        spec = replace(spec, settings=replace(spec.settings, threads=threads))
    # One thread per person: several people run at once, and sums in a fixed order give identical results everywhere.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    folder = Path(spec.output) / person
    with exclusive(folder / "prov", person):
        provenance.remove_partials(folder)
        return execute(plan_person(spec, person, stage), progressCallback)


def plan_group(spec: RunSpec, ids: Sequence[str], stage: int, missing: Mapping[str, str],
               due: Collection[str] = (), distribute: Callable | None = None) -> list[Planned]:
    """Return what a group stage has to do on the people in `ids`; `due` as in :func:`plan_person`."""
    study, stages = spec.study(*ids), spec.stages()
    excluded = excluded_people(study, ids)
    context = GroupContext(study, spec.settings, read_records(study, "", stages[:stage]),
                           {p: read_records(study, p, stages[:stage]) for p in ids if p not in excluded},
                           {**missing, **excluded}, verify=spec.verify, distribute=distribute)
    return plan(stages[stage].steps, context, due)


def run_group(spec: RunSpec, ids: Sequence[str], stage: int, progressCallback=None,
              missing: Mapping[str, str] | None = None, distribute: Callable | None = None) -> list[Outcome]:
    """Run a group stage in this process, on the people in `ids`; `distribute` shares out blocks of voxels.

    Raises
    ------
    StudyError
        If the settings require a review, and discs are undecided.
    """
    if spec.settings.require_review != "none":
        study, waiting = spec.study(*ids), [p for p in ids if p not in (missing or {})]
        discs = undecided(study, spec.settings, waiting, spec.settings.require_review)
        if discs:
            people = len({d.person for d in discs})
            raise StudyError(f"{len(discs)} disc(s) of {people} participant(s) wait for review, the first is "
                             f"{discs[0].person} {discs[0].level}: use 'disc-relaxometry review', then run again.",
                             anchor="review-decisions")
    for within, age in (("group/**", 0.0), ("figures", 0.0), (".", 60.0)):  # a review may be writing into the last
        provenance.remove_partials(Path(spec.output), within, age)
    return execute(plan_group(spec, ids, stage, missing or {}, distribute=distribute), progressCallback)


def plan_stages(run: StudyRun, spec: RunSpec, ids: Sequence[str]) -> None:
    """Add to `run` what :func:`run_stages` would do; nothing is written."""
    due: dict[str, set[str]] = {name: set() for name in (*ids, "")}
    for number, stage in enumerate(spec.stages()):
        for name in ids if stage.kind == "person" else [""]:
            planned = (plan_person(spec, name, number, due[name] | due[""]) if name else
                       plan_group(spec, ids, number, run.missing, set().union(*due.values())))
            run.add(name, [item.outcome() for item in planned if item.state != "withdrawn"])
            due[name] |= {item.step.name for item in planned if item.state == "pending"}
    run.outcomes.sort(key=lambda o: (not o.person, o.person))


def incomplete(spec: RunSpec, ids: Sequence[str]) -> dict[str, str]:
    """Return the people whose steps are not all current, and why: the group is not to read stale results."""
    stages, found = spec.stages(), StudyRun()
    for person in ids:
        for number, stage in enumerate(stages):
            planned = plan_person(spec, person, number) if stage.kind == "person" else []
            found.add(person, [item.outcome() for item in planned])
            due = [item.step.name for item in planned if item.state == "pending"]
            if due:
                found.missing.setdefault(person, f"Not done yet: {', '.join(due)}; run the participant level first.")
    return found.missing


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


def person_records(study: Study, person: str) -> dict:
    """Return all finished records of a person by step, whatever the pipeline was."""
    records = map(provenance.read_record, sorted((study.output / person / "prov").glob("*_prov.json")))
    return {r.step: r for r in records if r and r.status == "done"}


def read_records(study: Study, person: str, stages: Sequence[Stage]) -> dict:
    """Return the finished records of a person, or of the group (an empty id), by step."""
    kind, found = "person" if person else "group", {}
    for step in (step for stage in stages if stage.kind == kind for step in stage.steps):
        record = provenance.read_record(record_path(study, person, step.name))
        if record and record.status == "done":
            found[step.name] = record
    return found
