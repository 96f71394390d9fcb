"""What a step sees: the study, its settings, and what earlier steps wrote for a person or for everyone."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.tables import Table

from ..folder import Person, Settings, Study
from .provenance import Record


@dataclass
class Context:
    """What a step sees of a person's results, or of the group's."""

    study: Study
    settings: Settings
    #: Records of the steps done before, by step name.
    records: dict[str, Record]
    _: KW_ONLY
    #: Warnings the step adds.
    notes: list[str] = field(default_factory=list)
    #: Numbers the step found.
    facts: dict = field(default_factory=dict)
    #: Outputs of the step; removed again if it fails.
    written: list[Path] = field(default_factory=list)
    #: Whether existing results are checked by content, not only by size and time.
    verify: bool = False

    @property
    def name(self) -> str:
        """Id of the person; empty for the group."""
        return ""

    @property
    def sources(self) -> list[Mapping[str, Record]]:
        """Records of all whose results a step may read."""
        return [self.records]

    @property
    def folder(self) -> Path:
        """Output folder of the person, or of the group."""
        return self.study.output / (self.name or "group")

    def path(self, name: str, folder: str = "anat") -> Path:
        """Return the path of an output to write: ``anat/sub-XX_<name>``, or ``group/<name>`` for a group step."""
        path = self.folder / folder / f"{self.name}_{name}" if self.name else self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.written.append(path)
        return path

    def write(self, table: Table, name: str) -> Path:
        """Write a table and its sidecar as outputs; return the table's path."""
        path = self.path(name)
        self.written.append(path.with_suffix(".json"))
        return table.write(path)

    def output_of(self, step: str, ending: str) -> Path | None:
        """Return the output of an earlier step whose name ends with `ending`, or None."""
        outputs = self.records[step].outputs if step in self.records else ()
        return next((self.study.absolute(n) for n in outputs if n.endswith(ending)), None)

    def needed(self, step: str, ending: str) -> Path:
        """Return the output of an earlier step that has always written one.

        Raises
        ------
        StudyError
            If its record lists none.
        """
        path = self.output_of(step, ending)
        if path is None:
            raise StudyError(f"Step {step} has no result '{ending}': run the study again.", anchor="study-run")
        return path


@dataclass
class PersonContext(Context):
    """What a person's step sees."""

    person: Person

    @property
    def name(self) -> str:
        """Id of the person."""
        return self.person.id


@dataclass
class GroupContext(Context):
    """What a group step sees."""

    #: Person -> step name -> record.
    everyone: Mapping[str, dict[str, Record]] = field(default_factory=dict)
    #: Person -> why the person's results are incomplete.
    missing: Mapping[str, str] = field(default_factory=dict)
    #: Shares out a step's tasks among other machines; see :class:`DiscStatsLib.settings.AnalysisSettings`.
    distribute: Callable | None = None

    @property
    def sources(self) -> list[Mapping[str, Record]]:
        """Records of the group and of everyone."""
        return [self.records, *self.everyone.values()]

    def of(self, person: str) -> Context:
        """Return what there is of a person."""
        return Context(self.study, self.settings, self.everyone[person])
