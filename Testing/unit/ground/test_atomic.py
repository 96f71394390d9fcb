"""Files written to a temporary name: nobody sees half of one, and a failed write leaves the old one."""

import os
import threading
import time

import pytest

from DiscRelaxometryLib.atomic import atomic_path, write_json


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "map.nii.gz"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.name.endswith(".nii.gz")
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["map.nii.gz"]


def test_failed_write_leaves_no_new_folder(tmp_path):
    with pytest.raises(OSError, match="full"), atomic_path(tmp_path / "new" / "deep" / "map.nii.gz") as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "facts.json", {"n": 1})
    with pytest.raises(TypeError):
        write_json(path, {"n": object()})
    assert path.read_text().split() == ["{", '"n":', "1", "}"] and os.listdir(tmp_path) == ["facts.json"]


def test_reader_never_sees_half_a_file(tmp_path):
    path, seen = tmp_path / "table.tsv", set()
    path.write_text("old" * 100)

    def write():
        with atomic_path(path) as temporary, open(temporary, "w") as stream:
            for _ in range(100):
                stream.write("new")
                stream.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        seen.add(path.read_text())
    writer.join()
    assert seen <= {"old" * 100, "new" * 100} and path.read_text() == "new" * 100
