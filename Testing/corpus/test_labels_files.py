"""Segmentations of other tools, and those that lost their whole numbers on the way."""

import gzip

import numpy as np
import pytest

from corpus.made_studies import segmented
from DiscRelaxometryLib.discs.labelmaps import import_labels
from DiscRelaxometryLib.image import Geometry, Image

_SHAPE = (120, 60, 8)


def disc_labels() -> np.ndarray:
    """Five discs, 11 = L5-S1 to 15 = L1-L2, and a canal behind them."""
    array = np.zeros(_SHAPE, np.float64)
    for number in range(5):
        array[12 + 20 * number:20 + 20 * number, 15:45, 1:7] = 11 + number
    array[5:115, 48:54, 2:6] = 2
    return array


def rounded(value: float) -> np.ndarray:
    """Disc labels whose L5-S1 is `value`."""
    array = disc_labels()
    array[array == 11] = value
    return array


def test_labels_with_rounding_errors_lose_no_disc(tmp_path):
    """Labels are compared exactly and cut to integers: a disc becomes another one, or vanishes."""
    size = np.count_nonzero(disc_labels() == 11)
    said, voxels = segmented(tmp_path / "near", rounded(10.99999))
    assert voxels.get(11) == size and 10 not in voxels, said
    said, voxels = segmented(tmp_path / "far", rounded(10.6))
    assert not voxels and any("10.6" in sentence for sentence in said)


def test_import_of_labels_with_rounding_errors():
    """A reader of labels refuses what another one takes."""
    grid = Geometry(_SHAPE[::-1], (4.0, 1.5, 1.5))
    labels, _ = import_labels(Image(rounded(10.99999), grid), "project")
    assert np.array_equal(labels.array, disc_labels().astype(np.uint8))


def test_values_of_another_tool_are_not_taken_for_discs(tmp_path):
    """Values that are not the project's are not looked at: vertebrae are measured as discs."""
    array = np.zeros(_SHAPE, np.uint16)
    for number in range(5):  # SPINEPS: L5 to L1 are 24 to 20, the disc below each has 100 more
        array[4 + 22 * number:10 + 22 * number, 15:45, 1:7] = 124 - number
        array[10 + 22 * number:26 + 22 * number, 15:45, 1:7] = 24 - number
    said, voxels = segmented(tmp_path / "study", array)
    if voxels:
        assert {v: voxels.get(v) for v in range(11, 16)} == dict.fromkeys(range(11, 16), 6 * 30 * 6)
    else:
        assert any("124" in sentence for sentence in said), said


@pytest.mark.parametrize("name", ["sub-01_T2w.nii.gz", "sub-01_dseg.nii.gz"])
def test_notes_of_a_header_reach_the_study(tmp_path, name):
    """What is said of an image's header when it is read stands in the record of the step."""
    def contradict(folder):
        raw = bytearray(gzip.decompress((folder / name).read_bytes()))
        raw[80:84] = np.float32(2).tobytes()  # pixdim 1; the sform says 4 mm
        (folder / name).write_bytes(gzip.compress(raw))

    said, voxels = segmented(tmp_path / "study", disc_labels(), contradict)
    assert any("contradicts itself" in sentence for sentence in said) and len(voxels) > 5
