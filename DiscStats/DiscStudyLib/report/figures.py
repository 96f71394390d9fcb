"""Plots of numbers for the report: colors for color-blind readers, no global state, same bytes from same data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.grades import ROMAN

#: Okabe-Ito colors, told apart with every common color vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Pfirrmann grades I to V, light to dark.
GRADE_COLORS = ("#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#5b6b7a",
         "axes.labelcolor": "#1b2733", "xtick.color": "#1b2733", "ytick.color": "#1b2733", "axes.titlesize": 10,
         "axes.titleweight": "bold", "legend.frameon": False, "font.family": "DejaVu Sans", "axes.axisbelow": True}


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1,
               margins: tuple[float, float, float, float] | None = None, gridspec_kw: Any = None, **options):
    """Return (figure, array of axes), made without pyplot: safe in threads and in Slicer.

    Width, height and margins (left, bottom, right, top) are in inches; to fit margins to the words takes long.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
        FigureCanvasAgg(figure)
        if margins:
            left, bottom, right, top = margins
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=gridspec_kw, **options)
    return figure, axes


def save_figure(figure, path: Path, simulated: bool = False, dpi: int = 150) -> Path:
    """Write a PNG atomically; simulated data are labelled inside the picture."""
    import matplotlib

    if simulated:
        figure.text(0.995, 0.005, "SIMULATED", ha="right", va="bottom", fontsize=8, color="#b35806", weight="bold")
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
    return Path(path)


def plot_cohort(values: Mapping[str, Sequence], grades: Mapping[str, Sequence[float]]):
    """Plot who takes part: a histogram or bar chart of each variable (numbers or text), and grades by level."""
    count = len(values) + bool(grades)
    figure, axes = new_figure(3.1 * count, 2.7, 1, count)
    for axis, (name, data) in zip(axes[0], values.items()):
        _histogram(axis, name, data)
    if grades:
        _grade_bars(axes[0, -1], grades)
    return figure


def _histogram(axis, name: str, data: Sequence) -> None:
    axis.set_title(name)
    axis.set_ylabel("people")
    try:
        numbers = np.array([float(v) for v in data])
    except (TypeError, ValueError):
        words, counts = np.unique([str(v) for v in data], return_counts=True)
        axis.bar(words, counts, color=COLORS[0], width=0.6)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.bar_label(axis.containers[0], fontsize=8)
        return
    numbers = numbers[np.isfinite(numbers)]
    axis.hist(numbers, bins=min(12, max(4, len(numbers) // 3)), color=COLORS[0], edgecolor="white")
    axis.yaxis.get_major_locator().set_params(integer=True)


def _grade_bars(axis, grades: Mapping[str, Sequence[float]]) -> None:
    levels = list(grades)
    bottom = np.zeros(len(levels))
    for grade, color in enumerate(GRADE_COLORS, start=1):
        counts = np.array([np.sum(np.asarray(grades[v], float) == grade) for v in levels])
        axis.barh(levels, counts, left=bottom, color=color, edgecolor="white", label=ROMAN[grade - 1])
        bottom += counts
    axis.invert_yaxis()
    axis.set_title("Pfirrmann grade")
    axis.set_xlabel("people")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(ncols=5, fontsize=7, loc="upper center", bbox_to_anchor=(0.45, -0.24), handlelength=1, frameon=False,
                columnspacing=0.8)


def plot_agreement(first: np.ndarray, second: np.ndarray, groups: Sequence[str], names: tuple[str, str], unit: str,
                   summary: str = ""):
    """Plot identity scatter and Bland-Altman of a measurement and its reference in the same discs, shape (n,).

    Groups, the levels, are shown by color and marker; the summary is written into the scatter plot.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    figure, ((left, right),) = new_figure(9.5, 4.0, 1, 2)
    unit = f" [{unit}]" if unit not in ("", "1") else ""
    difference, mean = first - second, (first + second) / 2
    bias, spread = np.nanmean(difference), np.nanstd(difference, ddof=1)
    for group, color, marker in zip(dict.fromkeys(groups), COLORS, "osD^vPX"):
        some = np.array([g == group for g in groups])
        style = {"s": 20, "color": color, "marker": marker, "alpha": 0.85, "label": group, "linewidths": 0}
        left.scatter(second[some], first[some], **style)
        right.scatter(mean[some], difference[some], **style)
    low, high = np.nanmin([first, second]), np.nanmax([first, second])
    left.plot([low, high], [low, high], color="#5b6b7a", lw=1, zorder=0)
    left.set(xlabel=names[1] + unit, ylabel=names[0] + unit, title="Against the reference")
    left.text(0.03, 0.97, summary, transform=left.transAxes, va="top", fontsize=8)
    left.legend(fontsize=8, loc="lower right", frameon=False)
    for value, dashes, text in ((bias, "-", "bias"), (bias + 1.96 * spread, "--", "+1.96 SD"),
                               (bias - 1.96 * spread, "--", "\u22121.96 SD")):
        right.axhline(value, color="#1b2733", lw=1, ls=dashes)
        right.text(1.0, value, f" {text}\n {value:.3g}", transform=right.get_yaxis_transform(), va="center", fontsize=8)
    right.set(xlabel="Mean of both" + unit, ylabel=f"{names[0]} \u2212 {names[1]}{unit}", title="Bland-Altman")
    return figure


def plot_groups(panels: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str, ylabel: str):
    """Plot single values and medians by group, for ordinal or group variables; one panel per region, by its title."""
    count = max(len(panels), 1)
    figure, axes = new_figure(min(3.2 * count, 12), 3.1, 1, count, sharey=True)
    rng = np.random.default_rng(0)
    for axis, (title, groups) in zip(axes[0], panels.items()):
        keys = sorted(groups)
        for n, key in enumerate(keys):
            values = np.asarray(groups[key], float)
            values = values[np.isfinite(values)]
            spread = rng.uniform(-0.16, 0.16, len(values))
            axis.scatter(n + spread, values, s=11, color=COLORS[0], alpha=0.55, linewidths=0)
            if len(values):
                axis.plot([n - 0.28, n + 0.28], [np.median(values)] * 2, color=COLORS[1], lw=2.2)
        axis.set_xticks(range(len(keys)), [f"{k:g}" if isinstance(k, float) else str(k) for k in keys])
        axis.set(title=title, xlabel=xlabel)
    axes[0, 0].set_ylabel(ylabel)
    return figure


def plot_quality(values: Mapping[str, Sequence[float]], ylabel: str, limit: float | None = None):
    """Plot a quality measure by level: all values, median, and the limit below which discs are flagged."""
    figure, axes = new_figure(5.2, 2.5)
    axis = axes[0, 0]
    rng = np.random.default_rng(0)
    for n, given in enumerate(values.values()):
        data = np.asarray(given, float)
        data = data[np.isfinite(data)]
        axis.scatter(n + rng.uniform(-0.15, 0.15, len(data)), data, s=13, color=COLORS[0], alpha=0.6, linewidths=0)
        if len(data):
            axis.plot([n - 0.28, n + 0.28], [np.median(data)] * 2, color=COLORS[1], lw=2.2)
    if limit is not None:
        axis.axhline(limit, color="#5b6b7a", ls="--", lw=1)
    axis.set_xticks(range(len(values)), list(values))
    axis.set_ylabel(ylabel)
    return figure
