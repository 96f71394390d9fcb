"""Receiver operating characteristic: area with DeLong's or a bootstrap interval, and comparison of two areas."""

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from DiscRelaxometryLib.errors import DesignError


@dataclass(frozen=True)
class Roc:
    """Area under the curve."""

    #: Probability that a random positive scores higher than a random negative (ties count one half).
    area: float
    standard_error: float
    #: Confidence limits.
    low: float
    high: float
    #: ``delong`` (on the logit scale) or ``bootstrap`` (percentile, stratified).
    method: str
    positives: int
    negatives: int
    #: The curve, from (0, 0) to (1, 1); scores at or above a threshold are called positive.
    false_positive: np.ndarray = field(repr=False)
    true_positive: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)


def roc(scores, positive, method: str = "delong", confidence: float = 0.95, resamples: int = 2000,
        seed: int = 1) -> Roc:
    """Return the ROC curve and its area.

    Parameters
    ----------
    scores : array-like, shape (n,)
        Larger means more likely positive; give minus T1rho where low values mean disease.
    positive : array-like of bool, shape (n,)
    method : {"delong", "bootstrap"}
        DeLong, DeLong and Clarke-Pearson (1988), or a bootstrap within each group.
    confidence : float
    resamples, seed : int
        Of the bootstrap.

    Raises
    ------
    DesignError
        With fewer than two positives or negatives, or an unknown method.
    """
    scores, positive = _checked(scores, positive)
    high_scores, low_scores = scores[positive], scores[~positive]
    area, by_positive, by_negative = _placements(high_scores, low_scores)
    error = float(np.sqrt(by_positive.var(ddof=1) / len(by_positive) + by_negative.var(ddof=1) / len(by_negative)))
    if method == "delong":
        low, high = _logit_interval(area, error, confidence)
    elif method == "bootstrap":
        rng = np.random.default_rng(seed)
        areas = [_placements(rng.choice(high_scores, len(high_scores)), rng.choice(low_scores, len(low_scores)))[0]
                 for _ in range(resamples)]
        error = float(np.std(areas, ddof=1))
        low, high = np.quantile(areas, ((1 - confidence) / 2, (1 + confidence) / 2)).tolist()
    else:
        raise DesignError(f"The interval method '{method}' is unknown: use delong or bootstrap.")
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    true_positive = (high_scores[:, None] >= thresholds).mean(axis=0)
    false_positive = (low_scores[:, None] >= thresholds).mean(axis=0)
    return Roc(area, error, low, high, method, len(high_scores), len(low_scores), false_positive, true_positive,
               thresholds)


def compare_areas(first, second, positive) -> tuple[float, float, float]:
    """Return difference of two areas of the same people, its standard error, and DeLong's two-sided p."""
    first, labels = _checked(first, positive)
    second, _ = _checked(second, positive)
    a, a_positive, a_negative = _placements(first[labels], first[~labels])
    b, b_positive, b_negative = _placements(second[labels], second[~labels])
    variance = np.var(a_positive - b_positive, ddof=1) / len(a_positive) \
        + np.var(a_negative - b_negative, ddof=1) / len(a_negative)
    error = float(np.sqrt(variance))
    z = (a - b) / error if error > 0 else (0.0 if a == b else np.inf)
    return a - b, error, float(2 * stats.norm.sf(abs(z)))


def _placements(high: np.ndarray, low: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the area and each positive's and negative's placement value, by ranks (Sun and Xu 2014)."""
    m, n = len(high), len(low)
    together = stats.rankdata(np.concatenate([high, low]))
    by_positive = (together[:m] - stats.rankdata(high)) / n
    by_negative = 1 - (together[m:] - stats.rankdata(low)) / m
    return float(by_positive.mean()), by_positive, by_negative


def _logit_interval(area: float, error: float, confidence: float) -> tuple[float, float]:
    """Return the interval on the logit scale, which stays within 0 and 1."""
    if not 0 < area < 1 or error == 0:
        return area, area
    half = stats.norm.ppf((1 + confidence) / 2) * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(np.log(area / (1 - area)) + np.array((-half, half)))))
    return float(low), float(high)


def _checked(scores, positive) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = np.asarray(scores, float).ravel(), np.asarray(positive).ravel()
    if scores.shape != positive.shape:
        raise DesignError(f"{len(scores)} scores and {len(positive)} labels cannot be paired.")
    if not np.isfinite(scores).all():
        raise DesignError(f"{int(np.count_nonzero(~np.isfinite(scores)))} score(s) are missing: leave these people out "
                          "first.", anchor="missing-values")
    if not set(np.unique(positive).tolist()) <= {0, 1}:
        raise DesignError("The labels must be true or false (1 or 0).")
    positive = positive.astype(bool)
    if positive.sum() < 2 or (~positive).sum() < 2:
        raise DesignError(f"A ROC curve needs two positives and two negatives at least; there are {positive.sum()} and "
                          f"{(~positive).sum()}.")
    return scores, positive
