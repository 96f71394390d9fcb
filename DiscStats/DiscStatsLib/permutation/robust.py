"""The heteroscedasticity-consistent statistic (HC3) under permutation and sign flipping, as matrix products.

HC3 weighs each squared residual of the full model by (1 - leverage)^-2 (MacKinnon & White 1985, J Econometrics 29:305;
Long & Ervin 2000, Am Stat 54:217). With P a rearrangement, E the residuals of the reduced model and Q the basis of the
design, the residuals of the refit are e = PE - QQ'PE, and for any diagonal weights W

    e'We = w'P(E * E) - sum_c (Q'PE)_c (F'PE)_c,    F = 2WQ - QQ'WQ,

so that no refit is made: twice the product of the classical statistic, and one with the squares of E.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from DiscRelaxometryLib.errors import DesignError

#: An observation of this leverage is fitted by a parameter of its own: its error cannot be estimated.
FULL_LEVERAGE = 1 - 1e-10


@dataclass(frozen=True)
class Sandwich:
    """What the robust variance of a stratum needs."""

    #: Shape (pairs, m). qx_a qx_b / (1 - h)^2 for a <= b, row by row of the lower triangle.
    weights: np.ndarray
    #: F above, for each pair; empty with voxel-wise designs.
    factors: np.ndarray
    #: Shape (m, v). Squared residuals of the reduced model.
    squares: np.ndarray

    def part(self, block: slice) -> Sandwich:
        """Return some of the voxels."""
        weights = self.weights if self.weights.ndim == 2 else self.weights[block]
        return replace(self, weights=weights, squares=self.squares[:, block])

    def share(self, along, variances, r: int, df: int):
        """Return rho such that (df / r) rho / (1 - rho) is the Wald statistic over r."""
        return wald_share(along, variances, r, df)


def hc3_weights(qx: np.ndarray, qz: np.ndarray) -> np.ndarray:
    """Return the weights of the squared residuals, shape (pairs, m) or (v, pairs, m), for bases (m, .) or (v, m, .).

    DesignError if an observation has a parameter of its own.
    """
    leverage = np.sum(qx ** 2, axis=-1) + np.sum(qz ** 2, axis=-1)
    if (leverage > FULL_LEVERAGE).any():
        raise DesignError("Robust standard errors (HC3) cannot be computed: an observation has a parameter of its own "
                          "(a group of one person?). Leave the person out, merge the group, or choose classical "
                          "standard errors.", anchor="robust")
    r = qx.shape[-1]
    scaled = qx / (1 - leverage)[..., None]
    return np.stack([scaled[..., a] * scaled[..., b] for a in range(r) for b in range(a + 1)], axis=-2)


def make_sandwich(qx: np.ndarray, qz: np.ndarray, movable: np.ndarray, e: np.ndarray) -> Sandwich:
    """Return the sandwich of residuals e, shape (m, v), of a design; `movable` are the directions of the product."""
    weights = hc3_weights(qx, qz)
    if qx.ndim == 3:
        return Sandwich(weights, np.empty(0), e ** 2)
    return Sandwich(weights, quadratic_factors(weights, movable), e ** 2)


def quadratic_factors(weights: np.ndarray, movable: np.ndarray) -> np.ndarray:
    """Return F of each row of weights, shape (m, rows * c)."""
    return np.hstack([2 * w[:, None] * movable - movable @ (movable.T @ (w[:, None] * movable)) for w in weights])


def wald_share(along, variances, r: int, df: int):
    """Return rho such that (df / r) rho / (1 - rho) is the Wald statistic over r; numpy or torch.

    `along` is Qx'PE, shape (r, ...); `variances` the lower triangle of its covariance, row by row, and overwritten.
    """
    if r == 1:
        wald = along[0] * along[0] / variances[0]
        return wald / (wald + df)
    # Forward substitution with the Cholesky factor, one entry at a time for all voxels.
    factor, solved, wald = {}, [], 0
    for a in range(r):
        rest = along[a]
        for b in range(a + 1):
            value = variances[a * (a + 1) // 2 + b]
            for c in range(b):
                value = value - factor[a, c] * factor[b, c]
            factor[a, b] = value ** 0.5 if a == b else value / factor[b, b]
            if b < a:
                rest = rest - factor[a, b] * solved[b]
        solved.append(rest / factor[a, a])
        wald = wald + solved[a] * solved[a]
    return wald / (wald + df)
