"""Group step and observations of the pooled analysis: all levels of a person in one disc."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image

from ..engine import Context, Step, context_atlas, maps_in_atlas, participants_of
from ..folder import SESSION, long_frame


def _run_pooled(context: Context) -> list[Path]:
    """Make the mean disc of the atlas's levels, and register each of them to it."""
    from DiscAtlasLib import pooled_disc, save_pooled

    atlas = context_atlas(context)
    levels = [v for v in context.settings.levels if v in atlas.levels]
    if len(levels) < 2:
        raise StudyError("A pooled analysis needs at least two levels: name more with --levels, or leave 'pooled' out.")
    folder = save_pooled(pooled_disc(atlas, levels), context.path("pooled-disc/atlas.json").parent)
    written = sorted(f for f in folder.rglob("*") if f.is_file())
    context.written += written
    return written


def pooled_step() -> Step:
    """Return the step that makes the pooled disc."""
    return Step("pooled-disc", "1", _run_pooled, parameters=("levels", "template"), optional=("template",),
                applies=lambda c: bool(maps_in_atlas(c)), extra=lambda c: {"atlas": context_atlas(c).provenance})


def pooled_observations(context: Context, family, files, people, disc) -> tuple[dict[str, np.ndarray], object]:
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
