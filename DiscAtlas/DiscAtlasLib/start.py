"""Distance images of two discs in a common pose, for Elastix and BRAINSFit."""

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
#: Slopes of a distance beyond these are its ridges, not what a map did to it.
SLOPES = (0.25, 3.0)


@dataclass(frozen=True)
class DiscImages:
    """Two discs as images in the atlas's space."""

    #: Signed distances (mm, float32) on one LPS-aligned 1 mm grid; the moving one placed by `to_moving`.
    fixed: Image
    moving: Image
    #: Voxels to look at: near the surface, and shown by the person's image.
    mask: Image
    #: From atlas points to the person's (LPS mm).
    to_moving: PointMap

    @property
    def geometry(self) -> Geometry:
        """Grid of the images."""
        return self.fixed.geometry


def by_frames(fixed: DiscShape, moving: DiscShape) -> PointMap:
    """Return the map of fixed to moving points by the discs' frames and three scales; none has to overlap."""
    scale = moving.half / fixed.half
    if any(moving.cut) or any(fixed.cut):
        # A cut disc does not show how wide it is: its width is taken for scaled like its depth.
        scale[:2] = moving.chord[0] / fixed.chord[0]
    # A flat disc's bend counts as much as its height: stretched to the full, it would be the larger error.
    scale[2] = np.clip(scale[2], scale[1] / 2, scale[1] * 2)
    return lambda lps: moving.to_world(fixed.to_frame(lps) * scale)


def posed(fixed: DiscShape, moving: DiscShape, to_moving: PointMap | None = None) -> DiscImages:
    """Return the images of two discs, the moving one placed by a map (by default that of the frames)."""
    to_moving = to_moving or by_frames(fixed, moving)
    grid = surrounding_grid(fixed.inside, margin=10.0)
    points = grid_points(grid)
    there = to_moving(points)
    fixed_map = np.clip(fixed.surface_at(points), -CLIP, CLIP).astype(np.float32)
    # The map stretches distances; divided by their slope they are distances here again.
    value = moving.surface_at(there)
    slope = np.linalg.norm(np.gradient(value, *grid.spacing[::-1]), axis=0)
    moving_map = np.clip(value / np.clip(slope, *SLOPES), -CLIP, CLIP).astype(np.float32)
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
