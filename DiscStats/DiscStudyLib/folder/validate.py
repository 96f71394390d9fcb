"""Say everything that is wrong with a study before anything runs: file, person, problem, remedy."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.echo import KINDS, component, stem
from DiscRelaxometryLib.errors import OutputError

from .files import check_image, check_labels, check_series
from .finding import Finding
from .participants import check_participants
from .settings import Settings
from .study import PERSON_ID, Person, Study

#: Disk space a person's results need per byte of input, measured (Docs/validation/study.md), with reserve.
OUTPUT_PER_INPUT = 6.0


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
    found += [*_check_left_out(study), *check_participants(study, settings)]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda f: (order[f.severity], f.person, f.file))


def _check_output(study: Study) -> Iterator[Finding]:
    """Check that the output folder is new, empty or this program's own, can be written, and has room."""
    try:
        check_folder(study.output)
    except OutputError as error:
        yield Finding("error", "", "", error.message, "Choose another output folder, or ask for write permission.")
        return
    yield from (Finding("error", "", "", problem, remedy) for problem, remedy in _foreign(study))
    folder = study.output
    while not folder.exists():
        folder = folder.parent
    images = [f for p in study.people for f in (*p.anatomical, *(f for s in p.series for f in s.files))]
    done = study.output.exists() and any(study.output.glob("sub-*/prov/*.json"))
    needed = 0 if done else OUTPUT_PER_INPUT * sum(os.path.getsize(f) for f in images if f.exists())
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
    folder = study.folder_of(person.id)
    sessions = sorted(f.name for f in (study.root / person.id).glob("ses-*"))
    if not study.session and sessions and not person.anatomical and not person.series:
        yield Finding("error", person.id, person.id, f"The images lie in sessions ({', '.join(sessions)}).",
                      f"Name one with --session {sessions[0]}, or take every visit with --session all.")
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
        first, second, *_ = person.anatomical
        if len(first.name.split("_")) < len(second.name.split("_")):
            others = ", ".join(p.name for p in person.anatomical[1:])
            yield Finding("note", study.relative(first), person.id,
                          f"Of {len(person.anatomical)} T2-weighted volumes this one is used, and not {others}.",
                          f"Name another one '{person.id}_T2w' if it is to be used.")
        else:
            yield Finding("error", study.relative(second), person.id,
                          f"There are {len(person.anatomical)} T2-weighted volumes.",
                          f"Name the one to use '{person.id}_T2w', without further entities; or use sessions.")
    for kind in (*KINDS, "mapss"):
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
        found = list(check_image(path, read))
        used = path in person.labels and settings.segmentation != "cnn"
        if read and used and not any(severity == "error" for severity, _, _ in found):
            found += check_labels(path)
        yield from (Finding(s, study.relative(path), person.id, p, r) for s, p, r in found)
    for series in person.series:
        read = read_images and not all(f in trusted for f in series.files)
        yield from (Finding(s, study.relative(f), person.id, p, r) for f, s, p, r in check_series(series, read))


def _check_left_out(study: Study) -> Iterator[Finding]:
    """Name the kinds of files beside the images that nothing reads: phase images, other contrasts, DICOM files."""
    found: dict[str, list[Path]] = {}
    for person in study.people:
        read = {*person.anatomical, *person.labels, *(f for s in person.series for f in s.files)}
        for path in sorted((study.root / person.id / study.session).glob("anat/*")):
            if path not in read and path.suffix != ".json" and not path.name.startswith("."):
                kind = component(path) or f"'{stem(path).rpartition('_')[2]}'"
                found.setdefault(kind, []).append(path)
    for kind, paths in found.items():
        yield Finding("note", study.relative(paths[0]), "", f"{len(paths)} file(s) of kind {kind} are left out.",
                      "They are no T2-weighted volume, magnitude echo or segmentation by their name.")
