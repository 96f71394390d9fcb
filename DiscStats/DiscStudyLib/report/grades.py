"""Section of the report about estimated Pfirrmann grades, beside a reader's where there are any."""

from collections.abc import Sequence, Set

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.grades import ESTIMATED, GRADES, ROMAN
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.tables import Column, Table, to_number

from ..engine import GroupContext, group_rows
from ..folder import level_columns, trained_on
from .page import Paragraph, Section, TableBlock

NETWORK = "disc-grades"


def grades(context: GroupContext) -> Section | None:
    """Return estimated grades by level, and their agreement with those read."""
    rows = [r for r in group_rows(context, "grades") if r["level"] in LUMBAR_LEVELS]
    if not rows:
        return None
    section = Section("Estimated Pfirrmann grades", "grades",
                      lead="A network's estimate from the T2-weighted signal, not a reader's grade. Discs without an "
                           "estimate have a statement in group/grades.tsv.")
    counts = Table("grades", [Column("level"), *(Column(name) for name in ROMAN), Column("no estimate")])
    for level in LUMBAR_LEVELS:
        found = [r.get(ESTIMATED) for r in rows if r["level"] == level]
        if found:
            counts.rows.append({"level": level, **{name: found.count(n) for n, name in enumerate(ROMAN, 1)},
                                "no estimate": sum(v != v for v in found)})
    section.add(TableBlock(counts, "Discs by estimated grade", file="group/grades.tsv"))
    known = trained_on(context.study, NETWORK)
    beside = grades_beside(rows, context.study.participants, known)
    if beside.rows:
        section.add(*_agreement(rows, context.study.participants, known),
                    TableBlock(beside, "Read / estimated grade of each disc; * is in the network's training set"))
    return section


def pairs(rows: Sequence[dict], participants: Table) -> dict[tuple[str, str], tuple[float, float | None]]:
    """Return (person, level) -> the grade read (column ``pfirrmann_<level>``) and the estimated one or None."""
    columns = level_columns(participants.names).get("pfirrmann", {})
    estimated = {(r["participant_id"], r["level"]): to_number(r.get(ESTIMATED)) for r in rows}
    return {(row["participant_id"], level): (read, estimated[row["participant_id"], level])
            for row in participants.rows for level, column in columns.items()
            if (row["participant_id"], level) in estimated and (read := to_number(row[column])) is not None}


def grades_beside(rows: Sequence[dict], participants: Table, known: Set[str]) -> Table:
    """Return one row per person: read / estimated grade of each level; people of the set `known` have a star."""
    found = pairs(rows, participants)
    table = Table("read and estimated grades", [Column("participant"), *(Column(v) for v in LUMBAR_LEVELS)])
    for person in dict.fromkeys(p for p, _ in found):
        cells = {v: f"{_roman(found[person, v][0])} / {_roman(found[person, v][1])}" for v in LUMBAR_LEVELS
                 if (person, v) in found}
        table.rows.append({"participant": person + " *" * (person in known), **cells})
    return table


def _roman(grade: float | None) -> str:
    return "\N{EN DASH}" if grade is None else ROMAN[int(grade) - 1]


def _agreement(rows: Sequence[dict], participants: Table, known: Set[str]) -> list:
    """Return agreement with the reader, of people trained on and of others, and counts of grade by grade."""
    from DiscStatsLib.tables import weighted_kappa

    found = {key: pair for key, pair in pairs(rows, participants).items() if pair[1] is not None}
    table = Table("agreement", [Column("people"), Column("n"), Column("discs"), Column("weighted kappa"),
                                Column("same grade", "%"), Column("within one", "%"), Column("mean error")])
    for name, inside in (("in the network's training set", True), ("not in it", False)):
        some = np.array([pair for (p, _), pair in found.items() if (p in known) == inside], float).reshape(-1, 2)
        if not len(some):
            continue
        error = np.abs(some[:, 0] - some[:, 1])
        try:
            kappa = weighted_kappa(*some.T)
        except DesignError:
            kappa = float("nan")
        table.rows.append({"people": name, "n": len({p for p, _ in found if (p in known) == inside}),
                           "discs": len(some), "weighted kappa": kappa, "same grade": 100 * float(np.mean(error == 0)),
                           "within one": 100 * float(np.mean(error <= 1)), "mean error": float(error.mean())})
    confusion = Table("confusion", [Column("read"), *(Column(f"estimated {name}") for name in ROMAN)])
    for n in range(1, GRADES + 1):
        estimates = [e for r, e in found.values() if r == n]
        confusion.rows.append({"read": ROMAN[n - 1],
                               **{f"estimated {name}": estimates.count(m) for m, name in enumerate(ROMAN, 1)}})
    text = ("Kappa has quadratic weights (Cohen 1968). The network has seen the grades of its training set, so that "
            "agreement there is optimistic; cross-validated figures are in the validation document.")
    return [TableBlock(table, "Agreement of estimated with read grades"), Paragraph(text, small=True),
            TableBlock(confusion, "Discs by read and estimated grade")]
