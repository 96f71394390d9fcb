"""What every relaxation model returns for a chunk of voxels."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Solution:
    """Fitted values of v voxels; arrays of shape (v,)."""

    #: Relaxation time in ms.
    value: np.ndarray
    #: Signal at time 0, in the unit of the signals.
    m0: np.ndarray
    #: Sums of squares, residual and total.
    ssr: np.ndarray
    sst: np.ndarray
    #: Variance of `value`, from the Fisher information; NaN where the noise is not known.
    variance: np.ndarray
    #: int8. 1 where the optimum lies at or below the lower bound of `value`, -1 at or above the upper, else 0.
    edge: np.ndarray
    #: bool.
    converged: np.ndarray
    #: Constant offset, in the unit of the signals.
    offset: np.ndarray | None = None
    #: Relative transmit field in percent.
    b1: np.ndarray | None = None

    @property
    def se(self) -> np.ndarray:
        """Standard error of `value` in ms."""
        return np.sqrt(self.variance)

    @property
    def r2(self) -> np.ndarray:
        """Coefficient of determination."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - self.ssr / self.sst


def noise_variance(ssr: np.ndarray, sigma: np.ndarray | None, freedom: int) -> np.ndarray:
    """Return the variance of the noise: from `sigma` where it is known, else from the residuals (NaN without any)."""
    if sigma is not None:
        return sigma**2
    return ssr / freedom if freedom else np.full_like(ssr, np.nan)


def total_squares(y: np.ndarray) -> np.ndarray:
    """Return the sum of squares about the mean over the first axis."""
    total = y - y.mean(axis=0)
    return np.einsum("nv,nv->v", total, total)
