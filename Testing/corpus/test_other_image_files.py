"""NRRD and MetaImage files that are cut, sheared, or do not say how they lie."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st

from corpus.common import generated
from DiscRelaxometryLib.errors import GeometryError
from DiscRelaxometryLib.image import read_image

GRIDS = {".nrrd": b"space directions: (4,0,0) (0,1,0) (0,0,1)\n",
         ".mha": b"TransformMatrix = 1 0 0 0 1 0 0 0 1\n"}


def image_bytes(folder, ending: str, compressed: bool = False) -> bytes:
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32))
    image.SetSpacing((4, 1, 1))
    path = folder / f"whole{ending}"
    sitk.WriteImage(image, str(path), compressed)
    assert read_image(path).geometry.spacing == (4, 1, 1) and not read_image(path).notes
    return path.read_bytes()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", GRIDS)
def test_cut_files_are_refused(tmp_path, ending, compressed):
    raw = image_bytes(tmp_path, ending, compressed)
    for share in (1, 3, 6, 9):
        path = tmp_path / f"cut{ending}"
        path.write_bytes(raw[:len(raw) * share // 10])
        with pytest.raises(GeometryError, match="cut"):
            read_image(path)


@pytest.mark.parametrize(("ending", "sheared"), [(".nrrd", b"space directions: (4,2,0) (0,1,0) (0,0,1)\n"),
                                                 (".mha", b"TransformMatrix = 1 1 0 0 1 0 0 0 1\n")])
def test_sheared_grids_are_refused_in_every_format(tmp_path, ending, sheared):
    path = tmp_path / f"sheared{ending}"
    path.write_bytes(image_bytes(tmp_path, ending).replace(GRIDS[ending], sheared))
    with pytest.raises(GeometryError, match="sheared by"):
        read_image(path)


@pytest.mark.parametrize(("ending", "place"), [
    (".nrrd", GRIDS[".nrrd"]), (".mha", b"ElementSpacing = 4 1 1\n"), (".mha", GRIDS[".mha"])])
def test_a_header_that_does_not_place_the_image_is_noted(tmp_path, ending, place):
    path = tmp_path / f"nowhere{ending}"
    path.write_bytes(image_bytes(tmp_path, ending).replace(place, b""))
    assert any("does not say how" in note for note in read_image(path).notes)


#: From a NRRD space to LPS; None for what does not say how a patient lies in it.
SPACES = {"left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
          "RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "LAS": (1, -1, 1), "scanner-xyz": None,
          "3D-right-handed": None, "": None}
NRRD = st.tuples(st.sampled_from(sorted(SPACES)), st.sampled_from(["short", "uint16", "unsigned char", "float",
                                                                   "double"]),
                 st.sampled_from(["raw", "gzip", "gz"]), st.sampled_from(["little", "big"]), st.booleans(),
                 st.booleans(), st.integers(0, 2**32 - 1))
KINDS = {"short": "i2", "uint16": "u2", "unsigned char": "u1", "float": "f4", "double": "f8"}


@generated(NRRD, 60, 400)
def test_nrrd_headers(case):
    """Values, positions and byte order are what the header says; a space that is no patient's is noted."""
    space, kind, encoding, endian, crlf, comments, seed = case
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 200, (3, 4, 5)).astype(KINDS[kind])
    matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 5, 3)
    origin = rng.uniform(-90, 90, 3)
    vectors = " ".join("(" + ",".join(f"{v:.12g}" for v in column) + ")" for column in matrix.T)
    lines = ["NRRD0005", "# made elsewhere", f"type: {kind}", "dimension: 3", "sizes: 5 4 3", f"endian: {endian}",
             f"encoding: {encoding}", f"space: {space}" if space else "space dimension: 3",
             f"space directions: {vectors}", "space origin: (" + ",".join(f"{v:.12g}" for v in origin) + ")",
             "scanner:=one of many"]
    lines = [line for line in lines if comments or not line.startswith(("#", "scanner:="))]
    data = array.astype({"little": "<", "big": ">"}[endian] + KINDS[kind]).tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nrrd"
        path.write_bytes(("\r\n" if crlf else "\n").join([*lines, "", ""]).encode()
                         + (data if encoding == "raw" else gzip.compress(data)))
        image = read_image(path)
    np.testing.assert_array_equal(image.array, array)
    flip = SPACES[space]
    assert any("does not say how" in note for note in image.notes) == (flip is None)
    corner = (4, 3, 2)
    np.testing.assert_allclose(image.geometry.index_to_world(corner), np.array(flip or (1, 1, 1)) * (
        matrix @ corner + origin), atol=1e-4)
    return True


@pytest.mark.parametrize("ending", GRIDS)
def test_content_decides_whatever_the_ending(tmp_path, ending):
    raw = image_bytes(tmp_path, ending)
    for name in ("a.nii", "a.nii.gz", "a", "a.nrrd", "a.mha"):
        (tmp_path / name).write_bytes(raw)
        np.testing.assert_array_equal(read_image(tmp_path / name).array, read_image(tmp_path / f"whole{ending}").array)


@pytest.mark.parametrize("values, remedy", [((6, 7, 8, 3), "one gray value per voxel"), ((2, 6, 7, 8), "choose one")])
def test_colors_and_series_are_told_apart(tmp_path, values, remedy):
    array = np.zeros(values, np.uint8)
    image = sitk.GetImageFromArray(array, isVector=values[-1] == 3)
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(GeometryError, match=remedy):
        read_image(tmp_path / "a.nii.gz")


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(GeometryError, match="'a.nii.gz' cannot be read"):
        read_image(tmp_path / "a.nii.gz")
