"""The review step: what reviewers decided becomes the labels that every later step reads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from DiscRelaxometryLib.image import read_image, write_image

from ..engine import Context, Step, file_hash
from ..folder import REVIEW, Decision, apply_decisions, read_decisions, stale

_DECIDING = ("decision", "renamed_to", "looked_at")


def _decisions(context: Context) -> list[Decision]:
    found = read_decisions(context.study.output / REVIEW)
    return [d for (person, _), d in found.items() if person == context.person.id]


def _corrected(context: Context) -> list[Path]:
    """Return the mask that a reviewer drew, if there is one."""
    path = context.folder / "anat" / f"{context.person.id}_desc-reviewed_dseg.nii.gz"
    return [path] if path.exists() else []


def _run_review(context: Context) -> list[Path]:
    decisions, corrected = _decisions(context), _corrected(context)
    path = context.output_of("segment", "desc-discs_dseg.nii.gz")
    now = file_hash(path)
    old = [d.level for d in decisions if stale(d, now)]
    context.facts["decisions"] = {d.level: {**asdict(d), "stale": d.level in old} for d in decisions}
    if old:
        context.notes.append(f"The outlines have changed since the review of {', '.join(old)}: look again.")
    labels = read_image(path)
    decided, notes = apply_decisions(labels, decisions, read_image(corrected[0]) if corrected else None, old)
    context.notes += notes
    if not (decided.array != labels.array).any():
        return []
    return [write_image(decided, context.path("desc-final_dseg.nii.gz"))]


def review_step() -> Step:
    """Return the step that applies decisions; without any, the labels stay as they were segmented."""
    return Step("review", "1", _run_review, _corrected, needs=("segment",),
                extra=lambda c: {d.level: [getattr(d, name) for name in _DECIDING] for d in _decisions(c)})
