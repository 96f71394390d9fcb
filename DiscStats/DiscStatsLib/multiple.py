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

    A test is rejected at q when its BH value times m0(q) / m is at most q / (1 + q), m0(q) being what the first stage
    leaves. m0 falls in steps as q grows; on each step the condition is solved in closed form.
    """
    p = np.asarray(p, float)
    bh = adjust_bh(p)
    tests = np.sort(bh[np.isfinite(bh)])
    m = len(tests)
    adjusted = np.where(np.isfinite(p), 1.0, np.nan)
    if m == 0:
        return adjusted
    starts = np.concatenate([[0.0], np.unique(tests)])
    for index, low in enumerate(starts):
        high = starts[index + 1] if index + 1 < len(starts) else np.inf
        left = m - int(np.sum(tests <= low)) if index else m
        factor = max(left, 0) / m
        # Within this step the first-stage level lies in [low, high); all is rejected once nothing is left.
        need = np.maximum(low, bh * (factor if left < m else 1.0))
        need = np.where(left == 0, low, need)
        ok = np.isfinite(need) & (need < high) & (need < 1)
        level = np.where(ok, need / np.maximum(1 - need, 1e-12), np.inf)
        adjusted = np.fmin(adjusted, np.where(np.isfinite(p), level, np.nan))
    return np.minimum(adjusted, 1.0)


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
