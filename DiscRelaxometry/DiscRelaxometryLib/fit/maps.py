"""T1rho and T2 maps from echo series.

>>> fit = fit_relaxation(series)                                  # two parameters, least squares
>>> fit = fit_relaxation(series, estimator="rician", mask=mask)   # no bias from the noise floor
>>> images = fit.images()                                         # {"T1rho": Image, "M0": ..., "status": ...}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry, Image
from ..progress import ProgressCallback
from ..quantities import QUANTITIES
from ..tables import Column, Table
from .arrays import FitOptions, fit_arrays, select_echoes
from .noise import background_sigma
from .status import STATUS_TEXT, FitStatus, status_counts

if TYPE_CHECKING:
    from ..echo import EchoSeries

__all__ = ["FitStatus", "RelaxationFit", "fit_arrays", "fit_relaxation"]

#: Largest values of common scanner and file formats, looked for because echoes are held as float32.
_CEILINGS = (4095.0, 32767.0, 65535.0)


@dataclass(frozen=True)
class RelaxationFit:
    """Maps of one fit; arrays (k, j, i), NaN where `status` is not ``FitStatus.OK``.

    Attributes
    ----------
    kind : str
        ``T1rho`` or ``T2``.
    model, estimator : str
        As asked for.
    value : numpy.ndarray
        Relaxation time in ms.
    m0 : numpy.ndarray
        Signal at time 0.
    offset : numpy.ndarray or None
        Constant offset (model ``mono3``).
    b1 : numpy.ndarray or None
        Relative transmit field in percent (model ``epg``).
    se : numpy.ndarray
        Standard error of `value` in ms, from the Fisher information.
    r2 : numpy.ndarray
        Coefficient of determination.
    status : numpy.ndarray of uint8
        :class:`FitStatus`.
    geometry : Geometry
    report : dict
        ``times_ms`` and ``echoes`` used, ``bounds_ms``, ``sigma`` and where it is from, ``counts`` of each status,
        ``warnings`` (sentences for the user).
    """

    kind: str
    model: str
    estimator: str
    value: np.ndarray
    m0: np.ndarray
    offset: np.ndarray | None
    b1: np.ndarray | None
    se: np.ndarray
    r2: np.ndarray
    status: np.ndarray
    geometry: Geometry
    report: dict = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of voxels of each status code that occurs."""
        return self.report["counts"]

    @property
    def warnings(self) -> list[str]:
        """Sentences that the user should read."""
        return self.report["warnings"]

    def images(self) -> dict[str, Image]:
        """Return the maps keyed by quantity (see ``quantities.py``); ``meta`` says how they were made."""
        arrays = {self.kind: self.value, "M0": self.m0, "offset": self.offset, "B1": self.b1, "SE": self.se,
                  "R2": self.r2, "status": self.status}
        return {key: Image(array, self.geometry, {"quantity": key, "unit": QUANTITIES[key].unit, "kind": self.kind,
                                                  "model": self.model, "estimator": self.estimator})
                for key, array in arrays.items() if array is not None}

    def status_table(self) -> Table:
        """Return a table with the number of voxels of each status code."""
        inside = max(self.status.size - self.counts.get("OUTSIDE_MASK", 0), 1)
        rows = [{"code": int(FitStatus[name]), "status": name, "voxels": count,
                 "share": None if name == "OUTSIDE_MASK" else count / inside, "meaning": STATUS_TEXT[FitStatus[name]]}
                for name, count in self.counts.items()]
        return Table("fit-status", [Column("code", "", "Value in the status map"), Column("status", "", "Code's name"),
                                    Column("voxels", "", "Number of voxels"),
                                    Column("share", "1", "Share of the voxels inside the mask"),
                                    Column("meaning", "", "What the code says")], rows)


def fit_relaxation(series: EchoSeries, model: str = "mono2", estimator: str = "nlls",
                   mask: Image | np.ndarray | None = None, bounds: tuple[float, float] = (1.0, 1000.0),
                   echoes: Sequence[int] | None = None, noise: float | np.ndarray | None = None,
                   noise_floor: float | None = None, min_r2: float | None = None, saturation: float | None = None,
                   workers: int | None = None, progressCallback: ProgressCallback | None = None,
                   **more) -> RelaxationFit:
    """Fit a relaxation time to every voxel of an echo series.

    Parameters
    ----------
    series : EchoSeries
        Echoes (n, k, j, i), times in ms, kind and geometry; not modified.
    model : str
        ``mono2`` M0 exp(-t/T); ``mono3`` with a constant offset (near-singular for four spin-lock times);
        ``epg`` multi-echo spin echo with stimulated echoes and B1.
    estimator : str
        ``nlls`` least squares; ``loglinear`` a line through the logarithm, weighted by the squared signal;
        ``loglinear-unweighted``; ``rician`` maximum likelihood for magnitude noise (model ``mono2``).
    mask : Image or numpy.ndarray, optional
        Voxels to fit: a label image or mask on the grid of the series.
    bounds : tuple of float
        Lowest and highest time in ms. A healthy nucleus reaches 200 ms and more: a low upper bound blanks it.
    echoes : sequence of int, optional
        Echoes to use, counted from 0; ``range(1, n)`` leaves out the first.
    noise : float or numpy.ndarray, optional
        Noise level sigma, a number or a map (k, j, i). For ``rician`` it is estimated if absent: from the background,
        or where there is none from the residuals.
    noise_floor : float, optional
        Leave out, voxel by voxel, the echoes from the first one below this signal on.
    min_r2 : float, optional
        Fail voxels whose R squared is lower.
    saturation : float, optional
        Fail voxels with an echo at or above this signal. By default a maximum of 4095, 32767 or 65535 that several
        samples share is taken for clipping.
    workers : int, optional
        Threads; by default all available cores. The result does not depend on it.
    progressCallback : callable, optional
        Called with (fraction, text); raising ``Cancelled`` stops the fit.
    **more
        For the model ``mono3``: ``negative_offset`` (False: an offset is a noise floor, so it is not negative). For the
        model ``epg``: ``t1`` (ms, 1000), ``refocusing`` (degrees, 180), ``b1_range`` (relative, a pair; equal
        ends fix B1), ``echo_spacing`` (ms, the gap of the times).

    Returns
    -------
    RelaxationFit

    Raises
    ------
    EchoSeriesError
        For unusable times or settings, fewer echoes than parameters, an empty echo, or a mask on another grid.
    """
    shape = series.echoes.shape
    signals = series.echoes.reshape(shape[0], -1)
    flat_mask = _flat_mask(mask, series)
    settings = FitOptions(model=model, estimator=estimator, bounds=bounds, noise=noise, noise_floor=noise_floor,
                          min_r2=min_r2, **more)
    rows, times = select_echoes(signals, series.times_ms, echoes, settings)
    _refuse_empty_echoes(signals, rows, times)
    if saturation is None:
        saturation = _ceiling(signals, rows)
    source = None if noise is None else "given"
    if estimator == "rician" and noise is None:
        noise = background_sigma(signals[rows[-1]])
        source = "residuals" if noise is None else "background of the last echo"
    fit = fit_arrays(signals, series.times_ms, mask=flat_mask, echoes=echoes, workers=workers,
                     progressCallback=progressCallback, model=model, estimator=estimator, bounds=bounds, noise=noise,
                     noise_floor=noise_floor, min_r2=min_r2, saturation=saturation, **more)
    counts = status_counts(fit.status)
    report = {"times_ms": times.tolist(), "echoes": rows.tolist(), "bounds_ms": [float(b) for b in bounds],
              "sigma": fit.sigma, "sigma_source": source, "saturation": saturation, "counts": counts,
              "warnings": _warnings(settings, np.asarray(series.times_ms, float), rows, times, counts)}

    def volume(array):
        return None if array is None else array.reshape(shape[1:])

    return RelaxationFit(series.kind, model, estimator, volume(fit.value), volume(fit.m0), volume(fit.offset),
                         volume(fit.b1), volume(fit.se), volume(fit.r2), volume(fit.status), series.geometry, report)


def _flat_mask(mask, series) -> np.ndarray | None:
    if mask is None:
        return None
    difference = series.geometry.difference(mask.geometry) if isinstance(mask, Image) else ""
    array = np.asarray(mask.array if isinstance(mask, Image) else mask)
    if not difference and array.shape != series.echoes.shape[1:]:
        difference = f"shape {array.shape} versus {series.echoes.shape[1:]}"
    if difference:
        raise EchoSeriesError(f"The mask is not on the grid of the echo series ({difference}): resample it first.",
                              anchor="different-grids")
    return (array > 0).ravel()


def _refuse_empty_echoes(signals, rows, times) -> None:
    filled = np.array([np.any(signals[row]) for row in rows])
    if filled.any() and not filled.all():
        listed = ", ".join(f"{row} ({time:g} ms)" for row, time in zip(rows[~filled], times[~filled]))
        kept = [int(r) for r in rows[filled]]
        raise EchoSeriesError(f"Echo {listed} is zero everywhere: load it again, or fit the others with "
                              f"echoes={kept} (counted from 0).", anchor="empty-echo")


def _ceiling(signals, rows) -> float | None:
    """Return the series' maximum if it looks like a clipped integer image, else None."""
    largest = max(float(signals[row].max(initial=0)) for row in rows)
    if largest in _CEILINGS and sum(np.count_nonzero(signals[row] == largest) for row in rows) > 1:
        return largest
    return None


def _warnings(settings, given, rows, times, counts) -> list[str]:
    out = []
    if np.any(np.diff(given) < 0):
        out.append("The times were not in ascending order; echoes and times were sorted together.")
    if np.unique(times).size < times.size:
        out.append("Some times occur more than once; check that they are right.")
    if settings.model == "mono3" and times.size <= 4:
        out.append(f"Three parameters from {times.size} times are near-singular: the relaxation time is poorly "
                   "determined (see the standard error map). Prefer 'mono2', with 'rician' against the noise floor.")
    if times.size == settings.parameters and settings.noise is None:
        out.append("There are as many echoes as parameters: no residual is left, so there is no standard error.")
    if settings.model != "epg" and settings.estimator != "rician" and times.size > 4 and rows[0] == 0 \
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
                   f"reason: {STATUS_TEXT[FitStatus[main]]}")
    return out
