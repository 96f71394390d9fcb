"""Noise estimates and the Rician estimator."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.errors import EchoSeriesError
from DiscRelaxometryLib.fit import FitOptions, fit_arrays, fit_relaxation
from DiscRelaxometryLib.fit.noise import background_sigma, residual_sigma
from DiscRelaxometryLib.fit.rician import rician_log_likelihood, rician_mean
from DiscRelaxometryLib.image import Geometry

MAPSS = np.array([0.0, 10.0, 40.0, 80.0])


def rician(signal, sigma, rng):
    return np.hypot(signal + sigma * rng.standard_normal(signal.shape), sigma * rng.standard_normal(signal.shape))


def test_background_gives_sigma():
    rng = np.random.default_rng(0)
    image = np.zeros((20, 100, 100))
    image[:, 30:80, 20:80] = rng.uniform(100, 900, (20, 50, 60))
    assert background_sigma(rician(image, 15.0, rng)) == pytest.approx(15.0, rel=0.03)
    assert background_sigma(rician(image, 15.0, rng).astype(np.int16)) == pytest.approx(15.0, rel=0.05)


def test_no_background_gives_none():
    rng = np.random.default_rng(1)
    assert background_sigma(rng.uniform(100, 900, (20, 50, 60))) is None
    assert background_sigma(np.zeros((20, 50, 60))) is None
    assert background_sigma(np.full((20, 50, 60), np.nan)) is None


def test_residuals_give_sigma():
    rng = np.random.default_rng(2)
    ssr = 12.0**2 * rng.chisquare(2, 100_000)
    ssr[:2000] *= 1000  # Vessels and edges, where the model does not hold.
    assert residual_sigma(ssr, 2) == pytest.approx(12.0, rel=0.03)
    with pytest.raises(EchoSeriesError, match="noise level"):
        residual_sigma(ssr, 0)


def test_likelihood_is_that_of_scipy():
    y, amplitude, sigma = np.array([[30.0], [8.0], [2.0]]), np.array([[25.0], [9.0], [0.5]]), 4.0
    other = amplitude * 1.3
    expected = (stats.rice.logpdf(y, amplitude / sigma, scale=sigma)
                - stats.rice.logpdf(y, other / sigma, scale=sigma)).sum()
    ours = rician_log_likelihood(y, amplitude, sigma) - rician_log_likelihood(y, other, sigma)
    assert ours[0] == pytest.approx(expected, rel=1e-9)


def test_mean_of_a_rician_variable():
    amplitude = np.array([0.0, 1.0, 5.0, 50.0])
    assert np.allclose(rician_mean(amplitude, 2.0), stats.rice.mean(amplitude / 2.0, scale=2.0), rtol=1e-9)


def test_estimate_is_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(3)
    t = rng.uniform(15, 120, 25)
    y = rician(100 * np.exp(-MAPSS[:, None] / t), 8.0, rng)
    fit = fit_arrays(y, MAPSS, FitOptions(estimator="rician", noise=8.0))
    for v in np.flatnonzero(fit.status == 0):
        def negative(p, v=v):
            return -stats.rice.logpdf(y[:, v], p[1] * np.exp(-MAPSS / p[0]) / 8.0, scale=8.0).sum()

        best = minimize(negative, [fit.value[v] * 1.05, fit.m0[v]], method="Nelder-Mead",
                        options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000})
        assert fit.value[v] == pytest.approx(best.x[0], rel=1e-4)
        assert negative([fit.value[v], fit.m0[v]]) <= best.fun + 1e-9


@pytest.mark.parametrize("known", [True, False])
def test_bias_is_at_most_a_third_of_least_squares(known):
    rng = np.random.default_rng(4)
    t = np.repeat([20.0, 30.0, 40.0, 50.0, 60.0], 20_000)
    y = rician(1000 * np.exp(-MAPSS[:, None] / t), 50.0, rng)
    likely = fit_arrays(y, MAPSS, FitOptions(estimator="rician", noise=50.0 if known else None))
    least = fit_arrays(y, MAPSS)
    assert likely.report["sigma"] == pytest.approx(50.0, rel=0.07)

    def bias(fit):
        return np.nanmean(fit.value / t - 1)

    assert bias(least) > 0.02
    assert abs(bias(likely)) < bias(least) / 3


def test_high_signal_equals_least_squares():
    rng = np.random.default_rng(5)
    t = rng.uniform(40, 120, 500)
    y = 1000 * np.exp(-MAPSS[:, None] / t) + rng.standard_normal((4, 500))
    likely = fit_arrays(y, MAPSS, FitOptions(estimator="rician", noise=1.0))
    least = fit_arrays(y, MAPSS, FitOptions(noise=1.0))
    assert np.allclose(likely.value, least.value, rtol=1e-3)
    assert np.allclose(likely.se, least.se, rtol=0.02)


def test_volume_takes_sigma_from_its_background():
    rng = np.random.default_rng(6)
    clean = np.zeros((4, 12, 60, 60))
    clean[:, :, 15:45, 15:45] = (1000 * np.exp(-MAPSS / 50)).reshape(4, 1, 1, 1)
    series = EchoSeries(rician(clean, 40.0, rng), MAPSS, "T1rho", Geometry((60, 60, 12)))
    inside = clean[0] > 0
    fit = fit_relaxation(series, FitOptions(estimator="rician"), mask=inside)
    assert fit.report["sigma"] == pytest.approx(40.0, rel=0.03)
    assert "background" in fit.report["sigma_source"]
    assert np.nanmedian(fit.value) == pytest.approx(50.0, rel=0.02)
    cropped = EchoSeries(series.echoes[:, :, 15:45, 15:45], MAPSS, "T1rho", Geometry((30, 30, 12)))
    fit = fit_relaxation(cropped, FitOptions(estimator="rician"))
    assert fit.report["sigma_source"] == "residuals"
    assert fit.report["sigma"] == pytest.approx(40.0, rel=0.07)
