"""A picture of a registration: mid-sagittal, coronal and axial sections of each disc with the atlas's outline."""

import os
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.labels import disc_name

from .registration import PersonRegistration

#: Half size (mm) and step of the sections.
HALF, STEP = 32.0, 0.5
_SECTIONS = (("sagittal", 1, 2, "anterior", "cranial"), ("coronal", 0, 2, "patient's left", "cranial"),
             ("axial", 0, 1, "patient's left", "anterior"))


def montage(registration: PersonRegistration, path: str | os.PathLike) -> Path:
    """Write a PNG: one row per level, three sections through the person's disc, its signed distance, both outlines.

    From a registration of ``register_person`` (with the person's shapes). Needs matplotlib, which Slicer does not
    ship; the report and the benchmarks use it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = [v for v in registration.atlas.values if v in registration.levels and v in registration.shapes]
    figure = Figure(figsize=(9, 2.6 * len(values) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(values), 3, squeeze=False)
    for row, value in zip(axes, values):
        quality = next((r for r in registration.quality.rows if r["level"] == disc_name(value)), {})
        for axis, section in zip(row, _SECTIONS):
            _draw(axis, registration, value, section)
        row[0].set_title(f"{disc_name(value)}   Dice {quality.get('dice', float('nan')):.3f}", loc="left", fontsize=9)
    figure.suptitle(f"{registration.person}: person (white), atlas (orange)", fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
    return Path(path)


def _draw(axis, registration, value, section) -> None:
    """Draw one section in the disc's own frame."""
    _, right, up, right_name, up_name = section
    shape, fixed = registration.shapes[value], registration.atlas.shape(value)
    # Shorter along CC: a disc is flat.
    spans = [np.arange(-limit, limit + STEP, STEP) for limit in (HALF, 16.0 if up == 2 else 24.0)]
    grid = np.zeros((len(spans[1]), len(spans[0]), 3))
    grid[..., right], grid[..., up] = np.meshgrid(*spans)
    points = shape.to_world(grid)
    own = shape.distance_at(points)
    back = registration.levels[value].to_atlas(points)
    other = np.where(np.isfinite(back).all(-1), fixed.distance_at(np.nan_to_num(back)), 8.0)
    extent = (spans[0][0], spans[0][-1], spans[1][0], spans[1][-1])
    axis.imshow(np.clip(own, -6, 6), origin="lower", extent=extent, cmap="gray", interpolation="nearest")
    axis.contour(*spans, np.where(shape.seen_at(points), own, np.nan), [0], colors="white", linewidths=1)
    axis.contour(*spans, other, [0], colors="#ff9900", linewidths=1)
    axis.set_xlabel(f"{section[0]}: to {right_name}, mm", fontsize=7)
    axis.set_ylabel(f"to {up_name}", fontsize=7)
    axis.tick_params(labelsize=6)
