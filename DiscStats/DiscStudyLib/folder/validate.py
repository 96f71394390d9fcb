"""Say everything that is wrong with a study before anything runs: file, person, problem, remedy."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Table, decode, is_missing, to_number

from .files import check_image, check_series
from .rules import people_by_rule
from .settings import MAPS, Settings
from .study import PERSON_ID, Person, Study, level_columns

#: Disk space a person's results need per byte of input, measured (Docs/validation/study.md), with reserve.
OUTPUT_PER_INPUT = 6.0
TABLE = "participants.tsv"


@dataclass(frozen=True)
class Finding:
    """Something wrong, or worth knowing, in a study.

    Attributes
    ----------
    severity : str
        ``error`` (cannot be processed), ``warning`` (will be processed, look at it), or ``note``.
    file : str
        Relative to the study; empty for the study as a whole.
    person : str
        ``sub-XX``, or empty.
    problem, remedy : str
        One sentence each.
    """

    severity: str
    file: str
    person: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = " ".join(v for v in (self.person, self.file and f"'{self.file}'") if v) or "study"
        return f"{self.severity}: {where}: {self.problem} {self.remedy}"


def validate(study: Study, settings: Settings | None = None, read_images: bool = True,
             trusted: Collection[Path] = frozenset()) -> list[Finding]:
    """Check a study and return what was found, errors first.

    Parameters
    ----------
    study : Study
    settings : Settings, optional
        What is going to be run: its formula, maps and segmentation are checked against the study.
    read_images : bool
        Read all image data, which finds truncated files; False checks headers only.
    trusted : collection of Path
        Files whose data were read before and need no second reading.
    """
    settings = settings or Settings()
    found = [*_check_output(study), *_check_folders(study)]
    for person in study.people:
        found += _check_person(study, person, settings, read_images, trusted)
    found += _check_participants(study, settings)
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda f: (order[f.severity], f.person, f.file))


def _check_output(study: Study) -> Iterator[Finding]:
    """Check that the output folder is new, empty or this program's own, can be written, and has room."""
    yield from (Finding("error", "", "", problem, remedy) for problem, remedy in _foreign(study))
    folder = study.output
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".{uuid.uuid4().hex[:8]}.partial.probe"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        yield Finding("error", "", "", f"The output folder cannot be written ({error.strerror}).",
                      "Choose another output folder, or ask for write permission.")
        return
    images = [f for p in study.people for f in (*p.anatomical, *(f for s in p.series for f in s.files))]
    done = study.output.exists() and any(study.output.glob("sub-*/prov/*.json"))
    needed = 0 if done else OUTPUT_PER_INPUT * sum(os.path.getsize(f) for f in images)
    free = shutil.disk_usage(folder).free
    if free < max(needed, 50e6):
        yield Finding("error", "", "", f"The disk has {free / 1e6:.0f} MB left; the results need about "
                      f"{max(needed, 50e6) / 1e6:.0f} MB.", "Free some space, or choose another disk for the output.")


def _foreign(study: Study) -> Iterator[tuple[str, str]]:
    """Yield what forbids the output folder: it is the study's or somebody else's."""
    output, other = study.output.resolve(), "Choose a new or empty output folder, or leave it out."
    root = study.root.resolve()
    inside = output.relative_to(root).parts if output.is_relative_to(root) else None
    if inside == () or (inside and (inside[0].startswith("sub-") or inside == ("derivatives",))):
        name = "/".join(inside) or study.root.name
        yield f"The output folder is a folder of the study's data ('{name}').", other
    elif root.is_relative_to(output):
        yield "The study lies in the output folder.", other
    elif output.is_dir() and not _ours(output) and any(
            f.name != ".lock" and ".partial." not in f.name for f in output.iterdir()):
        yield f"The output folder '{output.name}' is not empty, and not of this program.", other


def _ours(folder: Path) -> bool:
    """Tell whether this program made a results folder; of a run that has just begun there are only locks."""
    import json

    if any(folder.glob("sub-*/prov/*_prov.json")) or any(folder.glob("sub-*/prov/.lock")):
        return True
    try:
        made = json.loads((folder / "dataset_description.json").read_text(encoding="utf-8")).get("GeneratedBy", [])
        return any(entry.get("Name") == "DiscRelaxometry" for entry in made)
    except (OSError, ValueError, AttributeError):
        return False


def _check_folders(study: Study) -> Iterator[Finding]:
    if not study.people:
        example = "sub-01/anat/sub-01_T2w.nii.gz"
        loose = sum(1 for _ in study.root.glob("*.dcm")) + sum(1 for _ in study.root.glob("*/*.dcm"))
        dicom = " DICOM files were found: convert them first, for example with dcm2niix." if loose else ""
        yield Finding("error", "", "", "The study has no people: no folder is named 'sub-...'.",
                      f"Arrange the files as in '{example}'.{dicom}")
    seen: dict[str, str] = {}
    for person in study.people:
        if not PERSON_ID.match(person.id):
            yield Finding("error", person.id, person.id, "The folder's name is not a person id.",
                          "Use letters and digits only after 'sub-'.")
        twin = seen.setdefault(person.id.lower(), person.id)
        if twin != person.id:
            yield Finding("error", person.id, person.id, f"The id differs from '{twin}' only in case.",
                          "Rename one: such ids are one folder on Windows and macOS.")


def _check_person(study: Study, person: Person, settings: Settings, read_images: bool,
                  trusted: Collection[Path]) -> Iterator[Finding]:
    folder = study.root / person.id / study.session if study.session else study.root / person.id
    sessions = sorted(f.name for f in (study.root / person.id).glob("ses-*"))
    if not study.session and sessions and not person.anatomical and not person.series:
        yield Finding("error", person.id, person.id, f"The images lie in sessions ({', '.join(sessions)}).",
                      f"Name one with --session {sessions[0]}.")
        return
    if not person.anatomical and not person.series:
        yield Finding("error", person.id, person.id, "There is no T2-weighted volume and no echo series.",
                      f"Put '{person.id}_T2w.nii.gz' or an echo series into its 'anat' folder.")
    for path in sorted(folder.glob("anat/*")):
        if not path.name.startswith(person.id + "_") and not path.name.startswith("."):
            other = path.name.split("_")[0]
            yield Finding("error", study.relative(path), person.id,
                          f"The file belongs to '{other}' by its name, but lies in the folder of {person.id}.",
                          "Move it, or correct its name.")
    if len(person.anatomical) > 1:
        yield Finding("error", study.relative(person.anatomical[1]), person.id,
                      f"There are {len(person.anatomical)} T2-weighted volumes.",
                      "Keep one named '_T2w'; give the others another suffix.")
    for kind in ("T1rho", "T2", "mapss"):
        same = [s for s in person.series if s.kind == kind]
        if len(same) > 1:
            yield Finding("error", study.relative(same[1].files[0]), person.id,
                          f"There are {len(same)} {kind} series ({', '.join(s.name for s in same)}).",
                          "Keep one, or use sessions.")
    if settings.segmentation == "existing" and not person.labels:
        yield Finding("error", person.id, person.id, "There is no segmentation, but 'existing' ones are to be used.",
                      f"Add '{person.id}_dseg.nii.gz', or use --segmentation cnn.")
    for path in (*person.anatomical, *person.labels):
        read = read_images and path not in trusted
        yield from (Finding(s, study.relative(path), person.id, p, r) for s, p, r in check_image(path, read))
    for series in person.series:
        read = read_images and not all(f in trusted for f in series.files)
        yield from (Finding(s, study.relative(f), person.id, p, r) for f, s, p, r in check_series(series, read))


def _check_participants(study: Study, settings: Settings) -> Iterator[Finding]:
    """Check table, formula, contrast and rule, and build what will be fitted."""
    if not (study.root / TABLE).exists():
        yield Finding("error" if settings.formula else "warning", TABLE, "", "The participants table does not exist.",
                      "Write a tab-separated table with the column 'participant_id' and one row per participant.")
        return
    try:
        table = study.participants
    except DesignError as error:
        yield Finding("error", TABLE, "", error.message, "Correct the table.")
        return
    header = decode((study.root / TABLE).read_bytes(), TABLE).lstrip().split("\n")[0]
    if "\t" not in header and len(table.names) > 1:
        yield Finding("warning", TABLE, "", "The table is not tab-separated; it is read all the same.",
                      "Save it as tab-separated text: other BIDS programs refuse it.")
    yield from _check_ids(study, table)
    try:
        model = settings.model
    except DesignError as error:
        yield Finding("error", "", "", error.message, "Correct the formula.")
        return
    found = [*_check_response(study, settings), *_check_values(study, table, settings.variables)]
    yield from found
    if model and not any(f.severity == "error" for f in found):
        yield from _check_design(study, settings, table)


def _check_response(study: Study, settings: Settings) -> Iterator[Finding]:
    """Check the map that the formula names."""
    response = settings.model.response if settings.model else ""
    if response in ("", "map"):
        return
    has = {kind for p in study.people for kind in (*p.kinds, *(("nT2w",) if p.anatomical else ()))}
    if response not in MAPS:
        yield Finding("error", "", "", f"The formula explains '{response}', which is not a map.",
                      f"Write one of {', '.join(MAPS)} before '~', or nothing for all maps.")
    elif settings.maps and response not in settings.maps:
        yield Finding("error", "", "", f"The formula explains {response}, the maps to analyze are "
                      f"{', '.join(settings.maps)}.", "Name the map once.")
    elif study.people and response not in has:
        yield Finding("error", "", "", f"The formula explains {response}, of which nobody has a series.",
                      "Add the series, or correct the formula.")


def _check_design(study: Study, settings: Settings, table: Table) -> Iterator[Finding]:
    """Build every level's design and the contrast, of everyone and of those the sensitivity rule holds for."""
    from DiscStatsLib.design import NotEstimable, build_level_designs, rows_of, to_frame

    folders = {p.id for p in study.people}
    some = [p for p in table["participant_id"] if p in folders]
    where = ""
    try:
        groups = {"": some}
        if settings.sensitivity:
            kept = people_by_rule(table, settings.sensitivity)
            groups[f"With the rule '{settings.sensitivity}': "] = [p for p in some if p in kept]
        for where, people in groups.items():
            found = build_level_designs(settings.model, rows_of(to_frame(table), people), settings.levels,
                                        settings.tested, missing="drop")
            for level, why in found.left_out.items():
                yield Finding("warning", TABLE, "", f"{where}{level} will be left out of the analysis: {why}",
                              "The other levels are analyzed.")
    except DesignError as error:
        # A trial with some of the participants may be too small for the model; their maps are made all the same.
        few = isinstance(error, NotEstimable) and study.only
        yield Finding("warning" if few else "error", TABLE, "", where + error.message,
                      "Correct the formula, the contrast or the table, or choose levels with --levels.")


def _check_ids(study: Study, table: Table) -> Iterator[Finding]:
    ids = table["participant_id"]
    folders = {p.id for p in study.people}
    alike = {_id_key(f): f for f in folders}
    for id in sorted({i for i in ids if ids.count(i) > 1}):
        yield Finding("error", TABLE, "", f"'{id}' has {ids.count(id)} rows.", "Keep one row per participant.")
    for id in dict.fromkeys(ids):
        folder = alike.get(_id_key(id), "")
        if is_missing(id):
            yield Finding("error", TABLE, "", "A row has no participant_id.", "Fill the cell, or remove the row.")
        elif id not in folders and folder and folder not in ids:
            yield Finding("error", TABLE, folder, f"The id is written '{id}'.",
                          f"Write '{folder}', as the folder is named.")
        elif id not in folders and not study.only:
            yield Finding("warning", TABLE, id, "The person has a row but no folder.",
                          "Add the images, or remove the row; the person is left out.")
    keys = {_id_key(i) for i in ids}
    for id in sorted(f for f in folders if _id_key(f) not in keys):
        yield Finding("warning", TABLE, id, "The person has a folder but no row.",
                      "Add a row; without it the person has maps but is left out of the statistics.")


def _id_key(id: str) -> str:
    """Return what ids share that a spreadsheet or a typist wrote otherwise: sub-01, 01, 1, 1.0, SUB-01."""
    bare = id.strip().lower().removeprefix("sub-")
    number = to_number(bare)
    return bare if number is None else f"{number:g}"


def _check_values(study: Study, table: Table, variables: Sequence[str]) -> Iterator[Finding]:
    levels = level_columns(table.names)
    folders = {p.id for p in study.people}
    for variable in variables:
        columns = [variable] if variable in table.names else list(levels.get(variable, {}).values())
        if not columns:
            yield Finding("error", TABLE, "", f"The formula's variable '{variable}' is not a column.",
                          f"Columns are {', '.join(table.names)}; correct the formula or add the column.")
        for column in columns:
            yield from _check_column(table, column, folders)
    for column in table.names:
        if column not in variables and any(map(_decimal_comma, table[column])):
            yield Finding("warning", TABLE, "", f"Column '{column}' has decimal commas.",
                          "Use decimal points; the column cannot be used as a number.")


def _check_column(table: Table, column: str, folders: set[str]) -> Iterator[Finding]:
    numbers = sum(to_number(c) is not None for c in table[column])
    for person, text in zip(table["participant_id"], table[column]):
        if person not in folders:
            continue
        where = f"{person}, column '{column}'"
        if is_missing(text):
            yield Finding("warning", TABLE, "", f"{where} is empty.",
                          "The person is left out of the analyses that need it.")
        elif _decimal_comma(text):
            yield Finding("error", TABLE, "", f"{where}: '{text}' has a decimal comma.",
                          f"Write '{text.replace(',', '.')}'.")
        elif numbers > len(table) / 2 and to_number(text) is None:
            yield Finding("error", TABLE, "", f"{where}: '{text}' is not a number, but most other cells are.",
                          "Correct it, or write 'n/a'.")


def _decimal_comma(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+,\d+", text))
