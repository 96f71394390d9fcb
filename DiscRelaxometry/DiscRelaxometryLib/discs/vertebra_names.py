"""Names for vertebrae, from the discs below and above them."""

import numpy as np
import SimpleITK as sitk

from ..image import Geometry
from ..labels import DISCS, SACRUM, VERTEBRA, VERTEBRAE
from .instances import Disc, Piece, SpineCurve, world

LOWEST = DISCS[0].value
_VERTEBRA_OFFSET = VERTEBRAE[1].value - LOWEST


def spacings_between(pieces: list[Piece]) -> np.ndarray:
    """Return the distances between the centroids of neighboring discs, mm."""
    return np.array([np.linalg.norm(b.centroid - a.centroid) for a, b in zip(pieces, pieces[1:])])


def name_vertebrae(labels: np.ndarray, mask: np.ndarray, discs: list[Disc], pieces: list[Piece], geometry: Geometry,
                   curve: SpineCurve, sacrum: bool = False) -> list[int]:
    """Write vertebra values into `labels`, in place, and return them, caudal first.

    Bodies are cut by the planes of the discs; the processes follow the body that they are nearest to inside the
    vertebra mask (watershed from the bodies).
    """
    named = [(d, p) for d, p in zip(discs, pieces) if d.value >= LOWEST]
    if not named or not mask.any():
        labels[mask] = VERTEBRA.value
        return []
    indices = np.argwhere(mask)
    points = world(indices, geometry)
    level = np.zeros(len(points), np.uint8)
    if sacrum:
        level[:] = SACRUM.value
    elif named[0][0].value > LOWEST:
        level[:] = named[0][0].value + _VERTEBRA_OFFSET - 1
    for disc, piece in named:
        above = (points - piece.centroid) @ piece.normal > 0
        level[above] = disc.value + _VERTEBRA_OFFSET
    top, spacings = named[-1][1], spacings_between(pieces)
    reach = 1.25 * (float(np.median(spacings)) if len(spacings) else 34.0)
    level[(points - top.centroid) @ top.normal > reach] = VERTEBRA.value  # a disc above was missed
    for (disc, _), (after, _) in zip(named, named[1:]):
        if after.value - disc.value > 1:  # fused or missed disc: the block between has no single level
            level[level == disc.value + _VERTEBRA_OFFSET] = VERTEBRA.value
    seeds = np.zeros(labels.shape, np.uint8)
    body = curve.near(points, 14)
    seeds[tuple(indices[body].T)] = level[body]
    flooded = _flood(seeds, mask, geometry)
    labels[mask] = np.where(flooded[mask] > 0, flooded[mask], VERTEBRA.value)
    return sorted(int(v) for v in np.unique(flooded[mask]) if v >= SACRUM.value)


def _flood(seeds: np.ndarray, mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Grow seeds inside a mask, nearest first."""
    where = np.argwhere(mask)
    box = tuple(slice(a, b) for a, b in zip(where.min(0), where.max(0) + 1))
    spacing = geometry.spacing
    flat = sitk.GetImageFromArray(np.where(mask[box], 0, 255).astype(np.uint8))
    marks = sitk.GetImageFromArray(np.ascontiguousarray(seeds[box]))
    for image in (flat, marks):
        image.SetSpacing(spacing)
    grown = sitk.GetArrayFromImage(sitk.MorphologicalWatershedFromMarkers(flat, marks, False, False))
    result = np.zeros(seeds.shape, np.uint8)
    result[box] = np.where(mask[box], grown, 0)
    return result
