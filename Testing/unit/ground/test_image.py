"""Missing voxels survive every file format: NaN is not 0."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from DiscRelaxometryLib.image import Geometry, Image, bounding_box, read_image, voxel_points, write_image


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nan_comes_back_as_nan(tmp_path, suffix, kind):
    array = np.arange(24, dtype=kind).reshape(2, 3, 4)
    array[0, 0, 0], array[1, 2, 3], array[0, 1, 1] = np.nan, np.nan, np.inf
    path = write_image(Image(array, Geometry((4, 3, 2), (1, 2, 3), direction=(0, 1, 0, -1, 0, 0, 0, 0, -1))),
                       tmp_path / f"map{suffix}")
    np.testing.assert_array_equal(read_image(path).array, array.astype(np.float32))


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_nan_of_files_written_by_others(tmp_path, endianness, kind):
    nibabel = pytest.importorskip("nibabel")
    array = np.arange(24.0).reshape(4, 3, 2)
    array[1, 2, 0] = np.nan
    header = nibabel.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.dtype(endianness + kind))
    header.set_data_shape(array.shape)
    nibabel.save(nibabel.Nifti1Image(array.astype(endianness + kind), np.eye(4), header), tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "map.nii.gz").array, array.T)


TURN = np.radians(1.0)


@pytest.mark.parametrize("change, differs", [
    ({}, False), ({"origin": (5, 6, 7.0005)}, False), ({"origin": (5, 6, 7.01)}, True),
    ({"spacing": (1, 2.01, 3)}, True),
    ({"direction": (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)}, True),
    ({"size": (4, 3, 3)}, True)])
def test_grids_differ_where_any_corner_does(change, differs):
    """Two grids that share the first voxel alone are two."""
    grid = Geometry((4, 3, 2), (1, 2, 3), (5, 6, 7))
    other = replace(grid, **change)
    assert bool(grid.difference(other)) == bool(other.difference(grid)) == differs


@pytest.mark.parametrize("share", [0.002, 0.3, 1.0])
def test_points_and_box_of_a_mask_are_those_of_the_slow_ways(share):
    mask = np.random.default_rng(3).random((9, 11, 13)) < share
    grid = Geometry((13, 11, 9), (0.6, 0.7, 3.0), (5.0, -20.0, 60.0), (0, 0.6, 0.8, 0, 0.8, -0.6, -1, 0, 0))
    assert bounding_box(mask) == ndimage.find_objects(mask.astype(int))[0]
    np.testing.assert_array_equal(voxel_points(mask, grid), [grid.index_to_world(v[::-1]) for v in np.argwhere(mask)])
