"""Null distributions that need the whole map of every permutation: TFCE, cluster extent and cluster mass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange

from .clusters import cluster_maxima
from .schemes import Scheme
from .stratum import Source, Stratum, batches, blocks_of_source, blocks_of_sources, partial_r2, to_statistic
from .tfce import Neighbors, TfceSettings, tfce_maxima

#: Maps of permutations are made a few at a time in each voxel; so many numbers of them are kept (256 MB).
MAP_BATCH, MAP_NUMBERS = 32, 2 ** 25
#: Permutations of a task that is given to another process.
MAP_SHARE = 256


@dataclass(frozen=True)
class MapNull:
    """Null maxima, shape (groups, m), of TFCE, cluster extent and cluster mass; None where not asked for."""

    tfce: np.ndarray | None
    extent: np.ndarray | None
    mass: np.ndarray | None


@dataclass(frozen=True)
class MapLayout:
    """How the flat result is made of maps."""

    #: Maps (quantities) of v voxels each, one after the other.
    n_maps: int
    neighbors: Neighbors
    #: Voxels of each level, ascending; group = map * number of levels + level.
    members: list[np.ndarray]
    #: bool, shape (n_maps * v,). What has a statistic; the rest is background. None: all.
    tested: np.ndarray | None = None

    @cached_property
    def kept(self) -> np.ndarray:
        """Whether each value of the flat result is tested, bool, shape (n_maps, v)."""
        shape = self.n_maps, len(self.neighbors)
        return np.ones(shape, bool) if self.tested is None else self.tested.reshape(shape)

    @cached_property
    def place(self) -> np.ndarray:
        """Number of each value of the flat result among those that are tested, shape (n_maps * v,)."""
        return np.cumsum(self.kept) - 1

    @cached_property
    def maps(self) -> list[tuple[slice, Neighbors, np.ndarray]]:
        """Where each map's tested voxels stand, who touches whom among them, and the number of each one's level."""
        group = np.empty(len(self.neighbors), np.int32)
        for number, voxels in enumerate(self.members):
            group[voxels] = number
        ends = np.cumsum([0, *self.kept.sum(axis=1)])
        return [(slice(start, stop), self.neighbors.among(kept), group[kept])
                for kept, start, stop in zip(self.kept, ends, ends[1:])]


def statistic_maps(strata: Sequence[Source], scheme: Scheme, place: np.ndarray, maps: np.ndarray, *,
                   as_z: bool = False, workers: int = 1, progress: ProgressCallback = silent) -> np.ndarray:
    """Fill the statistic of each rearrangement into maps, shape (len(scheme), n), and return them.

    `place`, shape (n_columns,), is the column that each value of the flat result gets.
    """
    def work(source: Source) -> None:
        for block in blocks_of_source(source):
            _fill(maps, place[block.columns], block, scheme, as_z)

    tasks = blocks_of_sources(strata)
    for _ in ordered(work, tasks, workers, progress=progress,
                     words=lambda _: f"Maps of permutations, {len(tasks)} blocks of voxels"):
        pass
    return maps


def _fill(maps: np.ndarray, columns: np.ndarray, stratum: Stratum, scheme: Scheme, as_z: bool) -> None:
    order, sign = scheme.restrict(stratum.rows)
    where: slice | np.ndarray = columns
    if columns[-1] - columns[0] == len(columns) - 1 and (np.diff(columns) > 0).all():
        where = slice(columns[0], columns[-1] + 1)  # several times faster than a list of places
    for batch in batches(len(order), MAP_BATCH):
        rho = partial_r2(stratum, order[batch], None if sign is None else sign[batch], signed=stratum.kind == "t")
        maps[batch, where] = to_statistic(rho, stratum.df, stratum.r, stratum.kind, as_z)


def enhance_input(stat: np.ndarray, kind: str, as_z: bool) -> np.ndarray:
    """Return what TFCE integrates: t or z as they are, the square root of F (``|t|`` for one degree of freedom)."""
    return np.sqrt(stat) if kind == "F" and not as_z else stat


def one_side(stat: np.ndarray, alternative: str, kind: str) -> np.ndarray:
    """Return the statistic with 0, which is background, in the direction that is not tested; NaN stays NaN.

    F has one direction: where it is given as z, those below 0 (p above 0.5) speak of no effect, not of another one.
    """
    if kind == "F" or alternative == "greater":
        return np.maximum(stat, 0.0)
    return np.minimum(stat, 0.0) if alternative == "less" else stat


def map_null(strata: Sequence[Source], scheme: Scheme, layout: MapLayout, *, settings: TfceSettings | None,
             height, alternative: str = "two-sided", as_z: bool = False, workers: int = 1,
             distribute: Callable | None = None, progressCallback: ProgressCallback | None = None) -> MapNull:
    """Return the null maxima of TFCE (if `settings`) and of clusters (if `height` is not None).

    Parameters
    ----------
    strata : sequence of Stratum
        See :func:`DiscStatsLib.permutation.max_statistics`.
    scheme : Scheme
    layout : MapLayout
    settings : TfceSettings or None
    height : ndarray, shape (n_columns,), or None
        Cluster-forming threshold of each voxel.
    alternative : {"two-sided", "greater", "less"}
    as_z : bool
    workers : int
        Threads; results do not depend on it.
    distribute : callable, optional
        Shares out the permutations, called like :func:`DiscRelaxometryLib.parallel.ordered`.
    progressCallback : callable, optional
    """
    groups, levels, tested = layout.n_maps * len(layout.members), len(layout.members), int(layout.kept.sum())
    kind = next(s.kind for source in strata for s in blocks_of_source(source))
    height = None if height is None else np.asarray(height)[layout.kept.ravel()]
    side = partial(one_side, alternative=alternative, kind=kind)

    def maxima(flat: np.ndarray) -> np.ndarray:
        best = np.zeros((3, groups))
        for m, (part, neighbors, group) in enumerate(layout.maps):
            stat, own = side(flat[part]), slice(m * levels, (m + 1) * levels)
            if settings is not None:
                best[0, own] = tfce_maxima(enhance_input(stat, kind, as_z), neighbors, settings)
            if height is not None:
                best[1:, own] = cluster_maxima(stat, height[part], neighbors, group, levels)
        return best

    def work(batch: slice, workers: int = 1, progress: ProgressCallback = silent) -> np.ndarray:
        maps = np.full((batch.stop - batch.start, tested), np.nan)
        statistic_maps(strata, scheme.part(batch), layout.place, maps, as_z=as_z, workers=workers,
                       progress=subrange(progress, 0.0, 0.5))
        found = ordered(maxima, list(maps), workers, progress=subrange(progress, 0.5, 1.0), words=words)
        return np.stack(list(found), axis=2)

    def words(_) -> str:
        return f"TFCE and clusters of {len(scheme)} permutations"

    total, size = len(scheme), max(MAP_NUMBERS // max(tested, 1), 1)
    if distribute is None:
        parts = [work(batch, workers, subrange(progressCallback, batch.start / total, batch.stop / total))
                 for batch in batches(total, size)]
    else:
        parts = list(distribute(work, list(batches(total, min(size, MAP_SHARE))), progress=progressCallback or silent,
                                words=words))
    found = np.concatenate(parts, axis=2)
    has = (settings is not None, height is not None, height is not None)
    return MapNull(*(found[i] if wanted else None for i, wanted in enumerate(has)))
