"""From volume to probabilities, with an engine whose answer is known."""

import numpy as np
import pytest

from DiscRelaxometryLib.discs.engine import Model
from DiscRelaxometryLib.discs.inference import normalize_signal, predict, softmax, stack_indices, upright_probabilities
from DiscRelaxometryLib.discs.network import NetworkConfig
from DiscRelaxometryLib.errors import Cancelled
from DiscRelaxometryLib.image import Geometry, Image

LOGITS = np.array([0.0, 0.4, -1.0, 1.5, 0.9])
MODEL = Model(None, {"name": "test", "version": "0", "classes": list(range(5))}, NetworkConfig(), 1.0)


class BrightIsDisc:
    """Answers from the center slice alone: bright is disc (L5-S1 where very bright), the rest background."""

    name, device = "fake", "cpu"

    def __init__(self):
        self.shapes = []

    def run(self, stacks):
        self.shapes.append(stacks.shape)
        center = stacks[:, stacks.shape[1] // 2]
        logits = np.zeros((len(stacks), 5, *center.shape[1:]), np.float32)
        logits[:, 0] = 5
        logits[:, 3] = 20 * np.clip(center - 1, -1, 1)
        logits[:, 4] = 40 * np.clip(center - 3, -1, 1)
        return logits


def volume(order=(0, 1, 2), flips=()):
    """Return a volume with a bright box, its axes permuted and flipped with its geometry."""
    array = np.random.default_rng(0).normal(50, 1, (90, 80, 9)).astype(np.float32)
    array[30:50, 20:60, 2:6] = 400
    direction = np.eye(3)
    origin = np.zeros(3)
    geometry = Geometry(array.shape[::-1], (4.0, 0.9, 0.9))
    for axis in flips:
        array = np.flip(array, axis)
        origin = origin + direction[:, 2 - axis] * geometry.spacing[2 - axis] * (array.shape[axis] - 1)
        direction[:, 2 - axis] *= -1
    array = np.ascontiguousarray(array.transpose(order))
    axes = [2 - a for a in order][::-1]
    grid = Geometry(array.shape[::-1], [geometry.spacing[a] for a in axes], origin, direction[:, axes].ravel())
    return Image(array, grid)


@pytest.mark.parametrize("order, flips", [((0, 1, 2), ()), ((2, 0, 1), (0,)), ((1, 2, 0), (0, 2)), ((2, 1, 0), (1,))])
def test_prediction_comes_back_on_the_inputs_grid_in_any_orientation(order, flips):
    image = volume(order, flips)
    prediction, flags = predict(image, MODEL, BrightIsDisc())
    bright = image.array > 200
    # At 0.9 mm pixels the decision may move by one pixel at the border of the box.
    assert np.mean((prediction.classes == 3) == bright) > 0.995
    assert prediction.classes.shape == image.array.shape and not flags
    assert np.all(prediction.disagreement == 0)
    np.testing.assert_allclose(prediction.confidence.max(), 1, atol=1e-4)


def test_stacks_are_padded_to_the_networks_multiple_and_split_in_calls():
    engine = BrightIsDisc()
    predict(volume(), MODEL, engine, flip=False)
    assert all(s[2] % 32 == 0 and s[3] % 32 == 0 and s[1] == 5 for s in engine.shapes)
    # Five slices 8 mm apart for the first look (0, 2, .., 8; spine in 2 and 4), then 0 to 6.
    assert sum(s[0] for s in engine.shapes) == 5 + 7


def test_only_slices_and_columns_near_the_spine_are_labelled():
    narrow, wide = volume(), volume()
    grid = Geometry((31, *wide.geometry.size[1:]), wide.geometry.spacing)
    array = np.random.default_rng(0).normal(50, 1, (90, 80, 31)).astype(np.float32)
    array[..., 11:20] = narrow.array
    engine = BrightIsDisc()
    prediction, _ = predict(Image(array, grid), MODEL, engine)
    alone, _ = predict(narrow, MODEL, BrightIsDisc())
    # The look sees the box in slices 13 to 16 and labels one probing distance more.
    probes = len({*range(1, 31, 2), 0, 30})
    assert probes + 4 <= sum(s[0] for s in engine.shapes) <= probes + 8
    assert np.mean(prediction.classes[..., 11:20] == alone.classes) > 0.99
    assert not prediction.classes[..., :11].any() and np.all(prediction.confidence[..., 0] == 1)


def test_without_a_spine_no_slice_is_labelled():
    engine = BrightIsDisc()
    # Two values of equal share are one standard deviation from their mean: the fake engine sees no bright pixel.
    image = Image(np.random.default_rng(0).choice([40, 60], (90, 80, 9)).astype(np.float32), volume().geometry)
    prediction, _ = predict(image, MODEL, engine)
    assert not prediction.classes.any() and sum(s[0] for s in engine.shapes) == 5


def test_signal_scale_and_offset_do_not_matter():
    image = volume()
    scaled = Image(image.array * 37.5 + 1000, image.geometry)
    first, second = (predict(v, MODEL, BrightIsDisc())[0] for v in (image, scaled))
    np.testing.assert_array_equal(first.classes, second.classes)


def test_cancel_between_slices():
    def stop(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        predict(volume(), MODEL, BrightIsDisc(), progressCallback=stop)


def test_single_slice_is_reported():
    image = volume()
    one = Image(image.array[..., 3:4], Geometry((1, 80, 90), image.geometry.spacing))
    assert "only 1" in predict(one, MODEL, BrightIsDisc())[1][0]


def test_neighbors_lie_near_the_distance_of_training():
    np.testing.assert_array_equal(stack_indices(9, 4.5, 5)[0], [0, 0, 0, 1, 2])
    np.testing.assert_array_equal(stack_indices(9, 4.5, 5)[4], [2, 3, 4, 5, 6])
    np.testing.assert_array_equal(stack_indices(30, 0.6, 5)[10], [4, 7, 10, 13, 16])


def test_normalized_signal_has_mean_0_and_sd_1_and_is_clipped():
    array = np.random.default_rng(1).normal(100, 20, (20, 20, 20))
    array[0, 0, 0] = 1e6
    result = normalize_signal(array)
    assert result.dtype == np.float32
    assert abs(result.mean()) < 1e-4 and abs(result.std() - 1) < 1e-4 and result.max() < 4


def test_softmax_of_a_known_case():
    logits = np.log(np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(softmax(logits.copy(), 1.0), [[0.25, 0.75]])
    np.testing.assert_allclose(softmax(logits.copy(), 0.5), [[0.1, 0.9]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_probabilities_are_the_softmax_at_the_models_temperature(temperature):
    class Known:
        def run(self, stacks):
            return np.broadcast_to(LOGITS[:, None, None], (len(stacks), 5, *stacks.shape[2:])).astype(np.float32)

    model = Model(None, MODEL.manifest, MODEL.config, temperature)
    expected = np.exp(LOGITS / temperature) / np.exp(LOGITS / temperature).sum()
    seen = list(upright_probabilities(np.zeros((3, 16, 16), np.float32), 4.0, model, Known()))
    assert [index for index, _, _ in seen] == [0, 1, 2]
    for _, probabilities, disagreement in seen:
        assert probabilities[:, 5, 7] == pytest.approx(expected, rel=1e-5) and not disagreement.any()
    prediction, _ = predict(volume(), model, Known())
    disc = expected[3] + expected[4]
    assert prediction.classes[45, 40, 4] == 3
    assert prediction.confidence[45, 40, 4] == pytest.approx(disc, abs=1e-3)
    assert prediction.l5s1[45, 40, 4] == pytest.approx(expected[4], abs=1e-3)


@pytest.mark.parametrize("share, decided", [(0.42, 1), (0.44, 3), (0.6, 3)])
def test_a_voxel_is_disc_from_half_of_the_dice_to_be_expected(share, decided):
    class Known:
        def run(self, stacks):
            logits = np.log([1e-6, 1 - share, 1e-6, share / 2, share / 2])
            return np.broadcast_to(logits[:, None, None], (len(stacks), 5, *stacks.shape[2:])).astype(np.float32)

    prediction, _ = predict(volume(), MODEL, Known())
    assert prediction.classes[45, 40, 4] == decided
    assert prediction.confidence[45, 40, 4] == pytest.approx(share if decided == 3 else 1 - share, abs=1e-3)
