"""Freedman-Lane permutation against a plain refit of every permutation; schemes; error rates on null data."""

import sys
from math import comb

import numpy as np
import pytest
from support import ROOT

from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.permutation.glm import fit, partition
from DiscStatsLib.permutation.max_statistic import fwe_p, max_statistics
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import has_constant, make_stratum

N, V = 24, 300


def natural_units(rng):
    """A design whose columns differ by nine orders of magnitude."""
    return np.column_stack(
        [np.ones(N), rng.integers(1, 6, N), rng.uniform(20, 80, N), rng.normal(1e6, 1e5, N), rng.normal(0, 1e-3, N)]
    )


def refit(design, weights, y, scheme, kind):
    """The slow reference: permute the reduced model's residuals, add its fit, and refit the full model, float64."""
    weights = np.atleast_2d(weights).astype(float)
    scale = np.linalg.norm(design, axis=0)
    x, c = design / scale, weights / scale
    null = np.linalg.svd(c)[2][len(c):].T
    reduced = x @ null
    b = np.linalg.lstsq(reduced, y, rcond=None)[0]
    fitted, rest = reduced @ b, y - reduced @ b
    inverse = np.linalg.inv(x.T @ x)
    out = []
    for k in range(len(scheme)):
        sign = 1 if scheme.sign is None else scheme.sign[k][:, None]
        new = fitted + sign * rest[scheme.order[k]]
        b = inverse @ (x.T @ new)
        sse = np.sum((new - x @ b) ** 2, axis=0)
        df = len(y) - x.shape[1]
        cb = c @ b
        value = np.einsum("rv,rs,sv->v", cb, np.linalg.inv(c @ inverse @ c.T), cb) / len(c) / (sse / df)
        out.append(np.copysign(np.sqrt(value), cb[0]) if kind == "t" else value)
    return np.array(out)


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
@pytest.mark.parametrize("weights, kind, flip", [
    ([0, 1, 0, 0, 0], "t", False), ([0, 1, -0.01, 0, 0], "t", False), ([[0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], "F", False),
    ([1, 0, 0, 0, 0], "t", True)])  # fmt: skip
def test_statistics_are_those_of_a_refit_and_p_is_within_one_count(weights, kind, flip, device):
    if device != "cpu":
        pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    design = natural_units(rng)
    y = rng.normal(80, 10, (N, V)) + design[:, 1:2] * 3
    scheme = make_scheme(N, 150, 5, flip=flip)
    part = partition(design, weights)
    assert has_constant(part.qz) is not flip
    stratum = make_stratum(part, y, kind, columns=np.arange(V), rows=np.arange(N), flip=flip)
    ours = max_statistics([stratum], scheme, V, device=device)
    slow = np.abs(refit(design, weights, y, scheme, kind))
    np.testing.assert_allclose(ours.maxima[0], slow.max(axis=1), rtol=1e-7)
    stat = np.abs(fit(part, y, kind).stat)
    assert np.abs(ours.counts - (slow >= stat).sum(axis=0)).max() <= 1
    slow_p = (1 + (slow.max(axis=1)[:, None] >= stat).sum(axis=0)) / 151
    assert np.abs(fwe_p(stat, ours.maxima[0]) - slow_p).max() <= 1.001 / 151


@pytest.mark.parametrize("alternative", ["greater", "less"])
@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_one_sided_maxima(alternative, device):
    if device != "cpu":
        pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    design, y = natural_units(rng), rng.normal(80, 10, (N, V))
    scheme = make_scheme(N, 50, 5)
    part = partition(design, [0, 1, 0, 0, 0])
    stratum = make_stratum(part, y, "t", columns=np.arange(V), rows=np.arange(N))
    ours = max_statistics([stratum], scheme, V, alternative=alternative, device=device)
    slow = refit(design, [0, 1, 0, 0, 0], y, scheme, "t") * (1 if alternative == "greater" else -1)
    np.testing.assert_allclose(ours.maxima[0], slow.max(axis=1), rtol=1e-7)


def test_large_samples_skip_the_basis_and_give_the_same(monkeypatch):
    from DiscStatsLib.permutation import stratum as permutation

    rng = np.random.default_rng(3)
    design, y = natural_units(rng), rng.normal(80, 10, (N, V))
    part, scheme = partition(design, [0, 1, 0, 0, 0]), make_scheme(N, 50, 5)
    first = make_stratum(part, y, "t", columns=np.arange(V), rows=np.arange(N))
    monkeypatch.setattr(permutation, "BASIS_LIMIT", 0)
    second = make_stratum(part, y, "t", columns=np.arange(V), rows=np.arange(N))
    assert first.basis is not None and second.basis is None
    np.testing.assert_allclose(
        max_statistics([first], scheme, V).maxima, max_statistics([second], scheme, V).maxima, rtol=1e-10
    )


def test_permuted_t_follows_the_t_distribution():
    from scipy.stats import kstest, t

    rng = np.random.default_rng(4)
    design = natural_units(rng)
    part, scheme = partition(design, [0, 1, 0, 0, 0]), make_scheme(N, 1000, 6)
    # One voxel: its maximum over one voxel is its statistic; |t| of permutations against the half t distribution.
    y = rng.normal(80, 10, (N, 1))
    null = max_statistics([make_stratum(part, y, "t", columns=np.arange(1), rows=np.arange(N))], scheme, 1).maxima[0]
    assert kstest(null, lambda q: 2 * t.cdf(q, N - 5) - 1).pvalue > 0.001


def test_missing_people_are_taken_out_of_the_cycles():
    scheme = make_scheme(10, 400, 1)
    rows = np.array([0, 2, 3, 7, 9])
    order, _ = scheme.restrict(rows)
    for full, part in zip(scheme.order, order):
        for place, got in zip(rows, rows[part]):
            expected = full[place]
            while expected not in rows:
                expected = full[expected]
            assert got == expected
    # Uniform: every person is as often at every place (400 / 5 = 80, SD 8).
    counts = np.array([np.bincount(column, minlength=5) for column in order.T])
    assert counts.min() > 48 and counts.max() < 112


def test_blocks_stay_blocks_also_when_someone_is_missing():
    blocks = np.array([0, 1, 0, 1, 2, 2, 0, 1])
    within = make_scheme(8, 30, 1, blocks=blocks)
    assert np.all(blocks[within.order] == blocks)
    rows = np.array([0, 1, 2, 3, 5, 7])
    order, _ = within.restrict(rows)
    assert np.all(blocks[rows][order] == blocks[rows])
    whole = make_scheme(8, 30, 1, blocks=np.repeat(np.arange(4), 2), exchange="whole", row_types=np.arange(8))
    assert whole.exhaustive is False or len(whole) == 23
    assert np.all(whole.order[:, ::2] % 2 == 0) and np.all(whole.order[:, 1::2] == whole.order[:, ::2] + 1)


def test_blocks_of_different_size_are_exchanged_among_their_equals():
    blocks = np.array([0, 0, 1, 1, 2, 2, 2])
    scheme = make_scheme(7, 500, 1, blocks=blocks, exchange="whole", row_types=np.arange(7))
    assert scheme.exhaustive and len(scheme) == 1
    np.testing.assert_array_equal(scheme.order[0], [2, 3, 0, 1, 4, 5, 6])


def test_small_designs_are_listed_in_full():
    for a, b in ((4, 4), (3, 5), (2, 6)):
        scheme = make_scheme(a + b, 5000, 0, row_types=[0] * a + [1] * b)
        assert scheme.exhaustive and len(scheme) == comb(a + b, a) - 1
        # Where each person goes decides the group that he is in.
        kinds = (np.argsort(scheme.order, axis=1) >= a).astype(int)
        assert len(np.unique(kinds, axis=0)) == len(kinds)
    assert len(make_scheme(6, 100, 0, flip=True)) == 63
    assert not make_scheme(8, 5000, 0).exhaustive


@pytest.mark.parametrize("a, b", [(4, 4), (3, 5), (5, 2)])
def test_exhaustive_groups_have_the_exact_p_of_scipy(a, b):
    """Every way to divide the people into the two groups, once: p of scipy's exact permutation test."""
    from scipy.stats import permutation_test

    rng = np.random.default_rng(a)
    y, group = rng.normal(80, 10, (a + b, 12)), np.repeat([0, 1], [a, b])
    y[:, 6:] = rng.integers(0, 3, (a + b, 6)) + 0.01 * (np.arange(a + b) == 0)[:, None]
    part = partition(np.column_stack([np.ones(a + b), group]), [0, 1])
    scheme = make_scheme(a + b, 5000, 0, row_types=group)
    stratum = make_stratum(part, y, "t", columns=np.arange(12), rows=np.arange(a + b))
    ours = (max_statistics([stratum], scheme, 12).counts + 1) / (len(scheme) + 1)
    for voxel in range(12):
        # Without a covariate t grows with the difference of the means.
        theirs = permutation_test((y[group == 1, voxel], y[group == 0, voxel]), n_resamples=np.inf, vectorized=True,
                                  alternative="greater", statistic=lambda one, other, axis: np.abs(
                                      one.mean(axis=axis) - other.mean(axis=axis)))  # fmt: skip
        assert ours[voxel] == pytest.approx(theirs.pvalue, abs=1e-12)


def test_exhaustive_exchange_within_blocks_is_complete():
    """Three people with two sessions, of which one is treated: 2^3 ways to exchange, each of them once."""
    from itertools import product

    treated, blocks = np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 2, 2])
    scheme = make_scheme(6, 100, 0, blocks=blocks, row_types=treated)
    y = np.array([3.0, 5, 1, 9, 4, 4.5])
    ours = sorted(y[order] @ (2 * treated - 1) for order in scheme.order)
    steps = y[1::2] - y[::2]
    np.testing.assert_allclose(ours, sorted(steps @ s for s in product([1, -1], repeat=3) if min(s) < 0))


def test_seed_decides_and_nothing_else():
    first, again, other = (make_scheme(31, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.order, again.order)
    assert not np.array_equal(first.order, other.order)


def test_no_possible_exchange_is_an_error():
    with pytest.raises(DesignError, match="No rearrangement"):
        make_scheme(6, 10, 0, blocks=[0, 0, 1, 1, 2, 2], row_types=[0, 0, 1, 1, 2, 2])
    with pytest.raises(DesignError, match="At least one permutation"):
        make_scheme(6, 0, 0)


def test_family_wise_error_guard():
    """A quick guard of the slow table (Testing/benchmarks/calibration.py): 300 null sets of two rows."""
    sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
    try:
        import calibration
    finally:
        sys.path.pop(0)
    from scipy.stats import binom

    sets = 300
    low, high = binom.ppf([0.0005, 0.9995], sets, 0.05) / sets
    by_title = {s.title: s for s in calibration.SCENARIOS}
    collinear, naive = [], []
    table = calibration.neighbors()
    assert "smooth normal noise" in by_title
    for number in range(sets):
        scenario = calibration.SCENARIOS[1]
        y, design = calibration.make_set(scenario, np.random.default_rng([9, number]))
        part, scheme = partition(design, [[0, 1, 0, 0]]), make_scheme(len(y), 39, number)
        rows, columns = np.arange(len(y)), np.arange(y.shape[1])
        stat = np.abs(fit(part, y).stat).max()
        right = make_stratum(part, y, "t", columns=columns, rows=rows)
        wrong = calibration._naive(part, y - y.mean(axis=0), columns, rows)
        collinear.append(fwe_p(stat[None], max_statistics([right], scheme, y.shape[1]).maxima[0])[0] <= 0.05)
        if number < 60:
            naive.append(fwe_p(stat[None], max_statistics([wrong], scheme, y.shape[1]).maxima[0])[0] <= 0.05)
    assert table.table.shape == (216, 6)
    assert low <= np.mean(collinear) <= high
    # Permuting the maps themselves spreads the covariate's smooth effect over the null and is far too liberal.
    assert np.mean(naive) > 0.2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(13))
def test_calibration_table(number):
    """The rows of the page that hold, 1 000 sets each: max-T and TFCE within the binomial limits, FDR at or under."""
    sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
    try:
        import calibration
    finally:
        sys.path.pop(0)
    assert calibration.HOLDING == 13
    scenario = calibration.SCENARIOS[number]
    sets = 400 if scenario.missing else 1000  # eight times as long for a set
    low, high = calibration.limits(sets)
    found = calibration.rates(scenario, sets, 59)
    assert low <= found["max T"] <= high and low <= found["TFCE"] <= high, found
    assert found["BH"] <= high, found
