"""How signal is spread in a disc: nucleus against annulus, the cleft in the nucleus, and the distance of the peaks."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import gaussian_kde

from ..tables import Column
from .sections import Missing

#: Relative heights (0 the middle, 1 the surfaces) of the cleft and of the nucleus beside it.
CLEFT, BESIDE = 0.2, 0.6
#: Fewer voxels with a value make no mean of a band or region.
LEAST = 12
_PEAK_GRID = 256


def signal_columns(key: str, unit: str) -> list[Column]:
    """Return the columns of a map's :func:`signal_measures`."""
    return [
        Column(f"{key}_contrast", "1", "Nucleus less annulus over their sum (means)"),
        Column(f"{key}_cleft_index", "1", "Intranuclear cleft: 1 - mean of the nucleus's middle fifth of the height "
                                          "over that of the fifths above and below it; 0 is no midline"),
        Column(f"{key}_peak_difference", unit, "Most frequent value of the nucleus less that of the annulus")]


def signal_measures(values: np.ndarray, members: Mapping[str, np.ndarray], height: np.ndarray) -> dict:
    """Return how to measure a map in one disc: by column, a function that returns a float or raises Missing.

    Columns lack the map's name. Values of the voxels, NaN where the fit failed, members of each region, and relative
    height, -1 caudal to 1 cranial, all have the shape (n,).
    """
    nucleus, annulus, height = members["nucleus"], members["annulus"], np.abs(height)

    def some(inside: np.ndarray, name: str) -> np.ndarray:
        found = values[inside & np.isfinite(values)].astype(float)
        if len(found) < LEAST:
            raise Missing(f"fewer than {LEAST} voxels of {name} have a value")
        return found

    def mean(inside: np.ndarray, name: str) -> float:
        return float(some(inside, name).mean())

    def ratio(part: float, whole: float) -> float:
        if not (whole > 0 and part >= 0):
            raise Missing("the signal is not positive")
        return part / whole

    def contrast() -> float:
        inner, outer = mean(nucleus, "the nucleus"), mean(annulus, "the annulus")
        return 1 - 2 * ratio(outer, inner + outer)

    def cleft_index() -> float:
        beside = mean(nucleus & (height > CLEFT) & (height <= BESIDE), "the nucleus beside its midline")
        return 1 - ratio(mean(nucleus & (height <= CLEFT), "the nucleus's midline"), beside)

    def peak_difference() -> float:
        return _peak(some(nucleus, "the nucleus")) - _peak(some(annulus, "the annulus"))

    return {f.__name__: f for f in (contrast, cleft_index, peak_difference)}


def _peak(values: np.ndarray) -> float:
    """Return the most frequent value: the maximum of a Gaussian kernel density (Scott's bandwidth)."""
    low, high = np.quantile(values, (0.01, 0.99))
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return float(np.median(values))
    grid = np.linspace(low, high, _PEAK_GRID)
    return float(grid[gaussian_kde(values)(grid).argmax()])
