"""Observations of an analysis: maps and table rows of people, of their discs in one disc, or of their visits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.quantities import QUANTITIES

from ..folder import OWNER, SESSION, YEARS, first_and_last, long_frame
from .context import GroupContext
from .results import context_atlas, maps_in_atlas, participants_of
from .rows import filled_rows
from .voxels import map_values, of_people, source, with_value

if TYPE_CHECKING:
    from DiscStatsLib.analysis import Values


def observations(context: GroupContext, family, people: list[str]) -> dict:
    """Return maps, table, atlas and blocks of an analysis, as :func:`DiscStatsLib.analysis.analyze` takes them.

    Parameters
    ----------
    context : GroupContext
        Its settings say what an observation is; its notes name what has none.
    family : sequence of str
        Maps that are analyzed together.
    people : list of str
    """
    files = maps_in_atlas(context)
    return (_pooled if context.settings.pooled else _by_level)(context, family, files, people)


def pooled_disc_of(context: GroupContext):
    """Return the disc of a pooled analysis; None of one by level."""
    from DiscAtlasLib import load_pooled

    found = context.output_of("pooled-disc", "pooled-disc/atlas.json") if context.settings.pooled else None
    return found and load_pooled(found.parent)


def _by_level(context: GroupContext, family, files, people: list[str]) -> dict:
    """Return the data of an analysis by level: one row per person."""
    from DiscStatsLib.design import rows_of, to_frame

    atlas = context_atlas(context)
    levels = [v for v in context.settings.levels if v in atlas.levels]
    maps = {key: map_values(context, key, files[key], people, levels) for key in family}
    maps, people = _who_has_a_disc(context, maps, people, levels)
    table = rows_of(to_frame(participants_of(context)), people)
    data = {"atlas_labels": atlas.labels, "regions": atlas.regions, "levels": levels}
    if context.settings.change:
        pairs, table = changes(context, table)
        number = {p: n for n, p in enumerate(people)}
        rows = [number[visit] for pair in pairs for visit in pair.visits]
        return data | {"participants": table, "maps": {
            key: _change_values(context, key, files[key], values.of(rows=rows), pairs) for key, values in maps.items()}}
    blocks = {"blocks": context.study.block} if context.study.visits else {}
    return data | blocks | {"maps": maps, "participants": table}


def _who_has_a_disc(context: GroupContext, maps: dict, people: list[str], levels: list[str]) -> tuple[dict, list[str]]:
    """Return maps and people that show a disc of the levels; the notes name the others."""
    there = with_value(maps.values(), len(people))
    lost = [p for p, has in zip(people, there) if not has]
    if lost:
        context.notes.append(f"{', '.join(lost)}: no disc of {', '.join(levels)} in the maps; left out.")
    return {key: v.of(rows=there) for key, v in maps.items()}, [p for p, has in zip(people, there) if has]


def _pooled(context: GroupContext, family, files, people: list[str]) -> dict:
    """Return the data of a pooled analysis: one row per disc."""
    disc = pooled_disc_of(context)
    maps, table = _pooled_observations(context, family, files, people, disc)
    labels = disc.atlas.labels
    return {"maps": maps, "participants": table, "blocks": context.study.block, "regions": disc.atlas.regions,
            "atlas_labels": labels.like((labels.array > 0).astype(np.uint8))}


def _pooled_observations(context: GroupContext, family, files, people, disc) -> tuple[dict[str, Values], object]:
    """Return maps by quantity, shape (discs, voxels of the pooled disc), and the table of the discs.

    A disc of which a person has no value is no observation; the context's notes name them.
    """
    settings, mask = context.settings, disc.atlas.labels.array > 0
    own = (context.study.block, SESSION) if context.study.visits else ()
    table = long_frame([{"participant_id": p, "level": level} for p in people for level in disc.levels],
                       participants_of(context), tuple(dict.fromkeys((*settings.columns, *own))))
    levels, basis = list(disc.levels), context.records["pooled-disc"].key
    number = {place: n for n, place in enumerate((p, level) for p in people for level in levels)}
    rows = np.array([number[place] for place in zip(table["participant_id"], table["level"])])
    maps = {}
    for key in family:
        def read(person: str, files=files[key]) -> tuple[np.ndarray, list[str]]:
            image = read_image(files[person])
            return np.concatenate([disc.pool(image, level).array[mask] for level in levels]), image.notes

        sources = {p: source(context, p, files[key][p]) for p in people}
        maps[key] = of_people(context, f"{key}-pooled", basis, mask, sources, read, len(levels)).of(rows=rows)
    there = with_value(maps.values(), len(table))
    for level in disc.levels:
        lost = table["participant_id"][~there & (table["level"] == level).to_numpy()]
        if len(lost):
            context.notes.append(f"{level} of {', '.join(lost)} has no value in the maps and is no observation.")
    return {key: values.of(rows=there) for key, values in maps.items()}, table[there].reset_index(drop=True)


@dataclass(frozen=True)
class Pair:
    """First and last visit of a participant, and what their difference is divided by."""

    owner: str
    visits: tuple[str, str]
    scale: float


def changes(context: GroupContext, table) -> tuple[list[Pair], object]:
    """Return each participant's first and last visit, and the rows of the first visits.

    StudyError if nobody has two visits, or a change per year lacks the time between them.
    """
    pairs, people, remarks = first_and_last(table)
    context.notes += remarks
    if not pairs:
        raise StudyError("Nobody has two visits with maps: there is no change to analyze.", anchor="study-visits")
    return [Pair(first[OWNER], (first["participant_id"], last["participant_id"]),
                 _scale(context.settings.change, first, last)) for first, last in pairs], people


def _scale(how: str, first, last) -> float:
    """Return what a difference is divided by."""
    if how != "per-year":
        return 1.0
    years = np.array([first.get(YEARS, np.nan), last.get(YEARS, np.nan)], float)
    if not np.diff(years)[0] > 0:
        raise StudyError(f"The time between the visits of {first[OWNER]} is not known, or not above 0: fill acq_time "
                         "in its sessions table, or use another change.", anchor="study-visits")
    return float(np.diff(years)[0])


def _change_values(context: GroupContext, key: str, files: dict[str, Path], visits: Values,
                   pairs: list[Pair]) -> Values:
    """Return each pair's change; visits has the first and the last visit of the first pair, of the second, ..."""
    from DiscStatsLib.analysis import Values

    how, number = context.settings.change, {pair.owner: n for n, pair in enumerate(pairs)}
    sources = {pair.owner: " ".join([*(source(context, v, files[v]) for v in pair.visits), repr(pair.scale)])
               for pair in pairs}

    def read(owner: str) -> tuple[np.ndarray, list[str]]:
        n = number[owner]
        first, last = visits.at([2 * n, 2 * n + 1], slice(None))
        return change(first, last, how, pairs[n].scale), []

    array, found = filled_rows(context.folder / "voxels" / f"{key}-change.npy", f"{how} {context.settings.levels}",
                               visits.shape[1], sources, read)
    return Values(array, np.array([found[o].number for o in sources]), np.arange(visits.shape[1]), visits.notes,
                  _change_unit(how, key))


def _change_unit(how: str, key: str) -> str:
    unit = QUANTITIES[key].unit
    return {"absolute": unit, "per-year": f"{unit}/a", "percent": "%"}[how]


def change(first: np.ndarray, last: np.ndarray, how: str, scale: float) -> np.ndarray:
    """Return last less first visit, divided by the scale, or in percent of the first; float32."""
    difference = (last - first) / scale
    if how == "percent":
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.where(first > 0, 100 * difference / first, np.nan)
    return difference.astype(np.float32)
