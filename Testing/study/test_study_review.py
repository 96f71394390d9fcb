"""A study obeys its reviewers: decisions change exactly what depends on them."""

from __future__ import annotations

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study

from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import run_study
from DiscStudyLib.engine import read_rows
from DiscStudyLib.folder import Decision, decide

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_spine_study(tmp_path_factory.mktemp("review"), (1, 3, 5, 2), series=False)
    run_study(folder)
    return folder


def results(study):
    return study / "derivatives" / "disc-relaxometry"


def decided(study, person, level, kind, **more):
    """Write a decision, run the study again, and return the person steps that were redone, by person."""
    decide(results(study) / "review.tsv", Decision(person, level, kind, reason="tried", **more))
    run = run_study(study)
    assert {o.message for o in run.outcomes if o.state == "failed"} == set()
    redone = {}
    for outcome in run.outcomes:
        if outcome.state == "done" and outcome.person:
            redone.setdefault(outcome.person, set()).add(outcome.step)
    return run, redone


def levels(study, table="discs"):
    return {(r["participant_id"], r["level"]) for r in read_rows(results(study) / "group" / f"{table}.tsv").rows}


def test_an_excluded_disc_is_missing_in_every_later_step(study):
    before = levels(study)
    _, redone = decided(study, "sub-01", "L4-L5", "excluded")
    assert redone == {"sub-01": {"review", "normalize", "measure", "tile", "atlas"}}
    assert before - levels(study) == {("sub-01", "L4-L5")}
    warped = read_image(next(results(study).glob("sub-01/anat/*space-DiscAtlas_nT2w.nii.gz"))).array
    kept = read_image(next(results(study).glob("sub-02/anat/*space-DiscAtlas_nT2w.nii.gz"))).array
    assert np.isfinite(warped).sum() < np.isfinite(kept).sum()


def test_a_corrected_outline_is_measured(study):
    file = next(results(study).glob("sub-02/anat/*desc-discs_dseg.nii.gz"))
    image = read_image(file)
    value = disc_value("L4-L5")
    drawn = image.array.copy()
    drawn[: drawn.shape[0] // 2][drawn[: drawn.shape[0] // 2] == value] = 0
    write_image(image.like(drawn), file.with_name("sub-02_desc-reviewed_dseg.nii.gz"))
    _, redone = decided(study, "sub-02", "L4-L5", "corrected")
    assert set(redone) == {"sub-02"}
    final = read_image(next(results(study).glob("sub-02/anat/*desc-final_dseg.nii.gz"))).array
    assert (final == value).sum() == (drawn == value).sum() > 0
    volume = {r["level"]: r["volume"] for r in read_rows(results(study) / "group" / "discs.tsv").rows
              if r["participant_id"] == "sub-02"}["L4-L5"]
    assert volume == pytest.approx((drawn == value).sum() * np.prod(image.geometry.spacing) / 1000, rel=0.01)


def test_accepting_changes_no_result(study):
    before = {p: p.read_bytes() for p in results(study).glob("sub-*/anat/*.nii.gz")}
    _, redone = decided(study, "sub-03", "all", "accepted")
    assert redone == {"sub-03": {"review"}}
    assert {p: p.read_bytes() for p in results(study).glob("sub-*/anat/*.nii.gz")} == before


def test_an_excluded_person_leaves_the_group_and_is_named(study):
    run, redone = decided(study, "sub-04", "all", "excluded")
    assert run.missing == {"sub-04": "Excluded in review: tried"}
    assert "sub-04" not in {person for person, _ in levels(study)}
    assert "Excluded in review: tried" in run.report.read_text(encoding="utf-8")


def test_a_mask_of_another_grid_stops_that_person_and_says_why(study):
    file = next(results(study).glob("sub-03/anat/*desc-discs_dseg.nii.gz"))
    image = read_image(file)
    write_image(type(image)(image.array[:, :, ::2].copy(), image.geometry.__class__(
        (image.array[:, :, ::2].shape[2], *image.geometry.size[1:]), image.geometry.spacing)),
        file.with_name("sub-03_desc-reviewed_dseg.nii.gz"))
    decide(results(study) / "review.tsv", Decision("sub-03", "L4-L5", "corrected"))
    run = run_study(study)
    assert "not on the image's grid" in run.missing["sub-03"]
    assert "sub-03" not in {person for person, _ in levels(study)}
