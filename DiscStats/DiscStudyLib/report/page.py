"""One self-contained HTML page from blocks of text, tables and figures; nothing is loaded from a network."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from DiscRelaxometryLib.atomic import write_text
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import Table

SIMULATED = "SIMULATED DATA"
_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text; `small` for footnotes."""

    text: str
    small: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Cards:
    """Key numbers: (label, value, note)."""

    items: Sequence[tuple[str, str, str]]
    kind: str = "cards"


@dataclass(frozen=True)
class Notes:
    """Messages: (severity, text), severity being ``error``, ``warning``, ``note`` or ``good``."""

    items: Sequence[tuple[str, str]]
    kind: str = "notes"


@dataclass(frozen=True)
class TableBlock:
    """A table with a caption; only the first `limit` rows are shown, the file has all."""

    table: Table
    caption: str
    limit: int = 60
    file: str = ""
    kind: str = "table"

    @property
    def header(self) -> list[tuple[str, str, str]]:
        """Column titles, units and descriptions."""
        return [(c.name.replace("_", " "), "" if c.unit in ("", "1") else c.unit, c.description)
                for c in self.table.columns]

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """Cells as text, and whether they are numbers."""
        return [[(cell_text(row.get(n)), is_number(row.get(n))) for n in self.table.names]
                for row in self.table.rows[: self.limit]]

    @property
    def left_out(self) -> int:
        """Rows that are not shown."""
        return max(0, len(self.table.rows) - self.limit)


@dataclass(frozen=True)
class Figure:
    """A picture file with its caption and a text for those who do not see it."""

    path: Path
    caption: str
    alt: str
    wide: bool = True
    kind: str = "figure"

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels (PNG), so that the page does not jump while it loads."""
        data = self.path.read_bytes()[:24]
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@dataclass(frozen=True)
class Gallery:
    """Pictures of discs that link to the review page: (person, level, picture file, why it is flagged)."""

    items: Sequence[tuple[str, str, Path, str]]
    caption: str
    kind: str = "gallery"

    @property
    def shown(self) -> list[tuple[str, str, str, str]]:
        """The items with their pictures as data URIs."""
        return [(person, level, data_uri(path), why) for person, level, path, why in self.items]


@dataclass
class Section:
    """A titled part of the report."""

    title: str
    anchor: str
    blocks: list = field(default_factory=list)
    lead: str = ""

    def add(self, *blocks) -> Section:
        """Append blocks and return the section."""
        self.blocks.extend(blocks)
        return self


@dataclass
class Report:
    """The whole page."""

    title: str
    subtitle: str
    sections: list[Section]
    #: Labels every page as simulated.
    simulated: bool = False
    #: Version and purpose.
    footer: str = ""


def data_uri(path: Path) -> str:
    """Return a picture file as a data URI."""
    path = Path(path)
    if path.suffix not in _TYPES:
        raise StudyError(f"'{path.name}' is no picture that a report can hold.")
    return f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def is_number(value) -> bool:
    """Say whether a cell is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def cell_text(value) -> str:
    """Return a cell as text: three significant digits, an en dash for missing, p values never as 0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, float):
        if value == 0 or 1e-3 <= abs(value) < 1e5:
            text = f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"
        else:
            text = f"{value:.2e}"
        return text.replace("-", "\N{MINUS SIGN}") if value < 0 else text
    return str(value)


def render_report(report: Report) -> str:
    """Return the page as HTML; all text is escaped."""
    try:
        import jinja2
    except ImportError as error:
        raise StudyError("The report needs jinja2: pip install 'disc-relaxometry[cohort]'.") from error
    folder = resource_path("Report", "DiscStatsLib")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(str(folder)), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    css = (folder / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(report=report, css=css, simulated_label=SIMULATED)


def write_report(report: Report, path: Path) -> Path:
    """Render and write the page atomically."""
    return write_text(path, render_report(report))
