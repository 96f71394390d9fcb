"""Section of the report about the review: who decided what, what it changed, and what is still to be looked at."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import Column, Table, is_missing, read_tsv

from ..engine import GroupContext, ReviewedDisc, endings, outlined_image, read_rows, reviewed_discs
from ..folder import KINDS, REVIEW, read_decisions
from .figures_maps import disc_tile, write_picture
from .page import Gallery, Notes, Paragraph, Section, TableBlock

#: At most so many discs are pictured.
MAX_PICTURES = 24


def review(context: GroupContext, folder: Path) -> Section:
    """Return the section: counts by reviewer, stale decisions, results with and without, pictures of flagged discs."""
    section = Section("Review", "review", lead="Decisions of reviewers about single discs, which every later step "
                      "obeys. A decision is stale where outlines or images have changed since.")
    rows = decision_rows_of(context)
    section.add(Paragraph(review_text(context)))
    if rows:
        section.add(TableBlock(_by_reviewer(rows), "Discs by reviewer and decision", file="group/review.tsv"))
    if "decisions" in context.records and context.records["decisions"].notes:
        section.add(Notes([("warning", n) for n in context.records["decisions"].notes]))
    old = [f"{r['participant_id']}, {r['level']}" for r in rows if r["stale"] == "True"]
    if old:
        section.add(Notes([("warning", f"Stale decisions, to be looked at again: {'; '.join(old)}.")]))
    path = context.output_of("decisions", "review_sensitivity.tsv")
    if path:
        section.add(TableBlock(_shown(read_rows(path)), "Disc means with and without the review's changes",
                               file="group/review_sensitivity.tsv"))
    waiting = [d for d in _discs(context) if d.flags and not d.settled]
    if waiting:
        more = f" {len(waiting) - MAX_PICTURES} more wait." if len(waiting) > MAX_PICTURES else ""
        section.add(Gallery(list(_pictures(context, waiting[:MAX_PICTURES], folder)), "Flagged discs that wait for a "
                            f"decision.{more} A picture opens the review page, or says how to start it."))
    return section


def _pictures(context: GroupContext, discs: Iterable[ReviewedDisc],
              folder: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Draw each disc as it was segmented; yield person, level, picture, and why it is flagged."""
    for person, some in groupby(discs, key=lambda d: d.person):
        image = outlined_image(context.study, context.everyone[person]["segment"])
        labels = read_image(context.of(person).needed("segment", endings.DISCS))
        for disc in some:
            path = folder / f"flagged_{person}_{disc.level.replace('-', '')}.png"
            folder.mkdir(parents=True, exist_ok=True)
            context.written.append(path)
            write_picture(disc_tile(image, labels, disc_value(disc.level)), path)
            yield person, disc.level, path, "; ".join(disc.flags)


def decision_rows_of(context: GroupContext) -> list[dict]:
    """Return the rows of the group's table of decisions."""
    path = context.output_of("decisions", "/review.tsv")
    return read_tsv(path).rows if path else []


def review_text(context: GroupContext) -> str:
    """Say in one sentence how many discs were accepted, corrected, renamed and excluded, and by whom."""
    rows, discs = decision_rows_of(context), _discs(context)
    flagged = [d for d in discs if d.flags]
    open_ = sum(not d.settled for d in flagged)
    if not rows:
        return f"No disc was reviewed; {len(flagged)} of {len(discs)} were flagged by the software."
    counts = ", ".join(f"{n} {kind}" for kind in KINDS if (n := _count(rows, decision=kind)))
    names = sorted({r["reviewer"] for r in rows if not is_missing(r["reviewer"])})
    by = f" by {', '.join(names)}" if names else ""
    stale = _count(rows, stale="True")
    return (f"Outlines were reviewed{by}: {counts} (discs). Of the {len(flagged)} discs flagged by the software, "
            f"{len(flagged) - open_} were decided on." + (f" Decisions on {stale} discs are stale." if stale else ""))


def _discs(context: GroupContext) -> list[ReviewedDisc]:
    decisions = read_decisions(context.study.output / REVIEW)
    return [d for person, records in context.everyone.items() if "segment" in records
            for d in reviewed_discs(context.settings, person, records, decisions)]


def _count(rows: Iterable[dict], **equal: str) -> int:
    return sum(int(float(r["discs"])) for r in rows if all(r[k] == v for k, v in equal.items()))


def _by_reviewer(rows: list[dict]) -> Table:
    table = Table("review", [Column("reviewer"), *(Column(k) for k in KINDS), Column("stale")])
    for name in sorted({r["reviewer"] for r in rows}):
        some = [r for r in rows if r["reviewer"] == name]
        table.rows.append({"reviewer": "not given" if is_missing(name) else name,
                           **{k: _count(some, decision=k) for k in KINDS}, "stale": _count(some, stale="True")})
    return table


def _shown(table: Table) -> Table:
    """Leave out columns without a value, such as those of a model where there is no formula."""
    kept = [c for c in table.columns if any(not is_missing(r.get(c.name)) for r in table.rows)]
    return Table(table.name, kept, table.rows)
