"""Null distributions that need the whole map of every permutation: TFCE, cluster extent and cluster mass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent

from .clusters import cluster_maxima
from .max_statistic import VOXEL_BLOCK, Stratum, batches, partial_r2, to_statistic
from .schemes import Scheme
from .tfce import Neighbors, TfceSettings, tfce_maxima

MAP_BATCH = 32


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


def statistic_maps(strata: list[Stratum], scheme: Scheme, n_columns: int, *, as_z: bool = False) -> np.ndarray:
    """Return the statistic of each rearrangement, shape (len(scheme), n_columns); NaN where there is no stratum."""
    maps = np.full((len(scheme), n_columns), np.nan)
    for stratum in strata:
        order, sign = scheme.restrict(stratum.rows)
        for a in range(0, len(stratum.columns), VOXEL_BLOCK):
            block = slice(a, min(a + VOXEL_BLOCK, len(stratum.columns)))
            rho = partial_r2(stratum, block, order, sign, signed=stratum.kind == "t")
            columns = stratum.columns[block]
            where: slice | np.ndarray = columns
            if columns[-1] - columns[0] == len(columns) - 1:
                where = slice(columns[0], columns[-1] + 1)  # several times faster than a list of places
            maps[:, where] = to_statistic(rho, stratum.df, stratum.r, stratum.kind, as_z)
    return maps


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


def map_null(strata: list[Stratum], scheme: Scheme, layout: MapLayout, *, settings: TfceSettings | None,
             height, alternative: str = "two-sided", as_z: bool = False, workers: int = 1,
             progressCallback: ProgressCallback | None = None) -> MapNull:
    """Return the null maxima of TFCE (if `settings`) and of clusters (if `height` is not None).

    Parameters
    ----------
    strata : list of Stratum
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

    def work(batch: slice):
        maps = statistic_maps(strata, scheme.part(batch), layout.n_maps * v, as_z=as_z)
        best = np.zeros((3, groups, len(maps)))
        for b, flat in enumerate(maps):
            for m in range(layout.n_maps):
                part = slice(m * v, (m + 1) * v)
                _one_map(flat[part], layout, m, best[:, :, b], settings, None if height is None else height[part],
                         strata[0].kind, alternative, as_z)
        return batch, best

    for batch, best in ordered(work, list(batches(len(scheme), MAP_BATCH)), workers,
                               progress=progressCallback or silent,
                               words=lambda batch: f"TFCE and clusters: permutation {batch.stop} of {len(scheme)}"):
        found[:, :, batch] = best
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
