"""Noise level of magnitude images, needed by the Rician estimator and for a noise floor.

A magnitude image without signal is Rayleigh distributed: its mean square is 2 sigma^2 (Gudbjartsson and Patz,
Magn Reson Med 1995;34:910). With signal well above the noise the residuals of a fit have the variance sigma^2.
"""

import numpy as np

from ..errors import EchoSeriesError

#: Median of a Rayleigh distribution over its sigma.
_RAYLEIGH_MEDIAN = float(np.sqrt(2 * np.log(2)))


def background_sigma(image: np.ndarray, smallest_share: float = 0.05) -> float | None:
    """Estimate sigma from the air around the body, or return None where the image shows none.

    The mode of a Rayleigh distribution is sigma (Sijbers, Phys Med Biol 2007;52:1335). A start from the lowest
    quantiles is refined with the median of the voxels below three sigma, and accepted only if those voxels are
    distributed like noise and a `smallest_share` of all; zeros (masked or padded) and non-finite values are left out.
    """
    values = np.asarray(image, np.float64).ravel()
    values = values[np.isfinite(values) & (values > 0)]
    if values.size < 1000:
        return None
    sigma = float(np.quantile(values, smallest_share)) / _RAYLEIGH_MEDIAN
    truncated = _truncated_quantile(0.5)
    for _ in range(100):
        below = values[values < 3 * sigma]
        if below.size < 100:
            return None
        update = float(np.median(below)) / truncated
        if abs(update - sigma) < 1e-4 * sigma:
            break
        sigma = update
    below = values[values < 3 * sigma]
    quantiles = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9])
    expected = sigma * _truncated_quantile(quantiles)
    like_noise = np.all(np.abs(np.quantile(below, quantiles) / expected - 1) < 0.15)
    return float(sigma) if like_noise and below.size >= smallest_share * values.size else None


def _truncated_quantile(share):
    """Return quantiles of a Rayleigh distribution of sigma 1 cut off at 3."""
    return np.sqrt(-2 * np.log1p(share * np.expm1(-4.5)))


def residual_sigma(ssr: np.ndarray, degrees_of_freedom: int) -> float:
    """Estimate sigma from the fits' residual sums of squares, one per voxel; EchoSeriesError if there are none.

    The median over voxels, divided by the median of chi-squared, so that edges and vessels do not count.
    """
    from scipy.special import gammaincinv

    ssr = np.asarray(ssr, np.float64)
    ssr = ssr[np.isfinite(ssr)]
    if degrees_of_freedom < 1 or ssr.size == 0:
        raise EchoSeriesError("The noise level cannot be estimated: it needs more echoes than parameters and fitted "
                              "voxels. Give the noise level (sigma), or use the estimator 'nlls'.")
    return float(np.sqrt(np.median(ssr) / (2 * gammaincinv(degrees_of_freedom / 2, 0.5))))
