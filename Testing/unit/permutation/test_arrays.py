"""Permutation test and TFCE of plain arrays: the numbers of the analysis of maps, of scipy, and published ones."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.permutation import TfceSettings, permutation_test, tfce

N, V = 22, 40
GRID = Image(np.full((1, 4, 10), 11, np.uint8), Geometry((10, 4, 1)))


def cohort(share):
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(N)], "grade": rng.integers(1, 6, N),
                          "age": rng.uniform(20, 80, N), "scan": np.arange(N) // 2,
                          "group": np.repeat(rng.integers(0, 2, N // 2), 2)})
    y = rng.normal(80, 5, (N, V)) - 2 * table.grade.to_numpy()[:, None]
    y[rng.uniform(size=y.shape) < share] = np.nan
    y[:, :4] = rng.normal(80, 5, (N, 4))
    return table, y


CASES = {
    "t": ("map ~ grade + age", [0, 1, 0], {}), "F": ("map ~ grade + age", [[0, 1, 0], [0, 0, 1]], {}),
    "less": ("map ~ grade + age", [0, 1, 0], {"alternative": "less"}),
    "flips": ("map ~ grade + age", [0, 1, 0], {"errors": "symmetric"}),
    "flips for want of a constant": ("map ~ grade + age - 1", [1, 0], {}),
    "within blocks": ("map ~ grade + age", [0, 1, 0], {"blocks": "scan"}),
    "whole blocks": ("map ~ group + age", [0, 1, 0], {"blocks": "scan"}),
    "flips of whole blocks": ("map ~ grade + age", [0, 1, 0], {"blocks": "scan", "errors": "symmetric"}),
}


@pytest.mark.parametrize("share", [0.0, 0.15])
@pytest.mark.parametrize("case", list(CASES))
def test_numbers_are_those_of_the_analysis_of_maps(case, share):
    formula, weights, options = CASES[case]
    table, y = cohort(share)
    kind = "t" if np.ndim(weights) == 1 else "F"
    expected = analyze(y, GRID, table, formula, {"tested": (kind, np.atleast_2d(weights))}, correction="fwe",
                       n_permutations=98, seed=3, **{"errors": "exchangeable"} | options)
    design = expected.design.matrix
    if "blocks" in options:
        options = options | {"blocks": table[options["blocks"]]}
    result = permutation_test(y, design, weights, n_permutations=99, seed=3, **options)
    assert result.scheme.description == expected.provenance["contrasts"][0]["permutation"]
    assert np.isfinite(result.statistic).sum() > 4
    np.testing.assert_allclose(result.null, expected.null["tested_max"], rtol=1e-9)
    for name, values in ((kind, result.statistic), ("pperm", result.p), ("pfwe", result.p_fwe)):
        np.testing.assert_allclose(values, expected.maps[f"map_tested_{name}"].array.ravel(), rtol=1e-5, err_msg=name)


def test_two_groups_of_four_have_the_exact_p_of_scipy():
    y = np.array([3.1, 4.2, 5.3, 6.9, 1.1, 2.0, 2.9, 0.3])
    design = np.column_stack([np.ones(8), np.repeat([1, 0], 4)])
    for alternative in ("greater", "less", "two-sided"):
        ours = permutation_test(y, design, [0, 1], n_permutations=70, alternative=alternative)
        theirs = stats.permutation_test((y[:4], y[4:]), lambda a, b: a.mean() - b.mean(), n_resamples=np.inf,
                                        alternative=alternative)
        assert ours.scheme.exhaustive and len(ours.null) == 69
        assert ours.p.shape == () and ours.p == pytest.approx(theirs.pvalue, rel=1e-12) == ours.p_fwe
    assert permutation_test(y, design, [0, 1], alternative="greater").p == pytest.approx(1 / 70, rel=1e-12)


def test_partial_correlation_of_ppcor():
    hl = [7, 15, 19, 15, 21, 22, 57, 15, 20, 18]
    disp = [0, 0.964, 0, 0, 0.921, 0, 0, 1.006, 0, 1.011]
    deg = [9, 2, 3, 4, 1, 3, 1, 3, 6, 1]
    bc = [1.78e-2, 1.05e-6, 1.37e-5, 7.18e-3, 0, 0, 0, 4.48e-3, 2.1e-6, 0]
    result = permutation_test(hl, np.column_stack([np.ones(10), disp, deg, bc]), [0, 1, 0, 0], n_permutations=50)
    assert result.statistic == pytest.approx(-2.223267, rel=1e-6) and result.df == 6


@pytest.mark.parametrize("observed_too", [True, False])
def test_given_permutations_and_flips_are_used_and_the_observed_order_counts_once(observed_too):
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=9), rng.normal(size=9)
    orders = np.array([rng.permutation(9) for _ in range(19)])
    r = np.array([stats.pearsonr(x, y[order])[0] for order in [np.arange(9), *orders]])
    given = np.vstack([np.arange(9), orders]) if observed_too else orders
    result = permutation_test(y, np.column_stack([np.ones(9), x]), [0, 1], permutations=given)
    assert result.p == pytest.approx(np.mean(np.abs(r) >= abs(r[0]) - 1e-12), rel=1e-12)
    np.testing.assert_allclose(result.null, np.abs(r[1:]) * np.sqrt(7 / (1 - r[1:] ** 2)), rtol=1e-9)

    signs = rng.choice([-1, 1], (19, 9))
    slope = np.array([stats.linregress(x, s * (y - y.mean())) for s in [np.ones(9), *signs]])
    given = np.vstack([np.ones(9), signs]) if observed_too else signs
    result = permutation_test(y, np.column_stack([np.ones(9), x]), [0, 1], signs=given)
    t = np.abs(slope[:, 0] / slope[:, 4])
    np.testing.assert_allclose(result.null, t[1:], rtol=1e-9)
    assert result.p == pytest.approx(np.mean(t >= t[0] - 1e-12), rel=1e-12)


GOOD = {"y": np.arange(8.0) ** 2, "design": np.column_stack([np.ones(8), np.arange(8) % 3]), "contrast": [0, 1]}


@pytest.mark.parametrize("change, words", [
    ({"y": np.ones((8, 2, 2))}, "shape"), ({"y": np.full(8, np.inf)}, "infinite"), ({"y": list("abcdefgh")}, "numbers"),
    ({"y": np.ones(8)}, "No voxel"), ({"y": np.full(8, np.nan)}, "No voxel"), ({"design": np.ones((7, 2))}, "one row"),
    ({"design": np.ones((8, 2))}, "collinear"), ({"design": np.full((8, 2), np.nan)}, "no numbers"),
    ({"contrast": [1, 0, 0]}, "3 weights"), ({"contrast": [0, 0]}, "zeros"), ({"contrast": [[0, 1], [0, 2]]}, "repeat"),
    ({"alternative": "both"}, "alternative"), ({"errors": "auto"}, "errors"), ({"exchange": "all"}, "exchange"),
    ({"blocks": [1, 2]}, "blocks"), ({"blocks": [None] + [1] * 7}, "no exchangeability block"),
    ({"n_permutations": 1}, "two permutations"), ({"permutations": [[0] * 8]}, "once"),
    ({"permutations": [[0, 1]]}, "shape"), ({"signs": [[2] * 8]}, "1 or -1"), ({"signs": [[1] * 8]}, "other than"),
    ({"signs": [[-1] * 8], "blocks": [1] * 8}, "choose one"),
    ({"signs": [[-1] * 8], "permutations": [range(8)] * 2}, "As many"),
])
def test_bad_input_is_one_clear_sentence(change, words):
    with pytest.raises(DesignError, match=words):
        permutation_test(**GOOD | change)


def test_tfce_of_a_uniform_block_in_a_volume():
    volume = np.zeros((10, 10, 10))
    volume[2, 3, :] = 10.0
    volume[7, 3, :5] = -11.0
    volume[0, 0, 0] = np.nan
    enhanced = tfce(volume)
    np.testing.assert_allclose(enhanced[2, 3], 10**0.5 * 10**3 / 3, rtol=1e-12)  # 1054.09
    np.testing.assert_allclose(enhanced[7, 3, :5], -(5**0.5) * 11**3 / 3, rtol=1e-12)
    assert enhanced.shape == volume.shape and np.array_equal(np.isnan(enhanced), np.isnan(volume))
    np.testing.assert_allclose(tfce(volume, TfceSettings(step=0.01))[2, 3], 1054.09, rtol=2e-3)


def test_tfce_keeps_disc_levels_apart_and_follows_its_connectivity():
    volume, labels = np.full((1, 2, 4), 3.0), np.array([[[1, 1, 2, 0]] * 2])
    enhanced = tfce(volume, labels=labels)
    np.testing.assert_allclose(enhanced[0, 0, :3], [18, 18, 9 * 2**0.5], rtol=1e-12)
    assert np.isnan(enhanced[0, :, 3]).all()
    corner = np.full((1, 2, 2), np.nan)
    corner[0, 0, 0] = corner[0, 1, 1] = 3.0
    assert tfce(corner)[0, 0, 0] == pytest.approx(9)
    assert tfce(corner, TfceSettings(connectivity=26))[0, 0, 0] == pytest.approx(9 * 2**0.5)


def test_tfce_refuses_what_is_no_volume():
    for volume, labels, words in ((np.ones(3), None, "three axes"), (np.ones((1, 1, 2)), np.ones((1, 1, 3)), "labels"),
                                  (np.full((1, 1, 2), np.inf), None, "infinite")):
        with pytest.raises(DesignError, match=words):
            tfce(volume, labels=labels)
