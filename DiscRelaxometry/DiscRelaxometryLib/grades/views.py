"""Mid-sagittal views of discs in their own axes, with the signal of fluid and bone marrow beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from ..discs import plan_sagittal
from ..image import Image, require_same_geometry
from ..labels import BY_VALUE, DISC, DISCS, disc_name, whole_labels

#: mm between the pixels of a view.
SPACING = 0.5
#: Rows (cranial to caudal) and columns (anterior to posterior) of a view, 64 x 88 mm around the disc's center.
SHAPE = (128, 176)
#: Channels, rows and columns of what the network sees of a view, 32 x 48 mm.
PICTURE = (6, 64, 96)
#: Slices within this distance (mm) of a disc's middle are averaged: thin slices then look as thick as others.
HALF_SLAB = 2.0
#: A disc's long axis is believed up to this angle (rad) from the normal to the spine.
MAX_TILT = 40 / 180 * np.pi
#: Classes in a view, which tells the disc from its neighbors.
OUTSIDE, BACKGROUND, VERTEBRA, CANAL, THIS_DISC, OTHER_DISC = range(-1, 5)
#: Fewer pixels (1 cm2 has 400) of canal or bone are no reference.
_MIN_REFERENCE = 40
_BEHIND = 20.0  # mm behind a disc's center, in front of the arches: vertebrae there are bodies


@dataclass(frozen=True)
class DiscView:
    """One disc as seen in its axes."""

    #: Label value of the disc.
    value: int
    #: Mean of the slices seen, shape SHAPE; NaN outside the image.
    signal: np.ndarray
    #: ``OUTSIDE``, ``BACKGROUND``, ``VERTEBRA``, ``CANAL``, ``THIS_DISC`` or ``OTHER_DISC``.
    classes: np.ndarray
    #: Signal of cerebrospinal fluid (0.85 quantile of the canal), of the canal (median), and of vertebral bodies
    #: (median) in the view; NaN where there is too little of them, or no positive signal.
    csf: float
    canal: float
    marrow: float
    #: Whether the disc touches the border of the image within the sagittal plane.
    cut: bool

    @property
    def name(self) -> str:
        """Level name."""
        return disc_name(self.value)


def disc_views(image: Image, labels: Image) -> list[DiscView]:
    """Return a view of each named disc, caudal first.

    From a sagittal T2-weighted volume or slice of any orientation, and labels on the same grid, with canal and
    vertebrae. GeometryError if the grids differ, SegmentationError if the volume is not sagittal.
    """
    labels = whole_labels(labels)
    require_same_geometry(image, labels, "The T2-weighted image and its labels")
    plan = plan_sagittal(image.geometry, SPACING)
    signal, stack = (i.array.transpose(plan.axes) for i in (image, labels))
    half, upright = int(HALF_SLAB / plan.slice_mm), np.linalg.inv(plan.matrix)
    found = []
    for disc in DISCS:
        where = np.argwhere(stack == disc.value)
        if len(where):
            middle = int(np.median(where[:, 0]))
            points = (where[np.abs(where[:, 0] - middle) <= half, 1:] - plan.offset) @ upright.T
            if len(points) > 2:
                found.append((disc.value, slice(max(0, middle - half), middle + half + 1), points))
    centers = [points.mean(0) for _, _, points in found]
    views = []
    for n, (value, chosen, points) in enumerate(found):
        grid = _grid(centers[n], _posterior(points, _upward(centers, n)))
        at = np.tensordot(plan.matrix, grid, 1) + plan.offset[:, None, None]
        view, classes = _signal_at(signal[chosen], at), _classes_at(stack[chosen], value, at)
        own = stack[chosen] == value
        cut = own[:, (0, -1)].any() or own[:, :, (0, -1)].any()
        views.append(DiscView(value, view, classes, *_references(view, classes), bool(cut)))
    return views


def disc_pictures(views: Sequence[DiscView], shape: tuple[int, int] = PICTURE[1:]) -> np.ndarray:
    """Return the middle of each view as a network sees it.

    Parameters
    ----------
    views : sequence of DiscView
        Of one person.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    ndarray of float16, shape (views, 6, *shape)
        Signal over CSF, over twice the marrow's, and over the person's CSF, at most 2; disc, vertebra and canal.
    """
    person = np.nanmedian([v.csf for v in views])
    middle = tuple(slice((whole - part) // 2, (whole + part) // 2) for whole, part in zip(SHAPE, shape))
    shown = [[v.signal / (v.csf if np.isfinite(v.csf) else person), v.signal / (2 * v.marrow), v.signal / person,
              v.classes == THIS_DISC, v.classes == VERTEBRA, v.classes == CANAL] for v in views]
    return np.array([[np.clip(np.nan_to_num(channel[middle]), 0, 2) for channel in channels] for channels in shown],
                    np.float16)


def _upward(centers: list[np.ndarray], n: int) -> np.ndarray:
    """Return the spine's upward direction (row, column) at a disc, from the neighboring discs."""
    way = centers[min(n + 1, len(centers) - 1)] - centers[max(n - 1, 0)]
    length = np.linalg.norm(way)
    return way / length if length > 0 else np.array([-1.0, 0.0])


def _posterior(points: np.ndarray, upward: np.ndarray) -> np.ndarray:
    """Return a disc's posterior direction (row, column): its long axis, where that is clear and across the spine."""
    across = np.array([upward[1], -upward[0]])
    values, vectors = np.linalg.eigh(np.cov(points.T))
    axis = vectors[:, 1] * np.sign(vectors[:, 1] @ across or 1.0)
    return axis if values[1] > 3 * values[0] and axis @ across > np.cos(MAX_TILT) else across


def _grid(center: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """Return the upright positions (2, rows, columns) of a view's pixels."""
    down = np.array([posterior[1], -posterior[0]])
    r, c = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    return center[:, None, None] + down[:, None, None] * r + posterior[:, None, None] * c


def _signal_at(slices: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.mean([scipy.ndimage.map_coordinates(s.astype(np.float32), at, order=1, cval=np.nan) for s in slices],
                   axis=0)


def _classes_at(slices: np.ndarray, value: int, at: np.ndarray) -> np.ndarray:
    """Return the class that most of each position's surroundings have, over all slices."""
    def share(mask: np.ndarray) -> np.ndarray:
        # Interpolation is linear: once of the slices' sum, not of each slice.
        return scipy.ndimage.map_coordinates(mask.sum(axis=0, dtype=np.float32), at, order=1) / len(mask)

    kinds = {s.value: s.kind for s in BY_VALUE.values()} | {DISC.value: "disc"}
    discs, canal, bone = (np.isin(slices, [v for v, k in kinds.items() if k in wanted])
                          for wanted in (("disc",), ("canal",), ("vertebra", "unnamed")))
    own, inside = slices == value, np.ones(slices.shape, bool)
    shares = [share(m) for m in (inside & ~(discs | canal | bone), bone, canal, own, discs & ~own)]
    return np.where(share(inside) > 0.5, np.argmax(shares, axis=0), OUTSIDE).astype(np.int8)


def _references(view: np.ndarray, classes: np.ndarray) -> tuple[float, float, float]:
    """Return the signal of CSF, canal and vertebral bodies in a view, away from their borders."""
    canal = scipy.ndimage.binary_erosion(classes == CANAL, iterations=2)
    front = np.arange(SHAPE[1]) < SHAPE[1] / 2 + _BEHIND / SPACING
    bodies = scipy.ndimage.binary_erosion((classes == VERTEBRA) & front, iterations=3)
    found = []
    for mask, quantile in ((canal, 0.85), (canal, 0.5), (bodies, 0.5)):
        values = view[mask & np.isfinite(view)]
        level = float(np.quantile(values, quantile)) if len(values) >= _MIN_REFERENCE else 0.0
        found.append(level if level > 0 else float("nan"))
    return found[0], found[1], found[2]
