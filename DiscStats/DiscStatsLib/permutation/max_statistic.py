"""The largest statistic of each permutation over the voxels, and the family-wise p from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent

from .deviates import stat_to_z
from .schemes import Scheme
from .screen import make_screen
from .stratum import (
    BATCH,
    TIE,
    VOXEL_BLOCK,
    Source,
    Stratum,
    batches,
    blocks_of_source,
    blocks_of_sources,
    moved_rows,
    partial_r2,
    reach_of,
    to_statistic,
)
from .torch_products import block_maxima_torch, serves_torch


@dataclass(frozen=True)
class MaxResult:
    """Null maxima, shape (groups, m), and for each voxel the count of permutations that reach its statistic."""

    maxima: np.ndarray
    counts: np.ndarray


def max_statistics(strata: Sequence[Source], scheme: Scheme, n_columns: int, *, alternative: str = "two-sided",
                   as_z: bool = False, workers: int = 1, device: str = "cpu",
                   distribute: Callable | None = None,
                   progressCallback: ProgressCallback | None = None) -> MaxResult:
    """Return the null distribution of the maximum statistic and each voxel's own count.

    Parameters
    ----------
    strata : sequence of Stratum
        Or of functions that make some, which are called when their turn comes, in the thread that works on them.
    scheme : Scheme
    n_columns : int
        Length of the flat result.
    alternative : {"two-sided", "greater", "less"}
        For t contrasts; two-sided counts both signs.
    as_z : bool
        Record maxima as normal deviates, for strata that differ in degrees of freedom.
    workers : int
        Threads; results do not depend on it.
    device : str
        ``cpu``, or a torch device such as ``cuda`` (``torch:cpu`` is torch without a GPU).
    distribute : callable, optional
        Shares out blocks of voxels, called like :func:`DiscRelaxometryLib.parallel.ordered`, which is the default.
    progressCallback : callable, optional
        Called between blocks of voxels; raises ``Cancelled`` to stop.

    Notes
    -----
    Winkler et al. 2014 (Freedman-Lane), Nichols & Holmes 2002 (maximum statistic).
    """
    maxima: dict[int, np.ndarray] = {}
    counts = np.zeros(n_columns, np.int64)

    def maxima_of(s: Stratum):
        if device != "cpu" and serves_torch(s):
            return block_maxima_torch(s, scheme, alternative, as_z, device)
        return _block_maxima(s, scheme, alternative, as_z)

    def work(source: Source):
        return [(s.group, s.columns, *maxima_of(s)) for s in blocks_of_source(source)]

    tasks = blocks_of_sources(strata)
    for found in (distribute or ordered)(work, tasks, workers, progress=progressCallback or silent,
                         words=lambda task: f"Permutations of {len(tasks)} blocks of voxels"):
        for group, columns, best, count in found:
            maxima[group] = np.maximum(maxima.get(group, -np.inf), best)
            counts[columns] = count
    result = np.full((max(maxima, default=0) + 1, len(scheme)), -np.inf)
    for group, best in maxima.items():
        result[group] = best
    return MaxResult(result, counts)


def _block_maxima(stratum: Stratum, scheme: Scheme, alternative: str, as_z: bool):
    """Return the largest statistic of each permutation over the voxels, and the count of each voxel."""
    order, sign = scheme.restrict(stratum.rows)
    signed = stratum.kind == "t" and alternative != "two-sided"
    turn = -1.0 if alternative == "less" else 1.0
    identity = np.arange(order.shape[1], dtype=order.dtype)[None]
    observed = partial_r2(stratum, identity, None, signed)[0] * turn
    reach = reach_of(observed)
    # Within the same degrees of freedom the largest rho has the largest statistic.
    by_df = np.argsort(stratum.df + np.zeros(len(observed)), kind="stable")
    df, first = np.unique((stratum.df + np.zeros(len(observed)))[by_df], return_index=True)
    best, count = np.full((len(order), len(df)), -np.inf), np.zeros(len(observed), np.int64)
    screen = None
    if stratum.sandwich is None and stratum.q.ndim == 2 and stratum.presence is None:
        screen = make_screen(stratum.data, stratum.q.shape[1], stratum.r, signed, turn, reach)
    # Few voxels take more permutations at a time, so that the work of a call stays the same.
    size = max(BATCH, min(16 * BATCH, BATCH * VOXEL_BLOCK // len(observed)))
    if stratum.presence is not None:  # shared among few voxels each
        size = max(size, 4 * BATCH)
    counter = np.int8 if size < 128 else np.int32
    for batch in batches(len(order), size):
        part = order[batch], None if sign is None else sign[batch]
        if screen is not None:
            if screen.take(moved_rows(stratum.q, stratum.basis, *part), best[batch, 0], count):
                continue
            screen = None
        rho = partial_r2(stratum, *part, signed)
        if signed:
            rho *= turn
        if len(df) == 1:
            rho.max(axis=1, out=best[batch, 0])
        else:
            np.maximum.reduceat(rho.T[by_df], first, axis=0, out=best[batch].T)
        count += np.add.reduce((rho >= reach).view(np.int8), axis=0, dtype=counter)
    return _largest(best, df, stratum, as_z), count


def _largest(rho: np.ndarray, df: np.ndarray, stratum: Stratum, as_z: bool) -> np.ndarray:
    """Return the largest statistic of each row of rho, shape (m, dfs), one column for each degrees of freedom."""
    stat = to_statistic(rho, df, stratum.r, stratum.kind)
    if not as_z:
        return stat.max(axis=1)
    if stratum.kind == "t" and len(df) > 2:
        # z of a t moves one way with the degrees of freedom: most cannot be the largest.
        ends = np.stack([stat_to_z(stat, value) for value in (df[0], df[-1])])
        stat[ends.max(axis=0) < ends.min(axis=0).max(axis=1, keepdims=True)] = np.nan
    best = np.full(len(stat), -np.inf)
    for value, column in zip(df, stat.T):
        at = np.flatnonzero(~np.isnan(column))
        best[at] = np.maximum(best[at], stat_to_z(column[at], value, stratum.kind, stratum.r))
    return best


def fwe_p(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return (b + 1) / (m + 1), b the number of the m null maxima that reach the observed statistic; NaN stays NaN."""
    null = np.sort(null)
    reach = observed - TIE * np.abs(observed)
    b = len(null) - np.searchsorted(null, reach, side="left")
    return np.where(np.isnan(observed), np.nan, (b + 1) / (len(null) + 1))


def directed(stat: np.ndarray, alternative: str, kind: str) -> np.ndarray:
    """Return the statistic so that larger is more extreme."""
    if kind == "F" or alternative == "greater":
        return stat
    return -stat if alternative == "less" else np.abs(stat)
