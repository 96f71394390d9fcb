"""Rows on disk that outlive kills, torn writes and changed sources, and what is read again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from DiscStudyLib.engine import filled_rows

WIDTH = 500


def numbers(source: str) -> np.ndarray:
    """Return the numbers that stand in a source."""
    return np.random.default_rng(int(source)).normal(size=WIDTH).astype(np.float32)


class Reader:
    """Counts what it reads; with a pause it can be killed in between."""

    def __init__(self, wanted: dict[str, str], pause: float = 0.0):
        self.wanted, self.pause, self.read = wanted, pause, []

    def __call__(self, person: str):
        self.read.append(person)
        if self.pause:
            print(person, flush=True)
            time.sleep(self.pause)
        return numbers(self.wanted[person]), [f"note of {person}"] if person == "s1" else []


def fill(folder: Path, wanted: dict[str, str], basis: str = "atlas", workers: int = 1) -> list[str]:
    """Fill, check every number, and return who was read."""
    reader = Reader(wanted)
    array, rows = filled_rows(folder / "voxels" / "T2.npy", basis, WIDTH, wanted, reader, workers)
    assert list(rows) == list(wanted) and len({r.number for r in rows.values()}) == len(wanted)
    for person, row in rows.items():
        np.testing.assert_array_equal(array[row.number], numbers(wanted[person]))
        assert row.notes == ([f"note of {person}"] if person == "s1" else [])
    assert array.dtype == np.float32 and isinstance(array, np.memmap)
    return sorted(reader.read)


def people(n: int, first: int = 0) -> dict[str, str]:
    return {f"s{i}": str(i) for i in range(first, first + n)}


def test_only_new_and_changed_people_are_read(tmp_path):
    assert fill(tmp_path, people(6)) == sorted(people(6))
    assert fill(tmp_path, people(6)) == []
    assert fill(tmp_path, people(9), workers=3) == ["s6", "s7", "s8"]
    assert fill(tmp_path, people(9) | {"s2": "77"}) == ["s2"]
    assert fill(tmp_path, {p: people(9)[p] for p in ("s4", "s1", "s2")}) == ["s2"]  # its earlier source again
    assert fill(tmp_path, people(5, 6)) == ["s10", "s9"]
    assert fill(tmp_path, people(3), basis="another atlas") == ["s0", "s1", "s2"]


@pytest.mark.parametrize("harm", ["a byte", "cut array", "no array", "cut list", "no list", "strange list", "empty"])
def test_what_was_lost_is_read_again(tmp_path, harm):
    fill(tmp_path, people(6))
    array, journal = tmp_path / "voxels/T2.npy", tmp_path / "voxels/T2.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines()
    if harm == "a byte":
        content = bytearray(array.read_bytes())
        content[-3 * WIDTH * 4 + 7] ^= 1
        array.write_bytes(content)
    elif harm == "cut array":
        os.truncate(array, array.stat().st_size - WIDTH)
    elif harm == "cut list":
        journal.write_text("\n".join(lines)[:-30], encoding="utf-8")
    elif harm == "strange list":
        journal.write_text("\n".join([lines[0], "[]", '{"person": "s3"}', *lines[1:]]), encoding="utf-8")
    else:
        {"no array": array.unlink, "no list": journal.unlink, "empty": lambda: array.write_bytes(b"")}[harm]()
    read = fill(tmp_path, people(6))
    assert read == {"a byte": ["s3"], "cut array": ["s5"], "cut list": ["s5"], "strange list": []}.get(
        harm, sorted(people(6)))
    assert fill(tmp_path, people(7)) == ["s6"]


def test_rows_agree_with_numpys_own_reader_whatever_their_number(tmp_path):
    for n in (1, 9, 10, 120):
        fill(tmp_path, people(n))
        found = np.load(tmp_path / "voxels/T2.npy")
        assert found.shape == (n, WIDTH)
        np.testing.assert_array_equal(found[n - 1], numbers(str(n - 1)))
    first = json.loads((tmp_path / "voxels/T2.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"basis": "atlas", "width": WIDTH}


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_while_filling_what_was_read_stays(tmp_path, kills):
    code = (f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
            "from study.test_rows import Reader, people, filled_rows, WIDTH\nfrom pathlib import Path\n"
            "filled_rows(Path(sys.argv[1]) / 'voxels/T2.npy', 'atlas', WIDTH, people(40), Reader(people(40), 0.02), 2)")
    rng, some = random.Random(kills), 0
    for kill in range(kills):
        folder = tmp_path / str(kill)
        process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
        for _ in range(rng.randint(8, 36)):
            process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        read = fill(folder, people(40))
        some += len(read) < 40
        assert fill(folder, people(40)) == []
    assert some > kills / 2
