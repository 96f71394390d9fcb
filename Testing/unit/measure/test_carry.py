"""Carrying labels to an echo series: known movements are found again, wrong pairs are refused."""

import numpy as np
import pytest
import SimpleITK as sitk
from support import shared_data
from support.spine_phantom import spine, t2w

from DiscRelaxometryLib.errors import Cancelled, GeometryError, RegistrationError, SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.measure import carry
from DiscRelaxometryLib.measure.carry import carry_labels, disc_points
from DiscRelaxometryLib.measure.resample_labels import apply_transform, resample_labels


def movement(points, shift, degrees):
    transform = sitk.Euler3DTransform()
    transform.SetCenter(points.mean(0).tolist())
    transform.SetRotation(*np.radians(degrees).tolist())
    transform.SetTranslation([float(s) for s in shift])
    return transform


def echo_of(anatomical, forward, spacing, noise=0.04, seed=0):
    """Simulate an echo image: the person moved, other contrast (not monotone), thick slices, Rician noise."""
    signal = anatomical.array / np.percentile(anatomical.array, 99)
    signal = np.interp(signal, [0, 0.1, 0.25, 0.4, 0.8, 1.2], [0.05, 0.5, 0.8, 0.6, 0.4, 0.2])
    geometry = anatomical.geometry
    size = [max(1, int(n * s / t)) for n, s, t in zip(geometry.size, geometry.spacing, spacing)]
    center = geometry.index_to_world((np.array(geometry.size) - 1) / 2)
    axes = np.array(geometry.direction).reshape(3, 3)
    origin = center - axes @ (np.array(spacing) * (np.array(size) - 1) / 2)
    target = Geometry(size, spacing, origin, geometry.direction)
    image = sitk.Resample(anatomical.like(signal.astype(np.float32)).to_sitk(), target.to_sitk(), forward.GetInverse(),
                          sitk.sitkLinear, 0.05)
    array = sitk.GetArrayFromImage(image)
    rng = np.random.default_rng(seed)
    array = np.hypot(array + noise * rng.standard_normal(array.shape), noise * rng.standard_normal(array.shape))
    return Image(array.astype(np.float32), target)


@pytest.fixture(scope="module")
def person():
    classes, truth = spine(levels=3)
    return t2w(classes), truth


def test_known_movement_is_found(person):
    anatomical, labels = person
    points = disc_points(labels)
    forward = movement(points, (2.0, -3.0, 4.0), (2.0, -1.0, 3.0))
    result = carry_labels(labels, anatomical, echo_of(anatomical, forward, (4.0, 1.2, 1.2)))
    moved = apply_transform(result.transform.GetInverse(), points)
    error = np.linalg.norm(moved - apply_transform(forward, points), axis=1)
    assert error.max() < 0.5
    report = result.report
    assert report.registered and report.mutual_information > report.mutual_information_header
    assert report.repeat_mm < 2 and report.rotation_deg == pytest.approx(3.7, abs=0.5)
    assert report.translation_mm == pytest.approx(np.sqrt(29), abs=0.3)
    assert any("moved by up to" in f for f in report.flags)
    for before, after in report.volumes.values():
        assert after == pytest.approx(before, rel=0.08)


def test_movement_is_found_in_a_single_slice(person):
    anatomical, labels = person
    points = disc_points(labels)
    forward = movement(points, (0.0, -2.0, 3.0), (1.0, 0.0, 0.0))
    echo = echo_of(anatomical, forward, (4.0, 1.2, 1.2))
    middle = echo.array.shape[2] // 2
    geometry = echo.geometry
    single = Geometry((1, *geometry.size[1:]), geometry.spacing, geometry.index_to_world((middle, 0, 0)),
                      geometry.direction)
    result = carry_labels(labels, anatomical, Image(echo.array[:, :, middle:middle + 1], single))
    moved = apply_transform(result.transform.GetInverse(), points) - apply_transform(forward, points)
    assert np.abs(moved.mean(0)[1:]).max() < 0.5
    assert set(np.unique(result.labels.array)) >= {11, 12, 13}
    assert any("outside the echo image" in f for f in result.report.flags)


def test_no_movement_moves_nothing_and_is_reproducible(person):
    anatomical, labels = person
    points = disc_points(labels)
    echo = echo_of(anatomical, movement(points, (0, 0, 0), (0, 0, 0)), (4.0, 1.2, 1.2))
    first, second = (carry_labels(labels, anatomical, echo) for _ in range(2))
    assert np.linalg.norm(apply_transform(first.transform, points) - points, axis=1).max() < 0.5
    assert first.transform.GetParameters() == second.transform.GetParameters()
    assert np.array_equal(first.labels.array, second.labels.array)


def test_header_alone(person):
    anatomical, labels = person
    result = carry_labels(labels, anatomical, anatomical, register=False)
    assert not result.report.registered
    assert np.array_equal(result.labels.array, labels.array)


def test_unbelievable_movement_keeps_the_header(person):
    anatomical, labels = person
    points = disc_points(labels)
    echo = echo_of(anatomical, movement(points, (0, 0, 6.0), (0, 0, 0)), (4.0, 1.5, 1.5))
    result = carry_labels(labels, anatomical, echo, max_shift=3.0, check_repeat=False)
    assert not result.report.registered and "believable" in result.report.reason
    assert any("Look at the labels" in f for f in result.report.flags)
    assert np.allclose(apply_transform(result.transform, points), points)


def test_unrelated_image_keeps_the_header(person):
    anatomical, labels = person
    noise = np.random.default_rng(1).random(anatomical.array.shape).astype(np.float32)
    result = carry_labels(labels, anatomical, anatomical.like(noise), check_repeat=False)
    assert not result.report.registered


def test_other_frame_of_reference_is_refused(person):
    anatomical, labels = person
    geometry = anatomical.geometry
    far = Geometry(geometry.size, geometry.spacing, np.array(geometry.origin) + (0, 400, 0), geometry.direction)
    with pytest.raises(RegistrationError, match="frames of reference"):
        carry_labels(labels, anatomical, Image(anatomical.array, far))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_discs_lie_near_the_echo_image_by_millimeters_along_each_axis(axis):
    """An echo image may be one slice, so that a margin in voxels would be another one along each axis."""
    grid = Geometry((1, 40, 60), (5.0, 1.0, 0.5), (10, -20, 5), (0, 0, 1, 1, 0, 0, 0, 1, 0))
    last = np.zeros(3)
    last[axis] = grid.size[axis] - 0.5
    way = grid.matrix3[:, axis] / grid.spacing[axis]
    edge = grid.index_to_world(last)
    carry._require_overlap((edge + 14.9 * way)[None], grid, 15.0)
    with pytest.raises(RegistrationError, match="frames of reference"):
        carry._require_overlap((edge + 15.1 * way)[None], grid, 15.0)


def test_bad_input(person):
    anatomical, labels = person
    with pytest.raises(RegistrationError, match="no signal"):
        carry_labels(labels, anatomical, anatomical.like(np.zeros_like(anatomical.array)))
    with pytest.raises(SegmentationError, match="no disc"):
        carry_labels(labels.like(np.zeros_like(labels.array)), anatomical, anatomical)
    other = Geometry(labels.geometry.size, labels.geometry.spacing, (5, 0, 0), labels.geometry.direction)
    with pytest.raises(GeometryError, match="different grids"):
        carry_labels(Image(labels.array, other), anatomical, anatomical)

    def cancel(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        carry_labels(labels, anatomical, anatomical, progressCallback=cancel)


def sphere(spacing, direction, radius=14.0):
    """Return a label image of a ball centered in its grid."""
    size = [int(np.ceil(50 / s)) for s in spacing]
    geometry = Geometry(size, spacing, (0, 0, 0), direction)
    center = geometry.index_to_world((np.array(size) - 1) / 2)
    geometry = Geometry(size, spacing, -center, direction)
    k, j, i = np.meshgrid(*[np.arange(n) for n in size[::-1]], indexing="ij")
    points = geometry.index_to_world(np.stack([i, j, k], axis=-1))
    return Image(np.where(np.linalg.norm(points, axis=-1) <= radius, 11, 0).astype(np.uint8), geometry)


TILTED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


@pytest.mark.parametrize("source, target", [((1, 1, 1), (4, 0.9, 0.9)), ((4.4, 0.9, 0.9), (1, 1, 1)),
                                             ((1, 1, 1), (3, 3, 3)), ((3, 0.7, 0.7), (4, 0.9, 0.9))])
def test_shape_survives_another_grid(source, target):
    ball = sphere(source, (1, 0, 0, 0, 1, 0, 0, 0, 1))
    truth = sphere(target, TILTED)
    carried, coverage = resample_labels(ball, truth.geometry)
    volume = np.count_nonzero(carried.array) * truth.geometry.voxel_volume
    assert volume == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.06)
    both = np.count_nonzero((carried.array > 0) & (truth.array > 0))
    shape_dice = 2 * both / (np.count_nonzero(carried.array) + np.count_nonzero(truth.array))
    nearest = sitk.GetArrayFromImage(sitk.Resample(ball.to_sitk(), truth.geometry.to_sitk(), sitk.Transform(3, 1),
                                                   sitk.sitkNearestNeighbor, 0)) > 0
    nearest_dice = 2 * np.count_nonzero(nearest & (truth.array > 0)) / (nearest.sum() + np.count_nonzero(truth.array))
    assert shape_dice >= nearest_dice - 0.002
    soft = float(coverage.array.sum()) * truth.geometry.voxel_volume
    assert soft == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.12)


def test_same_grid_changes_nothing():
    _, truth = spine(levels=3)
    carried, _ = resample_labels(truth, truth.geometry)
    assert np.array_equal(carried.array, truth.array)


@pytest.mark.shared_data
@pytest.mark.parametrize("person, shift", [("ivd_t2w/sub-20", (2.0, -3.0, 4.0)), ("ivd_t2w/sub-42", (-3.0, 5.0, -6.0))])
def test_known_movement_of_real_people(person, shift):
    anatomical = read_image(shared_data(f"{person}_T2w.nii.gz"))
    labels = read_image(shared_data(f"{person}_dseg.nii.gz"))
    labels = labels.like(np.where(labels.array > 0, labels.array + 10, 0).astype(np.uint8))
    points = disc_points(labels)
    forward = movement(points, shift, (2.0, -1.0, 3.0))
    result = carry_labels(labels, anatomical, echo_of(anatomical, forward, (4.0, 0.9, 0.9)), check_repeat=False)
    moved = apply_transform(result.transform.GetInverse(), points)
    assert np.linalg.norm(moved - apply_transform(forward, points), axis=1).max() < 0.5


@pytest.mark.parametrize("shift", [(0.0, 0.0, 50.0), (0.0, 0.0, -50.0)])
def test_the_share_inside_the_echo_image_is_of_the_discs_where_the_person_moved(person, monkeypatch, shift):
    """The transform goes from echo to anatomy: a disc is seen if its place less the shift is in the image."""
    anatomical, labels = person
    lowest = labels.like(np.where(labels.array == 11, 11, 0))
    monkeypatch.setattr(carry, "_checked_registration", lambda *given: sitk.TranslationTransform(3, shift))
    index = anatomical.geometry.world_to_index(disc_points(lowest) - shift)
    expected = np.mean(np.all((index >= -0.5) & (index <= np.array(anatomical.geometry.size) - 0.5), axis=1))
    found = carry_labels(lowest, anatomical, anatomical)
    assert found.report.overlap == pytest.approx(expected)
    assert any("lies outside" in f for f in found.report.flags) == (expected < 0.95)
