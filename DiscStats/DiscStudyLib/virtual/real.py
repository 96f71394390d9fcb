"""Real discs with simulated relaxation: a label image (and its T2-weighted volume) instead of a parametric spine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Geometry, Image, read_image, require_same_geometry, resample
from DiscRelaxometryLib.labels import CANAL, DISCS, VERTEBRA, VERTEBRAE
from DiscRelaxometryLib.measure import disc_coordinates, disc_frames
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import read_tsv

from .anatomy import FINE, TISSUES, Anatomy
from .people import LEVELS

_T = {name: n for n, name in enumerate(TISSUES)}


@dataclass(frozen=True)
class RealPerson:
    """A real anatomy to simulate in."""

    #: The project's label values; its licence has to allow the use.
    labels: Image
    #: T2-weighted volume on the same grid, used as it is.
    t2w: Image | None = None
    #: Attribution, written into the study.
    source: str = ""
    #: ``age``, ``sex``, ``grades`` {level: 1..5} of the person, as far as known.
    given: Mapping = field(default_factory=dict)


def real_anatomy(real: RealPerson, spacing: tuple[float, float, float] = FINE) -> Anatomy:
    """Build the fine grid of a real anatomy, mm along i (posterior), j (caudal), k (left).

    StudyError if the labels hold no disc of a simulated level, GeometryError if they are on another grid than the
    image.
    """
    if real.t2w is not None:
        require_same_geometry(real.labels, real.t2w, "The labels and the T2-weighted volume")
    # Axes are reordered to i posterior, j caudal, k left, without resampling.
    labels = Image.from_sitk(sitk.DICOMOrient(real.labels.to_sitk(), "PIL"))
    geometry = _fine(labels.geometry, spacing)
    fine = _upsampled(labels, geometry)
    anatomy = Anatomy(geometry, fine, _tissue(fine, geometry, real), t2w=real.t2w)
    frames = disc_frames(Image(fine, geometry))
    for disc in DISCS:
        if disc.name in LEVELS and disc.value in frames:
            mask = fine == disc.value
            coordinates, outline = disc_coordinates(mask, geometry, frames[disc.value])
            anatomy.discs[disc.name] = np.flatnonzero(mask), coordinates.astype(np.float32)
            anatomy.measures[disc.name] = (outline.ap_diameter,)
    if not anatomy.discs:
        raise StudyError("The labels of the real anatomy hold no lumbar disc: use the project's label values.")
    return anatomy


def _fine(geometry: Geometry, spacing: tuple[float, float, float]) -> Geometry:
    extent = np.array(geometry.size) * geometry.spacing
    size = np.maximum(np.round(extent / spacing).astype(int), 1)
    # The first fine voxel's center lies half a fine voxel inside the first voxel's border.
    start = geometry.index_to_world(np.array(spacing) / (2 * np.array(geometry.spacing)) - 0.5)
    return Geometry(tuple(size), spacing, start, geometry.direction)


def _upsampled(labels: Image, geometry: Geometry) -> np.ndarray:
    """Return labels on the fine grid: the label with the largest linear interpolation, so borders are smooth."""
    best = np.zeros(geometry.shape, np.uint8)
    share = np.full(geometry.shape, 0.5, np.float32)
    for value in np.unique(labels.array):
        if value:
            part = resample(Image((labels.array == value).astype(np.float32), labels.geometry), geometry).array
            best[part > share] = value
            share = np.maximum(part, share)
    return best


def _tissue(fine: np.ndarray, geometry: Geometry, real: RealPerson) -> np.ndarray:
    """Return a tissue for each fine voxel: by label, and outside the labels by T2-weighted signal."""
    tissue = np.full(fine.shape, _T["muscle"], np.uint8)
    canal = fine == CANAL.value
    if real.t2w is not None:
        signal = resample(Image(real.t2w.array.astype(np.float32), real.t2w.geometry), geometry).array
        bright = np.median(signal[canal]) if canal.any() else np.quantile(signal, 0.95)
        tissue[signal > 0.25 * bright] = _T["viscera"]
        tissue[signal > 0.5 * bright] = _T["fat"]
        tissue[signal < 0.04 * bright] = _T["air"]
        tissue[canal] = np.where(signal[canal] > 0.75 * bright, _T["csf"], _T["nerve"])
    else:
        tissue[canal] = _T["csf"]
    bone = np.isin(fine, [VERTEBRA.value, *(v.value for v in VERTEBRAE)])
    steps = np.ceil(0.9 / np.array(geometry.spacing[::-1])).astype(int)
    core = ndimage.minimum_filter(bone.astype(np.uint8), size=tuple(2 * steps - 1)) > 0
    tissue[bone] = _T["cortical"]
    tissue[core] = _T["marrow"]
    tissue[np.isin(fine, [d.value for d in DISCS])] = _T["disc"]
    return tissue


def embedded_people(count: int | None = None) -> list[RealPerson]:
    """Return the shipped real anatomies, at most `count`: SPIDER people with grades, age and sex (CC BY 4.0)."""
    root = resource_path("SampleData/spider-cohort", "DiscStatsLib")
    table = read_tsv(root / "participants.tsv", required=("participant_id", "age", "sex"), numeric=("age",))
    people = []
    for row in table.rows:
        id = row["participant_id"]
        labels = root / "derivatives" / "reference" / id / "anat" / f"{id}_dseg.nii.gz"
        if id == "sub-141" or not labels.exists():  # no adult
            continue
        if len(people) == count:
            break
        grades = {level: int(row[f"pfirrmann_{level.replace('-', '')}"]) for level in LEVELS
                  if row.get(f"pfirrmann_{level.replace('-', '')}", "n/a").isdigit()}
        # A missing age or sex is drawn.
        given = {"age": row["age"] if row["age"] == row["age"] else None, "grades": grades,
                 "sex": row["sex"] if row["sex"] in ("F", "M") else None}
        image = read_image(root / id / "anat" / f"{id}_T2w.nii.gz")
        people.append(RealPerson(read_image(labels), image, f"SPIDER {id}, CC BY 4.0, doi 10.5281/zenodo.10159290",
                                 given))
    return people
