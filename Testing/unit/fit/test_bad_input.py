"""Broken voxels get a status code, broken series one clear exception; nothing crashes and nothing becomes 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.errors import DiscRelaxometryError, EchoSeriesError
from DiscRelaxometryLib.fit import FitOptions, FitStatus, fit_arrays, fit_decay, fit_relaxation
from DiscRelaxometryLib.fit.status import status_counts
from DiscRelaxometryLib.image import Geometry

TIMES = (0.0, 10.0, 40.0, 80.0)
GOOD = (1000.0, 800.0, 400.0, 150.0)
CASES = {
    "zeros": ((0, 0, 0, 0), FitStatus.NO_SIGNAL),
    "nan": ((1000, np.nan, 400, 150), FitStatus.NOT_FINITE),
    "infinity": ((1000, np.inf, 400, 150), FitStatus.NOT_FINITE),
    "minus infinity": ((1000, 800, 400, -np.inf), FitStatus.NOT_FINITE),
    "all nan": ((np.nan,) * 4, FitStatus.NOT_FINITE),
    "negative": ((1000, 800, 400, -5), FitStatus.NEGATIVE),
    "all negative": ((-1000, -800, -400, -150), FitStatus.NEGATIVE),
    "constant": ((700, 700, 700, 700), FitStatus.NO_DECAY),
    "rising": ((100, 200, 400, 800), FitStatus.NO_DECAY),
    "dead first": ((0, 800, 400, 150), FitStatus.DEAD_ECHO),
    "dead middle": ((1000, 0, 600, 300), FitStatus.DEAD_ECHO),
    "very slow": ((1000, 999.9, 999.6, 999.2), FitStatus.AT_UPPER_BOUND),
    "very fast": ((1000, 1, 0, 0), FitStatus.OK),
    "only first": ((1000, 0, 0, 0), FitStatus.AT_LOWER_BOUND),
    "good": (GOOD, FitStatus.OK),
}


@pytest.mark.parametrize("estimator", ["nlls", "loglinear", "rician"])
@pytest.mark.parametrize("name", CASES)
def test_each_broken_voxel_has_its_code(name, estimator):
    # Broken and good voxels together: one must not harm the other.
    y = np.array([GOOD, CASES[name][0], GOOD], float).T
    before = y.copy()
    fit = fit_arrays(y, TIMES, FitOptions(estimator=estimator, noise=10.0))
    assert np.array_equal(y, before, equal_nan=True)
    assert fit.status[[0, 2]].tolist() == [FitStatus.OK, FitStatus.OK]
    if estimator == "nlls" or CASES[name][1] not in (FitStatus.OK, FitStatus.AT_LOWER_BOUND):
        assert fit.status[1] == CASES[name][1]
    failed = fit.status != FitStatus.OK
    for array in (fit.value, fit.m0, fit.se, fit.r2):
        assert np.array_equal(np.isnan(array), failed)


def test_integer_input_equals_float_and_saturation_is_found():
    y = np.array([GOOD, (32767, 20000, 9000, 3000), (32767, 32767, 20000, 9000)]).T
    fit = fit_arrays(y.astype(np.int16), TIMES)
    assert fit.status.tolist() == [FitStatus.OK, FitStatus.SATURATED, FitStatus.SATURATED]
    assert fit.value[0] == pytest.approx(fit_arrays(y[:, :1].astype(float), TIMES).value[0], rel=1e-6)
    for kind in (np.uint8, np.int8, np.uint16, np.int32, np.uint64, np.float16):
        assert fit_arrays(np.array([[100], [80], [40], [15]], kind), TIMES).status[0] == FitStatus.OK


def test_int16_overflow_is_named():
    wrapped = np.array([40000, 30000, 16000, 6000]).astype(np.int16)[:, None]
    assert fit_arrays(wrapped, TIMES).status[0] == FitStatus.NEGATIVE


def test_clipped_float_series_is_found():
    y = np.full((4, 1, 2, 2), 100.0) * np.array([4.0, 3.0, 2.0, 1.0]).reshape(4, 1, 1, 1)
    y[:2, 0, 0, 0] = 4095
    fit = fit_relaxation(EchoSeries(y, TIMES, "T1rho", Geometry((2, 2, 1))))
    assert fit.status[0, 0].tolist() == [FitStatus.SATURATED, FitStatus.OK]


def test_integer_signal_that_decays_to_zero_is_not_a_dead_echo():
    assert fit_arrays(np.array([[90], [40], [1], [0]], np.int16), TIMES).status[0] == FitStatus.OK


def test_whole_echo_empty_is_one_exception():
    y = np.ones((4, 1, 2, 2)) * np.array(GOOD).reshape(4, 1, 1, 1)
    y[2] = 0
    series = EchoSeries(y, TIMES, "T2", Geometry((2, 2, 1)))
    with pytest.raises(EchoSeriesError, match=r"Echo 2 \(40 ms\) is zero everywhere.*echoes=\[0, 1, 3\]"):
        fit_relaxation(series)
    assert np.all(fit_relaxation(series, FitOptions(echoes=[0, 1, 3])).status == FitStatus.OK)


@pytest.mark.parametrize(("times", "options", "message"), [
    ((0, 10, 40), {}, "4 echoes but 3 times"),
    ((0, 10, 40, np.nan), {}, "not a number"),
    ((-1, 10, 40, 80), {}, "negative"),
    ((10, 10, 10, 10), {}, "different time"),
    ((0, 0, 80, 80), {"model": "mono3"}, "3 parameters"),
    (TIMES, {"echoes": [0]}, "2 parameters"),
    (TIMES, {"echoes": [0, 1], "model": "mono3"}, "3 parameters"),
    (TIMES, {"echoes": [0, 4]}, "echo selection"),
    (TIMES, {"echoes": [1, 1, 2]}, "echo selection"),
    (TIMES, {"model": "stretched"}, "not a model"),
    (TIMES, {"estimator": "magic"}, "not an estimator"),
    (TIMES, {"model": "mono3", "estimator": "rician"}, "least squares only"),
    (TIMES, {"bounds": (0, 100)}, "bounds"),
    (TIMES, {"bounds": (200, 100)}, "bounds"),
    (TIMES, {"noise": -1.0}, "noise level"),
    (TIMES, {"model": "epg"}, "multiples of one spacing"),
    (TIMES, {"noise": np.ones(3)}, "noise map has 3 voxels"),
    (TIMES, {"model": "epg", "t1": 0.0}, "option t1"),
    (TIMES, {"model": "epg", "refocusing": np.nan}, "option refocusing"),
    (TIMES, {"model": "epg", "echo_spacing": -10.0}, "option echo_spacing"),
    (TIMES, {"model": "epg", "b1_range": (1.2, 0.8)}, "range of B1"),
    (TIMES, {"echoes": [0, 1], "estimator": "rician"}, "noise level cannot be estimated"),
])
def test_unusable_series_and_settings(times, options, message):
    y = np.array([GOOD, GOOD], float).T
    with pytest.raises(EchoSeriesError, match=message):
        fit_arrays(y, times, FitOptions(**options))


def test_mask_of_another_size_is_refused():
    y = np.array([GOOD, GOOD], float).T
    with pytest.raises(EchoSeriesError, match="mask has 3 voxels"):
        fit_arrays(y, TIMES, mask=np.ones(3, bool))
    with pytest.raises(EchoSeriesError, match="one value per pixel"):
        fit_decay(y.T, TIMES, mask=np.ones((1, 2), bool))
    with pytest.raises(EchoSeriesError, match="no axis"):
        fit_decay(5.0, TIMES)


def test_repeated_and_unsorted_times_are_fitted():
    y = np.array([GOOD], float).T
    order = [2, 0, 3, 1]
    assert fit_arrays(y[order], np.array(TIMES)[order]).value == pytest.approx(fit_arrays(y, TIMES).value)
    twice = fit_arrays(np.vstack([y, y]), TIMES + TIMES)
    assert twice.value == pytest.approx(fit_arrays(y, TIMES).value, rel=1e-6)


def test_every_code_has_a_sentence():
    assert len({s.text for s in FitStatus}) == len(FitStatus) and all(s.text.endswith(".") for s in FitStatus)
    assert status_counts(np.array([0, 0, 8])) == {"OK": 2, "NO_DECAY": 1}


_SIGNALS = hnp.arrays(st.sampled_from([np.float32, np.float64]), (4, 6), elements=st.floats(width=32))
_INTEGERS = hnp.arrays(st.sampled_from([np.int16, np.uint8, np.int32]), (4, 6))


@settings(max_examples=150, deadline=None)
@given(y=st.one_of(_SIGNALS, _INTEGERS),
       setup=st.sampled_from([("mono2", "nlls"), ("mono3", "nlls"), ("mono2", "loglinear"), ("mono2", "rician"),
                              ("mono2", "loglinear-unweighted")]))
def test_any_signal_gives_a_value_in_bounds_or_a_code(y, setup):
    y = np.hstack([y, np.array([[100], [80], [40], [15]], y.dtype)])  # so that no echo is empty
    before = y.copy()
    fit = fit_arrays(y, TIMES, FitOptions(model=setup[0], estimator=setup[1], noise=1.0), workers=1)
    assert np.array_equal(y, before, equal_nan=True)
    fitted = fit.status == FitStatus.OK
    assert np.array_equal(np.isfinite(fit.value), fitted)
    assert np.all((fit.value[fitted] >= 1) & (fit.value[fitted] <= 1000))
    assert np.all(np.isnan(fit.m0[~fitted]))


@settings(max_examples=60, deadline=None)
@given(y=hnp.arrays(np.float64, (8, 4), elements=st.floats(0, 4000)), fixed=st.booleans())
def test_any_train_gives_a_value_in_bounds_or_a_code(y, fixed):
    y = np.hstack([y, np.linspace(100, 10, 8)[:, None]])  # so that no echo is empty
    options = FitOptions(model="epg", b1_range=(1.0, 1.0) if fixed else None)
    fit = fit_arrays(y, np.arange(1, 9) * 10.0, options, workers=1)
    fitted = fit.status == FitStatus.OK
    assert np.array_equal(np.isfinite(fit.value), fitted)
    assert np.all((fit.value[fitted] >= 1) & (fit.value[fitted] <= 1000))


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=0, max_size=6))
def test_any_times_fit_or_say_why(times):
    y = np.linspace(1000, 100, 4)[:, None] * np.ones((1, 2))
    try:
        fit = fit_arrays(y, times, workers=1)
    except DiscRelaxometryError as error:
        assert error.message.endswith((".", ")."))
    else:
        assert np.array_equal(np.isfinite(fit.value), fit.status == FitStatus.OK)


@settings(max_examples=100, deadline=None)
@given(t=st.floats(5, 400), m0=st.floats(1e-3, 1e6),
       times=st.lists(st.integers(0, 120), min_size=3, max_size=10, unique=True))
def test_any_decay_returns(t, m0, times):
    times = np.array(times, float)
    # Without a visible difference between the echoes there is nothing to find.
    if np.ptp(np.exp(-times / t)) < 0.01 or times.min() > 8 * t:
        return
    fit = fit_arrays(m0 * np.exp(-times / t)[:, None], times, workers=1)
    assert fit.value[0] == pytest.approx(t, rel=1e-6)
    assert fit.m0[0] == pytest.approx(m0, rel=1e-5)


def test_clipping_in_one_echo_alone_is_found_beside_infinity():
    y = np.array([[4095, 4095, 3000, np.inf], [2800, 2900, 2400, 900], [1000, 1100, 900, 300], [300, 350, 250, 90.0]])
    fit = fit_arrays(y, TIMES)
    saturated, good = FitStatus.SATURATED, FitStatus.OK
    assert fit.status.tolist() == [saturated, saturated, good, FitStatus.NOT_FINITE]
