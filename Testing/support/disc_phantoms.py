"""Analytic discs on grids of several orientations and spacings."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.measure.axes import PATIENT_AXES

# Columns i to posterior, j to caudal, k to left: a left-handed grid.
_SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_OBLIQUE = Rotation.from_euler("xyz", [8, -5, 11], degrees=True).as_matrix()
#: Name: direction matrix (columns i, j, k in LPS) and spacing.
GRIDS = {
    "isotropic": (np.eye(3), (0.8, 0.8, 0.8)),
    "sagittal_4mm": (_SAGITTAL, (0.6, 0.6, 4.0)),
    "oblique": (_OBLIQUE @ _SAGITTAL @ np.diag([1.0, 1.0, -1.0]), (0.7, 0.7, 3.0)),
    "left_handed": (_OBLIQUE @ _SAGITTAL, (0.7, 0.7, 3.0)),
}


def grid_around(name: str, extent: tuple[float, float, float] = (66.0, 60.0, 50.0)) -> Geometry:
    """Return a grid centered at the world's origin that covers `extent` mm along L, P, S."""
    direction, spacing = GRIDS[name]
    reach = np.abs(direction.T) @ np.array(extent)
    size = np.ceil(reach / spacing).astype(int)
    matrix = direction * np.array(spacing)
    return Geometry(tuple(size), spacing, tuple(-matrix @ ((size - 1) / 2)), tuple(direction.ravel()))


def tilted_axes(sagittal: float, coronal: float, axial: float) -> np.ndarray:
    """Return LR, AP, CC rows of a disc tilted by angles in degrees."""
    return PATIENT_AXES @ Rotation.from_euler("xyz", [sagittal, coronal, axial], degrees=True).as_matrix()


def _local(geometry: Geometry, axes: np.ndarray, center) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)[..., ::-1]
    return (geometry.index_to_world(index) - np.array(center)) @ axes.T


def ellipsoid(geometry: Geometry, axes: np.ndarray, size, center=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the mask of an ellipsoid with diameters `size` along LR, AP, CC."""
    return ((2 * _local(geometry, axes, center) / size) ** 2).sum(axis=-1) <= 1


def cuboid(geometry: Geometry, axes: np.ndarray, size, center=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the mask of a box with edges `size` along LR, AP, CC."""
    return np.all(np.abs(2 * _local(geometry, axes, center)) <= size, axis=-1)


def label_image(name: str) -> Image:
    """Return three stacked discs (L5-S1, L4-L5, L3-L4) and a canal behind them."""
    geometry = grid_around(name, (66.0, 90.0, 110.0))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[cuboid(geometry, PATIENT_AXES, (16, 14, 100), center=(0, 30, 0))] = 2
    for value, height, tilt in ((11, -34, 15), (12, 0, 5), (13, 34, -5)):
        labels[ellipsoid(geometry, tilted_axes(tilt, 0, 0), (46, 33, 12), center=(0, 0, height))] = value
    return Image(labels, geometry)
