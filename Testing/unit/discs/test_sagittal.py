"""Upright slices from volumes of any orientation, checked against world coordinates."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from DiscRelaxometryLib.discs.sagittal import check_volume, plan_sagittal
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image

#: Sagittal slices: x along i, y along j, z along k; columns are left-right, anterior-posterior, superior-inferior.
SIZE, SPACING = (7, 60, 70), (4.0, 0.7, 0.9)


def oriented(order, signs, rotation=None) -> Geometry:
    """Return a grid whose axes i, j, k run along the anatomical axes in `order`, with `signs`."""
    direction = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(zip(order, signs)):
        direction[axis, column] = sign
    if rotation is not None:
        direction = rotation.as_matrix() @ direction
    return Geometry([SIZE[a] for a in order], [SPACING[a] for a in order], (11.0, -35.0, 140.0), direction.ravel())


def coordinates(geometry: Geometry) -> np.ndarray:
    """Return the world position (x, y, z) of each voxel, shape (3, k, j, i)."""
    k, j, i = np.indices(geometry.shape)
    return np.moveaxis(geometry.index_to_world(np.stack([i, j, k], -1)), -1, 0)


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("signs", [*itertools.product((1, -1), repeat=3)])
def test_rows_run_down_and_columns_run_back_whatever_the_axes(order, signs):
    geometry = oriented(order, signs)
    plan = plan_sagittal(geometry, 0.8)
    x, y, z = coordinates(geometry)
    for world, axis, step in ((z, 1, -0.8), (y, 2, 0.8)):
        upright = plan.upright(world)[:, 2:-2, 2:-2]
        np.testing.assert_allclose(np.diff(upright, axis=axis), step, atol=2e-4)
    slices = plan.upright(x)[:, 5, 5]
    np.testing.assert_allclose(np.abs(np.diff(slices)), SPACING[0], atol=2e-4)
    assert plan.slice_mm == pytest.approx(SPACING[0])


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from((1, -1))] * 3),
       angles=st.tuples(*[st.floats(-25, 25)] * 3))
def test_restore_undoes_upright_on_oblique_grids(order, signs, angles):
    geometry = oriented(order, signs, Rotation.from_euler("xyz", angles, degrees=True))
    plan = plan_sagittal(geometry, 0.8)
    world = coordinates(geometry)[2].astype(np.float32)
    stack, upright = world.transpose(plan.axes), plan.upright(world)
    for plane, slice_ in zip(stack, upright):
        back = plan.restore(slice_, plane.shape)
        np.testing.assert_allclose(back[3:-3, 3:-3], plane[3:-3, 3:-3], atol=5e-3)


def test_upright_slices_cover_the_whole_oblique_slice():
    geometry = oriented((0, 1, 2), (1, 1, 1), Rotation.from_euler("x", 20, degrees=True))
    plan = plan_sagittal(geometry, 0.8)
    ones = plan.restore(np.ones(plan.shape, np.float32), np.zeros(geometry.shape).transpose(plan.axes).shape[1:])
    np.testing.assert_allclose(ones, 1, atol=1e-5)


@pytest.mark.parametrize("spacing, word", [((0.6, 0.6, 5.0), "axial"), ((0.6, 5.0, 0.6), "coronal")])
def test_axial_and_coronal_volumes_are_named(spacing, word):
    with pytest.raises(SegmentationError, match=word):
        plan_sagittal(Geometry((64, 64, 64), spacing), 0.8)


def test_isotropic_volume_is_cut_along_left_right():
    plan = plan_sagittal(Geometry((30, 64, 80), (1, 1, 1)), 0.8)
    assert plan.axes[0] == 2 and plan.slice_mm == 1


def test_volume_turned_by_45_degrees_is_refused():
    turned = Rotation.from_euler("zy", (45, 45), degrees=True).as_matrix()
    with pytest.raises(SegmentationError, match="left to right"):
        plan_sagittal(Geometry((30, 64, 80), (1, 1, 1), (0, 0, 0), turned.ravel()), 0.8)


@pytest.mark.parametrize("array, word", [
    (np.zeros((4, 5, 6)), "same value"), (np.full((4, 5, 6), np.nan), "not numbers"),
    (np.where(np.arange(120).reshape(4, 5, 6) % 3, np.inf, 1.0), "not numbers")])
def test_empty_and_undefined_volumes_are_refused(array, word):
    with pytest.raises(SegmentationError, match=word):
        check_volume(Image(array, Geometry(array.shape[::-1])))


def test_a_few_undefined_voxels_are_reported():
    array = np.random.default_rng(0).normal(size=(10, 10, 10))
    array[0, 0, :3] = np.nan
    assert "3 voxels" in check_volume(Image(array, Geometry((10, 10, 10))))[0]
