"""Tables whose columns carry a unit and a description, written as TSV with a JSON sidecar (BIDS)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .atomic import write_json, write_text
from .errors import DiscRelaxometryError


@dataclass(frozen=True)
class Column:
    """A column's name, unit (UCUM or empty) and one-sentence description."""

    name: str
    unit: str = ""
    description: str = ""


@dataclass
class Table:
    """Rows of named values.

    Attributes
    ----------
    name : str
        Title shown to the user and used as file name.
    columns : list of Column
    rows : list of dict
        One dict a row, keyed by column name; a missing key or None is an empty cell.
    """

    name: str
    columns: list[Column]
    rows: list[dict] = field(default_factory=list)

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
    if value is None or (isinstance(value, float) and value != value):
        return "n/a"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def read_tsv(path: str | os.PathLike, required: Sequence[str] = (), numeric: Iterable[str] = ()) -> Table:
    """Read a TSV; cells of `numeric` columns become float, with ``n/a`` and empty cells as NaN.

    Raises
    ------
    DiscRelaxometryError
        If the file is missing, a required column is absent, or a numeric cell is no number.
    """
    path = Path(path)
    if not path.exists():
        raise DiscRelaxometryError(f"The table '{path}' does not exist.")
    # utf-8-sig: spreadsheets put a byte-order mark before the first column's name.
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), delimiter="\t"))
    names = list(rows[0]) if rows else path.read_text(encoding="utf-8-sig").splitlines()[:1]
    missing = [n for n in required if n not in names]
    if missing:
        listed = ", ".join(names)
        raise DiscRelaxometryError(f"'{path.name}' lacks the column(s) {', '.join(missing)}; it has {listed}.",
                                   anchor="participants-table")
    wanted = set(numeric)
    for line, row in enumerate(rows, start=2):
        for name in wanted & set(row):
            row[name] = _number(row[name], path.name, line, name)
    return Table(path.stem, [Column(n) for n in names], rows)


def _number(text: str | None, file: str, line: int, column: str) -> float:
    if text is None or text.strip().lower() in ("", "n/a", "nan", "na"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        hint = " (use a decimal point, not a comma)" if "," in text else ""
        raise DiscRelaxometryError(f"'{file}', line {line}, column '{column}': '{text}' is not a number{hint}.",
                                   anchor="participants-table") from None
