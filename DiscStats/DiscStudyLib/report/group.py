"""Sections of the report about the group: mean maps, parametric maps, clusters, regions, agreement, methods."""

from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED, ROMAN
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.measure import statistics
from DiscRelaxometryLib.quantities import QUANTITIES
from DiscRelaxometryLib.tables import Column, Table, is_missing

from ..engine import GroupContext, context_atlas, group_rows, maps_in_atlas, participants_of, read_rows
from ..folder import OWNER, SESSION, trained_on, values_by_level
from .figures import plot_agreement, plot_groups
from .figures_maps import Look, atlas_figure
from .grades import grades
from .methods import methods
from .page import Cards, Figure, Paragraph, Section, TableBlock, cell_text
from .people import save, training_overlap
from .stats import parametric_maps, sensitivity

#: Regions shown in the region figure, of those in the table.
SHOWN_REGIONS = ("nucleus", "anterior_annulus", "posterior_annulus")


_COMPARED = {"T1rho": ("ms", "Mean T1rho"), "T2": ("ms", "Mean T2"), "nT2w": ("1", "Mean normalized T2w signal"),
             "volume": ("cm3", "Disc volume")}


def sections(context: GroupContext, folder: Path, analysis: str) -> list[Section]:
    """Return the sections about the group that have content."""
    made = [mean_maps(context, folder), group_means(context, folder), *parametric_maps(context, folder, analysis),
            sensitivity(context, analysis), repeated(context, folder), regions(context, folder),
            agreement(context, folder), grades(context), methods(context, analysis)]
    return [s for s in made if s and s.blocks]


def unit_of(key: str) -> str:
    """Return a map's unit for axes and legends; empty for a ratio."""
    unit = QUANTITIES[key].unit
    return "" if unit == "1" else unit


def mean_maps(context: GroupContext, folder: Path) -> Section | None:
    """Mean and SD over people, on the atlas."""
    if "means" not in context.records:
        return None
    atlas = context_atlas(context)
    section = Section("Group mean maps", "means", lead="Mean and standard deviation over people at each atlas voxel. "
                      "Sagittal views have the front of the body (A) at the left, transverse views at the top, with "
                      "the patient's right (R) at the left; they run through the middle of each disc's height.")
    for key in maps_in_atlas(context):
        images = {n: read_image(context.needed("means", f"stat-{n}_{key}.nii.gz")) for n in ("mean", "sd", "n")}
        count = int(np.nanmax(images["n"].array))
        half = images["n"].array >= max(2, count // 2)
        shown = {n: _masked(images[n], half) for n in ("mean", "sd")}
        looks = {n: Look(c, *_window([shown[n]], n == "sd"), unit_of(key))
                 for n, c in (("mean", "viridis"), ("sd", "magma"))}
        figure = atlas_figure({f"Mean {key}": (shown["mean"], looks["mean"]), f"SD {key}": (shown["sd"], looks["sd"])},
                              atlas.labels, context.settings.levels)
        section.add(Figure(save(context, figure, folder, f"mean_{key}"),
                           f"{key}: mean and SD of {count} people, where at least half of them have a value. "
                           f"{QUANTITIES[key].description}.", f"Mean and SD maps of {key}"))
    return section


def group_means(context: GroupContext, folder: Path) -> Section | None:
    """Return the average maps of each group side by side, all in one window."""
    if "group-means" not in context.records:
        return None
    section = Section("Average maps of groups", "group-means", lead="All groups of a map have one window. Differences "
                      "that are seen here are tested below, not here.")
    for key, groups in context.records["group-means"].facts.items():
        shown = {}
        for group in groups:
            mean, n = (read_image(context.needed("group-means", f"stat-{s}_group-{group['number']}_{key}.nii.gz"))
                       for s in ("mean", "n"))
            title = f"{group['group']} (n = {len(group['people'])})"
            shown[title] = _masked(mean, n.array >= max(1, n.array.max() // 2))
        if not shown:
            continue
        look = Look("viridis", *_window(list(shown.values()), False), unit_of(key))
        figure = atlas_figure({title: (image, look) for title, image in shown.items()}, context_atlas(context).labels,
                              context.settings.levels)
        section.add(Figure(save(context, figure, folder, f"groups_{key}"), f"Mean {key} of {', '.join(shown)}, where "
                           "at least half of a group has a value.", f"Average maps of {key} by group"))
    return section


def _masked(image: Image, keep: np.ndarray) -> Image:
    return image.like(np.where(keep, image.array, np.nan))


def _window(images: list[Image], from_zero: bool) -> tuple[float, float]:
    """Return the range of colors that several maps share."""
    values = np.concatenate([image.array[np.isfinite(image.array)] for image in images])
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 1.0)
    return (0.0 if from_zero else float(low)), float(max(high, low + 1e-6))


def regions(context: GroupContext, folder: Path) -> Section | None:
    """Region means by the variable of interest."""
    rows = [r for r in group_rows(context, "regions") if r["level"] in LUMBAR_LEVELS]
    if not rows:
        return None
    section = Section("Region statistics", "regions",
                      lead="Means of the maps in regions defined by the disc's own axes.")
    for key in dict.fromkeys(r["map"] for r in rows):
        some = [r for r in rows if r["map"] == key]
        section.add(TableBlock(_region_table(some, key), f"{key} by level and region, mean (SD between people)", 40,
                               "group/regions.tsv"))
        picture = _region_figure(context, some, key, folder)
        if picture:
            section.add(picture)
        section.add(*_models(context, key))
    return section


def repeated(context: GroupContext, folder: Path) -> Section | None:
    """Return the repeatability of the maps, where visits are observations."""
    path = context.output_of("repeatability", "repeatability.tsv")
    if not path:
        return None
    section = Section("Repeatability", "repeatability", lead="How far visits of one participant differ; the precision "
                      "of the method only where nothing has changed between them.")
    visits: dict[str, list[str]] = {}
    for row in context.study.participants.rows:
        if row["participant_id"] in context.everyone:
            visits.setdefault(row[OWNER], []).append(row[SESSION])
    section.add(Paragraph("Visits: " + "; ".join(f"{p} {', '.join(some)}" for p, some in visits.items()) + ".",
                          small=True))
    for key in maps_in_atlas(context):
        columns = {}
        for title, name, unit in (("Within-participant SD", "wsd", unit_of(key)),
                                  ("Coefficient of variation", "cv", "")):
            file = context.output_of("repeatability", f"stat-{name}_{key}.nii.gz")
            if file:
                image = read_image(file)
                columns[title] = (image, Look("magma", *_window([image], True), unit))
        if columns:
            figure = atlas_figure(columns, context_atlas(context).labels, context.settings.levels)
            section.add(Figure(save(context, figure, folder, f"repeatability_{key}"),
                               f"{key}: visits of {context.records['repeatability'].facts[key]} participants.",
                               f"Repeatability maps of {key}"))
    table = read_rows(path)
    table.rows = [r for r in table.rows if r["region"] in ("whole", *SHOWN_REGIONS)]
    section.add(TableBlock(table, "Repeatability by level and region", 40, "group/repeatability.tsv"))
    return section


def _models(context: GroupContext, key: str) -> list:
    """Return the mixed models of a map's regions, where the study has them."""
    path = context.output_of("models", "mixed_models.tsv")
    rows = [r for r in read_rows(path).rows if r["map"] == key] if path else []
    if not rows:
        return []
    unit = unit_of(key)
    table = Table("models", [
        Column("region"), Column("term"), Column("change", unit, "Of the region's mean for one unit of the term"),
        Column("95 % limits", unit), Column("p", "", "Two-sided, of this test alone"), Column("discs"),
        Column("people"), Column("between people", "%", "Share of the unexplained variance")])
    table.rows = [{"region": r["region"].replace("_", " "), "term": r["term"], "change": r["estimate"],
                   "95 % limits": f"{cell_text(r['low'])} to {cell_text(r['high'])}", "p": r["p"],
                   "discs": int(r["discs"]), "people": int(r["people"]), "between people": 100 * r["icc"]}
                  for r in rows]
    text = ("Linear mixed model of the discs' region means: the formula, the level, and a random person, so that the "
            "discs of one person are not taken for independent. p is of each test alone, not corrected for the others.")
    notes = [Paragraph(n, small=True) for n in dict.fromkeys(f"{r['region'].replace('_', ' ')}: {r['notes']}"
                                                             for r in rows if not is_missing(r["notes"]))]
    return [TableBlock(table, f"{key}: mixed models", 40, "group/mixed_models.tsv"), Paragraph(text, small=True),
            *notes]


def _region_table(rows: list[dict], key: str) -> Table:
    names = [n for n in ("whole", *SHOWN_REGIONS) if any(r["region"] == n for r in rows)]
    unit = unit_of(key)
    table = Table(key, [Column("level"), Column("discs"), *(Column(n, unit) for n in names)])
    for level in LUMBAR_LEVELS:
        values = {n: np.array([r["mean"] for r in rows if r["level"] == level and r["region"] == n], float)
                  for n in names}
        if values and len(values[names[0]]):
            cells = {n: statistics(v) for n, v in values.items()}
            table.rows.append({"level": level, "discs": cells[names[0]]["n"],
                               **{n: cell_text(c["mean"]) + (f" ({cell_text(c['sd'])})" if c["n"] > 1 else "")
                                  for n, c in cells.items()}})
    return table


def _region_figure(context: GroupContext, rows: list[dict], key: str, folder: Path) -> Figure | None:
    if not context.settings.formula:
        return None
    model = context.settings.model
    variables = model.variables_of(model.first_term)
    if len(variables) != 1:
        return None
    variable = variables[0]
    values = values_by_level(participants_of(context), variable)
    distinct = sorted(set(values.values()), key=str)
    if not 2 <= len(distinct) <= 8:
        return None
    panels: dict[str, dict] = {}
    for name in SHOWN_REGIONS:
        for r in rows:
            group = values.get((r["participant_id"], r["level"]))
            if r["region"] == name and group is not None:
                panels.setdefault(name.replace("_", " "), {}).setdefault(group, []).append(r["mean"])
    if not panels:
        return None
    if variable in ("pfirrmann", ESTIMATED):
        panels = {k: {ROMAN[int(g) - 1]: v for g, v in p.items()} for k, p in panels.items()}
    label = {"pfirrmann": "Pfirrmann grade", ESTIMATED: "Estimated Pfirrmann grade",
             EXPECTED: "Estimated Pfirrmann grade (expectation)"}.get(variable, variable)
    figure = plot_groups(panels, label, f"{key} {('[' + unit_of(key) + ']') if unit_of(key) else ''}".strip())
    return Figure(save(context, figure, folder, f"regions_{key}"),
                  f"{key} by {label}: one point per disc of the lumbar levels, the bar is the median. Discs of one "
                  "person are not independent; the mixed model below takes account of that.",
                  f"{key} in regions by {label}")


def agreement(context: GroupContext, folder: Path) -> Section | None:
    """Automatic against reference masks, where the study has them."""
    rows = [r for r in group_rows(context, "agreement") if r["level"] in LUMBAR_LEVELS]
    if not rows:
        return None
    dice = np.array([r["dice"] for r in rows])
    section = Section("Agreement with reference masks", "agreement",
                      lead="The reference masks were used for this comparison only.")
    section.add(Cards([("Mean Dice of discs", cell_text(float(dice.mean())), f"{len(dice)} discs"),
                       ("5th percentile", cell_text(float(np.percentile(dice, 5))), "Dice"),
                       ("Discs missed", str(int(np.sum(dice == 0))), "no overlap at the same level")]))
    overlap = training_overlap(context)
    if overlap:
        section.add(Paragraph(overlap), TableBlock(_by_training(context, rows), "Dice by use in training"))
    for name, (unit, text) in _COMPARED.items():
        both = [r for r in rows if isinstance(r.get(name), float) and np.isfinite(r[name])
                and np.isfinite(r[f"{name}_reference"]) and r["dice"] > 0]
        if len(both) < 3:
            continue
        first, second = (np.array([r[n] for r in both]) for n in (name, f"{name}_reference"))
        try:
            summary, table = agreement_summary(first, second, unit)
        except DesignError as error:  # all discs alike: the rest of the report stands
            section.add(Paragraph(f"{text}: {error.message}", small=True))
            continue
        figure = plot_agreement(first, second, [r["level"] for r in both], ("Automatic", "Reference"), unit, summary)
        section.add(Figure(save(context, figure, folder, f"agreement_{name}"),
                           f"{text} of {len(both)} discs, automatic against reference segmentation.",
                           f"Scatter and Bland-Altman plot of {text}"), TableBlock(table, f"Agreement, {text}"))
    return section


def _by_training(context: GroupContext, rows: list[dict]) -> Table:
    """Return Dice of people the network was trained on (or chosen by), and of those held out."""
    known = trained_on(context.study)
    table = Table("training", [Column("people"), Column("n", "", "People"), Column("discs"), Column("mean Dice"),
                               Column("worst person", "", "Lowest mean Dice of a person")])
    for name, inside in (("in the training set", True), ("held out", False)):
        some = [r for r in rows if (r["participant_id"] in known) == inside]
        people = dict.fromkeys(r["participant_id"] for r in some)
        if some:
            means = [np.mean([r["dice"] for r in some if r["participant_id"] == p]) for p in people]
            table.rows.append({"people": name, "n": len(people), "discs": len(some),
                               "mean Dice": float(np.mean([r["dice"] for r in some])),
                               "worst person": float(min(means))})
    return table


def agreement_summary(first: np.ndarray, second: np.ndarray, unit: str) -> tuple[str, Table]:
    """Return a summary line for the plot, and bias, limits, concordance and ICC(2,1) with their intervals."""
    from DiscStatsLib.tables import agreement_table

    full = agreement_table(first, second, unit)
    wanted = ("bias", "lower limit of agreement", "upper limit of agreement", "concordance correlation", "ICC(2,1)")
    rows = {r["measure"]: r for r in full.rows if r["measure"] in wanted}
    share = 100 * rows["bias"]["value"] / float(np.mean(second))
    return (f"ICC(2,1) {rows['ICC(2,1)']['value']:.3f}\nbias {share:+.1f} %",
            Table(full.name, full.columns, list(rows.values())))
