"""Coarse part of the disc-coordinate match: a cubic B-spline displacement between two level sets."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import linalg, ndimage, sparse

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry
from DiscRelaxometryLib.interpolation import linear_scalar

from .shape import DiscShape
from .transforms import grid_points

#: The grid reaches this far beyond the disc, in half widths.
REACH = 1.35
#: Half height (mm) of a disc of ordinary height in scaled slab coordinates; the grid reaches beyond it for all.
DEEPEST = 12.0
#: Grid step in scaled slab coordinates, mm.
STEP = 1.25
#: Surface points used by the fit; more do not change it.
FIT_POINTS = 500
#: Points by which it is seen whether a surface is covered.
COVER_POINTS = 2000
#: Variance (mm2) of a surface position at which a point has weight 1.
VARIANCE = 0.1
#: Weight of an anchor's LR position against the mean squared surface distance.
ANCHOR = 0.3


@dataclass(frozen=True)
class Refinement:
    """A cubic B-spline displacement on a regular lattice; coefficients (3, nx, ny, nz) in mm."""

    origin: np.ndarray
    spacing: float
    coefficients: np.ndarray

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """Return the displacement (mm) at (..., 3) points."""
        index = np.moveaxis((points - self.origin) / self.spacing, -1, 0)
        return np.stack([ndimage.map_coordinates(c, index, order=3, prefilter=False, mode="nearest")
                         for c in self.coefficients], axis=-1)

    def on_grid(self, grid: np.ndarray) -> np.ndarray:
        """Return the displacement (mm) at the points of an axis-aligned grid, shape (x, y, z, 3)."""
        lines = grid[:, 0, 0, 0], grid[0, :, 0, 1], grid[0, 0, :, 2]
        bases = []
        for line, origin, count in zip(lines, self.origin, self.coefficients.shape[1:]):
            weights, index = _weights(line, origin, self.spacing, count)
            bases.append(np.zeros((len(line), count)))
            np.put_along_axis(bases[-1], index, weights, 1)
        return np.einsum("xi,yj,zk,cijk->xyzc", *bases, self.coefficients, optimize=True)

    def lipschitz(self) -> float:
        """Return an upper bound of the displacement's Lipschitz constant (maximum norm).

        Each derivative of a B-spline is a convex combination of neighboring coefficients' differences.
        """
        rows = []
        for c in self.coefficients:
            total = np.zeros(c.shape)
            for axis in range(3):
                difference = np.abs(np.diff(c, axis=axis, append=np.take(c, [-1], axis))) / self.spacing
                total += ndimage.maximum_filter(difference, 4)
            rows.append(total)
        return float(np.max(rows))


class LevelSet:
    """A disc's signed distance on a grid of scaled slab coordinates, with surface points and what is seen."""

    def __init__(self, shape: DiscShape, slab, scale: np.ndarray):
        low = -REACH * np.maximum(scale, [0, 0, DEEPEST])
        # Arrays in the order LR, AP, CC: the fastest index runs along CC.
        size = np.ceil((STEP - 2 * low) / STEP).astype(int)[::-1]
        self.geometry = Geometry(size, (STEP,) * 3, low, (0, 0, 1, 0, 1, 0, 1, 0, 0))
        self.low, self.grid = low, grid_points(self.geometry)
        self.shape, self.slab, self.scale = shape, slab, scale
        value = shape.surface_at(slab.place(self.grid / scale))
        norm = np.linalg.norm(np.stack(np.gradient(value, STEP), axis=-1), axis=-1)
        # Divided by its gradient, the value is the distance in slab millimeters near the surface.
        self.value = np.clip(value / np.maximum(norm, 0.05), -10, 10)
        self.surface = self._surface()
        self.variance = self.variance_at(self.surface)
        self.thin = -(-len(self.surface) // COVER_POINTS)

    def variance_at(self, points):
        """Return the variance (mm2) of the surface's position near (n, 3) points."""
        return self.shape.uncertainty_at(self.slab.place(points / self.scale)) ** 2

    def _surface(self) -> np.ndarray:
        """Return points on the zero level, projected from the grid points beside it."""
        points = self.grid[np.abs(self.value) < 0.75 * STEP]
        for _ in range(3):
            d, g = self.at(points)
            points = points - (d / np.maximum((g * g).sum(-1), 0.1))[:, None] * g
        points = points[np.abs(self.at(points)[0]) < 0.3]
        points = points[self.seen(points)]
        if len(points) < 50:
            raise RegistrationError(f"{self.shape.who}: the disc is too thin or too small to have a surface to match. "
                                    "Check the segmentation.", anchor="tiny-disc")
        return points

    def seen(self, points):
        """Return which (n, 3) points the image shows."""
        return self.shape.seen_at(self.slab.place(points / self.scale))

    def at(self, points):
        """Return value and gradient (n, 3) at (n, 3) points."""
        index = ((points - self.low) / STEP).T
        gradient = np.empty(points.shape)
        for axis in range(3):
            offset = np.zeros((3, 1))
            offset[axis] = 0.5
            gradient[:, axis] = (self._sample(index + offset) - self._sample(index - offset)) / STEP
        return self._sample(index), gradient

    def _sample(self, index):
        return linear_scalar(self.value, index)


def fit_refinement(fixed: LevelSet, moving: LevelSet, spacing: float, bending: float,
                   iterations: int = 3, anchors: tuple[np.ndarray, np.ndarray] | None = None,
                   lateral: bool = True) -> Refinement:
    """Fit a displacement of fixed slab points so that both surfaces meet (Gauss-Newton, bending penalty).

    `spacing` of the controls is in mm; `bending` weighs the bending energy against the mean squared distance.
    `anchors` are fixed points (n, 3) and the LR positions (n,) they should go to: the spinal canal's, which marks the
    middle, since two symmetric surfaces say nothing of a stretch of one side against the other; and those of a cut
    disc's LR axis. Without `lateral`, only the anchors move points along LR.
    """
    count = np.ceil(-2 * fixed.low / spacing).astype(int) + 4
    origin, n = -(count - 1) / 2 * spacing, int(np.prod(count))
    penalty = bending * _bending(tuple(count.tolist())).toarray()
    penalty[np.diag_indices(n)] += 1e-6
    pick_f, pick_m = _thin(fixed.surface), _thin(moving.surface)
    surface_f, surface_m = fixed.surface[pick_f], moving.surface[pick_m]
    basis_f = _design(surface_f, origin, spacing, count)
    if anchors is not None:
        anchor_rows = np.zeros((len(anchors[0]), 3 * n), np.float32)
        anchor_rows[:, :n] = np.sqrt(ANCHOR) * _design(anchors[0], origin, spacing, count).toarray()
    c = np.zeros((3, *count))
    for _ in range(iterations):
        refinement = Refinement(origin, spacing, c)
        # Fixed surface points, pushed, should lie on the moving surface ...
        pushed = surface_f + refinement.displacement(surface_f)
        d1, g1 = moving.at(pushed)
        w1 = moving.seen(pushed) * VARIANCE / (fixed.variance[pick_f] + moving.variance_at(pushed)) / len(pushed)
        # ... and moving surface points, pulled, on the fixed one.
        pulled = surface_m
        for _ in range(4):
            pulled = surface_m - refinement.displacement(pulled)
        d2, g2 = fixed.at(pulled)
        w2 = fixed.seen(pulled) * VARIANCE / (moving.variance[pick_m] + fixed.variance_at(pulled)) / len(pulled)
        rows = np.vstack([_rows(basis_f, g1, w1), _rows(_design(pulled, origin, spacing, count), -g2, w2)])
        if not lateral:
            rows[:, :n] = 0
        residual = np.concatenate([d1 * np.sqrt(w1), d2 * np.sqrt(w2)])
        if anchors is not None:
            rows = np.vstack([rows, anchor_rows])
            left = np.sqrt(ANCHOR) * (anchors[0][:, 0] - anchors[1]) + anchor_rows[:, :n] @ c[0].ravel()
            residual = np.append(residual, left)
        # Single precision halves the time of the one large product and costs no accuracy that a distance has.
        normal = (rows.T @ rows).astype(float)
        gradient = rows.T @ residual
        for axis in range(3):
            block = slice(axis * n, (axis + 1) * n)
            normal[block, block] += penalty
            gradient[block] += penalty @ c[axis].ravel()
        step = linalg.cho_solve(linalg.cho_factor(normal, overwrite_a=True, check_finite=False), -gradient)
        c = c + step.reshape(c.shape)
        if np.abs(step).max() < 0.05:
            break
    return Refinement(origin, spacing, c)


def _thin(points: np.ndarray) -> np.ndarray:
    """Return indices of an even subset of the surface points."""
    return np.linspace(0, len(points) - 1, min(len(points), FIT_POINTS)).astype(int)


def _rows(basis, gradient, weight) -> np.ndarray:
    """Return the Jacobian rows of weighted distances: per-axis basis times the distance's gradient."""
    dense = basis.astype(np.float32).toarray()
    return np.hstack([dense * (gradient[:, a] * np.sqrt(weight))[:, None].astype(np.float32) for a in range(3)])


def _design(points: np.ndarray, origin: np.ndarray, spacing: float, counts) -> sparse.csr_matrix:
    """Return the (n, controls) matrix of tensor-product cubic B-spline weights."""
    weights, index = zip(*(_weights(points[:, axis], origin[axis], spacing, counts[axis]) for axis in range(3)))
    w = np.einsum("ni,nj,nk->nijk", *weights).reshape(len(points), 64)
    columns = ((index[0][:, :, None, None] * counts[1] + index[1][:, None, :, None]) * counts[2]
               + index[2][:, None, None, :]).reshape(len(points), 64)
    start = np.arange(0, 64 * len(points) + 1, 64)
    return sparse.csr_matrix((w.ravel(), columns.ravel(), start), shape=(len(points), int(np.prod(counts))))


def _weights(line: np.ndarray, origin: float, spacing: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the four cubic B-spline weights at each position along one axis, and the controls they belong to."""
    t = np.clip((line - origin) / spacing, 1, count - 2.001)
    base = np.floor(t).astype(int)
    f = t - base
    weights = np.stack([(1 - f)**3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], 1) / 6
    return weights, base[:, None] + np.arange(-1, 3)


@lru_cache(maxsize=16)
def _bending(counts: tuple[int, ...]) -> sparse.csr_matrix:
    """Return the bending energy of a lattice: squared second differences, mixed ones twice, per control point."""
    def second(n):
        return sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n))

    def first(n):
        return sparse.diags([-1.0, 1.0], [0, 1], shape=(n - 1, n))

    eye = [sparse.eye(n) for n in counts]
    total = sparse.csr_matrix((int(np.prod(counts)),) * 2)
    for a in range(3):
        for b in range(a, 3):
            parts = list(eye)
            if a == b:
                parts[a] = second(counts[a])
            else:
                parts[a], parts[b] = first(counts[a]), first(counts[b])
            d = sparse.kron(sparse.kron(parts[0], parts[1]), parts[2])
            total = total + (1 if a == b else 2) * d.T @ d
    return (total / np.prod(counts)).tocsr()
