"""The published archive of SPIDER (doi:10.5281/zenodo.10159290) as a study folder.

The archive has ``images/N_t1.mha``, ``N_t2.mha`` and ``N_t2_SPACE.mha``, masks of the same names (vertebrae 1 to 25
from L5 upward, canal 100, discs 201 to 225), ``radiological_gradings.csv`` (one row per disc, counted from the lowest)
and ``overview.csv`` (one row per series).
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from DiscRelaxometryLib.atomic import check_folder, write_json
from DiscRelaxometryLib.discs import import_labels
from DiscRelaxometryLib.errors import DiscRelaxometryError, StudyError
from DiscRelaxometryLib.image import Image, read_image, write_image
from DiscRelaxometryLib.labels import BY_VALUE, LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.progress import ProgressCallback, silent
from DiscRelaxometryLib.tables import Column, Table, is_missing, read_tsv, to_number

from .study import TABLE

#: End of an archive's file name -> end of the image's name here, folder of its mask below ``derivatives``.
_CONTRASTS = {"t2": ("T2w", "reference"), "t2_SPACE": ("acq-SPACE_T2w", "reference-SPACE"),
              "t1": ("T1w", "reference-T1w")}
#: Column of the gradings (spelled as in the archive or in its copies) -> name here, and description.
_GRADINGS = {"Modic": ("modic", "Modic type of the endplates, 0 for none"),
             "UP endplate": ("upper_endplate", "Upper endplate changed, 0 or 1"),
             "LOW endplate": ("lower_endplate", "Lower endplate changed, 0 or 1"),
             "Spondylolisthesis": ("spondylolisthesis", "Slip of the vertebra above, 0 or 1"),
             "Disc herniation": ("herniation", "Herniation, 0 or 1"),
             "Disc narrowing": ("narrowing", "Narrowing, 0 or 1"), "Disc bulging": ("bulging", "Bulging, 0 or 1"),
             "Pfirrman grade": ("pfirrmann", "Pfirrmann grade, 1 to 5")}
_SPELLINGS = {"Pfirrmann grade": "Pfirrman grade"}
#: Field of a sidecar -> column of the overview, and its unit here per unit there.
_SIDECAR = {"Manufacturer": ("Manufacturer", None), "ManufacturersModelName": ("ManufacturerModelName", None),
            "MagneticFieldStrength": ("MagneticFieldStrength", 1.0), "EchoTime": ("EchoTime", 1e-3),
            "RepetitionTime": ("RepetitionTime", 1e-3)}
_DESCRIPTION = {
    "Name": "SPIDER: lumbar spine segmentation in MR images", "BIDSVersion": "1.10.0", "DatasetType": "raw",
    "License": "CC-BY-4.0", "Authors": ["SPIDER (van der Graaf et al.)"],
    "HowToAcknowledge": "van der Graaf JW, van Hooff ML, Buckens CFM, et al. Lumbar spine segmentation in MR images: "
                        "a dataset and a public benchmark. Sci Data 2024;11:264. doi:10.1038/s41597-024-03090-w",
    "SourceDatasets": [{"URL": "https://doi.org/10.5281/zenodo.10159290"}]}


@dataclass(frozen=True)
class _Series:
    number: int
    contrast: str
    image: Path

    @property
    def person(self) -> str:
        return f"sub-{self.number:03d}"


def import_spider(archive: str | os.PathLike, target: str | os.PathLike,
                  progressCallback: ProgressCallback | None = None) -> list[str]:
    """Write the unpacked archive of SPIDER as a study folder.

    T2w, T2 SPACE (``acq-SPACE_T2w``) and T1w images lie in ``anat``, reference masks with this project's label values
    in ``derivatives/reference``, ``reference-SPACE`` and ``reference-T1w``. ``participants.tsv`` has one column per
    grading and lumbar level; ``phenotype/radiological_gradings.tsv`` has the gradings of all discs. A second call goes
    on where the first one ended.

    Parameters
    ----------
    archive : path
        Folder with ``images``, ``masks``, ``radiological_gradings.csv`` and ``overview.csv``.
    target : path
        Study folder to write: new, empty, or begun by this function.
    progressCallback : callable, optional
        Called with (fraction, text); cancels by raising ``Cancelled``.

    Returns
    -------
    list of str
        What was left out, and why.

    Raises
    ------
    StudyError
        If `archive` is not such a folder, or `target` holds something else.
    """
    archive, target = (Path(os.path.abspath(p)) for p in (archive, target))  # "." has no name
    progress = progressCallback or silent
    series, notes = _find_series(archive)
    gradings = _gradings(archive / "radiological_gradings.csv", notes)
    overview = {_key(r["new_file_name"]): r for r in read_tsv(archive / "overview.csv", ("new_file_name",)).rows}
    _claim(target)
    write_json(target / "dataset_description.json", _DESCRIPTION)
    _participants(series, overview, gradings).write(target / TABLE)
    gradings.write(target / "phenotype" / "radiological_gradings.tsv")
    for step, one in enumerate(series):
        progress(step / len(series), f"{one.person}, {one.contrast}")
        notes += _convert(one, archive, target, overview.get(_key(one.image.stem), {}))
    progress(1.0, f"{len(series)} series of {len({s.number for s in series})} people")
    return notes


def imported_series(study: str | os.PathLike) -> dict[str, tuple[Path, Path]]:
    """Return image and reference mask by series (``sub-001_acq-SPACE_T2w``) of an imported study.

    Series without a mask are left out.
    """
    found = {}
    for folder in sorted(Path(study).glob("sub-*")):
        for contrast in _CONTRASTS:
            image, mask = _places(Path(study), folder.name, contrast)
            if image.exists() and mask.exists():
                found[image.name.removesuffix(".nii.gz")] = image, mask
    return found


def _places(study: Path, person: str, contrast: str) -> tuple[Path, Path]:
    """Return where image and mask of a series lie."""
    name, folder = _CONTRASTS[contrast]
    return (study / person / "anat" / f"{person}_{name}.nii.gz",
            study / "derivatives" / folder / person / "anat" / f"{person}_dseg.nii.gz")


def _find_series(archive: Path) -> tuple[list[_Series], list[str]]:
    """Return the archive's series in the order of people, and a note for each file that is none."""
    for name in ("images", "masks"):
        if not (archive / name).is_dir():
            raise StudyError(f"'{archive.name}' has no folder '{name}': name the folder that SPIDER's images.zip and "
                             "masks.zip were unpacked in.", anchor="import-spider")
    found, notes = [], []
    for path in sorted((archive / "images").iterdir()):
        match = re.fullmatch(r"(\d+)_(t1|t2|t2_space)\.mha", path.name, re.IGNORECASE)
        if match:
            contrast = next(c for c in _CONTRASTS if c.lower() == match[2].lower())
            found.append(_Series(int(match[1]), contrast, path))
        else:
            notes.append(f"images/{path.name}: not named as N_t1.mha, N_t2.mha or N_t2_SPACE.mha; left out.")
    if not found:
        raise StudyError(f"'{archive.name}/images' holds no file such as 1_t2.mha: name the unpacked archive.",
                         anchor="import-spider")
    return sorted(found, key=lambda s: (s.number, s.contrast)), notes


def _gradings(path: Path, notes: list[str]) -> Table:
    """Return the gradings, one row per disc."""
    table = read_tsv(path, required=("Patient", "IVD label"))
    names = {_SPELLINGS.get(n, n): n for n in table.names}
    columns = [Column("participant_id"), Column("disc_from_below", "1", "Number of the disc; 1 is the lowest"),
               Column("level"), *(Column(name, "", text) for name, text in _GRADINGS.values())]
    missing = [n for n in _GRADINGS if n not in names]
    if missing:
        raise StudyError(f"'{path.name}' lacks the column(s) {', '.join(missing)}; it has {', '.join(table.names)}.",
                         anchor="import-spider")
    rows: dict[tuple, dict] = {}
    for number, row in enumerate(table.rows, 2):
        person, disc = to_number(row["Patient"]), to_number(row["IVD label"])
        if person is None or disc is None or disc != int(disc) or disc < 1:
            notes.append(f"{path.name}, row {number}: patient '{row['Patient']}', disc '{row['IVD label']}' is no "
                         "disc; left out.")
            continue
        level = BY_VALUE.get(disc_value("L5-S1") + int(disc) - 1)
        key = f"sub-{int(person):03d}", int(disc)
        found = {"participant_id": key[0], "disc_from_below": key[1], "level": level.name if level else "n/a",
                 **{name: row[names[theirs]] for theirs, (name, _) in _GRADINGS.items()}}
        if rows.setdefault(key, found) != found:
            raise StudyError(f"'{path.name}' grades disc {key[1]} of patient {int(person)} twice, and differently: "
                             "remove one row.", anchor="import-spider")
    return Table("radiological_gradings", columns, [rows[k] for k in sorted(rows)])


def _key(name: str) -> str:
    return name.removesuffix(".mha").lower()


def _claim(target: Path) -> None:
    """Refuse a folder that holds something else."""
    check_folder(target)
    description = target / "dataset_description.json"
    if target.is_dir() and any(target.iterdir()) and not (
            description.is_file() and str(_DESCRIPTION["Name"]) in description.read_text(encoding="utf-8")):
        raise StudyError(f"The folder '{target.name}' holds something else: name a new or empty one.",
                         anchor="import-spider")


def _participants(series: Sequence[_Series], overview: dict, gradings: Table) -> Table:
    """Return one row per person: facts of the first T2w series, and the gradings of the lumbar discs by level."""
    facts = {"sex": "sex", "subset": "subset", "number_of_discs": "num_discs", "number_of_vertebrae": "num_vertebrae",
             "manufacturer": "Manufacturer", "model": "ManufacturerModelName", "field_T": "MagneticFieldStrength",
             "echo_time_ms": "EchoTime", "repetition_time_ms": "RepetitionTime"}
    graded = {(r["participant_id"], r["level"]): r for r in gradings.rows}
    people: dict[str, _Series] = {}
    for one in sorted(series, key=lambda s: (s.number, list(_CONTRASTS).index(s.contrast))):
        people.setdefault(one.person, one)
    rows = []
    for person, one in people.items():
        about = overview.get(_key(one.image.stem), {})
        row = {"participant_id": person, "age": _age(about)}
        row |= {name: about.get(theirs, "") or "n/a" for name, theirs in facts.items()}
        for name, _ in _GRADINGS.values():
            row |= {f"{name}_{level.replace('-', '')}": graded.get((person, level), {}).get(name) or "n/a"
                    for level in LUMBAR_LEVELS}
        rows.append(row)
    columns = [Column("participant_id"), Column("age", "year", "Age, where published"), *map(Column, facts)]
    columns += [Column(f"{name}_{level.replace('-', '')}", "", f"{text}, of {level}")
                for name, text in _GRADINGS.values() for level in LUMBAR_LEVELS]
    return Table("participants", columns, rows)


def _age(about: dict[str, str]) -> str:
    """Return the age in years: published, or between the years of birth and of the series."""
    if not is_missing(about.get("age")):
        return about["age"]
    years = [re.search(r"(?:19|20)\d\d", about.get(name, "") or "") for name in ("AcquisitionDate", "birth_date")]
    return str(int(years[0][0]) - int(years[1][0])) if years[0] and years[1] else "n/a"


def _convert(one: _Series, archive: Path, target: Path, about: dict[str, str]) -> list[str]:
    """Write the image, sidecar and mask of one series where they are not there yet; return notes."""
    path, mask = _places(target, one.person, one.contrast)
    source = archive / "masks" / one.image.name
    notes = [] if about else [f"{one.image.name}: not in overview.csv; the sidecar has no times."]
    image = None
    if not path.exists():
        image = read_image(one.image)
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), _sidecar(about))
        write_image(image, path)
    if not source.exists():
        return [*notes, f"{one.image.name}: no mask; imported without a reference."]
    if not mask.exists():
        try:
            write_image(_reference(source, image or read_image(path)), mask)
        except DiscRelaxometryError as error:
            notes.append(f"masks/{source.name}: left out. {error.message}")
    return notes


def _sidecar(about: dict[str, str]) -> dict:
    fields: dict[str, object] = {"Units": "arbitrary"}
    for field, (column, factor) in _SIDECAR.items():
        cell = about.get(column, "")
        number = to_number(cell)
        if factor is None and not is_missing(cell):
            fields[field] = cell
        elif factor is not None and number is not None:
            fields[field] = number * factor
    return fields


def _reference(source: Path, image: Image) -> Image:
    """Return a mask in this project's label values."""
    labels = read_image(source)
    difference = image.geometry.difference(labels.geometry)
    if difference:
        raise StudyError(f"Its grid is not the image's ({difference}).", anchor="import-spider")
    return import_labels(labels, "spider", leave_out_unknown=True)[0]
