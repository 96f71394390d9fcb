"""Dense transforms of one disc level, in both directions, saved as ITK displacement fields."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.compiled import kernel_if_numba
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry
from DiscRelaxometryLib.interpolation import index_steps, linear, linear_at

PointMap = Callable[[np.ndarray], np.ndarray]
#: Grid step and margin (mm) of stored fields. 1 mm keeps the interpolation error of a smooth field below 0.05 mm.
STEP = 1.0
MARGIN = 6.0
#: Maps keep their Jacobian determinant above this in the disc; sampled on another grid, above half of it.
LEAST_JACOBIAN = 0.1


@dataclass(frozen=True)
class Match:
    """Correspondence of two discs: the map of fixed points to moving points (LPS mm) and, where known, its inverse."""

    forward: PointMap
    inverse: PointMap | None = None


@dataclass(frozen=True)
class DisplacementField:
    """A point map sampled on a grid: ``vectors`` (k, j, i, 3) in mm, added to a point of the grid."""

    vectors: np.ndarray
    geometry: Geometry

    @classmethod
    def sampled(cls, point_map: PointMap, geometry: Geometry) -> DisplacementField:
        """Sample a point map, mm to mm, on a grid."""
        points = grid_points(geometry)
        return cls((point_map(points) - points).astype(np.float32), geometry)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (..., 3) points; those outside the grid become NaN."""
        points = np.asarray(points, float)
        index = self.index(points)
        size = np.array(self.geometry.shape).reshape(3, *[1] * (points.ndim - 1))
        moved = linear(self.vectors, index)
        moved[((index < 0) | (index > size - 1)).any(0)] = np.nan
        return points + moved

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the displacement at (..., 3) points; beyond the grid, that of its border."""
        return linear_at(self.vectors, self.geometry, points)

    def index(self, points: np.ndarray) -> np.ndarray:
        """Return the continuous array indices (3, ...) of (..., 3) points."""
        return np.moveaxis(self.geometry.world_to_index(points)[..., ::-1], -1, 0)

    def jacobian(self) -> np.ndarray:
        """Return the determinant of the map's Jacobian at the grid's voxels; negative values are folds."""
        run = kernel_if_numba(_determinants)
        if run is None:
            (a, b, c), (d, e, f), (g, h, i) = self._jacobian_matrix()
            return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        found = np.empty(self.geometry.shape)
        run(np.asarray(self.vectors, float), index_steps(self.geometry), found)
        return found

    def _jacobian_matrix(self) -> np.ndarray:
        """Return the Jacobian at the grid's voxels, (3, 3, k, j, i): components first, as arrays in one piece."""
        turn = index_steps(self.geometry)  # slopes per voxel along (i, j, k) to slopes per mm along L, P, S
        matrix = np.zeros((3, 3, *self.geometry.shape))
        for row, component in zip(matrix, np.moveaxis(self.vectors, -1, 0)):
            for slope, factors in zip(np.gradient(np.ascontiguousarray(component, float))[::-1], turn):
                for column, factor in zip(row, factors):
                    if factor:
                        column += factor * slope
        matrix[range(3), range(3)] += 1
        return matrix

    def _inverse_jacobian(self) -> np.ndarray:
        """Return the inverse of the Jacobian, (k, j, i, 9)."""
        m = self._jacobian_matrix()
        (a, b, c), (d, e, f), (g, h, i) = m
        adjugate = np.stack([e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f,
                             d * h - e * g, b * g - a * h, a * e - b * d], -1)
        return adjugate / (a * adjugate[..., 0] + b * adjugate[..., 3] + c * adjugate[..., 6])[..., None]

    def updated(self, update: np.ndarray, where: np.ndarray, least: float = LEAST_JACOBIAN,
                rounds: int = 6) -> DisplacementField:
        """Return the field plus an update, which is left out, smoothly, where the map would become too steep.

        A composition of one-to-one maps can fold where it is sampled on a grid.

        Parameters
        ----------
        update : ndarray, shape (k, j, i, 3)
        where : ndarray of bool, shape (k, j, i)
            Where the Jacobian determinant has to stay above `least`.
        rounds : int
            After so many tries nothing of the update is taken.
        """
        share = np.ones(where.shape)
        for _ in range(rounds):
            longer = DisplacementField(self.vectors + share[..., None] * update, self.geometry)
            steep = (longer.jacobian() < least) & where
            if not steep.any():
                return longer
            share *= 1 - np.minimum(1, 8 * ndimage.gaussian_filter(steep.astype(float), 1.5))
        return self

    def unfolded(self, points: np.ndarray, least: float = LEAST_JACOBIAN / 2) -> DisplacementField:
        """Return the field, smoothed where its Jacobian determinant is below `least` near (n, 3) points.

        The field itself is returned where nothing is to be done.
        """
        where = np.zeros(self.geometry.shape, bool)
        where[tuple(np.rint(self.index(points)).astype(int))] = True
        smooth = self
        for width in (1, 2, 4, 8):
            if not ((smooth.jacobian() < least) & where).any():
                break
            smooth = DisplacementField(ndimage.gaussian_filter(self.vectors, (width, width, width, 0), mode="nearest"),
                                       self.geometry)
        if smooth is self:
            return self
        found = smooth.updated(self.vectors - smooth.vectors, where, least, rounds=40)
        return DisplacementField(found.vectors.astype(self.vectors.dtype), self.geometry)

    def inverse(self, geometry: Geometry | None = None, guess: PointMap | None = None) -> DisplacementField:
        """Return the inverse map by Newton's method with the field's own Jacobian.

        Parameters
        ----------
        geometry : Geometry, optional
            Grid of the inverse; by default this field's.
        guess : callable, optional
            An approximate inverse, such as the affine one; by default a step of the field backward.
        """
        geometry = geometry or self.geometry
        target = grid_points(geometry).reshape(-1, 3)
        inverse_jacobian = self._inverse_jacobian()
        # A step longer than some grid steps would leave the linear neighborhood.
        longest = 2 * min(self.geometry.spacing)
        x = target - self.at(target) if guess is None else np.array(guess(target), float)
        left = np.arange(len(x))
        for _ in range(12):
            error = x[left] + self.at(x[left]) - target[left]
            left, error = left[(off := np.abs(error).max(1) > 1e-3)], error[off]
            if not len(left):
                break
            local = linear_at(inverse_jacobian, self.geometry, x[left]).reshape(-1, 3, 3)
            x[left] -= np.clip(np.einsum("nab,nb->na", local, error), -longest, longest)
        return DisplacementField((x - target).astype(self.vectors.dtype).reshape(*geometry.shape, 3), geometry)

    def to_sitk(self) -> sitk.DisplacementFieldTransform:
        """Return the map as an ITK transform; outside its grid that is the identity."""
        image = sitk.GetImageFromArray(self.vectors.astype(np.float64), isVector=True)
        self.geometry.stamp(image)
        return sitk.DisplacementFieldTransform(image)

    @classmethod
    def from_sitk(cls, transform: sitk.Transform) -> DisplacementField:
        """Return the field of an ITK displacement field transform."""
        image = sitk.DisplacementFieldTransform(transform).GetDisplacementField()
        return cls(sitk.GetArrayFromImage(image).astype(np.float32), Geometry.of(image))


def _determinants(vectors, turn, found):
    """Fill in the Jacobian determinants: central differences, one-sided at the border, as ``numpy.gradient``'s."""
    nk, nj, ni = found.shape
    m = np.empty((3, 3))
    for k in range(nk):
        k0, k1 = max(k - 1, 0), min(k + 1, nk - 1)
        for j in range(nj):
            j0, j1 = max(j - 1, 0), min(j + 1, nj - 1)
            for i in range(ni):
                i0, i1 = max(i - 1, 0), min(i + 1, ni - 1)
                for a in range(3):
                    di = (vectors[k, j, i1, a] - vectors[k, j, i0, a]) / (i1 - i0)
                    dj = (vectors[k, j1, i, a] - vectors[k, j0, i, a]) / (j1 - j0)
                    dk = (vectors[k1, j, i, a] - vectors[k0, j, i, a]) / (k1 - k0)
                    for b in range(3):
                        m[a, b] = di * turn[0, b] + dj * turn[1, b] + dk * turn[2, b] + (a == b)
                found[k, j, i] = (m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
                                  - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
                                  + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0]))


def steepest(components: np.ndarray, spacing: float) -> float:
    """Return the largest sum of slopes, without their signs, along the axes of components (c, k, j, i)."""
    run = kernel_if_numba(_steepest)
    if run is None:
        return max(sum(np.abs(slope) for slope in np.gradient(c, spacing)).max() for c in components)
    return run(components) / spacing


def _steepest(components):
    n0, n1, n2 = components.shape[1:]
    largest = 0.0
    for c in range(components.shape[0]):
        v = components[c]
        for k in range(n0):
            k0, k1 = max(k - 1, 0), min(k + 1, n0 - 1)
            for j in range(n1):
                j0, j1 = max(j - 1, 0), min(j + 1, n1 - 1)
                for i in range(n2):
                    i0, i1 = max(i - 1, 0), min(i + 1, n2 - 1)
                    total = (abs(v[k1, j, i] - v[k0, j, i]) / (k1 - k0) + abs(v[k, j1, i] - v[k, j0, i]) / (j1 - j0)
                             + abs(v[k, j, i1] - v[k, j, i0]) / (i1 - i0))
                    largest = max(largest, total)
    return largest


@dataclass(frozen=True)
class LevelTransform:
    """Correspondence of one disc: atlas points to the person's points and back."""

    #: Label value of the disc.
    value: int
    #: `to_person` is what resamples a person's map onto the atlas.
    to_person: DisplacementField
    to_atlas: DisplacementField


def grid_points(geometry: Geometry) -> np.ndarray:
    """Return the LPS positions of a grid's voxels, shape (k, j, i, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)
    return geometry.index_to_world(index[..., ::-1])


def surrounding_grid(points: np.ndarray, step: float = STEP, margin: float = MARGIN) -> Geometry:
    """Return an LPS-aligned isotropic grid around (n, 3) points."""
    low, high = points.min(0) - margin, points.max(0) + margin
    return Geometry(np.ceil((high - low) / step).astype(int) + 1, (step,) * 3, low)


def write_transform(field: DisplacementField, path: str | os.PathLike) -> Path:
    """Write a field as ``.h5`` or ``.tfm``, which ITK, Slicer and Elastix read; a text ``.tfm`` is many times larger.

    Raises
    ------
    RegistrationError
        If the suffix names no transform format.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".tfm", ".txt", ".hdf5"):
        raise RegistrationError(f"'{path.name}' is no transform file: use the suffix .h5 or .tfm.")
    with atomic_path(path) as temporary:
        sitk.WriteTransform(field.to_sitk(), str(temporary))
    return path


def read_transform(path: str | os.PathLike) -> DisplacementField:
    """Read a field written by :func:`write_transform`.

    Raises
    ------
    RegistrationError
        If the file is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        return DisplacementField.from_sitk(sitk.ReadTransform(str(path)))
    except (RuntimeError, NotImplementedError) as error:
        raise RegistrationError(f"'{path.name}' cannot be read as a displacement field transform: "
                                "it is missing, damaged, or of another kind.") from error
