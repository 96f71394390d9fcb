"""Sections of the report about the voxel-wise analysis: parametric maps and clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import Column, Table

from .figures_maps import Look, atlas_figure
from .report import Figure, Notes, Section, TableBlock
from .report_people import save
from .steps import Context
from .steps_analysis import first_term
from .steps_group import read_rows
from .steps_person import context_atlas


def parametric_maps(context: Context, folder: Path, analysis: str) -> list[Section]:
    """Return the sections 'Parametric maps' and 'Clusters' of an analysis."""
    step = f"analysis-{analysis}"
    if not analysis or step not in context.records:
        return []
    record = context.records[step]
    term = context.settings.contrast or first_term(context.settings.formula)
    maps = Section("Parametric maps", "parametric",
                   lead=f"Voxel-wise regression on {term}; model: {context.settings.formula}. Outlined voxels are "
                        f"significant at family-wise p < {context.settings.alpha:g} by permutation.")
    clusters = Section("Clusters", "clusters", lead="Connected significant voxels, with their peak and where it lies.")
    atlas = context_atlas(context)
    if record.notes:
        maps.add(Notes([("note", n) for n in record.notes[:12]]))
    for key, facts in record.facts.items():
        images = read_stats(context, step, key, facts["stats"])
        maps.add(*_map_blocks(context, folder, key, facts, images, atlas.labels))
        table = read_rows(context.output_of(step, f"{key}_clusters.tsv"))
        clusters.add(TableBlock(table, f"{key}: clusters", 30, f"group/{step}/{key}_clusters.tsv"))
    return [maps, clusters]


def read_stats(context: Context, step: str, key: str, names: list[str]) -> dict[str, Image]:
    """Return the analysis's maps by name."""
    found = {}
    for name in names:
        path = context.output_of(step, f"_{key}_stat-{name}.nii.gz")
        if path:
            found[name] = read_image(path)
    return found


def pick(images: dict[str, Image], *words: str) -> Image | None:
    """Return the first map whose name has one of `words` as a part (parts are joined by _)."""
    for word in words:
        for name, image in images.items():
            if name == word or name.endswith("_" + word):
                return image
    return None


def _map_blocks(context: Context, folder: Path, key: str, facts: dict, images: dict[str, Image], labels: Image):
    r, effect = pick(images, "r", "partial_r"), pick(images, "effect", "beta")
    corrected = pick(images, "p_fwe", "p_maxt", "p_tfce")
    uncorrected = pick(images, "p_uncorrected", "p")
    significant = None
    if corrected is not None:
        small = np.nan_to_num(corrected.array, nan=1.0) < context.settings.alpha
        significant = corrected.like(small.astype(np.uint8))
    columns: dict[str, tuple[Image, Look]] = {}
    if r is not None:
        columns["Partial correlation r"] = (r, Look("RdBu_r", -1, 1, ""))
    if effect is not None:
        high = float(np.nanpercentile(np.abs(effect.array), 98)) or 1.0
        columns["Effect"] = (effect, Look("PuOr_r", -high, high, f"{key} per unit"))
    p = corrected if corrected is not None else uncorrected
    if p is not None:
        logs = p.like(-np.log10(np.maximum(p.array, 1e-12)))
        columns["\u2212log10 p"] = (logs, Look("cividis", 0, max(2.0, float(np.nanmax(logs.array))),
                                               "family-wise" if corrected is not None else "uncorrected"))
    if not columns:
        return []
    outline = dict.fromkeys(columns, significant) if significant is not None else None
    figure = atlas_figure(columns, labels, context.settings.levels, outline)
    blocks = [Figure(save(context, figure, folder, f"parametric_{key}"),
                     f"{key}, n = {facts['n']}: partial correlation, effect and p on the atlas. Red is a positive, "
                     "blue a negative correlation. Outlined: significant voxels.", f"Parametric maps of {key}")]
    table = summary(key, labels, r, corrected, uncorrected, context.settings.alpha)
    return [*blocks, TableBlock(table, f"{key}: by level")]


def summary(key: str, labels: Image, r: Image | None, corrected: Image | None, uncorrected: Image | None,
            alpha: float) -> Table:
    """Return how many voxels of each level are significant, and the strongest correlation."""
    table = Table(key, [Column("level"), Column("voxels"), Column("median r", "", "Median partial correlation"),
                        Column("strongest r"), Column("smallest p", "", "Family-wise p"),
                        Column("significant", "%", f"Voxels with family-wise p < {alpha:g}")])
    for level in LUMBAR_LEVELS:
        inside = labels.array == disc_value(level)
        row = {"level": level}
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
        table.rows.append(row)
    return table
