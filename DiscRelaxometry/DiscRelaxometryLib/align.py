"""Rigid alignment of later echoes to the first one, for motion between spin-lock or echo acquisitions.

Mattes mutual information of edge strength, because contrast changes along the decay; fixed seed and one thread, so
that a result does not depend on the machine. See ``Docs/method/alignment.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from .echo_series import EchoSeries
from .errors import DiscRelaxometryError, RegistrationError
from .image import Image, one_thread
from .progress import ProgressCallback, silent
from .tables import Column, Table

MODES = ("off", "on", "auto")
INTERPOLATORS = {"bspline": sitk.sitkBSpline, "linear": sitk.sitkLinear}
_SAMPLES = 15000
_SEED = 20
_MINIMUM_SLICES = 3
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
    """Result of :func:`align_echoes`.

    Attributes
    ----------
    series : EchoSeries
        Aligned series; echoes that were not resampled are bit-identical to the input.
    motion : Table
        Estimated motion of each echo against the first (empty with mode ``off``).
    transforms : list of sitk.Euler3DTransform
        From points of the first echo to points of each echo, LPS mm.
    """

    series: EchoSeries
    motion: Table
    transforms: list[sitk.Euler3DTransform]


def align_echoes(series: EchoSeries, mode: str = "auto", threshold_voxels: float = 0.3, interpolator: str = "bspline",
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
    interpolator : {"bspline", "linear"}
        Cubic B-spline keeps the noise and sharpness of the echo; linear smooths it, and never overshoots.
    progressCallback : callable, optional

    Returns
    -------
    Alignment
        Voxels that an echo did not image after the motion are NaN.

    Raises
    ------
    DiscRelaxometryError
        For an unknown mode or interpolator.
    RegistrationError
        If mode is ``on`` and the series has fewer than 3 slices or no signal to register.
    """
    if mode not in MODES or interpolator not in INTERPOLATORS:
        raise DiscRelaxometryError(f"Alignment mode '{mode}' with '{interpolator}' interpolation is unknown: use off, "
                                   "on or auto, and bspline or linear.")
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
        transform = _register(series, n, body) if n else sitk.Euler3DTransform()
        row = {"echo": n, "time": float(series.times_ms[n]), **_motion(transform, body)}
        row["aligned"] = n > 0 and (mode == "on" or row["displacement_voxels"] > threshold_voxels)
        if row["aligned"]:
            echoes = echoes.copy() if echoes is series.echoes else echoes
            echoes[n] = _resampled(series.echo(n), transform, INTERPOLATORS[interpolator])
        transforms.append(transform)
        rows.append(row)
    moved = [r for r in rows if r["aligned"]]
    worst = max(r["displacement"] for r in rows)
    note = (f"{len(moved)} of {len(series) - 1} later echoes were aligned to the first ({interpolator} interpolation); "
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
    return Image(ndimage.binary_opening(mask, np.ones((1, 3, 3))) if mask.sum() > 1000 else mask, series.geometry)


def _register(series: EchoSeries, n: int, body: Image) -> sitk.Euler3DTransform:
    """Return the rigid transform from the first echo's points to echo `n`'s, or the identity where nothing is better.

    The descent follows samples of the voxels and can go astray where an echo has little signal left; its result counts
    only if the mutual information of all voxels is higher than without any motion.
    """
    finest = max(1.0, min(series.geometry.spacing))
    still = sitk.Euler3DTransform()
    still.SetCenter(_points(body).mean(axis=0).tolist())
    # Smoothing: a millimeter, or two thirds of a voxel where voxels are large.
    edges = {scale: [_edges(series.echo(m), scale * max(1.0, min(series.geometry.spacing) / 1.5)) for m in (0, n)]
             for scale in (2.0, 1.0)}
    try:
        with one_thread():
            base = _similarity(edges[1.0], still)
            for scales, step in (((2.0, 1.0), 0.5), ((1.0,), 0.1)):
                found = sitk.Euler3DTransform(still)
                for scale in scales:
                    _descend(edges[scale], found, step * scale * finest, body.array.size)
                if _similarity(edges[1.0], found) > base:
                    return found
    except RuntimeError as error:
        raise RegistrationError(f"Echo {n} ({series.times_ms[n]:g} ms) can not be aligned to the first: they "
                                "hardly overlap or one is empty. Check the series, or use alignment mode off.",
                                anchor="alignment") from error
    return still


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
    return -_method(images, sitk.Euler3DTransform(transform)).MetricEvaluate(*images)


def _descend(images: list[sitk.Image], transform: sitk.Euler3DTransform, step: float, voxels: int) -> None:
    """Improve a transform in place by gradient descent on samples of the voxels; `step` is its first one, in mm."""
    method = _method(images, transform)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, _SAMPLES / voxels), _SEED)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=step, minStep=1e-3, numberOfIterations=40,
                                                    gradientMagnitudeTolerance=1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
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
        if spacing <= 3 or spacing < 2 * min(image.geometry.spacing):
            power += (ndimage.gaussian_filter1d(array, max(sigma / spacing, 0.5), axis=axis, order=1) / spacing) ** 2
    strength = np.sqrt(power)
    noise = np.quantile(strength, 0.8) or 1.0
    return image.like((strength / (strength + noise)).astype(np.float32)).to_sitk()


def _points(body: Image) -> np.ndarray:
    return body.geometry.index_to_world(np.argwhere(body.array)[:, ::-1])


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


def _resampled(image: Image, transform: sitk.Transform, interpolator: int) -> np.ndarray:
    """Return an echo on the grid of the first; NaN where it was not imaged or its own voxels are missing."""
    finite = np.isfinite(image.array)
    source = image.like(np.where(finite, image.array, 0).astype(np.float32)).to_sitk()
    values = sitk.Resample(source, source, transform, interpolator, float("nan"), sitk.sitkFloat32)
    # A voxel that borrows from a missing one is missing.
    missing = image.like((~finite).astype(np.float32)).to_sitk()
    share = sitk.GetArrayFromImage(sitk.Resample(missing, missing, transform, sitk.sitkLinear, 1.0))
    return np.where(share > 1e-6, np.nan, sitk.GetArrayFromImage(values))
