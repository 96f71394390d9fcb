"""Alignment: a known motion is found and undone, still series stay bit-identical."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage
import SimpleITK as sitk

from DiscRelaxometryLib.echo import align
from DiscRelaxometryLib.echo.align import _joined, _motion, _resampled, align_echoes
from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.errors import DiscRelaxometryError, RegistrationError
from DiscRelaxometryLib.image import Geometry, Image

TSL = (0.0, 10.0, 40.0, 80.0)
DIRECTION = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
SIZE, SPACING = (64, 80, 10), (1.5, 1.5, 4.0)
GEOMETRY = Geometry(SIZE, SPACING, tuple(-(DIRECTION * SPACING) @ ((np.array(SIZE) - 1) / 2)),
                    tuple(DIRECTION.ravel()))
TRUE = sitk.Euler3DTransform((0.0, 0.0, 0.0), 0.04, 0.0, 0.02, (1.0, -3.0, 2.5))


def tissue(points: np.ndarray) -> list[tuple[np.ndarray, float, float]]:
    """Return membership, M0 and T1rho (ms) of a spine: body fat, muscle, vertebrae, discs, canal."""
    x, y, z = points.T
    parts = [((x / 60) ** 2 + (y / 42) ** 2 < 1, 60, 50.0), ((x / 50) ** 2 + ((y - 24) / 14) ** 2 < 1, 90, 40.0)]
    for level in range(-2, 3):
        parts.append((((x / 24) ** 2 + (y / 17) ** 2 < 1) & (np.abs(z - 28 * level) < 9), 110, 60.0))
        parts.append((((x / 24) ** 2 + (y / 17) ** 2 < 1) & (np.abs(z - 28 * level - 14) < 4), 140, 110.0))
    parts.append(((x / 9) ** 2 + ((y - 26) / 7) ** 2 < 1, 200, 300.0))
    return parts


def phantom(moved: tuple[int, ...] = (), noise: float = 2.0, seed: int = 0) -> EchoSeries:
    """Return a noisy decaying spine, drawn analytically, so that its motion is exact."""
    rng = np.random.default_rng(seed)
    # Four points a voxel along each in-plane axis, averaged, make partial volume.
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij"), axis=-1).reshape(-1, 3)
    matrix, shift = np.array(TRUE.GetMatrix()).reshape(3, 3), np.array(TRUE.GetTranslation())
    echoes = []
    for n, t in enumerate(TSL):
        total = np.zeros(len(index))
        for offset in ((-0.25, -0.25, 0), (0.25, -0.25, 0), (-0.25, 0.25, 0), (0.25, 0.25, 0)):
            points = GEOMETRY.index_to_world(index + offset)
            signal = np.zeros(len(points))
            for inside, m0, t1rho in tissue((points - shift) @ matrix if n in moved else points):
                signal[inside] = m0 * np.exp(-t / t1rho)
            total += signal / 4
        volume = total.reshape(SIZE).T
        echoes.append(np.hypot(volume + rng.normal(0, noise, volume.shape), rng.normal(0, noise, volume.shape)))
    return EchoSeries(np.array(echoes), TSL, "T1rho", GEOMETRY)


def remaining(transform: sitk.Transform) -> float:
    points = np.random.default_rng(1).uniform(-30, 30, (50, 3))
    gaps = [np.subtract(transform.TransformPoint(p), TRUE.TransformPoint(p)) for p in points.tolist()]
    return float(np.linalg.norm(gaps, axis=1).mean())


@pytest.fixture(scope="module")
def still():
    return phantom()


@pytest.fixture(scope="module")
def moving():
    series = phantom(moved=(2,))
    return series, align_echoes(series)


def test_still_series_stays_bit_identical(still):
    result = align_echoes(still)
    assert result.series.echoes is still.echoes or np.array_equal(result.series.echoes, still.echoes)
    assert not any(result.motion["aligned"])
    assert max(result.motion["displacement_voxels"]) < 0.3
    assert any("nothing resampled" in note for note in result.series.notes)


def test_known_motion_is_found_and_undone(moving, still):
    series, result = moving
    assert result.motion["aligned"] == [False, False, True, False]
    before = remaining(sitk.Euler3DTransform())
    assert remaining(result.transforms[2]) < 0.25 * before
    for n in (0, 1, 3):
        np.testing.assert_array_equal(result.series.echoes[n], series.echoes[n])
    inner = np.s_[3:7, 15:65, 12:52]
    error = [np.nanmean(np.abs(s.echoes[2][inner] - still.echoes[2][inner])) for s in (series, result.series)]
    assert error[1] < 0.6 * error[0]
    row = result.motion.rows[2]
    assert abs(row["rotation"] - np.degrees(np.hypot(0.04, 0.02))) < 0.6


def test_result_does_not_depend_on_threads(moving):
    series, result = moving
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    try:
        again = align_echoes(series)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(again.series.echoes, result.series.echoes)


def test_not_imaged_is_nan_and_nan_stays_nan(moving, still):
    _, result = moving
    echo = result.series.echoes[2]
    assert 0 < np.mean(np.isnan(echo)) < 0.35
    holes = still.echoes.copy()
    holes[3, 5, 40, 32] = np.nan
    assert np.isnan(align_echoes(replace(still, echoes=holes)).series.echoes[3, 5, 40, 32])


def test_off_and_bad_settings(still):
    assert align_echoes(still, "off").series is still
    with pytest.raises(DiscRelaxometryError, match="unknown"):
        align_echoes(still, "sometimes")
    flat = EchoSeries(np.ones((2, 1, 8, 8)), (1, 2), "T2", Geometry((8, 8, 1)))
    with pytest.raises(RegistrationError, match="1 slice"):
        align_echoes(flat, "on")
    assert any("not estimated" in note for note in align_echoes(flat, "auto").series.notes)


def test_who_stays_moved_is_found_in_every_later_echo():
    # Each echo is registered to the one before: the steps after the first must join to the whole motion.
    result = align_echoes(phantom(moved=(1, 2, 3)))
    before = remaining(sitk.Euler3DTransform())
    assert [remaining(t) < 0.25 * before for t in result.transforms] == [False, True, True, True]
    assert result.motion["aligned"] == [False, True, True, True]


def test_motions_join_in_the_order_in_which_they_happened():
    first, then = sitk.Euler3DTransform((4.0, -7.0, 2.0), 0.5, 0.1, -0.2, (3.0, -5.0, 9.0)), sitk.Euler3DTransform(
        (-20.0, 5.0, 11.0), -0.1, 0.6, 0.3, (-1.0, 6.0, 2.0))
    for point in ((0.0, 0.0, 0.0), (30.0, -20.0, 50.0), (-15.0, 40.0, 5.0)):
        np.testing.assert_allclose(_joined(first, then).TransformPoint(point),
                                   then.TransformPoint(first.TransformPoint(point)), atol=1e-9)


def test_shifts_are_to_the_left_to_the_back_and_up_and_voxels_those_of_the_worst_axis():
    body = Image(np.ones((4, 5, 6), bool), Geometry((6, 5, 4), (2.0, 4.0, 1.0), direction=(0, 0, 1, -1, 0, 0, 0, 1, 0)))
    moved = sitk.Euler3DTransform()
    moved.SetTranslation((1.0, -2.0, 3.0))
    found = _motion(moved, body)
    assert [found[f"shift_{way}"] for way in ("left", "posterior", "cranial")] == pytest.approx([1.0, -2.0, 3.0])
    assert found["displacement"] == pytest.approx(np.sqrt(14)) and found["rotation"] == pytest.approx(0)
    # i runs to the front (2 mm), j upward (4 mm), k to the left (1 mm): 1, 0.75 and 1 voxels.
    assert found["displacement_voxels"] == pytest.approx(1.0)
    moved.SetTranslation((0.5, 0.0, 6.0))
    assert _motion(moved, body)["displacement_voxels"] == pytest.approx(1.5)


def test_each_echo_is_joined_to_the_motion_of_those_before(monkeypatch):
    steps = {n: sitk.Euler3DTransform((4.0, -7.0, 2.0), 0.02 * n, 0.03, -0.02, (1.0, -n, 2.0)) for n in (1, 2, 3)}
    monkeypatch.setattr(align, "_register", lambda series, n, body: steps[n])
    found = align_echoes(phantom(), "on").transforms
    point = place = (30.0, -20.0, 50.0)
    for n in (1, 2, 3):
        place = steps[n].TransformPoint(place)
        np.testing.assert_allclose(found[n].TransformPoint(point), place, atol=1e-6)


def test_a_voxel_that_borrows_from_a_missing_one_is_missing():
    array = np.random.default_rng(1).uniform(50, 90, (4, 5, 8)).astype(np.float32)
    array[2, 2, 4] = np.nan
    move = sitk.Euler3DTransform()
    move.SetTranslation((0.3 * 2.0, 0.0, 0.0))  # of a voxel
    found = _resampled(Image(array, Geometry((8, 5, 4), (2.0, 1.0, 1.0))), move)
    k, j, i = np.indices((1, 1, 7))
    spline = scipy.ndimage.map_coordinates(np.nan_to_num(array).astype(float), (k, j, i + 0.3), order=3, mode="mirror")
    np.testing.assert_allclose(found[:1, :1, :7], spline, rtol=1e-5)
    missing = np.zeros(array.shape, bool)
    missing[2, 2, 3:5] = True  # and the last, which lies within half a voxel of the edge, has its value
    np.testing.assert_array_equal(np.isnan(found), missing)


@pytest.mark.parametrize("seed", [0, 1])
def test_images_without_structure_are_not_moved_out_of_the_field_of_view(seed):
    """A bottle that fills the image, or noise: the best match may be anywhere, and the maps still have to be made."""
    rng, times = np.random.default_rng(seed), np.array([0.0, 40, 80])
    echoes = 1000 * np.exp(-times / 60)[:, None, None, None] + rng.normal(0, 5, (3, 12, 12, 12))
    found = align_echoes(EchoSeries(echoes.astype(np.float32), times, "T1rho", Geometry((12,) * 3, (4.0,) * 3)))
    assert all(row["displacement"] <= 15 * row["echo"] for row in found.motion.rows)
    assert np.isfinite(found.series.echoes[1:]).mean(axis=(1, 2, 3)).min() > 0.6


def test_a_descent_that_leaves_the_image_counts_for_nothing_and_an_empty_echo_is_named(monkeypatch):
    def astray(*arguments):
        raise RuntimeError("All samples map outside moving image buffer")

    echoes = np.random.default_rng(0).uniform(1, 2, (2, 6, 6, 6)).astype(np.float32)
    series = EchoSeries(echoes, [0.0, 40.0], "T1rho", Geometry((6, 6, 6), (4.0, 4.0, 4.0)))
    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", astray)
    assert [row["displacement"] for row in align_echoes(series).motion.rows] == [0, 0]
    monkeypatch.setattr(align, "_similarity", astray)
    with pytest.raises(RegistrationError, match=r"Echo 1 \(40 ms\) cannot be compared"):
        align_echoes(series)
