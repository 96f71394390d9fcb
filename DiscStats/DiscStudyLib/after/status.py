"""How far a study is: one row a person, one column a step."""

from __future__ import annotations

from pathlib import Path

from DiscRelaxometryLib.tables import Column, Table

from ..engine import PIPELINE, Outcome, RunSpec, last_settings, run_group, run_person
from ..folder import Study, make_settings

_WORDS = {"current": "done", "pending": "to do", "failed": "failed", "blocked": "blocked", "done": "done"}


def status_outcomes(path, output=None, people=(), pipeline: str = PIPELINE, **settings) -> list[Outcome]:
    """Return what a run would do for each person and step; without settings, those of the last run are taken."""
    study = Study(Path(path), settings.get("session", ""), output, tuple(people))
    used = (study.output / "settings.json").exists()
    settings = last_settings(study) if used and not any(settings.values()) else make_settings(**settings)
    spec = RunSpec(str(study.root), str(study.output), settings, pipeline, dry_run=True)
    ids = [p.id for p in study.people]
    outcomes = []
    for number, stage in enumerate(spec.stages()):
        if stage.kind == "person":
            for person in ids:
                outcomes += run_person(spec, person, number)
        else:
            outcomes += run_group(spec, ids, number)
    return outcomes


def status_table(path, output=None, people=(), pipeline: str = PIPELINE, **settings) -> Table:
    """Return the status as a table: ``done``, ``to do``, ``failed`` or empty (does not apply) for each step."""
    outcomes = status_outcomes(path, output, people, pipeline, **settings)
    steps = list(dict.fromkeys(o.step for o in outcomes))
    table = Table("status", [Column("person"), *(Column(s) for s in steps), Column("message")])
    rows: dict[str, dict] = {}
    for outcome in outcomes:
        row = rows.setdefault(outcome.person, {"person": outcome.person or "group", "message": ""})
        row[outcome.step] = _WORDS[outcome.state]
        if outcome.state == "failed" and not row["message"]:
            row["message"] = f"{outcome.step}: {outcome.message}"
    table.rows = list(rows.values())
    return table
