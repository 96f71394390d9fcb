"""Carry labels from the anatomical volume to the grid of an echo series: rigid registration, checked, then resampling.

The header is the start. Mattes mutual information between the two images is maximized inside a region around the
labels, and the result is kept only if it is better than the header and a small movement; otherwise the header's
position stays, and the report says so. Labels are resampled by their signed distances, averaged over each target
voxel, so that thick slices and fine grids both keep a disc's volume and shape.
"""

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..errors import RegistrationError, SegmentationError
from ..image import Geometry, Image, one_thread, require_same_geometry, resample
from ..labels import BY_VALUE, DISC, whole_labels
from ..progress import ProgressCallback, silent
from .resample_labels import apply_transform, resample_labels

REGION = 12.0  # mm around the labels that take part in the registration
GRIDS = (4.0, 2.0)  # mm, finest voxels of the two steps of the registration
LEAST_NEAR = 0.3  # share of the discs in or near the echo image below which headers do not fit each other
COMPLETE = 0.95
LEAST_INFORMATION = 0.05  # nats; unrelated images stay below, real pairs of one person reach several times this


@dataclass
class CarryReport:
    """How the labels came to the echo image."""

    #: True if the registration moved the labels; False if the header's position was kept.
    registered: bool
    #: Why.
    reason: str
    #: Mattes mutual information before and after, in the region around the labels.
    mutual_information_header: float = float("nan")
    mutual_information: float = float("nan")
    #: Largest movement of a disc voxel relative to the header.
    displacement_mm: float = 0.0
    #: Movement of the discs' center.
    translation_mm: float = 0.0
    rotation_deg: float = 0.0
    #: Share of the discs' volume inside the echo image.
    overlap: float = float("nan")
    #: Disagreement at the discs between two runs from different starts; NaN if not asked for.
    repeat_mm: float = float("nan")
    #: Label value -> (mm3 before, mm3 after).
    volumes: dict[int, tuple[float, float]] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass
class CarryResult:
    """Labels on the echo image's grid."""

    #: uint8.
    labels: Image
    #: float32. Share of each voxel that its label fills (partial volume); 0 outside.
    coverage: Image
    #: Maps LPS points of the echo image to LPS points of the anatomical volume.
    transform: sitk.Transform
    report: CarryReport


def carry_labels(labels: Image, anatomical: Image, echo_image: Image, register: bool = True, max_shift: float = 15.0,
                 max_rotation: float = 10.0, check_repeat: bool = True,
                 progressCallback: ProgressCallback | None = None) -> CarryResult:
    """Register an anatomical volume to an echo image and carry its labels there.

    Parameters
    ----------
    labels : Image
        Project labels on the grid of `anatomical`.
    anatomical : Image
        The volume that was segmented.
    echo_image : Image
        One image of the echo series (the first echo has the most signal).
    register : bool
        False takes the header's position as it is.
    max_shift : float
        Largest believable movement of a disc between the two scans, mm.
    max_rotation : float
        Degrees.
    check_repeat : bool
        Run again from a start 3 mm away and report the disagreement.

    Raises
    ------
    GeometryError
        If labels and anatomical volume are on different grids.
    SegmentationError
        If there are no discs.
    RegistrationError
        If the two images lie in clearly different places, or one holds no signal.
    """
    progress, labels = progressCallback or silent, whole_labels(labels)
    require_same_geometry(labels, anatomical, "The labels and the anatomical image")
    points = disc_points(labels)
    _require_overlap(points, echo_image.geometry, max_shift)
    _require_signal(anatomical, "anatomical image")
    _require_signal(echo_image, "echo image")
    report = CarryReport(False, "the header's position was taken, as asked")
    transform: sitk.Transform = sitk.Euler3DTransform()
    if register:
        progress(0.05, "Registering the anatomical image to the echo image")
        transform = _checked_registration(labels, anatomical, echo_image, points, max_shift, max_rotation,
                                          check_repeat, report, progress)
    report.overlap = inside_share(points, echo_image.geometry, transform.GetInverse())
    if report.overlap < COMPLETE:
        report.flags.append(f"{100 * (1 - report.overlap):.0f} % of the discs' volume lies outside the echo image: "
                            "volumes and means describe the part inside.")
    progress(0.8, "Carrying the labels")
    carried, coverage = resample_labels(labels, echo_image.geometry, transform)
    report.volumes = _volumes(labels, carried)
    for value, (_, after) in report.volumes.items():
        if after == 0:
            report.flags.append(f"{BY_VALUE[value].name} is lost: outside the echo image, or thinner than its voxels.")
    progress(1.0, "Labels carried")
    return CarryResult(carried, coverage, transform, report)


def disc_points(labels: Image, most: int = 20000) -> np.ndarray:
    """Return LPS positions (n, 3) of disc voxels, evenly thinned to at most `most`."""
    values = [int(v) for v in np.unique(labels.array)
              if int(v) in BY_VALUE and (BY_VALUE[int(v)].kind == "disc" or int(v) == DISC.value)]
    index = np.argwhere(np.isin(labels.array, values))
    if not len(index):
        raise SegmentationError("The labels hold no disc to carry to the echo series.", anchor="carry-labels")
    step = max(1, len(index) // most)
    return labels.geometry.index_to_world(index[::step, ::-1])


def inside_share(points: np.ndarray, geometry: Geometry, transform: sitk.Transform) -> float:
    """Return the share of points that a transform puts inside a grid."""
    moved = apply_transform(transform, points)
    index = geometry.world_to_index(moved)
    return float(np.mean(np.all((index >= -0.5) & (index <= np.array(geometry.size) - 0.5), axis=1)))


def _require_overlap(points: np.ndarray, geometry: Geometry, margin: float) -> None:
    """Raise unless the discs lie in the echo image or within `margin` mm of it (it may be a single slice)."""
    index = geometry.world_to_index(points)
    reach = margin / np.array(geometry.spacing) + 0.5
    near = float(np.mean(np.all((index >= -reach) & (index <= np.array(geometry.size) - 1 + reach), axis=1)))
    if near >= LEAST_NEAR:
        return
    center = geometry.index_to_world((np.array(geometry.size) - 1) / 2)
    gap = np.linalg.norm(points.mean(0) - center)
    raise RegistrationError(
        f"Only {100 * near:.0f} % of the discs lie in or near the echo image ({gap:.0f} mm between the discs' center "
        "and the image's center): the two scans have different frames of reference, or belong to different people. "
        "Load both from one examination, or segment the echo series directly.", anchor="carry-labels")


def _require_signal(image: Image, name: str) -> None:
    values = image.array[np.isfinite(image.array)] if image.array.dtype.kind == "f" else image.array
    if values.size == 0 or values.max() == values.min():
        raise RegistrationError(f"The {name} holds no signal (all values are equal): choose another echo.",
                                anchor="carry-labels")


def _checked_registration(labels, anatomical, echo_image, points, max_shift, max_rotation, check_repeat, report,
                          progress) -> sitk.Transform:
    """Return the registration (echo to anatomical points) if it passes the checks, else the identity."""
    levels = [_images(labels, anatomical, echo_image, grid) for grid in GRIDS]
    center = points.mean(0)
    start = _euler(center, (0, 0, 0))
    found = _register(levels, start)
    progress(0.4, "Checking the registration")
    report.mutual_information_header = mutual_information(*levels[-1], start)
    report.mutual_information = mutual_information(*levels[-1], found)
    moved = apply_transform(found.GetInverse(), points) - points
    shift = float(np.linalg.norm(moved, axis=1).max())
    rotation = float(np.degrees(Rotation.from_matrix(np.reshape(found.GetMatrix(), (3, 3))).magnitude()))
    if check_repeat:
        # The coarse step alone: a start that leads elsewhere does so there.
        again = _register(levels[:1], _euler(center, (1.0, -2.0, 2.0)))
        other = apply_transform(again.GetInverse(), points) - points
        report.repeat_mm = float(np.linalg.norm(other - moved, axis=1).max())
        if report.repeat_mm > 2.0:
            report.flags.append(f"Two registrations from different starts disagree by {report.repeat_mm:.1f} mm: look "
                                "at the labels on the echo image.")
    if report.mutual_information <= report.mutual_information_header:
        report.reason = "the header's position was kept: no better match was found"
        return sitk.Euler3DTransform()
    if report.mutual_information < LEAST_INFORMATION:
        report.reason = "the header's position was kept: the two images have hardly anything in common"
        report.flags.append(report.reason[0].upper() + report.reason[1:] + ". Look at the labels on the echo image.")
        return sitk.Euler3DTransform()
    if shift > max_shift or rotation > max_rotation:
        report.reason = (f"the header's position was kept: the registration would move the discs by {shift:.1f} mm and "
                         f"{rotation:.1f} degrees, more than believable ({max_shift:g} mm, {max_rotation:g} degrees)")
        report.flags.append(report.reason[0].upper() + report.reason[1:] + ". Look at the labels on the echo image.")
        return sitk.Euler3DTransform()
    report.registered, report.reason = True, "the registration improves the match with a small movement"
    report.displacement_mm, report.rotation_deg = shift, rotation
    report.translation_mm = float(np.linalg.norm(moved.mean(0)))
    if shift > 5:
        report.flags.append(f"The discs moved by up to {shift:.1f} mm between the scans: look at the labels on the "
                            "echo image.")
    return found


def _euler(center: np.ndarray, translation) -> sitk.Euler3DTransform:
    transform = sitk.Euler3DTransform()
    transform.SetCenter([float(c) for c in center])
    transform.SetTranslation([float(t) for t in translation])
    return transform


def _float_image(image: Image) -> sitk.Image:
    """Return a float32 SimpleITK image; voxels that are not finite become the lowest value."""
    array = image.array.astype(np.float32)
    bad = ~np.isfinite(array)
    if bad.any():
        array[bad] = array[~bad].min()
    return Image(array, image.geometry).to_sitk()


def _smoothed(image: sitk.Image, target: np.ndarray) -> sitk.Image:
    """Smooth along the axes whose voxels are finer than `target` (mm a axis), as for a coarser grid."""
    for axis, (old, new) in enumerate(zip(image.GetSpacing(), target)):
        if new > 1.2 * old and image.GetSize()[axis] >= 4:
            image = sitk.RecursiveGaussian(image, 0.4 * float(new), direction=axis)
    return image


def _images(labels: Image, anatomical: Image, echo_image: Image, grid: float
            ) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Return the echo image near the labels, the region in it, and the anatomical image, all at about one resolution.

    The echo image is the fixed one: its thick slices are the samples, so that a single slice suffices.
    """
    region = _region(labels, echo_image.geometry)
    where = np.argwhere(region)
    low, high = where.min(0), where.max(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high))
    geometry = echo_image.geometry
    spacing = np.array(geometry.spacing)
    crop = Geometry((high - low)[::-1], spacing, geometry.index_to_world(low[::-1]), geometry.direction)
    coarse = np.maximum(spacing, grid)
    size = np.maximum(1, np.ceil(np.array(crop.size) * spacing / coarse)).astype(int)
    reference = Geometry(size, coarse, crop.origin, crop.direction).to_sitk()
    identity = sitk.Transform(3, sitk.sitkIdentity)
    echo = _smoothed(_float_image(Image(echo_image.array[box], crop)), coarse)
    fixed = sitk.Resample(echo, reference, identity, sitk.sitkLinear)
    mask = sitk.Resample(Image(region[box].astype(np.uint8), crop).to_sitk(), reference, identity,
                         sitk.sitkNearestNeighbor)
    # The echo's voxel, seen along each axis of the anatomical image.
    axes = np.array(geometry.direction).reshape(3, 3)
    seen = np.abs(np.array(anatomical.geometry.direction).reshape(3, 3).T @ axes) @ coarse
    return fixed, mask, _smoothed(_float_image(anatomical), seen)


def _region(labels: Image, geometry: Geometry) -> np.ndarray:
    """Return the voxels of a grid within REGION of any label, by the header's position."""
    found = resample(Image((labels.array > 0).astype(np.uint8), labels.geometry), geometry,
                     sitk.sitkNearestNeighbor).array > 0
    if not found.any():
        points = geometry.world_to_index(disc_points(labels))
        index = np.clip(np.round(points).astype(int), 0, np.array(geometry.size) - 1)
        found[tuple(index[:, ::-1].T)] = True
    return ndimage.distance_transform_edt(~found, sampling=geometry.spacing[::-1]) <= REGION


def _metric(mask: sitk.Image) -> sitk.ImageRegistrationMethod:
    """Return Mattes mutual information (32 bins) over all voxels of the mask, on one thread: reproducible."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    return method


def mutual_information(fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    """Return Mattes mutual information (nats, larger is better) of two images under a transform."""
    method = _metric(mask)
    method.MetricUseMovingImageGradientFilterOff()  # no gradient is asked for
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return float("-inf")


def _register(levels, start: sitk.Euler3DTransform) -> sitk.Euler3DTransform:
    """Maximize mutual information over rigid transforms, from coarse to fine."""
    transform = sitk.Euler3DTransform(start)
    for n, (fixed, mask, moving) in enumerate(levels):
        method = _metric(mask)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0 / (1 + 3 * n), minStep=0.01, numberOfIterations=100, relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        try:
            with one_thread():
                method.Execute(fixed, moving)
        except RuntimeError as error:
            raise RegistrationError("The anatomical image and the echo image cannot be registered: too little of the "
                                    "spine lies in both. Segment the echo series directly.",
                                    anchor="carry-labels") from error
        # Digits below any meaning (1e-6 rad, 1e-6 mm) are dropped.
        transform.SetParameters([round(p, 6) for p in transform.GetParameters()])
    return transform


def _volumes(before: Image, after: Image) -> dict[int, tuple[float, float]]:
    """Return label value -> mm3 before and after, for the discs."""
    values = (int(v) for v in np.unique(before.array) if int(v) in BY_VALUE and BY_VALUE[int(v)].kind == "disc")
    return {v: (float(np.count_nonzero(before.array == v)) * before.geometry.voxel_volume,
                float(np.count_nonzero(after.array == v)) * after.geometry.voxel_volume) for v in values}
