"""Labels onto another grid by shape: signed distances averaged over each target voxel.

Nearest-neighbor interpolation leaves stairs on fine grids and loses thin discs on coarse ones. Here each label's signed
distance is resampled, with several samples in each target voxel where it is larger than the source's, so that both a
disc's volume and its surface are kept.
"""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..image import Geometry, Image
from ..labels import whole_labels

SUPERSAMPLE = 4  # most samples per target voxel and axis


def apply_transform(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Map (n, 3) points; linear transforms are applied as matrices."""
    zero = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.stack([np.array(transform.TransformPoint(tuple(e))) - zero for e in np.eye(3)], axis=1)
    return points @ matrix.T + zero


def resample_labels(labels: Image, geometry: Geometry, transform: sitk.Transform | None = None) -> tuple[Image, Image]:
    """Carry labels to another grid by shape: signed distances, averaged over each target voxel.

    Parameters
    ----------
    labels : Image
        Labels, not negative; whole numbers of any type.
    geometry : Geometry
        Target grid.
    transform : SimpleITK.Transform, optional
        Maps points of the target to points of the labels (LPS mm).

    Returns
    -------
    labels : Image of uint8, or of a larger type where the values need it
        At each voxel the label that fills most of it, if all labels together fill at least half.
    coverage : Image of float32
        Share of the voxel that its label fills.
    """
    labels = whole_labels(labels)
    transform = transform or sitk.Transform(3, sitk.sitkIdentity)
    kind = np.promote_types(np.uint8, np.min_scalar_type(labels.array.max(initial=0)))
    total = np.zeros(geometry.shape, np.float32)
    best = np.zeros(geometry.shape, np.float32)
    winner = np.zeros(geometry.shape, kind)
    for value in (int(v) for v in np.unique(labels.array) if v):
        share, box = _coverage(labels, value, geometry, transform)
        if share is None:
            continue
        total[box] += share
        better = share > best[box]
        winner[box][better] = value
        best[box] = np.maximum(best[box], share)
    kept = total >= 0.5
    return (Image(np.where(kept, winner, 0).astype(kind), geometry, dict(labels.meta)),
            Image(np.where(kept, best, 0).astype(np.float32), geometry))


def _coverage(labels: Image, value: int, geometry: Geometry, transform: sitk.Transform):
    """Return the share of each target voxel that one label fills, in a box of the target, or (None, None)."""
    mask = labels.array == value
    where = np.argwhere(mask)
    low, high = np.maximum(where.min(0) - 3, 0), np.minimum(where.max(0) + 4, mask.shape)
    crop = tuple(slice(a, b) for a, b in zip(low, high))
    source = Geometry((high - low)[::-1], labels.geometry.spacing, labels.geometry.index_to_world(low[::-1]),
                      labels.geometry.direction)
    box = _target_box(source, geometry, transform)
    if box is None:
        return None, None
    distance = _signed_distance(mask[crop], source)
    steps = np.clip(np.ceil(np.array(geometry.spacing) / np.array(source.spacing)), 1, SUPERSAMPLE).astype(int)
    fine = _refined(geometry, box, steps)
    resampled = sitk.Resample(distance, fine.to_sitk(), transform, sitk.sitkLinear, 1e3)
    # A ramp one fine voxel wide in place of a step: partial volume at the surface.
    width = float(min(fine.spacing))
    inside = np.clip(0.5 - sitk.GetArrayFromImage(resampled) / width, 0, 1)
    shape = [n for size, step in zip(fine.shape, steps[::-1]) for n in (size // step, step)]
    return inside.reshape(shape).mean(axis=(1, 3, 5)).astype(np.float32), box


def _signed_distance(mask: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Return the distance in mm to the mask's surface, negative inside; the surface lies between voxels.

    A label that reaches the image's border is continued there, because the border is no surface.
    """
    padded = np.pad(mask, 2, mode="edge")
    spacing = geometry.spacing[::-1]
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    inside = np.full(padded.shape, 1e3) if padded.all() else ndimage.distance_transform_edt(padded, sampling=spacing)
    half = 0.5 * min(spacing)
    signed = np.where(padded, half - inside, outside - half)[2:-2, 2:-2, 2:-2]
    return Image(signed.astype(np.float32), geometry).to_sitk()


def _target_box(source: Geometry, target: Geometry, transform: sitk.Transform) -> tuple[slice, ...] | None:
    """Return the (k, j, i) box of the target that the source's corners fall into, or None."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in source.size])).reshape(3, -1).T
    points = apply_transform(transform.GetInverse(), source.index_to_world(corners))
    index = target.world_to_index(points)
    low = np.maximum(np.floor(index.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(index.max(0)).astype(int) + 2, target.size)
    if np.any(low >= high):
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1]))


def _refined(geometry: Geometry, box: tuple[slice, ...], steps: np.ndarray) -> Geometry:
    """Return the grid of a box with each voxel divided into `steps` (i, j, k)."""
    start = np.array([s.start for s in box[::-1]], float)
    size = np.array([s.stop - s.start for s in box[::-1]])
    first = start - 0.5 + 0.5 / steps
    return Geometry(size * steps, np.array(geometry.spacing) / steps, geometry.index_to_world(first),
                    geometry.direction)
