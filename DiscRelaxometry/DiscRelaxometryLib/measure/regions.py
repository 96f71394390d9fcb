"""Regions of a disc in its own axes; see ``Docs/method/measures.md`` for the definitions and their sources.

A voxel's region follows from three disc-intrinsic coordinates: LR and AP within the disc plane, and its relative
height between the caudal and the cranial surface. Intensity is never used.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import SegmentationError
from ..image import Geometry, Image, voxel_points
from ..labels import BY_VALUE, DISCS, disc_value, whole_labels
from .axes import (
    WHOLE_WIDTH_RATIO,
    DiscFrame,
    LocalMask,
    column_surfaces,
    crop,
    disc_frame,
    disc_frames,
    local_mask,
    spine_axes,
)

__all__ = ["DiscFrame", "DiscOutline", "NucleusShape", "PARTITION", "REGIONS", "disc_coordinates", "disc_frame",
           "disc_frames", "disc_outline", "disc_regions", "region_image", "region_members", "spine_axes"]

#: Values of :func:`region_image`, which gives each voxel exactly one region.
PARTITION = {"nucleus": 1, "anterior_annulus": 2, "posterior_annulus": 3, "left_annulus": 4, "right_annulus": 5,
             "endplate_margin": 6}
#: All regions of tables, with their description; they overlap.
REGIONS = {
    "whole": "All voxels of the disc",
    "nucleus": "Nucleus pulposus: elliptic in the disc plane, middle 72 % of the height",
    "annulus": "Annulus fibrosus: outside the nucleus's ellipse, all around",
    "anterior_annulus": "Annulus in the anterior quadrant",
    "posterior_annulus": "Annulus in the posterior quadrant",
    "left_annulus": "Annulus in the quadrant on the patient's left",
    "right_annulus": "Annulus in the quadrant on the patient's right",
    "endplate_margin": "Above and below the nucleus, next to the endplates",
    "left_third": "Third of the width on the patient's left",
    "midsagittal_third": "Middle third of the width",
    "right_third": "Third of the width on the patient's right",
    "cranial_third": "Third of the local height next to the upper vertebra",
    "midheight_third": "Middle third of the local height",
    "caudal_third": "Third of the local height next to the lower vertebra",
}


@dataclass(frozen=True)
class NucleusShape:
    """Proportions of the nucleus in a disc."""

    #: Anterior annulus's share of the AP diameter.
    anterior: float = 0.205
    #: Posterior annulus's share of the AP diameter.
    posterior: float = 0.156
    #: Nucleus's share of the local disc height.
    height: float = 0.72
    #: Nucleus's share of the transverse width.
    width: float = 0.64

    @property
    def center(self) -> float:
        """Nucleus's center on the AP coordinate (-1 posterior to 1 anterior)."""
        return self.posterior - self.anterior

    @property
    def half_length(self) -> float:
        """Nucleus's half length on the AP coordinate."""
        return 1 - self.posterior - self.anterior


#: Published proportions: L5-S1 has its own, L4-L5's stand for all other levels.
NUCLEUS = {disc_value("L5-S1"): NucleusShape(0.14, 0.14, 0.72, 0.72)}
#: Full width of a disc over its AP diameter, used where a disc is cut laterally.
WIDTH_TO_AP = 1.4


@dataclass(frozen=True)
class DiscOutline:
    """Size and position of a disc in its frame; all in mm along the frame's axes."""

    #: Extent along LR of the mask (right is negative).
    right: float
    left: float
    #: Borders on the AP axis in the mid-sagittal strip.
    posterior: float
    anterior: float
    #: Full width: the mask's, or 1.4 x AP diameter where the disc is cut laterally.
    width: float
    #: Narrower than a whole disc can be.
    cut_laterally: bool

    @property
    def ap_diameter(self) -> float:
        """Anterior-posterior diameter in the mid-sagittal strip."""
        return self.anterior - self.posterior

    @property
    def measured_width(self) -> float:
        """Width of the mask."""
        return self.left - self.right


def disc_outline(local: LocalMask) -> DiscOutline:
    """Measure a disc's outline in the disc plane from its frame-aligned mask."""
    outline = np.asarray(local.inside.any(axis=2))
    columns = np.nonzero(outline.any(axis=1))[0]
    right = local.start[0] + local.step * (columns[0] - 0.5)
    left = local.start[0] + local.step * (columns[-1] + 0.5)
    strip = outline[midsagittal(local, right, left)]
    strip = strip[strip.any(axis=1)]
    first = np.argmax(strip, axis=1)
    last = strip.shape[1] - 1 - np.argmax(strip[:, ::-1], axis=1)
    posterior = local.start[1] + local.step * (first.mean() - 0.5)
    anterior = local.start[1] + local.step * (last.mean() + 0.5)
    cut = (left - right) < WHOLE_WIDTH_RATIO * (anterior - posterior)
    width = max(left - right, WIDTH_TO_AP * (anterior - posterior)) if cut else left - right
    return DiscOutline(right, left, posterior, anterior, width, bool(cut))


def midsagittal(local: LocalMask, right: float, left: float) -> np.ndarray:
    """Return which LR positions of a local mask lie in the mid-sagittal strip: a tenth of the width, 4 mm at least."""
    u = local.start[0] + local.step * np.arange(local.inside.shape[0])
    return np.abs(u - (left + right) / 2) <= max(2.0, 0.05 * (left - right))


def disc_coordinates(mask: np.ndarray, geometry: Geometry, frame: DiscFrame) -> tuple[np.ndarray, DiscOutline]:
    """Return disc-intrinsic coordinates of a mask's voxels, in C order of the array.

    Parameters
    ----------
    mask : ndarray of bool, shape (k, j, i)
    geometry : Geometry
    frame : DiscFrame

    Returns
    -------
    coordinates : ndarray, shape (n, 3)
        LR (-1 right border, 1 left border of the full width), AP (-1 posterior, 1 anterior border in the mid-sagittal
        strip; beyond +-1 elsewhere), CC (-1 caudal, 1 cranial surface at the voxel's own LR and AP position).
    outline : DiscOutline
    """
    cropped, small = crop(mask, geometry)
    local = local_mask(cropped, small, frame)
    outline = disc_outline(local)
    points = frame.to_local(voxel_points(cropped, small))
    bottom, top = (_extended(surface) for surface in column_surfaces(local))
    at = (points[:, :2] - local.start[:2]).T / local.step
    low = ndimage.map_coordinates(bottom, at, order=1, mode="nearest")
    high = ndimage.map_coordinates(top, at, order=1, mode="nearest")
    lr = (points[:, 0] - (outline.left + outline.right) / 2) / (outline.width / 2)
    ap = (points[:, 1] - (outline.anterior + outline.posterior) / 2) / (outline.ap_diameter / 2)
    cc = (points[:, 2] - (high + low) / 2) / ((high - low) / 2)
    return np.column_stack([lr, ap, cc]), outline


def _extended(surface: np.ndarray) -> np.ndarray:
    """Continue a surface beyond the outline with the nearest column's value."""
    nearest = ndimage.distance_transform_edt(np.isnan(surface), return_distances=False, return_indices=True)
    return surface[tuple(nearest)]


def region_members(mask: np.ndarray, geometry: Geometry, frame: DiscFrame,
                   shape: NucleusShape | None = None) -> dict[str, np.ndarray]:
    """Return membership of a mask's voxels (in C order) in each region, keyed as :data:`REGIONS`."""
    return members_at(*disc_coordinates(mask, geometry, frame), shape)


def members_at(coordinates: np.ndarray, outline: DiscOutline, shape: NucleusShape | None = None
               ) -> dict[str, np.ndarray]:
    """Return membership in each region of voxels whose disc-intrinsic coordinates are known."""
    shape = shape or NucleusShape()
    lr, ap, cc = coordinates.T
    # In the nucleus's own scale its border is the unit circle, and the quadrants meet on the diagonals.
    x, y = lr / shape.width, (ap - shape.center) / shape.half_length
    ellipse = x ** 2 + y ** 2 <= 1
    sagittal, ring = np.abs(y) >= np.abs(x), ~ellipse
    # Thirds are those of the mask as it is, so that a cut disc has three of equal width too.
    third = lr * outline.width / outline.measured_width
    return {
        "whole": np.ones(len(lr), bool),
        "nucleus": ellipse & (np.abs(cc) <= shape.height),
        "annulus": ring,
        "anterior_annulus": ring & sagittal & (y > 0),
        "posterior_annulus": ring & sagittal & (y <= 0),
        "left_annulus": ring & ~sagittal & (x > 0),
        "right_annulus": ring & ~sagittal & (x <= 0),
        "endplate_margin": ellipse & (np.abs(cc) > shape.height),
        "left_third": third > 1 / 3,
        "midsagittal_third": np.abs(third) <= 1 / 3,
        "right_third": third < -1 / 3,
        "cranial_third": cc > 1 / 3,
        "midheight_third": np.abs(cc) <= 1 / 3,
        "caudal_third": cc < -1 / 3,
    }


def disc_regions(labels: Image, value: int, frame: DiscFrame | None = None,
                 shape: NucleusShape | None = None) -> dict[str, np.ndarray]:
    """Return the regions of one disc as boolean arrays (k, j, i), keyed as :data:`REGIONS`.

    Parameters
    ----------
    labels : Image
        Label image with the project's values.
    value : int
        Label value of the disc.
    frame : DiscFrame, optional
        The disc's frame; by default found with the help of the neighboring labels.
    shape : NucleusShape, optional
        Proportions of the nucleus; by default the published ones of the level.

    Raises
    ------
    SegmentationError
        If the disc is absent or too small.
    """
    labels = whole_labels(labels)
    mask = labels.array == value
    if not mask.any():
        name = BY_VALUE[value].name if value in BY_VALUE else value
        raise SegmentationError(f"The segmentation holds no disc {name} (label value {value}).")
    frame = frame or disc_frame(mask, labels.geometry, spine_axes(labels, value))
    members = region_members(mask, labels.geometry, frame, shape or NUCLEUS.get(value))
    regions = {}
    for name, inside in members.items():
        regions[name] = np.zeros(mask.shape, bool)
        regions[name][mask] = inside
    return regions


def region_image(labels: Image) -> Image:
    """Return an image (uint8) with the :data:`PARTITION` value of each disc voxel; 0 is no disc."""
    labels = whole_labels(labels)
    frames, result = disc_frames(labels), np.zeros(labels.array.shape, np.uint8)
    for disc in DISCS:
        mask = labels.array == disc.value
        if not mask.any():
            continue
        members = region_members(mask, labels.geometry, frames[disc.value], NUCLEUS.get(disc.value))
        codes = np.zeros(np.count_nonzero(mask), np.uint8)
        for name, code in PARTITION.items():
            codes[members[name]] = code
        result[mask] = codes
    return labels.like(result, content="disc regions")
