"""The G statistic: observations fall into groups (scanners, patients and controls), each with a variance of its own.

With R the residual-forming matrix, e the residuals and W diagonal, W_nn = (sum of R_mm over n's group) / (e'e of it),

    G = b'C (C'(M'WM)^-1 C)^-1 C'b / (L s),   L = 1 + 2 (s - 1) / (s (s + 2)) sum_g (1 - w_g)^2 / (sum of R_mm over g),

s the rank of C and w_g the share of group g in the trace of W (Winkler et al. 2014, Neuroimage 92:381). It is Welch's t
squared for two groups, Welch's F for several, and the ordinary F for one variance group. Under rearrangement the
residual sums of squares of the groups are matrix products as those of HC3 (see ``robust``).

Voxels and rearrangements differ in Welch's degrees of freedom, so G is compared as the F of nearly the same p with
those of the design: where the larger spread is in the smaller group, maxima of G itself are of the heaviest tails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from .robust import quadratic_factors

#: A group with fewer residual degrees of freedom than this has been fitted by parameters of its own.
NO_FREEDOM = 1e-8


@dataclass(frozen=True)
class VarianceGroups:
    """What G needs of a design; arrays have a leading voxel axis where every voxel has a design of its own."""

    #: Shape (groups, m). 1 for the members of each group.
    weights: np.ndarray
    #: As in :class:`.robust.Sandwich`.
    factors: np.ndarray
    #: Shape (m, v). Squared residuals of the reduced model.
    squares: np.ndarray
    #: Shape (groups, p, p). Q'Q over the members of each group; directions of the contrast first.
    grams: np.ndarray
    #: Shape (groups,). Sum of R_mm over each group.
    freedom: np.ndarray

    def part(self, block: slice) -> VarianceGroups:
        """Return some of the voxels."""
        if self.weights.ndim == 2:
            return replace(self, squares=self.squares[:, block])
        return replace(self, weights=self.weights[block], squares=self.squares[:, block], grams=self.grams[block],
                       freedom=self.freedom[block])

    def share(self, along: np.ndarray, sums: np.ndarray, r: int, df: int) -> np.ndarray:
        """Return rho such that (df / r) rho / (1 - rho) has the p of G; see :func:`statistic`."""
        return equivalent_share(*statistic(self, along[:r], sums)[:2], r, df)


def equivalent_share(g: np.ndarray, welch: np.ndarray, r: int, df: int) -> np.ndarray:
    """Return the partial R squared whose F of (r, df) degrees of freedom has nearly the p of G with (r, welch).

    Both are brought to a chi squared by Bartlett's factor, (df + r / 2 - 1) log(1 + r F / df) (Bartlett 1938, Math Proc
    Camb Phil Soc 34:33).
    """
    welch, half = np.clip(welch, 1.0, df), r / 2 - 1
    return -np.expm1(-(welch + half) / (df + half) * np.log1p(r * g / welch))


def make_groups(qx: np.ndarray, qz: np.ndarray, movable: np.ndarray | None, e: np.ndarray,
                groups: np.ndarray) -> VarianceGroups:
    """Return what G needs; DesignError if a group has no residual degree of freedom.

    Bases qx and qz have the shape (m, .) or (v, m, .), the directions of the products (m, c), None with voxel-wise
    designs, residuals of the reduced model (m, v), and numbers of the observations' groups (m,).
    """
    q = np.concatenate([qx, qz], axis=-1)
    members = (groups == np.unique(groups)[:, None]).astype(float)
    if q.ndim == 3:
        # Absent observations have a row of zeros.
        members = members * (np.abs(q).max(axis=2) > 0)[:, None, :]
    grams = np.einsum("...gm,...ma,...mb->...gab", members, q, q)
    freedom = members.sum(axis=-1) - np.trace(grams, axis1=-2, axis2=-1)
    if np.any((freedom < NO_FREEDOM) & (members.sum(axis=-1) > 0)) and q.ndim == 2:
        raise DesignError("A variance group has no residual degree of freedom (a scanner with one person?): merge it "
                          "with another, or leave its people out.", anchor="variance-groups")
    factors = np.empty(0) if q.ndim == 3 or movable is None else quadratic_factors(members, movable)
    return VarianceGroups(members, factors, e ** 2, grams, freedom)


def statistic(of: VarianceGroups, along: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return G, its denominator degrees of freedom, and the variance of the first direction, shape (..., v).

    From Qx'PE, shape (r, ..., v), and residual sums of squares, shape (groups, ..., v). The degrees of freedom are
    Welch's approximation, r (r + 2) / (3 sum_g (1 - w_g)^2 / (sum of R_mm over g)).
    """
    r, n_groups = len(along), len(sums)
    # Voxels come last in the data and first in the designs.
    grams, freedom, count = (np.moveaxis(a, 0, -1) if of.weights.ndim == 3 else a[..., None] for a in
                             (of.grams, of.freedom, of.weights.sum(axis=-1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = [np.where(count[g] > 0, np.where(freedom[g] > NO_FREEDOM, freedom[g], np.nan) / sums[g], 0.0)
                  for g in range(n_groups)]
        p = grams.shape[1]
        cross = {(a, b): sum(weight[g] * grams[g, a, b] for g in range(n_groups))
                 for a in range(p) for b in range(a + 1)}
        # Take the reduced model out, one direction at a time: what is left is the information on the contrast.
        for last in range(p - 1, r - 1, -1):
            for a in range(last):
                ratio = cross[last, a] / cross[last, last]
                for b in range(a + 1):
                    cross[a, b] = cross[a, b] - ratio * cross[last, b]
        wald = sum((1 if a == b else 2) * along[a] * along[b] * cross[a, b] for a in range(r) for b in range(a + 1))
        total = sum(count[g] * weight[g] for g in range(n_groups))
        uneven: Any = sum(np.where(count[g] > 0, (1 - count[g] * weight[g] / total) ** 2 / freedom[g], 0.0)
                     for g in range(n_groups))
        return (wald / r / (1 + 2 * (r - 1) / (r * (r + 2)) * uneven), r * (r + 2) / (3 * uneven), 1 / cross[0, 0])
