"""Threshold-free cluster enhancement, exact (no step size) by union-find over the voxels in falling order.

TFCE(v) = integral from 0 to h(v) of e(h)^E h^H dh, with e(h) the size of the cluster that holds v at height h (Smith &
Nichols 2009, Neuroimage 44:83). Between two neighboring heights no cluster changes, so the integral is a sum over
the tree of clusters. Replacing the antiderivative h^(H+1) / (H+1) by a running sum over steps gives the stepwise
variant of other tools from the same code. Positive and negative voxels are enhanced in one pass, each within its
own sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from DiscRelaxometryLib.compiled import have_numba, kernel
from DiscRelaxometryLib.errors import DesignError

_FACES = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
_ALL = [(k, j, i) for k in (0, 1) for j in (-1, 0, 1) for i in (-1, 0, 1) if (k, j, i) > (0, 0, 0)]


@dataclass(frozen=True)
class TfceSettings:
    """Parameters of the enhancement."""

    #: E and H; 0.5 and 2 in three dimensions (Smith & Nichols 2009), 1 and 2 in two.
    extent_power: float = 0.5
    height_power: float = 2.0
    #: One of 6, 18, 26. Neighbors that join voxels.
    connectivity: int = 6
    #: None is exact. A number sums over heights step, 2 step, ... as other tools do.
    step: float | None = None
    #: Multiply the sum by the step (an integral), as FSL's randomise and PALM do.
    times_step: bool = True


@dataclass(frozen=True)
class Neighbors:
    """Who touches whom among the voxels of a mask; voxels are numbered in array order."""

    #: Shape (v, c). Neighbors of each voxel, -1 where there is none.
    table: np.ndarray
    #: Shape (v,). Each label's box, padded, laid out in one line: the neighbors of a voxel stand at its place +
    #: `offsets`.
    place: np.ndarray
    #: Shape (c,).
    offsets: np.ndarray
    #: Shape (labels + 1,). First place of each label's box, labels in ascending order, and the length of the line.
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.place)

    def among(self, kept: np.ndarray) -> Neighbors:
        """Return the neighbors among some of the voxels, bool (v,), whose numbers close up; labels stay."""
        number = np.full(len(kept) + 1, -1, np.int32)
        number[:-1][kept] = np.arange(kept.sum(), dtype=np.int32)
        return replace(self, table=number[self.table[kept]], place=self.place[kept])


def neighbors_of(labels: np.ndarray, connectivity: int = 6) -> Neighbors:
    """Return the neighbors among the voxels with labels > 0; voxels of different labels (disc levels) are none.

    Parameters
    ----------
    labels : ndarray of int, shape (k, j, i)
    connectivity : {6, 18, 26}
    """
    steps = {6: _FACES, 18: [o for o in _ALL if sum(map(abs, o)) < 3], 26: _ALL}.get(connectivity)
    if steps is None:
        raise DesignError(f"Connectivity {connectivity} does not exist in a volume: choose 6, 18 or 26.")
    both = np.array(steps + [tuple(-x for x in o) for o in steps])
    inside = labels > 0
    own, where = labels[inside], np.argwhere(inside)
    boxes = [where[own == label] for label in np.unique(own)]
    low = [box.min(axis=0) for box in boxes]
    extent = np.max([box.max(axis=0) - at + 1 for box, at in zip(boxes, low)], axis=0) if boxes else np.ones(3, int)
    # One empty column, row and plane is shared by the two voxels or boxes at its sides.
    strides = np.array([(extent[1] + 1) * (extent[2] + 1), extent[2] + 1, 1])
    place, bounds, start = np.empty(len(own), np.int32), [0], strides.sum()
    for label, box, at in zip(np.unique(own), boxes, low):
        place[own == label] = start + (box - at) @ strides
        start += (np.ptp(box[:, 0]) + 2) * strides[0]
        bounds.append(start)
    line = np.full(start + strides.sum(), -1, np.int32)
    line[place] = np.arange(len(own), dtype=np.int32)
    offsets = (both @ strides).astype(np.int32)
    bounds[-1] = len(line)
    return Neighbors(line[place[:, None] + offsets], place, offsets, np.array(bounds, np.int32))


def tfce(volume: np.ndarray, settings: TfceSettings | None = None, labels: np.ndarray | None = None) -> np.ndarray:
    """Enhance a statistic's volume by threshold-free cluster enhancement.

    Parameters
    ----------
    volume : ndarray, shape (k, j, i), float
        Signed statistic, such as t; NaN is background. Take the square root of F first.
    settings : TfceSettings, optional
        By default E = 0.5, H = 2, neighbors by faces, and the exact integral.
    labels : ndarray of int, shape (k, j, i), optional
        Disc levels: voxels of different labels are not neighbors, and those of label 0 are background.

    Returns
    -------
    ndarray, shape (k, j, i), float64
        With the sign of the volume; NaN in the background.

    Raises
    ------
    DesignError
        If the volume does not have three axes, or holds infinite values, or the labels have another shape.

    Notes
    -----
    Smith & Nichols 2009, Neuroimage 44:83.
    """
    volume = np.asarray(volume, float)
    if volume.ndim != 3:
        raise DesignError(f"TFCE needs a volume of three axes; this one has shape {volume.shape}.")
    labels = np.ones(volume.shape, int) if labels is None else np.asarray(labels)
    if labels.shape != volume.shape:
        raise DesignError(f"The volume has shape {volume.shape}, its labels {labels.shape}: they must be the same.")
    settings = settings or TfceSettings()
    inside = ~np.isnan(volume) & (labels > 0)
    enhanced = np.full(volume.shape, np.nan)
    neighbors = neighbors_of(np.where(inside, labels, 0), settings.connectivity)
    enhanced[inside] = tfce_values(volume[inside], neighbors, settings)
    return enhanced


def tfce_values(stat: np.ndarray, neighbors: Neighbors, settings: TfceSettings | None = None,
                compiled: bool | None = None) -> np.ndarray:
    """Enhance a map given as the values of a mask.

    Parameters
    ----------
    stat : ndarray, shape (v,), float
        Signed statistic; NaN is background.
    neighbors : Neighbors
        From :func:`neighbors_of`.
    settings : TfceSettings, optional
    compiled : bool, optional
        Use numba (default: if it is installed). The plain Python code is the same and gives the same numbers.

    Returns
    -------
    ndarray, shape (v,), float64
        With the sign of `stat`.
    """
    value = np.zeros(neighbors.bounds[-1])
    _run(stat, neighbors, settings, compiled, value)
    return np.copysign(value[neighbors.place], stat)


def tfce_maxima(stat: np.ndarray, neighbors: Neighbors, settings: TfceSettings | None = None,
                compiled: bool | None = None) -> np.ndarray:
    """Return the largest size of the enhanced map in each label, labels ascending, without making the map.

    The largest value of a cluster is that of one of its peaks, so that only peaks need be followed. Parameters are
    those of :func:`tfce_values`.
    """
    return _run(stat, neighbors, settings, compiled, np.zeros(0))


def _run(stat, neighbors: Neighbors, settings, compiled, value) -> np.ndarray:
    """Fill `value`, by place, if it has any length; return the largest value of each label."""
    settings = settings or TfceSettings()
    stat = np.asarray(stat, float)
    size = np.abs(stat)
    if not np.isfinite(size.sum()):
        stat = np.where(np.isnan(stat), 0.0, stat)
        size = np.abs(stat)
        if not np.isfinite(size).all():
            raise DesignError("The statistic is infinite somewhere: TFCE needs finite values.")
    compiled = have_numba() if compiled is None else compiled
    if compiled:
        code, height = kernel(_falling)(stat, size, size.view(np.int64), neighbors.place)
    else:
        order = np.argsort(-size, kind="stable")[: np.count_nonzero(size)]
        code, height = 2 * neighbors.place[order] + (stat[order] > 0), size[order]
    best = np.zeros(len(neighbors.bounds) - 1)
    enhance = kernel(_enhance) if compiled else _enhance
    # Zeros from numpy cost only what is touched of them, which matters where a mask is thin.
    enhance(code, _antiderivative(height, settings), np.zeros(neighbors.bounds[-1], np.int32), neighbors.offsets,
            _powers(len(stat), settings.extent_power), value, neighbors.bounds, best)
    return best


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


def _falling(stat, size, key, place):
    """Return (2 place + 1 if positive) and size of the voxels of size > 0 in falling order, equal ones in array order.

    `key` holds the bits of `size`, which rise with it: the leading ones sort into buckets of a few voxels each.
    """
    n = size.shape[0]
    digits = 2
    while 32 << digits < n:
        digits += 1
    # Sixteen powers of two below the largest; the last bucket takes what is smaller still.
    buckets, shift = 16 << digits, 52 - digits
    top = np.int64(0)
    for v in range(n):
        top = max(top, key[v])
    start = np.zeros(buckets + 1, np.int32)
    for v in range(n):
        if size[v] > 0:
            start[min((top - key[v]) >> shift, buckets - 1) + 1] += 1
    for b in range(buckets):
        start[b + 1] += start[b]
    code, height = np.empty(start[buckets], np.int32), np.empty(start[buckets])
    for v in range(n):
        if size[v] > 0:
            b = min((top - key[v]) >> shift, buckets - 1)
            code[start[b]] = 2 * place[v] + (stat[v] > 0)
            height[start[b]] = size[v]
            start[b] += 1
    low = 0
    for b in range(buckets):
        high = start[b]
        if high - low > 64:
            # An outlier far above the rest leaves few buckets to them.
            order = low + np.argsort(-height[low:high], kind="mergesort")
            code[low:high], height[low:high] = code[order], height[order]
        else:
            for i in range(low + 1, high):
                h, own, j = height[i], code[i], i
                while j > low and height[j - 1] < h:
                    height[j], code[j] = height[j - 1], code[j - 1]
                    j -= 1
                height[j], code[j] = h, own
        low = high
    return code, height


def _enhance(code, weight, cluster, offsets, power, value, bounds, best):
    """Fill TFCE of voxels visited in falling order; `weight` is the antiderivative at each one's height.

    ``cluster`` has, by place, the signed number of the cluster a voxel joined. ``total[c]`` is what cluster c has
    gathered since its peak. When two clusters meet, the smaller joins the larger and keeps the difference of their
    totals (``shift``). Clusters are few, so that all but the places stays in fast memory.
    """
    n, width = code.shape[0] + 1, offsets.shape[0]
    link, size, up = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    peak, merged = np.empty(n, np.int32), np.empty(n, np.int32)
    total, last, shift = np.empty(n), np.empty(n), np.empty(n)
    met = np.empty(width + 1, np.int32)
    keep = value.shape[0] > 0
    count = merges = 0
    for i in range(n - 1):
        w, at, sign = weight[i], code[i] >> 1, 2 * (code[i] & 1) - 1
        number = 0
        for c in range(width):
            # Written always and counted if it is one: whether a neighbor was visited cannot be predicted.
            met[number] = cluster[at + offsets[c]] * sign
            number += met[number] > 0
        if number == 0:
            count += 1
            cluster[at] = count * sign
            link[count], size[count], peak[count] = count, 1, at
            total[count], last[count] = 0.0, w
            continue
        own = 0
        for k in range(number):
            if k > 0 and met[k] == met[k - 1]:
                continue
            root = met[k]
            while link[root] != root:
                link[root] = link[link[root]]
                root = link[root]
            if root == own:
                continue
            total[root] += power[size[root]] * (last[root] - w)
            last[root] = w
            if own == 0:
                own = root
                continue
            if size[root] > size[own]:
                own, root = root, own
            shift[root] = total[root] - total[own]
            link[root], up[root] = own, own
            size[own] += size[root]
            merged[merges] = root
            merges += 1
        cluster[at] = own * sign
        size[own] += 1
        if keep:
            value[at] = -total[own]
    for c in range(1, count + 1):
        if link[c] == c:
            total[c] += power[size[c]] * last[c]
    for m in range(merges - 1, -1, -1):
        # Who took it in was taken in later itself, or never: its total is final.
        c = merged[m]
        total[c] = shift[c] + total[up[c]]
    for c in range(1, count + 1):
        label = np.searchsorted(bounds, peak[c], side="right") - 1
        best[label] = max(best[label], total[c])
    if keep:
        for i in range(n - 1):
            at = code[i] >> 1
            value[at] += total[abs(cluster[at])]
