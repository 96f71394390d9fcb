"""The same four tests for every model and estimator: special values, shapes and types, bounds, known answers."""

import subprocess
import sys
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize
from scipy.stats import rice

from DiscRelaxometryLib.compiled import have_numba
from DiscRelaxometryLib.fit import FitOptions, FitStatus, fit_arrays, fit_decay, mono
from DiscRelaxometryLib.fit.epg_signal import epg_echoes

MAPSS = np.array([0.0, 10.0, 40.0, 80.0])
TRAIN = np.arange(1, 13) * 10.0
SIGMA = 1e-4  # of the Rician estimator, for a signal of 1000


@dataclass(frozen=True)
class Setup:
    """A way to fit, times for it, and its noise-free signal for relaxation times (v,)."""

    options: FitOptions
    times: np.ndarray
    offset: float = 0.0

    def signal(self, value, m0=1000.0):
        value = np.atleast_1d(np.asarray(value, float))
        if self.options.model == "epg":
            return m0 * np.abs(epg_echoes(value, np.full(value.size, 0.85), self.times.size, self.times[0]))
        return m0 * np.exp(-np.divide.outer(self.times, value)) + self.offset


SETUPS = {
    "mono2": Setup(FitOptions(), MAPSS),
    "mono3": Setup(FitOptions(model="mono3"), TRAIN, 60.0),
    "loglinear": Setup(FitOptions(estimator="loglinear"), MAPSS),
    "unweighted": Setup(FitOptions(estimator="loglinear-unweighted"), MAPSS),
    "rician": Setup(FitOptions(estimator="rician", noise=SIGMA), MAPSS),
    "epg": Setup(FitOptions(model="epg"), TRAIN),
}
every_setup = pytest.mark.parametrize("name", SETUPS)


def special(times):
    """Return signals that have one status whatever the model, by the status."""
    good = 1000 * np.exp(-times / 50)
    cases = {FitStatus.NO_SIGNAL: np.zeros(times.size), FitStatus.NO_DECAY: np.full(times.size, 700.0),
             FitStatus.OK: good}
    for status, value in ((FitStatus.NOT_FINITE, np.nan), (FitStatus.NOT_FINITE, np.inf), (FitStatus.NEGATIVE, -5.0),
                          (FitStatus.DEAD_ECHO, 0.0), (FitStatus.SATURATED, 5000.0)):
        changed = good.copy()
        changed[1] = value
        cases[status, value] = changed
    return [key[0] if isinstance(key, tuple) else key for key in cases], np.stack(list(cases.values()), axis=1)


@every_setup
def test_special_values_have_their_status(name):
    setup = SETUPS[name]
    expected, y = special(setup.times)
    fit = fit_arrays(y, setup.times, replace(setup.options, saturation=5000.0))
    assert fit.status.tolist() == expected
    for values in (fit.value, fit.m0, fit.se, fit.r2, fit.offset, fit.b1):
        if values is not None:
            assert np.array_equal(np.isfinite(values), fit.status == FitStatus.OK)
    rising = fit_arrays(y[::-1, 2:3], setup.times, setup.options)
    assert np.all(rising.status != FitStatus.OK)


@every_setup
@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (2, 3), (2, 1, 3), (1, 2, 2, 2)])
def test_any_shape_and_type(name, shape):
    setup = SETUPS[name]
    truth = np.linspace(40, 90, max(int(np.prod(shape)), 1))[:int(np.prod(shape))]
    y = setup.signal(truth, 30000.0).T.reshape(*shape, setup.times.size)
    expected = fit_decay(y, setup.times, setup.options)
    assert expected.value.shape == expected.status.shape == shape
    assert expected.value.ravel() == pytest.approx(truth, rel=1e-5)
    assert expected.value.dtype == np.float64
    if y.size == 0:
        return
    for other in (y.tolist(), np.asfortranarray(y), np.repeat(y, 2, axis=-1)[..., ::2]):
        assert np.array_equal(fit_decay(other, list(setup.times), setup.options).value, expected.value)
    locked = y.astype(np.float32)
    locked.flags.writeable = False
    single = fit_decay(locked, setup.times, setup.options)
    assert single.value.dtype == np.float32 and single.value == pytest.approx(expected.value, rel=1e-3)
    for kind in (np.int32, np.uint16, np.int16):
        assert fit_decay(np.rint(y).astype(kind), setup.times, setup.options).value == pytest.approx(
            expected.value, rel=0.02)
    with_mask = fit_decay(y, setup.times, setup.options, mask=np.zeros(shape, bool))
    assert np.all(with_mask.status == FitStatus.OUTSIDE_MASK) and np.all(np.isnan(with_mask.value))


@every_setup
def test_bounds_are_the_border_between_value_and_status(name):
    setup = replace(SETUPS[name], options=replace(SETUPS[name].options, bounds=(30.0, 120.0)))
    truth = np.array([12.0, 25.0, 29.5, 30.5, 60.0, 118.0, 122.0, 150.0, 240.0])
    fit = fit_arrays(setup.signal(truth), setup.times, setup.options)
    inside = (truth > 30) & (truth < 120)
    if name == "mono3":  # held at the upper bound, a constant offset stands in for the slow part
        inside, fit = inside[:6], replace(fit, status=fit.status[:6], value=fit.value[:6])
    assert np.array_equal(fit.status == FitStatus.OK, inside)
    assert set(fit.status[:3]) == {FitStatus.AT_LOWER_BOUND}
    assert set(fit.status[6:]) <= {FitStatus.AT_UPPER_BOUND}
    assert fit.value[inside] == pytest.approx(truth[:inside.size][inside], rel=1e-5)


def _least_squares(setup, y, start):
    def model(p):
        curve = p[1] * (setup.signal(p[0], 1.0)[:, 0] - setup.offset)
        if setup.options.model == "epg":
            curve = p[1] * epg_echoes([p[0]], [p[2]], 12, 10.0)[:, 0]
        return curve + (p[2] if setup.options.model == "mono3" else 0.0)

    return least_squares(lambda p: model(p) - y, start, x_scale=np.abs(start), xtol=1e-15, ftol=1e-15, gtol=1e-15).x[0]


@every_setup
def test_answers_of_other_programs(name):
    setup, rng = SETUPS[name], np.random.default_rng(11)
    truth = rng.uniform(30, 110, 6)
    y = setup.signal(truth)
    y = np.abs(y + 8.0 * rng.standard_normal(y.shape))
    options = replace(setup.options, noise=8.0) if name == "rician" else setup.options
    fit = fit_arrays(y, setup.times, options)
    for v in range(truth.size):
        signal, start = y[:, v], [truth[v], 1000.0, {"mono3": 60.0, "epg": 0.85}.get(name, 0.0)]
        if name in ("loglinear", "unweighted"):
            weights = signal if name == "loglinear" else None
            expected = -1 / np.polyfit(setup.times, np.log(signal), 1, w=weights)[0]
        elif name == "rician":
            expected = minimize(lambda p, s=signal: -rice.logpdf(
                s, p[1] * np.exp(-setup.times / p[0]) / 8.0, scale=8.0).sum(), start[:2], method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-13, "maxiter": 5000}).x[0]
        else:
            expected = _least_squares(setup, signal, start[:fit.options.parameters])
        assert fit.value[v] == pytest.approx(expected, rel=1e-4)


TIMES = st.lists(st.floats(0, 300).map(lambda t: round(t, 2)), min_size=2, max_size=8, unique=True)
EXACT = st.sampled_from(["mono2", "mono3", "loglinear", "unweighted"])
UNSURE = {FitStatus.NOT_CONVERGED, FitStatus.AT_LOWER_BOUND, FitStatus.AT_UPPER_BOUND, FitStatus.NO_DECAY}


@settings(max_examples=300, deadline=None)
@given(name=EXACT, times=TIMES, value=st.floats(1, 1000), m0=st.floats(1e-3, 1e6))
def test_a_decay_returns_or_the_status_says_that_it_did_not(name, times, value, m0):
    setup = replace(SETUPS[name], times=np.array(times), offset=0.05 * m0 if name == "mono3" else 0.0)
    if len(times) < setup.options.parameters:
        return
    fit = fit_decay(setup.signal(value, m0)[:, 0], times, setup.options)
    if fit.status == FitStatus.OK:
        assert fit.value == pytest.approx(value, rel=1e-6)
    else:
        assert int(fit.status) in UNSURE
    # A few milliseconds between times, and a decay that has not gone before the second: no excuse.
    gap = np.diff(np.sort(times))
    if name != "mono3" and gap.min() > 2 and np.sort(times)[1] < 8 * value and 1.01 < value < 990:
        assert fit.status == FitStatus.OK


@settings(max_examples=60, deadline=None)
@given(t2=st.floats(20, 300), b1=st.floats(0.5, 0.98), refocusing=st.floats(140, 180), t1=st.floats(300, 2000))
def test_a_train_returns_or_the_status_says_that_it_did_not(t2, b1, refocusing, t1):
    y = 500 * np.abs(epg_echoes([t2], [b1], 12, 10.0, t1, refocusing)[:, 0])
    fit = fit_decay(y, TRAIN, FitOptions(model="epg", t1=t1, refocusing=refocusing))
    assert fit.status == FitStatus.OK
    assert fit.value == pytest.approx(t2, rel=1e-5) and fit.b1 == pytest.approx(100 * b1, rel=1e-4)


EPG = {"refocusing": (150.0, 165.0), "t1": (500.0, 900.0), "echo_spacing": (10.0, None),
       "b1_range": ((0.8, 0.8), (0.95, 0.95)), "bounds": ((5.0, 500.0), (1.0, 70.0))}


@pytest.mark.parametrize("field", EPG)
def test_each_epg_option_gives_t2_and_b1_back(field):
    value, wrong = EPG[field]
    t2 = np.array([40.0, 80.0, 150.0])
    simulated = {field: value} if field in ("refocusing", "t1") else {}
    y = 700 * epg_echoes(t2, np.full(3, 0.8), 12, 10.0, **simulated)
    echoes = range(1, 12, 2) if field == "echo_spacing" else None  # 20, 40 ... ms of a train every 10 ms
    options = FitOptions(model="epg", echoes=echoes)
    fit = fit_arrays(y, TRAIN, replace(options, **{field: value}))
    assert fit.value == pytest.approx(t2, rel=1e-5) and fit.b1 == pytest.approx([80] * 3, rel=1e-4)
    other = fit_arrays(y, TRAIN, replace(options, **{field: wrong}))
    assert not np.allclose([other.value, other.b1], [t2, [80] * 3], rtol=1e-3)


_NOISY = np.abs(1000 * np.exp(-TRAIN[:, None] / [25.0, 60.0, 100.0]) + 30 * np.random.default_rng(2).normal(
    size=(12, 3)))
#: For each option: other options it needs, and a value that has to change the result.
EFFECTS = {
    "model": ({}, "mono3"), "estimator": ({}, "loglinear"), "bounds": ({}, (1.0, 70.0)), "echoes": ({}, range(1, 12)),
    "noise": ({}, 30.0), "noise_floor": ({}, 200.0), "min_r2": ({}, 0.995), "saturation": ({}, 700.0),
    "negative_offset": ({"model": "mono3"}, True), "t1": ({"model": "epg"}, 300.0),
    "refocusing": ({"model": "epg"}, 140.0), "b1_range": ({"model": "epg"}, (0.7, 0.7)),
    "echo_spacing": ({"model": "epg"}, 5.0),
}


@pytest.mark.parametrize("field", [f.name for f in fields(FitOptions)])
def test_each_option_changes_the_result(field):
    others, value = EFFECTS[field]  # an option without an entry fails here
    y = _NOISY - 40 if field == "negative_offset" else _NOISY
    y = np.abs(y)
    before = fit_arrays(y, TRAIN, FitOptions(**others))
    after = fit_arrays(y, TRAIN, FitOptions(**others, **{field: value}))
    names = ("value", "se", "status")
    assert any(not np.array_equal(getattr(before, n), getattr(after, n), equal_nan=True) for n in names)


@pytest.mark.skipif(not have_numba(), reason="numba is not installed")
@pytest.mark.parametrize("times", [MAPSS, TRAIN, np.array([5.0, 5.0, 30.0])], ids=["mapss", "train", "three"])
def test_compiled_search_is_that_of_numpy(times, monkeypatch):
    """Decays within and beyond the bounds, noise alone, constants and zeros; more voxels than stand side by side."""
    rng = np.random.default_rng(4)
    decays = 800 * np.exp(-np.divide.outer(times, np.geomspace(0.2, 5000, 900))) + rng.normal(0, 8, (times.size, 900))
    noise, rest = rng.uniform(0, 1, (times.size, 200)), np.full((times.size, 3), 7.0)
    rest[1:, 1:] = 0.0, 1e-9
    y = np.abs(np.hstack([decays, noise, rest]))
    one = fit_arrays(y, times, FitOptions(), workers=1)
    monkeypatch.setattr(mono, "kernel_if_numba", lambda *function, **options: None)
    other = fit_arrays(y, times, FitOptions(), workers=1)
    np.testing.assert_array_equal(one.status, other.status)
    assert {FitStatus.AT_LOWER_BOUND, FitStatus.AT_UPPER_BOUND, FitStatus.OK, FitStatus.NO_DECAY} <= set(one.status)
    for name in ("value", "m0", "se", "r2"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-9, err_msg=name)


def test_the_wing_is_light_to_import():
    code = ("import sys, DiscRelaxometryLib.fit\n"
            "print([m for m in ('scipy.stats', 'scipy.special', 'scipy.optimize') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
