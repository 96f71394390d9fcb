"""Say everything that is wrong with a study before anything runs: file, person, problem, remedy."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from DiscRelaxometryLib.tables import Column, Table

from .files import check_image, check_series
from .settings import Settings
from .study import PERSON_ID, Person, Study, level_columns

#: Disk space a person's results need per byte of input, measured (Docs/validation/study.md), with reserve.
OUTPUT_PER_INPUT = 6.0
_MISSING = ("", "n/a", "na", "nan")


@dataclass(frozen=True)
class Finding:
    """Something wrong, or worth knowing, in a study.

    Attributes
    ----------
    severity : str
        ``error`` (can not be processed), ``warning`` (will be processed, look at it), or ``note``.
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


def findings_table(findings: list[Finding]) -> Table:
    """Return findings as a table."""
    table = Table("findings", [Column(n) for n in ("severity", "person", "file", "problem", "remedy")])
    table.rows = [{n: getattr(f, n) for n in table.names} for f in findings]
    return table


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
    folder = study.output
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".{uuid.uuid4().hex[:8]}.partial.probe"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        yield Finding("error", "", "", f"The output folder can not be written ({error.strerror}).",
                      "Choose another folder with --output, or ask for write permission.")
    images = [f for p in study.people for f in (*p.anatomical, *(f for s in p.series for f in s.files))]
    done = study.output.exists() and any(study.output.glob("sub-*/prov/*.json"))
    needed = 0 if done else OUTPUT_PER_INPUT * sum(os.path.getsize(f) for f in images)
    free = shutil.disk_usage(folder).free
    if free < max(needed, 50e6):
        yield Finding("error", "", "", f"The disk has {free / 1e6:.0f} MB left; the results need about "
                      f"{max(needed, 50e6) / 1e6:.0f} MB.", "Free some space, or choose another disk with --output.")


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
    path, name = study.root / "participants.tsv", "participants.tsv"
    variables = formula_variables(settings.formula)
    if not path.exists():
        yield Finding("error" if variables else "warning", name, "", "The participants table does not exist.",
                      "Write a tab-separated table with the column 'participant_id' and one row a person.")
        return
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield Finding("error", name, "", "The table is UTF-16.", "Save it as UTF-8.")
        return
    if raw.startswith(b"\xef\xbb\xbf"):
        yield Finding("note", name, "", "The table begins with a byte-order mark.", "It is read all the same.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        yield Finding("error", name, "", "The table is not UTF-8 text.", "Save it as UTF-8.")
        return
    header = text.splitlines()[0] if text.strip() else ""
    if "\t" not in header:
        separator = "semicolons" if ";" in header else "commas" if "," in header else "no tabs"
        yield Finding("error", name, "", f"The table is not tab-separated (its header has {separator}).",
                      "Save it as tab-separated text.")
        return
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    if "participant_id" not in header.split("\t"):
        yield Finding("error", name, "", "The column 'participant_id' is missing.", "Name the id column so.")
        return
    yield from _check_rule(settings.sensitivity, header.split("\t"))
    yield from _check_ids(study, rows)
    yield from _check_values(study, rows, header.split("\t"), variables)


def _check_rule(rule: str, names: list[str]) -> Iterator[Finding]:
    found = re.match(r"\s*(\w+)", rule)
    if found and found.group(1) not in names:
        yield Finding("error", "participants.tsv", "", f"The sensitivity rule's '{found.group(1)}' is no column.",
                      f"Columns are {', '.join(names)}; correct the rule or add the column.")


def _check_ids(study: Study, rows: list[dict]) -> Iterator[Finding]:
    ids = [(r["participant_id"] or "").strip() for r in rows]
    folders = {p.id for p in study.people}
    for id in sorted({i for i in ids if ids.count(i) > 1}):
        yield Finding("error", "participants.tsv", "", f"'{id}' has {ids.count(id)} rows.", "Keep one row a person.")
    for id in ids:
        if id not in folders and f"sub-{id}" in folders:
            yield Finding("error", "participants.tsv", f"sub-{id}", f"The id is written '{id}'.",
                          f"Write 'sub-{id}', as the folder is named.")
        elif id not in folders and not study.only:
            yield Finding("warning", "participants.tsv", id, "The person has a row but no folder.",
                          "Add the images, or remove the row; the person is left out.")
    for id in sorted(folders - set(ids) - {f"sub-{i}" for i in ids}):
        yield Finding("warning", "participants.tsv", id, "The person has a folder but no row.",
                      "Add a row; without it the person has maps but is left out of the statistics.")


def _check_values(study: Study, rows: list[dict], names: list[str], variables: list[str]) -> Iterator[Finding]:
    levels = level_columns(names)
    folders = {p.id for p in study.people}
    for variable in variables:
        columns = [variable] if variable in names else list(levels.get(variable, {}).values())
        if not columns:
            yield Finding("error", "participants.tsv", "", f"The formula's variable '{variable}' is no column.",
                          f"Columns are {', '.join(names)}; correct the formula or add the column.")
        for column in columns:
            yield from _check_column(rows, column, folders)
    for column in names:
        if column not in variables and any(_decimal_comma(r.get(column)) for r in rows):
            yield Finding("warning", "participants.tsv", "", f"Column '{column}' has decimal commas.",
                          "Use decimal points; the column can not be used as a number.")


def _check_column(rows: list[dict], column: str, folders: set[str]) -> Iterator[Finding]:
    numbers = [r for r in rows if _is_number(r.get(column))]
    for line, row in enumerate(rows, start=2):
        text, person = (row.get(column) or "").strip(), (row["participant_id"] or "").strip()
        if person not in folders:
            continue
        if _decimal_comma(text):
            yield Finding("error", "participants.tsv", "", f"Line {line} ({person}), column '{column}': '{text}' has "
                          "a decimal comma.", f"Write '{text.replace(',', '.')}'.")
        elif text.lower() in _MISSING:
            yield Finding("warning", "participants.tsv", "", f"Line {line} ({person}), column '{column}' is empty.",
                          "The person is left out of the analyses that need it.")
        elif len(numbers) > len(rows) / 2 and not _is_number(text):
            yield Finding("error", "participants.tsv", "", f"Line {line} ({person}), column '{column}': '{text}' is "
                          "not a number, but most other cells are.", "Correct it, or write 'n/a'.")


def _decimal_comma(text: str | None) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text or ""))


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return (text or "").strip().lower() not in _MISSING


def formula_variables(formula: str) -> list[str]:
    """Return the variable names on the right side of a formula: functions such as ``C`` are left out."""
    right = formula.split("~", 1)[-1]
    names = re.findall(r"[A-Za-z_]\w*(?!\w*\s*[(.])", right)
    return list(dict.fromkeys(names))
