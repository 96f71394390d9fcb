"""Distance images of two discs in a common pose, for Elastix and BRAINSFit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.image import Geometry, Image

from .shape import DiscShape
from .transforms import DisplacementField, PointMap, grid_points, surrounding_grid

#: Distances are cut off here (mm): farther out they say nothing of the disc.
CLIP = 8.0
#: Registration looks at this band around the surface (mm).
BAND = 6.0


@dataclass(frozen=True)
class DiscImages:
    """Two discs as images in the atlas's space.

    Attributes
    ----------
    fixed, moving : Image
        Signed distances (mm, float32) on one LPS-aligned 1 mm grid; the moving one placed by `to_moving`.
    mask : Image
        Voxels to look at: near the surface, and shown by the person's image.
    to_moving : callable
        From atlas points to the person's (LPS mm), by the frames and one scale.
    """

    fixed: Image
    moving: Image
    mask: Image
    to_moving: PointMap

    @property
    def geometry(self) -> Geometry:
        """Grid of the images."""
        return self.fixed.geometry


def posed(fixed: DiscShape, moving: DiscShape) -> DiscImages:
    """Place the moving disc onto the fixed one by their frames and one scale; no overlap is needed."""
    if any(moving.cut) or any(fixed.cut):
        scale = moving.chord[0] / fixed.chord[0]
    else:
        scale = float(np.sqrt(np.prod(moving.half[:2] / fixed.half[:2])))

    def to_moving(lps):
        return moving.to_world(fixed.to_frame(lps) * scale)

    grid = surrounding_grid(fixed.inside, margin=10.0)
    points = grid_points(grid)
    there = to_moving(points)
    fixed_map = np.clip(fixed.surface_at(points), -CLIP, CLIP).astype(np.float32)
    moving_map = np.clip(moving.surface_at(there) / scale, -CLIP, CLIP).astype(np.float32)
    mask = (np.abs(fixed_map) < BAND) & moving.seen_at(there)
    return DiscImages(Image(fixed_map, grid), Image(moving_map, grid), Image(mask.astype(np.uint8), grid), to_moving)


def composed(images: DiscImages, transform: sitk.Transform) -> PointMap:
    """Return atlas points to the person's points: an ITK transform found between the images, then `to_moving`."""
    grid = images.geometry
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing,
                                              grid.direction)
    dense = DisplacementField(sitk.GetArrayFromImage(field), grid)

    def forward(lps):
        return images.to_moving(lps + dense.at(lps))

    return forward
