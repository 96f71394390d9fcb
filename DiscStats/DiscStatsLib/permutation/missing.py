"""Voxels that lack some observations, under permutation, without a scheme for every pattern of presence.

With a permutation P of everyone, the absent are taken out of its cycles (see :meth:`Scheme.restrict`). Let E be the
residuals with zeros for the absent and B a basis of the design. B'PE, one GEMM for all voxels, is right but for the
observations that P sends to the place of an absent one, a: they go on to the next place of the cycle that is filled, i,
and (B_i - B_a) E is added for each. A basis of the design restricted to those present is B T, with T from Cholesky's
factor of the Gram matrix, one small matrix for each voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from DiscRelaxometryLib.compiled import kernel_if_numba

from .blocks import count_blocks
from .screen import EMPTY, share

#: Smallest eigenvalue of the Gram matrix above which its factor is as good as QR's (directions have length 1).
FIRM = 1e-6


@dataclass(frozen=True)
class Presence:
    """Who has a value at the voxels of a stratum."""

    #: bool, shape (v, m).
    present: np.ndarray
    #: Shape (v, c, p). T above: q of the stratum times it is the basis of a voxel's design, reduced model first. None
    #: where q holds the basis of each voxel.
    turn: np.ndarray | None = None

    def part(self, block: slice) -> Presence:
        """Return some of the voxels."""
        return replace(self, present=self.present[block], turn=None if self.turn is None else self.turn[block])

    @cached_property
    def absent(self) -> tuple[np.ndarray, np.ndarray]:
        """Who is absent, voxel after voxel, and where each voxel starts."""
        voxel, who = np.nonzero(~self.present)
        return who.astype(np.int32), np.searchsorted(voxel, np.arange(len(self.present) + 1)).astype(np.int32)


def by_count(valid: np.ndarray, least: int,
             blocks: np.ndarray | None = None) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], int]:
    """Return [(voxels, presence or None)] for each number of values of at least `least`, and how many have fewer.

    Valid, shape (v, m), tells who has a value. With `blocks` the voxels of a group have as many blocks, too.
    """
    counts = valid.sum(axis=1)
    held = np.zeros_like(counts) if blocks is None else count_blocks(valid, blocks)
    found = []
    for count, number in np.unique(np.stack([counts, held], axis=1)[counts >= least], axis=0):
        at = np.flatnonzero((counts == count) & (held == number))
        found.append((at, None if count == valid.shape[1] else valid[at]))
    return found, int((counts < least).sum())


def least_count(n: int, parameters: int) -> int:
    """Return how many of `n` observations a voxel needs: half, and parameters + 2, but no more than all of them."""
    return max(min(parameters + 2, n), parameters + 1, (n + 1) // 2)


def restricted_factors(basis: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (lower Cholesky factor of each voxel's Gram matrix, shape (v, p, p); whether it can be trusted).

    Parameters
    ----------
    basis : ndarray, shape (m, p)
        Orthonormal basis of everyone's design.
    present : ndarray of bool, shape (v, m)
    """
    m, p = basis.shape
    gram = (present.astype(float) @ (basis[:, :, None] * basis[:, None, :]).reshape(m, -1)).reshape(-1, p, p)
    firm = np.linalg.eigvalsh(gram)[:, 0] > FIRM
    return np.linalg.cholesky(np.where(firm[:, None, None], gram, np.eye(p))), firm


def shares(q, data, presence: Presence, r: int, order, sign, signed: bool) -> np.ndarray:
    """Return rho, shape (batch, v), of a common basis q, shape (m, c), reduced model first.

    Parameters
    ----------
    data : ndarray, shape (m, v)
        Residuals of unit length, 0 for the absent.
    order, sign
        From :meth:`Scheme.restrict`.
    """
    compiled = kernel_if_numba(_shares)
    if compiled is None:
        own = (q * presence.present[:, :, None]) @ presence.turn
        g = voxelwise_products(np.roll(own, r, axis=2), data, presence.present, order, sign)[0]
        return share(g, r, signed)
    inverse = inverse_of(order)
    moved = q[inverse.T]  # (m, batch, c)
    if sign is not None:
        moved *= np.take_along_axis(sign, inverse, axis=1).T[:, :, None]
    data = np.ascontiguousarray(data.T)
    g = (data @ moved.reshape(len(q), -1)).reshape(len(data), len(order), -1)
    rho = np.empty(g.shape[:2])
    compiled(g, data, presence.present, presence.absent, (order, inverse, _signs(sign)), np.ascontiguousarray(q),
             np.ascontiguousarray(presence.turn), r, signed, rho)
    return rho.T


def _shares(g, data, present, absences, moves, q, turn, r, signed, rho):
    """Add to g, shape (v, batch, c), what goes on from the places of the absent, and fill rho, shape (v, batch).

    Absences are (who, start of each voxel), moves (order, its inverse, signs).
    """
    absent, first = absences
    order, inverse, sign = moves
    voxels, batch, c = g.shape
    directions = turn.shape[2]
    for v in range(voxels):
        here, e = present[v], data[v]
        for b in range(batch):
            to, back, sums = order[b], inverse[b], g[v, b]
            for k in range(first[v], first[v + 1]):
                gone = absent[k]
                who = to[gone]
                if here[who]:
                    place = back[gone]
                    while not here[place]:
                        place = back[place]
                    if sign.shape[0] == 0:
                        for d in range(c):
                            sums[d] += (q[place, d] - q[gone, d]) * e[who]
                    else:
                        for d in range(c):
                            sums[d] += (sign[b, place] * q[place, d] - sign[b, gone] * q[gone, d]) * e[who]
            rest, size, along = 1.0, 0.0, 0.0
            for k in range(directions):
                along = 0.0
                for d in range(c):
                    along += sums[d] * turn[v, d, k]
                if k < directions - r:
                    rest -= along * along
                else:
                    size += along * along
            size /= max(rest, EMPTY)
            rho[v, b] = -size if signed and along < 0 else size


def voxelwise_products(q, data, present, order, sign, weights=None):
    """Return Q'PE, shape (c, batch, v), and with weights the weighted squared residuals, (pairs, batch, v).

    Parameters
    ----------
    q : ndarray, shape (v, m, c)
        Basis of each voxel's design, 0 for the absent.
    data : ndarray, shape (m, v)
    present : ndarray of bool, shape (v, m)
    weights : ndarray, shape (v, pairs, m), optional
    """
    voxels, m, c = q.shape
    pairs = 0 if weights is None else weights.shape[1]
    g, squares = np.empty((voxels, len(order), c)), np.empty((voxels, len(order), pairs))
    weights = np.empty((voxels, 0, m)) if weights is None else weights
    compiled = kernel_if_numba(_voxelwise)
    if compiled is not None:
        compiled(q, np.ascontiguousarray(data.T), present, order, _signs(sign), weights, g, squares)
    else:
        for b in range(len(order)):
            moved = rearranged(data, present, order[b], None if sign is None else sign[b])
            g[:, b] = np.einsum("vmc,mv->vc", q, moved)
            squares[:, b] = np.einsum("vpm,vm->vp", weights, (moved.T - np.einsum("vmc,vc->vm", q, g[:, b])) ** 2)
    return g.transpose(2, 1, 0), squares.transpose(2, 1, 0).copy() if pairs else None


def _voxelwise(q, data, present, order, sign, weights, g, squares):
    voxels, m, c = q.shape
    moved = np.empty(m)
    for v in range(voxels):
        here, e = present[v], data[v]
        for b in range(order.shape[0]):
            for d in range(c):
                g[v, b, d] = 0.0
            for place in range(m):
                moved[place] = 0.0
                if here[place]:
                    who = order[b, place]
                    while not here[who]:
                        who = order[b, who]
                    moved[place] = e[who] if sign.shape[0] == 0 else sign[b, place] * e[who]
                    for d in range(c):
                        g[v, b, d] += q[v, place, d] * moved[place]
            for pair in range(weights.shape[1]):
                squares[v, b, pair] = 0.0
            if weights.shape[1]:
                for place in range(m):
                    rest = moved[place]
                    for d in range(c):
                        rest -= q[v, place, d] * g[v, b, d]
                    for pair in range(weights.shape[1]):
                        squares[v, b, pair] += weights[v, pair, place] * rest * rest


def rearranged(data: np.ndarray, present: np.ndarray, order: np.ndarray, sign: np.ndarray | None) -> np.ndarray:
    """Return PE, shape (m, v), of one rearrangement, the absent of each voxel taken out of its cycles."""
    who = np.broadcast_to(order[:, None], data.shape).copy()
    here = present.T
    while (gone := here & ~np.take_along_axis(here, who, axis=0)).any():
        who[gone] = order[who[gone]]
    moved = np.where(here, np.take_along_axis(data, who, axis=0), 0.0)
    return moved if sign is None else moved * sign[:, None]


def inverse_of(order: np.ndarray) -> np.ndarray:
    """Return the inverse permutation of each row."""
    inverse = np.empty_like(order)
    inverse[np.arange(len(order))[:, None], order] = np.arange(order.shape[1], dtype=order.dtype)
    return inverse


def _signs(sign: np.ndarray | None) -> np.ndarray:
    """Return signs as compiled code takes them: none are an empty array."""
    return np.empty((0, 0)) if sign is None else np.ascontiguousarray(sign)
