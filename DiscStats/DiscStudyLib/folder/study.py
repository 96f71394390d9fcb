"""A study on disk: who takes part, which files they have, and where results go (BIDS-like)."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from DiscRelaxometryLib.echo import KINDS, component, group_series, series_name, stem
from DiscRelaxometryLib.errors import DesignError, EchoSeriesError, StudyError
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.tables import Table, read_tsv, typed

from .visits import EVERY, OWNER, sessions_of, visit_id, visit_table

#: Results go here, below the study folder, as a BIDS derivative.
DERIVATIVES = "derivatives/disc-relaxometry"
#: The table of participants, and the report, in the folders of study and results.
TABLE, REPORT = "participants.tsv", "report.html"
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
PERSON_ID = re.compile(r"^sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?$")
_SUFFIXES = {"anatomical": ("T2w",), "T1rho": ("T1rho", "T1rhow"), "T2": ("MESE", "T2series"), "labels": ("dseg",)}


@dataclass(frozen=True)
class Series:
    """An echo series as files."""

    #: File name without echo entities and suffix.
    name: str
    #: One 4-D file, or one file per echo in the order of their names.
    files: tuple[Path, ...]
    #: ``T1rho``, ``T2`` or ``mapss`` (both in one acquisition).
    kind: str


@dataclass(frozen=True)
class Person:
    """The files of one person; several candidates for one role are kept, and reported by ``validate``."""

    #: ``sub-XX``.
    id: str
    #: T2-weighted volumes, first the one that is used (the fewest entities in its name); segmentations that came with
    #: the study; reference masks used only for scoring.
    anatomical: tuple[Path, ...] = ()
    labels: tuple[Path, ...] = ()
    reference: tuple[Path, ...] = ()
    series: tuple[Series, ...] = ()

    def of_kind(self, kind: str) -> Series:
        """Return the series that gives maps of one of the `kinds`; a dedicated one before MAPSS."""
        return max((s for s in self.series if s.kind in (kind, "mapss")), key=lambda s: s.kind == kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of relaxation maps (``T1rho``, ``T2``) that the person's series give."""
        return tuple(k for k in KINDS if any(s.kind in (k, "mapss") for s in self.series))


class Study:
    """A study folder.

    Parameters
    ----------
    root : path
        Folder with ``participants.tsv`` and ``sub-XX`` folders.
    session : str
        BIDS session (``ses-XX``) to use where people have several; empty for none; ``all`` makes every visit an
        observation of its participant, with the id ``sub-XX_ses-YY``.
    output : path, optional
        Where results go; by default ``derivatives/disc-relaxometry`` below `root`.
    only : sequence of str
        Restrict the study to these people; empty means everyone.
    """

    def __init__(self, root: str | os.PathLike, session: str = "", output: str | os.PathLike | None = None,
                 only: Sequence[str] = ()):
        self.root, self.session, self.only = Path(os.path.abspath(root)), session, only
        self.output = Path(os.path.abspath(output)) if output else self.root / DERIVATIVES
        if not self.root.is_dir():
            raise StudyError(f"The study folder '{self.root.name}' does not exist: check the path.",
                             anchor="study-folder")

    @cached_property
    def people(self) -> list[Person]:
        """People with a folder, in the order of their ids."""
        wanted = {p if p.startswith("sub-") else f"sub-{p}" for p in self.only}
        # Those asked for are looked up by name: a worker on one of thousands does not list them all.
        names = {p.split("_ses-")[0] if self.visits else p for p in wanted if Path(p).name == p}
        folders = sorted(f for f in ([self.root / n for n in names] if wanted else self.root.glob("sub-*"))
                         if f.is_dir())
        found = {f.name: sessions_of(f) if self.visits else [self.session] for f in folders}
        missing = wanted - set(found) - {visit_id(name, s) for name, some in found.items() for s in some}
        if missing:
            raise StudyError(f"No folder for {', '.join(sorted(missing))} in the study: check the ids.",
                             anchor="study-folder")
        people = [self._read_person(f, session) for f in folders for session in found[f.name]]
        return [p for p in people if not wanted or wanted & {p.id, p.id.split("_ses-")[0]}]

    @property
    def visits(self) -> bool:
        """Whether every session is an observation."""
        return self.session == EVERY

    @property
    def block(self) -> str:
        """Column of the participants table that names whose observation a row is."""
        return OWNER if self.visits else "participant_id"

    def folder_of(self, id: str) -> Path:
        """Return the folder of a person's, or a visit's, images."""
        name, _, session = id.partition("_ses-")
        return self.root / name / (f"ses-{session}" if session else "" if self.visits else self.session)

    @property
    def tables(self) -> list[Path]:
        """Tables of people that the statistics read."""
        found = [self.root / TABLE]
        return [*found, *sorted(self.root.glob("sub-*/sub-*_sessions.tsv"))] if self.visits else found

    def person(self, id: str) -> Person:
        """Return one person by id."""
        for person in self.people:
            if person.id == id:
                return person
        raise StudyError(f"'{id}' is not in the study.", anchor="study-folder")

    @cached_property
    def participants(self) -> Table:
        """The participants table, all cells as text; one row per visit where visits are observations."""
        table = read_tsv(self.root / TABLE, required=("participant_id",))
        return visit_table(table, self.root) if self.visits else table

    @property
    def simulated(self) -> bool:
        """Whether the study's description says that its data are simulated."""
        return bool(self.description.get("Simulated", False))

    @cached_property
    def description(self) -> dict:
        """``dataset_description.json``, or an empty dict."""
        import json

        path = self.root / "dataset_description.json"
        try:
            return json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
        except ValueError as error:
            raise StudyError("'dataset_description.json' is not valid JSON: correct or remove it.") from error

    def relative(self, path: Path) -> str:
        """Return `path` relative to the study (or its output), with forward slashes; never an absolute path."""
        path = Path(path)
        for base, prefix in ((self.output, "output/"), (self.root, "")):
            if path.is_relative_to(base):
                inside = self.output.is_relative_to(self.root) and base == self.output
                return path.relative_to(self.root if inside else base).as_posix() if inside else (
                    prefix + path.relative_to(base).as_posix())
        return "external/" + path.name

    def absolute(self, name: str) -> Path:
        """Return the path that :meth:`relative` named."""
        if name.startswith("output/"):
            return self.output / name[len("output/"):]
        return self.root / name

    def _read_person(self, folder: Path, session: str) -> Person:
        base = folder / session if session else folder
        images = [f for f in sorted(base.glob("anat/*")) if f.name.endswith(IMAGE_SUFFIXES)]
        reference = sorted(
            f for f in self.root.glob(f"derivatives/*/{folder.name}/**/*_dseg*")
            if f.name.endswith(IMAGE_SUFFIXES) and not f.is_relative_to(self.output)
            and (not self.visits or f"_{session}_" in f.name)
            and DERIVATIVES not in f.as_posix())
        return Person(
            visit_id(folder.name, session) if self.visits else folder.name,
            anatomical=tuple(sorted((f for f in images if _role(f) == "anatomical"),
                                    key=lambda f: (len(f.name.split("_")), f.name))),
            labels=tuple(f for f in images if _role(f) == "labels"),
            reference=tuple(reference), series=_series(images))


def _role(path: Path) -> str:
    if "_acq-mapss" in stem(path):
        return "mapss"
    suffix = stem(path).rsplit("_", 1)[-1]
    return next((role for role, names in _SUFFIXES.items() if suffix in names), "")


def _series(images: Sequence[Path]) -> tuple[Series, ...]:
    """Group image files into echo series; phase, real and imaginary images are left out."""
    roles = {*KINDS, "mapss"}
    files = [f for f in images if _role(f) in roles and not component(f)]
    try:
        groups = group_series(files)
    except EchoSeriesError:
        groups = [[f] for f in files]  # an echo stands twice: validate names several series
    return tuple(sorted((Series(series_name(g[0]), tuple(g), _role(g[0])) for g in groups),
                        key=lambda s: (s.kind, s.name)))


def level_columns(names: Sequence[str], levels: Sequence[str] = LUMBAR_LEVELS) -> dict[str, dict[str, str]]:
    """Find variables given per level, as columns such as ``pfirrmann_L4L5``.

    Parameters
    ----------
    names : sequence of str
        Column names of the participants table.
    levels : sequence of str
        Level names such as ``L4-L5``.

    Returns
    -------
    dict
        Variable -> {level name: column name}.
    """
    found: dict[str, dict[str, str]] = {}
    for level in levels:
        key = level.replace("-", "")
        for name in names:
            if name.endswith("_" + key) and len(name) > len(key) + 1:
                found.setdefault(name[: -len(key) - 1], {})[level] = name
    return found


def long_frame(rows: Sequence[dict], participants: Table, variables: Sequence[str]):
    """Join rows of discs or regions with the participants table.

    Parameters
    ----------
    rows : sequence of dict
        With ``participant_id`` and ``level``.
    participants : Table
    variables : sequence of str
        A variable given per level (``pfirrmann_L4L5``) becomes one column, each row with its own level's value.

    Returns
    -------
    pandas.DataFrame
        Variables whose cells are all numbers or missing are numeric.

    Raises
    ------
    DesignError
        If a variable is in neither table.
    """
    import pandas

    people = {r["participant_id"]: r for r in participants.rows}
    per_level = level_columns(participants.names)
    frame = pandas.DataFrame([r for r in rows if r["participant_id"] in people])
    frame.attrs["notes"] = list(participants.notes)
    for name in variables:
        if name in frame.columns:
            continue
        if name not in participants.names and name not in per_level:
            listed = ", ".join([*frame.columns, *participants.names])
            raise DesignError(f"The variable '{name}' is neither in the study's table nor in participants.tsv; they "
                              f"have {listed}.", anchor="formula")
        cells = [people[p].get(name if name in participants.names else per_level[name].get(level, ""))
                 for p, level in zip(frame["participant_id"], frame["level"])]
        frame[name] = pandas.Series(typed(cells), index=frame.index)
    return frame
