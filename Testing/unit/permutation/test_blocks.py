"""Exchangeability blocks: unequal blocks, rows in any order, tests within participants, and error rates."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.permutation import make_scheme, permutation_test

GRID = Image(np.full((1, 4, 5), 11, np.uint8), Geometry((5, 4, 1)))
LEVELS = np.array(["L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"])


def discs(rng, people=16, missing=4):
    """Discs of people with an effect of the person on all; `missing` of them lack a level, three the lowest one."""
    table = pd.DataFrame({"participant_id": np.repeat([f"s{i:02}" for i in range(people)], 5),
                          "level": np.tile(LEVELS, people), "age": np.repeat(rng.uniform(20, 80, people), 5),
                          "grade": rng.integers(1, 6, 5 * people)})
    y = rng.normal(size=(5 * people, 20)) + 2 * np.repeat(rng.normal(size=(people, 20)), 5, axis=0)
    y += np.tile([0, 1, 2, 3, 8.0], people)[:, None]
    lost = [5 * i + (4 if i < 3 else 1) for i in range(missing)]
    kept = np.setdiff1d(np.arange(len(y)), lost)
    return table.iloc[kept].reset_index(drop=True), y[kept]


def test_whole_blocks_change_places_with_those_that_hold_the_same_levels():
    rng = np.random.default_rng(1)
    table, _ = discs(rng)
    scheme = make_scheme(len(table), 200, 1, blocks=table.participant_id, exchange="whole", places=table.level)
    level, person = table.level.to_numpy(), table.participant_id.to_numpy()
    held = table.groupby("participant_id")["level"].agg("|".join)
    for order in scheme.order:
        assert (level[order] == level).all()
        for one in np.unique(person):
            there = np.unique(person[order][person == one])
            assert len(there) == 1 and held[there[0]] == held[one]
    alone = person == "s03"  # lacks L2-L3 as nobody else does
    assert (scheme.order[:, alone] == np.flatnonzero(alone)).all()


@pytest.mark.parametrize("tested", ["age", "grade"])
def test_p_does_not_depend_on_the_order_of_the_rows(tested):
    rng = np.random.default_rng(2)
    table, y = discs(rng)
    options = {"blocks": "participant_id", "n_permutations": 60, "correction": "fwe", "errors": "exchangeable"}
    first = analyze(y, GRID, table, "map ~ age + grade + C(level)", tested, **options)
    order = np.random.default_rng(3).permutation(len(y))
    second = analyze(y[order], GRID, table.iloc[order], "map ~ age + grade + C(level)", tested, **options)
    assert first.provenance["contrasts"][0]["exchange"] == ("whole" if tested == "age" else "within")
    np.testing.assert_allclose(second.null[f"{tested}_max"], first.null[f"{tested}_max"], rtol=1e-9)
    np.testing.assert_allclose(second.maps[f"map_{tested}_t"].array, first.maps[f"map_{tested}_t"].array, rtol=1e-5)
    named = [w for w in first.warnings if "keep their place" in w]
    assert (len(named) == 1 and named[0].startswith("s03 hold")) if tested == "age" else not named
    blocks = np.column_stack([table.participant_id, table.level])
    arrays = permutation_test(y, first.design.matrix, np.array(first.design.columns) == tested, blocks=blocks,
                              n_permutations=61)
    np.testing.assert_allclose(arrays.null, first.null[f"{tested}_max"], rtol=1e-9)


def test_within_participants_t_is_that_of_an_intercept_for_each_of_them():
    rng = np.random.default_rng(4)
    table, y = discs(rng)
    dummies = pd.get_dummies(table.participant_id).to_numpy(float)
    x = np.column_stack([table.grade, *(table.level == v for v in LEVELS[1:]), dummies])
    result = analyze(y, GRID, table, "map ~ grade + age + C(level)", "grade", blocks="participant_id",
                     correction="fwe", n_permutations=20)
    b, rss = np.linalg.lstsq(x, y, rcond=None)[:2]
    df = len(y) - x.shape[1]
    t = b[0] / np.sqrt(rss / df * np.linalg.inv(x.T @ x)[0, 0])
    np.testing.assert_allclose(result.maps["map_grade_t"].array.ravel(), t, rtol=1e-5)
    np.testing.assert_allclose(result.maps["map_grade_p"].array.ravel(), 2 * stats.t.sf(abs(t), df), rtol=1e-4)
    assert result.provenance["contrasts"][0]["block_means_removed"]


def test_two_visits_are_the_paired_t_test_without_a_person_in_the_formula():
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(8)] * 2, "session": ["a"] * 8 + ["b"] * 8})
    y = rng.normal(size=(16, 20)) + np.tile(rng.normal(0, 3, 8), 2)[:, None]
    y[3, 7] = np.nan  # a visit that is missing at one voxel: the other one says nothing there
    result = analyze(y, GRID, table, "map ~ C(session)", blocks="participant_id", correction="fwe",
                     n_permutations=500)
    t = result.maps["map_session_t"].array.ravel()
    np.testing.assert_allclose(t, stats.ttest_rel(y[8:], y[:8], nan_policy="omit").statistic, rtol=1e-5)
    assert result.provenance["contrasts"][0]["permutation"].endswith("within 8 blocks")


def test_what_blocks_cannot_test_is_one_sentence():
    rng = np.random.default_rng(6)
    table, y = discs(rng)
    weights = {"both": [[0, 1, 0], [0, 0, 1]]}
    with pytest.raises(DesignError, match="contrasts of their own"):
        analyze(y, GRID, table, "map ~ age + grade", weights, blocks="participant_id")
    with pytest.raises(DesignError, match="constant within every exchangeability block"):
        permutation_test(y, np.column_stack([np.ones(len(y)), table.age]), [0, 1], blocks=table.participant_id,
                         exchange="within")
    table["level"] = [f"{level}{i}" for i, level in enumerate(table.level)]
    with pytest.raises(DesignError, match="No rearrangement"):
        analyze(y, GRID, table, "map ~ age", blocks="participant_id", errors="exchangeable")


@pytest.mark.parametrize("tested", ["age", "grade"])
def test_null_p_are_uniform_with_persons_of_icc_four_fifths_and_missing_levels(tested):
    """300 sets of shuffled rows with levels of unequal variance; naive exchange by row order would mix the levels."""
    p = []
    for number in range(300):
        rng = np.random.default_rng([7, number])
        table, y = discs(rng, 14, 3)
        order = rng.permutation(len(y))
        table, y = table.iloc[order], y[order, :2]
        x = np.column_stack([np.ones(len(y)), table.age, table.grade, *(table.level == v for v in LEVELS[1:])])
        blocks = np.column_stack([table.participant_id, table.level])
        found = permutation_test(y, x, np.eye(7)[1 + (tested == "grade")], blocks=blocks, n_permutations=40,
                                 seed=number)
        p.append(found.p[0])
    rate = np.mean(np.array(p) <= 0.05)
    low, high = stats.binom.ppf([0.001, 0.999], 300, 0.05) / 300
    assert low <= rate <= high and stats.kstest(p, "uniform").pvalue > 1e-3
