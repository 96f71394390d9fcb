"""Visits of participants: their rows, and the years since the first in time, whatever the order of their names."""

import pytest

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib.folder.visits import visit_table


def rows(tmp_path, text, sessions=("ses-10", "ses-1", "ses-2")):
    for session in sessions:
        (tmp_path / "sub-01" / session).mkdir(parents=True)
    (tmp_path / "sub-01/sub-01_sessions.tsv").write_text(text.replace(" ", "\t"))
    people = Table("participants", [Column("participant_id"), Column("sex"), Column("age")],
                   [{"participant_id": "sub-01", "sex": "F", "age": "40"}], [2])
    return visit_table(people, tmp_path)


def test_years_count_from_the_first_visit_in_time(tmp_path):
    table = rows(tmp_path, "session_id acq_time sex\nses-1 2024-03-01 M\n2 2023-03-02 n/a\n"
                           "ses-10 2026-03-01T08:00Z F\n")
    assert [(r["participant_id"], r["participant"], r["session"], r["sex"]) for r in table.rows] == [
        ("sub-01_ses-1", "sub-01", "ses-1", "M"), ("sub-01_ses-2", "sub-01", "ses-2", "n/a"),
        ("sub-01_ses-10", "sub-01", "ses-10", "F")]
    assert [float(r["years"]) for r in table.rows] == pytest.approx([365 / 365.25, 0, 1095 / 365.25], rel=1e-5)
    assert table.lines == [2, 2, 2] and {r["age"] for r in table.rows} == {"40"}


def test_years_go_by_age_where_no_visit_has_a_date(tmp_path):
    table = rows(tmp_path, "session_id age acq_time\nses-1 52.5 n/a\nses-2 50 n/a\nses-10 n/a n/a\n")
    assert [r["years"] for r in table.rows] == ["2.5", "0", "n/a"]


def test_without_dates_and_ages_there_are_no_years(tmp_path):
    table = rows(tmp_path, "session_id scanner\nses-1 A\n")
    assert "years" not in table.names and [r["scanner"] for r in table.rows] == ["A", "", ""]


@pytest.mark.parametrize("text, words", [
    ("session_id age\n1 old\n", "'old' of sub-01_ses-1"),
    ("session_id acq_time\n2 03/2024\n", "'03/2024' of sub-01_ses-2"),
    ("session_id age\n1 50\nses-1 51\n", "ses-1 twice")])
def test_what_cannot_be_read_is_named(tmp_path, text, words):
    with pytest.raises(StudyError, match=words):
        rows(tmp_path, text)
