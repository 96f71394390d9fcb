"""Means of maps in discs and regions of the atlas, one row each, beside the participants' columns: for mixed models."""

import numpy as np

from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.tables import Column, Table

from ..analysis import AnalysisData, gather
from ..design import ID, check_participants, level_columns
from ..permutation import level_name


def region_means(maps, atlas_labels: Image, participants, *, regions: Image | None = None,
                 region_names: dict[int, str] | None = None, levels=None) -> Table:
    """Return the mean of each map in each disc, or in each region of each disc.

    Parameters
    ----------
    maps, atlas_labels, participants, regions, region_names, levels
        As in :func:`DiscStatsLib.analysis.analyze.analyze`; several quantities give a column each.
    regions : Image, optional
        One row per region instead of a disc; 0 is no region.

    Returns
    -------
    Table
        ``participant_id``, ``level``, ``region`` (if asked for), ``<quantity>`` (mean over the voxels with a value,
        empty where there is none), ``<quantity>_sd``, ``<quantity>_voxels``, then the participants' columns. Columns
        such as ``pfirrmann_L5S1`` become one column ``pfirrmann`` with the value of the row's level.

    Raises
    ------
    DesignError
        As :func:`DiscStatsLib.analysis.analyze.analyze`, for maps and table that do not fit.
    """
    check_participants(participants)
    participants = participants.reset_index(drop=True)
    data = gather(maps, atlas_labels, participants, levels=levels, regions=regions, response="mean")
    own = _level_wise(participants, data)
    shared = [c for c in participants.columns if c not in (ID, "level") and c not in own]
    rows = []
    for label in data.level_values:
        inside = data.levels == label
        places: dict = {None: inside}
        if data.regions is not None:
            places = {int(r): inside & (data.regions == r) for r in np.unique(data.regions[inside]) if r > 0}
        theirs = [{c: _cell(v) for c, v in zip(shared, values)}
                  | {name: _cell(row[column]) for column, (name, at) in own.items() if at == label}
                  for values, (_, row) in zip(participants[shared].itertuples(index=False), participants.iterrows())]
        for place, voxels in places.items():
            where = {"level": level_name(label)}
            if place is not None:
                where["region"] = (region_names or {}).get(place, str(place))
            measured = _summaries(data, voxels)
            rows += [{ID: i} | where | m | t for i, m, t in zip(data.ids, measured, theirs)]
    columns = [Column(ID, "", "Person"), Column("level", "", "Disc level")]
    if data.regions is not None:
        columns.append(Column("region", "", "Region of the atlas"))
    for quantity in data.values:
        columns += [Column(quantity, "", f"Mean of {quantity} over the voxels with a value"),
                    Column(f"{quantity}_sd", "", f"SD of {quantity} over the same voxels"),
                    Column(f"{quantity}_voxels", "1", "Voxels with a value")]
    columns += [Column(str(c), "", "From the participants table") for c in shared]
    columns += [Column(name, "", "From the participants table, of the row's level")
                for name in dict.fromkeys(name for name, _ in own.values())]
    return Table("regions", columns, rows)


def _level_wise(participants, data: AnalysisData) -> dict[str, tuple[str, int]]:
    """Return (name without the level, label) of each column that belongs to a level."""
    own = {}
    for label in data.level_values:
        for column in map(str, participants.columns):
            name = column.rsplit("_", 1)[0]
            if name and column in level_columns(name, level_name(label)):
                own[column] = (name, label)
    return own


def _summaries(data: AnalysisData, voxels: np.ndarray) -> list[dict]:
    """Return mean, SD and count over some voxels, one dict an observation."""
    rows = [{} for _ in data.ids]
    for quantity, maps in data.values.items():
        for row, mean, sd, count in zip(rows, *_summary(maps.at(slice(None), voxels))):
            row |= {quantity: _cell(mean), f"{quantity}_sd": _cell(sd), f"{quantity}_voxels": int(count)}
    return rows


def _summary(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, SD and count of each row over what is not missing."""
    count = np.isfinite(values).sum(axis=1)
    with np.errstate(all="ignore"):
        mean = np.where(count > 0, np.nansum(values, axis=1) / count, np.nan)
        spread = np.nansum((values - mean[:, None]) ** 2, axis=1)
        return mean, np.where(count > 1, np.sqrt(spread / (count - 1)), np.nan), count


def _cell(value):
    """Return a value as a table cell; missing is None."""
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
