"""False discovery rate over many tests."""

import numpy as np


def adjust_bh(p) -> np.ndarray:
    """Return Benjamini-Hochberg adjusted p (q values); NaN is no test and stays NaN.

    Source: Benjamini & Hochberg 1995 (J R Stat Soc B 57:289).
    """
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    valid = np.isfinite(p)
    values = p[valid]
    m = len(values)
    if m:
        order = np.argsort(values)[::-1]
        scaled = values[order] * m / np.arange(m, 0, -1)
        result = np.empty(m)
        result[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
        adjusted[valid] = result
    return adjusted


def adjust_bky(p) -> np.ndarray:
    """Return the smallest level at which the two-stage procedure (BKY 2006, definition 6) rejects each test.

    A test is rejected at q when its BH value times m0(L) / m is at most L = q / (1 + q), m0 being what stage one
    leaves at L. m0 is a step function that falls at each BH value: the smallest L is solved on its step in closed form.
    """
    bh = adjust_bh(p)
    valid = np.isfinite(bh)
    m = int(valid.sum())
    if m == 0:
        return bh
    steps, count = np.unique(bh[valid], return_counts=True)
    low = np.concatenate([[0.0], steps])
    left = m - np.concatenate([[0], np.cumsum(count)])
    with np.errstate(divide="ignore"):
        # The largest BH value that is rejected somewhere on each step; all are once nothing is left.
        reach = np.concatenate([steps, [np.inf]]) * m / left
    step = np.searchsorted(reach, bh[valid], side="right")
    level = np.maximum(low[step], bh[valid] * left[step] / m)
    adjusted = np.full(bh.shape, np.nan)
    with np.errstate(divide="ignore"):
        adjusted[valid] = np.minimum(level / (1 - level), 1.0)
    return adjusted
