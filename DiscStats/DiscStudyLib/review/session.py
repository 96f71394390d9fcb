"""A reviewer's way through a study: who is next, what was decided, and new decisions, written at once."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Image, read_image, write_image
from DiscRelaxometryLib.labels import BY_VALUE, DISCS, disc_name, disc_value

from ..engine import (
    Record,
    ReviewedDisc,
    endings,
    exclusive,
    held,
    looked_at,
    review_records,
    review_times,
    reviewed_discs,
)
from ..folder import (
    ALL,
    CORRECTED,
    EXCLUDED,
    RENAMED,
    REVIEW,
    Decision,
    Study,
    apply_decisions,
    change,
    corrected_mask,
    last_settings,
    read_decisions,
    require_unchanged,
    stale,
)

_ANCHOR = "review-decisions"


@dataclass(frozen=True)
class Look:
    """What a reviewer of one person sees."""

    person: str
    #: From head to foot.
    discs: list[ReviewedDisc]
    #: The person's decisions now, to be handed back with a new one.
    seen: dict[tuple[str, str], Decision]

    @property
    def flagged(self) -> bool:
        """Whether the software flagged a disc."""
        return any(d.flags for d in self.discs)

    @property
    def done(self) -> bool:
        """Whether the flagged discs are decided on; of a person without any, all discs."""
        return all(d.settled for d in self.discs if d.flags or not self.flagged)


class Session:
    """Decisions about a study that was run.

    Parameters
    ----------
    path : path
        Study folder.
    output, session : as of :class:`DiscStudyLib.Study`
    reviewer : str
        Initials, written into each decision.

    Raises
    ------
    StudyError
        If the study has no results, or its file of decisions has errors.
    """

    def __init__(self, path: str | os.PathLike, output=None, session: str = "", reviewer: str = ""):
        self.study, self.reviewer = Study(Path(path), session, output), " ".join(reviewer.split())
        self.settings = last_settings(self.study)
        self.file = self.study.output / REVIEW
        self._looks: dict[str, tuple] = {}
        #: Everyone with outlines, flagged people first.
        self.people = sorted(f.name for f in self.study.output.glob("sub-*") if self.study.folder_of(f.name).is_dir())
        self.people = [k.person for k in sorted(self.overview(), key=lambda k: (not k.flagged, k.person))]
        if not self.people:
            raise StudyError("No participant has outlines yet: use 'disc-relaxometry run' first.", anchor="study-run")

    def look(self, person: str) -> Look:
        """Return a person's discs and decisions as they are on disk now."""
        records = review_records(self.study, person)
        if not records:
            raise StudyError(f"'{person}' has no outlines to review: check the id, or run the study.", anchor=_ANCHOR)
        return self._look(person, records, {disc: d for disc, d in read_decisions(self.file).items()
                                            if disc[0] == person})

    def _look(self, person: str, records: Mapping[str, Record], seen: dict[tuple[str, str], Decision]) -> Look:
        return Look(person, reviewed_discs(self.settings, person, records, seen), seen)

    def overview(self) -> list[Look]:
        """Return everyone, flagged people first; without those whose outlines are just being made anew."""
        decisions: dict[str, dict] = {}
        for disc, decision in read_decisions(self.file).items():
            decisions.setdefault(disc[0], {})[disc] = decision
        return [look for p in self.people if (look := self._known(p, decisions.get(p, {})))]

    def _known(self, person: str, seen: dict) -> Look | None:
        """Return a look that is read again where records or decisions have changed; None without outlines."""
        stamp = (review_times(self.study, person), seen)
        if self._looks.get(person, ("",))[0] != stamp:
            records = review_records(self.study, person)
            self._looks[person] = stamp, self._look(person, records, seen) if records else None
        return self._looks[person][1]

    @property
    def read_only(self) -> bool:
        """Whether a run is in progress, so that no decision can be written."""
        return held(self.study.output)

    def outlines(self, person: str) -> Image:
        """Return the outlines that a reviewer looks at: as segmented, with the discs that were drawn in their place."""
        labels = self.segmented(person)
        drawn = [replace(d, renamed_to="") for d in self.look(person).seen.values() if d.decision == CORRECTED]
        return apply_decisions(labels, drawn, self._drawn(person))[0] if drawn else labels

    def decide(self, person: str, level: str, kind: str, *, reason: str = "", renamed_to: str = "",
               seen: Mapping[tuple[str, str], Decision] | None = None) -> None:
        """Write one decision about a disc, or about the whole person (``all``).

        A new name that another disc has moves all discs of the person by as many levels.

        Parameters
        ----------
        seen : mapping, optional
            The decisions that the reviewer saw; by default those on disk.

        Raises
        ------
        StudyError
            If it is no decision, cannot be obeyed, a run is in progress, or another reviewer decided meanwhile.
        """
        look, reason = self.look(person), " ".join(reason.split())
        known = [d.level for d in look.discs]
        if level not in (*known, ALL):
            raise StudyError(f"{person} has no disc {level}: there are {', '.join(known)}.", anchor=_ANCHOR)
        if kind == CORRECTED:
            raise StudyError("A correction is drawn: use the review page or the Segment Editor.", anchor=_ANCHOR)
        if kind == RENAMED and level == ALL:
            raise StudyError("One disc is renamed: name it; its neighbors follow.", anchor=_ANCHOR)
        if kind == RENAMED:
            made = [self._renamed(look, v, to, reason) for v, to in _new_names(look, level, renamed_to).items()]
        else:
            made = [Decision(person, level, kind, renamed_to, reason)]
        self._write(person, made, seen if seen is not None else look.seen)

    def _renamed(self, look: Look, level: str, name: str, reason: str) -> Decision:
        """Return a disc's new name; a correction stays one."""
        earlier = look.seen.get((look.person, level))
        kind = CORRECTED if earlier and earlier.decision == CORRECTED else RENAMED
        return Decision(look.person, level, kind, name, reason)

    def take_back(self, person: str, level: str, seen: Mapping[tuple[str, str], Decision] | None = None) -> None:
        """Remove a decision about a disc, or about the whole person."""
        look = self.look(person)
        if (person, level) not in look.seen:
            raise StudyError(f"Nothing was decided about {person}, {level}.", anchor=_ANCHOR)
        self._write(person, [], look.seen if seen is None else seen, back=[level])

    def correct(self, person: str, drawn: Image, seen: Mapping[tuple[str, str], Decision] | None = None) -> list[str]:
        """Keep a mask that a reviewer drew, and a decision for each disc that differs from the automatic one.

        Returns
        -------
        list of str
            Levels that differ; ``all`` where something else than discs was drawn.
        """
        labels, look = self.segmented(person), self.look(person)
        problem = labels.geometry.difference(drawn.geometry)
        if problem:
            raise StudyError(f"The drawn mask is not on the image's grid ({problem}): nothing was saved.",
                             anchor=_ANCHOR)
        old, new = labels.array, np.asarray(drawn.array).astype(labels.array.dtype)
        unknown = sorted(set(np.unique(new).tolist()) - {0, *BY_VALUE})
        if unknown:
            raise StudyError(f"The drawn mask holds the values {unknown}, which name no structure: nothing was saved.",
                             anchor=_ANCHOR)
        values = [d.value for d in DISCS]
        levels = [disc_name(v) for v in values if ((old == v) != (new == v)).any()]
        gone = [v for v in levels if not (new == disc_value(v)).any()]
        if gone:
            raise StudyError(f"Nothing is left of {', '.join(gone)}: exclude the disc instead; nothing was saved.",
                             anchor=_ANCHOR)
        rest = ~np.isin(old, values) & ~np.isin(new, values)
        if (old[rest] != new[rest]).any():
            levels = [ALL]
        back = [d.level for d in look.seen.values() if d.decision == CORRECTED and d.level not in levels]
        if levels or back:
            names = {d.level: d.renamed_to for d in look.seen.values()}
            self._write(person, [Decision(person, v, CORRECTED, names.get(v, "")) for v in levels],
                        look.seen if seen is None else seen, back, labels.like(new))
        return levels

    def _write(self, person: str, made: Iterable[Decision], seen: Mapping, back: Iterable[str] = (),
               drawn: Image | None = None) -> None:
        """Write decisions, and the drawn mask before them: a mask without a decision is not used."""
        now = looked_at(review_records(self.study, person)["segment"])
        new: dict = {(person, level): None for level in back}
        new |= {d.disc: replace(d, reviewer=self.reviewer, looked_at=now) for d in made}
        with exclusive(self.study.output):
            after = {k: d for k, d in {**read_decisions(self.file), **new}.items() if k[0] == person and d}
            mask = drawn if drawn is not None else self._drawn(person)
            if any(d.decision in (RENAMED, CORRECTED) for d in after.values()):  # what cannot be obeyed is refused now
                apply_decisions(self.segmented(person), list(after.values()), mask,
                                [d.level for d in after.values() if stale(d, now)])
            require_unchanged(read_decisions(self.file), new, seen)
            if drawn is not None:
                write_image(drawn, corrected_mask(self.study, person))
            change(self.file, new, seen)

    def segmented(self, person: str) -> Image:
        """Return the automatic outlines."""
        record = review_records(self.study, person)["segment"]
        name = next(n for n in record.outputs if n.endswith(endings.DISCS))
        return read_image(self.study.absolute(name))

    def _drawn(self, person: str) -> Image | None:
        path = corrected_mask(self.study, person)
        return read_image(path) if path.exists() else None


def _new_names(look: Look, level: str, name: str) -> dict[str, str]:
    """Return {level: new name} of a disc and, where another one has that name, of all that are not excluded."""
    others = [d for d in look.discs if d.level != level and not (d.decision and d.decision.decision == EXCLUDED)]
    if name == level:
        raise StudyError(f"{level} has this name already: take a decision back to undo it.", anchor=_ANCHOR)
    if name not in [d.name for d in others]:
        return {level: name}
    shift = disc_value(name) - disc_value(level)
    return {v: _shifted(v, shift) for v in (level, *(d.level for d in others))}


def _shifted(level: str, shift: int) -> str:
    found = BY_VALUE.get(disc_value(level) + shift)
    if found is None or found.kind != "disc":
        raise StudyError(f"{level} cannot move by {abs(shift)} level(s): exclude it first.", anchor=_ANCHOR)
    return found.name
