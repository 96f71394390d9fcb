"""Results that cannot be written, or must not be."""

import shutil
import subprocess

import numpy as np
import pytest
from support.command_line import command

from corpus.common import assert_sentence
from corpus.made_nifti import write_series
from corpus.made_studies import map_stages, table, write_people, write_table
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscStudyLib import run_study


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 8 kB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("verb", ["maps", "agreement"])
def test_file_in_the_way_of_a_folder_is_said(tmp_path, verb):
    """An error of the operating system reaches the user as a traceback."""
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way")
    means = tmp_path / "means.tsv"
    means.write_text("participant_id\tmean\nsub-01\t1\nsub-02\t2\nsub-03\t3.5\n")
    words = {"maps": (write_series(tmp_path / "sub-01_MESE.nii.gz"), "--kind", "T2", "--output", blocked),
             "agreement": (means, means, "--output", blocked / "agreement.tsv")}[verb]
    assert_sentence(command(verb, *words), "blocked")


@pytest.mark.parametrize("name", ["labels.xyz", "labels", "LABELS.NII.GZ", "labels.img.nii.gz"])
def test_names_that_no_writer_knows_are_said(tmp_path, name):
    """An error of the image library reaches the user as a traceback."""
    image = Image(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), Geometry((4, 4, 4), (1.0, 1.0, 1.0)))
    try:
        written = write_image(image, tmp_path / name)
    except DiscRelaxometryError as error:
        assert name in str(error)
    else:
        assert (read_image(written).array == image.array).all()


def test_full_disk_is_said(tmp_path, full_disk):
    """A failed write that a library does not report counts as success."""
    series = write_series(tmp_path / "sub-01_MESE.nii.gz")
    done = command("maps", series, "--kind", "T2", "--output", full_disk / "out")
    assert_sentence(done)
    for path in (full_disk / "out").glob("*.nii.gz"):
        read_image(path)


@pytest.mark.parametrize("place", [".", "sub-01", "../foreign"], ids=["study", "person", "foreign"])
def test_output_folder_of_somebody_else_is_refused(tmp_path, place):
    """Files of the user are overwritten without a question."""
    study = write_people(tmp_path / "study", people=1)
    write_table(study, table(2))
    output = study / place
    output.mkdir(exist_ok=True)
    mine = {"README.md": "my own notes", "dataset_description.json": '{"Name": "mine"}', ".bidsignore": "mine"}
    for name, text in mine.items():
        (output / name).write_text(text)
    with pytest.raises(DiscRelaxometryError, match="(?i)output"):
        run_study(study, output=output, pipeline=map_stages)
    assert {name: (output / name).read_text() for name in mine} == mine
