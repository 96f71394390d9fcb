"""Disc-intrinsic axes: where left, anterior and cranial lie in a disc, whatever the grid's orientation.

World coordinates are LPS mm. Nothing here assumes an isotropic, axis-aligned or right-handed grid.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import SegmentationError
from ..image import Geometry, Image, bounding_box, voxel_points
from ..labels import CANAL, DISCS, VERTEBRAE, whole_labels

#: Rows: to patient left, to anterior, to cranial, in LPS.
PATIENT_AXES = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
#: A disc narrower than this share of its AP length is taken as cut laterally (whole: about 1.4).
WHOLE_WIDTH_RATIO = 1.15
_MINIMUM_VOXELS = 12


@dataclass(frozen=True)
class DiscFrame:
    """Axes of one disc."""

    #: Shape (3,). Centroid, LPS mm.
    center: np.ndarray
    #: Shape (3, 3). Orthonormal rows: LR (to patient left), AP (to anterior), CC (to cranial, normal to the disc
    #: plane), LPS.
    axes: np.ndarray
    #: Shape (3,). Size of the disc's bounding box along the axes, mm.
    extents: np.ndarray

    def to_local(self, lps) -> np.ndarray:
        """Map (..., 3) LPS mm to mm along LR, AP, CC from the center."""
        return (np.asarray(lps, float) - self.center) @ self.axes.T

    def to_world(self, local) -> np.ndarray:
        """Map (..., 3) mm along LR, AP, CC from the center to LPS mm."""
        return np.asarray(local, float) @ self.axes + self.center


@dataclass(frozen=True)
class LocalMask:
    """A mask resampled on a grid aligned with a frame."""

    #: bool, shape (LR, AP, CC).
    inside: np.ndarray
    #: Shape (3,). Local coordinates (mm) of element (0, 0, 0).
    start: np.ndarray
    #: Grid spacing in mm.
    step: float


def disc_frame(mask: np.ndarray, geometry: Geometry, reference: np.ndarray | None = None) -> DiscFrame:
    """Return the intrinsic frame of one disc.

    The CC axis is the normal of the least-squares plane through the disc's mid-surface (midway between its cranial
    and caudal surface), found iteratively. The LR axis is the long principal axis of the disc's outline in that plane
    where the disc is whole; where it is cut laterally the outline says nothing, and AP is the reference's.

    Parameters
    ----------
    mask : ndarray of bool, shape (k, j, i)
        One disc.
    geometry : Geometry
        Grid of the mask.
    reference : ndarray, shape (3, 3), optional
        Approximate LR, AP and CC directions (rows, LPS); patient axes by default. :func:`spine_axes` finds them from
        neighboring structures where a header cannot be trusted.

    Raises
    ------
    SegmentationError
        If the mask is empty or too small to have axes.
    """
    mask = np.asarray(mask, dtype=bool)
    if np.count_nonzero(mask) < _MINIMUM_VOXELS:
        raise SegmentationError(f"A disc of {np.count_nonzero(mask)} voxels is too small to be measured: "
                                "remove the label, or segment the disc completely.", anchor="disc-too-small")
    reference = PATIENT_AXES if reference is None else np.asarray(reference, float)
    mask, geometry = crop(mask, geometry)
    points = voxel_points(mask, geometry)
    center = points.mean(axis=0)
    # A voxel is a box, not a point: its own second moment matters where slices are thick.
    box = geometry.matrix3
    covariance = np.cov(points.T, bias=True) + box @ box.T / 12
    axes = orthonormal(_starting_normal(covariance, reference), reference[1])
    for _ in range(4):
        local = local_mask(mask, geometry, DiscFrame(center, axes, np.zeros(3)), step=1.0)
        axes = orthonormal(_plane_normal(local) @ axes, reference[1])
    local = local_mask(mask, geometry, DiscFrame(center, axes, np.zeros(3)))
    axes = orthonormal(axes[2], _in_plane_anterior(local, axes))
    local = local_mask(mask, geometry, DiscFrame(center, axes, np.zeros(3)))
    return DiscFrame(center, axes, (np.ptp(np.argwhere(local.inside), axis=0) + 1) * local.step)


def spine_axes(labels: Image, value: int) -> np.ndarray:
    """Return approximate LR, AP, CC directions (3 x 3 rows, LPS) at a disc from the structures around it.

    CC runs through the neighboring discs (or the two vertebrae), AP away from the spinal canal; the header's patient
    axes stand in for what is not labelled.

    Raises
    ------
    SegmentationError
        If the disc is absent, or if the header contradicts the order of the discs and no canal tells front from back.
    """
    center = _centroid(labels, labels.array == value)
    if center is None:
        raise SegmentationError(f"There is no disc with label value {value}.")
    cranial = _cranial(labels, value, center)
    trusted = cranial is None or cranial @ PATIENT_AXES[2] > 0.5
    cranial = PATIENT_AXES[2] if cranial is None else cranial
    canal = labels.array == CANAL.value
    if canal.any():
        points = voxel_points(canal, labels.geometry) - center
        near = points[np.abs(points @ cranial) < 15]
        if len(near):
            return orthonormal(cranial, -near.mean(axis=0))
    if not trusted:
        raise SegmentationError(
            "The image header's cranial direction contradicts the order of the discs, and no spinal canal is labelled "
            "that would tell anterior from posterior: label the canal, or correct the image's orientation.",
            anchor="orientation")
    return orthonormal(cranial, PATIENT_AXES[1])


def disc_frames(labels: Image) -> dict[int, DiscFrame]:
    """Return the frame of each disc in a label image, keyed by label value."""
    labels = whole_labels(labels)
    present = present_values(labels)
    return {d.value: disc_frame(labels.array == d.value, labels.geometry, spine_axes(labels, d.value))
            for d in DISCS if d.value in present}


def present_values(labels: Image) -> set[int]:
    """Return the values in a label image."""
    if labels.array.dtype in (np.uint8, np.uint16):
        # Counting is many times faster than the sort in np.unique.
        return set(np.flatnonzero(np.bincount(labels.array.ravel())).tolist())
    return set(np.unique(labels.array).tolist())


def crop(mask: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """Return the mask's bounding box and its geometry."""
    box = bounding_box(mask)
    start, cropped = [b.start for b in box[::-1]], mask[box]
    return cropped, Geometry(cropped.shape[::-1], geometry.spacing, tuple(geometry.index_to_world(start)),
                             geometry.direction)


def local_mask(mask: np.ndarray, geometry: Geometry, frame: DiscFrame, step: float | None = None) -> LocalMask:
    """Resample a mask onto a grid aligned with `frame`, by default at the finest voxel spacing, but 0.4 to 1 mm.

    Linear interpolation of the 0/1 mask at the level 0.5 puts the surface at voxel borders, midway between the centers
    of an inside and an outside voxel; outside the grid is background.
    """
    step = float(np.clip(min(geometry.spacing), 0.4, 1.0)) if step is None else step
    corners = np.array(np.meshgrid(*[(-1, n) for n in geometry.size])).reshape(3, -1).T
    points = frame.to_local(voxel_points(mask, geometry))
    reach = np.abs(frame.axes @ geometry.matrix3).sum(axis=1) / 2 + step
    edges = frame.to_local(geometry.index_to_world(corners))
    low = np.maximum(points.min(axis=0) - reach, edges.min(axis=0))
    high = np.minimum(points.max(axis=0) + reach, edges.max(axis=0))
    shape = np.ceil((high - low) / step).astype(int) + 1
    grid = np.stack(np.meshgrid(*[low[a] + step * np.arange(shape[a]) for a in range(3)], indexing="ij"), axis=-1)
    index = geometry.world_to_index(frame.to_world(grid.reshape(-1, 3)))
    # The small offset makes "exactly on the border" count once, not twice, on grids that align with the mask's.
    padded = np.pad(mask.astype(np.float32), 1)
    sampled = ndimage.map_coordinates(padded, index.T[::-1] + 1, order=1, mode="constant") > 0.5
    return LocalMask(sampled.reshape(shape), low, step)


def column_surfaces(local: LocalMask) -> tuple[np.ndarray, np.ndarray]:
    """Return the caudal and cranial surface (mm along CC; NaN outside the outline), shape (LR, AP)."""
    filled = local.inside.any(axis=2)
    depth = local.inside.shape[2]
    first = np.argmax(local.inside, axis=2)
    last = depth - 1 - np.argmax(local.inside[:, :, ::-1], axis=2)
    bottom = local.start[2] + local.step * (first - 0.5)
    top = local.start[2] + local.step * (last + 0.5)
    return np.where(filled, bottom, np.nan), np.where(filled, top, np.nan)


def orthonormal(cranial: np.ndarray, anterior: np.ndarray) -> np.ndarray:
    """Return orthonormal rows LR, AP, CC from a cranial and an approximate anterior direction."""
    cranial = cranial / np.linalg.norm(cranial)
    anterior = anterior - (anterior @ cranial) * cranial
    anterior = anterior / np.linalg.norm(anterior)
    return np.stack([np.cross(cranial, anterior), anterior, cranial])


def _starting_normal(covariance: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the shortest principal axis where it is clearly the shortest and near the reference's CC."""
    values, vectors = np.linalg.eigh(covariance)
    normal = vectors[:, 0] * np.sign(vectors[:, 0] @ reference[2] or 1.0)
    if values[1] > 2 * values[0] and normal @ reference[2] > 0.5:
        return normal
    return reference[2]


def _plane_normal(local: LocalMask) -> np.ndarray:
    """Return the normal (local coordinates) of the least-squares plane through the mid-surface."""
    bottom, top = column_surfaces(local)
    height = top - bottom
    # Columns at the rim are short and noisy: the plane is that of the disc's body.
    keep = height >= 0.5 * np.nanmedian(height)
    u, v = np.nonzero(keep)
    if len(u) < 3:
        return np.array([0.0, 0.0, 1.0])
    middle = (bottom + top)[keep] / 2
    design = np.column_stack([local.step * u, local.step * v, np.ones(len(u))])
    slope = np.linalg.lstsq(design, middle, rcond=None)[0]
    normal = np.array([-slope[0], -slope[1], 1.0])
    return normal / np.linalg.norm(normal)


def _in_plane_anterior(local: LocalMask, axes: np.ndarray) -> np.ndarray:
    """Return the anterior direction (LPS): the outline's short principal axis, or the reference's where cut."""
    outline = np.argwhere(local.inside.any(axis=2)) * local.step
    values, vectors = np.linalg.eigh(np.cov(outline.T))
    long, short = vectors[:, 1], vectors[:, 0]
    # sqrt of the eigenvalues' ratio is the ratio of the lengths; within 35 degrees of the reference only.
    if values[1] < WHOLE_WIDTH_RATIO ** 2 * values[0] or abs(long[0]) < 0.82:
        return axes[1]
    short = short * np.sign(short[1] or 1.0)
    return short @ axes[:2]


def _centroid(labels: Image, mask: np.ndarray) -> np.ndarray | None:
    return voxel_points(mask, labels.geometry).mean(axis=0) if mask.any() else None


def _cranial(labels: Image, value: int, center: np.ndarray) -> np.ndarray | None:
    """Return the unit direction from the structure below a disc to the one above, or None without neighbors."""
    present = present_values(labels)
    discs = sorted(d.value for d in DISCS if d.value in present)
    above = [v for v in discs if v > value][:1]
    below = [v for v in discs if v < value][-1:]
    if not above and not below:
        # Vertebra values count like the discs': the upper neighbor of disc 11 + n is 31 + n.
        vertebrae = {v.value for v in VERTEBRAE} & present
        above = [value + 20] if value + 20 in vertebrae else []
        below = [value + 19] if value + 19 in vertebrae else []
    if not above and not below:
        return None
    high = _centroid(labels, labels.array == above[0]) if above else center
    low = _centroid(labels, labels.array == below[0]) if below else center
    assert high is not None and low is not None
    return (high - low) / np.linalg.norm(high - low)
