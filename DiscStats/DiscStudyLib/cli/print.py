"""What the command line prints: a progress bar, lines with a colored word, tables."""

from collections.abc import Iterable
from contextlib import contextmanager

from DiscRelaxometryLib.errors import Cancelled
from DiscRelaxometryLib.tables import Table


def _console():
    from rich.console import Console

    return Console()


@contextmanager
def progress_bar():
    """Yield a ``progressCallback`` that draws a bar on a terminal, and plain lines elsewhere."""
    console = _console()
    if not console.is_terminal:
        yield _plain_progress()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
                  TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def _plain_progress():
    last = {"step": -1}

    def callback(fraction: float, text: str) -> None:
        if int(fraction * 20) != last["step"]:
            last["step"] = int(fraction * 20)
            try:
                print(f"{100 * fraction:3.0f} % {text}", flush=True)
            except BrokenPipeError:  # what reads the output has ended; work is not to fail of it
                raise Cancelled from None
    return callback


def print_line(title: str, color: str, text: str) -> None:
    """Print a colored word and a text."""
    from rich.markup import escape

    _console().print(f"[{color}]{title}[/] {escape(text)}", soft_wrap=True)


def print_notes(notes: Iterable[str]) -> None:
    """Print what the user should know about a result."""
    for note in notes:
        print_line("Note", "yellow", note)


def print_table(table: Table) -> None:
    """Print a table."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    from ..report import cell_text

    shown = RichTable(title=table.name, title_justify="left")
    for column in table.columns:
        shown.add_column(column.name + (f" ({column.unit})" if column.unit not in ("", "1") else ""))
    for row in table.rows:
        shown.add_row(*(escape(cell_text(row.get(n))) for n in table.names))
    _console().print(shown)
