"""Mono-exponential decay with or without an offset: variable projection and log-linear regression.

``y(t) = M0 exp(-R t) [+ C]`` is linear in M0 and C. Eliminating them (variable projection, Golub and Pereyra,
SIAM J Numer Anal 1973;10:413) leaves one equation in the rate R, solved here by a Newton iteration that starts at the
best of a table of rates and stays within the bounds. The equations are in ``Docs/method/fitting.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..compiled import kernel_if_numba
from .solution import Solution, noise_variance, total_squares

_ROWS = 512  # Voxels a table product: small enough that BLAS stays single-threaded inside our own threads.
_TOLERANCE = 2e-5  # Last Newton step relative to the rate; the error after it is of the order of its square.
_MAX_STEPS = 60
_ROUNDING = 5e-8  # Beside an offset, the rounding of the signals makes a relative error in T of 2e-16 over this.


@dataclass(frozen=True)
class MonoModel:
    """What a mono-exponential fit needs to know, prepared once per series."""

    #: Shape (n,). Times in ms, ascending, minus `start` (so that no exponential underflows).
    times: np.ndarray
    #: First time in ms.
    start: float
    #: Whether the model has a constant offset.
    offset: bool
    #: Shape (k,). Candidate rates in 1/ms, ascending between the bounds, equidistant in logarithm.
    rates: np.ndarray
    #: Shape (n, k). Unit decays at `rates` (centered where the model has an offset).
    table: np.ndarray
    #: The model without the offset, for voxels whose offset would be negative; None allows negative offsets.
    nested: MonoModel | None = None

    @classmethod
    def prepare(cls, times: np.ndarray, bounds: tuple[float, float], offset: bool = False,
                negative_offset: bool = False) -> MonoModel:
        """Tabulate decays between the `bounds` (ms) at `times` (ms, ascending), about 25 % apart."""
        shifted = np.asarray(times, float) - float(times[0])
        lower, upper = bounds
        # Faster decays have left nothing of the second echo that a float64 could hold, so they are all alike.
        fastest = max(min(1.0 / lower, 300.0 / shifted[shifted > 0].min()), 1.01 / upper)
        count = max(int(np.ceil(np.log(upper * fastest) / 0.25)) + 1, 3)
        rates = np.geomspace(1.0 / upper, fastest, count)
        decays = np.exp(-np.outer(shifted, rates))
        if offset:
            decays = decays - decays.mean(axis=0)
        table = decays / np.linalg.norm(decays, axis=0)
        nested = cls.prepare(times, bounds) if offset and not negative_offset else None
        return cls(shifted, float(times[0]), offset, rates, table.astype(np.float32), nested)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return 3 if self.offset else 2

    def decay(self, rate: np.ndarray) -> np.ndarray:
        """Return the decay from time 0 on, shape (n, v), for rates in 1/ms."""
        return np.exp(-np.multiply.outer(self.times + self.start, rate))

    def solve(self, y: np.ndarray, sigma: np.ndarray | None = None) -> Solution:
        """Return the least-squares fit of signals `y` (n, v), each voxel scaled to a maximum near 1.

        Where the best offset would be negative and the model forbids that, the constraint is active: the best fit is
        the one without an offset.
        """
        rate, edge, converged = solve_rate(self, y)
        linear = linear_part(self, y, rate)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            variance = noise_variance(linear.ssr, sigma, len(y) - self.parameters) / (rate**4 * linear.information)
        if self.offset:
            converged &= rate * np.sqrt(linear.information) > _ROUNDING
        found = Solution(1 / rate, linear.m0, linear.ssr, total_squares(y), variance, edge, converged, linear.offset)
        if self.nested is not None and found.offset is not None:
            active = np.flatnonzero((found.offset < 0) | (found.m0 <= 0) | (edge < 0))
            if active.size:
                simpler = self.nested.solve(y[:, active], None if sigma is None else sigma[active])
                for name, values in vars(simpler).items():
                    if values is not None:
                        getattr(found, name)[active] = values
        return found


@dataclass(frozen=True)
class LogLinearModel:
    """A line through the logarithm of the signals."""

    #: Without offset.
    mono: MonoModel
    #: Weight each sample by y^2, the inverse variance of log(y) for constant noise (Bevington); False is the ordinary
    #: line, which noise in late echoes biases. A sample at zero has no logarithm and no weight.
    weighted: bool

    @property
    def times(self) -> np.ndarray:
        """Times in ms, minus the first."""
        return self.mono.times

    def solve(self, y: np.ndarray, sigma: np.ndarray | None = None) -> Solution:
        """Return the line's rate and M0 for signals `y` (n, v), not negative."""
        model = self.mono
        positive = y > 0
        weight = y * y if self.weighted else positive.astype(float)
        log_y = np.log(np.where(positive, y, 1.0))
        t = model.times[:, None]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weight /= weight.sum(axis=0)
            deviation = t - _dot(weight, np.broadcast_to(t, y.shape))
            mean = _dot(weight, log_y)
            slope = -_dot(weight * deviation, log_y - mean) / _dot(weight * deviation, deviation)
            rate = np.clip(slope, model.rates[0], model.rates[-1])
            edge = (slope >= model.rates[-1]).astype(np.int8) - (slope <= model.rates[0]).astype(np.int8)
            m0 = np.exp(mean + slope * (t - deviation)[0] + slope * model.start)
            residual = y - m0 * model.decay(slope)
            ssr = _dot(residual, residual)
            information = linear_part(model, y, rate).information
            variance = noise_variance(ssr, sigma, len(y) - 2) / (rate**4 * information)
        return Solution(1 / rate, m0, ssr, total_squares(y), variance, edge, np.isfinite(rate))


def solve_rate(model: MonoModel, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each voxel's least-squares rate in 1/ms, where it lies at an edge, and whether it converged, shape (v,).

    Signals, shape (n, v), are finite, each voxel scaled to a maximum near 1. The edge is -1 where the optimum lies at
    or below the lowest rate (upper bound of the time), 1 at or above the highest.
    """
    bounds = model.rates[0], model.rates[-1]
    # Compiled code does not wait for other threads; for a few voxels it is not worth its import.
    compiled = kernel_if_numba(_search, error_model="numpy") if y.shape[1] >= _ROWS and not model.offset else None
    if compiled is None:
        result, rising, converged = _search_together(model, y)
    else:
        result, (rising, converged) = np.empty(y.shape[1]), np.empty((2, y.shape[1]), bool)
        compiled(y, model.times, model.rates, model.table, result, rising, converged)
    # The slope of a search that ends at a bound still points outward there.
    edge = (rising & (result >= bounds[1] * (1 - 2 * _TOLERANCE))).astype(np.int8)
    edge[~rising & (result <= bounds[0] * (1 + 2 * _TOLERANCE))] = -1
    return np.clip(result, *bounds), edge, converged


def _search(y, times, rates, table, result, rising, converged):
    """Fill in rate, sign of the slope at the end and success of each voxel; without an offset, the first time is 0."""
    echoes, count = table.shape
    step_up = rates[1] / rates[0]
    step_down, apart = 1 / step_up, math.log(step_up)
    signal, score, top = np.empty((echoes, _ROWS), np.float32), np.empty(_ROWS, np.float32), np.empty(_ROWS, np.float32)
    place = np.empty(_ROWS, np.int32)
    for start in range(0, y.shape[1], _ROWS):
        size = min(_ROWS, y.shape[1] - start)
        signal[:, :size] = y[:, start:start + size]
        top[:], place[:] = -np.inf, 0
        for k in range(count):  # many voxels at a time, for vector instructions
            score[:] = 0
            for echo in range(echoes):
                for j in range(size):
                    score[j] += signal[echo, j] * table[echo, k]
            for j in range(size):
                place[j] = k if score[j] > top[j] else place[j]
                top[j] = max(top[j], score[j])
        for j in range(size):
            v, best, here = start + j, place[j], top[j]
            if score[j] >= np.float32(1 - 1e-6) * here:  # see _best_in_table
                best = count - 1
            rate, low, high = rates[best], rates[0], rates[count - 1]
            if 0 < best < count - 1:
                before = after = np.float32(0)
                for echo in range(echoes):
                    before += signal[echo, j] * table[echo, best - 1]
                    after += signal[echo, j] * table[echo, best + 1]
                part = 0.5 * (before - after) / (before - 2 * here + after)
                rate *= math.exp(part * apart) if abs(part) < 1 else 1.0
            done = up = False
            for _ in range(_MAX_STEPS):
                a, b = y[0, v], 1.0
                p = s = q = w = 0.0
                for echo in range(1, echoes):
                    t = times[echo]
                    e = math.exp(-t * rate)
                    g, h = y[echo, v] * e, e * e
                    a, p, s = a + g, p + t * g, s + t * t * g
                    b, q, w = b + h, q + t * h, w + t * t * h
                a, b = 1 / a, 1 / b
                p, q = p * a, q * b
                slope, curvature = q - p, s * a - p * p - 2 * w * b + 2 * q * q
                up = slope > 0
                low, high = rate if up else low, high if up else rate
                least, most = rate * step_down, rate * step_up
                proposal = rate - slope / curvature if curvature < 0 else most if up else least
                proposal = min(max(proposal, least), most)
                if not low <= proposal <= high:
                    proposal = 0.5 * (low + high)
                done = abs(proposal - rate) <= _TOLERANCE * rate
                rate = proposal
                if done:
                    break
            result[v], rising[v], converged[v] = rate, up, done


def _search_together(model: MonoModel, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same as :func:`_search` fills in, by steps of all voxels."""
    if model.offset:
        y = y - y.mean(axis=0)
    rate = _best_in_table(model, y)
    step_up = model.rates[1] / model.rates[0]
    low, high = np.full(rate.size, model.rates[0]), np.full(rate.size, model.rates[-1])
    result, rising = rate.copy(), np.zeros(rate.size, bool)
    converged = np.zeros(rate.size, bool)
    active = np.arange(rate.size)
    for _ in range(_MAX_STEPS):
        slope, curvature = _derivatives(model, y, rate)
        up = slope > 0
        low, high = np.where(up, rate, low), np.where(up, high, rate)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(curvature < 0, -slope / curvature, np.where(up, np.inf, -np.inf))
        # At most one step of the table, so that the optimum found is the one next to the table's best.
        proposal = np.clip(rate + step, rate / step_up, rate * step_up)
        proposal = np.where((proposal >= low) & (proposal <= high), proposal, 0.5 * (low + high))
        done = np.abs(proposal - rate) <= _TOLERANCE * rate
        rate = proposal
        left = rate.size - np.count_nonzero(done)
        # Moving voxels about costs as much as an iteration: drop the finished ones only where that pays.
        if left < 0.7 * active.size or left == 0:
            result[active], rising[active] = rate, up
            converged[active[done]] = True
            keep = ~done
            active, y, rate, low, high = active[keep], y[:, keep], rate[keep], low[keep], high[keep]
            if not active.size:
                break
    result[active] = rate
    return result, rising, converged


def _best_in_table(model: MonoModel, y: np.ndarray) -> np.ndarray:
    """Return the best tabulated rate of each voxel, refined with a parabola: a start, not more."""
    voxels, count = y.shape[1], model.rates.size
    signals = y.T.astype(np.float32)
    score = np.empty((voxels, count), np.float32)
    for start in range(0, voxels, _ROWS):
        np.matmul(signals[start:start + _ROWS], model.table, out=score[start:start + _ROWS])
    best = score.argmax(axis=1)
    flat, first = score.ravel(), np.arange(0, score.size, count)
    # Decays of which only the first echo is left look the same, in float32, at all fast rates: the way from the
    # fastest one to the optimum is short, and the way from the slowest long.
    best[flat.take(first + count - 1) >= (1 - 1e-6) * flat.take(first + best)] = count - 1
    inner = np.clip(best, 1, count - 2)
    before, here, after = (flat.take(first + inner + shift) for shift in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        part = 0.5 * (before - after) / (before - 2 * here + after)
    shift = np.where((best == inner) & (np.abs(part) < 1), part, 0.0).astype(float)
    return model.rates[best] * (model.rates[1] / model.rates[0]) ** shift


def _derivatives(model: MonoModel, y: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and curvature in R of log(y.e / |e|), whose maximum is the least-squares rate."""
    t = model.times
    e = np.multiply.outer(-t, rate)
    if model.offset:
        # Centered before they are multiplied: slow decays differ from their mean in the last digits only.
        centered = np.expm1(e)
        centered -= centered.mean(axis=0)
        first = t[:, None] * np.exp(e, out=e)
        second = t[:, None] * first
        first -= first.mean(axis=0)
        a, p, s = _dot(y, centered), _dot(y, first), _dot(y, second)
        b, q, v = _dot(centered, centered), _dot(centered, first), _dot(first, first) + _dot(centered, second)
    else:
        powers = np.stack([np.ones(t.size), t, t * t])
        np.exp(e, out=e)
        a, p, s = powers @ (y * e)
        np.multiply(e, e, out=e)
        b, q, v = powers @ e
        v *= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        p /= a
        q /= b
        slope = q - p
        curvature = s / a - p * p - v / b + 2 * q * q
    return slope, curvature


@dataclass
class LinearPart:
    """What follows from the rate; arrays of shape (v,)."""

    #: Signal at time 0; constant offset (zeros without one).
    m0: np.ndarray
    offset: np.ndarray
    #: Residual sum of squares.
    ssr: np.ndarray
    #: Squared norm of d model / d rate, orthogonal to the linear parameters.
    information: np.ndarray


def linear_part(model: MonoModel, y: np.ndarray, rate: np.ndarray) -> LinearPart:
    """Return amplitude, offset, residual and the information about the rate, for signals `y` (n, v)."""
    t = model.times
    e = np.exp(np.multiply.outer(-t, rate))
    offset = np.zeros_like(rate)
    derivative = t[:, None] * e
    centered = e
    if model.offset:
        mean_y, mean_e = y.mean(axis=0), e.mean(axis=0)
        centered = e - mean_e
        derivative -= derivative.mean(axis=0)
    norm = _dot(centered, centered)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        amplitude = _dot(y, centered) / norm
        if model.offset:
            offset = mean_y - amplitude * mean_e
        residual = y - amplitude * e
        residual -= offset
        projection = _dot(derivative, centered) / norm
        derivative -= projection * centered
        information = amplitude**2 * _dot(derivative, derivative)
        m0 = amplitude * np.exp(rate * model.start)
    return LinearPart(m0, offset, _dot(residual, residual), information)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of products over the first axis."""
    return np.einsum("nv,nv->v", a, b)
