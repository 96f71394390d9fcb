"""Arrays with their geometry. World coordinates are LPS (SimpleITK); MRML's RAS is met in ``mrml`` only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..errors import GeometryError

#: Any sequence of numbers; a Geometry keeps it as a tuple.
Numbers = Any


@dataclass(frozen=True)
class Geometry:
    """Grid of an image in LPS world coordinates."""

    #: Voxels along i, j, k (SimpleITK order; the array's shape reversed).
    size: Numbers
    #: mm along i, j, k.
    spacing: Numbers = (1.0, 1.0, 1.0)
    #: LPS position in mm of the center of voxel (0, 0, 0).
    origin: Numbers = (0.0, 0.0, 0.0)
    #: Row-major 3 x 3 matrix whose columns are the LPS directions of i, j, k. Oblique and left-handed are ordinary.
    direction: Numbers = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self):
        for name, kind in (("size", int), ("spacing", float), ("origin", float), ("direction", float)):
            object.__setattr__(self, name, tuple(kind(v) for v in getattr(self, name)))
        values = np.array(self.spacing + self.origin + self.direction)
        if not np.all(np.isfinite(values)) or min(self.spacing) <= 0 or abs(np.linalg.det(self.matrix3)) < 1e-6:
            raise GeometryError(
                f"The image has no usable geometry (spacing {self.spacing}, direction {self.direction}): "
                "check the header, or load the original DICOM.", anchor="unusable-geometry")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape (k, j, i)."""
        return self.size[::-1]

    @property
    def matrix3(self) -> np.ndarray:
        """3 x 3 matrix from index steps (i, j, k) to LPS mm."""
        return np.array(self.direction).reshape(3, 3) * np.array(self.spacing)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3."""
        return float(abs(np.linalg.det(self.matrix3)))

    def index_to_world(self, ijk) -> np.ndarray:
        """Map (..., 3) continuous indices i, j, k to LPS mm."""
        return np.asarray(ijk, float) @ self.matrix3.T + np.array(self.origin)

    def world_to_index(self, lps) -> np.ndarray:
        """Map (..., 3) LPS mm to continuous indices i, j, k."""
        return (np.asarray(lps, float) - np.array(self.origin)) @ np.linalg.inv(self.matrix3).T

    def voxel_at(self, lps) -> tuple[int, int, int] | None:
        """Return the array index (k, j, i) of the voxel that a point (LPS mm) lies in, or None outside the grid."""
        index = np.floor(self.world_to_index(lps) + 0.5)
        inside = np.all(index >= 0) and np.all(index < self.size)
        k, j, i = (int(v) for v in index[::-1])
        return (k, j, i) if inside else None

    def difference(self, other: Geometry, tolerance: float = 1e-3) -> str:
        """Say how `other` differs, or return an empty string; positions are compared at the grid's corners, in mm."""
        if self.size != other.size:
            return f"size {self.size} versus {other.size}"
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1).T
        gap = np.abs(self.index_to_world(corners) - other.index_to_world(corners)).max()
        return f"positions differ by up to {gap:.3f} mm" if gap > tolerance else ""

    def to_sitk(self) -> sitk.Image:
        """Return an empty uint8 image on this grid, as a resampling reference."""
        image = sitk.Image(list(self.size), sitk.sitkUInt8)
        self.stamp(image)
        return image

    def stamp(self, image: sitk.Image) -> None:
        """Set spacing, origin and direction of a SimpleITK image."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the geometry of a 3-D SimpleITK image."""
        if image.GetDimension() != 3:
            raise GeometryError(f"A 3-D image is needed; this one has {image.GetDimension()} dimensions.")
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclass(frozen=True)
class Image:
    """A scalar volume: `array` in (k, j, i) order on `geometry`, with free metadata in `meta`."""

    array: np.ndarray
    geometry: Geometry
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.array.shape != self.geometry.shape:
            raise GeometryError(f"Array shape {self.array.shape} does not fit the grid {self.geometry.shape}.")

    @property
    def notes(self) -> list[str]:
        """What a user should know about how the image was read."""
        return self.meta.get("notes", [])

    def like(self, array: np.ndarray, **meta) -> Image:
        """Return an image on the same grid with another array; `meta` replaces the metadata."""
        return Image(np.asarray(array), self.geometry, meta)

    def to_sitk(self) -> sitk.Image:
        """Return a SimpleITK copy."""
        as_itk_has_it = {"bool": np.uint8, "float16": np.float32}.get(self.array.dtype.name, self.array.dtype)
        image = sitk.GetImageFromArray(self.array.astype(as_itk_has_it, copy=False))
        self.geometry.stamp(image)
        return image

    def upright(self) -> Image:
        """Return the image with axes nearest to left, posterior, superior (head up); no voxel changes its value."""
        return Image.from_sitk(sitk.DICOMOrient(self.to_sitk(), "LPS"))

    @classmethod
    def from_sitk(cls, image: sitk.Image, **meta) -> Image:
        """Return a copy of a 3-D scalar SimpleITK image."""
        return cls(sitk.GetArrayFromImage(image), Geometry.of(image), meta)


def require_same_geometry(first: Image, second: Image, what: str) -> None:
    """Raise GeometryError, naming `what`, if two images do not share a grid."""
    difference = first.geometry.difference(second.geometry)
    if difference:
        raise GeometryError(f"{what} are on different grids ({difference}): resample one of them first.",
                            anchor="different-grids")


def voxel_points(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the LPS centers (n, 3) of a mask's voxels, in C order of the array."""
    # Several times as fast as argwhere of the whole grid.
    k, j, i = np.unravel_index(np.flatnonzero(mask), mask.shape)
    return geometry.index_to_world(np.stack([i, j, k], axis=1))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the slices of the smallest box (k, j, i) that holds all of a mask, which must not be empty."""
    # Several times as fast as find_objects.
    along = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in along)


def resample(image: Image, geometry: Geometry, interpolator: int = sitk.sitkLinear) -> Image:
    """Resample onto `geometry`; 0 where the image does not reach."""
    result = sitk.Resample(image.to_sitk(), geometry.to_sitk(), sitk.Transform(3, sitk.sitkIdentity), interpolator)
    return Image.from_sitk(result, **image.meta)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run ITK on one thread: sums in another order differ in the last digits, and optimizers follow them."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
