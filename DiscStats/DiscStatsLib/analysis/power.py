"""Power of a design at hand: its own residuals and people, with an effect put in, analyzed as the study will be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.progress import ProgressCallback, silent
from DiscRelaxometryLib.tables import Column, Table

from ..design import ID, PLACES
from ..permutation import full_residuals, less_block_means, leverage
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
    """An effect in some voxels."""

    #: Change of the map for one unit of the contrast.
    effect: float
    #: Above 0 where it is.
    place: Image


def design_power(maps, atlas_labels: Image, participants, formula: str, contrast: str, planted: Planted, *,
                 settings: AnalysisSettings | None = None, blocks: str = "", sizes: Sequence[float] = (),
                 sets: int = 100, alpha: float = 0.05, progressCallback: ProgressCallback | None = None) -> Table:
    """Return how often the analysis finds an effect, for studies of some sizes.

    Each set draws people with their rows of the table, and residual maps of the full model by themselves (whole maps,
    so that noise keeps its correlation in space; divided by the root of 1 - leverage), adds the effect, and is
    analyzed. People are drawn with replacement where a size is not that of the study. Of a participant with several
    discs or visits (`blocks`) all residual maps go together, each to its own level or visit, to a participant who has
    no others: the correlation within participants stays.

    Parameters
    ----------
    maps, atlas_labels, participants, formula, contrast
        As in :func:`analyze`: one quantity, a t contrast.
    planted : Planted
    settings : AnalysisSettings, optional
        Fewer permutations than in the analysis do: 199 cost little power.
    blocks : str
        Column of the participant, where the table has several rows of one.
    sizes : sequence of float
        Participants; default: those of the study.
    sets : int
    alpha : float

    Raises
    ------
    DesignError
        Several quantities, an F contrast, a place without voxels, or fewer than ten people.
    """
    settings = replace(settings or AnalysisSettings(n_permutations=199), correction=("fwe", "tfce"))
    first = analyze(maps, atlas_labels, participants, formula, contrast, replace(settings, correction=()),
                    blocks=blocks or None)
    if len(first.data.values) != 1 or first.contrasts[0].kind != "t":
        raise DesignError("The power of one map and one t contrast is simulated at a time: choose one of each.")
    place = planted.place.array[first.data.inside] > 0
    if not place.any():
        raise DesignError("The effect's place has no voxel of the analysis: choose another region or level.")
    units = _units(first.participants, blocks)
    if len(units) < 10:
        raise DesignError(f"{len(units)} people tell too little of the noise for a simulation: at least 10 are needed.")
    sizes = tuple(sizes) or (len(units),)
    if any(size % 1 or size < 10 for size in sizes):
        raise DesignError(f"Sizes of study are whole numbers of at least 10; {', '.join(f'{s:g}' for s in sizes)} were "
                          "given.")
    noise, added = _residuals(first, settings, blocks), planted.effect * _unit_effect(first)
    rows, report = [], progressCallback or silent
    for number, size in enumerate(map(int, sizes)):
        found = []
        for k in range(sets):
            report((number + k / sets) / len(sizes), f"{size} people, set {k + 1} of {sets}")
            rng = np.random.default_rng([7, k + 1, size])
            people, donors = _drawn(units, size, rng)
            found.append(_one_set(first, noise[donors] + np.where(place, added[np.concatenate(people)], 0.0), people,
                                  blocks, replace(settings, seed=k + 1), place, alpha))
        rows.append({"people": size, "effect": planted.effect, "sets": sets} | _summary(np.array(found)))
    return Table("power", list(_COLUMNS), rows, notes=list(first.warnings))


def _residuals(result: AnalysisResult, settings: AnalysisSettings, blocks: str) -> np.ndarray:
    """Return residuals at equal spread, shape (n, v); NaN where there are none.

    They are those of the full model. Where it is tested within participants, only their means are; the rest is of the
    fit within them, whose effects are others if somebody lacks a disc or a visit.
    """
    noise = _of_model(result, settings, None)
    if not result.provenance["contrasts"][0]["block_means_removed"]:
        return noise
    owner = np.unique(result.participants[blocks].astype(str), return_inverse=True)[1]
    present = np.isfinite(noise)
    filled = np.where(present, noise, 0.0)
    return filled - less_block_means(filled, owner, present) + _of_model(result, settings, owner)


def _of_model(result: AnalysisResult, settings: AnalysisSettings, within: np.ndarray | None) -> np.ndarray:
    """Return the residuals of the full model over the root of what its fit leaves, or those within blocks."""
    data = result.data
    noise = np.full((data.n, data.n_voxels), np.nan)
    for cell in make_cells(data, result.designs, settings, within=within)[0]:
        held = np.ones(len(cell.rows)) if within is None else 1 - 1 / np.bincount(within[cell.rows])[within[cell.rows]]
        for block in blocks_of(cell, result.designs[cell.level], result.contrasts[0].weights, data, settings.ranks):
            lost = leverage(block.partition)
            lost = (lost if lost.ndim == 1 else lost.T).reshape(len(held), -1) / np.maximum(held, 1e-10)[:, None]
            rest = full_residuals(block.partition, block.y) / np.sqrt(np.maximum(1 - lost, 1e-10))
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


def _units(table, blocks: str) -> list[dict[str, int]]:
    """Return each participant's rows by what they are (level, visit); one row each without `blocks`."""
    if not blocks:
        return [{"": row} for row in range(len(table))]
    places = [c for c in PLACES if c in table.columns]
    what = table[places].astype(str).agg("|".join, axis=1).to_numpy()
    owners = table[blocks].astype(str).to_numpy()
    return [{what[row]: int(row) for row in np.flatnonzero(owners == owner)} for owner in dict.fromkeys(owners)]


def _drawn(units: list[dict[str, int]], size: int, rng) -> tuple[list[list[int]], np.ndarray]:
    """Return the rows of each participant of a set, and the row that each of these has its noise from."""
    count = len(units)
    people = np.arange(count) if size == count else rng.integers(count, size=size)
    alike = [[k for k, other in enumerate(units) if other.keys() >= unit.keys()] for unit in units]
    if size == count and all(len(some) == count for some in alike):
        donors = rng.permutation(count)
    else:
        donors = np.array([alike[who][rng.integers(len(alike[who]))] for who in people])
    return ([list(units[who].values()) for who in people],
            np.array([units[donor][what] for who, donor in zip(people, donors) for what in units[who]]))


def _one_set(first: AnalysisResult, y: np.ndarray, people: list[list[int]], blocks: str, settings: AnalysisSettings,
             place: np.ndarray, alpha: float) -> tuple:
    """Return (found by max-T, found by TFCE, share of the place found, found outside)."""
    data, drawn = first.data, first.participants.iloc[np.concatenate(people)].copy()
    quantity, = data.values
    owner = [f"p{i}" for i, rows in enumerate(people) for _ in rows]
    drawn[ID] = [f"{who}_{i}" for i, who in enumerate(owner)] if blocks else owner
    drawn[blocks or ID] = owner
    array = np.zeros(data.inside.shape, np.int32)
    array[data.inside] = data.levels
    result = analyze(y, Image(array, data.geometry), drawn, f"{quantity} ~ {first.design.formula.terms}",
                     {"tested": first.contrasts[0].weights}, settings, blocks=blocks or None)
    hit, tfce = (np.nan_to_num(result.maps[f"{quantity}_tested_{k}"].array[data.inside], nan=1.0) <= alpha + 1e-6
                 for k in ("pfwe", "ptfce"))
    return hit[place].any(), tfce[place].any(), hit[place].mean(), hit[~place].any()


def _summary(found: np.ndarray) -> dict:
    from scipy.stats import binomtest

    limits = binomtest(int(found[:, 0].sum()), len(found)).proportion_ci()
    return {"power": float(found[:, 0].mean()), "low": limits.low, "high": limits.high,
            "power_tfce": float(found[:, 1].mean()), "found": float(found[:, 2].mean()),
            "outside": float(found[:, 3].mean())}


def place_of(atlas_labels: Image, regions: Image, levels: Sequence[str], region: int | None) -> Image:
    """Return the image of a place: some levels, or all that is labelled, or one region of these."""
    from DiscRelaxometryLib.labels import disc_value

    inside = np.isin(atlas_labels.array, [disc_value(v) for v in levels]) if levels else atlas_labels.array > 0
    if region is not None:
        inside &= regions.array == region
    return atlas_labels.like(inside.astype(np.uint8))
