"""The general linear model at all voxels at once, by QR in float64.

y = X b + e with a contrast C'b. The design is split into the space of the reduced model, M null(C), and the directions
of the contrast that are orthogonal to it (Beckmann et al. 2001; Winkler et al. 2014, appendix), so that one QR gives
effect, statistic, and everything that Freedman-Lane permutation needs. No inverse of X'X is formed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from .robust import hc3_weights, wald_share
from .variance_groups import equivalent_share, make_groups, statistic

#: Residual sum of squares below this share of the total is rounding: the fit is perfect and t is undefined.
PERFECT = 1e-20


@dataclass(frozen=True)
class Partition:
    """A design split by a contrast."""

    #: Shape (n, k). Orthonormal basis of the reduced model; with voxel-wise covariates one for each voxel.
    qz: np.ndarray
    #: Shape (n, r). Orthonormal directions of the contrast given the reduced model. With r = 1 its sign is that of the
    #: effect.
    qx: np.ndarray
    #: Shape (v,). For r = 1: effect = scale * (qx' y), standard error = scale * sigma.
    scale: np.ndarray
    #: Residual degrees of freedom, n - rank; shape (v,) where voxels lack observations.
    df: Any

    @property
    def r(self) -> int:
        """Rank of the contrast."""
        return self.qx.shape[-1]

    @property
    def voxelwise(self) -> bool:
        """Whether every voxel has a design of its own."""
        return self.qx.ndim == 3


@dataclass(frozen=True)
class Fit:
    """Per-voxel results of a contrast; arrays have shape (v,), NaN where the statistic is undefined."""

    #: c'b, its standard error and 95 % confidence limits in the unit of the map (t contrasts; NaN for F).
    effect: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    #: t or F.
    stat: np.ndarray
    #: Uncorrected parametric p: two-sided for t, upper tail for F.
    p: np.ndarray
    #: Partial correlation t / sqrt(t^2 + df) (NaN for F).
    r: np.ndarray
    #: Standardized effect c'b / residual SD (Cohen's d where the contrast is a difference of two groups); partial eta
    #: squared for F.
    size: np.ndarray
    df: Any
    #: bool. Voxels fitted without residual, and voxels that do not vary beyond the reduced model.
    perfect: np.ndarray
    constant: np.ndarray
    #: What rearrangements are compared with: `stat`, or for variance groups the t or F of `df` with its p.
    compared: np.ndarray


def partition(matrix: np.ndarray, weights: np.ndarray) -> Partition:
    """Split a design of full column rank, shape (n, p) or (v, n, p), by contrast weights of shape (r, p)."""
    matrix, weights = np.asarray(matrix, float), np.atleast_2d(np.asarray(weights, float))
    n, p = matrix.shape[-2:]
    # Columns are scaled to unit length first, so that natural units (years beside counts) do not cost digits.
    length = np.linalg.norm(matrix, axis=-2, keepdims=True)
    length = np.where(length > 0, length, 1.0)
    scaled = weights / length  # C'b = (C' / length)(length b); (r, p) or (v, r, p)
    _, _, right = np.linalg.svd(scaled)
    r = weights.shape[0]
    null, row = right[..., r:, :], right[..., :r, :]
    unit = matrix / length
    q, triangle = np.linalg.qr(unit @ np.swapaxes(np.concatenate([null, row], axis=-2), -1, -2))
    qz, qx = q[..., : p - r], q[..., p - r:]
    if r > 1:
        return Partition(qz, qx, np.full(matrix.shape[:-2], np.nan), n - p)
    # The last coordinate of the QR system is (row b~) = qx'y / R_rr, and the contrast is (scaled . row) times it.
    ratio = np.sum(scaled[..., 0, :] * row[..., 0, :], axis=-1) / triangle[..., -1, -1]
    sign = np.where(ratio < 0, -1.0, 1.0)
    return Partition(qz, qx * np.asarray(sign)[..., None, None], np.abs(ratio), n - p)


def full_rank(matrix: np.ndarray) -> np.ndarray:
    """Tell whether a design, or each of (v, n, p), has independent columns and more rows than these."""
    length = np.linalg.norm(matrix, axis=-2, keepdims=True)
    singular = np.linalg.svd(matrix / np.where(length > 0, length, 1), compute_uv=False)
    return (singular[..., -1] > 1e-10 * singular[..., 0]) & (matrix.shape[-2] > matrix.shape[-1])


def project(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return q'y, shape (k, v), for a common (n, k) or voxel-wise (v, n, k) basis and data (n, v)."""
    return q.T @ y if q.ndim == 2 else (np.swapaxes(q, 1, 2) @ y.T[:, :, None])[:, :, 0].T


def residuals(q: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return y without its projection on q, twice over: the second pass removes the rounding of the first."""
    for _ in range(2):
        c = project(q, y)
        y = y - (q @ c if q.ndim == 2 else (q @ c.T[:, :, None])[:, :, 0].T)
    return y


def full_residuals(part: Partition, y: np.ndarray) -> np.ndarray:
    """Return the residuals of the full model, shape (n, v)."""
    return residuals(part.qx, residuals(part.qz, y))


def leverage(part: Partition) -> np.ndarray:
    """Return the leverage of each observation, shape (n,) or (v, n)."""
    return np.sum(part.qx ** 2, axis=-1) + np.sum(part.qz ** 2, axis=-1)


def fit(part: Partition, y: np.ndarray, kind: str = "t", level: float = 0.95, robust: bool = False,
        variance_groups: np.ndarray | None = None) -> Fit:
    """Fit one contrast to data of shape (n, v) without missing values.

    Parameters
    ----------
    part : Partition
    y : ndarray, shape (n, v)
    kind : {"t", "F"}
    level : float
        Of the confidence limits.
    robust : bool
        Heteroscedasticity-consistent standard errors (HC3): they hold where the residual spread differs between
        observations. The standardized effect stays that of the common residual SD.
    variance_groups : ndarray of int, shape (n,), optional
        Observations of one number share a variance: Welch's t or F (the G statistic), with his degrees of freedom.

    Returns
    -------
    Fit
        Partial r is t / sqrt(t^2 + df) with df = n - rank.
    """
    y = np.asarray(y, float)
    rest = residuals(part.qz, y)
    along = project(part.qx, rest)
    error = residuals(part.qx, rest)
    sse, ssx = np.sum(error ** 2, axis=0), np.sum(along ** 2, axis=0)
    total = np.sum(y ** 2, axis=0)
    # Rounding of a voxel's own size is all that is left where the reduced model explains everything.
    constant = sse + ssx <= PERFECT * total
    perfect = ~constant & (sse <= PERFECT * total)
    with np.errstate(all="ignore"):
        sigma2 = np.where(constant | perfect, np.nan, sse / part.df)
        # Covariance of `along`, lower triangle row by row; sigma^2 on its diagonal for equal spread.
        variances = _hc3(part, error) + 0 * sigma2 if robust else sigma2[None]
        empty, df = np.full(y.shape[1], np.nan), part.df
        if variance_groups is not None:
            of = make_groups(part.qx, part.qz, part.qz, error, variance_groups)
            sums = np.einsum("gn,nv->gv" if of.weights.ndim == 2 else "vgn,nv->gv", of.weights, error ** 2)
            g, df, variance = (a + 0 * sigma2 for a in statistic(of, along, sums))
            df, variances = np.minimum(df, part.df), variance[None]
            share = equivalent_share(g, df, part.r, part.df)
            compared = part.df / part.r * share / (1 - share)
        if kind == "F":
            stat = ssx / part.r / sigma2
            if robust:
                share = wald_share(along, variances, part.r, part.df)
                stat = part.df / part.r * share / (1 - share)
            stat = stat if variance_groups is None else g
            p = special.fdtrc(part.r, df, stat)
            return Fit(empty, empty, empty, empty, stat, p, empty, ssx / (ssx + sse), part.df, perfect, constant,
                       stat if variance_groups is None else compared)
        effect, se = part.scale * along[0], part.scale * np.sqrt(variances[0])
        t = along[0] / np.sqrt(variances[0])
        half = special.stdtrit(df, 0.5 + level / 2) * se
        p = 2 * special.stdtr(df, -np.abs(t))
        return Fit(effect, se, effect - half, effect + half, t, p, t / np.sqrt(t ** 2 + part.df),
                   effect / np.sqrt(sigma2), part.df, perfect, constant,
                   t if variance_groups is None else np.copysign(np.sqrt(compared), t))


def _hc3(part: Partition, error: np.ndarray) -> np.ndarray:
    """Return the HC3 covariance of qx'y at each voxel, shape (pairs, v)."""
    weights = hc3_weights(part.qx, part.qz)
    return weights @ error ** 2 if weights.ndim == 2 else np.einsum("vpn,nv->pv", weights, error ** 2)


def estimates(matrix: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the least-squares coefficients, shape (p, v), by QR of the column-scaled design."""
    length = np.linalg.norm(matrix, axis=0)
    q, triangle = np.linalg.qr(matrix / length)
    first = np.linalg.solve(triangle, q.T @ y)
    # One step of refinement brings the digits that an ill-conditioned design costs.
    rest = y - (matrix / length) @ first
    return (first + np.linalg.solve(triangle, q.T @ rest)) / length[:, None]
