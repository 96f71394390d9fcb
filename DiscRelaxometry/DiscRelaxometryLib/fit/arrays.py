"""Fit many decays at once: voxels are sorted out, fitted in cache-sized chunks on several threads, and judged.

The model functions live in ``fit_mono``, ``fit_rician`` and ``fit_epg``; volumes with their geometry in ``fitting``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import EchoSeriesError
from ..parallel import ordered
from ..progress import ProgressCallback, silent, subrange
from .epg import EpgModel, solve_epg
from .mono import MonoModel, fit_least_squares, linear_part, log_linear_rate
from .noise import residual_sigma
from .rician import solve_rician
from .status import FitStatus

MODELS = {"mono2": 2, "mono3": 3, "epg": 3}
ESTIMATORS = ("nlls", "loglinear", "loglinear-unweighted", "rician")
_CHUNK = 4096  # Voxels; the temporaries of one chunk stay in a core's L2 cache.


@dataclass
class ArrayFit:
    """Result of :func:`fit_arrays`; arrays of shape (voxels,), NaN where `status` is not OK.

    Attributes
    ----------
    value : numpy.ndarray
        T1rho or T2 in ms.
    m0, offset, b1 : numpy.ndarray or None
        Signal at time 0, constant offset (``mono3``), relative transmit field in percent (``epg``).
    se : numpy.ndarray
        Standard error of `value` in ms; NaN where there is neither a noise level nor a residual to take it from.
    r2 : numpy.ndarray
        Coefficient of determination.
    status : numpy.ndarray of uint8
        :class:`FitStatus`.
    sigma : float or None
        Noise level used by the Rician estimator (median, where a map was given).
    """

    value: np.ndarray
    m0: np.ndarray
    offset: np.ndarray | None
    b1: np.ndarray | None
    se: np.ndarray
    r2: np.ndarray
    status: np.ndarray
    sigma: float | None = None


@dataclass(frozen=True)
class FitOptions:
    """Settings of a fit; see :func:`fit_arrays` for their meaning."""

    model: str = "mono2"
    estimator: str = "nlls"
    bounds: tuple[float, float] = (1.0, 1000.0)
    noise: float | np.ndarray | None = None
    noise_floor: float | None = None
    min_r2: float | None = None
    saturation: float | None = None
    negative_offset: bool = False
    t1: float = 1000.0
    refocusing: float = 180.0
    b1_range: tuple[float, float] | None = None
    echo_spacing: float | None = None

    def __post_init__(self):
        if self.model not in MODELS:
            raise EchoSeriesError(f"'{self.model}' is not a model: choose one of {', '.join(MODELS)}.")
        if self.estimator not in ESTIMATORS:
            raise EchoSeriesError(f"'{self.estimator}' is not an estimator: choose one of {', '.join(ESTIMATORS)}.")
        if self.model != "mono2" and self.estimator != "nlls":
            raise EchoSeriesError(f"The model '{self.model}' is fitted by least squares only: choose the estimator "
                                  f"'nlls', or the model 'mono2' for '{self.estimator}'.")
        lower, upper = self.bounds
        if not (np.isfinite([lower, upper]).all() and 0 < lower < upper):
            raise EchoSeriesError(f"The bounds ({lower}, {upper}) ms can not be used: give a lower one above 0 and a "
                                  "larger upper one.")
        if self.noise is not None and not np.all(np.asarray(self.noise) > 0):
            raise EchoSeriesError("The noise level (sigma) has to be above 0 everywhere.")

    @property
    def parameters(self) -> int:
        """Number of parameters that the model estimates."""
        if self.model == "epg" and self.b1_range is not None and self.b1_range[0] == self.b1_range[1]:
            return 2
        return MODELS[self.model]


def fit_arrays(signals: np.ndarray, times_ms: Sequence[float], *, mask: np.ndarray | None = None,
               echoes: Sequence[int] | None = None, workers: int | None = None,
               progressCallback: ProgressCallback | None = None, **options) -> ArrayFit:
    """Fit a decay to every voxel.

    Parameters
    ----------
    signals : numpy.ndarray, shape (n, voxels)
        Magnitude signals, one row a time, of any real type; not modified.
    times_ms : sequence of float, length n
        Spin-lock or echo times in ms, in any order.
    mask : numpy.ndarray of bool, shape (voxels,), optional
        Voxels to fit.
    echoes : sequence of int, optional
        Rows to use, counted from 0.
    workers : int, optional
        Threads; by default one for each available core. The result does not depend on it.
    progressCallback : callable, optional
        Called with (fraction, text) between chunks; raising Cancelled stops the fit.
    **options
        ``model`` (``mono2``, ``mono3``, ``epg``), ``estimator`` (``nlls``, ``loglinear``, ``loglinear-unweighted``,
        ``rician``), ``bounds`` (ms), ``noise`` (sigma, a number or one a voxel; for ``rician`` estimated from the
        residuals if absent; also used for the standard error), ``noise_floor`` (echoes from the first one below it
        are left out, voxel by voxel), ``min_r2``, ``saturation`` (signal at or above which an echo is clipped; by
        default the largest integer of an integer type), ``negative_offset`` (allow it in ``mono3``), and for ``epg``:
        ``t1`` (ms), ``refocusing`` (degrees), ``b1_range`` and ``echo_spacing`` (ms).

    Returns
    -------
    ArrayFit
        Float64 for float64 signals, else float32.

    Raises
    ------
    EchoSeriesError
        For unusable times, options, or fewer echoes than parameters.
    """
    settings = FitOptions(**options)
    signals = np.asarray(signals)
    rows, times = select_echoes(signals, times_ms, echoes, settings)
    if settings.saturation is None and signals.dtype.kind in "iu":
        settings = replace(settings, saturation=float(np.iinfo(signals.dtype).max))
    if settings.estimator == "rician" and settings.noise is None:
        first = fit_arrays(signals, times_ms, mask=mask, echoes=echoes, workers=workers,
                           progressCallback=subrange(progressCallback, 0, 0.3), **{**options, "estimator": "nlls"})
        settings = replace(settings, noise=_noise_from(signals, rows, times, first, settings))
        progressCallback = subrange(progressCallback, 0.3, 1)
    return _run(signals, rows, times, mask, settings, workers, progressCallback or silent)


def select_echoes(signals: np.ndarray, times_ms: Sequence[float], echoes: Sequence[int] | None,
                  settings: FitOptions) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to use, ordered by time, and their times; raise EchoSeriesError if they can not be fitted."""
    times = np.asarray(times_ms, float).ravel()
    if signals.ndim != 2 or signals.dtype.kind not in "biuf":
        raise EchoSeriesError(f"Real signals of shape (echoes, voxels) are needed; these are {signals.dtype} of shape "
                              f"{signals.shape}.")
    if times.size != signals.shape[0]:
        raise EchoSeriesError(f"There are {signals.shape[0]} echoes but {times.size} times: give one time an echo.",
                              anchor="echo-times")
    if not np.isfinite(times).all() or np.any(times < 0):
        raise EchoSeriesError("A time is negative or not a number: correct the times (ms).", anchor="echo-times")
    rows = np.arange(times.size) if echoes is None else np.asarray(echoes, int).ravel()
    if np.any(rows < 0) or np.any(rows >= times.size) or np.unique(rows).size != rows.size:
        raise EchoSeriesError(f"The echo selection {rows.tolist()} does not fit a series of {times.size} echoes "
                              "(counted from 0, each at most once).")
    rows = rows[np.argsort(times[rows], kind="stable")]
    different = np.unique(times[rows]).size
    if different < settings.parameters:
        raise EchoSeriesError(
            f"The model '{settings.model}' has {settings.parameters} parameters, but the series has only {different} "
            f"different time(s): use a simpler model, or add echoes.", anchor="too-few-echoes")
    return rows, times[rows]


def _noise_from(signals, rows, times, fit: ArrayFit, settings: FitOptions) -> float:
    """Estimate sigma from the residuals of a least-squares fit, on at most about 200 000 fitted voxels."""
    good = np.flatnonzero(fit.status == FitStatus.OK)
    good = good[::max(good.size // 200_000, 1)]
    y = signals[rows][:, good].astype(float)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    return residual_sigma((1 - fit.r2[good]) * total, times.size - settings.parameters)


def _run(signals, rows, times, mask, settings, workers, callback) -> ArrayFit:
    voxels = signals.shape[1]
    kind = np.float64 if signals.dtype == np.float64 else np.float32
    names = ["value", "m0", "se", "r2"]
    names += {"mono3": ["offset"], "epg": ["b1"]}.get(settings.model, [])
    maps = {name: np.full(voxels, np.nan, kind) for name in names}
    status = np.full(voxels, FitStatus.OUTSIDE_MASK, np.uint8)
    index = None if mask is None else np.flatnonzero(np.asarray(mask, bool).ravel())
    if mask is not None and np.size(mask) != voxels:
        raise EchoSeriesError(f"The mask has {np.size(mask)} voxels, the echoes have {voxels}.")
    total = voxels if index is None else index.size
    noise = None if settings.noise is None else np.broadcast_to(np.asarray(settings.noise, float).ravel(), voxels)
    models = _prepare(times, settings)

    def work(start: int) -> None:
        where = slice(start, min(start + _CHUNK, total)) if index is None else index[start:start + _CHUNK]
        chunk = signals[rows, where] if index is None else signals[rows[:, None], where]
        code, values = _fit_chunk(chunk, None if noise is None else noise[where], models, settings)
        status[where] = code
        for name, array in maps.items():
            array[where] = values[name]

    starts = range(0, total, _CHUNK)
    for _ in ordered(work, starts, workers, progress=callback, words=lambda start: f"Fitting {total} voxels"):
        pass
    return ArrayFit(maps["value"], maps["m0"], maps.get("offset"), maps.get("b1"), maps["se"], maps["r2"], status,
                    None if noise is None else float(np.median(noise)))


def _prepare(times, settings) -> dict[int, tuple]:
    """Return the prepared model for each number of leading echoes that a voxel may keep above the noise floor."""
    least = settings.parameters if settings.noise_floor is not None else times.size
    models = {}
    for count in range(least, times.size + 1):
        kept = times[:count]
        if np.unique(kept).size < settings.parameters:
            continue
        if settings.model == "epg":
            models[count] = EpgModel.prepare(kept, settings.bounds, settings.t1, settings.refocusing,
                                             settings.b1_range, settings.echo_spacing)
        else:
            models[count] = MonoModel.prepare(kept, settings.bounds, settings.model == "mono3",
                                              settings.negative_offset)
    return models


def _fit_chunk(chunk, noise, models, settings) -> tuple[np.ndarray, dict]:
    """Sort out the voxels of one chunk (n, v) and fit the rest, by number of echoes kept."""
    y = chunk.astype(np.float64)
    code, peak, kept = _triage(y, settings)
    values = {name: np.full(code.size, np.nan) for name in ("value", "m0", "offset", "b1", "se", "r2")}
    good = code == FitStatus.OK
    for count, model in models.items():
        at = np.flatnonzero(good & (kept == count)) if kept is not None else np.flatnonzero(good)
        if not at.size:
            continue
        everything = at.size == code.size
        scaled = (y[:count] if everything else y[:count, at]) / peak[at]
        sigma = None if noise is None else noise[at] / peak[at]
        fitted = _fit_voxels(scaled, sigma, model, settings)
        code[at] = fitted.pop("code")
        fitted = _judge(code, at, fitted, settings)
        for name, value in fitted.items():
            values[name][at] = value * peak[at] if name in ("m0", "offset") else value
    return code, values


def _triage(y, settings):
    """Return status, largest echo, and (with a noise floor) the number of leading echoes above it."""
    with np.errstate(invalid="ignore", over="ignore"):
        peak, low = y.max(axis=0), y.min(axis=0)
        code = np.zeros(peak.size, np.uint8)
        kept = None
        if settings.noise_floor is not None:
            below = y < settings.noise_floor
            kept = np.where(below.any(axis=0), below.argmax(axis=0), y.shape[0])
            code[kept < settings.parameters] = FitStatus.TOO_FEW_ECHOES
        if settings.saturation is not None:
            code[peak >= settings.saturation] = FitStatus.SATURATED
        if (low <= 0).any() or not np.isfinite(peak + low).all():
            # A zero between strong neighbors is a lost echo; one among weak neighbors is a signal that has decayed.
            strong = y > 0.25 * peak
            lost = y == 0
            lost[:-1] &= strong[1:]
            lost[1:] &= strong[:-1]
            lost[-1] = False
            code[lost.any(axis=0)] = FitStatus.DEAD_ECHO
            code[low < 0] = FitStatus.NEGATIVE
            code[(peak == 0) & (low == 0)] = FitStatus.NO_SIGNAL
            code[~np.isfinite(y).all(axis=0)] = FitStatus.NOT_FINITE
    return code, peak, kept


def _fit_voxels(y, sigma, model, settings) -> dict[str, np.ndarray]:
    """Fit voxels scaled to a peak of 1; return maps and the status code."""
    freedom = y.shape[0] - settings.parameters
    if settings.model == "epg":
        out = solve_epg(model, y)
        fitted = {"value": out["value"], "m0": out["m0"], "b1": 100 * out["b1"]}
        unit_variance = out["unit_variance"]
    else:
        out = _fit_mono(model, y, sigma, settings)
        fitted = {"value": 1 / out["rate"], "m0": out["m0"]}
        if settings.model == "mono3":
            fitted["offset"] = out["offset"]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            unit_variance = fitted["value"] ** 4 / out["information"]
    with np.errstate(divide="ignore", invalid="ignore"):
        if sigma is not None:
            variance = sigma**2
        else:
            variance = out["ssr"] / freedom if freedom else np.nan
        fitted["se"] = np.sqrt(unit_variance * variance)
        if "rate_variance" in out:
            fitted["se"] = np.sqrt(out["rate_variance"]) * fitted["value"] ** 2
        fitted["r2"] = 1 - out["ssr"] / out["sst"]
    fitted["code"] = _codes(model, y, out, settings)
    return fitted


def _fit_mono(model, y, sigma, settings) -> dict[str, np.ndarray]:
    if settings.estimator.startswith("loglinear"):
        # A sample at zero has no logarithm and, weighted by its square, no weight.
        safe = np.maximum(y, 1e-6)
        rate, log_m0 = log_linear_rate(model.times + model.start, safe, settings.estimator == "loglinear")
        low, high = model.rates[0], model.rates[-1]
        edge = np.where(rate <= low, -1, np.where(rate >= high, 1, 0)).astype(np.int8)
        out = linear_part(model, y, np.clip(rate, low, high))
        out["m0"] = np.exp(log_m0)
        out["ssr"] = ((y - out["m0"] * np.exp(-np.multiply.outer(model.times + model.start, rate))) ** 2).sum(axis=0)
        return {**out, "rate": np.where(edge == 0, rate, np.clip(rate, low, high)), "edge": edge,
                "converged": np.isfinite(rate)}
    out = fit_least_squares(model, y)
    if settings.estimator == "rician":
        likely = solve_rician(model.times + model.start, y, sigma, out["rate"], out["m0"], tuple(model.rates[[0, -1]]))
        out.update(rate=likely["rate"], m0=likely["m0"], edge=likely["edge"], converged=likely["converged"],
                   rate_variance=likely["variance"])
        fitted = likely["m0"] * np.exp(-np.multiply.outer(model.times + model.start, likely["rate"]))
        # The magnitude expected from a Rician distribution, not the noise-free decay, is what the data scatter about.
        out["ssr"] = ((y - rician_mean(fitted, sigma)) ** 2).sum(axis=0)
    return out


def rician_mean(amplitude: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Return the expected magnitude of a signal of the given noise-free amplitude and noise level."""
    from scipy.special import i0e, i1e

    x = amplitude**2 / (4 * sigma**2)
    return sigma * np.sqrt(np.pi / 2) * ((1 + 2 * x) * i0e(x) + 2 * x * i1e(x))


def _codes(model, y, out, settings) -> np.ndarray:
    code = np.zeros(y.shape[1], np.uint8)
    code[~out["converged"]] = FitStatus.NOT_CONVERGED
    edge = out["edge"]
    code[edge < 0] = FitStatus.AT_UPPER_BOUND
    code[edge > 0] = FitStatus.AT_LOWER_BOUND
    doubtful = np.flatnonzero((edge < 0) | (out["m0"] <= 0))
    if doubtful.size:
        times = model.echoes.astype(float) if settings.model == "epg" else model.times
        slope = (times - times.mean()) @ y[:, doubtful]
        rising = (slope >= -1e-10 * times.max()) | (out["m0"][doubtful] <= 0)
        code[doubtful[rising]] = FitStatus.NO_DECAY
    return code


def _judge(code, at, fitted, settings) -> dict[str, np.ndarray]:
    """Apply the minimum R squared, and blank everything that failed."""
    if settings.min_r2 is not None:
        code[at[(code[at] == FitStatus.OK) & ~(fitted["r2"] >= settings.min_r2)]] = FitStatus.LOW_R2
    failed = code[at] != FitStatus.OK
    if failed.any():
        fitted = {name: np.where(failed, np.nan, value) for name, value in fitted.items()}
    return fitted
