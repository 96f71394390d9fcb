"""Observations of an analysis: maps and table rows of people, of their discs in one disc, or of their visits."""

from __future__ import annotations

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import disc_value

from ..folder import OWNER, SESSION, YEARS, first_and_last, long_frame
from .results import context_atlas, maps_in_atlas, participants_of
from .steps import Context


def observations(context: Context, family, people: list[str]) -> dict:
    """Return maps, table, atlas and blocks of an analysis, as :func:`DiscStatsLib.analysis.analyze` takes them.

    Parameters
    ----------
    context : Context
        Its settings say what an observation is; its notes name what has none.
    family : sequence of str
        Maps that are analyzed together.
    people : list of str
    """
    files = maps_in_atlas(context)
    return (_pooled if context.settings.pooled else _by_level)(context, family, files, people)


def pooled_disc_of(context: Context):
    """Return the disc of a pooled analysis; None of one by level."""
    from DiscAtlasLib import load_pooled

    found = context.output_of("pooled-disc", "pooled-disc/atlas.json") if context.settings.pooled else None
    return found and load_pooled(found.parent)


def _by_level(context: Context, family, files, people: list[str]) -> dict:
    """Return the data of an analysis by level: one row per person."""
    from DiscStatsLib.design import rows_of, to_frame

    atlas = context_atlas(context)
    levels = [v for v in context.settings.levels if v in atlas.levels]
    images = {key: {p: read_image(files[key][p]) for p in people} for key in family}
    people = _who_has_a_disc(context, images, people, levels)
    table = rows_of(to_frame(participants_of(context)), people)
    data = {"atlas_labels": atlas.labels, "regions": atlas.regions, "levels": levels}
    if context.settings.change:
        maps, table = changes(context, images, table)
        return data | {"maps": maps, "participants": table}
    blocks = {"blocks": context.study.block} if context.study.visits else {}
    return data | blocks | {"maps": {key: [images[key][p] for p in people] for key in family}, "participants": table}


def _who_has_a_disc(context: Context, images: dict, people: list[str], levels: list[str]) -> list[str]:
    """Return the people whose maps show a disc of the levels; the notes name the others."""
    inside = np.isin(context_atlas(context).labels.array, [disc_value(v) for v in levels])
    there = [p for p in people if all(np.isfinite(own[p].array[inside]).any() for own in images.values())]
    lost = [p for p in people if p not in there]
    if lost:
        context.notes.append(f"{', '.join(lost)}: no disc of {', '.join(levels)} in the maps; left out.")
    return there


def _pooled(context: Context, family, files, people: list[str]) -> dict:
    """Return the data of a pooled analysis: one row per disc."""
    disc = pooled_disc_of(context)
    maps, table = _pooled_observations(context, family, files, people, disc)
    labels = disc.atlas.labels
    return {"maps": maps, "participants": table, "blocks": context.study.block, "regions": disc.atlas.regions,
            "atlas_labels": labels.like((labels.array > 0).astype(np.uint8))}


def _pooled_observations(context: Context, family, files, people, disc) -> tuple[dict[str, np.ndarray], object]:
    """Return maps by quantity, shape (discs, voxels of the pooled disc), and the table of the discs.

    A disc of which a person has no value is no observation; the context's notes name them.
    """
    settings, mask = context.settings, disc.atlas.labels.array > 0
    own = (context.study.block, SESSION) if context.study.visits else ()
    table = long_frame([{"participant_id": p, "level": level} for p in people for level in disc.levels],
                       participants_of(context), tuple(dict.fromkeys((*settings.columns, *own))))
    maps: dict[str, list[np.ndarray]] = {key: [] for key in family}
    for person, rows in table.groupby("participant_id", sort=False):
        for key in family:
            image = read_image(files[key][person])
            maps[key] += [disc.pool(image, level).array[mask] for level in rows["level"]]
    stacked = {key: np.array(values, np.float32) for key, values in maps.items()}
    there = np.logical_and.reduce([np.isfinite(values).any(axis=1) for values in stacked.values()])
    for level in disc.levels:
        lost = table["participant_id"][~there & (table["level"] == level).to_numpy()]
        if len(lost):
            context.notes.append(f"{level} of {', '.join(lost)} has no value in the maps and is no observation.")
    return {key: values[there] for key, values in stacked.items()}, table[there].reset_index(drop=True)


def changes(context: Context, images: dict[str, dict[str, Image]], table) -> tuple[dict[str, list[Image]], object]:
    """Return each participant's change from the first to the last visit, and the rows of the first visits.

    Raises
    ------
    StudyError
        If nobody has two visits, or a change per year lacks the time between them.
    """
    how = context.settings.change
    pairs, people, remarks = first_and_last(table)
    context.notes += remarks
    if not pairs:
        raise StudyError("Nobody has two visits with maps: there is no change to analyze.", anchor="study-visits")
    maps = {key: [_change(some[first["participant_id"]], some[last["participant_id"]], how, _scale(how, first, last))
                  for first, last in pairs] for key, some in images.items()}
    return maps, people


def _scale(how: str, first, last) -> float:
    """Return what a difference is divided by."""
    if how != "per-year":
        return 1.0
    years = np.array([first.get(YEARS, np.nan), last.get(YEARS, np.nan)], float)
    if not np.diff(years)[0] > 0:
        raise StudyError(f"The time between the visits of {first[OWNER]} is not known, or not above 0: fill acq_time "
                         "in its sessions table, or use another change.", anchor="study-visits")
    return float(np.diff(years)[0])


def _change(first: Image, last: Image, how: str, scale: float) -> Image:
    difference = (last.array.astype(float) - first.array) / scale
    if how == "percent":
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.where(first.array > 0, 100 * difference / first.array, np.nan)
    return first.like(difference.astype(np.float32))
