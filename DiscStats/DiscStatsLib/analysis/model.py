"""Designs of the levels, groups of voxels that share observations, and the fit of one contrast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError

from ..design import Contrast, Design
from ..permutation import (
    DESIGN_BLOCK,
    Partition,
    Presence,
    Stratum,
    absorbed,
    by_count,
    complete_blocks,
    design_within,
    fit,
    full_rank,
    has_constant,
    least_count,
    less_block_means,
    level_name,
    make_partial_stratum,
    make_stratum,
    partition,
    restricted_factors,
    unit_residuals,
    within_columns,
)
from ..settings import AnalysisSettings
from .data import AnalysisData
from .spread import DEPENDS, Spread, SpreadTest, hold_groups


@dataclass(frozen=True)
class Cell:
    """Voxels of one quantity and level with the same observations, or with as many of them."""

    quantity: str
    #: Label value.
    level: int
    #: Number of (quantity, level).
    group: int
    #: Voxel indices in the mask.
    voxels: np.ndarray
    #: Observations of the design.
    rows: np.ndarray
    #: bool, shape (v, m). Which of the rows have a value and all covariates, the same number at every voxel; None
    #: where all have.
    present: np.ndarray | None = None
    #: Shape (m,). Blocks whose means are taken out: the test is within them.
    blocks: np.ndarray | None = None

    @property
    def absorbed(self) -> int:
        """Number of block means that are taken out at each voxel."""
        return absorbed(self.blocks, self.present)

    @property
    def n(self) -> int:
        """Number of observations at each voxel."""
        return len(self.rows) if self.present is None else int(self.present[0].sum())

    def part(self, block) -> Cell:
        """Return some of the voxels."""
        return replace(self, voxels=self.voxels[block], present=None if self.present is None else self.present[block])


def make_cells(data: AnalysisData, designs: dict[int, Design], settings: AnalysisSettings, *, whole=None,
               within=None) -> tuple[list[Cell], list[str]]:
    """Group the voxels by the observations they have, by the stated policy for missing values.

    Blocks that change places as a whole (`whole`) are left out, voxel by voxel, where one of their observations is
    missing; flipped signs do not need that. The means of blocks that a test is `within` are taken out.

    Returns
    -------
    cells, warnings
    """
    cells, remarks = [], []
    common = np.logical_and.reduce([np.isfinite(v) for v in data.covariates.values()]) if data.covariates else True
    for q, (quantity, values) in enumerate(data.values.items()):
        valid_map = np.isfinite(values) & common
        for g, level in enumerate(data.level_values):
            voxels = np.flatnonzero(data.levels == level)
            design = designs[level]
            have = np.zeros(data.n, bool)
            have[design.rows] = True
            valid = valid_map[:, voxels] & have[:, None]
            group = q * len(data.level_values) + g
            own = None if within is None else within[design.rows]
            if settings.missing == "complete":
                kept = valid[design.rows].all(axis=0)
                if not kept.any():
                    raise DesignError(_no_complete_voxel(valid, design, data, quantity, level), anchor="missing-values")
                cells.append(Cell(quantity, level, group, voxels[kept], design.rows, blocks=own))
                lost = int((~kept & valid.any(axis=0)).sum())
                if lost:
                    remarks.append(f"{lost} of {len(voxels)} voxels of '{quantity}' at {level_name(level)} lack a "
                                   "value in at least one person and were left out (policy: complete).")
                continue
            if whole is not None:
                valid = complete_blocks(valid, whole)
            least = settings.min_count or least_count(len(design.rows), design.rank + len(data.covariates))
            found, few = by_count(valid[design.rows].T, least, own)
            cells += [Cell(quantity, level, group, voxels[at], design.rows, present, own) for at, present in found]
            if few:
                remarks.append(f"{few} of {len(voxels)} voxels of '{quantity}' at {level_name(level)} have fewer than "
                               f"{least} values and were left out (policy: available).")
    if not cells:
        raise DesignError("No voxel has enough values for the model: lower the minimum count, or check the maps.",
                          anchor="missing-values")
    return cells, remarks


def _no_complete_voxel(valid, design: Design, data: AnalysisData, quantity: str, level: int) -> str:
    counts = valid[design.rows].sum(axis=1)
    who = [data.ids[design.rows[i]] for i in np.flatnonzero(counts == 0)]
    reason = f"{', '.join(who[:5])} have none there" if who else "the maps do not overlap"
    return (f"No voxel of '{quantity}' at {level_name(level)} has a value in everyone ({reason}): leave the level or "
            "these people out, or choose the policy 'available'.")


def cell_matrix(cell: Cell, design: Design, data: AnalysisData, ranks: bool) -> np.ndarray:
    """Return the design of a cell, (m, p), or (v, m, p) where voxels differ in it: 0 for the absent."""
    matrix, present = design.matrix, cell.present
    if not data.covariates and (present is None or not ranks):
        return matrix
    shape = (len(cell.voxels), *matrix.shape)
    if ranks and present is not None:
        matrix = np.stack([_ranked(c[:, None], present) for c in matrix.T], axis=2)
    extra = [c[np.ix_(cell.rows, cell.voxels)] for c in data.covariates.values()]
    if ranks:
        extra = [_ranked(e, present).T for e in extra]
    stacked = np.concatenate([np.broadcast_to(matrix, shape), *(e.T[:, :, None] for e in extra)], axis=2)
    return stacked if present is None else np.where(present[:, :, None], stacked, 0.0)


def _ranked(values: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Return ranks (v, m) of values (m, v or 1) among those present; columns of two values stay as they are."""
    if present is None:
        return rankdata(values, axis=0).T
    shown = np.where(present, values.T, np.nan)
    low, high = np.nanmin(shown, axis=1, keepdims=True), np.nanmax(shown, axis=1, keepdims=True)
    two = ((shown == low) | (shown == high) | ~present).all(axis=1, keepdims=True)
    return np.where(two, shown, rankdata(shown, axis=1, nan_policy="omit"))


@dataclass
class Block:
    """Voxels fitted in one go."""

    #: Its voxels are those of the block.
    cell: Cell
    part: Partition
    #: Shape (m, v). 0 for the absent.
    y: np.ndarray
    #: Of everyone's design, where those of the voxels are parts of it.
    whole: Partition | None = None
    #: See :class:`DiscStatsLib.permutation.Presence`.
    turn: np.ndarray | None = None


def blocks_of(cell: Cell, matrix: np.ndarray, weights: np.ndarray, data: AnalysisData, ranks: bool) -> Iterator[Block]:
    """Yield the voxels of a cell whose design has full rank, split by the contrast."""
    if cell.blocks is not None:
        columns = within_columns(matrix if matrix.ndim == 2 else matrix[0], weights, cell.blocks)
        matrix, weights = matrix[..., columns], weights[:, columns]
    if cell.present is None:
        if cell.blocks is not None:
            matrix = design_within(matrix, cell.blocks)
        usable = np.broadcast_to(full_rank(matrix) & _has_freedom(cell, matrix), len(cell.voxels))
        cell, matrix = cell.part(usable), matrix if matrix.ndim == 2 else matrix[usable]
        if usable.any():
            part = partition(matrix, weights)
            yield Block(cell, replace(part, df=part.df - cell.absorbed), _values(cell, data, ranks))
        return
    size = max(DESIGN_BLOCK // (matrix.shape[-2] * matrix.shape[-1]), 1)
    for start in range(0, len(cell.voxels), size):
        block = slice(start, start + size)
        yield from _partial_blocks(cell.part(block), matrix if matrix.ndim == 2 else matrix[block], weights, data,
                                   ranks)


def _partial_blocks(cell: Cell, matrix, weights, data: AnalysisData, ranks: bool) -> Iterator[Block]:
    """Yield voxels whose design is a well-conditioned part of the common one, then those that need QR of their own."""
    if cell.blocks is not None:
        matrix = design_within(matrix, cell.blocks, cell.present)
    elif matrix.ndim == 2:
        whole = partition(matrix, weights)
        k, df = whole.qz.shape[1], cell.n - matrix.shape[1]
        basis = np.hstack([whole.qz, whole.qx])
        factor, firm = restricted_factors(basis, cell.present)
        matrix = np.where(cell.present[:, :, None], matrix, 0.0)
        if df > 0 and firm.any():
            own, turn = cell.part(firm), np.swapaxes(np.linalg.inv(factor[firm]), 1, 2)
            q = np.where(own.present[:, :, None], basis, 0.0) @ turn
            yield Block(own, Partition(q[..., :k], q[..., k:], whole.scale / factor[firm, -1, -1], df),
                        _values(own, data, ranks), whole, turn)
        cell, matrix = cell.part(~firm), matrix[~firm]
    usable = full_rank(matrix) & _has_freedom(cell, matrix) if len(cell.voxels) else np.zeros(0, bool)
    if usable.any():
        cell = cell.part(usable)
        yield Block(cell, replace(partition(matrix[usable], weights), df=cell.n - cell.absorbed - matrix.shape[-1]),
                    _values(cell, data, ranks))


def _has_freedom(cell: Cell, matrix: np.ndarray) -> bool:
    return len(cell.voxels) > 0 and cell.n - cell.absorbed > matrix.shape[-1]


def _values(cell: Cell, data: AnalysisData, ranks: bool) -> np.ndarray:
    y = data.values[cell.quantity][np.ix_(cell.rows, cell.voxels)]
    if cell.present is None:
        y = rankdata(y, axis=0) if ranks else y
    else:
        y = np.where(cell.present.T, rankdata(np.where(cell.present.T, y, np.nan), axis=0, nan_policy="omit") if ranks
                     else y, 0.0)
    return y if cell.blocks is None else less_block_means(y, cell.blocks, None if cell.present is None
                                                          else cell.present.T)


@dataclass
class ContrastFit:
    """A contrast fitted in all cells: maps over (quantity, voxel) flattened, strata, and what could not be fitted."""

    contrast: Contrast
    columns: dict[str, np.ndarray]
    strata: list[Stratum] = field(default_factory=list)
    flip: bool = False
    perfect: int = 0
    constant: int = 0
    degenerate: int = 0
    spread: Spread | None = None

    @property
    def dfs(self) -> list[int]:
        """Distinct residual degrees of freedom."""
        return sorted({s.df for s in self.strata})


MAP_KEYS = ("effect", "se", "stat", "r", "size", "ci_low", "ci_high", "p", "compared")


def fit_contrast(contrast: Contrast, cells: list[Cell], designs: dict[int, Design], data: AnalysisData,
                 settings: AnalysisSettings, blocks=None, groups=None) -> ContrastFit:
    """Fit one contrast in every cell and prepare its strata for permutation or sign flipping.

    Signs are flipped if `settings.errors` says so, or if the reduced model of some voxel lacks the constant: one scheme
    rearranges all cells, so that the strata are built when all have been seen.
    """
    total = len(data.values) * data.n_voxels
    result = ContrastFit(contrast, {key: np.full(total, np.nan) for key in (*MAP_KEYS, "df")})
    first = {q: i * data.n_voxels for i, q in enumerate(data.values)}
    spread = SpreadTest(contrast, designs, data, blocks, groups)
    makers = []
    for cell in cells:
        matrix = cell_matrix(cell, designs[cell.level], data, settings.ranks)
        done, own = 0, None if groups is None else groups[cell.rows]
        for block in blocks_of(cell, matrix, contrast.weights, data, settings.ranks):
            done += len(block.cell.voxels)
            if cell.blocks is None:  # within blocks the residuals of a block are not independent
                spread.add(block.cell, block.part, block.y)
            makers += _fit_block(result, block, first[cell.quantity], settings.standard_errors == "hc3", own)
        result.degenerate += len(cell.voxels) - done
    if not makers:
        raise DesignError(f"No voxel can be tested by contrast '{contrast.name}': the maps are constant, fitted "
                          f"perfectly, or the design is collinear there ({result.constant}, {result.perfect} and "
                          f"{result.degenerate} voxels).", anchor="perfect-fit")
    result.spread = spread.result()
    # Members of a variance group change places with each other alone, which tests nothing between the groups.
    apart = groups is not None and (blocks is not None or not hold_groups(contrast, designs, groups))
    depends = apart or (result.spread is not None and result.spread.p <= DEPENDS)
    result.flip = settings.errors == "symmetric" or (settings.errors == "auto" and depends) \
        or not all(constant for constant, *_ in makers)
    weights = {} if groups is None else {cell.group: spread.weights(cell.group) for cell in cells}
    result.strata = [make(flip=result.flip, **({} if groups is None else {"weights": weights[cell.group][cell.rows]}))
                     for _, make, cell in makers]
    return result


def _fit_block(result: ContrastFit, block: Block, first: int, robust: bool, groups) -> list:
    """Fill the maps of a block; return [(whether its reduced model has the constant, maker of its stratum, cell)]."""
    cell, part, kind = block.cell, block.part, result.contrast.kind
    fitted = fit(part, block.y, kind, robust=robust, variance_groups=groups)
    where = first + cell.voxels
    for key in MAP_KEYS:
        result.columns[key][where] = getattr(fitted, key)
    good = np.isfinite(fitted.stat)
    result.columns["df"][where[good]] = fitted.df
    result.perfect += int(fitted.perfect.sum())
    result.constant += int(fitted.constant.sum())
    if not good.any():
        return []
    if part.voxelwise and not good.all():
        part = Partition(part.qz[good], part.qx[good], part.scale[good], part.df)
    y, present = block.y[:, good], None if cell.present is None else cell.present[good]
    own = {"kind": kind, "columns": where[good], "rows": cell.rows, "group": cell.group}
    constant = cell.blocks is not None or has_constant(part.qz, present)
    if block.turn is None or robust or groups is not None:
        return [(constant, partial(make_stratum, part, y, robust=robust, variance_groups=groups, present=present,
                                   **own), cell)]
    return [(constant, partial(make_partial_stratum, block.whole, unit_residuals(part, y),
                               presence=Presence(present, block.turn[good]), df=part.df, **own), cell)]
