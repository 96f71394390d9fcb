"""Whatever is done to a column: names ascend strictly, and a level is one piece or says that it was joined."""

import numpy as np
import pytest
from scipy import ndimage
from support.disc_phantoms import column
from support.spine_phantom import spine

from DiscRelaxometryLib.discs.instances import find_discs, make_piece, spine_curve
from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.discs.sacral import CERTAIN, confidence, shape_odds, slope, trace_below
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image


def damaged(classes: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return classes after some of what segmentations suffer, by chance."""
    classes = classes.copy()
    pieces, count = ndimage.label(classes == 3)
    if random.random() < 0.5:  # discs missed, or taken for bone
        for n in random.choice(np.arange(1, count + 1), random.integers(1, 3), replace=False):
            classes[pieces == n] = random.choice([0, 1])
    if random.random() < 0.5:  # a disc torn apart
        n = random.integers(1, count + 1)
        where = np.argwhere(pieces == n)[:, 1]
        low = int(random.uniform(where.min(), where.max()))
        cut = (pieces == n) & (np.abs(np.arange(classes.shape[1])[None, :, None] - low) <= 1)
        classes[cut] = 0
    if random.random() < 0.5:  # voxels lost, specks
        classes[(classes == 3) & (random.random(classes.shape) < 0.2)] = 0
        classes[(classes == 0) & (random.random(classes.shape) < 0.002)] = 3
    if random.random() < 0.3:  # a bridge between two discs
        low = random.integers(5, classes.shape[0] - 30)
        classes[low:low + 30, classes.shape[1] // 2:classes.shape[1] // 2 + 4, 8:14] = 3
    if random.random() < 0.3:  # one slice
        middle = classes.shape[2] // 2
        classes = classes[:, :, middle:middle + 1]
    if random.random() < 0.3:  # ends somewhere
        classes = classes[random.integers(0, 40):classes.shape[0] - random.integers(0, 40)]
    return np.ascontiguousarray(classes)


@pytest.mark.parametrize("seed", range(24))
def test_names_ascend_and_a_level_is_one_piece(seed):
    random = np.random.default_rng(seed)
    classes, _ = spine(levels=int(random.integers(3, 8)), spacing=(3.0, 1.8, 1.8), lordosis=random.uniform(0, 25))
    array = damaged(classes.array, random)
    probability = np.where(array == 3, random.random(array.shape), 0) if random.random() < 0.5 else None
    geometry = Geometry(array.shape[::-1], classes.geometry.spacing, classes.geometry.origin,
                        classes.geometry.direction)
    try:
        result = label_instances(array, geometry, probability)
    except SegmentationError:
        return
    named = [d for d in result.discs if d.value >= 11]
    assert [d.value for d in named] == sorted({d.value for d in named})
    heights = [d.centroid[2] for d in result.discs]
    assert heights == sorted(heights)
    present = {int(v) for v in np.unique(result.labels.array) if 11 <= v < 30}
    assert present == {d.value for d in named}
    for disc in named:
        pieces = ndimage.label(result.labels.array == disc.value)[1]
        assert pieces == 1 or "joined from separate parts" in disc.flags
    assert not np.any((result.labels.array >= 11) & (result.labels.array < 30) & (array != 3))


def test_specks_beside_a_disc_are_no_part_of_it():
    classes, truth = spine(levels=3)
    k, j, i = np.argwhere(truth.array == 12).max(axis=0)
    array = classes.array.copy()
    array[k - 3:k, j + 3:j + 6, i // 2:i // 2 + 3] = 3
    assert not np.any(classes.array[k - 3:k, j + 2:j + 6, i // 2:i // 2 + 3])
    result = label_instances(array, classes.geometry)
    np.testing.assert_array_equal(result.labels.array == 12, truth.array == 12)
    assert [d.flags for d in result.discs] == [[], [], []] and any("apart from the discs" in f for f in result.flags)


def one_slice(image: Image) -> Image:
    """Return the middle sagittal slice of a column."""
    array, g = image.array, image.geometry
    middle = array.shape[0] // 2
    return Image(array[middle:middle + 1], Geometry((*g.size[:2], 1), g.spacing, g.index_to_world((0, 0, middle)),
                                                    g.direction))


def classes_of(labels: Image) -> np.ndarray:
    array = labels.array
    return np.where(array >= 30, 1, np.where(array >= 11, 3, array)).astype(np.uint8)


@pytest.mark.parametrize("part", [lambda image: image, one_slice])
def test_plane_of_a_disc_is_found_in_one_slice_too(part):
    labels = part(column("sagittal_4mm"))
    classes = classes_of(labels)
    curve = spine_curve(classes, labels.geometry)
    # Bisectors of the tilts of the phantom's endplates.
    for value, lean in ((11, 27.5), (12, 8.5), (13, 0.5), (14, -5.5)):
        piece = make_piece(np.argwhere(labels.array == value), curve, labels.geometry)
        assert slope(piece) == pytest.approx(lean, abs=4)
    result = label_instances(classes, labels.geometry)
    assert [d.value for d in result.discs] == [11, 12, 13, 14, 15] and result.certain


def test_steep_wedge_in_one_slice_is_not_split():
    labels = one_slice(column("sagittal_4mm"))
    found, islands, _ = find_discs(classes_of(labels), labels.geometry)
    assert len(found) == 5 and not islands and all(p.notes == [] for p in found)


def test_evidence_states_its_confidence():
    labels = column("sagittal_4mm")
    result = label_instances(classes_of(labels), labels.geometry, 0.9 * (labels.array == 11))
    assert "probability 0.90" in result.evidence and "leans" in result.evidence
    assert float(result.evidence.rsplit(" ", 1)[1]) > 0.9
    # Without its L5-S1 the lowest disc leans as L4-L5 does, and the network hardly sees L5-S1 in it.
    without = np.where(labels.array == 11, 0, labels.array)
    weak = label_instances(classes_of(Image(without, labels.geometry)), labels.geometry, 0.6 * (labels.array == 12))
    assert not weak.certain and weak.discs[0].value == 12 and "a vertebra lies below it" in weak.evidence
    assert float(weak.evidence.rsplit(" ", 1)[1]) < CERTAIN
    no_body = np.where(without == 31, 0, without)
    weak = label_instances(classes_of(Image(no_body, labels.geometry)), labels.geometry, 0.6 * (labels.array == 12))
    assert weak.discs[0].value == 11 and not weak.certain and any("confidence of 0." in f for f in weak.flags)


def test_shape_weighs_for_and_against():
    labels = column("sagittal_4mm")
    curve = spine_curve(classes_of(labels), labels.geometry)
    pieces = [make_piece(np.argwhere(labels.array == v), curve, labels.geometry) for v in (11, 12, 13)]
    assert shape_odds(pieces) > 0.5 and shape_odds(pieces[1:]) == -1
    assert confidence(0.9, pieces) > 0.9 > confidence(0.9, pieces[1:]) > 0.5
    assert confidence(1.0, pieces[1:]) < 1 and confidence(0.0, pieces) > 0
    assert confidence(0.9, pieces[:1]) == pytest.approx(0.9) and confidence(0.9, pieces[:1], True) < 0.2
    assert shape_odds(pieces[:1]) == 0


def test_a_body_below_the_named_disc_moves_the_name_and_says_so():
    classes, truth = spine(below=40)
    array = np.where(truth.array == 11, 0, classes.array)
    result = label_instances(array, classes.geometry, 0.7 * (truth.array == 12))
    assert result.discs[0].value == 12 and not result.certain
    assert any("A vertebra lies below the lowest disc" in f for f in result.flags)


def test_a_speck_in_the_sacrum_does_not_take_the_name():
    classes, truth = spine(below=60)
    j, i = np.argwhere(truth.array == 11)[:, 1:].mean(0).astype(int)
    k = int(np.argwhere(truth.array == 11)[:, 0].mean() - 34 / 1.5)
    array, probability = classes.array.copy(), 0.64 * (truth.array == 11)
    array[k - 8:k + 12, j - 8:j + 8, i - 6:i + 6] = 1
    array[k:k + 4, j - 6:j + 6, i - 3:i + 3], probability[k:k + 4, j - 6:j + 6, i - 3:i + 3] = 3, 0.82
    result = label_instances(array, classes.geometry, probability)
    named = {d.value: d.centroid[2] for d in result.discs}
    assert named[11] == pytest.approx(classes.geometry.index_to_world(
        np.argwhere(truth.array == 11).mean(0)[::-1])[2], abs=1)
    assert not result.certain or 3 not in named


def test_touching_processes_in_one_slice_do_not_bend_the_curve():
    classes, truth = spine(spacing=(3.0, 1.0, 1.0))
    middle = int(np.argwhere(truth.array >= 11)[:, 2].mean())
    array = classes.array[..., middle:middle + 1].copy()
    canal = np.argwhere(array == 2)
    back = canal[:, 1].min() - 3  # j runs to anterior
    array[canal[:, 0].min():canal[:, 0].max(), back - 20:back] = 1
    g = classes.geometry
    geometry = Geometry(array.shape[::-1], g.spacing, g.origin, g.direction)
    result = label_instances(array, geometry)
    assert [d.value for d in result.discs] == [11, 12, 13, 14, 15]
    assert not any("island" in f for f in result.flags)


@pytest.mark.parametrize("part", [lambda image: image, one_slice])
def test_trace_of_l5s1_below_the_lowest_disc_puts_the_names_in_doubt(part):
    labels = part(column("sagittal_4mm"))
    array = np.where(np.isin(labels.array, (11, 31)), 0, labels.array)
    classes, geometry = classes_of(Image(array, labels.geometry)), labels.geometry
    piece = make_piece(np.argwhere(array == 12), spine_curve(classes, geometry), geometry)
    forward = np.cross([1.0, 0.0, 0.0], piece.normal)
    own = np.where(array == 12, 0.97, 0.0)

    def with_trace(depth, ahead, value):
        where = geometry.world_to_index(piece.centroid - depth * piece.normal + ahead * forward)
        probability = own.copy()
        probability[tuple(np.rint(where).astype(int)[::-1])] = value
        return probability

    assert label_instances(classes, geometry, own).certain
    for depth, ahead in ((30, 0), (15, 0), (42, 0), (30, 25), (30, -25)):
        result = label_instances(classes, geometry, with_trace(depth, ahead, 0.05))
        assert not result.certain and result.discs[0].value == 11, (depth, ahead)
        assert any("a trace of L5-S1 (probability 0.05) lies below it" in f for f in result.flags)
        # Odds of the network's 0.97 and of the column's shape, less those of the trace.
        odds = np.log(0.97 / 0.03) + shape_odds([piece, make_piece(np.argwhere(array == 13), spine_curve(
            classes, geometry), geometry)]) - np.log(0.05 / 0.0015)
        assert float(result.evidence.rsplit(" ", 1)[1]) == pytest.approx(1 / (1 + np.exp(-odds)), abs=0.011)
    # However strong, a trace renames nothing: a remnant disc S1-S2 below L5-S1 leaves one as well.
    result = label_instances(classes, geometry, with_trace(30, 0, 0.2))
    assert result.discs[0].value == 11 and not result.certain and float(result.evidence.rsplit(" ", 1)[1]) < 0.25
    assert any("a trace of L5-S1 (probability 0.2) lies below" in f for f in result.flags)
    # Beside a disc's own rim, beyond the next disc, in front of the spine, or above, nothing is missed.
    for depth, ahead in ((8, 0), (52, 0), (30, 33), (30, -33), (-30, 0)):
        assert label_instances(classes, geometry, with_trace(depth, ahead, 0.05)).certain, (depth, ahead)
        assert trace_below(piece, with_trace(depth, ahead, 0.05), geometry) == 0
    # Most images show as little.
    assert label_instances(classes, geometry, with_trace(30, 0, 0.001)).evidence == label_instances(
        classes, geometry, own).evidence
    assert trace_below(piece, with_trace(30, 0, 0.2), geometry) == 0.2


def test_a_wedge_that_reaches_far_from_its_plane_is_no_trace_of_itself():
    labels = column("sagittal_4mm")
    array, geometry = np.where(np.isin(labels.array, (11, 31)), 0, labels.array), labels.geometry
    curve = spine_curve(classes_of(Image(array, geometry)), geometry)
    piece = make_piece(np.argwhere(array == 12), curve, geometry)
    points = geometry.index_to_world(np.argwhere(array >= 0)[:, ::-1]) - piece.centroid
    forward = np.cross([1.0, 0.0, 0.0], piece.normal)
    tail = ((np.abs(points @ forward + 14) < 3) & (points @ piece.normal < 0) & (points @ piece.normal > -20) &
            (np.abs(points[:, 0]) < 10)).reshape(array.shape)
    thick = make_piece(np.argwhere((array == 12) | tail), curve, geometry)
    assert trace_below(piece, 0.9 * tail, geometry) == 0.9 and trace_below(thick, 0.9 * tail, geometry) == 0
    # Nor is the blurred rim of its own.
    assert trace_below(thick, 0.5 * ndimage.binary_dilation(tail), geometry) == 0
