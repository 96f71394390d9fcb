"""What a reviewer is to look at, and what was decided about it: one entry per disc of a participant."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from DiscRelaxometryLib.image import Image, read_volumes
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import is_missing

from ..folder import ALL, EXCLUDED, REVIEW, Decision, Settings, Study, decision_for, read_decisions, stale
from . import endings
from .provenance import Record, read_record
from .steps import record_path

#: What decides on flags and decisions.
_STEPS = ("segment", "review", "atlas")
#: Beginnings of flags that say nothing about the outlines: slabs of middle slices have lateral cuts by design.
_BY_DESIGN = ("cut at", "not all of")
_LEVEL = re.compile(r"\b[TL]\d+-[TLS]\d+\b")


@dataclass(frozen=True)
class ReviewedDisc:
    """A disc in the review."""

    person: str
    #: As it was segmented.
    level: str
    #: Why it is to be looked at.
    flags: tuple[str, ...] = ()
    #: What was decided about it, or about the whole participant.
    decision: Decision | None = None
    #: Whether the outlines or images have changed since.
    stale: bool = False

    @property
    def name(self) -> str:
        """Level after the review."""
        return (self.decision.renamed_to if self.decision and not self.stale else "") or self.level

    @property
    def settled(self) -> bool:
        """Whether a decision about it holds."""
        return self.decision is not None and not self.stale


def looked_at(segment: Record) -> str:
    """Return the hash of what a reviewer of a person looks at: the outlines, and the images they were drawn on."""
    outlines = [e["sha256"] for name, e in segment.outputs.items() if name.endswith(endings.DISCS)]
    images = sorted(e["sha256"] for e in segment.inputs.values())
    return hashlib.sha256(" ".join([*outlines, *images]).encode()).hexdigest()


def review_records(study: Study, person: str) -> dict[str, Record]:
    """Return the finished records that a review is about, by step; empty where the person has no outlines."""
    found = {step: r for step in _STEPS if (r := step_record(study, person, step))}
    return found if "segment" in found else {}


def outlined_image(study: Study, segment: Record) -> Image:
    """Return the image that was outlined: a volume, or the first echo of a series."""
    path = next(study.absolute(n) for n in segment.inputs if "_dseg" not in n and not n.endswith(".json"))
    _, array, geometry, _ = read_volumes(path)
    return Image(array[0] if array.ndim == 4 else array, geometry)


def review_times(study: Study, person: str) -> tuple:
    """Return when the records that a review is about were written (ns); None for one that is not there."""
    return tuple(path.stat().st_mtime_ns if path.exists() else None
                 for path in (record_path(study, person, step) for step in _STEPS))


def step_record(study: Study, person: str, step: str) -> Record | None:
    """Return the record of a finished step, whoever it is about."""
    record = read_record(record_path(study, person, step))
    return record if record and record.status == "done" else None


def serious_flags(row: Mapping) -> list[str]:
    """Return the flags of a row of the registration's table that a reader has to look at."""
    flags = (f.strip() for f in str(row.get("flags") or "").split(";") if not is_missing(f))
    return [f for f in flags if not f.startswith(_BY_DESIGN)]


def reviewed_discs(settings: Settings, person: str, records: Mapping[str, Record],
                   decisions: Mapping[tuple[str, str], Decision]) -> list[ReviewedDisc]:
    """Return a person's discs from head to foot, with flags of those that are analyzed, and decisions."""
    segment, now = records["segment"], looked_at(records["segment"])
    renamed = {d["renamed_to"]: level for level, d in
               (records["review"].facts.get("decisions", {}) if "review" in records else {}).items()
               if d["renamed_to"] and not d["stale"]}
    levels = sorted(segment.facts["levels"], key=disc_value, reverse=True)
    flags: dict[str, list[str]] = {level: [] for level in levels}
    judged = [d for d in segment.facts.get("discs", ()) if "why" in d]
    for disc in judged:
        flags.get(disc["name"], []).extend([disc["why"]] * bool(disc["why"]))
    if judged and segment.facts.get("certain") is False and levels:
        flags[levels[-1]].append("its level, and those counted from it, are assumptions")
    # A segmentation of the person's own, or of an earlier version, says no more than its notes.
    for note in () if judged else segment.notes:
        named = [v for v in _LEVEL.findall(note) if v in flags]
        for level in named or levels:
            flags[level].append(note)
    for row in records["atlas"].facts.get("quality", ()) if "atlas" in records else ():
        flags.get(renamed.get(row["level"], row["level"]), []).extend(serious_flags(row))
    made = ((level, decision_for(decisions, person, level)) for level in levels)
    return [ReviewedDisc(person, level, tuple(dict.fromkeys(flags[level])) if level in settings.levels or (
        d and d.renamed_to in settings.levels) else (), d, d is not None and stale(d, now)) for level, d in made]


def undecided(study: Study, settings: Settings, ids: Iterable[str], which: str = "flagged") -> list[ReviewedDisc]:
    """Return the discs about which no decision holds: the flagged ones, or ``all``."""
    decisions = read_decisions(study.output / REVIEW)
    discs = [d for p in ids if (records := review_records(study, p))
             for d in reviewed_discs(settings, p, records, decisions)]
    return [d for d in discs if not d.settled and (d.flags or which == "all")]


def decision_rows(study: Study, ids: Collection[str], everyone: Mapping[str, Mapping[str, Record]] | None = None,
                  ) -> list[dict]:
    """Return the decisions about some people, with the number of discs each decides on, and whether it is stale."""
    decisions, rows = read_decisions(study.output / REVIEW), []
    for (person, level), decision in decisions.items():
        records = (everyone or {}).get(person) or (review_records(study, person) if person in ids else {})
        if "segment" not in records:
            continue
        levels = records["segment"].facts["levels"]
        covered = [v for v in levels if decision_for(decisions, person, v) is decision]
        rows.append({**vars(decision), "discs": len(covered),
                     "stale": stale(decision, looked_at(records["segment"])) or (level != ALL and level not in levels)})
    return rows


def excluded_people(study: Study, ids: Collection[str]) -> dict[str, str]:
    """Return the people whom a reviewer excluded, and why."""
    return {p: f"Excluded in review: {d.reason}" for (p, level), d in read_decisions(study.output / REVIEW).items()
            if level == ALL and d.decision == EXCLUDED and p in ids}
