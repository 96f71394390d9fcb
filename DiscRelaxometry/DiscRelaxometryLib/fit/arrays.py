"""Fit many decays at once: voxels are sorted out, fitted in cache-sized chunks on several threads, and judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import EchoSeriesError
from ..parallel import ordered
from ..progress import ProgressCallback, silent, subrange
from ..tables import Column, Table
from .epg import EpgModel
from .mono import LogLinearModel, MonoModel
from .noise import background_sigma, residual_sigma
from .options import FitOptions
from .status import FitStatus, status_counts

_CHUNK = 32768  # Voxels: smaller chunks make threads wait for the GIL, larger ones leave the cache.
#: Largest values of common scanner and file formats, looked for because echoes are often held as float32.
_CEILINGS = (4095.0, 32767.0, 65535.0)


@dataclass(frozen=True)
class DecayFit:
    """Maps of one fit; arrays of one shape, NaN where `status` is not ``FitStatus.OK``."""

    #: As asked for.
    options: FitOptions
    #: T1rho or T2 in ms.
    value: np.ndarray
    #: Signal at time 0.
    m0: np.ndarray
    #: Standard error of `value` in ms, from the Fisher information; NaN where there is neither a noise level nor a
    #: residual to take it from.
    se: np.ndarray
    #: Coefficient of determination.
    r2: np.ndarray
    #: uint8. :class:`FitStatus`.
    status: np.ndarray
    #: Constant offset (model ``mono3``).
    offset: np.ndarray | None = None
    #: Relative transmit field in percent (model ``epg``).
    b1: np.ndarray | None = None
    #: ``times_ms`` and ``echoes`` used, ``bounds_ms``, ``sigma`` (median, where a map was given) and where it is from,
    #: ``saturation``, ``counts`` of each status, ``warnings`` (sentences for the user).
    report: dict = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of voxels of each status code that occurs."""
        return self.report["counts"]

    @property
    def warnings(self) -> list[str]:
        """Sentences that the user should read."""
        return self.report["warnings"]

    def reshaped(self, shape: tuple[int, ...]) -> DecayFit:
        """Return the fit with maps of another shape."""
        maps: dict = {name: value.reshape(shape) for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **maps)

    def status_table(self) -> Table:
        """Return a table with the number of voxels of each status code."""
        inside = max(self.status.size - self.counts.get("OUTSIDE_MASK", 0), 1)
        rows = [{"code": int(FitStatus[name]), "status": name, "voxels": count,
                 "share": None if name == "OUTSIDE_MASK" else count / inside, "meaning": FitStatus[name].text}
                for name, count in self.counts.items()]
        return Table("fit-status", [Column("code", "", "Value in the status map"), Column("status", "", "Code's name"),
                                    Column("voxels", "", "Number of voxels"),
                                    Column("share", "1", "Share of the voxels inside the mask"),
                                    Column("meaning", "", "What the code says")], rows)


def fit_decay(signals: np.ndarray, times_ms: Sequence[float], options: FitOptions | None = None,
              mask: np.ndarray | None = None, workers: int | None = None,
              progressCallback: ProgressCallback | None = None) -> DecayFit:
    """Fit a decay to each pixel of an array whose last axis is the echoes.

    Parameters
    ----------
    signals : array_like, shape (..., n)
        Magnitude signals of any real type; not modified.
    times_ms : sequence of float, length n
        Spin-lock or echo times in ms, in any order.
    options : FitOptions, optional
        By default the two-parameter model by least squares.
    mask : array_like of bool, shape (...), optional
        Pixels to fit.
    workers, progressCallback
        As for :func:`fit_arrays`.

    Returns
    -------
    DecayFit
        Maps of shape (...).

    Raises
    ------
    EchoSeriesError
        As for :func:`fit_arrays`.

    Examples
    --------
    >>> fit = fit_decay([1000.0, 818.7, 449.3, 201.9], [0, 10, 40, 80])
    >>> print(f"{fit.value:.1f} ms, M0 {fit.m0:.0f}")
    50.0 ms, M0 1000
    """
    signals = np.asarray(signals)
    if signals.ndim == 0:
        raise EchoSeriesError("The signals have no axis: give an array whose last axis is the echoes.")
    shape = signals.shape[:-1]
    if mask is not None and np.shape(mask) != shape:
        raise EchoSeriesError(f"The mask has the shape {np.shape(mask)}, the signals {shape} without the echoes: give "
                              "one value per pixel.")
    flat = np.moveaxis(signals, -1, 0).reshape(signals.shape[-1], -1)
    return fit_arrays(flat, times_ms, options, mask, workers, progressCallback).reshaped(shape)


def fit_arrays(signals: np.ndarray, times_ms: Sequence[float], options: FitOptions | None = None,
               mask: np.ndarray | None = None, workers: int | None = None,
               progressCallback: ProgressCallback | None = None) -> DecayFit:
    """Fit a decay to every voxel.

    Parameters
    ----------
    signals : numpy.ndarray, shape (n, voxels)
        Magnitude signals, one row per time, of any real type; not modified.
    times_ms : sequence of float, length n
        Spin-lock or echo times in ms, in any order.
    options : FitOptions, optional
        By default the two-parameter model by least squares.
    mask : numpy.ndarray of bool, shape (voxels,), optional
        Voxels to fit.
    workers : int, optional
        Threads; by default one for each available core. The result does not depend on it.
    progressCallback : callable, optional
        Called with (fraction, text) between chunks; raising Cancelled stops the fit.

    Returns
    -------
    DecayFit
        Arrays of shape (voxels,); float64 for float64 signals, else float32.

    Raises
    ------
    EchoSeriesError
        For unusable times, fewer echoes than parameters, an echo that is empty in all voxels, or a mask or noise map
        of another size.
    """
    options = options or FitOptions()
    signals = np.asarray(signals)
    rows, times = options.select_echoes(signals, times_ms)
    voxels = signals.shape[1]
    for name, array in (("mask", mask), ("noise map", options.noise)):
        if array is not None and np.size(array) != voxels and (name == "mask" or np.size(array) != 1):
            raise EchoSeriesError(f"The {name} has {np.size(array)} voxels, the echoes have {voxels}.")
    _refuse_empty_echoes(signals, rows, times)
    used = options
    if options.saturation is None:
        used = replace(options, saturation=clipping_level(signals[row] for row in rows))
    progress, source = progressCallback or silent, None if options.noise is None else "given"
    if options.estimator == "rician" and options.noise is None:
        sigma, source = background_sigma(signals[rows[-1]]), "background of the last echo"
        if sigma is None:
            first = _fit(signals, rows, times, mask, replace(used, estimator="nlls"), workers,
                         subrange(progress, 0, 0.3))
            sigma, source = _noise_from(signals, rows, first, times.size - options.parameters), "residuals"
            progress = subrange(progress, 0.3, 1)
        used = replace(used, noise=sigma)
    maps = _fit(signals, rows, times, mask, used, workers, progress)
    counts = status_counts(maps["status"])
    report = {"times_ms": times.tolist(), "echoes": rows.tolist(), "bounds_ms": [float(b) for b in options.bounds],
              "sigma": None if used.noise is None else float(np.median(used.noise)), "sigma_source": source,
              "saturation": used.saturation, "counts": counts,
              "warnings": _warnings(used, np.asarray(times_ms, float), rows, times, counts)}
    return DecayFit(options, **maps, report=report)


def _refuse_empty_echoes(signals, rows, times) -> None:
    """Raise if an echo is zero in all of several voxels; in a single voxel that is a matter of its status."""
    filled = np.array([np.any(signals[row]) for row in rows])
    if signals.shape[1] > 1 and filled.any() and not filled.all():
        listed = ", ".join(f"{row} ({time:g} ms)" for row, time in zip(rows[~filled], times[~filled]))
        kept = [int(r) for r in rows[filled]]
        raise EchoSeriesError(f"Echo {listed} is zero everywhere: load it again, or fit the others with "
                              f"echoes={kept} (counted from 0).", anchor="empty-echo")


def clipping_level(echoes: Iterable[np.ndarray]) -> float | None:
    """Return the signal at which echoes are clipped, or None: a format's largest value that several samples share.

    Without that, an integer type is clipped at its own largest value.
    """
    echoes = list(echoes)
    tops = [echo.max(initial=0) for echo in echoes]
    largest = max((float(top if np.isfinite(top) else echo.max(initial=0, where=np.isfinite(echo)))
                   for echo, top in zip(echoes, tops)), default=0.0)
    if largest in _CEILINGS and sum(np.count_nonzero(echo == largest) for echo in echoes) > 1:
        return largest
    kind = echoes[0].dtype
    return float(np.iinfo(kind).max) if kind.kind in "iu" else None


def _noise_from(signals, rows, maps, freedom: int) -> float:
    """Estimate sigma from the residuals of a least-squares fit, on at most about 200 000 fitted voxels."""
    good = np.flatnonzero(maps["status"] == FitStatus.OK)
    good = good[::max(good.size // 200_000, 1)]
    y = signals[rows][:, good].astype(float)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    return residual_sigma((1 - maps["r2"][good]) * total, freedom)


def _fit(signals, rows, times, mask, options, workers, progress) -> dict:
    """Return all maps and the status, by name."""
    voxels = signals.shape[1]
    kind = np.float64 if signals.dtype == np.float64 else np.float32
    names = ("value", "m0", "se", "r2", *{"mono3": ["offset"], "epg": ["b1"]}.get(options.model, []))
    maps = {name: np.full(voxels, np.nan, kind) for name in names}
    status = np.full(voxels, FitStatus.OUTSIDE_MASK, np.uint8)
    index = None if mask is None else np.flatnonzero(np.asarray(mask, bool).ravel())
    total = voxels if index is None else index.size
    noise = None if options.noise is None else np.broadcast_to(np.asarray(options.noise, float).ravel(), voxels)
    models = _models(times, options)

    size = _CHUNK // 8 if options.model == "epg" else _CHUNK  # a second of it, for progress and cancelling

    def work(start: int) -> None:
        where = slice(start, min(start + size, total)) if index is None else index[start:start + size]
        chunk = signals[rows, where] if index is None else signals[rows[:, None], where]
        status[where], values = _fit_chunk(chunk, None if noise is None else noise[where], models, options, maps)
        for name, array in maps.items():
            array[where] = values[name]

    for _ in ordered(work, range(0, total, size), workers, progress=progress,
                     words=lambda start: f"Fitting {total} voxels"):
        pass
    return {**maps, "status": status}


def _models(times, options) -> dict:
    """Return the prepared model for each number of leading echoes that a voxel may keep above the noise floor."""
    least = options.parameters if options.noise_floor is not None else times.size
    return {count: _model(times[:count], options) for count in range(least, times.size + 1)
            if np.unique(times[:count]).size >= options.parameters}


def _model(times, options):
    """Return the model object, which has `times` and ``solve(y, sigma) -> Solution``."""
    if options.model == "epg":
        return EpgModel.prepare(times, options.bounds, options.t1, options.refocusing, options.b1_range,
                                options.echo_spacing)
    model = MonoModel.prepare(times, options.bounds, options.model == "mono3", options.negative_offset)
    if options.estimator == "rician":
        from .rician import RicianModel  # with scipy.special, half of the wing's import

        return RicianModel(model)
    return model if options.estimator == "nlls" else LogLinearModel(model, options.estimator == "loglinear")


def _fit_chunk(chunk, noise, models, options, names) -> tuple[np.ndarray, dict]:
    """Sort out the voxels of one chunk (n, v) and fit the rest, by number of echoes kept."""
    y = chunk.astype(np.float64)
    code, peak, kept = _triage(y, models, options)
    values = {name: np.full(code.size, np.nan) for name in names}
    for count, model in models.items():
        at = np.flatnonzero((code == FitStatus.OK) & (kept == count))
        if not at.size:
            continue
        scaled = (y[:count] if at.size == code.size else y[:count, at]) / peak[at]
        found = model.solve(scaled, None if noise is None else noise[at] / peak[at])
        code[at] = _judge(found, model, scaled, options.min_r2)
        good = code[at] == FitStatus.OK
        for name in names:
            value = getattr(found, name)
            values[name][at] = np.where(good, value * peak[at] if name in ("m0", "offset") else value, np.nan)
    return code, values


def _triage(y, models, options) -> tuple[np.ndarray, np.ndarray, np.ndarray | int]:
    """Return status, largest echo, and the number of leading echoes above the noise floor."""
    with np.errstate(invalid="ignore", over="ignore"):
        peak, low = y.max(axis=0), y.min(axis=0)
        code = np.zeros(peak.size, np.uint8)
        kept: np.ndarray | int = len(y)
        if options.noise_floor is not None:
            below = y < options.noise_floor
            kept = np.where(below.any(axis=0), below.argmax(axis=0), len(y))
            code[~np.isin(kept, list(models))] = FitStatus.TOO_FEW_ECHOES
        if options.saturation is not None:
            code[peak >= options.saturation] = FitStatus.SATURATED
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


def _judge(found, model, y, min_r2: float | None) -> np.ndarray:
    """Return the status code of each voxel that was fitted to signals `y` (n, v)."""
    code = np.zeros(y.shape[1], np.uint8)
    if min_r2 is not None:
        code[~(found.r2 >= min_r2)] = FitStatus.LOW_R2
    code[~(found.converged & np.isfinite(found.m0))] = FitStatus.NOT_CONVERGED
    code[found.edge < 0] = FitStatus.AT_UPPER_BOUND
    code[found.edge > 0] = FitStatus.AT_LOWER_BOUND
    doubtful = np.flatnonzero((found.edge < 0) | (found.m0 <= 0))
    if doubtful.size:
        times = model.times
        slope = (times - times.mean()) @ y[:, doubtful]
        rising = (slope >= -1e-10 * np.ptp(times)) | (found.m0[doubtful] <= 0)
        code[doubtful[rising]] = FitStatus.NO_DECAY
    return code


def _warnings(options, given, rows, times, counts) -> list[str]:
    out = []
    if np.any(np.diff(given) < 0):
        out.append("The times were not in ascending order; echoes and times were sorted together.")
    if np.unique(times).size < times.size:
        out.append("Some times occur more than once; check that they are right.")
    if options.model == "mono3" and times.size <= 4:
        out.append(f"Three parameters from {times.size} times are near-singular: the relaxation time is poorly "
                   "determined (see the standard error map). Prefer 'mono2', with 'rician' against the noise floor.")
    if times.size == options.parameters and options.noise is None:
        out.append("There are as many echoes as parameters: no residual is left, so there is no standard error.")
    if options.model != "epg" and options.estimator != "rician" and times.size > 4 and rows[0] == 0 \
            and times[0] > 0 and np.allclose(times / times[0], np.arange(1, times.size + 1), rtol=0.02):
        out.append("This looks like a multi-echo spin echo: its first echo lacks the stimulated echo of the others. "
                   f"Consider echoes=range(1, {times.size}) or the model 'epg'.")
    inside = sum(counts.values()) - counts.get("OUTSIDE_MASK", 0)
    failed = inside - counts.get("OK", 0)
    if not inside:
        out.append("The mask is empty: nothing was fitted.")
    elif failed:
        main = max((name for name in counts if name not in ("OK", "OUTSIDE_MASK")), key=counts.get)
        out.append(f"{failed} of {inside} voxels ({100 * failed / inside:.1f} %) have no value; the most frequent "
                   f"reason: {FitStatus[main].text}")
    return out
