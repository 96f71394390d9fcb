"""Disc coordinates: smooth normalized positions inside a disc, and the correspondence they give between two discs.

Steps, each invertible (``Docs/method/atlas.md``):

1. *Slab coordinates*, analytic: ``(x / a, y / b, (z - m) / h)`` in the disc's frame, with the mid-surface m and the
   half height h polynomials of the outline's coordinates. They take away pose, size, wedge and bulge.
2. *Coarse match*: a cubic B-spline displacement between the two discs' slab coordinates, fitted to both surfaces under
   a bending penalty (Gauss-Newton), whose Lipschitz constant is kept below 1: one-to-one by construction.
3. *Flow*: small smooth displacements, composed, that close what is left.

No intensity enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.interpolation import linear

from .levelset import DEEPEST, LevelSet, fit_refinement
from .shape import DiscShape, polynomial

#: In slab coordinates CC is stretched, so that both endplates can move on their own: by this, up to ``DEEPEST``.
STRETCH = 2.4
#: Control point spacing in slab coordinates, mm.
LATTICE = 20.0
#: Weight of the bending energy against mean squared surface distance.
BENDING = 0.1
#: Widths (mm, slab) of the smoothing of the remaining displacement, before and after the discs are centered.
COARSE_SIGMAS = (8.0, 6.0, 4.0)
FINE_SIGMAS = (3.0, 2.5, 2.0, 1.7, 1.5, 1.5, 1.5, 1.5)
#: A distance d counts d^2 / (d^2 + TRUST s^2), with s the standard error of the person's surface.
TRUST = 1.0
#: Parts of the person's surface farther than this (mm, slab) from all mapped points pull the nearest of them.
UNCOVERED = 1.0
#: Distances (mm, slab) beyond this are not followed.
FARTHEST = 8.0
#: The flow keeps the Jacobian determinant in slab coordinates above this, in the disc and 2 mm around it.
LEAST_JACOBIAN = 0.1
#: Largest Lipschitz constant of the coarse fit; below 1 a displacement is one-to-one and can be inverted by iteration.
INJECTIVE = 0.9


@dataclass(frozen=True)
class Slab:
    """Slab coordinates of one disc: LPS mm to normalized (LR, AP, CC), each in [-1, 1] inside the disc.

    Attributes
    ----------
    shape : DiscShape
        Whose frame, mid-surface and height they follow.
    half : ndarray, shape (2,)
        Half width and half depth, mm.
    middle : float
        AP frame coordinate of the center, mm.
    """

    shape: DiscShape
    half: np.ndarray
    middle: float = 0.0

    @classmethod
    def of(cls, shape: DiscShape) -> Slab:
        """Return the slab coordinates of a whole disc."""
        return cls(shape, shape.half[:2])

    def surfaces(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mid-surface (mm) and half height (mm) at normalized LR and AP coordinates."""
        a, b, _ = self.shape.half
        terms = polynomial(u * (self.half[0] / a), (v * self.half[1] + self.middle) / b)
        return terms @ self.shape.mid, np.exp(terms @ self.shape.logheight)

    def normalize(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) LPS mm to slab coordinates."""
        xyz = self.shape.to_frame(lps)
        u, v = xyz[..., 0] / self.half[0], (xyz[..., 1] - self.middle) / self.half[1]
        mid, height = self.surfaces(u, v)
        return np.stack([u, v, (xyz[..., 2] - mid) / height], axis=-1)

    def place(self, uvw: np.ndarray) -> np.ndarray:
        """Map (..., 3) slab coordinates to LPS mm, the inverse of :meth:`normalize`."""
        uvw = np.asarray(uvw, float)
        mid, height = self.surfaces(uvw[..., 0], uvw[..., 1])
        xyz = np.stack([uvw[..., 0] * self.half[0], uvw[..., 1] * self.half[1] + self.middle,
                        uvw[..., 2] * height + mid], axis=-1)
        return self.shape.to_world(xyz)


@dataclass(frozen=True)
class Field:
    """A displacement on a regular grid of scaled slab coordinates: `values` (3, nx, ny, nz) in mm."""

    low: np.ndarray
    step: float
    values: np.ndarray

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the displacement at (..., 3) points; beyond the grid, that of its border."""
        return _sample(self.values, self.index(points))

    def inverted(self, iterations: int = 12) -> Field:
        """Return the inverse displacement on the same grid, by Newton's method with the field's own Jacobian."""
        jacobian = np.stack([np.stack(np.gradient(v, self.step), 0) for v in self.values])
        jacobian = np.moveaxis(jacobian, (0, 1), (-2, -1)) + np.eye(3)
        inverse = np.moveaxis(np.linalg.inv(jacobian).reshape(*jacobian.shape[:-2], 9), -1, 0)
        target = np.stack(np.meshgrid(*[low + self.step * np.arange(n) for low, n in
                                        zip(self.low, self.values.shape[1:])], indexing="ij"), -1).reshape(-1, 3)
        x = target - self.at(target)
        left = np.arange(len(x))
        for _ in range(iterations):
            error = x[left] + self.at(x[left]) - target[left]
            left, error = left[(off := np.abs(error).max(1) > 1e-3)], error[off]
            if not len(left):
                break
            local = _sample(inverse, self.index(x[left])).reshape(-1, 3, 3)
            # A step longer than a grid step would leave the linear neighborhood.
            x[left] -= np.clip(np.einsum("nab,nb->na", local, error), -2 * self.step, 2 * self.step)
        return Field(self.low, self.step, np.moveaxis((x - target).reshape(*self.values.shape[1:], 3), -1, 0))

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
    return linear(np.moveaxis(values, 0, -1), index)


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

    @cached_property
    def _back(self) -> Field:
        return self.field.inverted()

    def inverse(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) moving points to fixed points."""
        target = self.moving.normalize(lps) * self.scale
        points = target + self._back.at(target)
        # One step of fixed-point iteration takes the interpolation error of the inverse's grid away.
        for _ in range(2):
            points = points - (points + self.field.at(points) - target)
        return self.fixed.place(points / self.scale)


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
    scale = np.array([slab_f.half[0], slab_f.half[1], _half_height(moving)])
    level_f, level_m = LevelSet.cached(fixed, slab_f, scale), LevelSet(moving, slab_m, scale)
    anchors = _anchors(fixed, moving, slab_f, slab_m, scale)
    # A cut disc does not show how wide it is: LR positions then follow the frames alone.
    whole = not any(fixed.cut) and not any(moving.cut)
    for attempt in range(4):
        refinement = fit_refinement(level_f, level_m, LATTICE, BENDING * 4**attempt, anchors=anchors, lateral=whole)
        if refinement.lipschitz() < INJECTIVE:
            break
    else:
        raise RegistrationError(f"{moving.name}: the disc's shape is too far from the atlas to match without folding. "
                                "Check the segmentation, or leave the level out.", anchor="folding")
    values = np.moveaxis(refinement.displacement(level_f.grid), -1, 0)
    field = _flow(level_f, level_m, Field(level_f.low, level_f.step, values), COARSE_SIGMAS, whole)
    if whole:
        field = _centered(fixed, slab_f, slab_m, scale, field)
    field = _flow(level_f, level_m, field, FINE_SIGMAS, whole)
    return Correspondence(slab_f, slab_m, scale, field)


def _half_height(shape: DiscShape) -> float:
    """Return the half height (mm) of a disc in slab coordinates; whole millimeters, so that the atlas's are kept."""
    return float(np.clip(np.rint(STRETCH * shape.half[2]), DEEPEST / 2, DEEPEST))


def _centered(fixed: DiscShape, slab_f: Slab, slab_m: Slab, scale: np.ndarray, field: Field) -> Field:
    """Shift and scale the field along LR until the mapped disc has the moving disc's LR mean and SD.

    Slices some millimeters apart show a lateral border to half a slice, but moments to a fraction of that.
    """
    points = slab_f.normalize(fixed.geometry.index_to_world(np.argwhere(fixed.distance < 0)[:, ::-1]))
    determinant = field.determinant()
    there = (points * scale + field.at(points * scale)) / scale
    # Volume of a voxel in the moving disc: both slabs' heights and the field's determinant.
    volume = (slab_m.surfaces(*there.T[:2])[1] / slab_f.surfaces(*points.T[:2])[1]
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
    return tuple(Slab(s, np.array([ratio, 1.0]) * s.chord[0], s.chord[1]) for s in (fixed, moving))


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


def _flow(fixed: LevelSet, moving: LevelSet, field: Field, sigmas, lateral: bool) -> Field:
    """Close what is left between the surfaces by composing small smooth displacements, coarse to fine.

    Each is a normalized convolution of the surface points' remaining distances, steep by one half at most, so that the
    composition stays one-to-one.
    """
    inside = fixed.value < 2
    for sigma in sigmas:
        points = fixed.surface + field.at(fixed.surface)
        place, push, weight = _pushes(fixed, moving, points, max(2.0, sigma / 2), lateral)
        sums = np.zeros((4, *field.values.shape[1:]))
        index = np.rint((place - field.low) / field.step).astype(int)
        index = tuple(np.clip(index, 0, np.array(sums.shape[1:]) - 1).T)
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
        field = _one_to_one(field, update, inside)
    return field


def _one_to_one(field: Field, update: np.ndarray, inside: np.ndarray) -> Field:
    """Return the field after the update, which is left out (smoothly) where the Jacobian would become too small.

    Sampling a composition on a grid can fold where the composition does not.
    """
    share = np.ones(inside.shape)
    for _ in range(6):
        longer = Field(field.low, field.step, field.values + share * update)
        bad = (longer.determinant() < LEAST_JACOBIAN) & inside
        if not bad.any():
            return longer
        share *= 1 - np.minimum(1, 8 * ndimage.gaussian_filter(bad.astype(float), 1.5))
    return field


def _pushes(fixed: LevelSet, moving: LevelSet, points: np.ndarray, longest: float, lateral: bool):
    """Return where, how far and with which weight the mapped surface `points` of the fixed disc still have to move.

    Along the moving surface's normal by its distance; and, where a part of the moving surface has no mapped point near
    it (a protrusion), toward that part.
    """
    d, g = moving.at(points)
    g /= np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 0.3)
    if not lateral:
        g[:, 0] = 0
        g /= np.maximum((g * g).sum(1, keepdims=True), 0.25)
    ok = moving.seen(points) & (np.abs(d) < FARTHEST)
    theirs = moving.variance_at(points[ok])
    # Distances within the uncertainty of the person's surface are not followed: they are voxels, not shape.
    trust = d[ok] ** 2 / (d[ok] ** 2 + TRUST * theirs)
    push = (np.clip(-d[ok], -longest, longest) * trust)[:, None] * g[ok]
    weight = 0.1 / (fixed.variance[ok] + theirs)
    surface, variance = moving.surface[::moving.thin], moving.variance[::moving.thin]
    far, nearest = cKDTree(points).query(surface)
    left = surface - points[nearest]
    share = np.clip((far - UNCOVERED) / UNCOVERED, 0, 1)
    use = share > 0
    left[:, 0] *= lateral
    left = left[use] * np.minimum(1, longest / np.maximum(far[use], 1e-9))[:, None]
    return (np.vstack([points[ok], points[nearest[use]]]), np.vstack([push, left]),
            np.append(weight, share[use] * 0.1 / (fixed.variance[nearest[use]] + variance[use])))
