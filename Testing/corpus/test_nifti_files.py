"""NIfTI echo series whose names or headers are unusual, or contradict themselves."""

import gzip

import numpy as np
import pytest
from support.command_line import command

from corpus.made_nifti import SPACING, TIMES, patch_header, write_echo_files, write_series
from DiscRelaxometryLib.echo.read import read_echo_series
from DiscRelaxometryLib.errors import DiscRelaxometryError

_PIXDIM, _FORM_CODES, _QUATERNION, _SFORM = 80, 252, 256, 280


def test_content_tells_whether_a_file_is_compressed(tmp_path):
    """Good input is refused as damaged, because its name promises a compression that it has not."""
    plain = write_series(tmp_path / "sub-01_MESE.nii")
    named = plain.rename(plain.with_suffix(".nii.gz"))
    assert len(read_echo_series(named)) == len(TIMES)
    named.write_bytes(gzip.compress(named.read_bytes())[:-2000])
    with pytest.raises(DiscRelaxometryError, match="truncated"):
        read_echo_series(named)


@pytest.mark.parametrize("width", [np.nan, 0.0, 1.0])
def test_spacing_that_contradicts_the_sform(tmp_path, width):
    """A contradiction within a header is resolved without a word, in favor of the wrong number."""
    path = write_series(tmp_path / "sub-01_MESE.nii")
    patch_header(path, _FORM_CODES, [0, 1], "<i2")
    patch_header(path, _SFORM, [4, 0, 0, -10, 0, 1, 0, 5, 0, 0, 1, 7], "<f4")
    assert read_echo_series(path).geometry.spacing == pytest.approx(SPACING)
    patch_header(path, _PIXDIM, [width], "<f4")
    try:
        series = read_echo_series(path)
    except DiscRelaxometryError as error:
        assert "pixdim" in str(error) or "pacing" in str(error)
    else:
        said = any("pacing" in note or "pixdim" in note for note in series.notes)
        assert said or series.geometry.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(("quaternion", "said"), [((-0.96552300, -0.25808168, -0.05473677), True),
                                                  ((0.6, 0.8, 0.001), True), ((0.6, 0.8, 0), False),
                                                  ((0.5, 0.5, 0.5), False)])
def test_a_quaternion_longer_than_a_rotation(tmp_path, quaternion, said):
    """A transform that NiBabel refuses is scaled as in ITK, without a word."""
    path = write_series(tmp_path / "sub-01_MESE.nii")
    patch_header(path, _FORM_CODES, [1, 0], "<i2")
    patch_header(path, _QUATERNION, quaternion, "<f4")
    series = read_echo_series(path)
    assert any("no exact rotation" in note for note in series.notes) == said
    if np.linalg.norm(quaternion) > 1:  # the longest axis turns the image by 180 degrees
        axis = np.array(quaternion) / np.linalg.norm(quaternion)
        turn = np.diag([-1, -1, 1]) @ (2 * np.outer(axis, axis) - np.eye(3))
        np.testing.assert_allclose(np.reshape(series.geometry.direction, (3, 3)), turn, atol=1e-6)
    patch_header(path, _FORM_CODES, [1, 1], "<i2")
    patch_header(path, _SFORM, [4, 0, 0, -10, 0, 1, 0, 5, 0, 0, 1, 7], "<f4")
    assert not any("no exact rotation" in note for note in read_echo_series(path).notes)


@pytest.mark.parametrize("name", ["acq-T2map_MESE", "desc-preproc_MESE", "acq-unmask_MESE", "SAG_T2MAP"])
def test_words_within_a_name_leave_no_series_out(tmp_path, name):
    """A word in the middle of a name makes a derivative of a series, and the message says that nothing is there."""
    if name.endswith("MESE"):
        source = write_series(tmp_path / f"sub-01_{name}.nii.gz")
    else:
        source = write_echo_files(tmp_path / "converted", name)
    assert len(read_echo_series(source)) == len(TIMES)


def test_notes_of_a_header_reach_the_command_line(tmp_path):
    path = write_series(tmp_path / "sub-01_MESE.nii")
    patch_header(path, _FORM_CODES, [0, 1], "<i2")
    patch_header(path, _SFORM, [4, 0, 0, -10, 0, 1, 0, 5, 0, 0, 1, 7], "<f4")
    patch_header(path, _PIXDIM, [2.0], "<f4")
    done = command("maps", path, "--output", tmp_path / "maps")
    assert done.returncode == 0 and "contradicts itself" in done.stdout and "4 x 1 x 1" in done.stdout
