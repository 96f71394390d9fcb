"""One reader of tables: what spreadsheets write, and the one meaning of their cells."""

import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import read_tsv, to_number


def read(tmp_path, text: str):
    path = tmp_path / "grades.tsv"
    path.write_bytes(text.encode("utf-8"))
    return read_tsv(path)


@pytest.mark.parametrize(("text", "cells"), [
    ("a;b\n1,5;2\n-0,25;3\n", ["1.5", "-0.25"]),
    ("a\tb\n1,5\t2\nn/a\t3\n2\t4\n", ["1.5", "n/a", "2"]),
    ("a;b\n12,345;2\n1,5;3\n", ["12.345", "1.5"]),  # the second comma cannot stand for thousands
    ("a;b\n0,123;2\n", ["0.123"]),
    ("a;b\n1,5e-3;2\n", ["1.5e-3"]),
])
def test_decimal_commas_become_points(tmp_path, text, cells):
    table = read(tmp_path, text)
    assert table["a"] == cells and "'grades.tsv': commas in 'a' are read as decimal points." in table.notes


@pytest.mark.parametrize(("text", "cells"), [
    ("a\tb\n1,234\t2\n12,500\t3\n", ["1,234", "12,500"]),  # thousands, or decimals
    ("a\tb\n1,5\t2\n1.5\t3\n", ["1,5", "1.5"]),
    ("a\tb\n1,5\t2\nfour\t3\n", ["1,5", "four"]),
    ('a,b\n"1,5",2\n', ["1,5"]),
])
def test_other_commas_stay_text(tmp_path, text, cells):
    table = read(tmp_path, text)
    assert table["a"] == cells and not any("Commas" in note for note in table.notes)


@pytest.mark.parametrize(("text", "names"), [
    ('"pain; VAS",b\n1,2\n', ["pain; VAS", "b"]),
    ('"pain\n\tVAS";b\n1;2\n', ["pain\n\tVAS", "b"]),
    ("\n;;\na;b\n1;2\n", ["a", "b"]),
    ("sep=|\na|b\n1|2\n", ["a", "b"]),
    ('a, "b"\n1, "2"\n', ["a", "b"]),
])
def test_the_separator_is_that_of_the_header(tmp_path, text, names):
    table = read(tmp_path, text)
    assert table.names == names and [list(r.values()) for r in table.rows] == [["1", "2"]]


def test_rows_know_their_line(tmp_path):
    assert read(tmp_path, 'sep=;\n\na;b\n\n1;"two\nlines"\n2;3\n').lines == [5, 7]


def test_marks_of_copied_text(tmp_path):
    """A minus sign is a hyphen, and what has no width is no part of a cell."""
    table = read(tmp_path, "a\tb\n\u22121.5\t\u202a\u00a0M\u202c\n\u2013\tF\n")
    assert table["a"] == ["-1.5", "\u2013"] and table["b"] == ["M", "F"]


@pytest.mark.parametrize("more", [b"\xff\xfe", b"\0\0", b""])
def test_spreadsheet_file_is_named(tmp_path, more):
    path = tmp_path / "grades.tsv"
    path.write_bytes(b"PK\x03\x04" + more)
    with pytest.raises(DesignError, match="spreadsheet.*UTF-8"):
        read_tsv(path)


@pytest.mark.parametrize("cell", ["1e400", "-1e999", "1,5", "inf", "nan", "1_000", "\u0661", "0x10", ""])
def test_what_is_no_finite_number(cell):
    assert to_number(cell) is None
