"""Maximum likelihood for Rician noise: no bias from the noise floor of magnitude images.

The likelihood is that of Sijbers et al. (IEEE Trans Med Imaging 1998;17:357). Newton steps on (log M0, R) with the
observed information, replaced by Gauss-Newton steps (those of the expectation-maximization view) where it is not
positive definite, and damped until the likelihood does not fall. Equations in ``Docs/method/fitting.md``.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import i0e, i1e

from .mono import MonoModel
from .solution import Solution, total_squares

_MAX_STEPS = 100
_TOLERANCE, _NEAR = 1e-7, 1e-4  # Last damped step, and the undamped one from there.


def rician_log_likelihood(y: np.ndarray, amplitude: np.ndarray, sigma: float | np.ndarray = 1.0) -> np.ndarray:
    """Return the log-likelihood of echoes, shape (n, v), without terms that do not depend on `amplitude` (alike)."""
    y, amplitude = y / sigma, amplitude / sigma
    return (np.log(i0e(y * amplitude)) - 0.5 * (y - amplitude) ** 2).sum(axis=0)


def rician_mean(amplitude: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Return the expected magnitude of a signal of the given noise-free amplitude and noise level."""
    x = amplitude**2 / (4 * sigma**2)
    return sigma * np.sqrt(np.pi / 2) * ((1 + 2 * x) * i0e(x) + 2 * x * i1e(x))


@dataclass(frozen=True)
class RicianModel:
    """Mono-exponential decay with Rician noise; `mono` supplies the start and the bounds."""

    mono: MonoModel

    @property
    def times(self) -> np.ndarray:
        """Times in ms, minus the first."""
        return self.mono.times

    def solve(self, y: np.ndarray, sigma: np.ndarray) -> Solution:
        """Return the most likely relaxation time and M0 of signals `y` (n, v) with the noise level `sigma` (v,)."""
        start = self.mono.solve(y)
        rate, m0, variance, converged = _maximize(self.mono, y, sigma, 1 / start.value, start.m0)
        # The magnitude expected from a Rician distribution, not the noise-free decay, is what the data scatter about.
        residual = y - rician_mean(m0 * self.mono.decay(rate), sigma)
        lowest, highest = self.mono.rates[[0, -1]]
        edge = (rate >= highest).astype(np.int8) - (rate <= lowest).astype(np.int8)
        return Solution(1 / rate, m0, (residual**2).sum(axis=0), total_squares(y), variance / rate**4, edge, converged)


def _maximize(model, y, sigma, rate, m0):
    """Return the most likely rate and M0, the rate's variance (observed Fisher information), and convergence."""
    times, limits = model.times + model.start, model.rates[[0, -1]]
    z = y / sigma
    theta = np.stack([np.log(np.maximum(m0 / sigma, 1e-3)), np.clip(rate, *limits)])
    damping = np.full(rate.size, 1e-3)
    result = theta.copy()
    converged = np.zeros(rate.size, bool)
    active = np.arange(rate.size)
    value = _log_likelihood(times, z, theta)
    for _ in range(_MAX_STEPS):
        gradient, matrix = _gradient_and_information(times, z, theta)
        step = _damped_step(gradient, matrix, damping)
        trial = theta + step
        trial[1] = np.clip(trial[1], *limits)
        whole = theta + _damped_step(gradient, matrix, 0.0)
        whole[1] = np.clip(whole[1], *limits)
        # At a bound, M0 alone is left to move.
        held = (whole[1] == theta[1]) & np.isin(theta[1], limits)
        whole[0, held] = (theta[0] + gradient[0] / matrix[0])[held]
        # A step past a factor e in amplitude leaves the region where the quadratic model means anything.
        trial[0] = np.clip(trial[0], theta[0] - 1, theta[0] + 1)
        trial_value = _log_likelihood(times, z, trial)
        # A last step below the rounding of the likelihood still counts as no fall.
        better = trial_value >= value - 1e-12 * np.abs(value)
        moved = np.abs(trial - theta)
        small = (moved[1] <= _TOLERANCE * theta[1]) & (moved[0] <= _TOLERANCE)
        # Damping makes any step small: the one without it tells whether the optimum is here.
        small &= (np.abs(whole[1] - theta[1]) <= _NEAR * theta[1]) & (np.abs(whole[0] - theta[0]) <= _NEAR)
        theta = np.where(better, trial, theta)
        value = np.where(better, trial_value, value)
        damping = np.where(better, damping * 0.1, damping * 10)
        if small.any():
            result[:, active] = theta
            converged[active[small]] = True
            keep = ~small
            active, z, theta, value, damping = active[keep], z[:, keep], theta[:, keep], value[keep], damping[keep]
            if not active.size:
                break
    result[:, active] = theta
    _, matrix = _gradient_and_information(times, y / sigma, result)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = matrix[0] / (matrix[0] * matrix[2] - matrix[1] ** 2)
    return result[1], np.exp(result[0]) * sigma, variance, converged


def _log_likelihood(times, z, theta):
    return rician_log_likelihood(z, np.exp(theta[0] - np.multiply.outer(times, theta[1])))


def _gradient_and_information(times, z, theta):
    """Return the gradient (2, v) and the information (3, v: aa, aR, RR) in units of sigma = 1."""
    t = times[:, None]
    amplitude = np.exp(theta[0] - t * theta[1])
    x = z * amplitude
    ratio = i1e(x) / i0e(x)
    score = (z * ratio - amplitude) * amplitude
    # d/dx I1/I0 = 1 - ratio/x - ratio^2, whose limit at x = 0 is 1/2.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(x > 1e-6, 1 - ratio / x - ratio * ratio, 0.5)
    square = amplitude * amplitude
    weight = (1 - z * z * slope) * square - score
    gradient = np.stack([score.sum(axis=0), -(t * score).sum(axis=0)])
    observed = _moments(t, weight)
    indefinite = (observed[0] <= 0) | (observed[0] * observed[2] <= observed[1] ** 2)
    if indefinite.any():
        observed[:, indefinite] = _moments(t, square[:, indefinite])
    return gradient, observed


def _moments(t, weight):
    return np.stack([weight.sum(axis=0), -(t * weight).sum(axis=0), (t * t * weight).sum(axis=0)])


def _damped_step(gradient, matrix, damping):
    """Solve the 2 x 2 systems with Levenberg-Marquardt damping of the diagonal."""
    a, b, c = matrix[0] * (1 + damping), matrix[1], matrix[2] * (1 + damping)
    determinant = a * c - b * b
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / determinant
    return np.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)
