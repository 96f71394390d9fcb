"""Does the residual spread depend on the tested variable? Then permuted errors are not exchangeable."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, stats

from ..design import Contrast, Design
from ..permutation import Partition, full_residuals, less_block_means, level_name, leverage
from .data import AnalysisData

#: Below this p, corrected for the number of levels and quantities, the analysis says so.
NOTABLE = 0.01
#: At or below this p, ``errors="auto"`` flips signs: the rule is part of the procedure that the validation calibrates.
DEPENDS = 0.05


@dataclass(frozen=True)
class Spread:
    """How the residual spread of one quantity and level depends on the tested columns."""

    quantity: str
    level: str
    #: Fitted variance of the observation with the largest spread over that of the one with the smallest.
    ratio: float
    #: Of the F test of the tested columns, corrected by the number of levels and quantities (Bonferroni).
    p: float


class SpreadTest:
    """The strongest dependence over levels and quantities, gathered while the voxels are fitted.

    Each observation's squared residuals of the full model, over their expectation at equal spread, are averaged over
    the voxels; the logarithm of the average is explained by the tested columns (after Breusch & Pagan 1979,
    Econometrica 47:1287; Harvey 1976, Econometrica 44:461). The average over voxels makes one number per person, which
    is as independent between persons as the model's errors are. Repeated measures of a person (`blocks`) are averaged
    where the tested columns are constant in each person. Variance groups (`groups`) may differ: spread and columns are
    compared within them.
    """

    def __init__(self, contrast: Contrast, designs: dict[int, Design], data: AnalysisData, blocks=None, groups=None):
        self.tested = np.flatnonzero(np.any(contrast.weights != 0, axis=0))
        self.designs, self.data, self.blocks, self.groups = designs, data, blocks, groups
        self.sums: dict[int, tuple] = {}

    def add(self, cell, part: Partition, y: np.ndarray) -> None:
        """Count in the voxels of a cell."""
        squares = relative_squares(part, y, cell.present)
        _, size, count = self.sums.setdefault(cell.group, (cell, np.zeros(self.data.n), np.zeros(self.data.n)))
        size[cell.rows] += np.nansum(squares, axis=1)
        count[cell.rows] += np.isfinite(squares).sum(axis=1)

    def result(self) -> Spread | None:
        """Return the smallest p, corrected; None where it cannot be told, as with designs that differ by voxel."""
        if self.data.covariates:
            return None
        found = [f for group in sorted(self.sums) if (f := self._dependence(*self.sums[group])) is not None]
        if not found:
            return None
        least = min(found, key=lambda f: f.p)
        return replace(least, p=min(least.p * len(found), 1.0))

    def weights(self, group: int) -> np.ndarray:
        """Return a weight for each observation, shape (n,): one over the mean squares of its variance group."""
        _, size, count = self.sums.get(group, (None, np.ones(self.data.n), np.ones(self.data.n)))
        total = np.bincount(self.groups, size) / np.maximum(np.bincount(self.groups, count), 1)
        return 1 / np.where(total > 0, total, 1.0)[self.groups]

    def _dependence(self, cell, size: np.ndarray, count: np.ndarray) -> Spread | None:
        design, blocks = self.designs[cell.level], self.blocks
        rows = design.rows[(count[design.rows] > 0) & (size[design.rows] > 0)]
        if not len(rows):
            return None
        columns = design.matrix[np.isin(design.rows, rows)][:, self.tested]
        log, own = np.log(size[rows] / count[rows]), None if self.groups is None else self.groups[rows]
        if own is not None:
            inside, log = less_block_means(columns, own), less_block_means(log, own)
            columns = np.where(np.abs(inside) > 1e-10 * np.abs(columns).max(), inside, 0.0)
        if blocks is not None:
            member = blocks[rows][:, None] == np.unique(blocks[rows])
            mean = member / member.sum(axis=0)
            if np.allclose(member @ (mean.T @ columns), columns):
                columns, log = mean.T @ columns, mean.T @ log
        found = dependence(columns, log, 1 if own is None else len(np.unique(own)))
        return found and Spread(cell.quantity, level_name(cell.level), *found)


def relative_squares(part: Partition, y: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return squared residuals over their expectation at equal spread, shape (n, v); NaN where there are none."""
    squares = full_residuals(part, y) ** 2
    variance = squares.sum(axis=0) / part.df
    # Whoever has a column to himself has no residual; what is left there is rounding.
    expected = 1 - leverage(part)
    expected = np.where(expected > 1e-8, expected, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(variance > 1e-20 * np.sum(y ** 2, axis=0), squares / variance, np.nan)
    relative /= expected[:, None] if expected.ndim == 1 else expected.T
    return relative if present is None else np.where(present.T, relative, np.nan)


def hold_groups(contrast: Contrast, designs: dict[int, Design], groups: np.ndarray) -> bool:
    """Tell whether the reduced models hold the mean of each variance group: their members then change places."""
    for design in designs.values():
        weights, own = contrast.weights[:, :design.rank], groups[design.rows]
        others = design.matrix @ (linalg.null_space(weights) if weights.any() else np.eye(design.rank))
        members = (own[:, None] == np.unique(own)).astype(float)
        if np.abs(members - others @ np.linalg.lstsq(others, members, rcond=None)[0]).max() > 1e-8:
            return False
    return True


def dependence(columns: np.ndarray, log: np.ndarray, means: int = 1) -> tuple[float, float] | None:
    """Return (ratio, p): how columns (n, c) explain the logarithm of the mean squares (n,); None if it cannot be told.

    The ratio is that of the largest fitted variance to the smallest; p is that of the F test. `means` is the number of
    means that were taken out of both.
    """
    columns, log = columns - columns.mean(axis=0), log - log.mean()
    rank = np.linalg.matrix_rank(columns)
    df = len(log) - means - rank
    if rank == 0 or df < 3:
        return None
    fitted = columns @ np.linalg.lstsq(columns, log, rcond=None)[0]
    error = np.sum((log - fitted) ** 2)
    if error == 0:
        return None
    p = float(stats.f.sf(np.sum(fitted ** 2) / rank / (error / df), rank, df))
    return float(np.exp(np.ptp(fitted))), p
