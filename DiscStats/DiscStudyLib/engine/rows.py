"""Rows of numbers on disk, one for each person: what a killed run has read need not be read again."""

import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from DiscRelaxometryLib.parallel import ordered

from .lock import exclusive


@dataclass(frozen=True)
class Row:
    """A person's row: its number, hash of what it was read from, checksum of its bytes, notes of the reader."""

    person: str
    number: int
    source: str
    checksum: int
    notes: list[str] = field(default_factory=list)


def filled_rows(path: Path, basis: str, width: int, wanted: Mapping[str, str],
                read: Callable[[str], tuple[np.ndarray, list[str]]],
                workers: int = 1) -> tuple[np.ndarray, dict[str, Row]]:
    """Return an array on disk, float32, and who has which row of it; rows that are not there yet are read.

    A row counts if it was read from the wanted source and its bytes are those that were written, so that a run may
    be killed, or the power fail, at any moment.

    Parameters
    ----------
    path : Path
        ``.npy``; a list of the rows stands beside it. Its folder is locked while rows are read.
    basis : str
        What all rows depend on; with another one, everything is read anew.
    width : int
    wanted : mapping
        Person -> hash of the source.
    read : callable
        ``read(person) -> (numbers of shape (width,), notes)``; called in threads.
    workers : int
    """
    with exclusive(path.parent, "the maps of this study"):
        rows = _filled(path, {"basis": basis, "width": width}, wanted, read, workers)
    return np.load(path, mmap_mode="r"), {p: rows[p] for p in wanted}


def _filled(path: Path, head: dict, wanted, read, workers: int) -> dict[str, Row]:
    journal, width = path.with_suffix(".jsonl"), head["width"]
    rows = _read_journal(journal, head) if path.exists() else {}
    with open(path, "r+b" if rows else "w+b") as stream, \
            open(journal, "a" if rows else "w", encoding="utf-8", newline="\n") as lines:
        lines.write("\n" if rows else json.dumps(head) + "\n")  # the last line may be half a one
        due = [p for p, source in wanted.items() if not _holds(stream, rows.get(p), source, width)]
        last = max((row.number for row in rows.values()), default=-1)
        for person, (values, notes) in zip(due, ordered(read, due, workers)):
            last += person not in rows
            number = rows[person].number if person in rows else last
            content = np.ascontiguousarray(values, np.float32).tobytes()
            rows[person] = Row(person, number, wanted[person], zlib.crc32(content), list(notes))
            stream.seek(len(_header(0, width)) + number * len(content))
            stream.write(content)
            stream.flush()
            lines.write(json.dumps(asdict(rows[person])) + "\n")
            lines.flush()
        header = _header(last + 1, width)
        stream.truncate(len(header) + 4 * (last + 1) * width)  # longer, if rows at the end were lost
        stream.seek(0)
        stream.write(header)
    return rows


def _header(rows: int, width: int) -> bytes:
    """Return the header of the file, whose length does not depend on the number of rows."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (rows, width)})
    return stream.getvalue()


def _holds(stream: BinaryIO, row: Row | None, source: str, width: int) -> bool:
    if row is None or row.source != source:
        return False
    stream.seek(len(_header(0, width)) + 4 * row.number * width)
    return zlib.crc32(stream.read(4 * width)) == row.checksum


def _read_journal(path: Path, head: dict) -> dict[str, Row]:
    """Return the rows of the same basis and width; lines that a killed run did not finish do not count."""
    try:
        first, *lines = path.read_text(encoding="utf-8").split("\n")
        if json.loads(first) != head:
            return {}
    except (OSError, ValueError):
        return {}
    rows = {}
    for line in lines:
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError):
            continue
        rows[row.person] = row
    return rows
