"""Agreement: published data with published answers."""

import numpy as np
import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table
from DiscStatsLib.tables.agreement import (
    agreement_table,
    bland_altman,
    concordance,
    icc,
    pair_tables,
    repeatability,
    weighted_kappa,
)

#: Peak expiratory flow, l/min: Bland and Altman, Lancet 1986;i:307-310.
WRIGHT = ([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427],
          [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421])
MINI = ([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451],
        [525, 415, 508, 444, 500, 625, 460, 390, 642, 432, 420, 605, 227, 467, 268, 370, 443])
#: Shrout and Fleiss 1979, Table 2.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_bland_altman_1986():
    found = bland_altman(WRIGHT[0], MINI[0])
    assert abs(found.bias - -2.1) < 0.05 and abs(found.sd - 38.8) < 0.05
    # The paper rounds 1.96 to 2: -79.7 and 75.5.
    assert abs(found.bias - 2 * found.sd - -79.7) < 0.1 and abs(found.bias + 2 * found.sd - 75.5) < 0.1
    np.testing.assert_allclose(found.bias_ci, (-22.0, 17.8), atol=0.15)
    np.testing.assert_allclose(np.subtract(found.lower_ci, found.lower), (-34.6, 34.6), atol=0.5)
    assert found.n == 17 and found.slope_p > 0.05


def test_bland_altman_interval_covers_as_it_says():
    rng = np.random.default_rng(5)
    difference = rng.normal(1.0, 2.0, (1200, 20))
    hits = [(b.bias_ci[0] < 1 < b.bias_ci[1], b.lower_ci[0] < 1 - 1.96 * 2 < b.lower_ci[1])
            for b in (bland_altman(d, np.zeros(20)) for d in difference)]
    bias, limit = np.mean(hits, axis=0)
    assert abs(bias - 0.95) < 0.015 and abs(limit - 0.95) < 0.02


def test_bias_that_grows_is_seen():
    x = np.linspace(50, 150, 30)
    found = bland_altman(1.1 * x, x)
    assert found.slope_p < 1e-6 and abs(found.slope - 0.1 / 1.05) < 1e-9


def test_icc_of_shrout_and_fleiss():
    table = icc(RATINGS)
    found = {row["form"]: row for row in table.rows}
    # Values of the paper; intervals as R's psych::ICC prints them.
    for form, value, low, high in (("ICC(1,1)", 0.1657, -0.133, 0.72), ("ICC(2,1)", 0.2898, 0.019, 0.76),
                                   ("ICC(3,1)", 0.7148, 0.342, 0.95), ("ICC(1,k)", 0.4428, -0.884, 0.91),
                                   ("ICC(2,k)", 0.6201, 0.071, 0.93), ("ICC(3,k)", 0.9093, 0.676, 0.99)):
        assert abs(found[form]["value"] - value) < 1e-4, form
        assert abs(found[form]["low"] - low) < 1e-3 and abs(found[form]["high"] - high) < 6e-3, form
    assert abs(found["ICC(1,1)"]["F"] - 1.79) < 0.01 and found["ICC(1,1)"]["df2"] == 18
    assert abs(found["ICC(3,1)"]["F"] - 11.03) < 0.01 and abs(found["ICC(3,1)"]["p"] - 0.00013) < 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_a_column_agrees_with_itself(seed):
    values = 40 + 30 * np.random.default_rng(seed).random(168)
    rows = icc(np.column_stack([values, values])).rows
    assert all(row[name] == pytest.approx(1) for row in rows for name in ("value", "low", "high"))


def test_icc_interval_covers_and_perfect_agreement_is_one():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(400):
        target, rater = rng.normal(0, 2, (15, 1)), rng.normal(0, 0.5, (1, 3))
        row = icc(target + rater + rng.normal(0, 1, (15, 3))).select(form="ICC(2,1)").rows[0]
        inside.append(row["low"] < 4 / (4 + 0.25 + 1) < row["high"])
    assert 0.92 < np.mean(inside) < 0.98
    same = icc(np.column_stack([np.arange(5.0)] * 2))
    assert all(abs(v - 1) < 1e-12 for v in same["value"])


def test_concordance_by_hand():
    found = concordance(WRIGHT[0], MINI[0])
    # The paper gives r = 0.94; the small bias takes next to nothing from it.
    assert abs(found.pearson - 0.94) < 0.005 and 0.995 < found.accuracy <= 1
    assert abs(found.value - found.pearson * found.accuracy) < 1e-12
    x = np.array([1.0, 2, 3, 4, 5])
    # A shift of 2 at unit precision: 2 var / (2 var + 4) with var = 2.
    assert abs(concordance(x, x + 2).value - 0.5) < 1e-12
    assert abs(concordance(x, x).value - 1) < 1e-12


def test_concordance_as_an_r_package_prints_it():
    """Data of Zou 2013 (Stat Methods Med Res 22:630); SimplyAgree (R) prints CCC 0.4791, 95 % limits 0.1276, 0.7237."""
    x = [7.83, 7.42, 7.89, 7.12, 7.88, 6.16, 7.26, 6.71, 6.54, 4.75, 5.24, 4.86, 4.78, 6.05, 5.42, 4.21, 3.61, 3.72,
         3.87, 3.92]  # fmt: skip
    y = [6.57, 5.62, 6.90, 6.57, np.nan, 4.06, 4.29, 4.26, np.nan, 4.71, 5.50, 5.08, 5.02, 6.01, 5.67, 4.14, 4.20,
         4.61, 4.68, 5.04]  # fmt: skip
    found = concordance(x, y)
    assert found.n == 18
    np.testing.assert_allclose((found.value, found.low, found.high), (0.4791, 0.1276, 0.7237), atol=5e-5)


def test_concordance_interval_covers():
    rng = np.random.default_rng(11)
    truth = rng.normal(0, 2, (600, 40))
    first, second = truth + rng.normal(0, 1, truth.shape), truth + 0.5 + rng.normal(0, 1, truth.shape)
    expected = 2 * 4 / (5 + 5 + 0.25)
    inside = [c.low < expected < c.high for c in map(concordance, first, second)]
    assert abs(np.mean(inside) - 0.95) < 0.03


def test_repeatability_of_the_peak_flow_meters():
    # The paper's coefficients are two standard deviations: 43.2 (Wright) and 56.4 (mini).
    for meter, published in ((WRIGHT, 43.2), (MINI, 56.4)):
        found = repeatability(np.transpose(meter))
        assert abs(2 * np.sqrt(2) * found.within_sd - published) < 0.1
        assert abs(found.coefficient - 1.96 * np.sqrt(2) * found.within_sd) < 2e-3
        assert found.within_ci[0] < found.within_sd < found.within_ci[1]


def test_rms_cv_by_hand():
    # SDs are |difference| / sqrt(2): CVs 2/sqrt(2)/101 and 4/sqrt(2)/52, and 0.
    found = repeatability([[100, 102], [50, 54], [70, 70]])
    cv = np.array([2 / np.sqrt(2) / 101, 4 / np.sqrt(2) / 52, 0])
    assert abs(found.rms_cv - np.sqrt((cv ** 2).mean())) < 1e-12
    assert abs(found.mean_cv - cv.mean()) < 1e-12


def test_precision_errors_of_glueer_1995():
    """Osteoporos Int 5:262: 27 degrees of freedom put the upper 90 % limit 30 % above the RMS error.

    With duplicates the root mean square is 25 % above the mean of the errors.
    """
    rng = np.random.default_rng(0)
    pairs = repeatability(100 + rng.normal(0, 2, (27, 2)), confidence=0.9)
    assert round(pairs.rms_cv_ci[1] / pairs.rms_cv, 1) == 1.3 and round(pairs.within_ci[1] / pairs.within_sd, 1) == 1.3
    # Three measurements of at least 14 people are what the paper recommends.
    triples = repeatability(100 + rng.normal(0, 2, (14, 3)), confidence=0.9)
    assert triples.rms_cv_ci[1] / triples.rms_cv < 1.3
    many = repeatability(100 + rng.normal(0, 1, (200_000, 2)))
    assert abs(many.rms_cv / many.mean_cv - 1.25) < 0.01 and abs(many.rms_cv - 0.01) < 1e-4


def test_tables_are_paired_by_key():
    columns = [Column("participant_id"), Column("level"), Column("mean", "ms")]
    first = Table("a", columns, [{"participant_id": p, "level": v, "mean": m} for p, v, m in (
        ("1", "L4-L5", 50.0), ("2", "L4-L5", 60.0), ("3", "L4-L5", 70.0), ("4", "L4-L5", 10.0))])
    second = Table("b", columns, [{"participant_id": p, "level": "L4-L5", "mean": m} for p, m in (
        ("3", 71.0), ("2", 61.0), ("1", 49.0), ("9", 1.0))])
    a, b, unmatched = pair_tables(first, second, ("participant_id", "level"), "mean")
    np.testing.assert_array_equal(a, (50, 60, 70))
    np.testing.assert_array_equal(b, (49, 61, 71))
    assert unmatched == ["4, L4-L5", "9, L4-L5"]
    rows = {r["measure"]: r for r in agreement_table(a, b, "ms").rows}
    assert abs(rows["bias"]["value"] - (1 - 1 - 1) / 3) < 1e-12 and rows["bias"]["unit"] == "ms"
    with pytest.raises(DesignError, match="twice"):
        pair_tables(Table("c", columns, first.rows * 2), second, ("participant_id",), "mean")


def test_bad_input_is_named():
    with pytest.raises(DesignError, match="three complete pairs; there are 2"):
        bland_altman([1, 2, np.nan], [1, 2, 3])
    with pytest.raises(DesignError, match="cannot be paired"):
        concordance([1, 2], [1, 2, 3])
    with pytest.raises(DesignError, match="same value for everyone"):
        concordance([1, 1, 1], [1, 2, 3])
    with pytest.raises(DesignError, match="at least two measurements"):
        icc([[1], [2], [3]])
    with pytest.raises(DesignError, match="same"):
        icc(np.ones((4, 2)))
    with pytest.raises(DesignError, match="positive means"):
        repeatability([[1, 2], [-1, -2], [3, 4]])


def test_weighted_kappa_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    first = rng.integers(1, 6, 200)
    second = np.clip(first + rng.integers(-1, 3, 200), 1, 5)
    assert weighted_kappa(first, second) == pytest.approx(
        metrics.cohen_kappa_score(first, second, weights="quadratic"), abs=1e-12)
    assert weighted_kappa(first, first) == 1
    assert weighted_kappa([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert weighted_kappa([1, 2, 3, np.nan], [1, 2, 3, 5]) == 1
    with pytest.raises(DesignError, match="same grade throughout"):
        weighted_kappa([2, 2, 2], [2, 2, 2])
