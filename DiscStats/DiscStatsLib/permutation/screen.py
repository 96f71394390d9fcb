"""Screen in float32, decide in float64: the maxima and counts of the float64 computation at half its cost.

A float32 product of vectors of length k and norm at most 1 is off by at most e = (k + 2) u / (1 - k u), u = 2^-24, in
whatever order it is summed (Higham 2002, Accuracy and Stability of Numerical Algorithms, 3.1): k u for the sum and 2 u
for rounding the factors. With g the r products of the contrast and z the s others, rho = a / d with a = g'g and
d = 1 - z'z, so that

- a is off by at most 2 E sqrt(a) + E^2 with E = sqrt(r) e, and d by at most 2 D + D^2 with D = sqrt(s) e,
- "rho reaches R" is the sign of a - R d, off by at most 2 E sqrt(R) + E^2 + R (2 D + D^2) near 0, however small d is,
- rho is off by at most (error of a + error of d) / d, and two of them are in order if they differ by twice that,

plus a few u for rounding these steps. Whatever lies within a bound is computed anew in float64: the voxels of a
permutation that may or may not reach their own statistic, and those that may be its maximum.
"""

from dataclasses import dataclass, field

import numpy as np

from .kernel import compiled

UNIT = 2.0 ** -24
#: Room for what the bounds leave out: terms of second order, norms of 1 + rounding, float64's own errors.
ROOM = 1.01
#: Longer products are known too poorly in float32, and fewer voxels are not worth a second pass.
LONGEST, FEWEST = 1024, 256
#: Above this share of undecided pairs float64 takes the whole batch.
UNDECIDED = 1 / 16
#: Below this, one less the squared length of Qz'PE is rounding: the rearranged data lie in the reduced model and have
#: no statistic (0).
EMPTY = 1e-14


def share(g: np.ndarray, r: int, signed: bool) -> np.ndarray:
    """Return the partial R squared of products Q'PE (c, ...), overwritten; `signed` gives it the effect's sign.

    The first `r` products belong to the contrast, the others to the reduced model.
    """
    first = g[0].copy() if signed else None
    np.multiply(g, g, out=g)
    rho = g[0]
    for c in range(1, r):
        rho += g[c]
    if len(g) > r:
        rest = g[r]
        for c in range(r + 1, len(g)):
            rest += g[c]
        np.subtract(1.0, rest, out=rest)
        np.maximum(rest, EMPTY, out=rest)
        rho /= rest
    return rho if first is None else np.copysign(rho, first)


@dataclass
class Screen:
    """The screen of one block of voxels; see :func:`make_screen`."""

    data: np.ndarray
    r: int
    signed: bool
    turn: float
    reach: np.ndarray
    single: np.ndarray
    near: np.ndarray
    tolerance: np.ndarray
    slack: float
    least: float
    space: dict = field(default_factory=dict)

    def take(self, rows: np.ndarray, best: np.ndarray, count: np.ndarray) -> bool:
        """Raise `best` and `count` by a batch of permutations; False, with both as they were, if float64 should.

        Rows are Q'P, shape (c, batch, k), float64; `best` has the shape (batch,), `count` (voxels,).
        """
        c, batch, k = rows.shape
        voxels = len(self.data)
        product, highest, unsure, work = self._space(c, batch, voxels)
        np.matmul(rows.reshape(-1, k).astype(np.float32), self.single, out=product)
        sure = np.zeros(voxels, np.int32)
        lengths = compiled()(product.reshape(c, batch, voxels), self.r, self.signed, np.float32(self.turn), self.near,
                             self.tolerance, np.float32(self.slack), np.float32(self.least), sure, highest, unsure,
                             work)
        if sum(lengths) > UNDECIDED * batch * voxels:
            return False
        n = lengths[0]
        place, voxel = np.divmod(np.concatenate([highest[:n], unsure[: lengths[1]]]), voxels)
        g = np.einsum("cnk,nk->cn", rows[:, place], self.data[voxel])
        rho = share(g, self.r, self.signed) * self.turn
        np.maximum.at(best, place[:n], rho[:n])
        count += sure
        count += np.bincount(voxel[n:][rho[n:] >= self.reach[voxel[n:]]], minlength=voxels)
        return True

    def _space(self, c, batch, voxels):
        if (c, batch) not in self.space:
            self.space[c, batch] = (np.empty((c * batch, voxels), np.float32), np.empty(batch * voxels, np.int32),
                                    np.empty(batch * voxels, np.int32), np.empty((3, voxels), np.float32))
        return self.space[c, batch]


def make_screen(data: np.ndarray, directions: int, r: int, signed: bool, turn: float,
                reach: np.ndarray) -> Screen | None:
    """Return the screen of a block, or None where float64 alone is better or numba is not installed.

    Data, shape (k, voxels), float64, have columns of norm 1; of a permutation's products (`directions`), with rows of
    norm <= 1, `r` belong to the contrast. Rho is `signed` as the effect times `turn` (1 or -1) and counts from `reach`
    on.
    """
    k, voxels = data.shape
    if k > LONGEST or voxels < FEWEST or compiled() is None:
        return None
    e = (k + 2) * UNIT / (1 - k * UNIT)
    of_contrast, of_rest = np.sqrt(r) * e, np.sqrt(directions - r) * e
    d_error = 2 * of_rest + of_rest ** 2 + (directions - r + 2) * UNIT
    a_error = 2 * of_contrast + of_contrast ** 2 + (r + 2) * UNIT
    size = np.abs(reach)
    tolerance = 2 * of_contrast * np.sqrt(size) + of_contrast ** 2 + size * (d_error + (r + 4) * UNIT)
    return Screen(np.ascontiguousarray(data.T), r, signed, turn, reach, data.astype(np.float32),
                  reach.astype(np.float32), (ROOM * tolerance).astype(np.float32),
                  2 * ROOM * (a_error + d_error + 2 * UNIT), 4 * d_error)
