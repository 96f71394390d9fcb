"""False discovery rate over many tests."""

from __future__ import annotations

import numpy as np


def adjust_bh(p) -> np.ndarray:
    """Return Benjamini-Hochberg adjusted p (q values); NaN is no test and stays NaN.

    Source: Benjamini & Hochberg 1995 (J R Stat Soc B 57:289).
    """
    return _step_up(np.asarray(p, float), 1.0)


def adjust_by(p) -> np.ndarray:
    """Return Benjamini-Yekutieli adjusted p, valid under any dependence (Ann Stat 2001;29:1165)."""
    p = np.asarray(p, float)
    m = np.isfinite(p).sum()
    return _step_up(p, float(np.sum(1.0 / np.arange(1, m + 1))) if m else 1.0)


def reject_bky(p, q: float = 0.05) -> np.ndarray:
    """Return which tests the two-stage procedure of Benjamini, Krieger & Yekutieli 2006 rejects at level q."""
    p = np.asarray(p, float)
    m = np.isfinite(p).sum()
    level = q / (1 + q)
    first = int(np.sum(adjust_bh(p) <= level))
    if first in (0, m):
        return adjust_bh(p) <= level
    return adjust_bh(p) <= level * m / (m - first)


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


def _step_up(p: np.ndarray, factor: float) -> np.ndarray:
    adjusted = np.full(p.shape, np.nan)
    valid = np.isfinite(p)
    values = p[valid]
    m = len(values)
    if m:
        order = np.argsort(values)[::-1]
        scaled = values[order] * factor * m / np.arange(m, 0, -1)
        result = np.empty(m)
        result[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
        adjusted[valid] = result
    return adjusted
