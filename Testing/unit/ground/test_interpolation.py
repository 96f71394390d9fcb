"""Linear interpolation of several components: the same numbers as scipy's, compiled and not."""

import numpy as np
import pytest
from scipy import ndimage

from DiscRelaxometryLib import interpolation
from DiscRelaxometryLib.image import Geometry
from DiscRelaxometryLib.interpolation import linear, linear_at


@pytest.fixture(params=[True, False], ids=["compiled", "plain"])
def compiled(request, monkeypatch):
    """Run with and without numba."""
    if not request.param:
        monkeypatch.setattr(interpolation, "kernel_if_numba", lambda function: None)
    else:
        pytest.importorskip("numba")


@pytest.mark.parametrize("shape", [(7, 5, 6), (1, 5, 6), (4, 1, 1)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_it_is_scipys(compiled, shape, kind):
    random = np.random.default_rng(5)
    values = random.normal(size=(3, *shape)).astype(kind)
    index = random.uniform(-2, 9, (3, 40, 10))
    index[:, 0, :7] = np.arange(7)
    expected = np.stack([ndimage.map_coordinates(v, index, order=1, mode="nearest", output=float) for v in values], -1)
    np.testing.assert_allclose(linear(np.moveaxis(values, 0, -1), index), expected, rtol=0, atol=1e-12)


def test_points_of_an_oblique_grid(compiled):
    random = np.random.default_rng(6)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    grid = Geometry((6, 5, 7), (0.7, 1.1, 2.0), (3.0, -8.0, 20.0), turn.ravel())
    values, index = random.normal(size=(7, 5, 6, 2)), random.uniform(-1, 8, (4, 30, 3))
    expected = np.stack([ndimage.map_coordinates(values[..., c], np.moveaxis(index[..., ::-1], -1, 0), order=1,
                                                 mode="nearest") for c in range(2)], -1)
    np.testing.assert_allclose(linear_at(values, grid, grid.index_to_world(index)), expected, atol=1e-9)
    assert np.isnan(linear_at(values, grid, np.array([[np.nan, 0, 0]]))).all()


def test_an_index_that_is_no_number_gives_none(compiled):
    values = np.ones((3, 3, 3, 2))
    index = np.array([[1.0, np.nan], [1.0, 1.0], [1.0, 1.0]])
    found = linear(values, index)
    assert np.array_equal(found[0], [1, 1]) and np.isnan(found[1]).all()
