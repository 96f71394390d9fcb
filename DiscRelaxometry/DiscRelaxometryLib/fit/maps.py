"""T1rho and T2 maps from echo series.

>>> fit = fit_relaxation(series)                                              # two parameters, least squares
>>> fit = fit_relaxation(series, FitOptions(estimator="rician"), mask=mask)   # no bias from the noise floor
>>> images = fit.images()                                             # {"T1rho": Image, "M0": ..., "status": ...}
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry, Image, require_same_geometry
from ..progress import ProgressCallback, silent, subrange
from ..quantities import QUANTITIES
from ..tables import Table
from .arrays import DecayFit, clipping_level, fit_arrays
from .options import FitOptions

if TYPE_CHECKING:
    from ..echo import EchoSeries


@dataclass(frozen=True, kw_only=True)
class RelaxationFit(DecayFit):
    """Maps of a volume, arrays (k, j, i)."""

    #: ``T1rho`` or ``T2``.
    kind: str
    geometry: Geometry

    def images(self) -> dict[str, Image]:
        """Return the maps keyed by quantity (see ``quantities.py``); ``meta`` says how they were made."""
        arrays = {self.kind: self.value, "M0": self.m0, "offset": self.offset, "B1": self.b1, "SE": self.se,
                  "R2": self.r2, "status": self.status}
        meta = {"kind": self.kind, "model": self.options.model, "estimator": self.options.estimator}
        return {key: Image(array, self.geometry, {"quantity": key, "unit": QUANTITIES[key].unit, **meta})
                for key, array in arrays.items() if array is not None}


@dataclass(frozen=True)
class MappedSeries:
    """A fitted series, and what was done to it before."""

    fit: RelaxationFit
    #: The series that was fitted; aligned where motion was corrected.
    series: EchoSeries
    #: Estimated motion of each echo, where alignment was asked for.
    motion: Table | None

    @property
    def aligned(self) -> bool:
        """Whether alignment changed the series."""
        return self.motion is not None and any(row["aligned"] for row in self.motion.rows)

    @property
    def notes(self) -> list[str]:
        """What the user should read: notes of the series and warnings of the fit."""
        return [*self.series.notes, *self.fit.warnings]


def fit_relaxation(series: EchoSeries, options: FitOptions | None = None, mask: Image | np.ndarray | None = None,
                   workers: int | None = None, progressCallback: ProgressCallback | None = None) -> RelaxationFit:
    """Fit a relaxation time to every voxel of an echo series.

    Parameters
    ----------
    series : EchoSeries
        Echoes (n, k, j, i), times in ms, kind and geometry; not modified.
    options : FitOptions, optional
        By default the two-parameter model by least squares. A map as ``noise`` has the shape (k, j, i).
    mask : Image or numpy.ndarray, optional
        Voxels to fit: a label image or mask on the grid of the series.
    workers, progressCallback
        As for :func:`DiscRelaxometryLib.fit.fit_arrays`.

    Raises
    ------
    EchoSeriesError
        As for :func:`DiscRelaxometryLib.fit.fit_arrays`, or for a mask of another shape.
    GeometryError
        If the mask image lies on another grid.
    """
    shape = series.echoes.shape[1:]
    if isinstance(mask, Image):
        require_same_geometry(mask, series.echo(0), "The mask and the echo series")
        mask = mask.array
    if mask is not None and np.shape(mask) != shape:
        raise EchoSeriesError(f"The mask is not on the grid of the echo series (shape {np.shape(mask)} versus "
                              f"{shape}): resample it first.", anchor="different-grids")
    fit = fit_arrays(series.echoes.reshape(len(series), -1), list(series.times_ms), options,
                     None if mask is None else (np.asarray(mask) > 0).ravel(), workers, progressCallback)
    return RelaxationFit(**vars(fit.reshaped(shape)), kind=series.kind, geometry=series.geometry)


def map_series(series: EchoSeries, options: FitOptions | None = None, align: str = "auto", mask: Image | None = None,
               progressCallback: ProgressCallback = silent) -> MappedSeries:
    """Align the echoes if wanted, and fit the relaxation time.

    Parameters
    ----------
    series : EchoSeries
    options : FitOptions, optional
    align : str
        ``off``, ``on``, or ``auto`` (aligned where motion is detected).
    mask : Image, optional
        Labels or mask on the grid of the series; only these voxels are fitted.
    progressCallback : callable, optional

    Raises
    ------
    EchoSeriesError, GeometryError
        As for :func:`fit_relaxation`.
    """
    from ..echo import align_echoes

    options, motion = options or FitOptions(), None
    start = 0.0 if align == "off" else 0.5
    if align != "off":
        alignment = align_echoes(series, mode=align, progressCallback=subrange(progressCallback, 0.0, start))
        # Interpolation blurs the level at which the echoes were clipped, so it is looked for before.
        level = clipping_level(series.echoes)
        if level is not None and options.saturation is None:
            options = replace(options, saturation=0.995 * level)
        series, motion = alignment.series, alignment.motion
    fit = fit_relaxation(series, options, mask, progressCallback=subrange(progressCallback, start, 1.0))
    progressCallback(1.0, "Maps are ready")
    return MappedSeries(fit, series, motion)


def sample_signal(series: EchoSeries, lps, kind_value: float | None = None, m0: float | None = None,
                  offset: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return the signal of the voxel at a point and the fitted curve.

    Parameters
    ----------
    series : EchoSeries
    lps : sequence of float
        World position in mm.
    kind_value, m0, offset : float
        Fitted relaxation time in ms, signal at time 0 and offset of that voxel; None or NaN for no curve.

    Returns
    -------
    signal : ndarray (n,)
        One value per echo.
    curve_times, curve : ndarray (101,)
        The model over the range of times; NaN where there is no fit.
    None
        If the point lies outside the series.
    """
    voxel = series.geometry.voxel_at(lps)
    if voxel is None:
        return None
    times = np.linspace(0.0, float(series.times_ms[-1]) * 1.05, 101)
    curve = np.full(101, np.nan)
    if kind_value is not None and m0 is not None and np.isfinite([kind_value, m0]).all():
        curve = m0 * np.exp(-times / kind_value) + offset
    return series.echoes[(slice(None), *voxel)].astype(float), times, curve
