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

from DiscRelaxometryLib.compiled import kernel_if_numba
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.interpolation import linear_at, linear_scalar_at

from .levelset import DEEPEST, LevelSet, Refinement, fit_refinement
from .shape import DiscShape, quartic
from .transforms import DisplacementField, grid_points, steepest

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
#: Largest Lipschitz constant of the coarse fit; below 1 a displacement is one-to-one and can be inverted by iteration.
INJECTIVE = 0.9


@dataclass(frozen=True)
class Slab:
    """Slab coordinates of one disc: LPS mm to normalized (LR, AP, CC), each in [-1, 1] inside the disc."""

    #: Whose frame, mid-surface and height they follow.
    shape: DiscShape
    #: Shape (2,). Half width and half depth, mm.
    half: np.ndarray
    #: AP frame coordinate of the center, mm.
    middle: float = 0.0

    @classmethod
    def of(cls, shape: DiscShape) -> Slab:
        """Return the slab coordinates of a whole disc."""
        return cls(shape, shape.half[:2])

    def surfaces(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mid-surface (mm) and half height (mm) at normalized LR and AP coordinates."""
        a, b, _ = self.shape.half
        place = u * (self.half[0] / a), (v * self.half[1] + self.middle) / b
        return quartic(self.shape.mid, *place), np.exp(quartic(self.shape.logheight, *place))

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
class Correspondence:
    """Dense correspondence from the points of one disc (fixed) to those of another (moving), both LPS mm."""

    fixed: Slab
    moving: Slab
    scale: np.ndarray
    field: DisplacementField

    def forward(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) fixed points to moving points."""
        points = self.fixed.normalize(lps) * self.scale
        return self.moving.place((points + self.field.at(points)) / self.scale)

    @cached_property
    def _back(self) -> DisplacementField:
        return self.field.inverse()

    def inverse(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) moving points to fixed points."""
        target = self.moving.normalize(lps) * self.scale
        points = target + self._back.at(target)
        # One step of fixed-point iteration takes the interpolation error of the inverse's grid away.
        for _ in range(2):
            points = points - (points + self.field.at(points) - target)
        return self.fixed.place(points / self.scale)


class Target:
    """A disc that many are matched to."""

    def __init__(self, shape: DiscShape):
        self.shape = shape
        self._kept: tuple = (None, None)

    def _level_set(self, slab: Slab, scale: np.ndarray) -> LevelSet:
        """Return the shape's level set; the last one is kept, as discs of one height have it in common."""
        key = (slab.half.tobytes(), scale.tobytes())
        kept, level = self._kept
        if kept != key:
            level = LevelSet(self.shape, slab, scale)
            self._kept = (key, level)
        return level

    def match(self, moving: DiscShape) -> Correspondence:
        """Return the correspondence of a person's disc to this one by their coordinates.

        RegistrationError if a disc has no surface, or the surfaces cannot be brought together without folding.
        """
        fixed = self.shape
        slab_f, slab_m = _slabs(fixed, moving)
        # The half height in slab coordinates is in whole millimeters, so that the atlas's level sets are kept.
        half = np.clip(np.rint(STRETCH * moving.half[2]), DEEPEST / 2, DEEPEST)
        scale = np.array([slab_f.half[0], slab_f.half[1], half])
        level_f, level_m = self._level_set(slab_f, scale), LevelSet(moving, slab_m, scale)
        anchors = _anchors(fixed, moving, slab_f, slab_m, scale)
        # A cut disc does not show how wide it is: LR positions then follow the frames alone.
        whole = not any(fixed.cut) and not any(moving.cut)
        field = DisplacementField(_coarse(level_f, level_m, anchors, whole).on_grid(level_f.grid), level_f.geometry)
        field = _flow(level_f, level_m, field, COARSE_SIGMAS, whole)
        if whole:
            field = _centered(fixed, slab_f, slab_m, scale, field)
        field = _flow(level_f, level_m, field, FINE_SIGMAS, whole)
        return Correspondence(slab_f, slab_m, scale, field)


def match(fixed: DiscShape, moving: DiscShape) -> Correspondence:
    """Return :meth:`Target.match` of two discs, for those that are matched to nothing else."""
    return Target(fixed).match(moving)


def _coarse(fixed: LevelSet, moving: LevelSet, anchors, lateral: bool) -> Refinement:
    for attempt in range(4):
        refinement = fit_refinement(fixed, moving, LATTICE, BENDING * 4**attempt, anchors=anchors, lateral=lateral)
        if refinement.lipschitz() < INJECTIVE:
            return refinement
    raise RegistrationError(f"{moving.shape.who}: the disc's shape is too far from the atlas to match without folding. "
                            "Check the segmentation, or leave the level out.", anchor="folding")


def _centered(fixed: DiscShape, slab_f: Slab, slab_m: Slab, scale: np.ndarray,
              field: DisplacementField) -> DisplacementField:
    """Shift and scale the field along LR until the mapped disc has the moving disc's LR mean and SD.

    Slices some millimeters apart show a lateral border to half a slice, but moments to a fraction of that.
    """
    points = slab_f.normalize(fixed.inside)
    there = (points * scale + field.at(points * scale)) / scale
    # Volume of a voxel in the moving disc: both slabs' heights and the field's determinant.
    volume = (slab_m.surfaces(*there.T[:2])[1] / slab_f.surfaces(*points.T[:2])[1]
              * linear_scalar_at(field.jacobian(), field.geometry, points * scale))
    mean = np.average(there[:, 0], weights=volume)
    spread = np.sqrt(np.average((there[:, 0] - mean) ** 2, weights=volume))
    # Slab coordinates of a whole disc have mean 0 and SD one half by their definition.
    factor, shift = 0.5 / spread, -mean * 0.5 / spread * scale[0]
    x = grid_points(field.geometry)[..., 0]
    vectors = field.vectors.copy()
    vectors[..., 0] = (x + vectors[..., 0]) * factor + shift - x
    return DisplacementField(vectors, field.geometry)


def _slabs(fixed: DiscShape, moving: DiscShape) -> tuple[Slab, Slab]:
    """Return slab coordinates of both discs by what both show: moments, or the chord where one is cut."""
    if not any(moving.cut) and not any(fixed.cut):
        return Slab.of(fixed), Slab.of(moving)
    # The width that the image does not show is the atlas's, scaled like the depth.
    ratio = fixed.half[0] / fixed.chord[0]
    one, two = (Slab(s, np.array([ratio, 1.0]) * s.chord[0], s.chord[1]) for s in (fixed, moving))
    return one, two


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


def _flow(fixed: LevelSet, moving: LevelSet, field: DisplacementField, sigmas, lateral: bool) -> DisplacementField:
    """Close what is left between the surfaces by composing small smooth displacements, coarse to fine.

    Each is a normalized convolution of the surface points' remaining distances, steep by one half at most, so that the
    composition stays one-to-one.
    """
    inside, spacing = fixed.value < 2, field.geometry.spacing[0]
    for sigma in sigmas:
        points = fixed.surface + field.at(fixed.surface)
        place, push, weight = _pushes(fixed, moving, points, max(2.0, sigma / 2), lateral)
        sums = np.zeros((4, *field.geometry.shape))
        index = np.rint(field.index(place)).astype(int)
        index = tuple(np.clip(index, 0, np.array(sums.shape[1:])[:, None] - 1))
        for axis in range(3):
            np.add.at(sums[axis], index, weight * push[:, axis])
        np.add.at(sums[3], index, weight)
        sums = _smoothed(sums, sigma / spacing)
        step = sums[:3] / (sums[3] + 0.05 * np.percentile(sums[3][index], 50))
        step *= min(1.0, 0.5 / max(steepest(step, spacing), 1e-9))
        update = linear_at(np.moveaxis(step, 0, -1), field.geometry, fixed.grid + field.vectors)
        field = field.updated(update, inside)
    return field


def _smoothed(volumes: np.ndarray, sigma: float) -> np.ndarray:
    """Return volumes (c, k, j, i) behind a Gaussian of `sigma` voxels that ends at three SDs; they are 0 outside."""
    run = kernel_if_numba(_correlated)
    if run is None:
        return np.stack([ndimage.gaussian_filter(v, sigma, mode="constant", truncate=3) for v in volumes])
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (1, 2, 3):
        found, step = np.zeros(volumes.shape), int(np.prod(volumes.shape[axis + 1:]))
        run(volumes.reshape(-1, volumes.shape[axis] * step), weights / weights.sum(), step,
            found.reshape(-1, volumes.shape[axis] * step))
        volumes = found
    return volumes


def _correlated(source, weights, step, found):
    n, reach = source.shape[1] // step, weights.size // 2
    for p in range(source.shape[0]):
        for d in range(-reach, reach + 1):
            low, high = max(0, -d) * step, min(n, n - d) * step
            if low >= high:
                continue
            weight, to, of = weights[d + reach], found[p, low:high], source[p, low + d * step:high + d * step]
            for x in range(to.size):
                to[x] += weight * of[x]


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
    far, nearest = cKDTree(points, balanced_tree=False).query(surface)
    left = surface - points[nearest]
    share = np.clip((far - UNCOVERED) / UNCOVERED, 0, 1)
    use = share > 0
    left[:, 0] *= lateral
    left = left[use] * np.minimum(1, longest / np.maximum(far[use], 1e-9))[:, None]
    return (np.vstack([points[ok], points[nearest[use]]]), np.vstack([push, left]),
            np.append(weight, share[use] * 0.1 / (fixed.variance[nearest[use]] + variance[use])))
