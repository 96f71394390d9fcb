"""A study obeys its reviewers: decisions change exactly what depends on them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import make_settings, run_study
from DiscStudyLib.engine import GroupContext, looked_at, read_rows, review_records
from DiscStudyLib.folder import Decision, Study, decide
from DiscStudyLib.steps.review import decisions_step

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_spine_study(tmp_path_factory.mktemp("review"), (1, 3, 5, 2))
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


def text_of(report) -> str:
    """Return the page's text without tags, in one line."""
    return " ".join(re.sub("<[^>]*>", " ", report.read_text(encoding="utf-8")).split())


def levels(study, table="discs"):
    return {(r["participant_id"], r["level"]) for r in read_rows(results(study) / "group" / f"{table}.tsv").rows}


def test_an_excluded_disc_is_missing_in_every_later_step(study):
    before = levels(study)
    _, redone = decided(study, "sub-01", "L4-L5", "excluded")
    assert redone == {"sub-01": {"review", "normalize", "measure", "automatic", "grade", "tile", "atlas"}}
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
    _, redone = decided(study, "sub-03", "all", "accepted", reviewer="AB")
    assert redone == {"sub-03": {"review"}}
    assert {p: p.read_bytes() for p in results(study).glob("sub-*/anat/*.nii.gz")} == before


def test_report_says_who_decided_what_and_how_the_numbers_changed(study):
    rows = read_rows(results(study) / "group" / "review_sensitivity.tsv").rows
    found = {r["review"]: r for r in rows if r["map"] == "nT2w"}
    assert (found["with"]["people"], found["without"]["people"]) == (4, 4)
    assert (found["with"]["discs"], found["without"]["discs"]) == (11, 12)  # L4-L5 of sub-01 is out
    regions = [r for r in read_rows(results(study) / "group" / "regions.tsv").rows if r["region"] == "whole"]
    means = [r["mean"] for r in regions]
    assert (found["with"]["mean"], found["with"]["sd"]) == pytest.approx((np.mean(means), np.std(means, ddof=1)), 1e-4)
    first = next(results(study).glob("sub-01/anat/*desc-discs_dseg.nii.gz"))
    signal = read_image(first.with_name("sub-01_desc-csfnorm_nT2w.nii.gz")).array
    lost = signal[read_image(first).array == disc_value("L4-L5")]
    second = results(study) / "sub-02" / "anat"
    signal = read_image(second / "sub-02_desc-csfnorm_nT2w.nii.gz").array
    old, new = (read_image(second / f"sub-02_desc-{n}_dseg.nii.gz").array == disc_value("L4-L5")
                for n in ("discs", "final"))
    total = 11 * found["with"]["mean"] + np.nanmean(lost) + np.nanmean(signal[old]) - np.nanmean(signal[new])
    assert found["without"]["mean"] == pytest.approx(total / 12, rel=1e-3)
    text = text_of(results(study) / "report.html")
    assert "reviewed by AB: 3 accepted, 1 corrected, 1 excluded (discs)" in text


@pytest.mark.parametrize("change", [{"reason": "looked twice"}, {"reviewer": "CD"}, {"decision": "excluded"}])
def test_a_decision_in_other_words_is_another_decision(study, change):
    """Of the same disc, with the same outlines: the group's table of decisions is due."""
    found, path = Study(study), results(study) / "review.tsv"
    context = GroupContext(found, make_settings(), {}, everyone={p.id: review_records(found, p.id)
                                                                for p in found.people})
    before, text, seen = decisions_step().extra(context), path.read_bytes(), list_of(study)["sub-03", "all"]
    try:
        decide(path, replace(seen, **change), seen)
        assert decisions_step().extra(context) != before
    finally:
        path.write_bytes(text)


def test_a_decision_about_other_outlines_is_shown_as_stale(study):
    now = looked_at(review_records(Study(study), "sub-03")["segment"])
    decided(study, "sub-03", "L3-L4", "accepted", looked_at=now)
    assert "Stale" not in text_of(results(study) / "report.html")
    earlier = list_of(study)["sub-03", "L3-L4"]
    decide(results(study) / "review.tsv", Decision("sub-99", "all", "accepted"))
    decide(results(study) / "review.tsv", Decision("sub-03", "L3-L4", "accepted", looked_at="older"), earlier)
    run_study(study)
    assert "participants without results were not used: sub-99, all." in text_of(results(study) / "report.html")
    assert "disc-relaxometry review" in (results(study) / "review.html").read_text(encoding="utf-8")
    assert "Stale decisions, to be looked at again: sub-03, L3-L4." in text_of(results(study) / "report.html")


def list_of(study):
    from DiscStudyLib.folder import read_decisions

    return read_decisions(results(study) / "review.tsv")


def test_the_group_waits_until_what_is_asked_for_is_decided(study):
    before = (results(study) / "report.html").stat().st_mtime_ns
    with pytest.raises(StudyError, match=r"^\d+ disc\(s\) of 4 participant\(s\) wait for review, the first is sub-01 "):
        run_study(study, require_review="all")
    for person in ("sub-01", "sub-02", "sub-04"):
        decide(results(study) / "review.tsv", Decision(person, "all", "accepted"))
    with pytest.raises(StudyError, match=r"^1 disc\(s\) of 1 participant\(s\) wait for review, .* sub-03 L3-L4"):
        run_study(study, require_review="all")  # the stale one
    assert (results(study) / "report.html").stat().st_mtime_ns == before
    decide(results(study) / "review.tsv", Decision("sub-03", "L3-L4", "accepted"), list_of(study)["sub-03", "L3-L4"])
    assert run_study(study, require_review="all").report


def test_an_excluded_person_leaves_the_group_and_is_named(study):
    path = results(study) / "review.tsv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("sub-04")))
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
