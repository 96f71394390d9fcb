"""What follows the matrix product of a permutation, compiled: partial R squared, its maximum, and each voxel's count.

numpy reads and writes the products of a batch nine times for this; one pass over them is enough. The operations and
their order are those of ``permutation.partial_r2``, so that the numbers are the same to the last bit.
"""

from __future__ import annotations

from .tfce import kernel_if_numba


def maxima_and_counts(g, r, signed, turn, reach, best, count, rho):
    """Raise `best` to the largest rho of each permutation; add to `count` the permutations that reach a voxel's own.

    Parameters
    ----------
    g : ndarray (c, batch, voxels)
        Q'PE; the first `r` rows belong to the contrast, the others to the reduced model.
    r : int
    signed : bool
        Give rho the sign of the effect times `turn` (r = 1).
    turn : float
    reach : ndarray (voxels,)
        What counts as reaching the observed rho.
    best : ndarray (batch,)
        Largest rho so far; minus infinity at first.
    count : ndarray (voxels,) of int
    rho : ndarray (voxels,)
        Working space.
    """
    c, batch, voxels = g.shape
    for b in range(batch):
        for v in range(voxels):
            rho[v] = g[0, b, v] * g[0, b, v]
        for k in range(1, r):
            for v in range(voxels):
                rho[v] += g[k, b, v] * g[k, b, v]
        # One or two nuisance directions are the common case, and each loop of its own is vectorized.
        if c - r == 1:
            for v in range(voxels):
                rho[v] /= 1.0 - g[r, b, v] * g[r, b, v]
        elif c - r == 2:
            for v in range(voxels):
                rho[v] /= 1.0 - (g[r, b, v] * g[r, b, v] + g[r + 1, b, v] * g[r + 1, b, v])
        elif c > r:
            for v in range(voxels):
                rest = g[r, b, v] * g[r, b, v]
                for k in range(r + 1, c):
                    rest += g[k, b, v] * g[k, b, v]
                rho[v] /= 1.0 - rest
        if signed:
            for v in range(voxels):
                if g[0, b, v] * turn < 0:
                    rho[v] = -rho[v]
        for v in range(voxels):
            count[v] += rho[v] >= reach[v]
        # Four maxima side by side: one alone waits for each comparison.
        first, second, third, fourth = best[b], rho[0], rho[0], rho[0]
        whole = voxels - voxels % 4
        for v in range(0, whole, 4):
            first, second = max(first, rho[v]), max(second, rho[v + 1])
            third, fourth = max(third, rho[v + 2]), max(fourth, rho[v + 3])
        for v in range(whole, voxels):
            first = max(first, rho[v])
        best[b] = max(max(first, second), max(third, fourth))


def fused():
    """Return the compiled function, or None where numba is not installed."""
    return kernel_if_numba(maxima_and_counts)
