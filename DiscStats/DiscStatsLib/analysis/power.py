"""Power of a design at hand: its own residuals and people, with an effect put in, analyzed as the study will be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.progress import ProgressCallback, silent
from DiscRelaxometryLib.tables import Column, Table

from ..design import ID
from ..permutation import full_residuals, leverage
from ..settings import AnalysisSettings
from .analyze import AnalysisResult, analyze
from .model import blocks_of, make_cells

_COLUMNS = [Column("people", "1", "Size of the simulated study"), Column("effect", "", "Per unit of the contrast"),
            Column("power", "1", "Share of sets with p (max-T) <= alpha in the place"),
            Column("low", "1", "Lower 95 % limit (Clopper-Pearson)"), Column("high", "1", "Upper 95 % limit"),
            Column("power_tfce", "1", "The same by TFCE"), Column("found", "1", "Mean share of the place found, max-T"),
            Column("outside", "1", "Share of sets with p (max-T) <= alpha outside the place"), Column("sets", "1")]


@dataclass(frozen=True)
class Planted:
    """An effect in some voxels.

    Attributes
    ----------
    effect : float
        Change of the map for one unit of the contrast.
    place : Image
        Above 0 where it is.
    """

    effect: float
    place: Image


def design_power(maps, atlas_labels: Image, participants, formula: str, contrast: str, planted: Planted, *,
                 settings: AnalysisSettings | None = None, sizes: Sequence[float] = (), sets: int = 100,
                 alpha: float = 0.05, progressCallback: ProgressCallback | None = None) -> Table:
    """Return how often the analysis finds an effect, for studies of some sizes.

    Each set draws people with their rows of the table, and residual maps of the full model by themselves (whole maps,
    so that noise keeps its correlation in space; divided by the root of 1 - leverage), adds the effect, and is
    analyzed. People are drawn with replacement where a size is not that of the study.

    Parameters
    ----------
    maps, atlas_labels, participants, formula, contrast
        As in :func:`analyze`: one quantity, one observation per participant, a t contrast.
    planted : Planted
    settings : AnalysisSettings, optional
        Fewer permutations than in the analysis do: 199 cost little power.
    sizes : sequence of float
        Default: that of the study.
    sets : int
    alpha : float

    Raises
    ------
    DesignError
        Several quantities, an F contrast, a place without voxels, or fewer than ten people.
    """
    settings = replace(settings or AnalysisSettings(n_permutations=199), correction=("fwe", "tfce"))
    first = analyze(maps, atlas_labels, participants, formula, contrast, replace(settings, correction=()))
    if len(first.data.values) != 1 or first.contrasts[0].kind != "t":
        raise DesignError("The power of one map and one t contrast is simulated at a time: choose one of each.")
    place = planted.place.array[first.data.inside] > 0
    if not place.any():
        raise DesignError("The effect's place has no voxel of the analysis: choose another region or level.")
    if first.data.n < 10:
        raise DesignError(f"{first.data.n} people tell too little of the noise for a simulation: at least 10 are "
                          "needed.")
    sizes = tuple(sizes) or (first.data.n,)
    if any(size % 1 or size < 10 for size in sizes):
        raise DesignError(f"Sizes of study are whole numbers of at least 10; {', '.join(f'{s:g}' for s in sizes)} were "
                          "given.")
    noise, added = _residuals(first, settings), planted.effect * _unit_effect(first)
    table = participants.reset_index(drop=True).set_index(ID, drop=False).rename_axis(None).loc[first.data.ids]
    rows, report = [], progressCallback or silent
    for number, size in enumerate(map(int, sizes)):
        found = []
        for k in range(sets):
            report((number + k / sets) / len(sizes), f"{size} people, set {k + 1} of {sets}")
            found.append(_one_set(first, table, noise, added, place, replace(settings, seed=k + 1), size, alpha))
        rows.append({"people": size, "effect": planted.effect, "sets": sets} | _summary(np.array(found)))
    return Table("power", list(_COLUMNS), rows)


def _residuals(result: AnalysisResult, settings: AnalysisSettings) -> np.ndarray:
    """Return the residuals of the full model at equal spread, shape (n, v); NaN where there are none."""
    data = result.data
    noise = np.full((data.n, data.n_voxels), np.nan)
    for cell in make_cells(data, result.designs, settings)[0]:
        for block in blocks_of(cell, result.designs[cell.level], result.contrasts[0].weights, data, settings.ranks):
            rest, share = full_residuals(block.partition, block.y), 1 - leverage(block.partition)
            rest = rest / np.sqrt(np.maximum(share if share.ndim == 1 else share.T, 1e-10)).reshape(len(rest), -1)
            own = np.where(True if block.cell.present is None else block.cell.present.T, rest, np.nan)
            noise[np.ix_(block.cell.rows, block.cell.voxels)] = own
    return noise


def _unit_effect(result: AnalysisResult) -> np.ndarray:
    """Return what one unit of the contrast adds to each person at each voxel, shape (n, v)."""
    data, weights = result.data, result.contrasts[0].weights[0]
    added = np.zeros((data.n, data.n_voxels))
    for level, design in result.designs.items():
        along = design.matrix @ (weights / (weights @ weights))
        added[np.ix_(design.rows, np.flatnonzero(data.levels == level))] = along[:, None]
    return added


def _one_set(first: AnalysisResult, table, noise, added, place, settings, size: int, alpha: float) -> tuple:
    """Return (found by max-T, found by TFCE, share of the place found, found outside)."""
    data, rng = first.data, np.random.default_rng([7, settings.seed, size])
    same = size == data.n
    people = np.arange(size) if same else rng.integers(data.n, size=size)
    order = rng.permutation(size) if same else rng.integers(data.n, size=size)
    y = noise[order] + np.where(place, added[people], 0.0)
    drawn = table.iloc[people].copy()
    drawn[ID] = [f"p{i}" for i in range(size)]
    array = np.zeros(data.inside.shape, np.int32)
    array[data.inside] = data.levels
    result = analyze(y, Image(array, data.geometry), drawn, f"map ~ {first.design.formula.terms}",
                     {"tested": first.contrasts[0].weights}, settings)
    hit, tfce = (np.nan_to_num(result.maps[f"map_tested_{k}"].array[data.inside], nan=1.0) <= alpha + 1e-6
                 for k in ("pfwe", "ptfce"))
    return hit[place].any(), tfce[place].any(), hit[place].mean(), hit[~place].any()


def _summary(found: np.ndarray) -> dict:
    from scipy.stats import binomtest

    limits = binomtest(int(found[:, 0].sum()), len(found)).proportion_ci()
    return {"power": float(found[:, 0].mean()), "low": limits.low, "high": limits.high,
            "power_tfce": float(found[:, 1].mean()), "found": float(found[:, 2].mean()),
            "outside": float(found[:, 3].mean())}


def place_of(atlas_labels: Image, regions: Image, levels: Sequence[str], region: int | None) -> Image:
    """Return the image of a place: some levels, or one region of them."""
    from DiscRelaxometryLib.labels import disc_value

    inside = np.isin(atlas_labels.array, [disc_value(v) for v in levels])
    if region is not None:
        inside &= regions.array == region
    return atlas_labels.like(inside.astype(np.uint8))
