"""Null distributions that need the whole map of every permutation: TFCE, cluster extent and cluster mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange

from .clusters import cluster_maxima
from .max_statistic import VOXEL_BLOCK, Source, Stratum, batches, partial_r2, strata_of, to_statistic
from .schemes import Scheme
from .tfce import Neighbors, TfceSettings, tfce_maxima

#: Maps of permutations are made a few at a time in each voxel; so many numbers of them are kept (256 MB).
MAP_BATCH, MAP_NUMBERS = 32, 2 ** 25


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

    @cached_property
    def group(self) -> np.ndarray:
        """Number of each voxel's level, shape (v,)."""
        group = np.empty(len(self.neighbors), np.int32)
        for number, voxels in enumerate(self.members):
            group[voxels] = number
        return group


def statistic_maps(strata: Sequence[Source], scheme: Scheme, n_columns: int, *, as_z: bool = False,
                   workers: int = 1, progress: ProgressCallback = silent) -> np.ndarray:
    """Return the statistic of each rearrangement, shape (len(scheme), n_columns); NaN where there is no stratum."""
    maps = np.full((len(scheme), n_columns), np.nan)

    def work(source: Source) -> None:
        for stratum in strata_of(source):
            for part in stratum.parts(VOXEL_BLOCK):
                _fill(maps, part, scheme, as_z)

    tasks = [task for s in strata for task in ([s] if callable(s) else s.parts(VOXEL_BLOCK))]
    for _ in ordered(work, tasks, workers, progress=progress,
                     words=lambda _: f"Maps of permutations, {len(tasks)} blocks of voxels"):
        pass
    return maps


def _fill(maps: np.ndarray, stratum: Stratum, scheme: Scheme, as_z: bool) -> None:
    order, sign = scheme.restrict(stratum.rows)
    columns = stratum.columns
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
             progressCallback: ProgressCallback | None = None) -> MapNull:
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
    progressCallback : callable, optional
    """
    groups = layout.n_maps * len(layout.members)
    found = np.zeros((3, groups, len(scheme)))
    v = len(layout.neighbors)

    kind = next(s.kind for source in strata for s in strata_of(source))

    def work(flat: np.ndarray) -> np.ndarray:
        best = np.zeros((3, groups))
        for m in range(layout.n_maps):
            part = slice(m * v, (m + 1) * v)
            _one_map(flat[part], layout, m, best, settings, None if height is None else height[part], kind, alternative,
                     as_z)
        return best

    report = progressCallback or silent
    for batch in batches(len(scheme), max(MAP_NUMBERS // max(layout.n_maps * v, 1), 1)):
        part = subrange(report, batch.start / len(scheme), batch.stop / len(scheme))
        maps = statistic_maps(strata, scheme.part(batch), layout.n_maps * v, as_z=as_z, workers=workers,
                              progress=subrange(part, 0.0, 0.5))
        for b, best in enumerate(ordered(work, list(maps), workers, progress=subrange(part, 0.5, 1.0),
                                         words=lambda _: f"TFCE and clusters of {len(scheme)} permutations")):
            found[:, :, batch.start + b] = best
    has = (settings is not None, height is not None, height is not None)
    return MapNull(*(found[i] if wanted else None for i, wanted in enumerate(has)))


def _one_map(stat, layout: MapLayout, number: int, best: np.ndarray, settings, height, kind, alternative, as_z) -> None:
    """Put the maxima of one map into `best`, shape (3, groups)."""
    stat = one_side(stat, alternative, kind)
    first = number * len(layout.members)
    if settings is not None:
        best[0, first: first + len(layout.members)] = tfce_maxima(enhance_input(stat, kind, as_z), layout.neighbors,
                                                                  settings)
    if height is None:
        return
    best[1:, first: first + len(layout.members)] = cluster_maxima(stat, height, layout.neighbors, layout.group,
                                                                  len(layout.members))
