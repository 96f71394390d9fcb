"""Between a volume of any orientation and upright sagittal slices on the network's in-plane grid.

Slices stay where they were acquired: only rows and columns are resampled, so that thick slices are never mixed.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from ..errors import SegmentationError
from ..image import Geometry, Image

#: Coarsest spacing, mm, within a sagittal slice; beyond it a volume was not acquired (nearly) sagittally.
MAX_INPLANE = 2.6
#: A slice normal farther than this from left-right (cosine) is neither sagittal nor nearly so.
MIN_COSINE = 0.72
INFERIOR, POSTERIOR = np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class SagittalPlan:
    """How a volume's slices map to upright slices."""

    #: Array axes (of k, j, i) that become slice, row-like and column-like axes.
    axes: tuple[int, int, int]
    #: Shape (2, 2). Upright (row, column) steps to steps along the volume's two in-plane axes, in voxels.
    matrix: np.ndarray
    #: Shape (2,). In-plane voxel position of upright pixel (0, 0).
    offset: np.ndarray
    #: Upright rows (superior to inferior) and columns (anterior to posterior).
    shape: tuple[int, int]
    #: mm between upright pixels.
    spacing: float
    #: Distance of neighboring slices.
    slice_mm: float
    #: In-plane spacing of the volume along its two in-plane axes.
    native_mm: tuple[float, float]

    def upright(self, array: np.ndarray) -> np.ndarray:
        """Resample a volume (k, j, i) to upright slices (slices, rows, columns), float32; outside is its minimum."""
        stack = np.asarray(array, np.float32).transpose(self.axes)
        # Images finer than the network's grid are smoothed first, so that they do not alias.
        sigma = [0.4 * np.sqrt(max(self.spacing**2 - mm**2, 0)) / mm if mm < 0.55 else 0.0 for mm in self.native_mm]
        low = float(stack.min())
        result = np.empty((len(stack), *self.shape), np.float32)
        for plane, out in zip(stack, result):
            smooth = scipy.ndimage.gaussian_filter(plane, sigma) if max(sigma) > 0 else plane
            self._resample(smooth, self.matrix, self.offset, self.shape, low, out)
        return result

    def restore(self, plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Resample one upright slice (rows, columns) to the volume's in-plane grid of `shape`; outside is 0."""
        inverse = np.linalg.inv(self.matrix)
        out = np.empty(shape, np.float32)
        self._resample(plane, inverse, -inverse @ self.offset, shape, 0.0, out)
        return out

    @staticmethod
    def _resample(plane, matrix, offset, shape, outside, out) -> None:
        diagonal = abs(matrix[0, 1]) + abs(matrix[1, 0]) < 1e-6
        # A transposed plane turns a swapped pair of axes into the fast, separable case.
        swapped = abs(matrix[0, 0]) + abs(matrix[1, 1]) < 1e-6
        if swapped:
            plane, matrix, offset, diagonal = plane.T, matrix[::-1], offset[::-1], True
        if diagonal:
            plane, matrix, offset = _positive(plane, np.diag(matrix), offset)
        scipy.ndimage.affine_transform(plane, matrix, offset, tuple(shape), out, order=1, mode="grid-constant",
                                       cval=outside)


def _positive(plane: np.ndarray, steps: np.ndarray, offset: np.ndarray):
    """Turn negative steps into a flip of the plane: scipy's separable path wants positive ones."""
    steps, offset = np.array(steps, float), np.array(offset, float)
    for axis in range(2):
        if steps[axis] < 0:
            plane = np.flip(plane, axis)
            steps[axis], offset[axis] = -steps[axis], plane.shape[axis] - 1 - offset[axis]
    return plane, steps, offset


def plan_sagittal(geometry: Geometry, spacing: float) -> SagittalPlan:
    """Find the sagittal slices of a volume from its direction cosines.

    Parameters
    ----------
    geometry : Geometry
        Any orientation, handedness and anisotropy.
    spacing : float
        In-plane spacing of the upright slices, mm.

    Raises
    ------
    SegmentationError
        If the volume was acquired axially or coronally, or its orientation is not near any anatomical axis.
    """
    steps = geometry.matrix3
    lengths = np.linalg.norm(steps, axis=0)
    directions = steps / lengths
    left_right = int(np.argmax(np.abs(directions[0])))
    if abs(directions[0, left_right]) < MIN_COSINE:
        raise SegmentationError(
            "No axis of the volume runs left to right (it is rotated by more than 44 degrees): load the original "
            "DICOM, or reformat the volume sagittally.", anchor="not-sagittal")
    first, second = (axis for axis in range(3) if axis != left_right)
    if max(lengths[first], lengths[second]) > MAX_INPLANE:
        coarse = first if lengths[first] > lengths[second] else second
        kind = "axial" if np.argmax(np.abs(directions[:, coarse])) == 2 else "coronal"
        raise SegmentationError(
            f"This is a volume of {kind} slices ({lengths[coarse]:.1f} mm apart); discs are segmented on sagittal "
            "slices: choose the sagittal series.", anchor="not-sagittal")
    plane = directions[:, [first, second]]
    normal = np.cross(plane[:, 0], plane[:, 1])
    down = INFERIOR - normal * (INFERIOR @ normal) / (normal @ normal)
    down /= np.linalg.norm(down)
    back = np.cross(normal, down)
    back *= np.sign(back @ POSTERIOR) / np.linalg.norm(back)
    # An upright step in world mm, expressed in voxels along the two in-plane axes.
    matrix = np.linalg.lstsq(plane, np.stack([down, back], 1), rcond=None)[0] * spacing
    matrix /= lengths[[first, second]][:, None]
    matrix[np.abs(matrix) < 1e-9] = 0
    extent = np.array([geometry.size[first], geometry.size[second]])
    corners = np.array([(0, 0), (extent[0] - 1, 0), (0, extent[1] - 1), extent - 1], float)
    upright = corners @ np.linalg.inv(matrix).T
    low, high = upright.min(0), upright.max(0)
    rows, columns = (int(v) for v in np.ceil(high - low - 1e-6).astype(int) + 1)
    # Array axes are (k, j, i); geometry axes are (i, j, k).
    axes = (2 - left_right, 2 - first, 2 - second)
    slice_mm = float(abs(steps[:, left_right] @ normal) / np.linalg.norm(normal))
    return SagittalPlan(axes, matrix, matrix @ low, (rows, columns), spacing, slice_mm,
                        (float(lengths[first]), float(lengths[second])))


def check_volume(image: Image) -> list[str]:
    """Refuse a volume that is constant, mostly not a number or too small; return warnings about what is unusual."""
    array = image.array
    if array.ndim != 3:
        raise SegmentationError(f"A 3-D volume is needed; this one has {array.ndim} dimensions: pick one time point "
                                "or echo.", anchor="not-a-3d-volume")
    flags = []
    bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad > 0.05 * array.size:
        raise SegmentationError(f"{100 * bad / array.size:.0f} % of the voxels are not numbers (NaN or infinite): "
                                "segment the anatomical volume, not a map.", anchor="not-an-anatomical-volume")
    if bad:
        flags.append(f"{bad} voxels are not numbers (NaN or infinite); they were read as the darkest signal.")
    finite = array[np.isfinite(array)] if bad else array
    if finite.min() == finite.max():
        raise SegmentationError(f"Every voxel has the same value ({float(finite.flat[0]):g}): the volume is empty, "
                                "load it again.", anchor="empty-volume")
    return flags
