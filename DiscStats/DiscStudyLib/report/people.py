"""Sections of the report about people: overview, segmentation, map quality, registration quality."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.measure import DISC_COLUMNS, statistics
from DiscRelaxometryLib.tables import Column, Table, cell_value, is_missing

from ..engine import GroupContext, endings, group_rows, reviewed_discs, serious_flags
from ..folder import TABLE, level_columns, trained_on
from .figures import plot_cohort, plot_quality, save_figure
from .figures_maps import montage
from .page import Cards, Figure, Notes, Paragraph, Section, TableBlock, cell_text
from .review import review

#: At most so many people are pictured in the page; flagged ones come first.
MAX_TILES = 48


def save(context: GroupContext, figure, folder: Path, name: str) -> Path:
    """Write a figure of the report and note it as an output."""
    path = folder / f"{name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    context.written.append(path)
    return save_figure(figure, path, context.study.simulated)


def sections(context: GroupContext, folder: Path) -> list[Section]:
    """Return the sections about people that have content."""
    made = [overview(context, folder), warnings(context), segmentation(context, folder), disc_sizes(context),
            map_quality(context, folder), registration(context, folder), review(context, folder)]
    return [s for s in made if s and s.blocks]


def overview(context: GroupContext, folder: Path) -> Section:
    """Who takes part, what they have, who is missing."""
    people = context.everyone
    section = Section("Study overview", "overview")
    with_maps = {k: sum(f"maps-{k}" in r for r in people.values()) for k in KINDS}
    cards = [("People with results", str(sum("segment" in r for r in people.values())),
              f"of {len(set(people) | set(context.missing))} in the study")]
    cards += [(f"{k} maps", str(n), "people") for k, n in with_maps.items() if n]
    cards.append(("In atlas space", str(sum("atlas" in r for r in people.values())), "people"))
    discs = sum(len(r["segment"].facts.get("levels", [])) for r in people.values() if "segment" in r)
    cards.append(("Discs labelled", str(discs), "all visible levels"))
    section.add(Cards(cards))
    picture = _cohort_figure(context, folder)
    if picture:
        section.add(picture)
    if context.missing:
        table = Table("missing", [Column("person"), Column("why")],
                      [{"person": p, "why": w} for p, w in sorted(context.missing.items())])
        section.add(TableBlock(table, "Missing or incomplete people"))
    return section


def _cohort_figure(context: GroupContext, folder: Path) -> Figure | None:
    path = context.study.root / TABLE
    if not path.exists():
        return None
    table = context.study.participants
    rows = [r for r in table.rows if "segment" in context.everyone.get(r["participant_id"], {})]
    per_level = level_columns(table.names)
    wanted = [v for v in dict.fromkeys([*context.settings.variables, "age", "sex"]) if v in table.names]
    values = {v: [cell_value(r[v]) for r in rows] for v in wanted[:4]}
    grades = {level: [cell_value(r[c]) for r in rows] for level, c in per_level.get("pfirrmann", {}).items()}
    if not values and not grades or not rows:
        return None
    figure = save(context, plot_cohort(values, grades), folder, "cohort")
    return Figure(figure, f"The {len(rows)} people with results. Grades are counted per level.",
                  "Distributions of the participants' variables")


def warnings(context: GroupContext) -> Section:
    """What a reader must know: missing people, flags, what the signal is not."""
    section = Section("Warnings", "warnings", lead="Read before the results.")
    items = []
    if context.study.simulated:
        items.append(("warning", "These data are simulated. No statement about people follows from them."))
    has_signal = any("normalize" in r for r in context.everyone.values())
    if has_signal:
        items.append(("warning", "nT2w is the T2-weighted signal divided by that of cerebrospinal fluid. It is not T2: "
                      "it depends on the sequence, coil and proton density, and is compared here between people of the "
                      "same or similar protocols only."))
    if context.settings.estimated:
        items.append(("warning", "The model's Pfirrmann grades are estimated by a network, not read by a person: see "
                      "'Estimated Pfirrmann grades'."))
    items += [("error", f"{p} is missing: {w}") for p, w in sorted(context.missing.items())]
    flagged = [f"{p}: {n}" for p, records in context.everyone.items() for s, r in records.items()
               if s in ("segment", "normalize", "grade") or s.startswith(("maps", "carry")) for n in r.notes]
    shown = [("note", n) for n in condensed(flagged)]
    overlap = training_overlap(context)
    if overlap:
        items.append(("warning", overlap))
    items += shown[:14]
    if len(shown) > 14:
        items.append(("note", f"{len(shown) - 14} more notes are in the provenance files."))
    section.add(Notes(items) if items else Notes([("good", "Nothing to report.")]))
    return section


_LEVELS = r"[TL]\d+-[LS]\d+(?:, [TL]\d+-[LS]\d+)*"


def condensed(notes: Sequence[str]) -> list[str]:
    """Join notes that differ only in person, level and numbers: one sentence with the cases after it.

    ``sub-01: unsure of L4-L5.`` and ``sub-02: unsure of L5-S1.`` become ``unsure of \u2026. (2: sub-01 L4-L5; ...)``.
    """
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for note in dict.fromkeys(notes):
        person, _, text = note.partition(": ") if note.startswith("sub-") else ("", "", note)
        pattern = re.compile(rf"{_LEVELS}|(?<![\w.])\d+(?:\.\d+)?")
        found = ", ".join(dict.fromkeys(pattern.findall(text)))
        groups.setdefault(pattern.sub("\N{HORIZONTAL ELLIPSIS}", text), []).append((person, found, note))
    lines = []
    for text, cases in groups.items():
        if len(cases) == 1:
            lines.append(cases[0][2])
        else:
            listed = "; ".join(f"{person} {found}".strip() for person, found, _ in cases)
            lines.append(f"{text} ({len(cases)}: {listed})")
    return lines


def training_overlap(context: GroupContext) -> str:
    """Say which people of the study the shipped network was trained on."""
    cnn = {p for p, r in context.everyone.items() if "segment" in r and r["segment"].facts.get("source") == "cnn"}
    known = trained_on(context.study) & cnn
    if not known:
        return ""
    return (f"{len(known)} of {len(cnn)} people were in the training set of the shipped network, so agreement with "
            "their reference masks is optimistic; held-out figures are in the validation document.")


def segmentation(context: GroupContext, folder: Path) -> Section:
    """Picture everyone's segmentation; flagged people first."""
    section = Section("Segmentation", "segmentation",
                      lead="Mid-sagittal slice of each person with the labelled discs; colors alternate by level. "
                           "People with a flagged disc of the levels analyzed have an orange frame: look at them "
                           "first.")
    tiles = []
    for person, records in context.everyone.items():
        path = context.of(person).output_of("tile", endings.SEGMENTATION_TILE)
        if path:
            discs = reviewed_discs(context.settings, person, records, {})
            tiles.append((person, path, any(d.flags for d in discs)))
    tiles.sort(key=lambda t: (not t[2], t[0]))
    if not tiles:
        return section
    shown = [(p, _read_png(f), flag) for p, f, flag in tiles[:MAX_TILES]]
    left = f" {len(tiles) - MAX_TILES} more are in the people's 'figures' folders." if len(tiles) > MAX_TILES else ""
    section.add(Figure(save(context, montage(shown), folder, "segmentation"),
                       f"Segmentation of {len(shown)} people.{left}", "Sagittal slices with labelled discs"))
    confidences = _confidences(context)
    if confidences:
        figure = plot_quality(confidences, "Mean confidence of the disc")
        section.add(Figure(save(context, figure, folder, "confidence"),
                           "Calibrated confidence of each disc; the line is the median.", "Confidence by level", False))
    return section


def _confidences(context: GroupContext) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {v: [] for v in LUMBAR_LEVELS}
    for records in context.everyone.values():
        for disc in records["segment"].facts.get("discs", []) if "segment" in records else ():
            if disc.get("name") in found and disc.get("confidence") is not None:
                found[disc["name"]].append(disc["confidence"])
    return {k: v for k, v in found.items() if v}


def _read_png(path: Path) -> np.ndarray:
    from PIL import Image as Picture

    with Picture.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


#: Measures of the discs in the report.
SIZES = ("height_middle", "height_index", "height_index_vertebral", "angle", "slip", "canal_diameter")


def disc_sizes(context: GroupContext) -> Section | None:
    """Return sizes of the lumbar discs by level; what could not be measured is counted."""
    rows, known = group_rows(context, "discs"), {c.name: c for c in DISC_COLUMNS}
    if not rows:
        return None
    table = Table("sizes", [Column("level"), Column("discs"), *(
        Column(n.replace("_", " "), known[n].unit, known[n].description) for n in SIZES), Column("not measured")])
    for level in LUMBAR_LEVELS:
        some = [r for r in rows if r["level"] == level]
        cells = {n: [v for r in some if np.isfinite(v := r.get(n, np.nan))] for n in SIZES}
        if some:
            table.rows.append({"level": level, "discs": len(some), **{
                n.replace("_", " "): _mean_sd(v, 2 if "index" in n else 1) for n, v in cells.items()},
                "not measured": sum(len(some) - len(v) for v in cells.values())})
    section = Section("Disc sizes", "sizes", lead="Mean (SD) by level in the mid-sagittal plane. A cell that could not "
                      "be measured is empty in group/discs.tsv, and the row's statement says why.")
    return section.add(TableBlock(table, "Sizes by level", file="group/discs.tsv"))


def _mean_sd(values: list[float], digits: int) -> str:
    """Return ``mean (SD)``, with n - 1 in the SD; a single value has none."""
    spread = f" ({np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}" if values else ""


def map_quality(context: GroupContext, folder: Path) -> Section | None:
    """Failed voxels and fit quality a map, with pictures of the first people."""
    rows = [r for r in group_rows(context, "regions") if r["region"] == "whole" and r["level"] in LUMBAR_LEVELS]
    if not rows:
        return None
    section = Section("Map quality", "maps",
                      lead="Failed or out-of-range voxels are missing (not zero) and are counted.")
    table = Table("map quality", [Column("map"), Column("people"), Column("discs"),
                                  Column("mean", "", "Mean over discs of the disc means"),
                                  Column("SD between discs"), Column("failed", "%", "Voxels without a value"),
                                  Column("worst disc", "%", "Highest share of failed voxels in a disc")])
    for key in dict.fromkeys(r["map"] for r in rows):
        some = [r for r in rows if r["map"] == key]
        means, failed = (np.array([r[c] for r in some], float) for c in ("mean", "failed"))
        over_discs = statistics(means)
        table.rows.append({"map": key, "people": len({r["participant_id"] for r in some}), "discs": len(some),
                           "mean": over_discs["mean"], "SD between discs": over_discs["sd"],
                           "failed": 100 * float(np.nanmean(failed)), "worst disc": 100 * float(np.nanmax(failed))})
    section.add(TableBlock(table, "Maps inside the lumbar discs"))
    shown = [(p, f) for p in context.everyone if (f := context.of(p).output_of("tile", endings.MAPS_TILE))][:3]
    section.add(*(Figure(f, f"Maps of {p}, mid-sagittal.", f"Relaxation maps of {p}", False) for p, f in shown))
    return section


def registration(context: GroupContext, folder: Path) -> Section | None:
    """Quality of the correspondence with the atlas, by level."""
    rows = [r for r in group_rows(context, "registration") if r.get("level") in LUMBAR_LEVELS]
    if not rows:
        return None
    section = Section("Registration quality", "registration",
                      lead="How well each disc, brought to the atlas, covers the atlas disc. Shape alone drives the "
                           "correspondence; the signal inside a disc does not.")
    section.add(TableBlock(_by_level(rows), "Median (worst) by level"))
    if any("dice" in r for r in rows):
        values = {v: [r["dice"] for r in rows if r["level"] == v] for v in LUMBAR_LEVELS}
        values = {k: v for k, v in values.items() if v}
        section.add(Figure(save(context, plot_quality(values, "Dice with the atlas disc"), folder, "registration"),
                           "Overlap with the atlas by level; one point per disc, the line is the median.",
                           "Dice by level", False))
    flags = [(r, f) for r in rows for f in _flags(r)]
    if not flags:
        return section.add(Paragraph("No disc was flagged.", small=True))
    counts: dict[str, int] = {}
    for _, flag in flags:
        name = re.sub(r"^\d+ |\s*\(.*?\)", "", flag).split(":")[0]
        counts[name] = counts.get(name, 0) + 1
    listed = [{"flag": k, "discs": v} for k, v in sorted(counts.items(), key=lambda item: -item[1])]
    section.add(TableBlock(Table("flags", [Column("flag"), Column("discs")], listed),
                           f"Flags of the {len(rows)} discs of the levels analyzed", 20, "group/registration.tsv"))
    serious = [{"person": r["participant_id"], "level": r["level"], "flag": f} for r in rows for f in serious_flags(r)]
    if serious:
        section.add(TableBlock(Table("look", [Column("person"), Column("level"), Column("flag")], serious),
                               "Discs to look at (lateral cuts apart: slabs of middle slices have them by design)", 25))
    return section


def _flags(row: dict) -> list[str]:
    text = str(row.get("flags") or "")
    return [f.strip() for f in text.split(";") if not is_missing(f)]


#: Measures of the registration: column of the table -> title, unit, and whether a small value is a bad one.
_MEASURES = {"dice": ("Dice", "", True), "surface_mean": ("surface distance", "mm", False),
             "surface_95": ("95th percentile", "mm", False), "folding": ("folding", "", False),
             "jacobian_min": ("smallest Jacobian", "", True), "jacobian_max": ("largest Jacobian", "", False),
             "inverse_error": ("there and back", "mm", False)}


def _by_level(rows: Sequence[dict]) -> Table:
    known = {n: m for n, m in _MEASURES.items() if any(n in r for r in rows)}
    table = Table("registration", [Column("level"), Column("discs"),
                                   *(Column(title, unit) for title, unit, _ in known.values())])
    for level in LUMBAR_LEVELS:
        some = [r for r in rows if r["level"] == level]
        if not some:
            continue
        row = {"level": level, "discs": len(some)}
        for name, (title, _, low_is_bad) in known.items():
            values = np.array([r[name] for r in some if isinstance(r.get(name), float)], float)
            if np.isfinite(values).any():
                worst = (np.nanmin if low_is_bad else np.nanmax)(values)
                row[title] = f"{cell_text(float(np.nanmedian(values)))} ({cell_text(float(worst))})"
        table.rows.append(row)
    return table
