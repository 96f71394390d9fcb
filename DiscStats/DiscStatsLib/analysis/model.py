"""Designs of the levels, groups of voxels that share observations, and the fit of one contrast."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError

from ..design import Contrast, Design
from ..permutation import (
    DESIGN_BLOCK,
    Partition,
    Source,
    Stratum,
    complete_blocks,
    design_within,
    fit,
    freedom,
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
from .data import NUMBERS, AnalysisData, voxel_blocks
from .spread import DEPENDS, Spread, SpreadTest, hold_groups

#: Fits with fewer numbers than this are kept for the permutations, others made anew (256 MB).
KEPT = 2 ** 25


@dataclass(frozen=True)
class Cell:
    """Voxels of one quantity and level that everyone has, or that some lack."""

    quantity: str
    #: Label value.
    level: int
    #: Number of (quantity, level).
    group: int
    #: Voxel indices in the mask.
    voxels: np.ndarray
    #: Observations of the design.
    rows: np.ndarray
    #: Which of the rows have a value and all covariates, shape (v, bytes), eight rows in a byte; None where all have.
    packed: np.ndarray | None = None
    #: Shape (m,). Blocks whose means are taken out: the test is within them.
    blocks: np.ndarray | None = None

    @cached_property
    def present(self) -> np.ndarray | None:
        """Which of the rows have a value and all covariates, bool, shape (v, m); None where all have."""
        return None if self.packed is None else np.unpackbits(self.packed, axis=1, count=len(self.rows)).view(bool)

    @property
    def n(self) -> int | np.ndarray:
        """Number of observations at each voxel."""
        return len(self.rows) if self.packed is None else np.bitwise_count(self.packed).sum(axis=1)

    def freedom(self, parameters: int) -> Any:
        """Return the residual degrees of freedom at each voxel."""
        return freedom(len(self.rows), parameters, self.present, self.blocks)

    def part(self, block) -> Cell:
        """Return some of the voxels."""
        return replace(self, voxels=self.voxels[block], packed=None if self.packed is None else self.packed[block])


def make_cells(data: AnalysisData, designs: dict[int, Design], settings: AnalysisSettings, *, whole=None,
               within=None) -> tuple[list[Cell], list[str]]:
    """Group the voxels by whether everyone has them, by the stated policy for missing values; also return warnings.

    Blocks that change places as a whole (`whole`) are left out, voxel by voxel, where one of their observations is
    missing; flipped signs do not need that. The means of blocks that a test is `within` are taken out.
    """
    cells, remarks = [], []
    complete = settings.missing == "complete"
    for q, quantity in enumerate(data.values):
        for g, level in enumerate(data.level_values):
            voxels, design = data.voxels_of(level), designs[level]
            packed, counts, people = _presence(data, quantity, voxels, design.rows, None if complete else whole)
            make = partial(Cell, quantity, level, q * len(data.level_values) + g, rows=design.rows,
                           blocks=None if within is None else within[design.rows])
            everyone = counts == len(design.rows)
            if complete:
                if not everyone.any():
                    raise DesignError(_no_complete_voxel(people, design, data, quantity, level),
                                      anchor="missing-values")
                cells.append(make(voxels=voxels[everyone]))
                lost = int((~everyone & (counts > 0)).sum())
                if lost:
                    remarks.append(f"{lost} of {len(voxels)} voxels of '{quantity}' at {level_name(level)} lack a "
                                   "value in at least one person and were left out (policy: complete).")
                continue
            least = settings.min_count or least_count(len(design.rows), design.rank + len(data.covariates))
            enough, few = counts >= least, int((counts < least).sum())
            cells += [make(voxels=voxels[at], packed=bits) for at, bits in (
                (everyone & enough, None), (~everyone & enough, packed[~everyone & enough])) if at.any()]
            if few:
                remarks.append(f"{few} of {len(voxels)} voxels of '{quantity}' at {level_name(level)} have fewer than "
                               f"{least} values and were left out (policy: available).")
    if not cells:
        raise DesignError("No voxel has enough values for the model: lower the minimum count, or check the maps.",
                          anchor="missing-values")
    return cells, remarks


def _presence(data: AnalysisData, quantity: str, voxels, rows, whole) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return who has each voxel, as bits (v, bytes), how many do, and the number of voxels that each person has."""
    packed = np.empty((len(voxels), -(-len(rows) // 8)), np.uint8)
    people = np.zeros(len(rows), int)
    for block in voxel_blocks(data.n, len(voxels)):
        at = voxels[block]
        valid = np.logical_and.reduce([np.isfinite(v.at(rows, at)) for v in
                                       (data.values[quantity], *data.covariates.values())])
        if whole is not None:
            everyone = np.zeros((data.n, len(at)), bool)
            everyone[rows] = valid
            valid = complete_blocks(everyone, whole)[rows]
        packed[block] = np.packbits(valid.T, axis=1)
        people += valid.sum(axis=1)
    return packed, np.bitwise_count(packed).sum(axis=1), people


def _no_complete_voxel(counts, design: Design, data: AnalysisData, quantity: str, level: int) -> str:
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
    extra = [c.at(cell.rows, cell.voxels) for c in data.covariates.values()]
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
    partition: Partition
    #: Shape (m, v). 0 for the absent.
    y: np.ndarray
    #: Of everyone's design, where those of the voxels are parts of it.
    whole: Partition | None = None
    #: See :class:`DiscStatsLib.permutation.Presence`.
    turn: np.ndarray | None = None

    def part(self, good: np.ndarray) -> Block:
        """Return some of the voxels."""
        if good.all():
            return self
        part = self.partition
        if self.cell.packed is not None:
            part = replace(part, df=part.df[good])
        if part.voxelwise:
            part = Partition(part.qz[good], part.qx[good], part.scale[good], part.df)
        return Block(self.cell.part(good), part, self.y[:, good], self.whole,
                     None if self.turn is None else self.turn[good])

    @property
    def constant(self) -> bool:
        """Whether the reduced model has the constant; means that were taken out count."""
        return self.cell.blocks is not None or has_constant(self.partition.qz, self.cell.present)


def blocks_of(cell: Cell, design: Design, weights: np.ndarray, data: AnalysisData, ranks: bool) -> Iterator[Block]:
    """Yield the voxels of a cell whose design has full rank, a few at a time, split by the contrast."""
    m = len(cell.rows)
    own = cell.packed is not None or data.covariates
    size = max(DESIGN_BLOCK // (m * (weights.shape[1] + len(data.covariates))) if own else NUMBERS // m, 1)
    for start in range(0, len(cell.voxels), size):
        part = cell.part(slice(start, start + size))
        matrix = cell_matrix(part, design, data, ranks)
        if cell.blocks is not None:
            columns = within_columns(matrix if matrix.ndim == 2 else matrix[0], weights, cell.blocks)
            matrix, tested = matrix[..., columns], weights[:, columns]
        else:
            tested = weights
        yield from (_complete_blocks if cell.packed is None else _partial_blocks)(part, matrix, tested, data, ranks)


def _complete_blocks(cell: Cell, matrix, weights, data: AnalysisData, ranks: bool) -> Iterator[Block]:
    """Yield voxels that everyone has."""
    if cell.blocks is not None:
        matrix = design_within(matrix, cell.blocks)
    df = cell.freedom(matrix.shape[-1])
    usable = np.broadcast_to(full_rank(matrix) & (df > 0), len(cell.voxels))
    cell, matrix = cell.part(usable), matrix if matrix.ndim == 2 else matrix[usable]
    if usable.any():
        yield Block(cell, replace(partition(matrix, weights), df=df), _values(cell, data, ranks))


def _partial_blocks(cell: Cell, matrix, weights, data: AnalysisData, ranks: bool) -> Iterator[Block]:
    """Yield voxels whose design is a well-conditioned part of the common one, then those that need QR of their own."""
    df = cell.freedom(matrix.shape[-1])
    if cell.blocks is not None:
        matrix = design_within(matrix, cell.blocks, cell.present)
    elif matrix.ndim == 2 and cell.present is not None:
        whole = partition(matrix, weights)
        k = whole.qz.shape[1]
        basis = np.hstack([whole.qz, whole.qx])
        factor, firm = restricted_factors(basis, cell.present)
        matrix = np.where(cell.present[:, :, None], matrix, 0.0)
        firm &= df > 0
        if firm.any():
            own, turn = cell.part(firm), np.swapaxes(np.linalg.inv(factor[firm]), 1, 2)
            q = np.where(cell.present[firm][:, :, None], basis, 0.0) @ turn
            yield Block(own, Partition(q[..., :k], q[..., k:], whole.scale / factor[firm, -1, -1], df[firm]),
                        _values(own, data, ranks), whole, turn)
        cell, matrix, df = cell.part(~firm), matrix[~firm], df[~firm]
    if not len(cell.voxels):
        return
    usable = full_rank(matrix) & (df > 0)
    if usable.any():
        cell = cell.part(usable)
        yield Block(cell, replace(partition(matrix[usable], weights), df=df[usable]), _values(cell, data, ranks))


def _values(cell: Cell, data: AnalysisData, ranks: bool) -> np.ndarray:
    y = data.values[cell.quantity].at(cell.rows, cell.voxels)
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
    strata: list[Source] = field(default_factory=list)
    flip: bool = False
    #: Voxels fitted without residuals, without variation, and where the design is collinear.
    perfect: int = 0
    constant: int = 0
    degenerate: int = 0
    spread: Spread | None = None

    @property
    def dfs(self) -> list[int]:
        """Distinct residual degrees of freedom."""
        found = self.columns["df"]
        return np.unique(found[np.isfinite(found)]).astype(int).tolist()


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
    kept = sum(len(c.voxels) * len(c.rows) for c in cells) <= KEPT
    constant = True
    fitted: list[tuple[Cell, list[Block] | None]] = []
    for cell in cells:
        done, own, good = 0, [], []
        for block in blocks_of(cell, designs[cell.level], contrast.weights, data, settings.ranks):
            done += len(block.cell.voxels)
            if cell.blocks is None:  # within blocks the residuals of a block are not independent
                spread.add(block.cell, block.partition, block.y)
            part = _fit_block(result, block, first[cell.quantity], settings.standard_errors == "hc3",
                              None if groups is None else groups[cell.rows])
            if part is not None:
                constant &= part.constant
                (own if kept else good).append(part if kept else part.cell)
        result.degenerate += len(cell.voxels) - done
        fitted += [(cell, own)] if own else []
        fitted += [(piece, None) for piece in good]
    if not fitted:
        raise DesignError(f"No voxel can be tested by contrast '{contrast.name}': the maps are constant, fitted "
                          f"perfectly, or the design is collinear there ({result.constant}, {result.perfect} and "
                          f"{result.degenerate} voxels).", anchor="perfect-fit")
    result.spread = spread.result()
    # Members of a variance group change places with each other alone, which tests nothing between the groups.
    apart = groups is not None and (blocks is not None or not hold_groups(contrast, designs, groups))
    depends = apart or (result.spread is not None and result.spread.p <= DEPENDS)
    result.flip = settings.errors == "symmetric" or (settings.errors == "auto" and depends) or not constant
    weights = {} if groups is None else {cell.group: spread.weights(cell.group) for cell in cells}
    for cell, ready in fitted:
        unequal: dict = {"robust": settings.standard_errors == "hc3"}
        if groups is not None:
            unequal |= {"variance_groups": groups[cell.rows], "weights": weights[cell.group][cell.rows]}
        stratum = partial(_stratum, contrast.kind, first[cell.quantity], result.flip, unequal)
        if ready is None:
            result.strata.append(partial(_strata, stratum, cell, designs[cell.level], contrast.weights, data,
                                         settings.ranks))
        else:
            result.strata += map(stratum, ready)
    return result


def _fit_block(result: ContrastFit, block: Block, first: int, robust: bool, groups) -> Block | None:
    """Fill the maps of a block; return it without the voxels that have no statistic, or None if none has one."""
    fitted = fit(block.partition, block.y, result.contrast.kind, robust=robust, variance_groups=groups)
    where = first + block.cell.voxels
    for key in MAP_KEYS:
        result.columns[key][where] = getattr(fitted, key)
    good = np.isfinite(fitted.stat)
    result.columns["df"][where] = np.where(good, fitted.df, np.nan)
    result.perfect += int(fitted.perfect.sum())
    result.constant += int(fitted.constant.sum())
    result.degenerate += int((~(good | fitted.perfect | fitted.constant)).sum())
    return block.part(good) if good.any() else None


def _strata(stratum, cell: Cell, design: Design, weights, data: AnalysisData, ranks: bool) -> list[Stratum]:
    """Return the strata of a cell, fitted anew."""
    return [stratum(block) for block in blocks_of(cell, design, weights, data, ranks)]


def _stratum(kind: str, first: int, flip: bool, unequal: dict[str, Any], block: Block) -> Stratum:
    """Return the stratum of a block; `unequal` are the options of :func:`make_stratum` about variances."""
    cell = block.cell
    own: dict[str, Any] = {"columns": first + cell.voxels, "rows": cell.rows, "group": cell.group}
    if block.turn is None or block.whole is None or cell.present is None or unequal["robust"] or len(unequal) > 1:
        return make_stratum(block.partition, block.y, kind, present=cell.present, flip=flip, **own, **unequal)
    return make_partial_stratum(block.whole, unit_residuals(block.partition, block.y), kind,
                                cell.present, block.turn, df=block.partition.df, flip=flip, **own)
