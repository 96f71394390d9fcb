"""Limits of agreement and means of regions, recomputed in a few lines."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.tables import bland_altman, region_means


def test_limits_of_agreement_are_1_96_sd_and_their_intervals_students():
    rng = np.random.default_rng(2)
    first = rng.normal(80, 10, 9)
    second = first - rng.normal(2, 3, 9)
    first[4] = np.nan
    d = (first - second)[np.isfinite(first)]
    n, bias, sd = len(d), d.mean(), d.std(ddof=1)
    found = bland_altman(first, second)
    assert (found.n, found.bias, found.sd) == (8, pytest.approx(bias), pytest.approx(sd))
    assert [found.lower, found.upper] == pytest.approx([bias - 1.959964 * sd, bias + 1.959964 * sd], rel=1e-6)
    t = stats.t.ppf(0.975, n - 1)
    half, wide = t * sd / np.sqrt(n), t * sd * np.sqrt(1 / n + 1.959964**2 / (2 * (n - 1)))
    assert found.bias_ci == pytest.approx((bias - half, bias + half))
    assert found.lower_ci == pytest.approx((found.lower - wide, found.lower + wide), rel=1e-6)
    assert found.upper_ci == pytest.approx((found.upper - wide, found.upper + wide), rel=1e-6)
    mean = (first + second)[np.isfinite(first)] / 2
    assert (found.slope, found.slope_p) == pytest.approx(stats.linregress(mean, d)[:4:3])
    # The limits stay those of 95 % whatever the confidence of their intervals.
    assert bland_altman(first, second, 0.9).upper == found.upper


def test_region_means_leave_missing_voxels_out_and_take_the_grade_of_their_level():
    grid = Geometry((6, 1, 1), (1.0,) * 3)
    labels = Image(np.array([[[11, 11, 11, 12, 12, 12]]], np.uint8), grid)
    regions = labels.like(np.array([[[1, 1, 2, 1, 2, 2]]], np.uint8))
    nan = np.nan
    maps = {"b": (10.0, nan, 30.0, 40.0, 50.0, 70.0), "a": (1.0, 2.0, nan, nan, 5.0, nan)}
    table = pd.DataFrame({"participant_id": ["b", "a"], "age": [50.0, 40.0], "grade_L5S1": [1, 3],
                          "grade_L4L5": [2, 5]})
    images = {p: Image(np.array([[v]], np.float32), grid) for p, v in reversed(maps.items())}
    found = region_means(images, labels, table, regions=regions, region_names={1: "nucleus", 2: "annulus"})
    rows = {(r["participant_id"], r["level"], r["region"]): r for r in found.rows}
    assert len(rows) == len(found.rows) == 8
    expected = {("b", "L5-S1", "nucleus"): (10.0, None, 1), ("b", "L5-S1", "annulus"): (30.0, None, 1),
                ("b", "L4-L5", "nucleus"): (40.0, None, 1), ("b", "L4-L5", "annulus"): (60.0, np.sqrt(200), 2),
                ("a", "L5-S1", "nucleus"): (1.5, np.sqrt(0.5), 2), ("a", "L5-S1", "annulus"): (None, None, 0),
                ("a", "L4-L5", "nucleus"): (None, None, 0), ("a", "L4-L5", "annulus"): (5.0, None, 1)}
    for key, (mean, sd, count) in expected.items():
        row = rows[key]
        assert row["mean"] == (mean if mean is None else pytest.approx(mean)), key
        assert row["mean_sd"] == (sd if sd is None else pytest.approx(sd)) and row["mean_voxels"] == count, key
        assert row["grade"] == {("b", "L5-S1"): 1, ("b", "L4-L5"): 2, ("a", "L5-S1"): 3, ("a", "L4-L5"): 5}[key[:2]]
        assert row["age"] == {"b": 50.0, "a": 40.0}[key[0]]
    inner = regions.like(np.where(regions.array == 1, 1, 0).astype(np.uint8))  # 0 is no region
    assert {r["region"] for r in region_means(images, labels, table, regions=inner).rows} == {"1"}
