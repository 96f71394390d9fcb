"""The Pareto tail against scipy's distribution, its quantiles, and 100 000 permutations."""

import numpy as np
import pytest
from scipy import stats
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.permutation import fit_tail, fwe_p, tail_p
from DiscStatsLib.permutation.tail import _anderson_darling


def maxima(rng, n=24, voxels=30, permutations=100_000, effect=0.0):
    """Return (observed, null) largest |t| of correlated voxels with a variable."""
    x = rng.normal(size=n)
    y = rng.normal(size=(n, voxels)) + 0.7 * rng.normal(size=(n, 1)) + effect * x[:, None] * (np.arange(voxels) < 4)
    unit = (y - y.mean(axis=0)) / np.linalg.norm(y - y.mean(axis=0), axis=0)
    x = (x - x.mean()) / np.linalg.norm(x - x.mean())
    null = np.concatenate([np.abs(x[rng.permuted(np.tile(np.arange(n), (5000, 1)), axis=1)] @ unit).max(axis=1)
                           for _ in range(permutations // 5000)])
    return tuple(r * np.sqrt((n - 2) / (1 - r ** 2)) for r in (np.abs(x @ unit), null))


@pytest.mark.parametrize("xi", [-0.3, 0.0, 0.1])
def test_the_tail_of_a_pareto_distribution_is_found(xi):
    null = stats.genpareto.rvs(xi, scale=2.0, size=40_000, random_state=1)
    tail = fit_tail(null)
    assert -tail.shape == pytest.approx(xi, abs=0.03) and tail.fit_p > 0.05
    at = stats.genpareto.isf([1e-2, 1e-3, 1e-4], xi, scale=2.0)
    np.testing.assert_allclose(tail.p(at), [1e-2, 1e-3, 1e-4], rtol=0.4)


def test_p_of_five_thousand_permutations_is_that_of_a_hundred_thousand():
    _, many = maxima(np.random.default_rng(3))
    far = np.quantile(many, [0.8, 0.95, 0.99, 0.999, 0.9998])
    ratios = []
    for seed in range(20):
        few = np.random.default_rng(seed).choice(many, 4999, replace=False)
        p, tail = tail_p(far, few)
        assert tail is not None and tail.n == 5000
        ratios.append(p / fwe_p(far, many))
    middle = np.median(ratios, axis=0)
    np.testing.assert_allclose(middle[:4], 1, atol=0.25)
    assert 0.4 < middle[4] < 2.5
    assert tail_p(np.array([1.3 * few.max()]), few)[0][0] < 1 / 5000 == fwe_p(np.array([1.3 * few.max()]), few)[0]


def test_below_the_threshold_and_beyond_the_end_p_is_counted():
    rng = np.random.default_rng(5)
    null = 1 - rng.uniform(size=2000) ** 0.5  # ends at 1
    tail = fit_tail(null)
    assert tail.p(tail.threshold) == pytest.approx(np.sum(null > tail.threshold) / 2001, rel=1e-9)
    observed = np.array([np.nan, 0.05, 5.0])
    p, _ = tail_p(observed, null)
    assert np.isnan(p[0]) and p[1] == fwe_p(observed, null)[1] and tail.p(5.0) == 0 and p[2] == 1 / 2001
    assert np.all(np.diff(tail_p(np.linspace(0, 0.99, 50), null)[0]) <= 0.002)


def test_what_does_not_fit_stays_counted():
    assert fit_tail(np.arange(150.0)) is None  # too few
    discrete = np.repeat(np.arange(1, 6.0), 400)
    assert fit_tail(discrete) is None
    np.testing.assert_array_equal(tail_p(np.array([5.0]), discrete)[0], fwe_p(np.array([5.0]), discrete))
    rng = np.random.default_rng(6)
    lumps = np.concatenate([rng.uniform(0, 1, 4875), rng.uniform(5, 5.1, 100), rng.uniform(9, 9.1, 25)])
    assert fit_tail(lumps) is None


def test_anderson_darling_is_that_of_scipy():
    x = stats.expon.rvs(size=60, random_state=2)
    expected = stats.goodness_of_fit(stats.expon, x, known_params={"loc": 0}, statistic="ad",
                                     n_mc_samples=1).statistic
    assert _anderson_darling(x, 0.0, x.mean()) == pytest.approx(expected, rel=1e-9)


def test_maps_and_record_say_what_was_approximated():
    import pandas as pd

    from DiscRelaxometryLib.image import Geometry, Image

    rng = np.random.default_rng(7)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(20)], "age": rng.uniform(20, 80, 20)})
    y = rng.normal(size=(20, 27)) + 0.08 * table.age.to_numpy()[:, None]
    atlas = Image(np.full((3, 3, 3), 11, np.uint8), Geometry((3, 3, 3)))
    options = {"correction": ("fwe", "tfce"), "n_permutations": 999}
    counted, found = (analyze(y, atlas, table, "map ~ age", tail=t, **options) for t in ("counted", "pareto"))
    record = found.provenance["contrasts"][0]
    assert record["tail_max"]["fit_p"] > 0.05 and "tail_max" not in counted.provenance["contrasts"][0]
    assert np.nanmin(found.maps["map_age_pfwe"].array) < 1 / 1000 == pytest.approx(
        np.nanmin(counted.maps["map_age_pfwe"].array), rel=1e-6)
    assert "approximated" in found.maps["map_age_pfwe"].meta["description"]
    assert "approximated" not in counted.maps["map_age_pfwe"].meta["description"]
    np.testing.assert_array_equal(found.maps["map_age_pperm"].array, counted.maps["map_age_pperm"].array)
    with pytest.raises(DesignError, match="tail = 'normal'"):
        analyze(y, atlas, table, "map ~ age", tail="normal")
