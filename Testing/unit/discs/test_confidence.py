"""Scores and calibration against cases worked out elsewhere."""

import numpy as np
import pytest

from DiscRelaxometryLib.discs.confidence import (
    calibration,
    disc_quality,
    doubts,
    expected_dice,
    fit_temperature,
    quality_table,
)
from DiscRelaxometryLib.discs.inference import Prediction
from DiscRelaxometryLib.discs.instances import CUT, Disc
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_name


def test_expected_dice_of_a_certain_mask_is_its_dice():
    mask = np.zeros((10, 10, 10), bool)
    mask[2:6] = True
    truth = np.zeros_like(mask)
    truth[3:8] = True
    # 300 voxels shared, 400 + 500 in all.
    assert expected_dice(truth.astype(float), mask) == pytest.approx(2 * 300 / 900)
    assert np.isnan(expected_dice(truth, np.zeros_like(mask)))


def test_expected_dice_is_the_mean_dice_of_drawn_truths():
    random = np.random.default_rng(0)
    probability = random.beta(0.3, 0.3, 4000)
    mask = probability > 0.5
    drawn = [random.random(4000) < probability for _ in range(300)]
    dice = np.mean([2 * (t & mask).sum() / (t.sum() + mask.sum()) for t in drawn])
    assert expected_dice(probability, mask) == pytest.approx(dice, abs=0.002)


def test_temperature_of_overconfident_logits_is_found():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20000, 4))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = (probability.cumsum(1) > random.random((20000, 1))).argmax(1)
    assert fit_temperature(2.5 * logits[None], classes) == pytest.approx(2.5, rel=0.05)


def test_calibration_error_of_known_cases():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 200_000)
    assert calibration(confidence, random.random(200_000) < confidence)[0] < 0.01
    error, bins = calibration(np.full(1000, 0.9), np.arange(1000) < 600)
    assert error == pytest.approx(0.3) and len(bins) == 1 and bins[0]["accuracy"] == pytest.approx(0.6)


def test_calibration_puts_full_confidence_in_the_last_bin():
    error, bins = calibration(np.ones(10), np.ones(10, bool))
    assert error == 0 and bins[-1]["high"] == 1


def two_discs(probabilities):
    """Return labels of two boxes and a prediction with these disc probabilities in them."""
    labels = np.zeros((40, 30, 8), np.uint8)
    labels[5:10, 5:25], labels[20:25, 5:25] = 11, 12
    disc = np.zeros(labels.shape, np.float16)
    for value, probability in zip((11, 12), probabilities):
        disc[labels == value] = probability
    geometry = Geometry(labels.shape[::-1], (4.0, 1.0, 1.0))
    half = np.zeros(labels.shape, np.float16)
    prediction = Prediction(np.where(labels, 3, 0), disc.astype(np.float32), disc, half, half + 0.25, half)
    return Image(labels, geometry), prediction


def test_the_score_of_a_disc_counts_what_lies_about_it_but_not_its_neighbor():
    """The neighbor is 3 mm off: what is likely up to the middle of the gap counts for each, and no more."""
    labels, prediction = two_discs((0.9, 0.9))
    array, disc = labels.array, prediction.disc
    array[20:25], disc[20:25] = 0, 0
    array[13:18, 5:25], disc[13:18, 5:25] = 12, 0.9  # voxels of 4 mm from front to back, 1 mm the other ways
    disc[10:13, 5:25] = [[[0.4]], [[0.2]], [[0.1]]]
    mask, reach = array == 11, np.zeros(array.shape, bool)
    reach[:12] = True  # the middle one is as near to both
    expected = 2 * disc[mask].sum() / (disc[reach].sum() + mask.sum())
    assert disc_quality(labels, prediction, 0.9)[0].expected_dice == pytest.approx(expected, rel=1e-4)


def test_unsure_disc_is_flagged_and_the_sure_one_is_not():
    quality = disc_quality(*two_discs((0.99, 0.6)), threshold=0.9)
    assert [q.name for q in quality] == ["L5-S1", "L4-L5"]
    assert [q.review for q in quality] == [False, True]
    assert quality[1].expected_dice == pytest.approx(2 * 0.6 / 1.6, abs=1e-3)
    assert quality[1].confidence == pytest.approx(0.6, abs=1e-3) and quality[0].entropy == 0.25
    rows = quality_table(quality).rows
    assert rows[1]["review"] is True and rows[0]["disc"] == "L5-S1"


def test_probability_outside_the_mask_lowers_its_own_disc_only():
    labels, prediction = two_discs((0.99, 0.99))
    prediction.disc[10:13, 5:25] = 0.4  # just above the lower disc
    low, high = disc_quality(labels, prediction, 0.9)
    assert low.expected_dice < 0.92 < 0.98 < high.expected_dice


def disc(value, z, length=35.0, height=10.0, flags=()):
    return Disc(value, disc_name(value), (0.0, 0.0, z), 9000.0, z, height, length, flags=list(flags))


def column(**changes):
    """Return five regular discs, with changes keyed ``L11`` and so on."""
    return [disc(v, 35.0 * (v - 11), **changes.get(f"L{v}", {})) for v in range(11, 16)]


@pytest.mark.parametrize("changes, value, word", [
    ({}, 0, ""), ({"L13": {"length": 21.0}}, 13, "60 % as long"), ({"L11": {"length": 56.0}}, 11, "160 % as long"),
    ({"L14": {"height": 21.0}}, 14, "210 % as high"),
    ({"L12": {"flags": ["joined from separate parts"]}}, 12, "joined"),
    ({"L11": {"height": 3.0}}, 0, ""), ({"L15": {"length": 12.0, "flags": [CUT]}}, 0, "")])
def test_odd_shapes_are_doubted_and_regular_ones_are_not(changes, value, word):
    found = {v: texts for v, texts in doubts(column(**changes)).items() if texts}
    assert set(found) == ({value} if value else set()) and all(word in texts[0] for texts in found.values())


def test_discs_too_near_or_beside_a_gap_are_doubted():
    near = column()
    near[3] = disc(14, 35.0 * 2 + 18)
    assert {v for v, t in doubts(near).items() if any("too near" in x for x in t)} == {13, 14}
    gap = [d for d in column() if d.value != 13]
    assert {v for v, t in doubts(gap).items() if any("no disc was found" in x for x in t)} == {12, 14}
    assert doubts(column()[:1]) == {11: []}
