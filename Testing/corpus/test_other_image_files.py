"""NRRD and MetaImage files that are cut, sheared, or do not say how they lie."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

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


@pytest.mark.parametrize(("ending", "place"), [(".nrrd", GRIDS[".nrrd"]), (".mha", b"ElementSpacing = 4 1 1\n")])
def test_a_header_that_does_not_place_the_image_is_noted(tmp_path, ending, place):
    path = tmp_path / f"nowhere{ending}"
    path.write_bytes(image_bytes(tmp_path, ending).replace(place, b""))
    assert any("does not say how" in note for note in read_image(path).notes)


@pytest.mark.parametrize("ending", GRIDS)
def test_content_decides_whatever_the_ending(tmp_path, ending):
    raw = image_bytes(tmp_path, ending)
    for name in ("a.nii", "a.nii.gz", "a", "a.nrrd", "a.mha"):
        (tmp_path / name).write_bytes(raw)
        np.testing.assert_array_equal(read_image(tmp_path / name).array, read_image(tmp_path / f"whole{ending}").array)
