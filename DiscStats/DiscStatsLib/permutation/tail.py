"""The tail of a permutation distribution as a generalized Pareto distribution: p below 1 / (number of permutations).

Source: Winkler et al. 2016 (Neuroimage 141:502), after Knijnenburg et al. 2009. The largest tenth of the null
distribution is fitted by moments (Hosking & Wallis 1987, Technometrics 29:339); the quarter of that paper gave half the
p of 100 000 permutations at 3 in 10 000. The fit is checked by the Anderson-Darling statistic, whose null distribution
is simulated, as the parameters are estimated. Where it does not fit, smaller shares are tried; else p stays counted.
"""

from dataclasses import dataclass

import numpy as np

from .max_statistic import fwe_p
from .stratum import TIE

#: Shares of the null distribution that are tried, and how many values a tail needs.
SHARES = (0.1, 0.075, 0.05, 0.025)
FEWEST = 50
#: p of the Anderson-Darling test above which the tail is said to fit, and data sets of its null distribution.
FITS, SIMULATED = 0.05, 199


@dataclass(frozen=True)
class Tail:
    """A fitted tail: exceedances x of `threshold` have P(X > x) = (1 - shape x / scale)^(1 / shape)."""

    threshold: float
    shape: float
    scale: float
    #: Values beyond the threshold, and of the null distribution (`n`), the observed order among them.
    exceedances: int
    n: int
    #: p of the Anderson-Darling test.
    fit_p: float

    def p(self, observed: np.ndarray) -> np.ndarray:
        """Return p of values beyond the threshold; 0 beyond the end of a tail that has one."""
        return self.exceedances / self.n * _survival(np.asarray(observed, float) - self.threshold, self.shape,
                                                     self.scale)


def fit_tail(null: np.ndarray) -> Tail | None:
    """Return the tail of a null distribution, shape (m,), or None where none fits."""
    null, rng = np.sort(np.asarray(null, float)), np.random.default_rng(0)
    n = len(null) + 1
    for share in SHARES:
        count = int(share * len(null))
        if count < FEWEST:
            return None
        threshold = float(null[-count - 1])
        beyond = null[null > threshold] - threshold
        if len(beyond) < FEWEST:  # ties: a discrete distribution has no smooth tail
            continue
        if np.ptp(beyond) == 0:
            continue
        shape, scale = _moments(beyond)
        own = _anderson_darling(beyond, shape, scale)
        others = []
        for _ in range(SIMULATED):
            drawn = _quantile(rng.uniform(size=len(beyond)), shape, scale)
            others.append(_anderson_darling(drawn, *_moments(drawn)))
        fit_p = (1 + np.sum(np.array(others) >= own)) / (SIMULATED + 1)
        if fit_p > FITS and shape <= 1:  # beyond, density rises toward the end: no tail
            return Tail(threshold, shape, scale, len(beyond), n, float(fit_p))
    return None


def tail_p(observed: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, Tail | None]:
    """Return (p of observed maxima, the tail used).

    Parameters
    ----------
    observed : ndarray
        Larger is more extreme; NaN stays NaN.
    null : ndarray, shape (m,)

    Returns
    -------
    p : ndarray
        Counted up to the threshold of the tail, and beyond the end of a tail that has one; approximated between them.
    """
    p, tail = fwe_p(observed, null), fit_tail(null)
    if tail is None:
        return p, None
    with np.errstate(invalid="ignore"):
        approximated = tail.p(observed * (1 - TIE))
        return np.where((observed > tail.threshold) & (approximated > 0), np.minimum(approximated, 1), p), tail


def _moments(x: np.ndarray) -> tuple[float, float]:
    ratio = x.mean() ** 2 / x.var(ddof=1)
    return 0.5 * (ratio - 1), 0.5 * x.mean() * (ratio + 1)


def _survival(x: np.ndarray, shape: float, scale: float) -> np.ndarray:
    if abs(shape) < 1e-9:
        return np.exp(-x / scale)
    return np.maximum(1 - shape * x / scale, 0) ** (1 / shape)


def _quantile(u: np.ndarray, shape: float, scale: float) -> np.ndarray:
    return -scale * np.log(u) if abs(shape) < 1e-9 else scale * (1 - u ** shape) / shape


def _anderson_darling(x: np.ndarray, shape: float, scale: float) -> float:
    upper = np.clip(_survival(np.sort(x), shape, scale), 1e-12, 1 - 1e-12)
    n = len(x)
    weight = 2 * np.arange(1, n + 1) - 1
    return float(-n - np.sum(weight * (np.log1p(-upper) + np.log(upper[::-1]))) / n)
