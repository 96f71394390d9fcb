"""Visits on the group's side: change maps of each participant, and the repeatability of the maps."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.tables import Column, Table

from ..engine import GroupContext, Step, endings, maps_in_atlas, read_rows
from ..folder import OWNER

_COLUMNS = [Column("map", "", "Quantity"), Column("level", "", "Disc level"), Column("region", "", "Region"),
            Column("n", "1", "Participants with every visit"), Column("visits", "1", "Visits of each"),
            Column("within_sd", "", "Within-participant SD, in the map's unit"), Column("low", "", "Lower 95 % limit"),
            Column("high", "", "Upper 95 % limit"),
            Column("smallest_change", "", "Smallest detectable difference of two visits, 1.96 sqrt(2) within_sd"),
            Column("cv", "1", "Root mean square of the participants' coefficients of variation"), Column("unit")]


def within_maps(groups: Iterable[list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Return ``wsd``, ``cv`` and ``sdc`` at each voxel: within-participant SD, its relative size, smallest difference.

    From the visits of each participant; NaN is missing, and one visit alone says nothing at a voxel. The
    within-participant variance is the residual mean square of a one-way analysis of variance (Bland & Altman 1996, BMJ
    313:744); the coefficient of variation is the root mean square over participants.
    """
    squares = freedom = relative = people = np.zeros(())
    for visits in groups:
        values = np.array(visits, float)
        there = np.isfinite(values)
        count = there.sum(axis=0)
        mean = np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1)
        own = np.where(there, (values - mean) ** 2, 0).sum(axis=0)
        squares, freedom = squares + own, freedom + np.maximum(count - 1, 0)
        usable = (count > 1) & (mean > 0)
        relative = relative + np.where(usable, own / np.maximum(count - 1, 1) / np.where(usable, mean, 1) ** 2, 0)
        people = people + usable
    with np.errstate(divide="ignore", invalid="ignore"):
        wsd = np.sqrt(np.where(freedom > 0, squares / freedom, np.nan))
        cv = np.sqrt(np.where(people > 0, relative / people, np.nan))
    return {"wsd": wsd, "cv": cv, "sdc": 1.959964 * np.sqrt(2) * wsd}


def _run_repeatability(context: GroupContext) -> None:
    owners = {r["participant_id"]: r[OWNER] for r in context.study.participants.rows}
    for key, files in maps_in_atlas(context).items():
        groups: dict[str, list[Path]] = {}
        for visit, path in files.items():
            groups.setdefault(owners.get(visit, visit), []).append(path)
        several = [some for some in groups.values() if len(some) > 1]
        context.facts[key] = len(several)
        if len(several) < 3:
            context.notes.append(f"{key}: {len(several)} participants have two visits; repeatability needs three.")
            continue
        first = read_image(several[0][0])
        for name, array in within_maps([read_image(p).array for p in some] for some in several).items():
            write_image(first.like(array.astype(np.float32)), context.path(endings.in_atlas(f"stat-{name}_{key}")))
    context.write(Table("repeatability", _COLUMNS, _region_rows(context, owners)), "repeatability.tsv")


def _region_rows(context: GroupContext, owners: dict[str, str]) -> list[dict]:
    """Return the repeatability of each map, level and region, of participants with every visit."""
    from DiscStatsLib.tables import repeatability

    by: dict[tuple, dict[str, dict[str, float]]] = {}
    units = {}
    for row in read_rows(context.needed("tables", "regions.tsv")).rows:
        owner, place = owners.get(row["participant_id"], ""), (row["map"], row["level"], row["region"])
        if owner and np.isfinite(row["mean"]):
            by.setdefault(place, {}).setdefault(owner, {})[row["participant_id"]] = row["mean"]
            units[place] = row.get("unit", "")
    rows = []
    for place, people in by.items():
        visits = max(map(len, people.values()))
        values = [list(v.values()) for v in people.values() if len(v) == visits]
        try:
            found = repeatability(values)
        except DesignError as error:
            context.notes.append(f"Repeatability of {', '.join(place)}: {error.message}")
            continue
        rows.append(dict(zip(("map", "level", "region"), place)) | {
            "n": found.n, "visits": found.k, "within_sd": found.within_sd, "low": found.within_ci[0],
            "high": found.within_ci[1], "smallest_change": found.coefficient, "cv": found.rms_cv, "unit": units[place]})
    return rows


REPEATABILITY_STEP = Step(
    "repeatability", "1", _run_repeatability, lambda c: c.study.tables, ("maps", "formula", "session"), ("tables",),
    optional=("atlas",), applies=lambda c: bool(maps_in_atlas(c)) and c.output_of("tables", "regions.tsv") is not None)
