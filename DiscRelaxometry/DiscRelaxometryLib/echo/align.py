"""Rigid alignment of later echoes to the first one, for motion between spin-lock or echo acquisitions.

Mattes mutual information of edge strength, from each echo to the one before it, because contrast changes along the
decay; fixed seed and one thread, so that a result does not depend on the machine. See ``Docs/method/alignment.md``.
"""

from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import scipy
import SimpleITK as sitk

from ..errors import DiscRelaxometryError, RegistrationError
from ..image import Geometry, Image, one_thread, voxel_points
from ..progress import ProgressCallback, silent
from ..tables import Column, Table
from .series import EchoSeries

MODES = ("off", "on", "auto")
_SAMPLES = 15000
_SEED = 20
_MINIMUM_SLICES = 3
#: Parameters that stay in the plane of the slices: rotation about the third axis, translation along the first two.
_IN_PLANE = (0.0, 0.0, 1.0, 1.0, 1.0, 0.0)
#: Motion across thick slices counts if it raises the mutual information by so much.
_MARGIN = 1.01
#: Nobody moves farther (root mean square, mm) from one echo to the next: images without structure are matched so.
_FARTHEST = 15.0
_COLUMNS = [
    Column("echo", "", "Echo, 0 is the reference"),
    Column("time", "ms", "Spin-lock or echo time"),
    Column("shift_left", "mm", "Estimated displacement of the echo's center to patient left"),
    Column("shift_posterior", "mm", "Estimated displacement to posterior"),
    Column("shift_cranial", "mm", "Estimated displacement to cranial"),
    Column("rotation", "deg", "Estimated rotation about its axis"),
    Column("displacement", "mm", "Root mean square displacement over the imaged body"),
    Column("displacement_voxels", "1", "The same along the grid axis where it is largest, in voxels"),
    Column("aligned", "", "Whether the echo was resampled"),
]


@dataclass(frozen=True)
class Alignment:
    """Result of :func:`align_echoes`."""

    #: Aligned series; echoes that were not resampled are bit-identical to the input.
    series: EchoSeries
    #: Estimated motion of each echo against the first (empty with mode ``off``).
    motion: Table
    #: From points of the first echo to points of each echo, LPS mm.
    transforms: list[sitk.Euler3DTransform]


def align_echoes(series: EchoSeries, mode: str = "auto", threshold_voxels: float = 0.3,
                 progressCallback: ProgressCallback = silent) -> Alignment:
    """Align each echo to the first by a rigid transform.

    Parameters
    ----------
    series : EchoSeries
    mode : {"off", "on", "auto"}
        ``off`` estimates nothing; ``on`` resamples every later echo; ``auto`` resamples those alone whose estimated
        root mean square displacement exceeds `threshold_voxels` along some grid axis.
    threshold_voxels : float
        Motion below it is left alone: it is within the error of the estimate, and resampling costs sharpness.
    progressCallback : callable, optional

    Returns
    -------
    Alignment
        Voxels that an echo did not image after the motion are NaN.

    Raises
    ------
    DiscRelaxometryError
        For an unknown mode.
    RegistrationError
        If mode is ``on`` and the series has fewer than 3 slices or no signal to register.
    """
    if mode not in MODES:
        raise DiscRelaxometryError(f"The alignment mode '{mode}' is unknown: use off, on or auto.")
    identity = [sitk.Euler3DTransform() for _ in range(len(series))]
    if mode == "off":
        return Alignment(series, Table("motion", _COLUMNS), identity)
    problem = _why_not(series)
    if problem and mode == "on":
        raise RegistrationError(problem, anchor="alignment")
    if problem:
        return Alignment(series.with_note(f"Motion was not estimated: {problem}"), Table("motion", _COLUMNS), identity)
    body = _body(series)
    transforms, rows, echoes = [], [], series.echoes
    for n in range(len(series)):
        progressCallback(n / len(series), f"Estimating motion, echo {n + 1} of {len(series)}")
        transform = _joined(transforms[-1], _register(series, n, body)) if n else sitk.Euler3DTransform()
        row = {"echo": n, "time": float(series.times_ms[n]), **_motion(transform, body)}
        row["aligned"] = n > 0 and (mode == "on" or row["displacement_voxels"] > threshold_voxels)
        if row["aligned"]:
            echoes = echoes.copy() if echoes is series.echoes else echoes
            echoes[n] = _resampled(series.echo(n), transform)
        transforms.append(transform)
        rows.append(row)
    moved = [r for r in rows if r["aligned"]]
    worst = max(r["displacement"] for r in rows)
    note = (f"{len(moved)} of {len(series) - 1} later echoes were aligned to the first (bspline interpolation); "
            f"largest estimated motion {worst:.2f} mm." if moved else
            f"No motion above {threshold_voxels:g} voxel between echoes (largest estimate {worst:.2f} mm); "
            "nothing resampled.")
    return Alignment(replace(series, echoes=echoes).with_note(note), Table("motion", _COLUMNS, rows), transforms)


def _why_not(series: EchoSeries) -> str:
    if series.geometry.size[2] < _MINIMUM_SLICES:
        return f"the series has {series.geometry.size[2]} slice(s), a rigid alignment needs {_MINIMUM_SLICES}."
    first = series.echoes[0]
    if not np.isfinite(first).any() or np.nanmax(first) == np.nanmin(first):
        return "the first echo holds no signal."
    return ""


def _body(series: EchoSeries) -> Image:
    """Return the mask of the imaged body in the first echo."""
    first = np.nan_to_num(series.echoes[0], posinf=0, neginf=0)
    mask = first > 0.1 * np.quantile(first, 0.98)
    return Image(scipy.ndimage.binary_opening(mask, np.ones((1, 3, 3))) if mask.sum() > 1000 else mask, series.geometry)


def _register(series: EchoSeries, n: int, body: Image) -> sitk.Euler3DTransform:
    """Return the rigid transform from points of echo `n` - 1 to those of echo `n`, or no motion where none is better.

    First in the plane of the slices, then all six parameters. The descent follows samples of the voxels and can go
    astray where an echo has little signal left; a result counts only if it is believable and the mutual information of
    all voxels is higher than without it, and what moves across thick slices only if it is clearly higher.
    """
    finest = max(1.0, min(series.geometry.spacing))
    # In the grid's own axes, in which the plane of the slices is that of the first two.
    grid = replace(series.geometry, origin=(0.0, 0.0, 0.0), direction=tuple(np.eye(3).ravel()))
    body, still = Image(body.array, grid), sitk.Euler3DTransform()
    still.SetCenter(_points(body).mean(axis=0).tolist())
    # Smoothing: a millimeter, or two thirds of a voxel where voxels are large.
    edges = {scale: [_edges(Image(series.echoes[m], grid), scale * max(1.0, min(grid.spacing) / 1.5))
                     for m in (n - 1, n)] for scale in (2.0, 1.0)}
    margin = _MARGIN if _thick(grid.spacing, 2) else 1.0
    with one_thread():
        if (base := _reached(edges[1.0], still, body)) == -np.inf:
            raise RegistrationError(f"Echo {n} ({series.times_ms[n]:g} ms) cannot be compared with the one before it: "
                                    "one is empty. Check the series, or use alignment mode off.", anchor="alignment")
        for scales, step in (((2.0, 1.0), 0.5), ((1.0,), 0.1)):
            found = sitk.Euler3DTransform(still)
            for scale in scales:
                _descend(edges[scale], found, step * scale * finest, body.array.size, _IN_PLANE)
            reached = _reached(edges[1.0], found, body)
            whole = sitk.Euler3DTransform(found if reached > base else still)
            _descend(edges[1.0], whole, step * finest, body.array.size)
            if _reached(edges[1.0], whole, body) > margin * max(reached, base):
                return _turned(whole, series.geometry)
            if reached > base:
                return _turned(found, series.geometry)
    return _turned(still, series.geometry)


def _thick(spacing: tuple[float, ...], axis: int) -> bool:
    """Say whether voxels are so large along an axis that a gradient along it is no edge."""
    return spacing[axis] > 3 and spacing[axis] >= 2 * min(spacing)


def _turned(transform: sitk.Euler3DTransform, geometry: Geometry) -> sitk.Euler3DTransform:
    """Express a transform in the grid's axes (mm from the first voxel) in LPS."""
    axes = geometry.matrix3 / np.array(geometry.spacing)
    moved = axes @ (np.array(transform.TransformPoint((0.0, 0.0, 0.0))))
    rotation = axes @ np.array(transform.GetMatrix()).reshape(3, 3) @ axes.T
    return _rigid(rotation, moved + geometry.origin, geometry.origin)


def _joined(first: sitk.Euler3DTransform, then: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Return the transform that does one after the other, about the second one's center."""
    center = then.GetCenter()
    matrices = [np.array(t.GetMatrix()).reshape(3, 3) for t in (then, first)]
    return _rigid(matrices[0] @ matrices[1], then.TransformPoint(first.TransformPoint(center)), center)


def _rigid(rotation: np.ndarray, image: np.ndarray, center) -> sitk.Euler3DTransform:
    """Return the rigid transform that turns by `rotation` and takes `center` to `image`."""
    # Rounding of products of rotations must not add up to more than SimpleITK's tolerance.
    left, _, right = np.linalg.svd(rotation)
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(c) for c in center])
    transform.SetMatrix((left @ right).ravel().tolist())
    transform.SetTranslation([float(a - b) for a, b in zip(image, center)])
    return transform


def _method(images: list[sitk.Image], transform: sitk.Transform) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    if min(images[0].GetSize()) < 4:  # ITK's gradient filter needs four voxels along each axis
        method.MetricUseFixedImageGradientFilterOff()
        method.MetricUseMovingImageGradientFilterOff()
    return method


def _similarity(images: list[sitk.Image], transform: sitk.Transform) -> float:
    """Return the mutual information (nats, larger is better) of all voxels."""
    method = _method(images, sitk.Euler3DTransform(transform))
    method.MetricUseMovingImageGradientFilterOff()  # no gradient is asked for
    return -method.MetricEvaluate(*images)


def _reached(images: list[sitk.Image], transform: sitk.Euler3DTransform, body: Image) -> float:
    """Return the mutual information of a believable transform; of another, and without an overlap, less than any."""
    with suppress(RuntimeError):
        return _similarity(images, transform) if _motion(transform, body)["displacement"] <= _FARTHEST else -np.inf
    return -np.inf


def _descend(images: list[sitk.Image], transform: sitk.Euler3DTransform, step: float, voxels: int,
             weights: tuple[float, ...] = ()) -> None:
    """Improve a transform in place by gradient descent on samples of the voxels; `step` is its first one, in mm."""
    method = _method(images, transform)
    if weights:
        method.SetOptimizerWeights(weights)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, _SAMPLES / voxels), _SEED)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=step, minStep=1e-3, numberOfIterations=40,
                                                    gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    with suppress(RuntimeError):  # it has left the image
        method.Execute(*images)


def _edges(image: Image, sigma: float) -> sitk.Image:
    """Return edge strength between 0 and 1: gradient magnitude over itself plus its 80 % quantile.

    Edges stay where they are while tissues decay at their own rates; registering intensities themselves drifts with
    echo time even where nothing moved (figures in ``Docs/method/alignment.md``). Across slices thicker than 3 mm a
    gradient is no edge, so it is taken in the plane alone.
    """
    array = np.nan_to_num(image.array, posinf=0, neginf=0).astype(np.float64)
    array = np.minimum(array, np.quantile(array, 0.999))
    power = np.zeros_like(array)
    for axis, spacing in enumerate(image.geometry.spacing[::-1]):
        if not _thick(image.geometry.spacing, 2 - axis):
            slope = scipy.ndimage.gaussian_filter1d(array, max(sigma / spacing, 0.5), axis=axis, order=1)
            power += (slope / spacing) ** 2
    strength = np.sqrt(power)
    noise = np.quantile(strength, 0.8) or 1.0
    return image.like((strength / (strength + noise)).astype(np.float32)).to_sitk()


def _points(body: Image) -> np.ndarray:
    return voxel_points(body.array, body.geometry)


def _motion(transform: sitk.Euler3DTransform, body: Image) -> dict[str, float]:
    """Summarize a transform: center's shift, rotation angle, RMS displacement of the body's voxels."""
    points = _points(body)
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    moved = (points - center) @ matrix.T + center + np.array(transform.GetTranslation()) - points
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))
    left, posterior, cranial = moved.mean(axis=0)
    in_voxels = moved @ np.linalg.inv(body.geometry.matrix3).T
    return {"shift_left": float(left), "shift_posterior": float(posterior), "shift_cranial": float(cranial),
            "rotation": float(angle), "displacement": float(np.sqrt((moved ** 2).sum(axis=1).mean())),
            "displacement_voxels": float(np.sqrt((in_voxels ** 2).mean(axis=0)).max())}


def _resampled(image: Image, transform: sitk.Transform) -> np.ndarray:
    """Return an echo on the grid of the first; NaN where it was not imaged or its own voxels are missing."""
    finite = np.isfinite(image.array)
    source = image.like(np.where(finite, image.array, 0).astype(np.float32)).to_sitk()
    values = sitk.Resample(source, source, transform, sitk.sitkBSpline, float("nan"), sitk.sitkFloat32)
    # A voxel that borrows from a missing one is missing.
    missing = image.like((~finite).astype(np.float32)).to_sitk()
    share = sitk.GetArrayFromImage(sitk.Resample(missing, missing, transform, sitk.sitkLinear, 1.0))
    return np.where(share > 1e-6, np.nan, sitk.GetArrayFromImage(values))
