"""Verb ``review`` of ``disc-relaxometry``: the page, and the same decisions one by one."""

from pathlib import Path
from typing import Annotated

from typer import Option

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.tables import Column, Table, is_missing

from .options import Output, Session, StudyFolder
from .print import print_line, print_table


def review(study: StudyFolder, output: Output = None, session: Session = "",
           reviewer: Annotated[str, Option(help="Initials, written into each decision.")] = "",
           list_: Annotated[bool, Option("--list", help="List discs, flags and decisions; open no page.")] = False,
           compare: Annotated[Path | None, Option(
               help="review.tsv of another reviewer: list where the decisions differ.")] = None,
           decide: Annotated[str, Option(metavar="DISC=DECISION", help="Write one decision and open no page, such as "
                                         "'sub-01/L4-L5=accepted', 'sub-01/all=excluded', 'sub-01/L5-S1=L4-L5' (a new "
                                         "name) or 'sub-01/L4-L5=undo'.")] = "",
           reason: Annotated[str, Option(help="Why a disc is excluded.")] = "",
           port: Annotated[int, Option(min=1024, max=65535, help="Port of the page.")] = 8765,
           browser: Annotated[bool, Option(help="Open the page in the browser.")] = True,
           viewer: Annotated[bool, Option("--viewer", help="Offer Slicer's own views, too (extra 'viewer').")] = False,
           ) -> None:
    """Review outlines in the browser; nothing leaves this machine. Run the study again to obey the decisions."""
    from ..review import ReviewPage, SlicerViews
    from ..review import Session as Reviewing

    given = [n for n, v in (("--list", list_), ("--compare", compare), ("--decide", decide)) if v]
    if len(given) > 1:
        raise StudyError(f"{' and '.join(given)} exclude one another: use one at a time.", anchor="review-decisions")
    if reason and not decide:
        raise StudyError("--reason belongs to a decision: give --decide too.", anchor="review-decisions")
    reviewing = Reviewing(study, output, session, reviewer)
    if list_:
        print_table(_listed(reviewing))
    elif compare:
        _compare(reviewing, compare)
    elif decide:
        _decide(reviewing, decide, reason)
    else:
        views = SlicerViews(reviewing) if viewer else None
        with ReviewPage(reviewing, port, views) as page:
            print_line("Review", "green", f"{page.address}  (Ctrl+C ends it)")
            if views:
                views.serve(beside=lambda: page.serve(browser))
                page.stop()
            else:
                page.serve(browser)


def _listed(reviewing) -> Table:
    looks = reviewing.overview()
    rows = [{"participant": d.person, "level": d.level, "decision": d.decision.decision if d.decision else None,
             "name": d.name if d.name != d.level else None, "stale": "stale" if d.stale else None,
             "reviewer": (d.decision.reviewer if d.decision else "") or None, "flags": "; ".join(d.flags) or None}
            for k in looks for d in k.discs]
    columns = ("participant", "level", "decision", "name", "stale", "reviewer", "flags")
    kept = [Column(c) for c in columns if c in ("participant", "level", "decision") or any(r[c] for r in rows)]
    return Table(f"{sum(k.done for k in looks)} of {len(looks)} participants reviewed", kept, rows)


def _compare(reviewing, other: Path) -> None:
    from ..folder import compare_reviews, read_decisions

    if not other.is_file():
        raise StudyError(f"'{other}' does not exist: name another reviewer's review.tsv.", anchor="review-decisions")
    own = read_decisions(reviewing.file)
    table = compare_reviews(list(own.values()), list(read_decisions(other).values()))
    if not table.rows:
        raise StudyError("The two reviews have no disc in common.", anchor="review-decisions")
    print_table(Table(table.name, table.columns, [r for r in table.rows if not r["agree"]]))
    print(f"{sum(r['agree'] for r in table.rows)} of {len(table.rows)} decisions agree.")


def _decide(reviewing, text: str, reason: str) -> None:
    from ..folder import KINDS, RENAMED

    place, _, what = (part.strip() for part in text.partition("="))
    person, _, level = place.partition("/")
    if is_missing(person) or is_missing(level) or is_missing(what):
        raise StudyError(f"--decide '{text}': write PARTICIPANT/LEVEL=DECISION, such as sub-01/L4-L5=accepted.",
                         anchor="review-decisions")
    person = person if person.startswith("sub-") else f"sub-{person}"
    if what == "undo":
        reviewing.take_back(person, level)
    elif what in KINDS and what != RENAMED:
        reviewing.decide(person, level, what, reason=reason)
    else:
        reviewing.decide(person, level, RENAMED, reason=reason, renamed_to=what)
    print_line("Written", "green", f"{person}, {level}: {what} ({reviewing.file.name})")
