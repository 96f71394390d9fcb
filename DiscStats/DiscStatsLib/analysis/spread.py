"""Does the residual spread depend on the tested variable? Then permuted errors are not exchangeable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..design import Contrast, Design
from ..permutation import level_name, residuals
from .data import AnalysisData
from .model import Cell, cell_matrix

#: Below this p, corrected for the number of levels and quantities, the analysis says so.
NOTABLE = 0.01
#: At or below this p, ``errors="auto"`` flips signs: the rule is part of the procedure that the validation calibrates.
DEPENDS = 0.05


@dataclass(frozen=True)
class Spread:
    """How the residual spread of one quantity and level depends on the tested columns.

    Attributes
    ----------
    quantity, level : str
    ratio : float
        Fitted variance of the observation with the largest spread over that of the one with the smallest.
    p : float
        Of the F test of the tested columns, corrected by the number of levels and quantities (Bonferroni).
    """

    quantity: str
    level: str
    ratio: float
    p: float


def residual_spread(contrast: Contrast, cells: list[Cell], designs: dict[int, Design], data: AnalysisData,
                    ranks: bool, blocks=None) -> Spread | None:
    """Return the strongest dependence over levels and quantities; None where it can not be told.

    Each observation's squared residuals of the full model, over their expectation at equal spread, are averaged over
    the voxels; the logarithm of the average is explained by the tested columns (after Breusch & Pagan 1979,
    Econometrica 47:1287; Harvey 1976, Econometrica 44:461). The average over voxels makes one number a person, which
    is as independent between persons as the model's errors are. Repeated measures of a person (`blocks`) are averaged
    where the tested columns are constant in each person.
    """
    found = []
    tested = np.flatnonzero(np.any(contrast.weights != 0, axis=0))
    for group in sorted({cell.group for cell in cells}):
        members = [cell for cell in cells if cell.group == group]
        design = designs[members[0].level]
        if np.any(tested >= design.matrix.shape[1]):
            continue  # a voxel-wise covariate has no value of its own for each person
        size, count = np.zeros(data.n), np.zeros(data.n)
        for cell in members:
            squares = _relative_squares(cell, design, data, ranks)
            if squares is not None:
                size[cell.rows] += squares.sum(axis=1)
                count[cell.rows] += squares.shape[1]
        found.append(_dependence(members[0], design, tested, size, count, blocks))
    found = [f for f in found if f is not None]
    if not found:
        return None
    least = min(found, key=lambda f: f.p)
    return Spread(least.quantity, least.level, least.ratio, min(least.p * len(found), 1.0))


def _relative_squares(cell: Cell, design: Design, data: AnalysisData, ranks: bool) -> np.ndarray | None:
    """Return squared residuals over their expectation, shape (rows, voxels that are fitted)."""
    matrix = cell_matrix(cell, design, data, ranks)
    if matrix.ndim == 3:
        return None
    y = data.values[cell.quantity][np.ix_(cell.rows, cell.voxels)]
    return relative_squares(matrix, stats.rankdata(y, axis=0) if ranks else y)


def relative_squares(matrix: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Return squared residuals over their expectation at equal spread, shape (n, voxels that are fitted).

    Parameters
    ----------
    matrix : ndarray, shape (n, p)
        Design; None is returned if it is not of full rank.
    y : ndarray, shape (n, v)
    """
    q, triangle = np.linalg.qr(matrix / np.linalg.norm(matrix, axis=0).clip(1e-300))
    if np.abs(np.diag(triangle)).min() < 1e-10 or len(q) <= q.shape[1]:
        return None
    free = 1 - np.sum(q ** 2, axis=1)
    squares = residuals(q, y) ** 2
    variance = squares.sum(axis=0) / (len(q) - q.shape[1])
    fitted = variance > 1e-20 * np.sum(y ** 2, axis=0)
    return squares[:, fitted] / variance[fitted] / np.maximum(free, 1e-10)[:, None]


def _dependence(cell: Cell, design: Design, tested, size, count, blocks) -> Spread | None:
    rows = design.rows[(count[design.rows] > 0) & (size[design.rows] > 0)]
    if not len(rows):
        return None
    columns = design.matrix[np.isin(design.rows, rows)][:, tested]
    log = np.log(size[rows] / count[rows])
    if blocks is not None:
        member = blocks[rows][:, None] == np.unique(blocks[rows])
        mean = member / member.sum(axis=0)
        if np.allclose(member @ (mean.T @ columns), columns):
            columns, log = mean.T @ columns, mean.T @ log
    found = dependence(columns, log)
    return found and Spread(cell.quantity, level_name(cell.level), *found)


def dependence(columns: np.ndarray, log: np.ndarray) -> tuple[float, float] | None:
    """Return (ratio, p): how columns (n, c) explain the logarithm of the mean squares (n,); None if it can not be told.

    The ratio is that of the largest fitted variance to the smallest; p is that of the F test.
    """
    columns, log = columns - columns.mean(axis=0), log - log.mean()
    rank = np.linalg.matrix_rank(columns)
    df = len(log) - 1 - rank
    if rank == 0 or df < 3:
        return None
    fitted = columns @ np.linalg.lstsq(columns, log, rcond=None)[0]
    error = np.sum((log - fitted) ** 2)
    if error == 0:
        return None
    p = float(stats.f.sf(np.sum(fitted ** 2) / rank / (error / df), rank, df))
    return float(np.exp(np.ptp(fitted))), p
