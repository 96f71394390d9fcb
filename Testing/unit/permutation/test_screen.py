"""The float32 screen of permutations gives the maxima and counts of float64 alone, on data made to mislead it."""

from itertools import combinations

import numpy as np
import pytest

from DiscStatsLib.permutation import screen as permutation_screen
from DiscStatsLib.permutation.glm import fit, partition
from DiscStatsLib.permutation.kernel import compiled
from DiscStatsLib.permutation.max_statistic import max_statistics
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import make_stratum

pytestmark = pytest.mark.skipif(compiled() is None, reason="numba is not installed: float64 alone is used")

V = 700


def design_of(rng, n):
    return np.column_stack([np.ones(n), rng.integers(1, 6, n), rng.uniform(20, 80, n), rng.integers(0, 2, n)])


def plain(rng, design):
    return rng.normal(80, 10, (len(design), V))


def scales(rng, design):
    """From 1e-120 to 1e120, and from pure noise to a nearly perfect fit."""
    noise = rng.normal(size=(len(design), V)) * np.logspace(-7, 0, V)
    return (design @ [0.1, 1.0, 0.02, 0.3])[:, None] * rng.uniform(0, 1, V) * 1e-3 + noise * 10.0 ** rng.integers(
        -120, 120, V)


def near_duplicates(rng, design):
    """Some voxels differ from one another in the eighth digit: which is the maximum float32 cannot tell."""
    y = plain(rng, design)
    y[:, :30] = y[:, :1] * (1 + 1e-9 * rng.normal(size=(len(design), 30)))
    return y


def all_near_duplicates(rng, design):
    y = plain(rng, design)
    return y[:, :1] * (1 + 1e-9 * rng.normal(size=y.shape))


def spikes(rng, design):
    """One person stands out, in the map and in a covariate: rearranged data lie almost in the reduced model."""
    y = 1e-6 * rng.normal(size=(len(design), V))
    y[rng.integers(0, len(design), V), np.arange(V)] += 1
    return y


def few_values(rng, design):
    """Maps of three values: many rearrangements tie exactly, also at no effect."""
    return rng.integers(0, 3, (len(design), V)).astype(float)


HARD = [plain, scales, near_duplicates, all_near_duplicates, spikes, few_values]
TESTS = [([0, 1, 0, 0], "t", False), ([[0, 1, 0, 0], [0, 0, 1, 0]], "F", False), ([0, 1, 0, 0], "t", True),
         ([1, 0, 0, 0], "t", True)]


def both(stratum, scheme, monkeypatch, **options):
    screened = max_statistics([stratum], scheme, V, **options)
    with monkeypatch.context() as patch:
        patch.setattr(permutation_screen, "FEWEST", V + 1)
        return screened, max_statistics([stratum], scheme, V, **options)


@pytest.mark.parametrize("make", HARD, ids=[make.__name__ for make in HARD])
@pytest.mark.parametrize("weights, kind, flip", TESTS, ids=["t", "F", "t-flipped", "mean-flipped"])
@pytest.mark.parametrize("n", [9, 31, 90])
def test_maxima_and_counts_are_those_of_float64(make, weights, kind, flip, n, monkeypatch):
    rng = np.random.default_rng(n)
    design = design_of(rng, n)
    if make is spikes:
        design[:, 2] = 1e-6 * rng.normal(size=n)
        design[0, 2] += 1
    y = make(rng, design)
    part, rows = partition(design, weights), np.arange(n)
    good = np.isfinite(fit(part, y, kind).stat)
    y = np.where(good, y, rng.normal(size=y.shape))
    stratum = make_stratum(part, y, kind, columns=np.arange(V), rows=rows, flip=flip)
    for alternative in ("two-sided", "greater", "less") if kind == "t" else ("two-sided",):
        screened, alone = both(stratum, make_scheme(n, 130, 3, flip=flip), monkeypatch, alternative=alternative)
        np.testing.assert_array_equal(screened.counts, alone.counts)
        np.testing.assert_allclose(screened.maxima, alone.maxima, rtol=1e-7 if make is scales else 1e-10)


def exact_counts(y, first):
    """Count by whole numbers: with two equal groups and no covariate, t grows with |2 (sum of group) - total|."""
    size = [np.abs(2 * y[list(g)].sum(axis=0) - y.sum(axis=0)) for g in combinations(range(len(y)), first.sum())]
    return (np.array(size) >= np.abs(2 * y[first].sum(axis=0) - y.sum(axis=0))).sum(axis=0) - 1


def whole_numbers(half):
    """Two equal groups of whole numbers: (maps, who is in the first group, stratum, all relabelings)."""
    rng = np.random.default_rng(half)
    first = np.arange(2 * half) < half
    y = rng.integers(0, 6, (2 * half, V + 50))
    part = partition(np.column_stack([np.ones(2 * half), first]), [0, 1])
    y = y[:, np.isfinite(fit(part, y).stat)][:, :V]
    stratum = make_stratum(part, y, "t", columns=np.arange(V), rows=np.arange(2 * half))
    return y, first, stratum, make_scheme(2 * half, 5000, 0, row_types=first.astype(int))


@pytest.mark.parametrize("half", [4, 5])
def test_exhaustive_groups_of_whole_numbers_tie_as_whole_numbers_do(half):
    y, first, stratum, scheme = whole_numbers(half)
    assert scheme.exhaustive
    np.testing.assert_array_equal(max_statistics([stratum], scheme, V).counts, exact_counts(y, first))
    # Relabelings that tie at no effect at all are among them.
    assert (2 * y[first].sum(axis=0) == y.sum(axis=0)).sum() > 10


def test_without_its_bounds_the_screen_is_misled(monkeypatch):
    """The data above are hard: float32 alone counts wrongly there."""
    y, first, stratum, scheme = whole_numbers(5)
    monkeypatch.setattr(permutation_screen, "ROOM", 0.0)
    assert (max_statistics([stratum], scheme, V).counts != exact_counts(y, first)).any()


def test_error_of_a_float32_product_is_within_its_bound():
    rng = np.random.default_rng(2)
    for k in (5, 28, 200, 1000):
        rows, data = rng.normal(size=(40, k)), rng.choice([1, 1 + 2.0 ** -23.5], (k, 3000))
        rows /= np.linalg.norm(rows, axis=1)[:, None]
        data /= np.linalg.norm(data, axis=0)
        error = np.abs((rows.astype(np.float32) @ data.astype(np.float32)).astype(float) - rows @ data).max()
        assert 0 < error < (k + 2) * permutation_screen.UNIT
