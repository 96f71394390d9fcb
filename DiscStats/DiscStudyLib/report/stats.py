"""Sections of the report about the voxel-wise analysis: parametric maps and clusters."""

from pathlib import Path

import numpy as np

from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import Column, Table

from ..engine import SENSITIVITY, GroupContext, context_atlas, read_rows
from .figures_maps import Look, atlas_figure
from .methods import people_text
from .page import Figure, Notes, Section, TableBlock
from .people import condensed, save


def parametric_maps(context: GroupContext, folder: Path, analysis: str) -> list[Section]:
    """Return the sections 'Parametric maps' and 'Clusters' of an analysis."""
    step = f"analysis-{analysis}"
    if not analysis or step not in context.records:
        return []
    record = context.records[step]
    term = context.settings.tested
    maps = Section("Parametric maps", "parametric",
                   lead=f"Voxel-wise regression on {term}; model: {context.settings.formula}. Outlined voxels are "
                        f"significant at family-wise p < {context.settings.alpha:g} by permutation.")
    clusters = Section("Clusters", "clusters",
                       lead="Connected voxels of small p, with the corrected p of their extent, mass and peak; the "
                            "smallest corrected p comes first.")
    atlas = context_atlas(context)
    for facts in record.facts.values():
        for key in facts["maps"]:
            for contrast in facts["contrasts"]:
                images = read_stats(context, step, f"{key}_{contrast}", facts["stats"])
                maps.add(*_map_blocks(context, folder, key, contrast, facts, images, atlas.labels))
        table = _readable(read_rows(context.needed(step, facts["clusters"])))
        clusters.add(TableBlock(table, f"{', '.join(facts['maps'])}: clusters (formed at uncorrected p < 0.001)", 12,
                                f"group/{step}/{facts['clusters']}"))
    if context.settings.pooled:
        maps.lead += " All levels were analyzed as one disc; its result is laid back on each of them, the same at all."
    if context.settings.change:
        maps.lead += (" Each observation is a participant's change from the first to the last visit "
                      f"({context.settings.change}).")
    if record.notes:
        maps.add(Notes([("note", n) for n in condensed(record.notes)]))
    return [maps, clusters]


def sensitivity(context: GroupContext, analysis: str) -> Section | None:
    """Return the analysis of some people beside that of everyone."""
    steps = [f"analysis-{analysis}", f"analysis-{analysis}{SENSITIVITY}"]
    if not analysis or any(s not in context.records for s in steps):
        return None
    rule = context.settings.sensitivity
    section = Section("Sensitivity analysis", "sensitivity",
                      lead=f"The same analysis on the people for whom '{rule}' holds, beside that of everyone. The "
                           "analysis of everyone is the main result; this one shows how far it depends on the others.")
    left_out = [n for n in context.records[steps[1]].notes if n.startswith("Left out by the rule")]
    section.add(Notes([("note", n) for n in left_out]))
    for key, contrast, both in _pairs(context, steps):
        section.add(TableBlock(_beside(context, steps, key, contrast, both), f"{key} and {contrast}, by level"))
    return section


def _pairs(context: GroupContext, steps: list[str]):
    """Yield map, contrast and the facts of both analyses."""
    found = [{(key, contrast): facts for facts in context.records[step].facts.values() for key in facts["maps"]
              for contrast in facts["contrasts"]} for step in steps]
    for key, contrast in found[0]:
        if (key, contrast) in found[1]:
            yield key, contrast, [f[key, contrast] for f in found]


def _beside(context: GroupContext, steps: list[str], key: str, contrast: str, both: list[dict]) -> Table:
    """Return two rows per level: the analysis of everyone, and that of the rule."""
    table = Table("sensitivity", [
        Column("level"), Column("analysis"), Column("people"), Column("voxels"), Column("median r"),
        Column("smallest p"), Column("smallest p (TFCE)"),
        Column("smallest cluster p", "", "Corrected p of extent or mass, whichever is smaller")])
    labels, found = context_atlas(context).labels, {}
    for step, facts, who in zip(steps, both, ("everyone", context.settings.sensitivity)):
        images = read_stats(context, step, f"{key}_{contrast}", facts["stats"])
        part = summary(contrast, labels, images.get("r", images.get("eta2")), images.get("pfwe"), images.get("p"),
                       context.settings.alpha, images.get("ptfce"))
        clusters = [r for r in read_rows(context.needed(step, facts["clusters"])).rows
                    if r.get("quantity") == key and r.get("contrast") == contrast]
        for row in part.rows:
            inside = [_p(r, n) for r in clusters if r["level"] == row["level"] for n in ("p_extent", "p_mass")]
            found[row["level"], who] = {**row, "analysis": who, "people": facts["levels"][row["level"]],
                                        "smallest cluster p": min(inside, default=None)}
    table.rows = [row for level in LUMBAR_LEVELS for (at, _), row in found.items() if at == level]
    table.columns = [c for c in table.columns if any(r.get(c.name) is not None for r in table.rows)]
    return table


def _readable(table: Table) -> Table:
    """Leave out columns that the file has and the page does not need."""
    wanted = ("contrast", "quantity", "level", "region", "sign", "voxels", "p_extent", "p_mass", "peak",
              "peak_p_fwe", "peak_p_tfce", "effect_mean")
    corrected = ("p_extent", "p_mass", "peak_p_fwe", "peak_p_tfce")
    ranked = sorted(table.rows, key=lambda r: min(_p(r, n) for n in corrected))
    return Table(table.name, [c for c in table.columns if c.name in wanted], ranked)


def _p(row: dict, name: str) -> float:
    value = row.get(name)
    return value if isinstance(value, float) and value == value else 1.0


def read_stats(context: GroupContext, step: str, prefix: str, names: list[str]) -> dict[str, Image]:
    """Return those maps that the page shows of an analysis's `names`, which begin with `prefix`, by statistic."""
    found = {}
    for statistic in ("r", "effect", "eta2", "p", "pfwe", "ptfce"):
        name = f"{prefix}_{statistic}"
        path = context.output_of(step, f"stat-{name}.nii.gz") if name in names else None
        if path:
            found[statistic] = read_image(path)
    return found


def _map_blocks(context: GroupContext, folder: Path, key: str, contrast: str, facts: dict, images: dict[str, Image],
                labels: Image) -> list:
    """Return the figure and the table of one map and contrast (t: r and effect; F: share of variance)."""
    r, effect, share, corrected, p, tfce = (images.get(n) for n in ("r", "effect", "eta2", "pfwe", "p", "ptfce"))
    significant = None
    if corrected is not None:
        small = np.nan_to_num(corrected.array, nan=1.0) < context.settings.alpha
        significant = corrected.like(small.astype(np.uint8))
    columns: dict[str, tuple[Image, Look]] = {}
    if r is not None:
        columns["Partial correlation r"] = (r, Look("RdBu_r", -1, 1, ""))
    if effect is not None:
        high = _high(np.abs(effect.array), 98)
        columns["Effect"] = (effect, Look("PuOr_r", -high, high, f"{key} per unit of {contrast}"))
    if share is not None:
        columns["Partial eta squared"] = (share, Look("viridis", 0, 1, ""))
    shown = corrected if corrected is not None else p
    if shown is not None:
        logs = shown.like(-np.log10(np.maximum(shown.array, 1e-12)))
        which = "family-wise" if corrected is not None else "uncorrected"
        columns["\u2212log10 p"] = (logs, Look("cividis", 0, max(2.0, _high(logs.array, 100)), which))
    if not columns:
        return []
    outline = dict.fromkeys(columns, significant) if significant is not None else None
    figure = atlas_figure(columns, labels, context.settings.levels, outline)
    caption = (f"{key} and {contrast}, {people_text(facts)}. Red is a positive, blue a negative correlation; gray "
               "voxels were not tested (too few people have a value there). Outlined: significant voxels.")
    table = summary(contrast, labels, r if r is not None else share, corrected, p, context.settings.alpha, tfce)
    return [Figure(save(context, figure, folder, f"parametric_{key}_{contrast}"), caption,
                   f"Parametric maps of {key} and {contrast}"),
            TableBlock(table, f"{key} and {contrast}, by level")]


def _high(values: np.ndarray, percentile: float) -> float:
    """Return a percentile of the finite values, 1 where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, percentile)) or 1.0 if finite.size else 1.0


def summary(contrast: str, labels: Image, r: Image | None, corrected: Image | None, uncorrected: Image | None,
            alpha: float, tfce: Image | None = None) -> Table:
    """Return how many voxels of each level are significant, and the strongest correlation."""
    table = Table(contrast, [Column("level"), Column("voxels"), Column("median r", "", "Median partial correlation"),
                        Column("strongest r"), Column("smallest p", "", "Family-wise p"),
                        Column("significant", "%", f"Voxels with family-wise p < {alpha:g}")])
    if tfce is not None:
        table.columns += [Column("smallest p (TFCE)", "", "Family-wise p of threshold-free cluster enhancement"),
                          Column("significant (TFCE)", "%", f"Voxels with family-wise p (TFCE) < {alpha:g}")]
    for level in LUMBAR_LEVELS:
        inside = labels.array == disc_value(level)
        row: dict = {"level": level}
        if r is not None:
            values = r.array[inside & np.isfinite(r.array)]
            if not values.size:
                continue
            row |= {"voxels": int(values.size), "median r": float(np.median(values)),
                    "strongest r": float(values[np.argmax(np.abs(values))])}
        p = corrected if corrected is not None else uncorrected
        if p is not None:
            some = p.array[inside & np.isfinite(p.array)]
            if some.size:
                row |= {"smallest p": float(some.min()), "significant": 100 * float(np.mean(some < alpha))}
        if tfce is not None:
            some = tfce.array[inside & np.isfinite(tfce.array)]
            if some.size:
                row |= {"smallest p (TFCE)": float(some.min()),
                        "significant (TFCE)": 100 * float(np.mean(some < alpha))}
        table.rows.append(row)
    return table
