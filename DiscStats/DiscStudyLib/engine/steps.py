"""Steps of a study: what each needs, which are due (``plan``), and how they are run and recorded (``execute``)."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError
from DiscRelaxometryLib.progress import silent

from ..folder import Study, label_results
from . import provenance
from .context import Context
from .provenance import Record

C = TypeVar("C", bound=Context)


@dataclass(frozen=True)
class Step(Generic[C]):
    """A unit of work that is done, redone, or skipped as a whole."""

    name: str
    #: Changed when the step's results change.
    version: str
    #: ``run(context)``; the context notes what it writes.
    run: Callable[[C], None]
    #: ``inputs(context) -> list of Path``: source files read.
    inputs: Callable[[C], Sequence[Path]] = lambda context: ()
    #: Settings that shape the result.
    parameters: tuple[str, ...] = ()
    #: Steps whose outputs it reads.
    needs: tuple[str, ...] = ()
    #: ``applies(context) -> bool``: whether the person has what the step is about.
    applies: Callable[[C], bool] = lambda context: True
    #: Steps whose outputs it reads where they succeeded.
    optional: tuple[str, ...] = ()
    #: ``extra(context) -> dict``: further values that decide on redoing, such as a hash of network weights.
    extra: Callable[[C], Mapping] = lambda context: {}

    @property
    def reads(self) -> tuple[str, ...]:
        """Steps whose outputs it reads."""
        return (*self.needs, *self.optional)


@dataclass(frozen=True)
class Stage:
    """Steps that are run for each person (``person``) or once (``group``)."""

    kind: str
    steps: tuple[Step, ...]
    #: Modules that take long to import, imported in this process while the last people are worked on in others.
    imports: tuple[str, ...] = ()


@dataclass
class Outcome:
    """Result of one step: state is ``done``, ``current`` (nothing to do), ``failed``, ``blocked`` or ``pending``."""

    person: str
    step: str
    state: str
    message: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Planned:
    """What there is to do about a step."""

    step: Step
    #: ``current`` (nothing), ``pending`` (it is due), ``failed`` (the same inputs failed before), ``blocked`` (a step
    #: that it needs has no results) or ``withdrawn`` (it no longer applies: its results go).
    state: str
    #: What the step will see; its `records` are shared by all steps of a plan.
    context: Context
    #: Why.
    message: str = ""
    #: Record of the last time.
    earlier: Record | None = None
    #: The record to fill in, with key, parameters and inputs; None where they need not be known.
    record: Record | None = None

    @property
    def key(self) -> str:
        """Hash of the work: step, version, parameters and contents of the inputs; empty where it is not known."""
        return self.record.key if self.record else ""

    @property
    def has_work(self) -> bool:
        """Whether executing it writes or removes anything."""
        return self.state == "pending" or self.outdated

    @property
    def outdated(self) -> bool:
        """Whether results of the last time are there that nothing stands for any more."""
        unreadable = self.state == "failed" and self.record is None  # its inputs, so that nobody knows whether it holds
        return self.earlier is not None and (unreadable or self.state in ("blocked", "withdrawn"))

    def outcome(self) -> Outcome:
        """Return the outcome of a step that is not run."""
        notes = list(self.earlier.notes) if self.state == "current" and self.earlier else []
        return Outcome(self.context.name, self.step.name, self.state, self.message, notes=notes)


def record_path(study: Study, person: str, step: str) -> Path:
    """Return where the record of a step lies."""
    if person:
        return study.output / person / "prov" / f"{person}_step-{step}_prov.json"
    return study.output / "group" / "prov" / f"step-{step}_prov.json"


def plan(steps: Sequence[Step], context: Context, due: Collection[str] = ()) -> list[Planned]:
    """Say which steps are due, and why, for each that applies or whose results have to be removed; nothing is written.

    Needs come first; the context has the records of earlier stages, whose steps still to be run are `due`: what reads
    them is due too.
    """
    context = replace(context, records=dict(context.records))
    due, planned = set(due), []
    for step in steps:
        item = _plan_one(step, replace(context, facts={}, notes=[], written=[]), due)
        if item is None:
            continue
        planned.append(item)
        if item.state == "pending":
            due.add(step.name)
        elif item.state == "current" and item.earlier:
            context.records[step.name] = item.earlier
    return planned


def _plan_one(step: Step, context: Context, due: Collection[str] = ()) -> Planned | None:
    earlier = provenance.read_record(record_path(context.study, context.name, step.name))
    reads_due = [n for n in step.reads if n in due]
    # Before people have results, nobody can say whether a group step will have work.
    unknown = not context.name and reads_due
    if not unknown and not step.applies(context):
        return Planned(step, "withdrawn", context, earlier=earlier) if earlier else None
    if reads_due:
        return Planned(step, "pending", context, f"needs {', '.join(reads_due)}", earlier)
    blocked = [n for n in step.needs if n not in context.records]
    if blocked:
        return Planned(step, "blocked", context, f"needs {', '.join(blocked)}", earlier)
    if earlier is None:  # its inputs need not be hashed to know
        return Planned(step, "pending", context, "never done")
    try:
        record = _new_record(step, context, earlier)
    except Cancelled:
        raise
    except Exception as error:  # reading a bad input must not stop the other people
        return Planned(step, "failed", context, _sentence(error, context.study), earlier)
    if earlier.key == record.key:
        if earlier.status == "done" and provenance.outputs_intact(earlier, context.study.absolute, context.verify):
            return Planned(step, "current", context, "", earlier, record)
        if earlier.status == "failed" and earlier.permanent:
            return Planned(step, "failed", context, earlier.message, earlier, record)
    return Planned(step, "pending", context, "changed", earlier, record)


def execute(planned: Sequence[Planned], progressCallback=None) -> list[Outcome]:
    """Run the steps that are due, in order; a failure blocks only the steps that need it. Cancelled may be raised.

    Once a step has run, what follows is planned anew: its inputs may have turned out the same.
    """
    progress, outcomes, stale = progressCallback or silent, [], False
    for number, item in enumerate(planned):
        progress(number / len(planned), f"{item.context.name or 'group'}: {item.step.name}")
        now = _plan_one(item.step, item.context) if stale else item
        if now is None:
            continue
        if now.state == "pending":
            outcomes.append(_run(now))
        elif now.state != "withdrawn":
            outcomes.append(now.outcome())
        if now.state == "current" and now.earlier:
            now.context.records[now.step.name] = now.earlier
        if now.outdated:
            _forget(now)
        stale = stale or now.state == "pending"
    if planned:
        progress(1.0, f"{planned[0].context.name or 'group'}: finished")
    return outcomes


def _run(item: Planned) -> Outcome:
    step, context, study = item.step, item.context, item.context.study
    started, cpu = time.perf_counter(), time.process_time()
    try:
        record = item.record or _new_record(step, context, item.earlier)
    except Cancelled:
        raise
    except Exception as error:
        return Outcome(context.name, step.name, "failed", _sentence(error, study))
    _forget(item)  # the record goes first: from here on the step counts as not done, whatever happens
    try:
        step.run(context)
        outputs = label_results(context.written) if study.simulated else context.written
        record.outputs = provenance.fingerprints(outputs, study.relative)
        record.facts, record.notes = context.facts, context.notes
    except Cancelled:
        raise
    except Exception as error:
        record.status, record.message = "failed", _sentence(error, study)
        record.permanent = isinstance(error, DiscRelaxometryError) and not isinstance(error, OSError)
        for leftover in context.written:
            leftover.unlink(missing_ok=True)
            with suppress(OSError):  # of a folder that holds other results
                leftover.parent.rmdir()
    record.seconds, record.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    record.peak_memory_mb = provenance.peak_memory_mb()
    return _finish(record, context)


def _finish(record: Record, context: Context) -> Outcome:
    """Write the record; a full disk here makes the step failed, and it will be redone."""
    try:
        provenance.write_record(record, record_path(context.study, record.person, record.step))
    except OSError as error:
        record.status, record.message = "failed", _sentence(error, context.study)
    if record.status == "done":
        context.records[record.step] = record
    return Outcome(record.person, record.step, record.status, record.message, record.seconds,
                   record.cpu_seconds, record.peak_memory_mb, list(record.notes))


def _new_record(step: Step, context: Context, earlier: Record | None) -> Record:
    """Return a record with the step's key, parameters and input fingerprints."""
    paths = [Path(p) for p in step.inputs(context)]
    known = earlier.inputs if earlier else {}
    inputs = provenance.fingerprints(paths, context.study.relative, known)
    # Outputs of earlier steps were hashed when they were written: take those hashes.
    for need in step.reads:
        for records in context.sources:
            if need in records:
                inputs.update(records[need].outputs)
    parameters = {**context.settings.pick(*step.parameters), **step.extra(context)}
    if context.study.simulated:
        parameters["simulated"] = True
    key = provenance.step_key(step.name, step.version, parameters, inputs)
    return Record(step.name, context.name, key, parameters=parameters, inputs=inputs)


def _forget(item: Planned) -> None:
    """Remove the record and the results of the last time, so that no stale file survives a change of settings."""
    study = item.context.study
    if item.earlier:
        record_path(study, item.context.name, item.step.name).unlink(missing_ok=True)
        for name in item.earlier.outputs:
            study.absolute(name).unlink(missing_ok=True)


def _sentence(error: BaseException, study: Study) -> str:
    """Return an error as one sentence without absolute paths, which may hold names."""
    if isinstance(error, MemoryError):
        text = "Not enough memory: use fewer processes, or a machine with more."
    elif isinstance(error, OSError) and error.errno == 28:
        text = "The disk is full: free some space and run again; finished steps are kept."
    elif isinstance(error, DiscRelaxometryError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    text = text.replace(str(study.output), "output").replace(str(study.root), "study")
    return " ".join(text.split())
