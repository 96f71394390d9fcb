"""What reviewers decided about each disc: ``review.tsv``, which every later step obeys.

One row per decision: a participant, a level (or ``all``), and what was decided. A later decision about the same disc
replaces an earlier one, so two files are merged by putting their rows together. ``looked_at`` is a hash of what the
reviewer saw: a decision about something that has changed since is stale.
"""

import datetime
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import BY_NAME, BY_VALUE, disc_value
from DiscRelaxometryLib.tables import Column, Table, is_missing, read_tsv

from .study import Study

#: Where a study's decisions lie in its results folder.
REVIEW = "review.tsv"
#: In place of a level: the whole participant.
ALL = "all"
ACCEPTED, CORRECTED, RENAMED, EXCLUDED = KINDS = ("accepted", "corrected", "renamed", "excluded")


def corrected_mask(study: Study, person: str) -> Path:
    """Return where the mask that a reviewer draws lies."""
    return study.output / person / "anat" / f"{person}_desc-reviewed_dseg.nii.gz"


@dataclass(frozen=True)
class Decision:
    """One decision of a reviewer.

    Raises
    ------
    StudyError
        If the decision, the level or the new name is unknown, or a reason is missing.
    """

    #: ``sub-XX``.
    participant_id: str
    #: A disc such as ``L4-L5`` as it was named when it was looked at, or ``all``.
    level: str
    #: ``accepted``, ``corrected`` (a mask was drawn), ``renamed`` or ``excluded``.
    decision: str
    #: The level's right name, where it was renamed; a corrected disc may have one too.
    renamed_to: str = ""
    #: Why; required where something was excluded.
    reason: str = ""
    #: Initials, if given.
    reviewer: str = ""
    #: UTC, such as ``2026-01-31T12:00:00Z``.
    date: str = ""
    #: Hash of what was looked at; see :func:`stale`.
    looked_at: str = ""

    def __post_init__(self):
        if self.decision not in KINDS:
            raise StudyError(f"'{self.decision}' is no decision: write {', '.join(KINDS[:-1])} or {KINDS[-1]}.",
                             anchor="review-decisions")
        if self.level != ALL and self.level not in BY_NAME:
            raise StudyError(f"'{self.level}' is not a level: write a name such as L4-L5, or '{ALL}'.",
                             anchor="review-decisions")
        named = {RENAMED: bool(self.renamed_to), CORRECTED: True}.get(self.decision, not self.renamed_to)
        if not named or self.renamed_to and (self.renamed_to not in BY_NAME or self.level == ALL):
            raise StudyError(f"{self.participant_id}, {self.level}: the column renamed_to must hold a level such as "
                             f"L4-L5 where, and only where, a disc was renamed.", anchor="review-decisions")
        if self.decision == EXCLUDED and is_missing(self.reason):
            raise StudyError(f"{self.participant_id}, {self.level}: say in the column reason why it was excluded.",
                             anchor="review-decisions")

    @property
    def disc(self) -> tuple[str, str]:
        """Participant and level."""
        return self.participant_id, self.level


#: Columns of the file.
COLUMNS = [Column("participant_id", "", "Participant"), Column("level", "", f"Disc as named then, or '{ALL}'"),
            Column("decision", "", "accepted, corrected, renamed or excluded"),
            Column("renamed_to", "", "The level's right name"),
            Column("reason", "", "Why, in the reviewer's words"), Column("reviewer", "", "Initials"),
            Column("date", "", "When, UTC"),
           Column("looked_at", "", "SHA-256 of the outlines and the images that were looked at")]


def read_decisions(path: str | os.PathLike) -> dict[tuple[str, str], Decision]:
    """Return {(participant, level): decision}; the latest of several counts; empty where there is no file.

    Raises
    ------
    StudyError
        If a row, perhaps edited by hand, holds something else than a decision; it names file and line.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return {}
    return dict(_as_written(str(path), (state.st_mtime_ns, state.st_size, state.st_ino)))


@lru_cache(maxsize=2)
def _as_written(path: str, state: tuple[int, ...]) -> dict[tuple[str, str], Decision]:
    """Read a file once for each `state` (time, size, inode) of it."""
    names = [f.name for f in fields(Decision)]
    found = []
    table = read_tsv(path, required=names[:3])
    for line, row in zip(table.lines, table.rows):
        cells = {n: (row.get(n) or "").strip() for n in names}
        try:
            found.append(Decision(**{n: "" if c == "n/a" else c for n, c in cells.items()}))
        except StudyError as error:
            raise StudyError(f"'{Path(path).name}', line {line}: {error.message}", anchor="review-decisions") from None
    return merge(found)


def merge(decisions: Iterable[Decision]) -> dict[tuple[str, str], Decision]:
    """Return the latest decision about each disc, in the order of participants and levels."""
    latest = {decision.disc: decision for decision in sorted(decisions, key=lambda d: d.date)}
    return dict(sorted(latest.items()))


def write_decisions(path: str | os.PathLike, decisions: Iterable[Decision]) -> Path:
    """Write decisions, one row per disc, and the columns' descriptions beside them, atomically."""
    rows = [asdict(d) for d in merge(decisions).values()]
    return Table("review", COLUMNS, [{k: v or None for k, v in row.items()} for row in rows]).write(path)


def decide(path: str | os.PathLike, decision: Decision, seen: Decision | None = None) -> Decision:
    """Add one decision to a file, dated now; `seen` is the earlier one that the reviewer saw. See :func:`change`."""
    return change(path, {decision.disc: decision}, {decision.disc: seen} if seen else {})[decision.disc]


def change(path: str | os.PathLike, new: Mapping[tuple[str, str], Decision | None],
           seen: Mapping[tuple[str, str], Decision]) -> dict[tuple[str, str], Decision]:
    """Write new decisions, dated now, all or none; return all decisions of the file.

    Parameters
    ----------
    path : path
    new : mapping
        (participant, level) -> decision; None takes the decision back.
    seen : mapping
        The decisions that the reviewer saw.

    Raises
    ------
    StudyError
        If another reviewer decided about one of the discs meanwhile: nothing is written then.
    """
    present = read_decisions(path)
    require_unchanged(present, new, seen)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # What is replaced goes, whatever its date: the clock of another machine may be ahead.
    kept = {disc: d for disc, d in present.items() if disc not in new}
    kept |= {disc: replace(d, date=now) for disc, d in new.items() if d}
    write_decisions(path, kept.values())
    return merge(kept.values())


def require_unchanged(present: Mapping[tuple[str, str], Decision], new: Mapping, seen: Mapping) -> None:
    """Raise StudyError if a disc that was seen, or is decided about now, was decided about meanwhile."""
    for disc in sorted({*new, *seen}):
        if present.get(disc) != seen.get(disc):
            earlier = present.get(disc)
            who = f" by {earlier.reviewer}" if earlier and earlier.reviewer else ""
            raise StudyError(f"{disc[0]}, {disc[1]} was decided{who} meanwhile "
                             f"({earlier.decision if earlier else 'taken back'}): look at it again.",
                             anchor="review-decisions")


def decision_for(decisions: Mapping[tuple[str, str], Decision], person: str, level: str) -> Decision | None:
    """Return what was decided about a disc: by itself, else with the whole participant.

    An excluded participant's discs are excluded, whatever was decided about each.
    """
    whole = decisions.get((person, ALL))
    if whole and whole.decision == EXCLUDED:
        return whole
    return decisions.get((person, level), whole)


def stale(decision: Decision, looked_at: str) -> bool:
    """Say whether what a decision is about has changed since (`looked_at` is its present hash)."""
    return bool(decision.looked_at) and decision.looked_at != looked_at


def compare_reviews(first: Sequence[Decision], second: Sequence[Decision]) -> Table:
    """Return what two reviewers decided about the same discs, one row per disc, the differing ones first.

    A disc counts as agreed where both keep it under one name, or both exclude it: a corrected outline is kept.
    """
    one, two = merge(first), merge(second)
    rows = [{"participant_id": disc[0], "level": disc[1], "first": one[disc].decision, "second": two[disc].decision,
             "agree": _outcome(one[disc]) == _outcome(two[disc])} for disc in one if disc in two]
    return Table("review-agreement", [Column("participant_id", "", "Participant"), Column("level", "", "Disc"),
                                      Column("first", "", "First reviewer"), Column("second", "", "Second reviewer"),
                                      Column("agree", "", "Same name, or both excluded")],
                 sorted(rows, key=lambda r: (r["agree"], r["participant_id"], r["level"])))


def _outcome(decision: Decision) -> str:
    return EXCLUDED if decision.decision == EXCLUDED else decision.renamed_to or decision.level


def apply_decisions(labels: Image, decisions: Sequence[Decision], corrected: Image | None = None,
                    changed: Sequence[str] = ()) -> tuple[Image, list[str]]:
    """Return the labels as decided, and notes for the reader.

    Parameters
    ----------
    labels : Image
        As segmented; values of ``DiscRelaxometryLib.labels``.
    decisions : sequence of Decision
        Of one participant. A corrected disc is taken from `corrected`, an excluded one is removed, a renamed one gets
        its new value; all at once, so that neighbors may change names together. An excluded participant keeps the
        labels: the group step leaves the participant out.
    corrected : Image, optional
        The mask that a reviewer drew, on the same grid.
    changed : sequence of str
        Levels whose labels have changed since they were looked at: their new names no longer hold and are not given,
        corrections and exclusions do.

    Raises
    ------
    StudyError
        If two discs would have one name, or a corrected mask is missing, has another grid, or lacks the disc.
    """
    array, notes = labels.array.copy(), []
    if corrected is not None and (problem := labels.geometry.difference(corrected.geometry)):
        raise StudyError(f"The corrected mask (desc-reviewed) is not on the image's grid ({problem}): save it with the "
                         "image as reference.", anchor="review-decisions")
    drawn = [d for d in decisions if d.decision == CORRECTED]
    if drawn and corrected is None:
        raise StudyError(f"{', '.join(d.level for d in drawn)} was corrected, and there is no mask desc-reviewed_dseg: "
                         "save the correction, or take the decision back.", anchor="review-decisions")
    if corrected is not None and not drawn:
        notes.append("A corrected mask (desc-reviewed) is there, and no decision says so: it was not used.")
    for decision in drawn:
        assert corrected is not None  # see above
        if decision.level == ALL:
            array = corrected.array.astype(array.dtype)
            continue
        value = disc_value(decision.level)
        if not (corrected.array == value).any():
            raise StudyError(f"The corrected mask has no {decision.level}.", anchor="review-decisions")
        array[array == value] = 0
        array[corrected.array == value] = value
    names = {d.level: d.renamed_to for d in decisions if d.renamed_to and d.level not in changed}
    gone = {disc_value(d.level) for d in decisions if d.decision == EXCLUDED and d.level != ALL}
    present = [v for v in np.unique(array) if v in BY_VALUE and BY_VALUE[v].kind == "disc" and v not in gone]
    after = {int(v): disc_value(names.get(BY_VALUE[v].name, BY_VALUE[v].name)) for v in present}
    twice = [BY_VALUE[v].name for v, count in Counter(after.values()).items() if count > 1]
    if twice:
        raise StudyError(f"After renaming, two discs would be {', '.join(twice)}: rename the other one too.",
                         anchor="review-decisions")
    table = np.arange(256, dtype=array.dtype)
    table[list(gone)] = 0
    for old, new in after.items():
        table[old] = new
    return labels.like(table[array]), notes
