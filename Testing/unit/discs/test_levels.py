"""Disc instances and level names on synthetic columns with known levels: grids, faults, doubts."""

import numpy as np
import pytest
from support.spine_phantom import PITCH, spine

from DiscRelaxometryLib.discs.instances import _stacked, column_core, make_piece, spine_curve
from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image


def values(result):
    return [d.value for d in result.discs]


def cropped(image, low, high):
    """Return slices `low` to `high` along k, with the geometry of the crop."""
    geometry = image.geometry
    part = image.array[low:high]
    return Image(part, Geometry(part.shape[::-1], geometry.spacing, geometry.index_to_world((0, 0, low)),
                                geometry.direction))


@pytest.mark.parametrize("bend", [{}, {"lordosis": 25}, {"scoliosis": 12, "width": 34}, {"levels": 8}, {"levels": 2},
                                  {"spacing": (4.4, 0.9, 0.9), "levels": 3}, {"spacing": (1.0, 2.0, 3.0)}])
def test_regular_columns(bend):
    classes, truth = spine(**bend)
    result = label_instances(classes.array, classes.geometry)
    discs = truth.array >= 11
    discs &= truth.array < 30
    assert np.array_equal(result.labels.array[discs], truth.array[discs])
    assert result.certain and result.flags == []
    body = truth.array >= 31
    assert np.mean(result.labels.array[body] == truth.array[body]) > 0.97
    assert result.vertebrae == sorted(set(truth.array[body].tolist()))


def transposed(image, order, flips):
    """Return the same anatomy with array axes in another order and direction; world positions stay."""
    geometry = image.geometry
    array = image.array.transpose(order)
    columns = np.array(geometry.direction).reshape(3, 3)
    axes = [2 - o for o in order[::-1]]
    spacing = [geometry.spacing[a] for a in axes]
    direction = columns[:, axes]
    origin = np.array(geometry.origin)
    size = array.shape[::-1]
    for n, flip in enumerate(flips):
        if flip:
            array = np.flip(array, 2 - n)
            origin = origin + direction[:, n] * spacing[n] * (size[n] - 1)
            direction = direction.copy()
            direction[:, n] *= -1
    return Image(np.ascontiguousarray(array), Geometry(size, spacing, origin, direction.ravel()))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1)])
def test_axis_order_and_handedness_do_not_matter(order, flips):
    classes, truth = spine(levels=3, spacing=(4, 2, 2))
    turned, expected = transposed(classes, order, flips), transposed(truth, order, flips)
    result = label_instances(turned.array, turned.geometry)
    discs = (expected.array >= 11) & (expected.array < 30)
    assert np.array_equal(result.labels.array[discs], expected.array[discs])
    assert result.certain


def test_oblique_grid():
    angle = np.radians(25)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    classes, truth = spine()
    direction = turn @ np.array(classes.geometry.direction).reshape(3, 3)
    geometry = Geometry(classes.geometry.size, classes.geometry.spacing, (3, -70, 12), direction.ravel())
    result = label_instances(classes.array, geometry)
    discs = (truth.array >= 11) & (truth.array < 30)
    assert np.array_equal(result.labels.array[discs], truth.array[discs])


def test_bridged_discs_are_split_and_flagged():
    classes, truth = spine()
    array = classes.array.copy()
    where = np.argwhere((truth.array == 12) | (truth.array == 13))
    front = np.percentile(where[:, 1], 90)
    low, high = where[:, 0].min(), where[:, 0].max()
    array[low:high, int(front):int(front) + 2, 8:14] = 3
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    for level in range(11, 16):
        assert np.mean(result.labels.array[truth.array == level] == level) > 0.98
    assert any("split" in f for f in result.flags)


def test_two_parts_of_one_disc_are_joined():
    classes, truth = spine()
    array = classes.array.copy()
    where = np.argwhere(truth.array == 12)
    middle = int(where[:, 1].mean())
    array[where[:, 0].min():where[:, 0].max() + 1, middle - 1:middle + 2][
        array[where[:, 0].min():where[:, 0].max() + 1, middle - 1:middle + 2] == 3] = 0
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    assert any("joined" in f and "L4-L5" in f for f in result.flags)


def test_missing_disc_leaves_a_gap_in_the_names():
    classes, truth = spine()
    array = np.where(truth.array == 13, 1, classes.array)
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 14, 15]
    assert any("gap between L4-L5 and L2-L3" in f for f in result.flags)
    # The block of two bodies without a disc between them has no single level.
    assert 32 not in result.vertebrae and 33 not in result.vertebrae


def test_body_above_a_missed_uppermost_disc_has_no_level():
    classes, truth = spine()
    array = np.where(truth.array == 15, 1, classes.array)
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14]
    upper = truth.array == 35
    assert np.mean(result.labels.array[upper] == 1) > 0.8
    assert np.mean(result.labels.array[truth.array == 34] == 34) > 0.8


def test_missing_lowest_disc_is_seen_by_the_vertebra_below():
    classes, truth = spine(below=40 + 20)
    array = np.where(truth.array == 11, 0, classes.array)
    result = label_instances(array, classes.geometry)
    assert values(result) == [12, 13, 14, 15]
    assert not result.certain and any("vertebra lies below" in f for f in result.flags)


def test_image_that_ends_in_a_vertebra_is_an_assumption():
    classes, truth = spine()
    low = int(np.argwhere(truth.array == 31)[:, 0].mean())
    part = cropped(classes, low, classes.array.shape[0])
    result = label_instances(part.array, part.geometry)
    assert values(result) == [12, 13, 14, 15]
    assert not result.certain and any("sacrum is not seen" in f for f in result.flags)


def test_image_that_ends_at_a_disc_is_an_assumption():
    classes, truth = spine()
    low = int(np.argwhere(truth.array == 12)[:, 0].mean())
    part = cropped(classes, low, classes.array.shape[0])
    result = label_instances(part.array, part.geometry)
    assert not result.certain and any("sacrum is not seen" in f for f in result.flags)
    assert "cut by the edge of the image" in result.discs[0].flags


def test_cropped_top_changes_no_name():
    classes, truth = spine()
    high = int(np.argwhere(truth.array == 14)[:, 0].mean())
    part = cropped(classes, 0, high)
    result = label_instances(part.array, part.geometry)
    assert values(result) == [11, 12, 13, 14] and result.certain
    assert "cut by the edge of the image" in result.discs[-1].flags


def test_network_evidence_names_the_level():
    classes, truth = spine()
    result = label_instances(classes.array, classes.geometry, 0.9 * (truth.array == 11))
    assert values(result) == [11, 12, 13, 14, 15] and result.certain
    assert result.discs[0].l5s1_probability == pytest.approx(0.9)
    assert "0.90" in result.evidence


def test_disc_below_the_networks_l5s1_has_no_level():
    classes, truth = spine()
    result = label_instances(classes.array, classes.geometry, 0.9 * (truth.array == 12))
    assert values(result) == [3, 11, 12, 13, 14]
    assert not result.certain and any("transitional anatomy" in f for f in result.flags)


def test_network_that_sees_l5s1_on_top_means_a_wrong_header():
    classes, truth = spine()
    result = label_instances(classes.array, classes.geometry, 0.9 * (truth.array == 15))
    assert not result.certain and any("header" in f for f in result.flags)


def test_network_without_l5s1_is_not_certain():
    classes, truth = spine()
    result = label_instances(classes.array, classes.geometry, np.full(truth.array.shape, 0.02))
    assert values(result)[0] == 11 and not result.certain


def test_islands_are_left_out_and_flagged():
    classes, truth = spine()
    array = classes.array.copy()
    array[20:26, 2:8, 2:6] = 3
    array[60:66, 2:8, 16:20] = 3
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    assert any("2 disc-like island" in f for f in result.flags)
    assert not np.any(result.labels.array[20:26, 2:8, 2:6])


def test_false_disc_inside_a_vertebra_has_no_level():
    classes, truth = spine()
    array = classes.array.copy()
    center = np.argwhere(truth.array == 33)
    k = int(np.percentile(center[:, 0], 50))
    body = np.argwhere(truth.array[k] == 33)
    j, i = np.percentile(body, 75, axis=0).astype(int)
    array[k - 1:k + 2, j - 5:j + 5, i - 3:i + 1] = 3
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    assert any("between two levels" in f for f in result.flags)
    assert result.labels.array[k, j, i] == 3


def test_remnant_disc_in_the_unlabelled_sacrum_has_no_level():
    classes, truth = spine(below=60)
    array = classes.array.copy()
    j, i = np.argwhere(truth.array == 11)[:, 1:].mean(0).astype(int)
    k = int(np.argwhere(truth.array == 11)[:, 0].mean() - 28 / 1.5)
    array[k:k + 4, j - 6:j + 6, i - 3:i + 3] = 3
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    assert any("no vertebra between" in f for f in result.flags)
    assert result.labels.array[k, j, i] == 3


def test_discs_without_vertebrae():
    classes, truth = spine(levels=5, lordosis=20)
    result = label_instances(np.where(classes.array == 3, 3, 0), classes.geometry)
    discs = (truth.array >= 11) & (truth.array < 30)
    assert np.array_equal(result.labels.array[discs], truth.array[discs])
    assert result.vertebrae == []


def test_small_lowest_disc_is_flagged_as_possibly_transitional():
    classes, truth = spine()
    array = classes.array.copy()
    where = np.argwhere(truth.array == 11)
    cut = where[where[:, 1] > np.percentile(where[:, 1], 20)]
    array[tuple(cut.T)] = 0
    result = label_instances(array, classes.geometry)
    assert values(result) == [11, 12, 13, 14, 15]
    assert any("transitional" in f for f in result.flags)


def test_short_lowest_disc_may_be_the_remnant_of_the_sacrum():
    classes, truth = spine()
    array = classes.array.copy()
    where = np.argwhere(truth.array == 11)
    # 60 % of the length from front to back, all of the height: 60 % of the volume.
    array[tuple(where[where[:, 1] > np.percentile(where[:, 1], 60)].T)] = 0
    result = label_instances(array, classes.geometry, np.where(truth.array == 11, 0.95, 0.0))
    assert values(result) == [11, 12, 13, 14, 15]
    assert not result.certain and any("remnant disc S1-S2" in f for f in result.flags)


def test_a_collapsed_disc_of_full_length_is_no_remnant():
    classes, truth = spine()
    array, where = classes.array.copy(), np.argwhere(truth.array == 11)
    array[tuple(where[where[:, 0] > np.percentile(where[:, 0], 50)].T)] = 0
    result = label_instances(array, classes.geometry, np.where(truth.array == 11, 0.95, 0.0))
    assert values(result) == [11, 12, 13, 14, 15]
    assert result.certain and not any("remnant disc" in f for f in result.flags)


def test_front_and_rear_of_a_steep_wedge_are_not_discs_above_each_other():
    classes, truth = spine(spacing=(1.5, 1.0, 1.0))
    curve = spine_curve(classes.array, classes.geometry, column_core(classes.array, classes.geometry)[0])
    k, j, i = np.indices(classes.array.shape)
    z, y, x = np.argwhere(truth.array == 11).mean(0)
    # 49 degrees from level; thick in front, flat behind, as of a slipped, collapsed L5-S1.
    along, across = (j - y) * np.cos(0.85) - (k - z) * np.sin(0.85), (j - y) * np.sin(0.85) + (k - z) * np.cos(0.85)
    beside = np.abs(i - x) < 8
    front, rear, next_disc = (make_piece(np.argwhere(mask), curve, classes.geometry) for mask in (
        beside & (along > 2) & (along < 20) & (np.abs(across) < 8),
        beside & (along < 0) & (along > -20) & (np.abs(across) < 2), truth.array == 12))
    assert not _stacked(front, rear) and not _stacked(rear, front)
    assert _stacked(rear, next_disc)


def test_one_disc_alone():
    classes, truth = spine(levels=1)
    result = label_instances(classes.array, classes.geometry)
    assert values(result) == [11]


def test_disc_measures():
    classes, _ = spine(spacing=(1.5, 1.5, 1.5))
    result = label_instances(classes.array, classes.geometry)
    heights = np.array([d.centroid[2] for d in result.discs])
    assert np.allclose(np.diff(heights), PITCH, atol=1.5)
    assert np.allclose([d.volume for d in result.discs], 44 * 34 * 10, rtol=0.15)
    assert np.allclose([d.height for d in result.discs], 10, atol=2)


@pytest.mark.parametrize("array", [np.zeros((20, 20, 20), np.uint8), np.ones((20, 20, 20), np.uint8)])
def test_no_disc_is_an_error(array):
    with pytest.raises(SegmentationError, match="No disc"):
        label_instances(array, Geometry(array.shape[::-1]))


def test_speck_is_no_disc():
    array = np.zeros((40, 40, 20), np.uint8)
    array[10:12, 10:12, 10] = 3
    with pytest.raises(SegmentationError):
        label_instances(array, Geometry(array.shape[::-1]))


def test_wrong_shape_is_an_error():
    with pytest.raises(SegmentationError, match="do not fit"):
        label_instances(np.zeros((4, 4, 4)), Geometry((5, 5, 5)))
