"""Freedman-Lane permutation of the linear model, reduced to matrix products.

The data are residualized by the reduced model once (E, columns of unit length). A permutation P needs only Q'PE with Q
an orthonormal basis of the design: ``rho = |Qx'PE|^2 / (1 - |Qz'PE|^2)`` is the partial R squared of the exact refit,
and ``F = (df / r) rho / (1 - rho)``. P moves to the small side: Q'P times E is one GEMM for many permutations. It is
made in float32 where its error bound decides, and in float64 where it does not (``screen``). The
heteroscedasticity-consistent statistic takes the same way (``robust``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .deviates import stat_to_z
from .glm import Partition, residuals
from .missing import Alike, Presence, alike_voxels, inverse_of, shares, voxelwise_products
from .robust import Sandwich, make_sandwich
from .screen import share
from .variance_groups import VarianceGroups, make_groups

#: Statistics closer than this (relative) are the same relabeling computed in another order of summation.
TIE = 1e-9
#: Rounding of a product of unit vectors, for statistics so near 0 that a relative difference says nothing.
ROUNDING = 1e-14
VOXEL_BLOCK = 2048
BATCH = 64
#: Up to this many observations the residuals are stored in the basis of their space, which shortens the products.
BASIS_LIMIT = 64


@dataclass(frozen=True)
class Stratum:
    """Voxels that share a design and a set of observations."""

    #: Family member (quantity and level) whose maximum is recorded.
    group: int
    #: Shape (v,). Where the voxels stand in the flat result.
    columns: np.ndarray
    #: Shape (m,). Observations.
    rows: np.ndarray
    #: Shape (m, k). Orthonormal basis of the residual space.
    basis: np.ndarray | None
    #: Shape (k or m, v). Unit-length residuals of the reduced model, in the basis if there is one.
    data: np.ndarray
    #: Shape (m, c). Directions of the contrast, then those of the reduced model that permutation can move; the other
    #: way round where observations are missing.
    q: np.ndarray
    #: Rank of the contrast.
    r: int
    #: Residual degrees of freedom, one number or shape (v,).
    df: Any
    #: One of ``t``, ``F``.
    kind: str
    #: For the statistics that allow for unequal spread.
    sandwich: Sandwich | VarianceGroups | None = None
    #: Who has a value, where not everyone has.
    presence: Presence | None = None

    def part(self, block: slice) -> Stratum:
        """Return some of the voxels."""
        return replace(self, columns=self.columns[block], data=self.data[:, block],
                       q=self.q if self.q.ndim == 2 else self.q[block],
                       df=self.df if np.ndim(self.df) == 0 else self.df[block],
                       sandwich=self.sandwich and self.sandwich.part(block),
                       presence=self.presence and self.presence.part(block))

    @cached_property
    def blocks(self) -> list[Stratum]:
        """All voxels, so many at a time as a cache takes; kept, with what they know of themselves."""
        return [self.part(slice(start, start + VOXEL_BLOCK)) for start in range(0, len(self.columns), VOXEL_BLOCK)]

    @cached_property
    def alike(self) -> list[Alike]:
        """Voxels in groups that nearly the same observations have."""
        return alike_voxels(self.data, self.presence) if self.presence else []


#: Strata, or functions that make some when they are called for: what no memory holds at once.
Source = Stratum | Callable[[], Sequence[Stratum]]


def blocks_of_sources(strata: Sequence[Source]) -> list[Source]:
    """Return what is shared out among workers: blocks of strata, and sources that are called by who works on them."""
    return [task for source in strata for task in ([source] if callable(source) else source.blocks)]


def blocks_of_source(source: Source) -> list[Stratum]:
    """Return the blocks of a source."""
    return [block for s in source() for block in s.blocks] if callable(source) else source.blocks


def make_stratum(part: Partition, y: np.ndarray, kind: str, *, columns: np.ndarray, rows: np.ndarray, group: int = 0,
                 flip: bool = False, robust: bool = False, variance_groups: np.ndarray | None = None,
                 weights: np.ndarray | None = None, present: np.ndarray | None = None) -> Stratum:
    """Return the stratum of data y, shape (m, v), none of it constant given the reduced model.

    With `robust` its statistic is that of HC3, with `variance_groups`, shape (m,), it is G. With `weights`, shape (m,),
    the reduced model of flipped signs is fitted by weighted least squares: an ordinary fit bends the errors of the
    group with the larger spread toward 0. With `present`, shape (v, m), the designs are voxel-wise, and they and y are
    0 for the absent.
    """
    e = unit_residuals(part, y)
    weights = weights if flip and part.qz.shape[-1] > 0 else None
    if weights is not None:
        e = _weighted_residuals(part.qz, e, weights)
    if part.voxelwise:
        sandwich = _unequal(part, None, e, robust, variance_groups)
        return Stratum(group, columns, rows, None, e, np.concatenate([part.qx, part.qz], axis=2), part.r, part.df, kind,
                       sandwich, None if present is None else Presence(present))
    q = np.hstack([part.qx, part.qz if flip else part.qz @ _movable(part.qz)])
    sandwich = _unequal(part, q, e, robust, variance_groups)
    basis = None
    if len(e) <= BASIS_LIMIT and weights is None:
        basis = np.linalg.qr(part.qz, mode="complete")[0][:, part.qz.shape[1]:]
        e = basis.T @ e
    return Stratum(group, columns, rows, basis, np.ascontiguousarray(e), q, part.r, part.df, kind, sandwich)


def _weighted_residuals(qz: np.ndarray, e: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the residuals of a weighted fit of the reduced model to e, shape (m, v)."""
    heavy = qz * weights[:, None]
    gram = np.swapaxes(qz, -1, -2) @ heavy
    if qz.ndim == 2:
        return e - qz @ np.linalg.solve(gram, heavy.T @ e)
    fitted = np.linalg.solve(gram, np.einsum("vmk,mv->vk", heavy, e)[:, :, None])
    return e - np.einsum("vmk,vk->mv", qz, fitted[:, :, 0])


def _unequal(part: Partition, movable, e, robust: bool, variance_groups) -> Sandwich | VarianceGroups | None:
    """Return what the statistic for unequal spread needs; None for the classical one."""
    if variance_groups is not None:
        return make_groups(part.qx, part.qz, movable, e, variance_groups)
    return make_sandwich(part.qx, part.qz, movable, e) if robust else None


def make_partial_stratum(whole: Partition, e: np.ndarray, kind: str, present: np.ndarray, turn: np.ndarray, *,
                         df: np.ndarray, columns: np.ndarray, rows: np.ndarray, group: int = 0,
                         flip: bool = False) -> Stratum:
    """Return the stratum of voxels that lack some of the observations of one design.

    Parameters
    ----------
    whole : Partition
        Of everyone's design.
    e : ndarray, shape (m, v)
        From :func:`unit_residuals`, 0 for the absent.
    present, turn : ndarray
        As in :class:`.missing.Presence`; `turn` belongs to the columns of ``[whole.qz, whole.qx]``.
    """
    k = whole.qz.shape[1]
    movable = np.eye(k) if flip else _movable(whole.qz)
    turn = np.concatenate([movable.T @ turn[:, :k], turn[:, k:]], axis=1)
    return Stratum(group, columns, rows, None, e, np.hstack([whole.qz @ movable, whole.qx]), whole.r, df, kind, None,
                   Presence(present, turn))


def unit_residuals(part: Partition, y: np.ndarray) -> np.ndarray:
    """Return the residuals of the reduced model, shape (m, v), scaled to length 1."""
    e = residuals(part.qz, np.asarray(y, float))
    return e / np.linalg.norm(e, axis=0)


def _movable(qz: np.ndarray) -> np.ndarray:
    """Return coefficients of what permutation can move of a basis: all but the constant, as residuals sum to 0."""
    k = qz.shape[1]
    one = np.full(len(qz), len(qz) ** -0.5)
    share = qz.T @ one
    if k == 0 or share @ share < 1 - 1e-12:
        return np.eye(k)
    # Rotate the basis so that its first vector is the constant.
    return np.linalg.qr(np.column_stack([share, np.eye(k)]))[0][:, 1:]


def has_constant(qz: np.ndarray, present: np.ndarray | None = None) -> bool:
    """Tell whether the reduced model holds the constant; if not, the test is of a mean and needs sign flipping."""
    if qz.shape[-1] == 0:
        return False
    n = qz.shape[-2] if present is None else present.sum(axis=1)
    return bool(np.all(np.sum(qz.sum(axis=-2) ** 2, axis=-1) / n > 1 - 1e-10))


def moved_rows(q: np.ndarray, basis: np.ndarray | None, order: np.ndarray, sign: np.ndarray | None) -> np.ndarray:
    """Return Q'P for a batch, shape (c, batch, k), in the basis if there is one: the small factor of the product."""
    inverse = inverse_of(order)
    moved = q.T[:, inverse]
    if sign is not None:
        moved *= np.take_along_axis(sign, inverse, axis=1)
    return moved if basis is None else _times(moved, basis)


def _times(rows: np.ndarray, data: np.ndarray) -> np.ndarray:
    """Return the product of (c, batch, k) with (k, v), shape (c, batch, v)."""
    return (rows.reshape(-1, rows.shape[2]) @ data).reshape(*rows.shape[:2], -1)


def _products(stratum: Stratum, order, sign) -> tuple[np.ndarray, np.ndarray | None]:
    """Return Q'PE, shape (c, batch, v), and the robust variances, (pairs, batch, v)."""
    data, sandwich = stratum.data, stratum.sandwich
    if stratum.q.ndim == 2:
        g = _times(moved_rows(stratum.q, stratum.basis, order, sign), data)
        if sandwich is None:
            return g, None
        f = _times(moved_rows(sandwich.factors, stratum.basis, order, sign), data)
        variances = _times(moved_rows(sandwich.weights.T, None, order, None), sandwich.squares)
        return g, less_fitted(variances, g, f)
    present = np.ones(stratum.q.shape[:2], bool) if stratum.presence is None else stratum.presence.present
    return voxelwise_products(stratum.q, data, present, order, sign, None if sandwich is None else sandwich.weights)


def less_fitted(variances, g, f):
    """Take what the refit explains from w'P(E * E), in place; numpy or torch."""
    c = len(g)
    for pair in range(len(variances)):
        for column in range(c):
            variances[pair] -= g[column] * f[pair * c + column]
    return variances


def partial_r2(stratum: Stratum, order, sign, signed: bool = False) -> np.ndarray:
    """Return rho, shape (batch, v); with `signed` (r = 1) it carries the sign of the effect.

    Rho is the partial R squared, or for the robust statistic what takes its place: (df / r) rho / (1 - rho) is F.
    """
    if stratum.presence is not None and stratum.presence.turn is not None:
        return shares(stratum.q, stratum.alike, stratum.r, order, sign, signed)
    g, variances = _products(stratum, order, sign)
    if variances is None or stratum.sandwich is None:
        return share(g, stratum.r, signed)
    rho = stratum.sandwich.share(g, variances, stratum.r, stratum.df)
    return np.copysign(rho, g[0]) if signed else rho


def to_statistic(rho, df, r: int, kind: str, as_z: bool = False) -> np.ndarray:
    """Return t (with rho's sign) or F from partial R squared, or the normal deviate of the same p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        stat = np.abs(rho)
        rest = 1 - stat
        np.maximum(rest, 1e-300, out=rest)
        # In place: maps of many permutations outgrow the cache.
        np.divide(stat, rest, out=stat)
        stat *= df / r
        if kind == "t":
            np.sqrt(stat, out=stat)
            np.copysign(stat, rho, out=stat)
        return stat_to_z(stat, df, kind, r) if as_z else stat


def batches(total: int, size: int = BATCH) -> Iterator[slice]:
    """Yield slices that cover ``range(total)``."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def reach_of(observed: np.ndarray) -> np.ndarray:
    """Return the rho that counts as reaching the observed one: equal relabelings are summed in different orders."""
    size = np.abs(observed)
    return observed - TIE * size - ROUNDING * (np.sqrt(size) + ROUNDING)
