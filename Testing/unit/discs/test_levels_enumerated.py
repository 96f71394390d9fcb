"""All ways to miss one to three of eight discs: the names are right, or a sentence says that they are an assumption."""

import re
from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.image import Geometry

LEVELS = 8
BELOW, GRID = 45.0, Geometry((12, 42, 150), (4.0, 2.0, 2.0), (0, 0, 0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))


def column(seed):
    """Return classes and true levels of a straight column: 4 % less spacing per level upward, jitter of 10 %."""
    rng = np.random.default_rng(seed)
    pitch = 36.0 * 0.96 ** np.arange(LEVELS) * rng.uniform(0.9, 1.1, LEVELS)
    starts = BELOW + np.concatenate([[0], np.cumsum(pitch)])
    k, j, i = np.indices(GRID.shape)
    z, y, x = 2.0 * k, 2.0 * j, 4.0 * i
    inside = (np.abs(x - 22) < 20) & (np.abs(y - 52) < 17)
    truth = np.zeros(GRID.shape, np.uint8)
    for level in range(LEVELS):
        disc = (z >= starts[level]) & (z < starts[level] + 0.28 * pitch[level])
        body = (z >= starts[level] + 0.28 * pitch[level]) & (z < starts[level + 1])
        truth[inside & disc], truth[inside & body] = 11 + level, 31 + level
    truth[(np.abs(x - 22) < 9) & (np.abs(y - 24) < 7)] = 2
    classes = np.select([truth == 2, truth >= 31, truth >= 11], [2, 1, 3]).astype(np.uint8)
    return classes, truth


CASES = [missing for count in (0, 1, 2, 3) for missing in combinations(range(LEVELS), count)]


@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("evidence", [True, False])
def test_names_are_true_or_said_to_be_an_assumption(evidence, part):
    wrong = []
    for number, missing in list(enumerate(CASES))[part::8]:
        classes, truth = column(number)
        lost = np.isin(truth, [11 + level for level in missing])
        # A missed disc is background, as after fusion it is bone.
        seen = np.where(lost, number % 2, classes)
        probability = np.where((truth == 11) & ~lost, 0.9, 0.02 * (seen == 3)) if evidence else None
        result = label_instances(seen, GRID, probability)
        found = {d.value: d for d in result.discs}
        values = ndimage.maximum(truth, np.where(truth < 30, result.labels.array, 0), list(found))
        same = np.array_equal(values, list(found)) and len(found) == LEVELS - len(missing)
        if not same and not (any("assumption" in f for f in result.flags) and not result.certain):
            wrong.append((missing, list(found), result.flags))
        if same:  # and as many are said to be missing
            said = [int(n) for flag in result.flags for n in re.findall(r"\((\d+) level\(s\) left out", flag)]
            assert sum(said) == sum(min(found) < 11 + level < max(found) for level in missing), (missing, result.flags)
        if not missing:
            assert result.certain and not result.flags
        if len(missing) == 1:  # a bare "assumption" is no answer where its neighbors give the name away
            assert same and result.certain == (missing != (0,)), (missing, result.flags)
            assert len(result.flags) == (missing != (LEVELS - 1,)), result.flags
    assert not wrong, f"{len(wrong)} of {len(CASES[part::8])}: {wrong[:2]}"


@pytest.mark.parametrize("seen", [0, 1, 2])
def test_the_networks_l5s1_counts_the_gap_below_it(seen):
    # Two pieces lie below the disc that the network names, with a level missing between: names still count places.
    classes, truth = column(5)
    lost = truth == 12
    result = label_instances(np.where(lost, 1, classes), GRID, np.where(truth == 13 + seen, 0.9, 0.02))
    places = [11, 13, 14, 15, 16, 17, 18]
    expected = [max(place - (2 + seen), 0) for place in places]
    assert [d.value for d in result.discs] == [v if v >= 11 else 3 for v in expected]
    assert not result.certain


@pytest.mark.parametrize("top", [3, LEVELS])
def test_l5s1_seen_in_the_uppermost_disc_is_no_name_but_a_doubt_of_the_header(top):
    classes, truth = column(6)
    kept = np.where(np.isin(truth, [*range(11 + top, 20), *range(31 + top, 40)]), 0, classes)
    result = label_instances(kept, GRID, np.where(truth == 10 + top, 0.9, 0.02))
    assert [d.value for d in result.discs] == [11 + n for n in range(top)] and not result.certain
    assert any("superior and inferior the wrong way round" in flag for flag in result.flags)
