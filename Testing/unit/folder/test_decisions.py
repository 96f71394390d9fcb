"""Reviewers' decisions on disk: whole, merged by disc, never written over, and clear about errors."""

import itertools
import json

import numpy as np
import pytest

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStudyLib.folder.decisions import (
    Decision,
    apply_decisions,
    change,
    compare_reviews,
    decide,
    decision_for,
    merge,
    read_decisions,
    stale,
    write_decisions,
)

FIRST = Decision("sub-02", "L4-L5", "excluded", reason="hardware", reviewer="AB", date="2026-01-02T00:00:00Z",
                 looked_at="x1")
LATER = Decision("sub-02", "L4-L5", "accepted", reviewer="CD", date="2026-01-03T00:00:00Z", looked_at="x2")
OTHER = Decision("sub-01", "L5-S1", "renamed", renamed_to="L4-L5", date="2026-01-01T00:00:00Z")


def test_decisions_read_back_as_written_whatever_their_order(tmp_path):
    for n, order in enumerate(itertools.permutations([FIRST, OTHER])):
        path = write_decisions(tmp_path / f"{n}.tsv", order)
        assert list(read_decisions(path).values()) == [OTHER, FIRST]
        assert path.with_suffix(".json").exists()
    assert (tmp_path / "0.tsv").read_bytes() == (tmp_path / "1.tsv").read_bytes()


def test_the_latest_decision_about_a_disc_counts_whatever_the_order_of_rows(tmp_path):
    for order in itertools.permutations([FIRST, LATER, OTHER]):
        assert merge(order) == {OTHER.disc: OTHER, LATER.disc: LATER}
    one, two = (write_decisions(tmp_path / f"{d.reviewer}.tsv", [d]) for d in (FIRST, LATER))
    text = two.read_text() + one.read_text().split("\n", 1)[1]
    (tmp_path / "both.tsv").write_text(text)
    assert list(read_decisions(tmp_path / "both.tsv").values()) == [LATER]


def test_a_decision_made_meanwhile_is_not_written_over(tmp_path):
    path = tmp_path / "review.tsv"
    written = decide(path, FIRST)
    with pytest.raises(StudyError, match="was decided by AB meanwhile \\(excluded\\): look at it again"):
        decide(path, LATER)
    assert read_decisions(path) == {FIRST.disc: written}
    assert decide(path, LATER, seen=written).decision == "accepted"
    with pytest.raises(StudyError, match="meanwhile"):
        decide(path, FIRST, seen=written)


@pytest.mark.parametrize("row, words", [
    ("sub-01\tL4-L5\tacepted\t\t\t\t\t", "line 2: 'acepted' is no decision"),
    ("sub-01\tL45\taccepted\t\t\t\t\t", "line 2: 'L45' is not a level"),
    ("sub-01\tL4-L5\texcluded\t\t\t\t\t", "line 2: sub-01, L4-L5: say in the column reason"),
    ("sub-01\tL4-L5\texcluded\t\tn/a\t\t\t", "line 2: sub-01, L4-L5: say in the column reason"),
    ("sub-01\tL4-L5\trenamed\t\t\t\t\t", "renamed_to must hold a level"),
    ("sub-01\tL4-L5\taccepted\tL3-L4\t\t\t\t", "renamed_to must hold a level"),
])
def test_errors_of_a_file_edited_by_hand_name_the_line(tmp_path, row, words):
    path = tmp_path / "review.tsv"
    path.write_text("participant_id\tlevel\tdecision\trenamed_to\treason\treviewer\tdate\tlooked_at\n" + row + "\n")
    with pytest.raises(StudyError, match=words):
        read_decisions(path)


def test_a_study_without_decisions_has_none(tmp_path):
    assert read_decisions(tmp_path / "review.tsv") == {}


def test_a_decision_is_stale_where_what_was_looked_at_changed():
    assert stale(FIRST, "x9") and not stale(FIRST, "x1") and not stale(OTHER, "x9")


def test_two_reviewers_are_compared_disc_by_disc():
    corrected = Decision("sub-03", "L1-L2", "corrected")
    table = compare_reviews([FIRST, OTHER, corrected], [LATER, OTHER, Decision("sub-03", "L1-L2", "accepted"),
                                                        Decision("sub-09", "all", "accepted")])
    assert [(r["participant_id"], r["agree"]) for r in table.rows] == [
        ("sub-02", False), ("sub-01", True), ("sub-03", True)]


def labels(*values) -> Image:
    """An image with two voxels of each value, in a row."""
    array = np.repeat(np.array(values, np.uint8), 2)[None, None]
    return Image(array, Geometry((array.size, 1, 1), (1, 1, 1)))


def decision(level, kind, **more) -> Decision:
    return Decision("sub-01", level, kind, reason="why", **more)


def values(image) -> list[int]:
    return image.array.ravel()[::2].tolist()


def test_neighbors_change_names_together_and_excluded_discs_go():
    segmented = labels(2, 11, 12, 13)  # canal, L5-S1, L4-L5, L3-L4
    up = [decision("L5-S1", "renamed", renamed_to="L4-L5"), decision("L4-L5", "renamed", renamed_to="L3-L4"),
          decision("L3-L4", "excluded")]
    assert values(apply_decisions(segmented, up)[0]) == [2, 12, 13, 0]
    assert values(segmented) == [2, 11, 12, 13]


def test_two_discs_cannot_get_one_name():
    with pytest.raises(StudyError, match="two discs would be L4-L5"):
        apply_decisions(labels(11, 12), [decision("L5-S1", "renamed", renamed_to="L4-L5")])


def test_an_excluded_participant_keeps_the_labels():
    assert values(apply_decisions(labels(2, 11, 12), [decision("all", "excluded")])[0]) == [2, 11, 12]


def test_only_the_corrected_disc_is_taken_from_the_drawn_mask():
    segmented, drawn = labels(11, 12, 31, 13), labels(11, 0, 12, 0)
    assert values(apply_decisions(segmented, [decision("L4-L5", "corrected")], drawn)[0]) == [11, 0, 12, 13]
    assert values(apply_decisions(segmented, [decision("all", "corrected")], drawn)[0]) == [11, 0, 12, 0]


@pytest.mark.parametrize("decisions, drawn, words", [
    ([decision("L4-L5", "corrected")], None, "there is no mask desc-reviewed_dseg"),
    ([decision("L4-L5", "corrected")], labels(11, 11), "has no L4-L5"),
    ([decision("L4-L5", "corrected")], labels(11), "not on the image's grid"),
])
def test_a_corrected_mask_that_does_not_fit_is_refused(decisions, drawn, words):
    with pytest.raises(StudyError, match=words):
        apply_decisions(labels(11, 12), decisions, drawn)


def test_a_drawn_mask_without_a_decision_is_named_not_used():
    decided, notes = apply_decisions(labels(11), [], labels(12))
    assert values(decided) == [11] and "was not used" in notes[0]


def test_a_new_name_does_not_outlive_the_labels_it_was_given_to():
    decided = [decision("L5-S1", "renamed", renamed_to="L4-L5"), decision("L3-L4", "excluded")]
    assert values(apply_decisions(labels(11, 13), decided, changed=["L5-S1", "L3-L4"])[0]) == [11, 0]


def test_a_new_decision_replaces_one_that_a_clock_ahead_of_ours_has_dated(tmp_path):
    ahead = Decision("sub-02", "L4-L5", "accepted", date="2999-01-01T00:00:00Z")
    path = write_decisions(tmp_path / "review.tsv", [ahead])
    decide(path, FIRST, seen=ahead)
    assert read_decisions(path)[FIRST.disc].decision == "excluded"


def test_a_disc_has_its_own_decision_before_that_of_the_participant_who_is_not_excluded():
    whole, own = Decision("sub-02", "all", "accepted"), FIRST
    assert decision_for({d.disc: d for d in (whole, own)}, "sub-02", "L4-L5") == own
    assert decision_for({d.disc: d for d in (whole, own)}, "sub-02", "L3-L4") == whole
    assert decision_for({d.disc: d for d in (whole, own)}, "sub-01", "L3-L4") is None
    out = Decision("sub-02", "all", "excluded", reason="motion")
    assert decision_for({d.disc: d for d in (out, LATER)}, "sub-02", "L4-L5") == out


def test_several_decisions_are_written_all_or_none(tmp_path):
    path = write_decisions(tmp_path / "review.tsv", [FIRST, OTHER])
    fresh = Decision("sub-03", "all", "accepted")
    with pytest.raises(StudyError, match="meanwhile"):
        change(path, {fresh.disc: fresh, FIRST.disc: LATER}, {})
    assert read_decisions(path) == {OTHER.disc: OTHER, FIRST.disc: FIRST}
    change(path, {fresh.disc: fresh, FIRST.disc: None}, {FIRST.disc: FIRST})
    assert [d.disc for d in read_decisions(path).values()] == [OTHER.disc, fresh.disc]
    described = json.loads(path.with_suffix(".json").read_text())
    assert list(described) == path.read_text().splitlines()[0].split("\t")
    assert all(entry["Description"] for entry in described.values())
