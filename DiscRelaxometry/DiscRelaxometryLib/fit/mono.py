"""Mono-exponential decay with or without an offset: variable projection and log-linear regression.

``y(t) = M0 exp(-R t) [+ C]`` is linear in M0 and C. Eliminating them (variable projection, Golub and Pereyra,
SIAM J Numer Anal 1973;10:413) leaves one equation in the rate R, solved here by a Newton iteration inside a bracket
that a table of candidate rates supplies. The equations are in ``Docs/method/fitting.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ROWS = 512  # Voxels a table product: small enough that BLAS stays single-threaded inside our own threads.
_TOLERANCE = 2e-5  # Last Newton step relative to the rate; the error after it is of the order of its square.
_MAX_STEPS = 60


@dataclass(frozen=True)
class MonoModel:
    """What a mono-exponential fit needs to know, prepared once a series.

    Attributes
    ----------
    times : numpy.ndarray, shape (n,)
        Times in ms, ascending, minus `start` (so that no exponential underflows).
    start : float
        First time in ms.
    offset : bool
        Whether the model has a constant offset.
    rates : numpy.ndarray, shape (k,)
        Candidate rates in 1/ms, ascending from 1/upper to 1/lower bound, equidistant in logarithm.
    table : numpy.ndarray, shape (n, k), float32
        Unit decays at `rates` (centered where the model has an offset).
    nested : MonoModel or None
        The model without the offset, for voxels whose offset would be negative; None allows negative offsets.
    """

    times: np.ndarray
    start: float
    offset: bool
    rates: np.ndarray
    table: np.ndarray
    nested: MonoModel | None = None

    @classmethod
    def prepare(cls, times: np.ndarray, bounds: tuple[float, float], offset: bool,
                negative_offset: bool = False) -> MonoModel:
        """Tabulate decays between the `bounds` (ms) at `times` (ms, ascending), about 25 % apart."""
        start = float(times[0])
        shifted = np.asarray(times, float) - start
        lower, upper = bounds
        count = max(int(np.ceil(np.log(upper / lower) / 0.25)) + 1, 3)
        rates = np.geomspace(1.0 / upper, 1.0 / lower, count)
        decays = np.exp(-np.outer(shifted, rates))
        if offset:
            decays = decays - decays.mean(axis=0)
        table = decays / np.linalg.norm(decays, axis=0)
        nested = cls.prepare(times, bounds, False) if offset and not negative_offset else None
        return cls(shifted, start, offset, rates, table.astype(np.float32), nested)


def fit_least_squares(model: MonoModel, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return rate, edge flag, convergence and the linear part of the least-squares fit of each voxel.

    Where the best offset would be negative and the model forbids that, the constraint is active: the best fit is the
    one without an offset.
    """
    rate, edge, converged = solve_rate(model, y)
    out = {**linear_part(model, y, rate), "rate": rate, "edge": edge, "converged": converged}
    if model.nested is not None:
        active = np.flatnonzero((out["offset"] < 0) | (out["m0"] <= 0) | (edge < 0))
        if active.size:
            for name, value in fit_least_squares(model.nested, y[:, active]).items():
                out[name][active] = value
    return out


def solve_rate(model: MonoModel, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least-squares rate of each voxel.

    Parameters
    ----------
    model : MonoModel
    y : numpy.ndarray, shape (n, v)
        Signals, finite, each voxel scaled to a maximum near 1.

    Returns
    -------
    rate : numpy.ndarray, shape (v,)
        Rate in 1/ms.
    edge : numpy.ndarray of int8, shape (v,)
        -1 where the optimum lies at the lowest rate (upper bound of the time), 1 at the highest, else 0.
    converged : numpy.ndarray of bool, shape (v,)
    """
    if model.offset:
        y = y - y.mean(axis=0)
    rate, low, high, edge = _bracket(model, y)
    voxels = rate.size
    converged = np.zeros(voxels, bool)
    result = rate.copy()
    active = np.arange(voxels)
    for step in range(_MAX_STEPS):
        slope, curvature = _derivatives(model, y, rate)
        if step == 0:
            # Only an optimum beyond the table has its slope pointing outward at the table's end.
            edge[(edge < 0) & (slope > 0)] = 0
            edge[(edge > 0) & (slope < 0)] = 0
            converged |= edge != 0
        low = np.where(slope > 0, rate, low)
        high = np.where(slope > 0, high, rate)
        with np.errstate(divide="ignore", invalid="ignore"):
            proposal = rate - slope / curvature
        safe = (curvature < 0) & (proposal >= low) & (proposal <= high)
        proposal = np.where(safe, proposal, 0.5 * (low + high))
        done = np.abs(proposal - rate) <= _TOLERANCE * rate
        rate = proposal
        if step == 0:
            done |= converged
            rate = np.where(converged, result, rate)
        left = voxels - np.count_nonzero(done)
        # Moving voxels about costs as much as an iteration: drop the finished ones only where that pays.
        if left < 0.7 * active.size or left == 0:
            result[active] = rate
            converged[active[done]] = True
            keep = ~done
            active, y, rate, low, high = active[keep], y[:, keep], rate[keep], low[keep], high[keep]
            voxels = active.size
            if not voxels:
                break
    result[active] = rate
    return result, edge, converged


def _bracket(model: MonoModel, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find the best tabulated rate, refine it with a parabola, and return it with its neighbors and the edge flag."""
    voxels = y.shape[1]
    last = model.rates.size - 1
    signals = y.T.astype(np.float32)
    score = np.empty((voxels, model.rates.size), np.float32)
    for start in range(0, voxels, _ROWS):
        np.matmul(signals[start:start + _ROWS], model.table, out=score[start:start + _ROWS])
    best = score.argmax(axis=1)
    first = np.arange(0, score.size, model.rates.size)
    flat = score.ravel()
    # So fast a decay that only the first echo is left looks the same, in float32, at all the highest rates.
    best[flat.take(first + last) >= (1 - 1e-6) * flat.take(first + best)] = last
    inner = np.clip(best, 1, last - 1)
    first += inner
    before, here, after = flat.take(first - 1), flat.take(first), flat.take(first + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        part = 0.5 * (before - after) / (before - 2 * here + after)
    shift = np.where((best == inner) & (np.abs(part) < 1), part, 0.0).astype(float)
    edge = np.zeros(voxels, np.int8)
    edge[best == 0] = -1
    edge[best == last] = 1
    ratio = model.rates[1] / model.rates[0]
    rate = model.rates[best] * ratio**shift
    below = np.maximum(np.where(best == last, last - 9, best - 1), 0)
    return rate, model.rates[below], model.rates[np.minimum(best + 1, last)], edge


def _derivatives(model: MonoModel, y: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return slope and curvature in R of log(y.e / |e|), whose maximum is the least-squares rate."""
    t = model.times
    n = t.size
    powers = np.stack([np.ones(n), t, t * t])
    e = np.multiply.outer(-t, rate)
    np.exp(e, out=e)
    a, p, s = powers @ (y * e)
    if model.offset:
        m0, m1, m2 = powers @ e / n
    np.multiply(e, e, out=e)
    b, q, v = powers @ e
    v *= 2
    if model.offset:
        b -= n * m0 * m0
        q -= n * m0 * m1
        v -= n * (m1 * m1 + m0 * m2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p /= a
        q /= b
        slope = q - p
        curvature = s / a - p * p - v / b + 2 * q * q
    return slope, curvature


def linear_part(model: MonoModel, y: np.ndarray, rate: np.ndarray) -> dict[str, np.ndarray]:
    """Return what follows from the rate: amplitude, offset, residual and the information about the rate.

    Parameters
    ----------
    model : MonoModel
    y : numpy.ndarray, shape (n, v)
    rate : numpy.ndarray, shape (v,)

    Returns
    -------
    dict
        ``m0`` (at time 0), ``offset`` (zeros without one), ``ssr``, ``sst`` (sums of squares, residual and total)
        and ``information`` (squared norm of d model / dR, orthogonal to the linear parameters), each of shape (v,).
    """
    t = model.times
    e = np.exp(np.multiply.outer(-t, rate))
    mean_y = y.mean(axis=0)
    offset = np.zeros_like(rate)
    derivative = t[:, None] * e
    if model.offset:
        mean_e = e.mean(axis=0)
        centered = e - mean_e
        derivative -= derivative.mean(axis=0)
    else:
        centered = e
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
    total = y - mean_y
    return {"m0": m0, "offset": offset, "ssr": _dot(residual, residual), "sst": _dot(total, total),
            "information": information}


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum of products over the first axis."""
    return np.einsum("nv,nv->v", a, b)


def log_linear_rate(times: np.ndarray, y: np.ndarray, weighted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return rate (1/ms) and log amplitude of a straight line through log(y).

    Parameters
    ----------
    times : numpy.ndarray, shape (n,)
    y : numpy.ndarray, shape (n, v)
        Positive signals.
    weighted : bool
        Weight each sample by y^2, the inverse variance of log(y) for constant noise (Bevington); False is the
        ordinary line, which noise in late echoes biases.
    """
    log_y = np.log(y)
    w = y * y if weighted else np.ones_like(y)
    w /= w.sum(axis=0)
    t = times[:, None]
    mean_t, mean_l = _dot(w, np.broadcast_to(t, w.shape)), _dot(w, log_y)
    deviation = t - mean_t
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = -_dot(w * deviation, log_y - mean_l) / _dot(w * deviation, deviation)
    return rate, mean_l + rate * mean_t
