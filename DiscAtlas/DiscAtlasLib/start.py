"""The start that never fails: a similarity from the discs' frames, and distance images for image-based backends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.image import Geometry, Image

from .shape import DiscShape
from .transforms import PointMap, grid_points, surrounding_grid

#: Distances are cut off here (mm): farther out they say nothing of the disc.
CLIP = 8.0
#: Registration looks at this band around the surface (mm).
BAND = 6.0


@dataclass
class Problem:
    """A pair of discs as images in the atlas's space, for Elastix and BRAINSFit.

    Attributes
    ----------
    fixed, moving : Image
        Signed distances (mm, float32) on one LPS-aligned 1 mm grid; the moving one after the similarity of the frames.
    mask : Image
        Voxels to look at: near the surface, and shown by the person's image.
    """

    fixed: Image
    moving: Image
    mask: Image
    start: PointMap
    back: PointMap
    name: str

    @property
    def geometry(self) -> Geometry:
        """Grid of the images."""
        return self.fixed.geometry


def pose(fixed: DiscShape, moving: DiscShape) -> Problem:
    """Place the moving disc onto the fixed one by their frames and one scale; no overlap is needed."""
    if any(moving.cut) or any(fixed.cut):
        scale = moving.chord[0] / fixed.chord[0]
    else:
        scale = float(np.sqrt(np.prod(moving.half[:2] / fixed.half[:2])))

    def start(lps):
        return moving.to_world(fixed.to_frame(lps) * scale)

    def back(lps):
        return fixed.to_world(moving.to_frame(lps) / scale)

    grid = surrounding_grid(fixed.geometry.index_to_world(np.argwhere(fixed.distance < 0)[:, ::-1]), margin=10.0)
    points = grid_points(grid)
    there = start(points)
    fixed_map = np.clip(fixed.surface_at(points), -CLIP, CLIP).astype(np.float32)
    moving_map = np.clip(moving.surface_at(there) / scale, -CLIP, CLIP).astype(np.float32)
    mask = (np.abs(fixed_map) < BAND) & moving.seen_at(there)
    return Problem(Image(fixed_map, grid), Image(moving_map, grid), Image(mask.astype(np.uint8), grid), start, back,
                   moving.name)


def composed(problem: Problem, transform: sitk.Transform) -> PointMap:
    """Return atlas points to the person's points: an ITK transform found between the images, then the similarity."""
    grid = problem.geometry
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing,
                                              grid.direction)
    from .transforms import DisplacementField

    dense = DisplacementField(sitk.GetArrayFromImage(field), grid)

    def forward(lps):
        # Beyond the grid, which reaches 10 mm around the disc, the displacement is that of its border.
        index = np.clip(grid.world_to_index(lps), 0, np.array(grid.size) - 1)
        nearest = grid.index_to_world(index)
        return problem.start(lps + dense(nearest) - nearest)

    return forward
