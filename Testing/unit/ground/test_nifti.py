"""NIfTI headers that contradict themselves; nibabel gives the affine to compare with."""

import gzip

import numpy as np
import pytest

from DiscRelaxometryLib.errors import GeometryError
from DiscRelaxometryLib.image import Geometry, read_image

nibabel = pytest.importorskip("nibabel")
AFFINE = np.array([[0.0, -0.02, 4.0, -30], [0.8, 0.1, 0.0, -50], [0.1, -0.8, -0.1, 60], [0, 0, 0, 1]])
AFFINE[:3, :3] = np.linalg.qr(AFFINE[:3, :3])[0] * (0.8, 0.8, 4.0)
DATA = np.arange(60, dtype=np.float32).reshape(5, 4, 3)


def write(path, sform=AFFINE, qform=AFFINE, codes=(1, 1), pixdim=None, order="<"):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(order + "f4"))
    header.set_data_shape(DATA.shape)
    header.set_qform(qform, codes[0])
    header.set_sform(sform, codes[1])
    header["sform_code"], header["qform_code"] = codes[1], codes[0]
    if pixdim is not None:
        header["pixdim"][1:4] = pixdim
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(header.binaryblock + b"\0\0\0\0" + DATA.T.astype(order + "f4").tobytes())
    return path


def assert_placed(geometry: Geometry, affine, tolerance=1e-3):
    ijk = np.array([[0, 0, 0], [4, 3, 2], [4, 0, 1]])
    expected = (ijk @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)
    np.testing.assert_allclose(geometry.index_to_world(ijk), expected, atol=tolerance)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 2), (4, 4)])
def test_headers_that_agree_have_no_note(tmp_path, codes, order):
    image = read_image(write(tmp_path / "a.nii", codes=codes, order=order))
    assert_placed(image.geometry, AFFINE)
    assert "notes" not in image.meta
    np.testing.assert_array_equal(image.array, DATA.T)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("flip", [(1, 1, -1, 1), (-1, 1, 1, 1), (1, 1, 1, 1)])
def test_right_and_left_handed_grids_are_placed_by_either_form(tmp_path, flip, codes):
    affine = AFFINE @ np.diag(flip)
    image = read_image(write(tmp_path / "a.nii", affine, affine, codes))
    assert_placed(image.geometry, affine)
    assert "notes" not in image.meta


@pytest.mark.parametrize("pixdim", [(np.nan, 0.8, 4), (0, 0.8, 4), (1, 1, 1), (0.8, 0.8, 5), (-0.8, 0.8, 4)])
@pytest.mark.parametrize("codes", [(0, 1), (1, 1)])
def test_the_sform_counts_where_voxel_sizes_contradict_it(tmp_path, pixdim, codes):
    image = read_image(write(tmp_path / "a.nii", codes=codes, pixdim=pixdim))
    assert_placed(image.geometry, AFFINE)
    if min(pixdim) >= 0 or np.isnan(pixdim[0]):
        assert any("spacing 0.8 x 0.8 x 4 mm" in n and "pixdim" in n for n in image.meta["notes"])


@pytest.mark.parametrize("pixdim", [(np.nan, 0.8, 4), (0, 0.8, 4), (np.inf, 1, 1)])
@pytest.mark.parametrize("codes", [(1, 0), (0, 0)])
def test_no_usable_size_is_an_error(tmp_path, pixdim, codes):
    with pytest.raises(GeometryError, match="no usable voxel size"):
        read_image(write(tmp_path / "a.nii", codes=codes, pixdim=pixdim))


def spoiled(change):
    affine = AFFINE.copy()
    change(affine)
    return affine


BAD = {"sheared": spoiled(lambda a: a[:3, 0].__iadd__(0.3 * a[:3, 1])), "singular": spoiled(
    lambda a: a[:3, 0].__imul__(0)), "not finite": spoiled(lambda a: a[:3, 0].__imul__(np.nan))}


@pytest.mark.parametrize("what", BAD)
def test_an_unusable_sform_is_an_error_or_a_note(tmp_path, what):
    path = write(tmp_path / "a.nii", sform=BAD[what], codes=(0, 1))
    with pytest.raises(GeometryError, match=what):
        read_image(path)
    image = read_image(write(tmp_path / "b.nii", sform=BAD[what], codes=(1, 1)))
    assert_placed(image.geometry, AFFINE)
    assert any(what in n and "qform was used" in n for n in image.meta["notes"])


@pytest.mark.parametrize("codes", [(0, 1), (1, 1)])
def test_an_infinite_sform_is_refused_without_a_warning(tmp_path, codes):
    path = write(tmp_path / "a.nii", sform=AFFINE, codes=codes)
    content = bytearray(path.read_bytes())
    content[280:284] = np.array(np.inf, "<f4").tobytes()
    path.write_bytes(content)
    if codes == (0, 1):
        with pytest.raises(GeometryError, match="sform is not finite"):
            read_image(path)
    else:
        assert any("sform is not finite" in n for n in read_image(path).meta["notes"])


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1)])
def test_two_placements_are_both_said(tmp_path, codes):
    other = AFFINE.copy()
    other[:3, 3] += (0, 0, 20)
    image = read_image(write(tmp_path / "a.nii", sform=other, codes=codes))
    (note,) = image.meta["notes"]
    assert "20.0 mm apart" in note and "sform" in note and "qform" in note
    assert_placed(image.geometry, other if "the sform was used" in note else AFFINE)


def test_a_header_without_placement_says_so(tmp_path):
    (note,) = read_image(write(tmp_path / "a.nii", codes=(0, 0))).meta["notes"]
    assert "does not say how the image lies" in note


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII", "x.hdr.nii", "x.img.nii.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_content_not_the_name_tells_what_a_file_is(tmp_path, name, zipped):
    whole = write(tmp_path / "in.nii").read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(whole) if zipped else whole)
    np.testing.assert_array_equal(read_image(path).array, DATA.T)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(GeometryError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_image_is_a_sentence(tmp_path, content):
    for name in ("a.nii", "a.nii.gz", "a.nrrd"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GeometryError):
            read_image(tmp_path / name)


@pytest.mark.parametrize("time", ["unknown", "sec", "msec"])
@pytest.mark.parametrize("unit, factor", [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_lengths_are_read_in_their_unit_whatever_that_of_time(tmp_path, unit, factor, time):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([2, 3, 4, 1]) / factor)
    image.header.set_xyzt_units(unit, time)
    nibabel.save(image, tmp_path / "image.nii.gz")
    assert read_image(tmp_path / "image.nii.gz").geometry.spacing == pytest.approx((2, 3, 4))
