"""Overlap and surface distance between a segmentation and its reference."""

import numpy as np
from scipy import ndimage


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Dice coefficient of two masks; NaN if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(first & second) / total) if total else float("nan")


def surface_distance(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Return the average symmetric surface distance in mm (spacing along the arrays' axes); NaN if a mask is empty.

    Surface voxels are those of a mask with a face neighbor outside it; the border of the volume is no surface, so that
    a structure cut by the field of view is not measured where it was cut. Distances run between voxel centers.
    """
    gaps = surface_gaps(first, second, spacing)
    return float(gaps.mean()) if len(gaps) else float("nan")


def surface_dice(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float, float], tolerance: float) -> float:
    """Return the share of both surfaces within `tolerance` mm of the other (normalized surface Dice; NaN if empty).

    After Nikolov et al., J Med Internet Res 2021;23:e26151, by voxels and not by area; surfaces as for
    :func:`surface_distance`.
    """
    gaps = surface_gaps(first, second, spacing)
    return float((gaps <= tolerance + 1e-9).mean()) if len(gaps) else float("nan")


def surface_gaps(first: np.ndarray, second: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return the distance (mm) of each surface voxel of either mask to the other surface; empty if a mask is."""
    if not first.any() or not second.any():
        return np.empty(0)
    box = tuple(slice(max(0, w.min() - 3), w.max() + 4) for w in np.nonzero(first | second))
    first, second = first[box], second[box]
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (first, second)]
    if not edges[0].any() or not edges[1].any():
        return np.empty(0)
    return np.concatenate([ndimage.distance_transform_edt(~other, sampling=spacing)[own]
                           for own, other in (edges, edges[::-1])])
