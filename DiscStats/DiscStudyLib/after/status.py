"""How far a study is: one row per person, one column per step."""

from __future__ import annotations

from DiscRelaxometryLib.tables import Column, Table

from ..engine import StudyRun

_WORDS = {"current": "done", "pending": "to do", "failed": "failed", "blocked": "blocked", "done": "done"}


def status_table(run: StudyRun) -> Table:
    """Return a plan as a table: ``done``, ``to do``, ``failed``, ``blocked``, or empty where a step does not apply."""
    steps = list(dict.fromkeys(o.step for o in run.outcomes))
    table = Table("status", [Column("participant"), *(Column(s) for s in steps), Column("message")])
    rows: dict[str, dict] = {}
    for outcome in run.outcomes:
        row = rows.setdefault(outcome.person, {"participant": outcome.person or "group", "message": ""})
        row[outcome.step] = _WORDS[outcome.state]
        if outcome.state == "failed" and not row["message"]:
            row["message"] = f"{outcome.step}: {outcome.message}"
    table.rows = list(rows.values())
    return table
