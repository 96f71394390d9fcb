"""Fits against known answers, other software's maps, and the Cramer-Rao bound."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.optimize import curve_fit
from support import shared_data
from support.precision import cramer_rao_sd

from DiscRelaxometryLib.echo.read import EchoSeries, read_echo_series
from DiscRelaxometryLib.errors import Cancelled, EchoSeriesError, GeometryError
from DiscRelaxometryLib.fit import FitOptions, fit_arrays, fit_relaxation
from DiscRelaxometryLib.fit.status import FitStatus
from DiscRelaxometryLib.image import Geometry, Image, read_image

MAPSS = (0.0, 10.0, 40.0, 80.0)
KNOWN_TIMES, KNOWN_SIGNAL = (1.0, 10.0, 30.0, 60.0), np.array([[349.0], [208.0], [134.0], [44.0]])


def decay(times, t, m0=1000.0, offset=0.0):
    return m0 * np.exp(-np.multiply.outer(np.asarray(times, float), 1 / np.asarray(t, float))) + offset


def rician(signal, sigma, rng):
    return np.hypot(signal + sigma * rng.standard_normal(signal.shape), sigma * rng.standard_normal(signal.shape))


@pytest.mark.parametrize(("estimator", "t", "m0"), [("nlls", 27.678, 344.654),
                                                    ("loglinear-unweighted", 29.887, 334.795)])
def test_known_answers(estimator, t, m0):
    fit = fit_arrays(KNOWN_SIGNAL, KNOWN_TIMES, FitOptions(estimator=estimator))
    assert fit.value[0] == pytest.approx(t, abs=5e-4)
    assert fit.m0[0] == pytest.approx(m0, abs=6e-4)


def test_least_squares_equals_scipy_with_standard_error():
    rng = np.random.default_rng(1)
    t = rng.uniform(20, 200, 40)
    y = rician(decay(MAPSS, t), 30, rng)
    fit = fit_arrays(y, MAPSS)
    for v in range(t.size):
        best, covariance = curve_fit(lambda x, t, m: m * np.exp(-x / t), MAPSS, y[:, v], (60.0, 1000.0))
        assert fit.value[v] == pytest.approx(best[0], rel=1e-6)
        assert fit.m0[v] == pytest.approx(best[1], rel=1e-6)
        assert fit.se[v] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-4)


def test_offset_model_equals_scipy():
    rng = np.random.default_rng(2)
    times = np.arange(1, 17) * 8.0
    t = rng.uniform(25, 60, 30)
    y = decay(times, t, 800, 120) + 4 * rng.standard_normal((16, 30))
    fit = fit_arrays(y, times, FitOptions(model="mono3", negative_offset=True))
    for v in range(t.size):
        best, covariance = curve_fit(lambda x, t, m, c: m * np.exp(-x / t) + c, times, y[:, v], (40.0, 800.0, 100.0))
        assert fit.value[v] == pytest.approx(best[0], rel=1e-5)
        assert fit.offset[v] == pytest.approx(best[2], rel=1e-4)
        assert fit.se[v] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-3)


def test_negative_offset_is_replaced_by_the_fit_without_offset():
    y = decay(np.arange(1, 9) * 10.0, [40.0, 80.0], 1000, -60)
    free = fit_arrays(y, np.arange(1, 9) * 10.0, FitOptions(model="mono3", negative_offset=True))
    held = fit_arrays(y, np.arange(1, 9) * 10.0, FitOptions(model="mono3"))
    two = fit_arrays(y, np.arange(1, 9) * 10.0)
    assert np.allclose(free.offset, -60, rtol=1e-6)
    assert np.all(held.offset == 0)
    assert np.allclose(held.value, two.value, rtol=1e-9)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
@pytest.mark.parametrize("model", ["mono2", "mono3"])
@pytest.mark.parametrize("times", [MAPSS, (0, 2, 4, 8, 12, 20, 40, 80), (0, 13.7, 27.3, 54.7),
                                   tuple(range(10, 90, 10))])
def test_noise_free_decay_returns(times, model, kind):
    t = np.linspace(10, 300, 500)
    offset = 50.0 if model == "mono3" else 0.0
    y = decay(times, t, offset=offset).astype(kind)
    fit = fit_arrays(y, times, FitOptions(model=model))
    assert np.all(fit.status == FitStatus.OK)
    if kind == np.float64:
        assert np.allclose(fit.value, t, rtol=1e-6 if model == "mono3" else 1e-9)
    else:
        # Rounding of a float32 signal, passed on by the model's own error propagation; never beyond 1e-6 for mono2.
        rounding = np.finfo(np.float32).eps / 4 * y.max()
        allowed = np.maximum(1e-6 * t, 6 * cramer_rao_sd(t, times, y.max() / rounding, model))
        assert np.all(np.abs(fit.value - t) < allowed)


@pytest.mark.parametrize("times", [MAPSS, (0, 13.7, 27.3, 54.7), tuple(range(10, 90, 10))])
@pytest.mark.parametrize("snr", [50, 100])
def test_error_meets_the_cramer_rao_bound(snr, times):
    rng = np.random.default_rng(3)
    t = np.repeat(np.arange(20, 201, 10.0), 4000)
    bound = cramer_rao_sd(t, times, snr)
    fit = fit_arrays(rician(decay(times, t), 1000 / snr, rng), times)
    assert np.all(fit.status == FitStatus.OK)
    ratio = np.sqrt(np.mean(((fit.value - t) / bound) ** 2))
    assert 0.98 < ratio < 1.06
    # The standard error given with each value predicts its scatter.
    given = fit_arrays(rician(decay(times, t), 1000 / snr, rng), times, FitOptions(noise=1000 / snr))
    assert np.sqrt(np.mean(((given.value - t) / given.se) ** 2)) == pytest.approx(1, abs=0.1)


def test_log_linear_is_worse_than_least_squares_and_weights_help():
    rng = np.random.default_rng(4)
    t = np.repeat(np.arange(20, 101, 20.0), 4000)
    y = rician(decay(MAPSS, t), 20, rng)
    error = {e: np.sqrt(np.nanmean((fit_arrays(y, MAPSS, FitOptions(estimator=e)).value / t - 1) ** 2))
             for e in ("nlls", "loglinear", "loglinear-unweighted")}
    assert error["nlls"] < error["loglinear"] < error["loglinear-unweighted"]


def test_order_of_echoes_selection_and_workers_do_not_matter():
    rng = np.random.default_rng(5)
    times = np.array([0.0, 2, 4, 8, 12, 20, 40, 80])
    y = rician(decay(times, rng.uniform(20, 200, 10000)), 30, rng)
    whole = fit_arrays(y, times, workers=1)
    order = rng.permutation(8)
    again = fit_arrays(y[order], times[order], workers=3)
    assert np.array_equal(whole.value, again.value)
    part = fit_arrays(y, times, FitOptions(echoes=[7, 0, 5, 6]))
    assert np.array_equal(part.value, fit_arrays(y[[0, 5, 6, 7]], times[[0, 5, 6, 7]]).value)


def test_scaling_the_signal_scales_only_m0():
    y = decay(MAPSS, [30.0, 60, 120]) + np.array([[3.0], [-2], [4], [1]])
    base = fit_arrays(y, MAPSS)
    for factor in (1e-12, 1e-3, 1e6, 1e25):
        scaled = fit_arrays(y * factor, MAPSS)
        assert np.allclose(scaled.value, base.value, rtol=1e-9)
        assert np.allclose(scaled.m0, base.m0 * factor, rtol=1e-9)
        assert np.allclose(scaled.se, base.se, rtol=1e-6)


def test_noise_floor_leaves_out_late_echoes():
    times = np.arange(1, 9) * 10.0
    y = np.maximum(decay(times, [15.0, 60.0], 1000), 60.0)
    biased = fit_arrays(y, times)
    clean = fit_arrays(y, times, FitOptions(noise_floor=70.0))
    assert biased.value[0] > 15.5
    assert np.allclose(clean.value, [15.0, 60.0], rtol=1e-6)
    assert fit_arrays(y, times, FitOptions(noise_floor=900.0)).status.tolist() == [FitStatus.TOO_FEW_ECHOES] * 2


def test_minimum_r_squared_blanks_poor_fits():
    fit = fit_arrays(np.array([[100.0, 100], [90, 20], [80, 90], [70, 40]]), MAPSS, FitOptions(min_r2=0.9))
    assert fit.status.tolist() == [FitStatus.OK, FitStatus.LOW_R2]
    assert np.isnan(fit.value[1])


def _series(y, times, kind="T1rho", shape=(2, 3, 4)):
    geometry = Geometry(shape[::-1], (0.5, 0.6, 4.0), (1, 2, 3), (0, 0, 1, 1, 0, 0, 0, 1, 0))
    return EchoSeries(np.asarray(y).reshape(len(times), *shape), np.asarray(times, float), kind, geometry)


def test_volume_fit_returns_images_with_units_and_a_report():
    t = np.linspace(30, 150, 24)
    series = _series(decay(MAPSS, t), MAPSS)
    mask = np.ones((2, 3, 4), bool)
    mask[0, 0, 0] = False
    before = series.echoes.copy()
    fit = fit_relaxation(series, mask=Image(mask, series.geometry))
    assert np.array_equal(series.echoes, before)
    images = fit.images()
    assert set(images) == {"T1rho", "M0", "SE", "R2", "status"}
    assert images["T1rho"].geometry == series.geometry
    assert images["T1rho"].meta["unit"] == "ms"
    assert np.isnan(fit.value[0, 0, 0])
    assert fit.status[0, 0, 0] == FitStatus.OUTSIDE_MASK
    assert np.allclose(fit.value.ravel()[1:], t[1:], rtol=1e-6)
    assert fit.counts == {"OK": 23, "OUTSIDE_MASK": 1}
    assert fit.report["times_ms"] == list(MAPSS)
    assert sum(fit.status_table()["voxels"]) == 24


def test_warnings_name_what_the_user_should_know():
    t = np.linspace(30, 150, 24)
    three = fit_relaxation(_series(decay(MAPSS, t), MAPSS), FitOptions(model="mono3"))
    assert any("near-singular" in w for w in three.warnings)
    times = np.arange(1, 9) * 10.0
    train = _series(decay(times, t), times, "T2")
    assert any("first echo" in w for w in fit_relaxation(train).warnings)
    assert not fit_relaxation(train, FitOptions(echoes=range(1, 8))).warnings
    assert any("no residual" in w for w in fit_relaxation(train, FitOptions(echoes=[0, 7])).warnings)
    assert any("mask is empty" in w for w in fit_relaxation(train, mask=np.zeros((2, 3, 4))).warnings)


def test_progress_reaches_the_end_and_cancel_stops():
    seen = []
    y = decay(MAPSS, np.full(100_000, 50.0)).astype(np.float32)
    fit_arrays(y, MAPSS, progressCallback=lambda fraction, text: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def cancel(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_arrays(y, MAPSS, progressCallback=cancel)


@pytest.mark.parametrize(("model", "name"), [("mono2", "two"), ("mono3", "three")])
@pytest.mark.shared_data
def test_agrees_with_ukat(model, name):
    folder = shared_data("relaxometry/kidney_t2_philips")
    series, times = _read_4d(folder)
    reference = read_image(folder / f"reference_{name}_param_fit_t2_map.nii.gz").array
    mask = read_image(folder / f"reference_{name}_param_fit_mask.nii.gz").array > 0
    fit = fit_arrays(series, times, FitOptions(model=model), mask=mask.ravel())
    value = fit.value.reshape(mask.shape)
    both = mask & np.isfinite(value) & (reference > 0)
    difference = np.abs(value - reference)[both]
    assert both.sum() > 0.99 * mask.sum()
    assert np.median(difference) < 1e-3
    assert np.quantile(difference, 0.95) < 1e-2


@pytest.mark.shared_data
def test_agrees_with_qmrlab():
    folder = shared_data("relaxometry/brain_se_qmrlab")
    series, times = _read_4d(folder)
    # The reference is a single slice in a two-dimensional file.
    reference = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "reference_T2.nii.gz"))).ravel()
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask.nii.gz"))).ravel() > 0
    fit = fit_arrays(series, times, mask=mask)
    compared = mask & (reference > 10) & (reference < 300)
    # A voxel that is NaN here counts as a disagreement.
    assert np.mean(np.abs(fit.value - reference)[compared] < 0.05) > 0.99


@pytest.mark.shared_data
def test_knee_cartilage_has_a_plausible_t2():
    series = read_echo_series(shared_data("relaxometry/knee_mese_ge_dicom"))
    assert series.times_ms == pytest.approx(6.312 * np.arange(1, 9))
    fit = fit_relaxation(series)
    # Trochlear cartilage of one slice, row by row; the marrow beside it is fat, far above.
    columns = {96: (77, 80), 100: (77, 80), 104: (78, 80), 108: (79, 84), 112: (81, 85), 116: (84, 87)}
    cartilage = np.concatenate([fit.value[4, row, first:last + 1] for row, (first, last) in columns.items()])
    assert 30 < np.median(cartilage) < 60
    assert np.mean((cartilage > 25) & (cartilage < 65)) > 0.9
    assert np.nanmedian(fit.value[4, 96:113, 92:98]) > 100


def _read_4d(folder):
    echoes = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "echoes.nii.gz")))
    return echoes.reshape(len(echoes), -1), json.loads((folder / "echoes.json").read_text())["EchoTime_ms"]


def test_mask_on_another_grid_is_refused():
    series = _series(decay(MAPSS, np.full(24, 50.0)), MAPSS)
    with pytest.raises(EchoSeriesError, match="grid"):
        fit_relaxation(series, mask=np.ones((3, 3, 4)))
    moved = Geometry(series.geometry.size, series.geometry.spacing, (9, 9, 9), series.geometry.direction)
    with pytest.raises(GeometryError, match="different grids"):
        fit_relaxation(series, mask=Image(np.ones((2, 3, 4)), moved))
