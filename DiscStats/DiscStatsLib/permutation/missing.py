"""Voxels that lack some observations, under permutation, without a scheme for every pattern of presence.

With a permutation P of everyone, the absent are taken out of its cycles (see :meth:`Scheme.restrict`). Let E be the
residuals with zeros for the absent and B a basis of the design. Voxels that nearly the same observations have share a
reference: P restricted to it, and B'PE by one GEMM for all of them. An observation that follows, in the cycle, one that
the voxel has and the reference lacks, or the reverse, then stands at place a in the reference and at i in the voxel,
and (B_i - B_a) E is added for each. A basis of the design restricted to those present is B T, with T from Cholesky's
factor of the Gram matrix, one small matrix for each voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from DiscRelaxometryLib.compiled import kernel_if_numba

from .blocks import absorbed
from .screen import EMPTY, share

#: Smallest eigenvalue of the Gram matrix above which its factor is as good as QR's (directions have length 1).
FIRM = 1e-6
#: Voxels share a reference if they differ from the first of them in at most this share of the observations; there are
#: at most so many references, and each must save this many corrections per observation.
NEAR, MOST, WORTH = 0.02, 64, 4.0


@dataclass(frozen=True)
class Presence:
    """Who has a value at the voxels of a stratum."""

    #: bool, shape (v, m).
    present: np.ndarray
    #: Shape (v, c, p). T above: q of the stratum times it is the basis of a voxel's design, reduced model first. None
    #: where q holds the basis of each voxel.
    turn: np.ndarray | None = None

    def part(self, block) -> Presence:
        """Return some of the voxels."""
        return replace(self, present=self.present[block], turn=None if self.turn is None else self.turn[block])


@dataclass(frozen=True)
class Alike:
    """Voxels with a common reference; arrays are in the order of `voxels`."""

    voxels: np.ndarray
    #: Shape (v, m). Unit residuals.
    data: np.ndarray
    present: np.ndarray
    turn: np.ndarray
    #: bool, shape (m,).
    reference: np.ndarray
    #: Observations that some voxel has and the reference lacks, or the reverse.
    strays: np.ndarray
    #: Numbers of the strays of each voxel, voxel after voxel, and where each voxel starts.
    differ: np.ndarray
    first: np.ndarray


def alike_voxels(data: np.ndarray, presence: Presence) -> list[Alike]:
    """Return the voxels of data, shape (m, v), in groups of common reference."""
    present = presence.present
    m, packed = present.shape[1], np.packbits(present, axis=1)
    left, groups, rest = np.arange(len(present)), [], []
    while len(left) and len(groups) < MOST:
        near = np.bitwise_count(packed[left] ^ packed[left[0]]).sum(axis=1) <= NEAR * m
        own, left = left[near], left[~near]
        worth = np.sum(~present[own]) / m > WORTH
        (groups if worth else rest).append(own)
    found = [(own, present[own].mean(axis=0) > 0.5) for own in groups]
    others = np.concatenate([*rest, left])
    found += [(others, np.ones(m, bool))] if len(others) else []
    return [_alike(np.ascontiguousarray(data[:, own].T), own, presence.part(own), reference)
            for own, reference in found]


def _alike(data, own, presence: Presence, reference) -> Alike:
    voxel, who = np.nonzero(presence.present != reference)
    strays, differ = np.unique(who, return_inverse=True)
    return Alike(own, data, presence.present, np.ascontiguousarray(presence.turn), reference, strays.astype(np.int32),
                 differ.astype(np.int32), np.searchsorted(voxel, np.arange(len(own) + 1)).astype(np.int32))


def by_presence(valid: np.ndarray, least: int) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], int]:
    """Return [(voxels, presence or None)] of those that all have and of those that some lack, and how many are left.

    Valid, shape (v, m), tells who has a value; a voxel with fewer than `least` of them is left out.
    """
    counts = valid.sum(axis=1)
    everyone, enough = counts == valid.shape[1], counts >= least
    parts = (everyone & enough, None), (~everyone & enough, valid[~everyone & enough])
    return [(np.flatnonzero(at), here) for at, here in parts if at.any()], int((~enough).sum())


def freedom(n: int, parameters: int, present: np.ndarray | None, blocks: np.ndarray | None) -> Any:
    """Return the residual degrees of freedom, one number or shape (v,) with presence (v, m); block means count."""
    return (n if present is None else present.sum(axis=1)) - absorbed(blocks, present) - parameters


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


def shares(q, groups: list[Alike], r: int, order, sign, signed: bool) -> np.ndarray:
    """Return rho, shape (batch, v), of a common basis q, shape (m, c), reduced model first."""
    rho = np.empty((sum(len(g.voxels) for g in groups), len(order)))
    compiled, move, stray = (kernel_if_numba(f) for f in (_shares, _move, _stray))
    inverse = inverse_of(order)
    q, signs = np.ascontiguousarray(q), _signs(sign)
    moves = tuple(np.ascontiguousarray(a.T) for a in (order, inverse, signs))
    for group in groups:
        if compiled is None or move is None or stray is None:
            own = (q * group.present[:, :, None]) @ group.turn
            g = voxelwise_products(np.roll(own, r, axis=2), group.data.T, group.present, order, sign)[0]
            rho[group.voxels] = share(g, r, signed).T
            continue
        moved, strays = np.empty((q.shape[1], *order.shape)), len(group.strays)
        move(inverse, signs, group.reference, q, moved)
        g = (group.data @ moved.reshape(-1, len(q)).T).reshape(len(group.data), -1, len(order))
        delta, who = np.empty((strays, *g.shape[1:])), np.empty((strays, len(order)), np.uint32)
        slow, slows = np.empty(who.shape, np.int32), np.zeros(strays, np.int32)
        stray(moves, group.reference, group.strays, q, delta, who, slow, slows)
        own = np.empty((len(g), len(order)))
        compiled(g, group.data, (group.present, group.reference), (group.strays, group.differ, group.first),
                 (delta, who, slow, slows), moves, q, group.turn, r, signed, own)
        rho[group.voxels] = own
    return rho.T


def _move(inverse, sign, reference, q, moved):
    """Fill Q'P, shape (c, batch, m), of P restricted to the reference.

    Those that the reference lacks get the next place of their cycle that it has; their own if there is none.
    """
    for b in range(inverse.shape[0]):
        back = inverse[b]
        for who in range(back.shape[0]):
            place = back[who]
            while not reference[place] and place != who:
                place = back[place]
            size = 1.0 if sign.shape[0] == 0 else sign[b, place]
            for d in range(q.shape[1]):
                moved[d, b, who] = size * q[place, d]


def _stray(moves, reference, strays, q, delta, who, slow, slows):
    """Fill what the voxels that have a stray, or lack it, add to g, shape (strays, c, batch), times the data of `who`.

    It is the same in all of them, unless a stray is next to another one: those permutations are listed in `slow`.
    """
    order, inverse, sign = moves
    may = np.zeros(reference.shape[0], np.bool_)
    may[strays] = True
    for k in range(strays.shape[0]):
        at = strays[k]
        for b in range(order.shape[1]):
            to, place, was = order[at, b], at, at
            while not reference[to] and not may[to]:
                to = order[to, b]
            if reference[at]:
                place = inverse[at, b]
                while not reference[place] and not may[place]:
                    place = inverse[place, b]
            else:
                was = inverse[at, b]
                while not reference[was] and was != at:
                    was = inverse[was, b]
            who[k, b] = to
            alone = order[at, b] == at
            if not alone and (not reference[to] or (reference[at] and may[place])):
                slow[k, slows[k]] = b
                slows[k] += 1
                alone = True
            for d in range(q.shape[1]):
                if alone:
                    delta[k, d, b] = 0.0
                elif sign.shape[0] == 0:
                    delta[k, d, b] = q[place, d] - q[was, d]
                else:
                    delta[k, d, b] = sign[place, b] * q[place, d] - sign[was, b] * q[was, d]


def _shares(g, data, has, differences, fast, moves, q, turn, r, signed, rho):
    """Add to g, shape (v, c, batch), where voxels differ from their reference, and fill rho, shape (v, batch).

    Has (presence, reference), differences (strays, their numbers, start of each voxel), fast (what :func:`_stray`
    filled), moves (order, its inverse and signs, each of shape (m, batch), so that memory is read in a row).
    """
    present, reference = has
    strays, differ, first = differences
    delta, others, slow, slows = fast
    order, inverse, sign = moves
    voxels, c, batch = g.shape
    directions = turn.shape[2]
    moved, rest, size, along = np.empty(batch), np.empty(batch), np.empty(batch), np.empty(batch)
    for v in range(voxels):
        here, e, sums = present[v], data[v], g[v]
        known = here | reference
        for k in range(first[v], first[v + 1]):
            stray = differ[k]
            at = strays[stray]
            for b in range(batch):
                moved[b] = e[others[stray, b]]
            for d in range(c):
                for b in range(batch):
                    sums[d, b] += delta[stray, d, b] * moved[b]
            for s in range(slows[stray]):
                b = slow[stray, s]
                who = order[at, b]
                while not known[who]:
                    who = order[who, b]
                if not here[who]:
                    continue
                place, was = at, at
                if here[at]:
                    was = inverse[at, b]
                    while not reference[was] and was != at:
                        was = inverse[was, b]
                    if was == at:
                        was = who
                else:
                    place = inverse[at, b]
                    while not here[place]:
                        place = inverse[place, b]
                for d in range(c):
                    if sign.shape[0] == 0:
                        sums[d, b] += (q[place, d] - q[was, d]) * e[who]
                    else:
                        sums[d, b] += (sign[place, b] * q[place, d] - sign[was, b] * q[was, d]) * e[who]
        rest[:], size[:] = 1.0, 0.0
        for k in range(directions):
            along[:] = 0.0
            for d in range(c):
                for b in range(batch):
                    along[b] += sums[d, b] * turn[v, d, k]
            if k < directions - r:
                rest -= along * along
            else:
                size += along * along
        for b in range(batch):
            rho[v, b] = size[b] / max(rest[b], EMPTY)
            if signed and along[b] < 0:
                rho[v, b] = -rho[v, b]


def voxelwise_products(q, data, present, order, sign, weights=None):
    """Return Q'PE, shape (c, batch, v), and with weights the weighted squared residuals, (pairs, batch, v).

    Each voxel's basis q, shape (v, m, c), is 0 for those absent from `present`, shape (v, m); the data have the shape
    (m, v), the weights (v, pairs, m).
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
