"""One disc around a point: where the network looks, what it returns, and what it refuses."""

import numpy as np
import pytest

from DiscRelaxometryLib.discs import disc_at, import_labels
from DiscRelaxometryLib.discs.local import NEAR, REACH, around, nearest_disc
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.resources import resource_path

#: Sagittal: i is front to back, j is up to down, k is sideways.
GRID = Geometry((60, 80, 6), (1.0, 1.0, 4.0), (3, -20, 50), (0, 0, 1, 1, 0, 0, 0, -1, 0))


def test_the_part_around_a_point_lies_where_it_did():
    array = np.arange(np.prod((300, 260, 40)), dtype=np.int32).reshape(40, 260, 300)
    grid = Geometry((300, 260, 40), (1.0, 1.0, 4.0), (-80, -150, 130), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    point = grid.index_to_world([150, 130, 20])
    part, where = around(Image(array, grid), point)
    np.testing.assert_array_equal(part.array, array[where])
    for index in ([0, 0, 0], [10, 20, 3]):
        world = part.geometry.index_to_world(index)
        np.testing.assert_allclose(grid.world_to_index(world), np.add(index, [s.start for s in where[::-1]]))
    corner = part.geometry.index_to_world(np.array(part.geometry.size) - 1)
    assert np.all(np.abs(corner - point) <= np.array(REACH) + 4.01) and np.all(np.abs(corner - point) > 20)


def test_the_nearest_of_two_discs_is_taken_and_a_missed_one_by_a_lower_probability():
    classes, probability = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape)
    first, second = np.zeros(GRID.shape, bool), np.zeros(GRID.shape, bool)
    first[1:5, 20:27, 15:45], second[1:5, 50:57, 15:45] = True, True
    probability[first], classes[first] = 0.9, 3
    probability[second] = 0.3
    for mask, row in ((first, 23), (second, 53)):
        found = nearest_disc(classes, probability, GRID, GRID.index_to_world([30, row, 3]))
        np.testing.assert_array_equal(found, mask)
    beside = GRID.index_to_world([30, 27 + NEAR + 3, 3])
    assert nearest_disc(classes, probability, GRID, beside) is None


def test_a_point_outside_the_volume_is_refused():
    with pytest.raises(SegmentationError, match="outside the volume"):
        disc_at(Image(np.zeros(GRID.shape, np.float32), GRID), (500, 0, 0))


def test_discs_of_the_embedded_person_around_their_centers():
    """Against the reference that came with the data; at L5-S1 the network as a whole reaches no more than 0.83."""
    pytest.importorskip("onnxruntime")
    image = read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))
    labels, _ = import_labels(read_image(resource_path("SampleData/spider-sub-078_dseg.nii.gz")))
    for value, least in ((11, 0.8), (14, 0.92)):
        truth = labels.array == value
        where = np.argwhere(truth)
        middle = where[np.abs(where - where.mean(0)).sum(1).argmin()]
        found = disc_at(image, image.geometry.index_to_world(middle[::-1]), engine="onnx").array
        dice = 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))
        assert dice > least, f"disc {value}: Dice {dice:.3f}"
