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
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry
from DiscRelaxometryLib.interpolation import linear

PointMap = Callable[[np.ndarray], np.ndarray]
#: Grid step and margin (mm) of stored fields. 1 mm keeps the interpolation error of a smooth field below 0.05 mm.
STEP = 1.0
MARGIN = 6.0
#: Stored maps keep their Jacobian determinant above this in the disc.
LEAST_JACOBIAN = 0.05


@dataclass(frozen=True)
class DisplacementField:
    """A point map sampled on a grid: ``vectors`` (k, j, i, 3) in LPS mm, added to a point of the grid."""

    vectors: np.ndarray
    geometry: Geometry

    @classmethod
    def sampled(cls, point_map: PointMap, geometry: Geometry) -> DisplacementField:
        """Sample a point map, LPS mm to LPS mm, on a grid."""
        points = grid_points(geometry)
        return cls((point_map(points) - points).astype(np.float32), geometry)

    def __call__(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) LPS points; those outside the grid become NaN."""
        lps = np.asarray(lps, float)
        index = self.geometry.world_to_index(lps.reshape(-1, 3))[:, ::-1].T
        moved = linear(self.vectors, index)
        moved[((index < 0) | (index > np.array(self.geometry.shape)[:, None] - 1)).any(0)] = np.nan
        return lps + moved.reshape(lps.shape)

    def jacobian(self) -> np.ndarray:
        """Return the determinant of the map's Jacobian at the grid's voxels; negative values are folds."""
        return np.linalg.det(self._jacobian_matrix())

    def unfolded(self, points: np.ndarray, least: float = LEAST_JACOBIAN, iterations: int = 40) -> DisplacementField:
        """Return the field, smoothed around those (n, 3) points whose Jacobian determinant is below `least`.

        Sampling a one-to-one map on a grid can fold it. The field itself is returned where nothing is to be done.
        """
        index = tuple(np.rint(self.geometry.world_to_index(points)[:, ::-1]).astype(int).T)
        vectors, found = self.vectors, self
        for _ in range(iterations):
            bad = np.zeros(self.geometry.shape, bool)
            bad[index] = found.jacobian()[index] < least
            if not bad.any():
                break
            share = np.minimum(1, 10 * ndimage.gaussian_filter(bad.astype(np.float32), 1.5))[..., None]
            smooth = ndimage.gaussian_filter(vectors, (1, 1, 1, 0), mode="nearest")
            vectors = vectors + share * (smooth - vectors)
            found = DisplacementField(vectors, self.geometry)
        return found

    def _jacobian_matrix(self) -> np.ndarray:
        steps = self.geometry.spacing[::-1]
        by_index = np.stack([np.stack(np.gradient(self.vectors[..., a].astype(float), *steps)[::-1], -1)
                             for a in range(3)], -2)
        direction = np.array(self.geometry.direction).reshape(3, 3)
        return by_index @ direction.T + np.eye(3)

    def inverse(self, geometry: Geometry, guess: PointMap) -> DisplacementField:
        """Return the inverse map sampled on `geometry`; `guess` is an approximate inverse, such as the affine one.

        Newton's method with the field's own Jacobian; beyond the grid the displacement is that of its border.
        """
        target = grid_points(geometry).reshape(-1, 3)
        inverse_jacobian = np.linalg.inv(self._jacobian_matrix()).reshape(*self.geometry.shape, 9)
        x = np.array(guess(target), float)
        open_points = np.arange(len(x))
        for _ in range(15):
            index = self.geometry.world_to_index(x[open_points])
            index = np.clip(index, 0, np.array(self.geometry.size) - 1)[:, ::-1].T
            error = x[open_points] + linear(self.vectors, index) - target[open_points]
            local = linear(inverse_jacobian, index).reshape(-1, 3, 3)
            step = np.clip(np.einsum("nab,nb->na", local, error), -3 * STEP, 3 * STEP)
            x[open_points] -= step
            open_points = open_points[np.abs(error).max(1) > 2e-3]
            if not len(open_points):
                break
        return DisplacementField((x - target).astype(np.float32).reshape(*geometry.shape, 3), geometry)

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


@dataclass(frozen=True)
class LevelTransform:
    """Correspondence of one disc: atlas points to the person's points and back.

    Attributes
    ----------
    value : int
        Label value of the disc.
    to_person, to_atlas : DisplacementField
        `to_person` is what resamples a person's map onto the atlas.
    """

    value: int
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
        raise RegistrationError(f"'{path.name}' can not be read as a displacement field transform: "
                                "it is missing, damaged, or of another kind.") from error
