"""Threshold-free cluster enhancement, exact (no step size) by union-find over the voxels in falling order.

TFCE(v) = integral from 0 to h(v) of e(h)^E h^H dh, with e(h) the size of the cluster that holds v at height h (Smith &
Nichols 2009, Neuroimage 44:83). Between two neighboring heights no cluster changes, so the integral is a sum over
the tree of clusters. Replacing the antiderivative h^(H+1) / (H+1) by a running sum over steps gives the stepwise
variant of other tools from the same code. Positive and negative voxels are enhanced in one pass, each within its
own sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from DiscRelaxometryLib.errors import DesignError

_FACES = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
_ALL = [(k, j, i) for k in (0, 1) for j in (-1, 0, 1) for i in (-1, 0, 1) if (k, j, i) > (0, 0, 0)]


@dataclass(frozen=True)
class TfceSettings:
    """Parameters of the enhancement.

    Attributes
    ----------
    extent_power, height_power : float
        E and H; 0.5 and 2 in three dimensions (Smith & Nichols 2009), 1 and 2 in two.
    connectivity : {6, 18, 26}
        Neighbors that join voxels.
    step : float or None
        None is exact. A number sums over heights step, 2 step, ... as other tools do.
    times_step : bool
        Multiply the sum by the step (an integral), as FSL's randomise and PALM do.
    """

    extent_power: float = 0.5
    height_power: float = 2.0
    connectivity: int = 6
    step: float | None = None
    times_step: bool = True


def neighbor_table(labels: np.ndarray, connectivity: int = 6) -> np.ndarray:
    """Return the neighbors of each voxel with labels > 0, shape (v, connectivity), -1 where there is none.

    Voxels are numbered in array order; voxels of different labels (disc levels) are no neighbors.
    """
    offsets = {6: _FACES, 18: [o for o in _ALL if sum(map(abs, o)) < 3], 26: _ALL}.get(connectivity)
    if offsets is None:
        raise DesignError(f"Connectivity {connectivity} does not exist in a volume: choose 6, 18 or 26.")
    inside = labels > 0
    padded = np.zeros(np.add(labels.shape, 2), labels.dtype)
    padded[1:-1, 1:-1, 1:-1] = labels
    index = np.full(padded.shape, -1, np.int32)
    index[1:-1, 1:-1, 1:-1][inside] = np.arange(inside.sum(), dtype=np.int32)
    where = np.argwhere(inside) + 1
    own = labels[inside]
    columns = []
    for offset in offsets + [tuple(-x for x in o) for o in offsets]:
        at = tuple((where + offset).T)
        columns.append(np.where(padded[at] == own, index[at], -1))
    return np.ascontiguousarray(np.stack(columns, axis=1).astype(np.int32))


def tfce(stat: np.ndarray, neighbors: np.ndarray, settings: TfceSettings | None = None,
         compiled: bool | None = None) -> np.ndarray:
    """Enhance a map.

    Parameters
    ----------
    stat : ndarray, shape (v,), float
        Signed statistic; NaN is background.
    neighbors : ndarray, shape (v, c), int32
        From :func:`neighbor_table`.
    settings : TfceSettings, optional
    compiled : bool, optional
        Use numba (default: if it is installed). The plain Python code is the same and gives the same numbers.

    Returns
    -------
    ndarray, shape (v,), float64
        With the sign of `stat`.
    """
    settings = settings or TfceSettings()
    stat = np.asarray(stat, float)
    stat = np.where(np.isnan(stat), 0.0, stat)
    if not np.isfinite(stat).all():
        raise DesignError("The statistic is infinite somewhere: TFCE needs finite values.")
    size = np.abs(stat)
    order = np.argsort(-size)
    order = order[: np.count_nonzero(size)].astype(np.int32)
    kernel = _kernel(have_numba() if compiled is None else compiled)
    value = kernel(order, _antiderivative(size, settings), stat > 0, neighbors,
                   _powers(len(stat), settings.extent_power))
    return np.copysign(value, stat)


def _antiderivative(size: np.ndarray, settings: TfceSettings) -> np.ndarray:
    """Return the integral (or sum over steps) of h^H from 0 to each height."""
    if settings.step is None and settings.height_power == 2:
        return size * size * size / 3  # a general power takes ten times as long
    if settings.step is None:
        return size ** (settings.height_power + 1) / (settings.height_power + 1)
    # A height that lies on a step counts it, whatever the rounding of its quotient.
    reached = np.floor(size / settings.step * (1 + 1e-12)).astype(np.int64)
    sums = np.concatenate([[0.0], np.cumsum((np.arange(1, reached.max(initial=0) + 1) * settings.step)
                                            ** settings.height_power)])
    return sums[reached] * (settings.step if settings.times_step else 1.0)


@lru_cache(maxsize=8)
def _powers(n: int, exponent: float) -> np.ndarray:
    """Return 0^E, 1^E, ... n^E."""
    return np.arange(n + 1, dtype=float) ** exponent


@lru_cache
def have_numba() -> bool:
    """Tell whether numba can be imported."""
    from importlib.util import find_spec

    return find_spec("numba") is not None


@lru_cache
def _kernel(compiled: bool):
    if not compiled:
        return _enhance
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(_enhance)
    except RuntimeError:
        # No folder to keep compiled code in: compile once a process.
        return numba.njit(nogil=True)(_enhance)


def _enhance(order, weight, positive, neighbors, power):
    """Return TFCE of voxels visited in falling order; `weight` is the antiderivative at each voxel's height.

    Each cluster is a tree with a root. ``total[root]`` is what the cluster has gathered since the root was made; a
    voxel's value is its own offset plus those on its way up plus the root's total.
    """
    n = weight.shape[0]
    parent = np.full(n, -1, np.int32)
    offset = np.zeros(n)
    total = np.zeros(n)
    last = np.zeros(n)
    size = np.zeros(n, np.int32)
    # 0 not yet visited, 1 positive, 2 negative: one small array to look at for each neighbor.
    state = np.zeros(n, np.int8)
    roots = np.full(neighbors.shape[1], -1, np.int32)
    for v in order:
        w = weight[v]
        own = 1 if positive[v] else 2
        state[v] = own
        best = -1
        count = 0
        for c in range(neighbors.shape[1]):
            u = neighbors[v, c]
            if u < 0 or state[u] != own:
                continue
            root = parent[u]
            if parent[root] != root:
                # Shorten the way up: each voxel on it then hangs from the root, its offset the sum of those passed.
                passed = offset[u]
                while parent[root] != root:
                    passed += offset[root]
                    root = parent[root]
                x = u
                while parent[x] != root:
                    step, above = offset[x], parent[x]
                    offset[x] = passed
                    parent[x] = root
                    passed -= step
                    x = above
            known = False
            for k in range(count):
                if roots[k] == root:
                    known = True
            if not known:
                roots[count] = root
                count += 1
                if best < 0 or size[root] > size[best]:
                    best = root
        if best < 0:
            parent[v] = v
            size[v] = 1
            last[v] = w
            continue
        total[best] += power[size[best]] * (last[best] - w)
        last[best] = w
        for k in range(count):
            root = roots[k]
            if root != best:
                total[root] += power[size[root]] * (last[root] - w)
                offset[root] = total[root] - total[best]
                parent[root] = best
                size[best] += size[root]
        parent[v] = best
        offset[v] = -total[best]
        size[best] += 1
    value = np.zeros(n)
    for v in order:
        if parent[v] == v:
            total[v] += power[size[v]] * last[v]
    for v in order:
        root = parent[v]
        gathered = 0.0 if root == v else offset[v]
        while parent[root] != root:
            gathered += offset[root]
            root = parent[root]
        value[v] = gathered + total[root]
        if v != root:
            parent[v] = root
            offset[v] = gathered
    return value
