"""A simulated study on disk: 31 people, T2-weighted and MAPSS volumes, participants table, ground truth (SIMULATED).

>>> people = write_virtual_study("virtual", people=31, seed=1)            # doctest: +SKIP
>>> people = write_virtual_study("shapes", people=31, seed=1, real=())    # parametric discs    # doctest: +SKIP

Everything written says that it is simulated; what is assumed, and from where, is in ``Docs/method/virtual-cohort.md``.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.atomic import atomic_path, write_json, write_text
from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.progress import ProgressCallback, silent
from DiscRelaxometryLib.tables import Column, Table

from .anatomy import FINE, build_anatomy
from .people import VirtualPerson, draw_people
from .real import RealPerson, embedded_people, real_anatomy
from .signal import ECHO_MS, SITES, SPIN_LOCK_MS, PlantedEffect, Scanner, Site

__all__ = ["PlantedEffect", "RealPerson", "Site", "VirtualPerson", "draw_people", "embedded_people", "scan_person",
           "write_virtual_study"]

#: Where the ground truth goes, below the study folder.
TRUTH = "derivatives/ground-truth"
_NOTICE = "SIMULATED data: no measurement of a person."

#: SD of the motion between echoes of a series, and between series and anatomy, in mm.
ECHO_MOTION_MM, SERIES_MOTION_MM = 0.3, 1.0


def write_virtual_study(folder: str | os.PathLike, people: int = 31, seed: int = 1, *, null: bool = False,
                        sites: int = 1, effects: Sequence[PlantedEffect] = (),
                        real: Sequence[RealPerson] | None = None, with_labels: bool = False,
                        truth_maps: bool = True, spacing: tuple[float, float, float] = FINE,
                        progressCallback: ProgressCallback = silent) -> list[VirtualPerson]:
    """Write a BIDS-like study of simulated people.

    Parameters
    ----------
    folder : path
        New or empty folder.
    people : int
    seed : int
        The same seed and settings give the same study.
    null : bool
        Shuffle disability, muscle and grades between people, so that no association exists.
    sites : int
        1 or 2; the second has other voxels, more noise and the other handedness.
    effects : sequence of PlantedEffect
        Focal associations on top of those by grade and region.
    real : sequence of RealPerson, optional
        Real anatomies (with their grades, age, sex) for the first people; only the relaxation is simulated in these.
        By default the shipped ones; further people, or all with an empty sequence, have a parametric anatomy.
    with_labels : bool
        Also put the true segmentation beside the images, as one that came with the study.
    truth_maps : bool
        Write true maps on the MAPSS grid (most of the ground truth's size).
    spacing : tuple of float
        Fine grid in mm along i, j, k, of which the sites' voxels are blocks.
    progressCallback : callable

    Raises
    ------
    StudyError
        If the folder is not empty or a number cannot be used.
    """
    folder = Path(os.path.abspath(folder))  # "." has no name
    if folder.exists() and any(folder.iterdir()):
        raise StudyError(f"The folder '{folder.name}' is not empty: give a new one for the simulated study.")
    if sites not in range(1, len(SITES) + 1):
        raise StudyError(f"A simulated study has 1 or 2 sites, not {sites}.")
    real = embedded_people(people) if real is None else real[:people]
    cohort = draw_people(people, seed, null, sites, [r.given for r in real])
    for n, person in enumerate(cohort):
        progressCallback(n / people, f"Simulating {person.id}")
        scanner = scan_person(person, SITES[person.site], effects, real[n] if n < len(real) else None, spacing=spacing)
        _write_images(folder, scanner, with_labels)
        _write_truth(folder, scanner, truth_maps)
    _write_participants(folder, cohort)
    _write_description(folder, {
        "people": people, "seed": seed, "null": null, "sites": [asdict(s) for s in SITES[:sites]],
        "effects": [asdict(e) for e in effects], "real_anatomies": [r.source for r in real],
        "echo_motion_mm": ECHO_MOTION_MM, "series_motion_mm": SERIES_MOTION_MM})
    progressCallback(1.0, f"Simulated {people} people")
    return cohort


def scan_person(person: VirtualPerson, site: Site = SITES[0], effects: Sequence[PlantedEffect] = (),
                real: RealPerson | None = None, echo_motion_mm: float = ECHO_MOTION_MM,
                series_motion_mm: float = SERIES_MOTION_MM, spacing: tuple[float, float, float] = FINE) -> Scanner:
    """Return a scanner with a person inside, in a real anatomy if one is given."""
    if real is not None:
        anatomy = real_anatomy(real, spacing)
    else:
        anatomy = build_anatomy(person, spacing, left_handed=site.left_handed)
    return Scanner(person, anatomy, site, effects, echo_motion_mm, series_motion_mm)


def _write_images(folder: Path, scanner: Scanner, with_labels: bool) -> None:
    id = scanner.person.id
    anat = folder / id / "anat"
    common = {"Simulated": True, "Notice": _NOTICE, "BodyPartExamined": "LSPINE",
              "ManufacturersModelName": f"virtual site {scanner.site.name}"}
    write_image(scanner.t2w(), anat / f"{id}_T2w.nii.gz")
    write_json(anat / f"{id}_T2w.json", {**common, "EchoTime": 0.1})
    volumes, geometry = scanner.mapss()
    _write_4d(volumes, geometry, anat / f"{id}_acq-mapss_T1rho.nii.gz")
    write_json(anat / f"{id}_acq-mapss_T1rho.json", {
        **common, "SpinLockTime": [t / 1000 for t in SPIN_LOCK_MS], "EchoTime": [t / 1000 for t in ECHO_MS],
        "SpinLockFrequency": 500, "VolumeOrder": "T1rho: volumes 0, 1, 2, 3; T2: volumes 0, 4, 5, 6"})
    if with_labels:
        write_image(scanner.labels("t2w"), anat / f"{id}_dseg.nii.gz")


def _write_4d(volumes: np.ndarray, geometry: Geometry, path: Path) -> None:
    joined = sitk.JoinSeries([Image(volume, geometry).to_sitk() for volume in volumes])
    with atomic_path(path) as temporary:
        sitk.WriteImage(joined, str(temporary), useCompression=True)


def _write_truth(folder: Path, scanner: Scanner, maps: bool) -> None:
    person = scanner.person
    base = folder / TRUTH / person.id
    write_image(scanner.labels("t2w"), base / "anat" / f"{person.id}_dseg.nii.gz")
    if maps:
        for name, image in scanner.truth_maps().items():
            suffix = f"{name}map" if name in KINDS else name.replace("_", "")
            write_image(image, base / "anat" / f"{person.id}_space-mapss_desc-truth_{suffix}.nii.gz")
        write_image(scanner.labels("mapss"), base / "anat" / f"{person.id}_space-mapss_desc-truth_labels.nii.gz")
    write_json(base / f"{person.id}_truth.json", {
        "Notice": _NOTICE, "severity": dict(person.severity),
        "grade": {level: person.grade(level) for level in LUMBAR_LEVELS},
        "nucleus_ms": _by_kind(person.nucleus), "annulus_ms": _by_kind(person.annulus),
        "disc_heights_and_length_mm": scanner.anatomy.measures, "odi": person.odi, "fat_fraction": person.fat_fraction,
        "motion": {"unit": "mm (three translations), 0.3 degrees (three rotations)", "volumes": scanner.motion}})


def _by_kind(values) -> dict:
    return {kind: {level: round(v, 3) for (k, level), v in values.items() if k == kind} for kind in KINDS}


def _write_participants(folder: Path, cohort: Sequence[VirtualPerson]) -> None:
    grades = [Column(f"pfirrmann_{level.replace('-', '')}", "", f"SIMULATED Pfirrmann grade (1-5) of {level}")
              for level in LUMBAR_LEVELS]
    columns = [Column("participant_id"), Column("age", "a", "SIMULATED age"),
               Column("sex", "", "SIMULATED sex, F or M"), Column("site", "", "Virtual site"),
               Column("odi", "%", "SIMULATED Oswestry disability index"),
               Column("odi_group", "", "SIMULATED: minimal_moderate (odi <= 40) or severe (above)"),
               Column("fat_fraction", "%", "SIMULATED fat share of the paraspinal muscle"), *grades]
    rows = [{"participant_id": p.id, "age": int(p.age), "sex": p.sex, "site": SITES[p.site].name, **p.variables}
            for p in cohort]
    Table("participants", columns, rows).write(folder / "participants.tsv")


def _write_description(folder: Path, settings: dict) -> None:
    write_json(folder / "dataset_description.json", {
        "Name": "SIMULATED lumbar disc relaxometry cohort", "BIDSVersion": "1.10.0", "DatasetType": "raw",
        "Simulated": True, "Notice": _NOTICE, "GeneratedBy": [{"Name": "disc-relaxometry virtual cohort"}],
        "Simulation": settings})
    write_json(folder / TRUTH / "dataset_description.json", {
        "Name": "SIMULATED cohort: ground truth", "BIDSVersion": "1.10.0", "DatasetType": "derivative",
        "Simulated": True, "Notice": _NOTICE, "GeneratedBy": [{"Name": "disc-relaxometry virtual cohort"}]})
    sources = settings["real_anatomies"]
    text = [_NOTICE, "", "Relaxation, grades, disability and noise are drawn at random: dataset_description.json."]
    if sources:
        text += ["", "The anatomy of the first people is real; its sources:", *[f"- {s}" for s in sources]]
    write_text(folder / "README", "\n".join(text) + "\n")
