"""Which rearrangements of the observations are exchangeable under the null, and how to draw or list them.

The whole list is drawn up front from one seed, so that no result depends on chunks or on the number of workers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from DiscRelaxometryLib.errors import DesignError


@dataclass(frozen=True)
class Scheme:
    """Rearrangements of n observations, without the observed order."""

    #: Shape (m, n). Row b sends observation ``order[b, i]`` to place i.
    order: np.ndarray
    #: Shape (m, n). Sign given to each observation (sign flipping).
    sign: np.ndarray | None
    #: Whether these, with the observed order, are all there are.
    exhaustive: bool
    #: How they were made, for the methods text.
    description: str

    def __len__(self) -> int:
        return len(self.order)

    def part(self, batch: slice) -> Scheme:
        """Return some of the rearrangements."""
        return replace(self, order=self.order[batch], sign=None if self.sign is None else self.sign[batch])

    def restrict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return (order, sign) induced on a subset of the observations, in local indices 0..len(rows)-1.

        The absent are taken out of the cycles of each permutation: a place whose observation is absent gets the next
        one of its cycle. A uniformly random permutation leaves a uniformly random one of the rest (it stays inside
        blocks too), and all other places keep their observation, so that voxels which share most people stay in step.
        """
        n = self.order.shape[1]
        if len(rows) == n:
            return self.order, self.sign
        absent = np.ones(n, bool)
        absent[rows] = False
        local = np.full(n, -1, np.int32)
        local[rows] = np.arange(len(rows), dtype=np.int32)
        kept = self.order[:, rows]
        while (gone := absent[kept]).any():
            b, place = np.nonzero(gone)
            kept[b, place] = self.order[b, kept[b, place]]
        return local[kept], None if self.sign is None else self.sign[:, rows]


def make_scheme(n: int, n_permutations: int, seed: int, *, flip: bool = False, blocks=None, exchange: str = "within",
                row_types=None, places=None) -> Scheme:
    """Return the permutations or sign flips of a test.

    Parameters
    ----------
    n : int
        Observations.
    n_permutations : int
        Random rearrangements to draw; if there are no more distinct ones than these, all are listed instead.
    seed : int
    flip : bool
        Flip signs (errors symmetric about 0) instead of permuting.
    blocks : sequence, optional
        Block of each observation. With ``exchange="within"`` observations change places inside their block; with
        ``"whole"`` blocks with the same `places` change places as a whole (or any block its sign).
    exchange : {"within", "whole"}
    row_types : sequence, optional
        Equal entries are observations with the same row in every design: exchanging them changes nothing.
    places : sequence, optional
        What each observation is in its block (level, visit): an observation takes the place of its like in another
        block, whatever the order of the rows. Without them the order of the rows counts.

    Raises
    ------
    DesignError
        If fewer than one rearrangement other than the observed order exists.
    """
    if n_permutations < 1:
        raise DesignError(f"At least one permutation is needed; {n_permutations} were asked for.")
    blocks = np.zeros(n, int) if blocks is None else np.unique(np.asarray(blocks).astype(str), return_inverse=True)[1]
    one = np.ptp(blocks) == 0 if n else True
    units = [np.flatnonzero(blocks == b) for b in range(blocks.max() + 1)]
    types = np.arange(n) if row_types is None else np.unique(np.asarray(row_types), return_inverse=True)[1].ravel()
    rng = np.random.Generator(np.random.PCG64(seed))
    if flip:
        groups = [np.array([i]) for i in range(n)] if one or exchange == "within" else units
        return _flips(n, groups, n_permutations, rng)
    if one or exchange == "within":
        words = f"within {len(units)} blocks" if not one else "freely"
        return _permutations(n, [[np.array([i]) for i in u] for u in units], types, n_permutations, rng, words)
    sets = list(alike_blocks(units, places).values())
    return _permutations(n, sets, types, n_permutations, rng, f"as {len(units)} whole blocks")


def alike_blocks(units, places=None) -> dict[tuple, list[np.ndarray]]:
    """Return the blocks by the places they hold, the observations of each in the order of these places.

    Parameters
    ----------
    units : list of ndarray
        Observations of each block.
    places : sequence, optional
        Of all observations; see :func:`make_scheme`.
    """
    places = np.asarray([""] * (1 + max(map(max, units))) if places is None else places).astype(str)
    found: dict[tuple, list[np.ndarray]] = {}
    for unit in units:
        ordered = unit[np.argsort(places[unit], kind="stable")]
        found.setdefault(tuple(places[ordered].tolist()), []).append(ordered)
    return {key: found[key] for key in sorted(found)}


def _flips(n, groups, wanted, rng) -> Scheme:
    g = len(groups)
    exhaustive = g < 60 and 2 ** g - 1 <= wanted
    if exhaustive:
        bits = (np.arange(1, 2 ** g)[:, None] >> np.arange(g)) & 1
    else:
        bits = rng.integers(0, 2, size=(wanted, g))
    sign = np.empty((len(bits), n))
    for column, group in enumerate(groups):
        sign[:, group] = (1.0 - 2.0 * bits[:, column])[:, None]
    order = np.tile(np.arange(n, dtype=np.int32), (len(bits), 1))
    count = f"all {2 ** g}" if exhaustive else f"{wanted} random"
    units = "observations" if g == n else "blocks"
    return Scheme(order, sign, exhaustive, f"{count} sign flips of {g} {units}")


def _permutations(n, sets, types, wanted, rng, words) -> Scheme:
    """Permute the units of each set among themselves; a unit is an array of observations that stay together."""
    total = 1
    for units in sets:
        total *= _arrangements([tuple(types[u]) for u in units])
    if total <= 1:
        raise DesignError("No rearrangement of the observations changes the design within the exchangeability blocks: "
                          "the effect is constant where exchange is allowed. Choose the other exchange, or another "
                          "contrast.", anchor="exchangeability")
    if total - 1 <= wanted:
        order = _all_orders(n, sets, types)
        return Scheme(order, None, True, f"all {total} distinct rearrangements, {words}")
    order = np.tile(np.arange(n, dtype=np.int32), (wanted, 1))
    for units in sets:
        stacked = np.array(units, dtype=np.int32)  # (number of units, size)
        shuffled = rng.permuted(np.tile(np.arange(len(units), dtype=np.int32), (wanted, 1)), axis=1)
        order[:, stacked.ravel()] = stacked[shuffled].reshape(wanted, -1)
    return Scheme(order, None, False, f"{wanted} random permutations, {words}")


def _arrangements(kinds: list[tuple]) -> int:
    """Return the number of distinct orders of items of which some are alike."""
    total = math.factorial(len(kinds))
    for kind in set(kinds):
        total //= math.factorial(kinds.count(kind))
    return total


def _all_orders(n, sets, types) -> np.ndarray:
    """List one order for each distinct arrangement of the design rows, leaving out the observed one."""
    orders = [np.arange(n, dtype=np.int32)]
    for units in sets:
        kinds = [tuple(types[u]) for u in units]
        grown = []
        for arrangement in _distinct(kinds):
            for base in orders:
                new = base.copy()
                for place, unit in enumerate(arrangement):
                    new[units[place]] = units[unit]
                grown.append(new)
        orders = grown
    listed = np.array(orders)
    listed = listed[~(types[listed] == types).all(axis=1)]
    # These bring the rows of the design into every distinct order; the data are moved, the other way round.
    return np.argsort(listed, axis=1).astype(np.int32)


def _distinct(kinds: list[tuple]):
    """Yield one arrangement of unit indices for each distinct sequence of kinds."""
    pools: dict[tuple, list[int]] = {}
    for index, kind in enumerate(kinds):
        pools.setdefault(kind, []).append(index)
    used = dict.fromkeys(pools, 0)

    def extend(prefix):
        if len(prefix) == len(kinds):
            yield list(prefix)
            return
        for kind, members in pools.items():
            if used[kind] < len(members):
                used[kind] += 1
                yield from extend([*prefix, members[used[kind] - 1]])
                used[kind] -= 1

    yield from extend([])
