"""Group step: a mixed model of each map and region, with the formula of the voxel-wise analysis."""

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table

from ..engine import GroupContext, Step, maps_in_atlas, participants_of, read_rows
from ..folder import long_frame

#: Regions that are modelled, of those in the table.
REGIONS = ("whole", "nucleus", "anterior_annulus", "posterior_annulus")
_COLUMNS = [
    Column("map", "", "Quantity"), Column("region", "", "Region of the disc"),
    Column("term", "", "Term of the model; levels and intercept are fitted too and not listed"),
    Column("estimate", "", "Change of the region's mean for one unit of the term, in the map's unit"),
    Column("low", "", "Lower 95 % limit"), Column("high", "", "Upper 95 % limit"),
    Column("p", "1", "Two-sided p of this test alone (normal approximation)"),
    Column("discs", "1", "Discs in the model"), Column("people", "1", "People in the model"),
    Column("icc", "1", "Share of the unexplained variance between people"), Column("unit", "", "Unit of the map"),
    Column("notes", "", "What limits the fit")]


def _run_models(context: GroupContext) -> None:
    rows = read_rows(context.needed("tables", "regions.tsv")).rows
    table = Table("mixed models", _COLUMNS)
    for key in maps_in_atlas(context):
        for region in REGIONS:
            some = [r for r in rows if (r["map"], r["region"]) == (key, region) and np.isfinite(r["mean"])
                    and r["level"] in context.settings.levels]
            if not some:
                continue
            try:
                table.rows += fitted_terms(context, key, region, some)
            except DesignError as error:
                context.notes.append(f"Mixed model of {key}, {region}: {error.message}")
    context.write(table, "mixed_models.tsv")


def fitted_terms(context: GroupContext, key: str, region: str, rows: list[dict]) -> list[dict]:
    """Return the terms of the mixed model of some rows, one row each; levels and intercept are left out."""
    from DiscStatsLib.tables import fit_mixed

    model = context.settings.model
    group = context.study.block
    frame = long_frame(rows, participants_of(context), tuple(dict.fromkeys((*model.names, group))))
    # Levels differ whatever the person; the term of interest must not stand for that.
    several = frame["level"].nunique() > 1 and "level" not in model.names
    fit = fit_mixed(frame, f"mean ~ {model.terms}{' + C(level)' if several else ''}", group, missing="drop")
    shown = [r for r in fit.fixed.rows if "level" not in r["term"] and r["term"].lower() != "intercept"]
    # The term of interest first, as the formula has it.
    shown.sort(key=lambda r: model.first_term not in r["term"])
    return [{"map": key, "region": region, "discs": fit.n, "people": fit.people, "icc": fit.icc,
             "unit": rows[0].get("unit", ""), "notes": " ".join(fit.notes) or None,
             **{n: r[n] for n in ("term", "estimate", "low", "high", "p")}} for r in shown]


def models_step(after: tuple[str, ...] = ()) -> Step[GroupContext]:
    """Return the step that fits the mixed models of the regions; `after` are further steps whose results it reads."""
    return Step("models", "1", _run_models, lambda c: c.study.tables,
                ("formula", "levels", "maps"), needs=("tables",), optional=("atlas", *after),
                applies=lambda c: bool(maps_in_atlas(c)) and c.output_of("tables", "regions.tsv") is not None)
