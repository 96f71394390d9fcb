"""What the review page shows of a person or of the group: volumes with head up, as bytes of a known scale."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.quantities import QUANTITIES

from ..engine import context_atlas_of, endings, outlined_image, review_records, step_record
from .session import Session

#: Bytes of a volume: 0 is missing, 1 to 255 are `low` to `high`.
_STEPS = 254


@dataclass(frozen=True)
class Volume:
    """One volume of the page."""

    name: str
    unit: str
    #: On one grid, with axes nearest to left, posterior, superior.
    image: Image
    labels: Image
    #: Range of the legend.
    low: float
    high: float
    #: ``gray``, ``viridis`` or ``diverging`` (around 0).
    colors: str = "gray"

    def head(self) -> dict:
        """Return what the page needs to know beside the bytes."""
        return {"name": self.name, "unit": "" if self.unit == "1" else self.unit, "low": self.low, "high": self.high,
                "colors": self.colors, "shape": list(self.image.array.shape),
                "spacing": list(self.image.geometry.spacing[::-1])}

    def content(self) -> bytes:
        """Return the image, then the labels, one byte per voxel, slowest axis first."""
        array = np.asarray(self.image.array, np.float64)
        seen = np.isfinite(array)
        scaled = (np.where(seen, array, self.low) - self.low) / max(self.high - self.low, 1e-12)
        image = np.where(seen, 1 + np.rint(_STEPS * np.clip(scaled, 0, 1)), 0).astype(np.uint8)
        return image.tobytes() + self.labels.array.astype(np.uint8).tobytes()


def as_stored(labels: np.ndarray, geometry: Geometry) -> Image:
    """Return upright labels on the grid of the file, the inverse of ``Image.upright``."""
    blank = Image(np.zeros(geometry.shape, np.uint8), geometry).upright()
    if labels.shape != blank.array.shape:
        raise StudyError(f"The drawn mask has {labels.shape} voxels, the image {blank.array.shape}: nothing was saved.",
                         anchor="review-decisions")
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(list(geometry.direction))
    found = Image.from_sitk(sitk.DICOMOrient(blank.like(labels).to_sitk(), code))
    return Image(found.array, geometry)


def person_images(session: Session, person: str) -> dict[str, tuple[Image, Image]]:
    """Return (image, labels on its grid) by name.

    ``image`` with the outlines to be looked at, ``automatic`` with those before the review where they differ, the
    person's maps, and ``atlas``: a map in atlas space with the discs of the atlas, which shows the registration.
    """
    labels, automatic = session.outlines(person), session.segmented(person)
    found = {"image": (outlined_image(session.study, review_records(session.study, person)["segment"]), labels)}
    if (automatic.array != labels.array).any():
        found["automatic"] = (found["image"][0], automatic)
    for key, path, names in _maps(session, person):
        image, outlines = read_image(path), read_image(names) if names else labels
        if not image.geometry.difference(outlines.geometry):
            found[key] = (image, outlines)
    atlas = _in_atlas(session, person)
    return found | ({"atlas": atlas} if atlas else {})


def person_volumes(session: Session, person: str) -> dict[str, Volume]:
    """Return what :func:`person_images` finds, for the page."""
    found = {}
    for name, (image, labels) in person_images(session, person).items():
        quantity = QUANTITIES.get(image.meta.get("quantity", name))
        if quantity:
            found[name] = Volume(quantity.name, quantity.unit, image.upright(), labels.upright(), *quantity.window,
                                 "viridis")
        else:
            finite = image.array[np.isfinite(image.array)]
            low, high = np.percentile(finite, (1, 99.5)) if finite.size else (0.0, 1.0)
            found[name] = Volume("Image", "", image.upright(), labels.upright(), float(low), float(high))
    return found


def _maps(session: Session, person: str):
    """Yield key, map file and file of the labels on its grid (None: those of the image)."""
    for step, key, ending, carried in (
            ("normalize", "nT2w", endings.NORMALIZED, ""),
            *((f"maps-{k}", k, endings.relaxation_map(k), f"carry-{k}") for k in KINDS)):
        path = _output(session, person, step, ending)
        names = _output(session, person, carried, endings.carried(key)) if carried else None
        if path and (names or not carried):
            yield key, path, names


def _output(session: Session, person: str, step: str, ending: str) -> Path | None:
    record = step_record(session.study, person, step)
    paths = (session.study.absolute(n) for n in record.outputs if n.endswith(ending)) if record else ()
    return next((p for p in paths if p.exists()), None)


def _in_atlas(session: Session, person: str) -> tuple[Image, Image] | None:
    atlas = context_atlas_of(session.study)
    for key in (*KINDS, "nT2w"):
        path = _output(session, person, "atlas", endings.in_atlas(key))
        image = read_image(path) if path else None
        if image is not None and not image.geometry.difference(atlas.labels.geometry):
            return image.like(image.array, quantity=key), atlas.labels
    return None


def group_volumes(session: Session) -> dict[str, Path]:
    """Return name -> file of the statistical maps of the group's analyses."""
    found = sorted((session.study.output / "group").glob("analysis-*/*_stat-*.nii.gz"))
    shown = [p for p in found if p.name.removesuffix(".nii.gz").endswith(("_t", "_F", "_r", "_effect"))]
    return {f"{p.parent.name.removeprefix('analysis-')}: {p.name.split('_stat-')[1].removesuffix('.nii.gz')}": p
            for p in shown}


def group_volume(session: Session, path: Path) -> Volume:
    """Return a statistical map with the discs of the atlas."""
    atlas, image = context_atlas_of(session.study), read_image(path)
    top = float(np.nanpercentile(np.abs(image.array), 99.5)) if np.isfinite(image.array).any() else 1.0
    return Volume(path.name.split("_stat-")[1].removesuffix(".nii.gz"), "", image.upright(), atlas.labels.upright(),
                  -top, top, "diverging")
