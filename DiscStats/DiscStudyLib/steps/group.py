"""Group steps: one table of everyone, group mean maps, agreement with reference masks."""

import csv
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image, read_image, write_image
from DiscRelaxometryLib.labels import DISCS, disc_name, disc_value
from DiscRelaxometryLib.measure import resample_labels
from DiscRelaxometryLib.quantities import QUANTITIES
from DiscRelaxometryLib.tables import Column, Table

from ..engine import (
    JOINED,
    MAP_STEPS,
    GroupContext,
    PersonContext,
    Step,
    context_atlas,
    disc_labels,
    echo_transform,
    endings,
    maps_in_atlas,
    participants_of,
    person_maps,
)
from ..folder import groups_by


def _run_tables(context: GroupContext) -> None:
    for name, (step, ending) in JOINED.items():
        files = [path for p in context.everyone if (path := context.of(p).output_of(step, ending))]
        if files:
            _join(name, files, context)


def _join(name: str, files: list[Path], context: GroupContext) -> None:
    """Join tables row by row; their text is kept as it is, their columns are united in order of appearance."""
    import json

    columns: dict[str, Column] = {}
    rows = []
    for file in files:
        described = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        with open(file, encoding="utf-8", newline="") as stream:
            part = list(csv.DictReader(stream, delimiter="\t"))
        for column in part[0] if part else ():
            entry = described.get(column, {})
            columns.setdefault(column, Column(column, entry.get("Units", ""), entry.get("Description", "")))
        rows += part
    context.write(Table(name, list(columns.values()), rows), f"{name}.tsv")
    context.facts[name] = len(rows)


def _run_means(context: GroupContext) -> None:
    from DiscStatsLib.analysis import group_moments

    for key, files in maps_in_atlas(context).items():
        found = group_moments(map(read_image, files.values()))
        for name, array in (("mean", found.mean), ("sd", found.sd), ("n", found.n)):
            write_image(found.first.like(array.astype(np.float32)),
                        context.path(endings.in_atlas(f"stat-{name}_{key}")))
        context.facts[key] = len(files)


def _run_group_means(context: GroupContext) -> None:
    """Average the maps of each group; a disc counts in the group of its own value."""
    from DiscStatsLib.analysis import group_moments

    atlas = context_atlas(context)
    try:
        groups = groups_by(participants_of(context), context.settings.compared)
    except DesignError as error:
        if context.settings.groups:
            raise
        context.notes.append(f"No average maps of groups: {error.message}")
        return
    members: dict[str, dict[str, list[int]]] = {name: {} for name in groups}
    for name, discs in groups.items():
        for person, level in discs:
            members[name].setdefault(person, []).append(disc_value(level))
    grouped = set().union(*members.values())
    for key, files in maps_in_atlas(context).items():
        context.facts[key] = []
        for number, (name, own) in enumerate(members.items(), 1):
            people = [p for p in files if p in own]
            if not people:
                context.notes.append(f"{key}: nobody of the group '{name}' has a map.")
                continue
            images = ((read_image(files[p]), np.isin(atlas.labels.array, own[p])) for p in people)
            found = group_moments(i.like(np.where(inside, i.array, np.nan)) for i, inside in images)
            for stat, array in (("mean", found.mean), ("n", found.n)):
                write_image(found.first.like(array.astype(np.float32)),
                            context.path(endings.in_atlas(f"stat-{stat}_group-{number}_{key}")))
            context.facts[key].append({"group": name, "number": number, "people": people})
        if (lost := [p for p in files if p not in grouped]):
            context.notes.append(f"{key}: in no group for want of a value: {', '.join(lost)}.")


def _run_score(context: PersonContext) -> None:
    """Compare a person's automatic discs with the reference mask: used for scoring only."""
    labels = disc_labels(context)
    found = [r for r in map(read_image, context.person.reference) if not labels.geometry.difference(r.geometry)]
    if not found:
        context.notes.append("No reference mask lies on the image's grid; it was not compared.")
        return
    reference = found[0]
    maps = _scored_maps(context, reference)
    columns = [Column("participant_id"), Column("level", "", "Disc level"),
               Column("dice", "1", "Dice overlap with the reference mask of the same level"),
               Column("volume", "cm3", "Volume, automatic"), Column("volume_reference", "cm3", "Volume, reference"),
               *(Column(name, QUANTITIES[key].unit, f"Mean {QUANTITIES[key].name}{where}") for key in maps
                 for name, where in ((key, ", automatic"), (f"{key}_reference", " in the reference mask")))]
    context.write(Table("agreement", columns, [
        _score_row(context.name, d.value, labels, reference, maps)
        for d in reversed(DISCS) if np.any(reference.array == d.value)]), endings.AGREEMENT)


def _scored_maps(context: PersonContext, reference: Image) -> dict[str, tuple[Image, Image, Image]]:
    """Return key -> (map, automatic labels, reference labels), all on the map's grid.

    Both segmentations come to an echo series by the same rigid transform, so that they alone differ.
    """
    maps = {}
    for key, (image, automatic) in person_maps(context).items():
        given = reference
        if key in KINDS:
            discs = reference.like(np.where(np.isin(reference.array, [d.value for d in DISCS]), reference.array, 0))
            given = resample_labels(discs, image.geometry, echo_transform(context, key))[0]
        maps[key] = (image, automatic, given)
    return maps


def _score_row(person: str, value: int, labels: Image, reference: Image, maps: dict) -> dict:
    found, true = labels.array == value, reference.array == value
    volume = labels.geometry.voxel_volume / 1000
    row = {"participant_id": person, "level": disc_name(value),
           "dice": float(2 * np.sum(found & true) / (np.sum(found) + np.sum(true))),
           "volume": float(found.sum() * volume), "volume_reference": float(true.sum() * volume)}
    for key, (image, automatic, given) in maps.items():
        row[key] = _mean(image.array[automatic.array == value])
        row[f"{key}_reference"] = _mean(image.array[given.array == value])
    return row


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


SCORE_STEP = Step("score", "2", _run_score, lambda c: c.person.reference, needs=("segment", "review"),
                  optional=("normalize", *MAP_STEPS), applies=lambda c: bool(c.person.reference))
TABLES_STEP = Step("tables", "1", _run_tables, optional=("measure", "atlas", "score", "grade"))
MEANS_STEP = Step("means", "2", _run_means, parameters=("maps", "formula"), optional=("atlas",),
                  applies=lambda c: bool(maps_in_atlas(c)))


def group_means_step(after: tuple[str, ...] = ()) -> Step[GroupContext]:
    """Return the step that averages the maps of each group that is compared; `after` are steps that it reads, too."""
    return Step("group-means", "1", _run_group_means, lambda c: c.study.tables,
                ("maps", "groups", "formula", "template"), optional=("atlas", "template", *after),
                applies=lambda c: bool(maps_in_atlas(c)))
