"""Results are complete, or a sentence says why they are not there."""

import errno
import os
import pickle

import numpy as np
import pytest
import SimpleITK as sitk

from DiscRelaxometryLib import atomic
from DiscRelaxometryLib.errors import OutputError
from DiscRelaxometryLib.image import Geometry, Image, check_output, read_image, write_image

IMAGE = Image(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), Geometry((4, 4, 4)))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".NII.GZ"])
@pytest.mark.parametrize("lose", [40, None])
def test_a_cut_file_never_takes_the_place_of_a_whole_one(tmp_path, monkeypatch, ending, lose):
    path = write_image(IMAGE, tmp_path / f"a{ending}")
    before, write = path.read_bytes(), sitk.WriteImage

    def cut(image, name, useCompression):
        write(image, name, useCompression=useCompression)
        with open(name, "rb+") as file:
            file.truncate(os.path.getsize(name) - lose if lose else 0)

    monkeypatch.setattr(sitk, "WriteImage", cut)
    with pytest.raises(OutputError, match="could not be written in full"):
        write_image(IMAGE.like(IMAGE.array + 1), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.mhd", "a.nhdr", "nii.gz"])
def test_endings_are_checked_before_the_work(tmp_path, name):
    for check in (check_output, lambda p: write_image(IMAGE, p)):
        with pytest.raises(OutputError, match="no ending"):
            check(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_folders_are_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "a.nii", tmp_path / "file" / "deep" / "a.nii"):
        for check in (check_output, lambda p: write_image(IMAGE, p)):
            with pytest.raises(OutputError, match="'file' is a file, not a folder"):
                check(path)
    check_output(tmp_path / "new" / "a.nii")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_errors_of_the_system_are_sentences_and_keep_their_number(tmp_path, number):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "before")
    with pytest.raises(OutputError, match="a.txt") as caught, atomic.atomic_path(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number and path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errno) == (str(caught.value), number)


def test_errors_of_files_that_are_read_meanwhile_stay(tmp_path):
    with pytest.raises(FileNotFoundError), atomic.atomic_path(tmp_path / "a.txt"):
        (tmp_path / "nowhere" / "at" / "all").read_bytes()


def test_unusual_names_are_written_and_read(tmp_path):
    for name in ("LABELS.NII.GZ", "labels.img.nii.gz", "x.hdr.nii", "ümläut 1.nrrd"):
        np.testing.assert_array_equal(read_image(write_image(IMAGE, tmp_path / name)).array, IMAGE.array)
