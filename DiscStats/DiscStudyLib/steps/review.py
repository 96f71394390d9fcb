"""Steps of the review: decisions become the labels that every later step reads; who decided what; with and without."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.quantities import QUANTITIES
from DiscRelaxometryLib.tables import Column, Table

from ..engine import (
    MAP_STEPS,
    GroupContext,
    PersonContext,
    Step,
    decision_rows,
    echo_transform,
    endings,
    looked_at,
    of_person,
    person_maps,
    read_rows,
    step_record,
)
from ..folder import COLUMNS, REVIEW, TABLE, Decision, apply_decisions, corrected_mask, read_decisions, stale
from .models import fitted_terms

_DECIDING = ("decision", "renamed_to", "looked_at")


def _decisions(context: PersonContext) -> list[Decision]:
    found = read_decisions(context.study.output / REVIEW)
    return [d for (person, _), d in found.items() if person == context.name]


def _corrected(context: PersonContext) -> list[Path]:
    """Return the mask that a reviewer drew, if there is one."""
    path = corrected_mask(context.study, context.name)
    return [path] if path.exists() else []


def _run_review(context: PersonContext) -> None:
    decisions, corrected = _decisions(context), _corrected(context)
    now = looked_at(context.records["segment"])
    old = [d.level for d in decisions if stale(d, now)]
    context.facts["decisions"] = {d.level: {**asdict(d), "stale": d.level in old} for d in decisions}
    if old:
        context.notes.append(f"The outlines have changed since the review of {', '.join(old)}: look again.")
    labels = read_image(context.needed("segment", endings.DISCS))
    redrawn = read_image(corrected[0]) if corrected else None
    decided, notes = apply_decisions(labels, decisions, redrawn, old)
    context.notes += [*(redrawn.notes if redrawn else []), *notes]
    if (decided.array != labels.array).any():
        write_image(decided, context.path(endings.DECIDED))


def _deciding(context: PersonContext) -> dict:
    decisions = _decisions(context)
    # Images may change and leave the outlines as they are: what was decided is stale then.
    now = {"now": looked_at(context.records["segment"])} if decisions else {}
    return {**now, **{d.level: [getattr(d, name) for name in _DECIDING] for d in decisions}}


REVIEW_STEP = Step("review", "1", _run_review, _corrected, needs=("segment",), extra=_deciding)


def _run_automatic(context: PersonContext) -> None:
    """Measure the regions of the outlines as they were before the review, on the same maps, where it changed them."""
    from DiscRelaxometryLib.measure import measure_regions, resample_labels

    if context.output_of("review", endings.DECIDED) is None or not person_maps(context):
        return
    labels, tables = read_image(context.needed("segment", endings.DISCS)), []
    for key, (image, _) in person_maps(context).items():
        names = resample_labels(labels, image.geometry, echo_transform(context, key))[0] if key in KINDS else labels
        tables.append(measure_regions(names, {key: image}))
    regions = Table("regions", tables[0].columns, [r for t in tables for r in t.rows])
    context.write(of_person(context, regions), endings.AUTOMATIC)


AUTOMATIC_STEP = Step("automatic", "1", _run_automatic, needs=("segment", "review"), optional=("normalize", *MAP_STEPS))


_SENSITIVITY = [Column("map", "", "Quantity"), Column("review", "", "With the review's changes, or without them"),
                Column("people"), Column("discs"), Column("mean", "", "Mean over discs of the disc means"),
                Column("sd", "", "Standard deviation between discs"), Column("unit"),
                Column("term", "", "Term of the mixed model of the disc means"), Column("estimate"), Column("low"),
                Column("high"), Column("p", "1", "Two-sided p of this test alone (normal approximation)")]


def _run_decisions(context: GroupContext) -> None:
    ids = [*context.everyone, *context.missing]
    rows = decision_rows(context.study, ids, context.everyone)
    about = {(r["participant_id"], r["level"]) for r in rows}
    unused = [", ".join(disc) for disc in read_decisions(context.study.output / REVIEW) if disc not in about]
    if unused:
        context.notes.append(f"Decisions about participants without results were not used: {'; '.join(unused)}.")
    table = Table("review", [*COLUMNS, Column("discs", "1", "Discs that the decision is about"),
                             Column("stale", "", "Whether outlines or images have changed since")],
                  [{k: v if v != "" else None for k, v in row.items()} for row in rows])
    context.write(table, "review.tsv")
    before = _before(context)
    regions = context.output_of("tables", "regions.tsv")
    if before and regions:
        after = read_rows(regions).rows
        replaced = {r["participant_id"] for r in before}
        both = {"with": after, "without": [r for r in after if r["participant_id"] not in replaced] + before}
        found = Table("review sensitivity", _SENSITIVITY, [
            _summary(context, key, review, some) for key in dict.fromkeys(r["map"] for r in after)
            for review, rows in both.items() if (some := _whole(context, rows, key))])
        context.write(found, "review_sensitivity.tsv")


def _before(context: GroupContext) -> list[dict]:
    """Return the regions as measured before the review, of the people whom it changed or excluded."""
    return [r for path in _files_before(context) for r in read_rows(path).rows]


def _files_before(context: GroupContext) -> list[Path]:
    found = []
    for person in sorted({r["participant_id"] for r in decision_rows(context.study, [*context.everyone,
                                                                                   *context.missing])}):
        steps = ("automatic",) if person in context.everyone else ("automatic", "measure")
        records = filter(None, (step_record(context.study, person, step) for step in steps))
        ends = (endings.AUTOMATIC, endings.REGIONS)
        found += [path for r in records for name in r.outputs if name.endswith(ends)
                  and (path := context.study.absolute(name)).exists()][:1]
    return found


def _whole(context: GroupContext, rows: list[dict], key: str) -> list[dict]:
    return [r for r in rows if (r["map"], r["region"]) == (key, "whole") and np.isfinite(r["mean"])
            and r["level"] in context.settings.levels]


def _summary(context: GroupContext, key: str, review: str, rows: list[dict]) -> dict:
    means = [r["mean"] for r in rows]
    row = {"map": key, "review": review, "people": len({r["participant_id"] for r in rows}), "discs": len(rows),
           "mean": float(np.mean(means)), "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None,
           "unit": QUANTITIES[key].unit}
    if context.settings.formula:
        try:
            row |= {k: v for k, v in fitted_terms(context, key, "whole", rows)[0].items() if k in
                    ("term", "estimate", "low", "high", "p")}
        except DesignError as error:
            context.notes.append(f"{key}, {review} the review's changes: {error.message}")
    return row


def decisions_step() -> Step[GroupContext]:
    """Return the group step that says who decided what, and how the review changed the results."""
    def extra(context: GroupContext) -> dict:
        ids = [*context.everyone, *context.missing]
        return {"rows": decision_rows(context.study, ids, context.everyone),
                "all": sorted(read_decisions(context.study.output / REVIEW))}

    return Step("decisions", "1", _run_decisions,
                lambda c: [*_files_before(c), *(f for f in [c.study.root / TABLE] if f.exists())],
                ("formula", "levels"), optional=("segment", "review", "automatic", "tables"),
                applies=lambda c: (c.study.output / REVIEW).exists(), extra=extra)
