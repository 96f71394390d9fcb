"""The float32 screen of a batch of permutations, compiled: sure counts, and where float64 has to decide.

See ``permutation_screen`` for the bounds. One pass over the products, in loops that the compiler turns into vector
instructions; numpy would read and write them nine times.
"""

import numpy as np

from DiscRelaxometryLib.compiled import kernel_if_numba

#: Voxels whose largest rho is kept, so that a row is not searched a second time.
STRETCH = 128


def screen(g, r, signed, turn, reach, tolerance, slack, least, count, highest, unsure, doubtful):
    """Count what surely reaches; list the (permutation, voxel) that float64 has to decide.

    Parameters
    ----------
    g : ndarray (c, batch, voxels), float32
        Q'PE; the first `r` rows belong to the contrast, the others to the reduced model.
    r : int
    signed : bool
        Give rho the sign of the effect times `turn` (r = 1).
    turn : float32
    reach, tolerance : ndarray (voxels,), float32
        What counts as reaching the observed rho, and the error of ``a - reach d`` where rho = a / d.
    slack, least : float32
        Twice the error of rho at d = 1, and the smallest d at which rho is known at all.
    count : ndarray (voxels,), int32
        Raised where reaching is sure.
    highest : ndarray (batch * voxels,), int32
        Filled with ``permutation * voxels + voxel`` of those that may have the largest rho of their permutation.
    unsure : ndarray (batch * voxels,), int32
        The same of those that may or may not reach.
    doubtful : ndarray (3, voxels,), float32
        Working space.

    Returns
    -------
    int, int
        Lengths of the two lists.
    """
    c, batch, voxels = g.shape
    x, d, rho = doubtful[0], doubtful[1], doubtful[2]
    stretches = (voxels + STRETCH - 1) // STRETCH
    tops, doubts = np.empty(stretches, np.float32), np.empty(stretches, np.int32)
    bits = np.empty(2, np.int32)
    ends = bits.view(np.float32)
    one, tiny, none = np.float32(1), np.float32(1e-20), np.float32(-3)
    n_highest = n_unsure = 0
    for b in range(batch):
        if signed:
            for v in range(voxels):
                x[v] = turn * g[0, b, v] * abs(g[0, b, v])
        else:
            for v in range(voxels):
                x[v] = g[0, b, v] * g[0, b, v]
        for k in range(1, r):
            for v in range(voxels):
                x[v] += g[k, b, v] * g[k, b, v]
        for v in range(voxels):
            d[v] = one
        for k in range(r, c):
            for v in range(voxels):
                d[v] -= g[k, b, v] * g[k, b, v]
        top, low = none, one
        for s in range(stretches):
            start, stop = s * STRETCH, min((s + 1) * STRETCH, voxels)
            xs, ds, qs, cs = x[start:stop], d[start:stop], rho[start:stop], count[start:stop]
            rs, ts = reach[start:stop], tolerance[start:stop]
            d_bits, q_bits = ds.view(np.int32), qs.view(np.int32)
            for v in range(xs.shape[0]):
                qs[v] = xs[v] / max(ds[v], tiny)
            for v in range(xs.shape[0]):
                xs[v] -= rs[v] * ds[v]
            for v in range(xs.shape[0]):
                cs[v] += np.int32(xs[v] > ts[v])
            doubt = 0
            for v in range(xs.shape[0]):
                doubt += np.int32(abs(xs[v]) <= ts[v])
            # Extremes by their bits, whose order is that of the numbers (turned round for those below 0).
            small, large = d_bits[0], np.int32(-2147483648)
            for v in range(xs.shape[0]):
                small = min(small, d_bits[v])
            for v in range(xs.shape[0]):
                large = max(large, q_bits[v] ^ ((q_bits[v] >> 31) & 0x7FFFFFFF))
            bits[0], bits[1] = small, large ^ ((large >> 31) & 0x7FFFFFFF)
            low, top = min(low, ends[0]), max(top, ends[1])
            tops[s], doubts[s] = ends[1], doubt
        threshold = none if low <= least else top - slack / low
        for s in range(stretches):
            start, stop = s * STRETCH, min((s + 1) * STRETCH, voxels)
            if tops[s] >= threshold or threshold == none:
                for v in range(start, stop):
                    if rho[v] >= threshold or threshold == none:
                        highest[n_highest] = b * voxels + v
                        n_highest += 1
            if doubts[s] > 0:
                for v in range(start, stop):
                    if abs(x[v]) <= tolerance[v]:
                        unsure[n_unsure] = b * voxels + v
                        n_unsure += 1
    return n_highest, n_unsure


def compiled():
    """Return the compiled function, or None where numba is not installed."""
    # Nothing here is NaN or infinite; a fused multiply and add rounds once instead of twice, within the bounds.
    return kernel_if_numba(screen, error_model="numpy", fastmath=frozenset({"nnan", "ninf", "nsz", "contract"}))
