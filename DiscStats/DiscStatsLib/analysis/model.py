"""Designs of the levels, groups of voxels that share observations, and the fit of one contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError

from ..design import Contrast, Design, Formula, build_design, is_level_wise, require_columns
from ..permutation import Partition, Stratum, fit, has_constant, level_name, make_stratum, partition
from .data import AnalysisData


@dataclass(frozen=True)
class Cell:
    """Voxels of one quantity and level with the same observations.

    Attributes
    ----------
    quantity : str
    level : int
        Label value.
    group : int
        Number of (quantity, level).
    voxels : ndarray
        Voxel indices in the mask.
    rows : ndarray
        Observations that have a value and all covariates.
    """

    quantity: str
    level: int
    group: int
    voxels: np.ndarray
    rows: np.ndarray


def level_designs(formula: Formula, participants, data: AnalysisData, *, ranks: bool,
                  missing: str) -> dict[int, Design]:
    """Return the design of each level; one and the same where no term is level-wise."""
    names = tuple(n for n in formula.names if n not in data.covariates)
    formula, extra = without_terms(formula, tuple(data.covariates)), len(data.covariates)
    if not any(is_level_wise(n, participants.columns) for n in names):
        require_columns(formula, participants.columns)
        design = build_design(formula, participants, ranks=ranks, missing=missing, extra_columns=extra)
        return dict.fromkeys(data.level_values, design)
    return {value: build_design(formula, participants, level=level_name(value), ranks=ranks, missing=missing,
                                extra_columns=extra) for value in data.level_values}


def without_terms(formula: Formula, covariates: tuple[str, ...]) -> Formula:
    """Take voxel-wise covariates, which must be plain summands, out of the formula."""
    if not covariates:
        return formula
    terms = [t.strip() for t in formula.terms.split("+")]
    kept = [t for t in terms if t not in covariates] or ["1"]
    result = Formula(formula.response, " + ".join(kept), tuple(n for n in formula.names if n not in covariates))
    mixed = [c for c in covariates if c in formula.names and c not in terms]
    if mixed:
        raise DesignError(f"The voxel-wise covariate '{mixed[0]}' can only be added ('+ {mixed[0]}'), not combined.")
    return result


def make_cells(data: AnalysisData, designs: dict[int, Design], *, missing: str, min_count: int | None,
               whole_blocks=None) -> tuple[list[Cell], list[str]]:
    """Group the voxels by the observations they have, by the stated policy for missing values.

    Blocks that change places as a whole (`whole_blocks`) are left out, voxel by voxel, where one of their observations
    is missing; flipped signs do not need that.

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
            if missing == "complete":
                kept = valid[design.rows].all(axis=0)
                if not kept.any():
                    raise DesignError(_no_complete_voxel(valid, design, data, quantity, level), anchor="missing-values")
                cells.append(Cell(quantity, level, group, voxels[kept], design.rows))
                lost = int((~kept & valid.any(axis=0)).sum())
                if lost:
                    remarks.append(f"{lost} of {len(voxels)} voxels of '{quantity}' at {level_name(level)} lack a "
                                   "value in at least one person and were left out (policy: complete).")
                continue
            if whole_blocks is not None:
                valid = _whole_blocks(valid, whole_blocks)
            least = min_count or max(design.rank + len(data.covariates) + 2, (data.n + 1) // 2)
            found, few = _patterns(valid, voxels, least)
            cells += [Cell(quantity, level, group, v, rows) for v, rows in found]
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


def _patterns(valid: np.ndarray, voxels: np.ndarray, least: int):
    """Return [(voxels, rows)] for each pattern of presence with at least `least` rows, and the voxels left out."""
    enough = valid.sum(axis=0) >= least
    packed = np.packbits(valid[:, enough], axis=0).T
    if not len(packed):
        return [], int((~enough).sum())
    unique, member = np.unique(packed, axis=0, return_inverse=True)
    member = member.ravel()
    order = np.argsort(member, kind="stable")
    bounds = np.searchsorted(member[order], np.arange(len(unique) + 1))
    where = np.flatnonzero(enough)[order]
    found = []
    for u in range(len(unique)):
        index = where[bounds[u]: bounds[u + 1]]
        found.append((voxels[index], np.flatnonzero(valid[:, index[0]])))
    return found, int((~enough).sum())


def _whole_blocks(valid: np.ndarray, blocks) -> np.ndarray:
    """Drop, voxel by voxel, the blocks of which an observation is missing."""
    valid = valid.copy()
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        valid[members] &= valid[members].all(axis=0)
    return valid


def cell_matrix(cell: Cell, design: Design, data: AnalysisData, ranks: bool) -> np.ndarray:
    """Return the design of a cell, (m, p), or (v, m, p) with voxel-wise covariates."""
    place = np.searchsorted(design.rows, cell.rows)
    matrix = design.matrix[place]
    if ranks and len(place) < design.n:
        matrix = np.column_stack([rankdata(c) if len(np.unique(c)) > 2 else c for c in matrix.T])
    if not data.covariates:
        return matrix
    extra = [c[np.ix_(cell.rows, cell.voxels)] for c in data.covariates.values()]
    if ranks:
        extra = [rankdata(e, axis=0) for e in extra]
    stacked = np.stack([e.T for e in extra], axis=2)
    return np.concatenate([np.broadcast_to(matrix, (len(cell.voxels), *matrix.shape)), stacked], axis=2)


@dataclass
class ContrastFit:
    """A contrast fitted in all cells: maps over (quantity, voxel) flattened, strata, and what could not be fitted."""

    contrast: Contrast
    columns: dict[str, np.ndarray]
    strata: list[Stratum]
    flip: bool
    perfect: int
    constant: int
    degenerate: int

    @property
    def dfs(self) -> list[int]:
        """Distinct residual degrees of freedom."""
        return sorted({s.df for s in self.strata})


MAP_KEYS = ("effect", "se", "stat", "r", "size", "ci_low", "ci_high", "p")


def fit_contrast(contrast: Contrast, cells: list[Cell], designs: dict[int, Design], data: AnalysisData,
                 ranks: bool, robust: bool = False, flip: bool = False) -> ContrastFit:
    """Fit one contrast in every cell and prepare its strata for permutation, or for sign flipping with `flip`."""
    total = len(data.values) * data.n_voxels
    columns = {key: np.full(total, np.nan) for key in (*MAP_KEYS, "df")}
    result = ContrastFit(contrast, columns, [], flip, 0, 0, 0)
    first = {q: i * data.n_voxels for i, q in enumerate(data.values)}
    ready = []
    for cell in cells:
        matrix = cell_matrix(cell, designs[cell.level], data, ranks)
        usable = _full_rank(matrix)
        if matrix.ndim == 2 and not usable:
            result.degenerate += len(cell.voxels)
            continue
        voxels = cell.voxels
        if matrix.ndim == 3:
            result.degenerate += int((~usable).sum())
            matrix, voxels = matrix[usable], voxels[usable]
            if not len(voxels):
                continue
        part = partition(matrix, contrast.weights)
        y = data.values[cell.quantity][np.ix_(cell.rows, voxels)]
        if ranks:
            y = rankdata(y, axis=0)
        fitted = fit(part, y, contrast.kind, robust=robust)
        where = first[cell.quantity] + voxels
        for key in MAP_KEYS:
            columns[key][where] = getattr(fitted, key)
        good = np.isfinite(fitted.stat)
        columns["df"][where[good]] = fitted.df
        result.perfect += int(fitted.perfect.sum())
        result.constant += int(fitted.constant.sum())
        if not good.any():
            continue
        if part.voxelwise:
            part = Partition(part.qz[good], part.qx[good], part.scale[good], part.df)
        ready.append((part, y[:, good], where[good], cell))
    # One scheme rearranges all cells: where one of them needs signs flipped, the strata of all are made for that.
    result.flip |= not all(has_constant(part.qz) for part, *_ in ready)
    result.strata = [make_stratum(part, y, contrast.kind, columns=where, rows=cell.rows, group=cell.group,
                                  flip=result.flip, robust=robust) for part, y, where, cell in ready]
    if not result.strata:
        raise DesignError(f"No voxel can be tested by contrast '{contrast.name}': the maps are constant, fitted "
                          f"perfectly, or the design is collinear there ({result.constant}, {result.perfect} and "
                          f"{result.degenerate} voxels).", anchor="perfect-fit")
    return result


def _full_rank(matrix: np.ndarray):
    length = np.linalg.norm(matrix, axis=-2, keepdims=True)
    singular = np.linalg.svd(matrix / np.where(length > 0, length, 1), compute_uv=False)
    return (singular[..., -1] > 1e-10 * singular[..., 0]) & (matrix.shape[-2] > matrix.shape[-1])
