"""Steps of a study: what each needs, when it is current, and how it is run and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError

from ..folder import Person, Settings, Study, label_results
from . import provenance
from .provenance import Record


@dataclass
class Context:
    """What a step sees.

    Attributes
    ----------
    study : Study
    settings : Settings
    person : Person, optional
        None for a group step.
    records : dict
        Records of the steps done before, by step name.
    everyone : mapping
        For group steps: person -> step name -> record.
    missing : mapping
        For group steps: person -> why the person's results are incomplete.
    notes : list of str
        Warnings the step adds.
    facts : dict
        Numbers the step found.
    written : list of Path
        Outputs asked for, removed again if the step fails.
    """

    study: Study
    settings: Settings
    person: Person | None
    records: Mapping[str, Record]
    everyone: Mapping[str, Mapping[str, Record]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Output folder of the person, or of the group."""
        return self.study.output / (self.person.id if self.person else "group")

    def path(self, name: str, folder: str = "anat") -> Path:
        """Return the path of an output to write: ``anat/sub-XX_<name>``, or ``group/<name>`` for a group step."""
        path = self.folder / folder / f"{self.person.id}_{name}" if self.person else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.append(path)
        return path

    def output_of(self, step: str, ending: str, person: str = "") -> Path | None:
        """Return the output of an earlier step (of `person`, for a group step) ending with `ending`, or None."""
        record = (self.everyone.get(person, {}) if person else self.records).get(step)
        if record is None or record.status != "done":
            return None
        return next((self.study.absolute(n) for n in record.outputs if n.endswith(ending)), None)


@dataclass(frozen=True)
class Step:
    """A unit of work that is done, redone, or skipped as a whole.

    Attributes
    ----------
    name : str
    version : str
        Changed when the step's results change.
    run : callable
        ``run(context) -> list of output paths``.
    inputs : callable
        ``inputs(context) -> list of Path``: source files read.
    parameters : tuple of str
        Settings that shape the result.
    needs : tuple of str
        Steps whose outputs it reads.
    applies : callable
        ``applies(context) -> bool``: whether the person has what the step is about.
    optional : tuple of str
        Steps whose outputs it reads where they succeeded.
    extra : callable
        ``extra(context) -> dict``: further values that decide on redoing, such as a hash of network weights.
    """

    name: str
    version: str
    run: Callable[[Context], Sequence[Path]]
    inputs: Callable[[Context], Sequence[Path]] = lambda context: ()
    parameters: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    applies: Callable[[Context], bool] = lambda context: True
    optional: tuple[str, ...] = ()
    extra: Callable[[Context], Mapping] = lambda context: {}


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


class WorkDue(Exception):
    """A step has to be run, where finished work alone was asked for."""


def record_path(study: Study, person: str, step: str) -> Path:
    """Return where the record of a step lies."""
    if person:
        return study.output / person / "prov" / f"{person}_step-{step}_prov.json"
    return study.output / "group" / "prov" / f"step-{step}_prov.json"


def run_steps(steps: Sequence[Step], study: Study, settings: Settings, person: Person | None,
              dry_run: bool = False, verify: bool = False, progressCallback=None,
              records: dict[str, Record] | None = None, everyone: Mapping[str, Mapping[str, Record]] | None = None,
              missing: Mapping[str, str] | None = None, peek: bool = False) -> list[Outcome]:
    """Run the steps that are not current, in order; a failure blocks only the steps that need it.

    Parameters
    ----------
    steps : sequence of Step
        In an order in which needs come first.
    study : Study
    settings : Settings
    person : Person, optional
        None for group steps.
    dry_run : bool
        Only say what would be done (``pending``).
    verify : bool
        Hash the outputs' content even where size and time are unchanged.
    progressCallback : callable, optional
        ``progressCallback(fraction, text)``; may raise Cancelled.
    records : dict, optional
        Records of earlier steps, extended here.
    everyone : mapping, optional
        For group steps: person -> step -> record.
    missing : mapping, optional
        For group steps: person -> why the person's results are incomplete.
    peek : bool
        Run nothing: the same outcomes where all steps are current, failed for good or blocked.

    Returns
    -------
    list of Outcome
        One for each step that applies.

    Raises
    ------
    WorkDue
        With `peek`, at the first step that would run.
    """
    records = {} if records is None else records
    outcomes = []
    name = person.id if person else "group"
    for number, step in enumerate(steps):
        context = Context(study, settings, person, records, everyone or {}, missing or {})
        # Before people have results, a plan can not ask a group step whether it will have work.
        unknown = dry_run and person is None and not all(context.everyone.values())
        if not unknown and not step.applies(context):
            if not dry_run:
                _forget(step, context)
            continue
        if progressCallback:
            progressCallback(number / len(steps), f"{name}: {step.name}")
        outcome = _run_one(step, context, dry_run, verify, peek)
        outcomes.append(outcome)
    if progressCallback:
        progressCallback(1.0, f"{name}: finished")
    return outcomes


def _run_one(step: Step, context: Context, dry_run: bool, verify: bool, peek: bool = False) -> Outcome:
    study, person = context.study, context.person.id if context.person else ""
    blocked = [n for n in step.needs if n not in context.records]
    if blocked:
        state = "pending" if dry_run else "blocked"
        if not dry_run:
            _forget(step, context)
        return Outcome(person, step.name, state, f"needs {', '.join(blocked)}")
    path = record_path(study, person, step.name)
    earlier = provenance.read_record(path)
    if peek and earlier is None:  # its inputs need not be hashed to know
        raise WorkDue
    started, cpu = time.perf_counter(), time.process_time()
    try:
        key, parameters, inputs = _work(step, context, earlier)
    except Cancelled:
        raise
    except Exception as error:  # reading a bad input must not stop the other people
        return Outcome(person, step.name, "failed", _sentence(error, study))
    if earlier and earlier.key == key:
        if earlier.status == "done" and provenance.outputs_intact(earlier, study.absolute, verify):
            context.records[step.name] = earlier
            return Outcome(person, step.name, "current", notes=list(earlier.notes))
        if earlier.status == "failed" and earlier.permanent:
            return Outcome(person, step.name, "failed", earlier.message)
    if dry_run:
        return Outcome(person, step.name, "pending", "changed" if earlier else "never done")
    if peek:
        raise WorkDue
    record = Record(step.name, person, key, parameters=parameters, inputs=inputs)
    # The record goes first: from here on the step counts as not done, whatever happens.
    path.unlink(missing_ok=True)
    _remove_outputs(earlier, study)
    try:
        outputs = step.run(context)
        outputs = label_results(outputs) if study.simulated else outputs
        record.outputs = provenance.fingerprints(outputs, study.relative)
        record.facts, record.notes = context.facts, context.notes
    except Cancelled:
        raise
    except Exception as error:
        record.status, record.message = "failed", _sentence(error, study)
        record.permanent = isinstance(error, DiscRelaxometryError)
        for leftover in context.written:
            leftover.unlink(missing_ok=True)
    record.seconds, record.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    record.peak_memory_mb = provenance.peak_memory_mb()
    return _finish(record, path, context)


def _finish(record: Record, path: Path, context: Context) -> Outcome:
    """Write the record; a full disk here makes the step failed, and it will be redone."""
    try:
        provenance.write_record(record, path)
    except OSError as error:
        record.status, record.message = "failed", _sentence(error, context.study)
    if record.status == "done":
        context.records[record.step] = record
    return Outcome(record.person, record.step, record.status, record.message, record.seconds,
                   record.cpu_seconds, record.peak_memory_mb, list(record.notes))


def _work(step: Step, context: Context, earlier: Record | None):
    """Return the step's key, parameters and input fingerprints."""
    paths = [Path(p) for p in step.inputs(context)]
    known = earlier.inputs if earlier else {}
    inputs = provenance.fingerprints(paths, context.study.relative, known)
    # Outputs of earlier steps were hashed when they were written: take those hashes.
    for need in (*step.needs, *step.optional):
        if need in context.records:
            inputs.update(context.records[need].outputs)
        for records in context.everyone.values():
            if need in records:
                inputs.update(records[need].outputs)
    parameters = {**context.settings.pick(*step.parameters), **step.extra(context)}
    if context.study.simulated:
        parameters["simulated"] = True
    return provenance.step_key(step.name, step.version, parameters, inputs), parameters, inputs


def _remove_outputs(earlier: Record | None, study: Study) -> None:
    """Delete what the step wrote before, so that no stale file survives a change of settings."""
    for name in earlier.outputs if earlier else ():
        study.absolute(name).unlink(missing_ok=True)


def _forget(step: Step, context: Context) -> None:
    """Remove results of a step that no longer applies (its input was withdrawn)."""
    path = record_path(context.study, context.person.id if context.person else "", step.name)
    earlier = provenance.read_record(path)
    if earlier:
        path.unlink(missing_ok=True)
        _remove_outputs(earlier, context.study)


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
