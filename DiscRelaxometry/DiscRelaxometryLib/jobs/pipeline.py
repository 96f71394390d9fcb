"""The module's steps as functions of arrays: what a panel runs in a child process and Logic runs in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..image import Image, require_same_geometry
from ..measure import measure_discs, measure_regions
from ..progress import ProgressCallback, silent, subrange
from ..tables import Table

if TYPE_CHECKING:
    from ..echo import EchoSeries


@dataclass
class MapResult:
    """Maps of one echo series.

    Attributes
    ----------
    images : dict of Image
        Keyed by quantity, ``T1rho`` or ``T2`` first.
    status : Table
        Number of voxels of each status code.
    motion : Table or None
        Estimated motion of each echo, where alignment was asked for.
    aligned : EchoSeries or None
        The series that was fitted, where alignment changed it.
    notes : list of str
        What the user should read: warnings of the fit, notes of the series.
    """

    images: dict[str, Image]
    status: Table
    motion: Table | None = None
    aligned: EchoSeries | None = None
    notes: list[str] = field(default_factory=list)


def segment_image(image: Image, engine: str = "auto", device: str | None = None,
                  progressCallback: ProgressCallback = silent):
    """Segment and name the discs of an anatomical volume; see :func:`DiscRelaxometryLib.discs.segment.segment`."""
    from ..discs import segment

    return segment(image, engine=engine, device=device, progressCallback=progressCallback)


def map_series(series: EchoSeries, align: str = "auto", mask: Image | None = None,
               progressCallback: ProgressCallback = silent, **fit) -> MapResult:
    """Align the echoes if wanted, and fit the relaxation time.

    Parameters
    ----------
    series : EchoSeries
    align : str
        ``off``, ``on``, or ``auto`` (aligned where motion is detected).
    mask : Image, optional
        Labels or mask on the grid of the series; only these voxels are fitted.
    **fit
        Settings of :func:`DiscRelaxometryLib.fit.maps.fit_relaxation`.

    Returns
    -------
    MapResult
    """
    from ..fit import fit_relaxation

    motion = aligned = None
    if align != "off":
        from ..echo import align_echoes

        alignment = align_echoes(series, mode=align, progressCallback=subrange(progressCallback, 0.0, 0.5))
        series, motion = alignment.series, alignment.motion
        aligned = series if any(row["aligned"] for row in motion.rows) else None
    if mask is not None:
        require_same_geometry(mask, series.echo(0), "The mask and the echo series")
    start = 0.0 if align == "off" else 0.5
    result = fit_relaxation(series, mask=mask, progressCallback=subrange(progressCallback, start, 1.0), **fit)
    progressCallback(1.0, "Maps are ready")
    return MapResult(result.images(), result.status_table(), motion, aligned,
                     [*series.notes, *result.warnings])


def carry_image(labels: Image, anatomical: Image, echo: Image, progressCallback: ProgressCallback = silent):
    """Carry labels to an echo image by registration; see :mod:`DiscRelaxometryLib.measure.carry`."""
    from ..measure import carry_labels

    result = carry_labels(labels, anatomical, echo, progressCallback=progressCallback)
    return result.labels, result.report


def measure_all(labels: Image, maps: dict[str, Image], progressCallback: ProgressCallback = silent
                ) -> tuple[Table, Table | None]:
    """Measure the discs, and each map in each region of each disc.

    Returns
    -------
    discs : Table
        One row a disc.
    regions : Table or None
        One row a disc, region and map; None without maps.
    """
    discs = measure_discs(labels, maps, subrange(progressCallback, 0.0, 0.5))
    regions = measure_regions(labels, maps, progressCallback=subrange(progressCallback, 0.5, 1.0)) if maps else None
    progressCallback(1.0, "Measures are ready")
    return discs, regions


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
        One value an echo.
    curve_times, curve : ndarray (101,)
        The model over the range of times; NaN where there is no fit.
    None
        If the point lies outside the series.
    """
    i, j, k = np.floor(series.geometry.world_to_index(lps) + 0.5).astype(int)
    if not all(0 <= v < n for v, n in zip((i, j, k), series.geometry.size)):
        return None
    times = np.linspace(0.0, float(series.times_ms[-1]) * 1.05, 101)
    curve = np.full(101, np.nan)
    if kind_value is not None and m0 is not None and np.isfinite([kind_value, m0]).all():
        curve = m0 * np.exp(-times / kind_value) + offset
    return series.echoes[:, k, j, i].astype(float), times, curve
