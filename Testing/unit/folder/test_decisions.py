"""Reviewers' decisions on disk: whole, merged by disc, never written over, and clear about errors."""

from __future__ import annotations

import itertools

import pytest

from DiscRelaxometryLib.errors import StudyError
from DiscStudyLib.folder.decisions import (
    Decision,
    compare_reviews,
    decide,
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
    ("sub-01\tL45\taccepted\t\t\t\t\t", "line 2: 'L45' is no level"),
    ("sub-01\tL4-L5\texcluded\t\t\t\t\t", "line 2: sub-01, L4-L5: say in the column reason"),
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
