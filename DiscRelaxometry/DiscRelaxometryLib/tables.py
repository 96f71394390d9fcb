"""Tables whose columns carry a unit and a description, written as TSV with a JSON sidecar (BIDS)."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path

from .atomic import write_json, write_text
from .errors import DesignError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_MINUS = re.compile(r"[\u2212\u2013][.,]?\d")
#: Marks without width, which copied text carries at its ends.
_MARKS = " \u00a0\ufeff\u200b\u200e\u200f\u2060\u202a\u202b\u202c\u202d\u202e"
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column's name, unit (UCUM or empty) and one-sentence description."""

    name: str
    unit: str = ""
    description: str = ""


@dataclass
class Table:
    """Rows of named values."""

    #: Title shown to the user and used as file name.
    name: str
    columns: list[Column]
    #: One dict per row, keyed by column name; a missing key or None is an empty cell.
    rows: list[dict] = field(default_factory=list)
    #: Line of the file that each row was read from; empty for a table that was not read.
    lines: list[int] = field(default_factory=list)
    #: What was read otherwise than it is written.
    notes: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.columns = [c if isinstance(c, Column) else Column(*c) for c in self.columns]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> list:
        """Return one column as a list."""
        if name not in self.names:
            raise KeyError(f"Table '{self.name}' has no column '{name}'; it has {', '.join(self.names)}.")
        return [row.get(name) for row in self.rows]

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [c.name for c in self.columns]

    def select(self, **equal) -> Table:
        """Return the rows whose named columns equal the given values."""
        rows = [r for r in self.rows if all(r.get(k) == v for k, v in equal.items())]
        return Table(self.name, self.columns, rows)

    def to_tsv(self) -> str:
        """Return tab-separated text; empty cells are ``n/a`` as in BIDS."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
        writer.writerow(self.names)
        for row in self.rows:
            writer.writerow([_cell(row.get(n)) for n in self.names])
        return buffer.getvalue()

    def write(self, path: str | os.PathLike) -> Path:
        """Write ``path`` (.tsv) and its JSON sidecar with units and descriptions, atomically."""
        path = Path(path)
        write_json(path.with_suffix(".json"), {
            c.name: {k: v for k, v in (("Description", c.description), ("Units", c.unit)) if v} for c in self.columns})
        return write_text(path, self.to_tsv())


def _cell(value) -> str:
    if value is None or value != value:
        return "n/a"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def is_missing(cell) -> bool:
    """Tell whether a cell has no value: None, NaN, empty, or ``n/a`` (BIDS). Words such as None or NA are values."""
    if isinstance(cell, str):
        return cell.strip().lower() in ("", "n/a")
    return cell is None or cell != cell


def to_number(cell) -> float | None:
    """Return a cell's number, or None where it is no finite decimal number (``inf``, ``nan``, ``1,5``, ``1_000``)."""
    if isinstance(cell, str):
        cell = float(cell) if _NUMBER.fullmatch(cell.strip()) else None
    return float(cell) if isinstance(cell, Real) and math.isfinite(cell) else None


def cell_value(cell):
    """Return a cell's number, NaN where it is missing, or its text."""
    number = float("nan") if is_missing(cell) else to_number(cell)
    return cell if number is None else number


def number_key(name: str) -> list:
    """Return what orders names by the numbers in them: ``sub-2`` before ``sub-10``."""
    return [int(t) if n % 2 else t for n, t in enumerate(re.split(r"(\d+)", name))]


def typed(cells: Sequence) -> list:
    """Return a column with None for missing cells, and numbers where every other cell is one."""
    found = [None if is_missing(c) else c for c in cells]
    numbers = [to_number(c) for c in found]
    return numbers if all(n is not None for n, c in zip(numbers, found) if c is not None) else found


def read_tsv(path: str | os.PathLike, required: Sequence[str] = (), numeric: Iterable[str] = ()) -> Table:
    """Read a table as spreadsheets write it; cells are stripped text, those of `numeric` columns float (or NaN).

    UTF-8 with or without byte-order mark or UTF-16 with one; any line ends; tabs, semicolons or commas, as the header
    has them; quotes; empty rows and empty cells beyond the header are ignored. Decimal commas become points where no
    cell of the column could mean thousands.

    Raises
    ------
    DesignError
        If the file is missing or no such table, a required column is absent, or a numeric cell is not a number.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DesignError(f"The table '{path}' does not exist.", anchor="participants-table") from None
    except OSError as error:
        raise DesignError(f"The table '{path}' cannot be read ({error.strerror}).",
                          anchor="participants-table") from None
    names, rows, notes = _cells(decode(raw, path.name), path.name)
    missing = [n for n in required if n not in names]
    if missing:
        raise DesignError(f"'{path.name}' lacks the column(s) {', '.join(missing)}; it has {', '.join(names)}.",
                          anchor="participants-table")
    table = Table(path.stem, [Column(n) for n in names], [dict(zip(names, cells)) for _, cells in rows],
                  [line for line, _ in rows], notes)
    for name in set(numeric) & set(names):
        for line, row in zip(table.lines, table.rows):
            row[name] = _number(row[name], path.name, line, name)
    return table


def decode(raw: bytes, name: str) -> str:
    """Return the text of a table, with line feeds as line ends, or raise DesignError with its file's `name`."""
    if raw.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DesignError(f"'{name}' is a spreadsheet file: save the table as tab-separated text in UTF-8.",
                          anchor="participants-table")
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[:error.start].count(b"\n") + 1
        raise DesignError(f"'{name}' is not UTF-8 text (line {line}): save the table as tab-separated text in UTF-8.",
                          anchor="participants-table") from None
    if "\0" in text:
        raise DesignError(f"'{name}' holds NUL characters, as UTF-16 without byte-order mark and binary files do: "
                          "save the table as UTF-8.", anchor="participants-table")
    # Composed letters: a column or group typed on another system is the same text.
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def _separator(text: str) -> str:
    """Return what separates the cells of a table's header, quotes apart: a tab, else most semicolons or commas."""
    lines = re.sub(r'"[^"]*"', "x", text).split("\n")
    header = next((line for line in lines if _plain(line.replace(";", "").replace(",", ""))), "")
    return max("\t;,", key=lambda s: (s == "\t" and s in header, header.count(s)))


def _cells(text: str, file: str) -> tuple[list[str], list[tuple[int, list[str]]], list[str]]:
    """Return the names of the columns, the line and cells of each row that is not empty, and notes."""
    mark = re.match(r"\s*sep=(.)\n", text)  # a spreadsheet's own
    start = 1 + text[:mark.end()].count("\n") if mark else 1
    text = text[mark.end():] if mark else text
    separator = mark.group(1) if mark else _separator(text)
    rows = _lines(text, separator, start, file)
    if not rows:
        raise DesignError(f"'{file}' is empty: a table begins with the names of its columns.",
                          anchor="participants-table")
    names = rows[0][1]
    while not names[-1]:
        names.pop()
    twice = [n for n in names if names.count(n) > 1 and n]
    if twice:
        raise DesignError(f"'{file}' has two columns '{twice[0]}': rename or drop one.", anchor="participants-table")
    rows = [(n, _row(cells, names, file, n)) for n, cells in rows[1:]]
    names = [n for n in names if n]
    notes = [f"'{file}' is not tab-separated."] if separator != "\t" and len(names) > 1 else []
    if separator != ",":
        commas = [name for k, name in enumerate(names) if _with_points([cells for _, cells in rows], k)]
        notes += [f"'{file}': commas in {', '.join(map(repr, commas))} are read as decimal points."] if commas else []
    return names, rows, notes


def _lines(text: str, separator: str, line: int, file: str) -> list[tuple[int, list[str]]]:
    """Return the number of the first line, counted from `line`, and the cells of each row that is not empty."""
    rows, reader, before = [], csv.reader(io.StringIO(text, newline=""), delimiter=separator,
                                        skipinitialspace=True, strict=True), line
    try:
        for cells in reader:
            cells = [_plain(c) for c in cells]
            if any(cells):
                rows.append((line, cells))
            line = reader.line_num + before
    except csv.Error:
        raise DesignError(f"'{file}', line {line}: a quote (\") is not closed, or text follows it: remove the quotes.",
                          anchor="participants-table") from None
    return rows


def _plain(cell: str) -> str:
    """Return a cell without white space and marks without width around it, and with a hyphen for a minus sign."""
    cell = cell.strip().strip(_MARKS).strip()
    return "-" + cell[1:] if _MINUS.match(cell) else cell


def _with_points(rows: list[list[str]], column: int) -> bool:
    """Write points for the decimal commas of a column, and tell whether there were any.

    A comma before three digits may stand for thousands: there has to be one that cannot.
    """
    cells = [row[column] for row in rows]
    commas = [c for c in cells if _COMMA.fullmatch(c)]
    if all(map(_THOUSANDS.fullmatch, commas)) or not all(
            is_missing(c) or _COMMA.fullmatch(c) or re.fullmatch(r"[+-]?\d+", c, re.ASCII) for c in cells):
        return False
    for row in rows:
        row[column] = row[column].replace(",", ".")
    return True


def _row(cells: list[str], names: list[str], file: str, line: int) -> list[str]:
    more = [c for c in cells[len(names):] if c] + [c for c, n in zip(cells, names) if c and not n]
    if more:
        raise DesignError(f"'{file}', line {line}: '{more[0]}' stands in a column without a name: name the column, or "
                          "remove the cell.", anchor="participants-table")
    if len(cells) < len(names):
        raise DesignError(f"'{file}', line {line} has {len(cells)} cells where the header has {len(names)}: fill the "
                          "row, with 'n/a' where a value is missing.", anchor="participants-table")
    return [c for c, n in zip(cells, names) if n]


def _number(cell: str, file: str, line: int, column: str) -> float:
    number = cell_value(cell)
    if isinstance(number, str):
        hint = " (use a decimal point, not a comma)" if "," in cell else ""
        raise DesignError(f"'{file}', line {line}, column '{column}': '{cell}' is not a number{hint}; a missing value "
                          "is 'n/a'.", anchor="participants-table")
    return number
