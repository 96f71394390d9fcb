"""How far a study is: one row per person."""

from DiscRelaxometryLib.tables import Column, Table

from ..engine import StudyRun

_WORDS = {"current": "done", "pending": "to do"}


def status_table(run: StudyRun) -> Table:
    """Return a plan as a table: how many steps are done, which are to do, failed or blocked, and why one failed."""
    rows: dict[str, dict] = {}
    for outcome in run.outcomes:
        row = rows.setdefault(outcome.person, {"participant": outcome.person or "group", "done": 0})
        state = _WORDS.get(outcome.state, outcome.state)
        if state == "done":
            row["done"] += 1
        else:
            row[state] = f"{row[state]}, {outcome.step}" if state in row else outcome.step
        if state == "failed":
            row.setdefault("message", f"{outcome.step}: {outcome.message}")
    names = ("participant", "done", "to do", "failed", "blocked", "message")
    return Table("status", [Column(n) for n in names if any(n in row for row in rows.values())], list(rows.values()))
