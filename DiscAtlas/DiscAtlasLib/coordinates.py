"""Disc coordinates: smooth normalized positions inside a disc, and the correspondence they give between two discs.

Two steps, both invertible (``Docs/method/atlas.md``):

1. *Slab coordinates*, analytic: ``(x / a, y / b, (z - m) / h)`` in the disc's frame, with the mid-surface m and the
   half height h quadratic in the outline's coordinates. They take away pose, size, wedge and bulge.
2. *Outline refinement*: a cubic B-spline displacement between the two discs' slab coordinates, fitted to both surfaces
   under a bending penalty (Gauss-Newton), whose Lipschitz constant is kept below 1: one-to-one by construction.

No intensity enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.errors import RegistrationError

from .levelset import LevelSet, fit_refinement
from .shape import DiscShape, quadratic

#: Half height (mm) of every disc in slab coordinates: CC is stretched, so that both endplates can move on their own.
SLAB_HALF_HEIGHT = 12.0
#: Control point spacing in slab coordinates, mm.
LATTICE = 16.0
#: Weight of the bending energy against mean squared surface distance.
BENDING = 0.1
#: Widths (mm, slab) of the smoothing of the remaining displacement, coarse to fine.
FLOW_SIGMAS = (8.0, 5.0, 4.0, 3.0, 2.5, 2.5, 2.0, 2.0)
#: The flow keeps the Jacobian determinant in slab coordinates above this, in the disc and 2 mm around it.
LEAST_JACOBIAN = 0.1
#: Largest Lipschitz constant of the coarse fit; below 1 a displacement is one-to-one and can be inverted by iteration.
INJECTIVE = 0.9


@dataclass(frozen=True)
class Slab:
    """Slab coordinates of one disc: LPS mm to normalized (LR, AP, CC), each in [-1, 1] inside the disc."""

    center: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    mid: np.ndarray
    logheight: np.ndarray

    @classmethod
    def of(cls, shape: DiscShape, half: np.ndarray | None = None, middle: float = 0.0) -> Slab:
        """Return the slab coordinates of a shape.

        Parameters
        ----------
        half : ndarray, shape (2,), optional
            Half width and depth (mm) in place of the shape's.
        middle : float
            AP frame coordinate of the slab's center, mm.
        """
        if half is None:
            return cls(shape.center, shape.axes, shape.half, shape.mid, shape.logheight)
        # The quadratics, in the new normalized coordinates u', v': u = p u', v = q v' + r.
        p, q, r = half[0] / shape.half[0], half[1] / shape.half[1], middle / shape.half[1]
        change = np.array([[1, 0, r, 0, 0, r * r], [0, p, 0, 0, p * r, 0], [0, 0, q, 0, 0, 2 * q * r],
                           [0, 0, 0, p * p, 0, 0], [0, 0, 0, 0, p * q, 0], [0, 0, 0, 0, 0, q * q]])
        return cls(shape.center + middle * shape.axes[1], shape.axes, np.array([*half, shape.half[2]]),
                   change @ shape.mid, change @ shape.logheight)

    def normalize(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) LPS mm to slab coordinates."""
        xyz = (np.asarray(lps, float) - self.center) @ self.axes.T
        u, v = xyz[..., 0] / self.half[0], xyz[..., 1] / self.half[1]
        terms = quadratic(u, v)
        return np.stack([u, v, (xyz[..., 2] - terms @ self.mid) * np.exp(-(terms @ self.logheight))], axis=-1)

    def place(self, uvw: np.ndarray) -> np.ndarray:
        """Map (..., 3) slab coordinates to LPS mm, the inverse of :meth:`normalize`."""
        uvw = np.asarray(uvw, float)
        terms = quadratic(uvw[..., 0], uvw[..., 1])
        xyz = np.stack([uvw[..., 0] * self.half[0], uvw[..., 1] * self.half[1],
                        uvw[..., 2] * np.exp(terms @ self.logheight) + terms @ self.mid], axis=-1)
        return xyz @ self.axes + self.center


@dataclass(frozen=True)
class Field:
    """A displacement on a regular grid of scaled slab coordinates: `values` (3, nx, ny, nz) in mm."""

    low: np.ndarray
    step: float
    values: np.ndarray

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the displacement at (..., 3) points; beyond the grid, that of its border."""
        return _sample(self.values, self.index(points))

    def inverse_at(self, points: np.ndarray, iterations: int = 8) -> np.ndarray:
        """Return the (..., 3) points that the field takes to `points`, by Newton's method with the field's Jacobian."""
        jacobian = np.stack([np.stack(np.gradient(v, self.step), 0) for v in self.values])
        jacobian = np.moveaxis(jacobian, (0, 1), (-2, -1)) + np.eye(3)
        inverse = np.moveaxis(np.linalg.inv(jacobian).reshape(*jacobian.shape[:-2], 9), -1, 0)
        x = points - self.at(points)
        for _ in range(iterations):
            error = x + self.at(x) - points
            if np.abs(error).max(initial=0) < 1e-3:
                break
            local = _sample(inverse, self.index(x)).reshape(*x.shape[:-1], 3, 3)
            # A step longer than a grid step would leave the linear neighborhood.
            x = x - np.clip(np.einsum("...ab,...b->...a", local, error), -2 * self.step, 2 * self.step)
        return x

    def determinant(self) -> np.ndarray:
        """Return the Jacobian determinant of the map at the grid's nodes."""
        (a, b, c), (d, e, f), (g, h, i) = (np.gradient(v, self.step) for v in self.values)
        a, e, i = a + 1, e + 1, i + 1
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    def index(self, points: np.ndarray) -> np.ndarray:
        """Return the continuous grid indices (3, ...) of (..., 3) points."""
        return np.moveaxis((points - self.low) / self.step, -1, 0)


def _sample(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return linear interpolations of (c, nx, ny, nz) values at (3, ...) indices, as (..., c)."""
    return np.stack([ndimage.map_coordinates(v, index, order=1, mode="nearest") for v in values], axis=-1)


@dataclass(frozen=True)
class Correspondence:
    """Dense correspondence from the points of one disc (fixed) to those of another (moving), both LPS mm."""

    fixed: Slab
    moving: Slab
    scale: np.ndarray
    field: Field

    def forward(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) fixed points to moving points."""
        points = self.fixed.normalize(lps) * self.scale
        return self.moving.place((points + self.field.at(points)) / self.scale)

    def inverse(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) moving points to fixed points."""
        return self.fixed.place(self.field.inverse_at(self.moving.normalize(lps) * self.scale) / self.scale)


def match(fixed: DiscShape, moving: DiscShape) -> Correspondence:
    """Return the correspondence between two discs by their coordinates.

    Parameters
    ----------
    fixed, moving : DiscShape
        The disc of the atlas, and the person's.

    Raises
    ------
    RegistrationError
        If a disc has no surface, or the surfaces can not be brought together without folding.
    """
    slab_f, slab_m = _slabs(fixed, moving)
    scale = np.array([slab_f.half[0], slab_f.half[1], SLAB_HALF_HEIGHT])
    level_f, level_m = LevelSet.cached(fixed, slab_f, scale), LevelSet(moving, slab_m, scale)
    anchors = _anchors(fixed, moving, slab_f, slab_m, scale)
    for attempt in range(4):
        refinement = fit_refinement(level_f, level_m, LATTICE, BENDING * 4**attempt, anchors=anchors)
        if refinement.lipschitz() < INJECTIVE:
            break
    else:
        raise RegistrationError(f"{moving.name}: the disc's shape is too far from the atlas to match without folding. "
                                "Check the segmentation, or leave the level out.", anchor="folding")
    values = np.moveaxis(refinement.displacement(level_f.grid), -1, 0)
    field = _flow(level_f, level_m, Field(level_f.low, level_f.step, values))
    if not any(fixed.cut) and not any(moving.cut):
        field = _centered(fixed, slab_f, slab_m, scale, field)
    return Correspondence(slab_f, slab_m, scale, field)


def _centered(fixed: DiscShape, slab_f: Slab, slab_m: Slab, scale: np.ndarray, field: Field) -> Field:
    """Shift and scale the field along LR until the mapped disc has the moving disc's LR mean and SD.

    Slices some millimeters apart show a lateral border to half a slice, but moments to a fraction of that.
    """
    points = slab_f.normalize(fixed.geometry.index_to_world(np.argwhere(fixed.distance < 0)[:, ::-1]))
    determinant = field.determinant()
    there = (points * scale + field.at(points * scale)) / scale
    # Volume of a voxel in the moving disc: both slabs' heights and the field's determinant.
    volume = (np.exp(quadratic(*there.T[:2]) @ slab_m.logheight - quadratic(*points.T[:2]) @ slab_f.logheight)
              * _sample(determinant[None], field.index(points * scale))[:, 0])
    mean = np.average(there[:, 0], weights=volume)
    spread = np.sqrt(np.average((there[:, 0] - mean) ** 2, weights=volume))
    # Slab coordinates of a whole disc have mean 0 and SD one half by their definition.
    factor, shift = 0.5 / spread, -mean * 0.5 / spread * scale[0]
    x = field.low[0] + field.step * np.arange(field.values.shape[1])
    values = field.values.copy()
    values[0] = (x[:, None, None] + values[0]) * factor + shift - x[:, None, None]
    return Field(field.low, field.step, values)


def _slabs(fixed: DiscShape, moving: DiscShape) -> tuple[Slab, Slab]:
    """Return slab coordinates of both discs by what both show: moments, or the chord where one is cut."""
    if not any(moving.cut) and not any(fixed.cut):
        return Slab.of(fixed), Slab.of(moving)
    # The width that the image does not show is the atlas's, scaled like the depth.
    ratio = fixed.half[0] / fixed.chord[0]
    return tuple(Slab.of(s, np.array([ratio, 1.0]) * s.chord[0], s.chord[1]) for s in (fixed, moving))


def _anchors(fixed: DiscShape, moving: DiscShape, slab_f: Slab, slab_m: Slab, scale: np.ndarray):
    """Return fixed points and the LR positions they should go to: the canal's, and those of a cut disc's LR axis."""
    points, targets = [], []
    if fixed.midline is not None and moving.midline is not None:
        points.append(slab_f.normalize(fixed.midline) * scale)
        targets.append((slab_m.normalize(moving.midline) * scale)[0])
    if any(fixed.cut) or any(moving.cut):
        # What is not seen must not be stretched: the frame has said where the middle is, and the depth how wide.
        for share in (-0.7, -0.35, 0.0, 0.35, 0.7):
            points.append(np.array([share, 0.0, 0.0]) * scale)
            targets.append(share * scale[0])
    return (np.array(points), np.array(targets)) if points else None


def _flow(fixed: LevelSet, moving: LevelSet, field: Field) -> Field:
    """Close what is left between the surfaces by composing small smooth displacements, coarse to fine.

    Each is a normalized convolution of the surface points' remaining normal distances, steep by one half at most, so
    that the composition stays one-to-one.
    """
    inside = fixed.value < 2
    for sigma in FLOW_SIGMAS:
        points = fixed.surface + field.at(fixed.surface)
        d, g = moving.at(points)
        g /= np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 0.3)
        ok = moving.seen(points) & (np.abs(d) < 4)
        theirs = moving.variance_at(points[ok])
        variance = fixed.variance[ok] + theirs
        # Distances within the uncertainty of the person's surface are not followed: they are voxels, not shape.
        trust = d[ok] ** 2 / (d[ok] ** 2 + 3 * theirs)
        push = (np.clip(-d[ok], -2, 2) * trust)[:, None] * g[ok]
        sums = np.zeros((4, *field.values.shape[1:]))
        index = np.rint((points[ok] - field.low) / field.step).astype(int)
        index = tuple(np.clip(index, 0, np.array(sums.shape[1:]) - 1).T)
        weight = 0.1 / variance
        for axis in range(3):
            np.add.at(sums[axis], index, weight * push[:, axis])
        np.add.at(sums[3], index, weight)
        sums = np.stack([ndimage.gaussian_filter(s, sigma / field.step, mode="constant", truncate=3) for s in sums])
        step = sums[:3] / (sums[3] + 0.05 * np.percentile(sums[3][index], 50))
        steepness = max(np.abs(np.stack(np.gradient(v, field.step))).sum(0).max() for v in step)
        step *= min(1.0, 0.5 / max(steepness, 1e-9))
        moved = np.moveaxis(fixed.grid, -1, 0) + field.values
        update = _sample(step, (moved - field.low[:, None, None, None]) / field.step)
        update = np.moveaxis(update, -1, 0)
        # Sampling a composition on a grid can fold where the composition does not: take a shorter step then.
        for share in (1.0, 0.5, 0.25):
            longer = Field(field.low, field.step, field.values + share * update)
            if longer.determinant()[inside].min() > LEAST_JACOBIAN:
                field = longer
                break
    return field
