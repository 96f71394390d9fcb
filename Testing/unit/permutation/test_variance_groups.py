"""The G statistic against Welch's tests, its formula written out with matrices, and a refit of every permutation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.analysis.spread import relative_squares
from DiscStatsLib.permutation.cluster_null import statistic_maps
from DiscStatsLib.permutation.deviates import stat_to_z
from DiscStatsLib.permutation.glm import Partition, fit, partition, residuals
from DiscStatsLib.permutation.max_statistic import fwe_p, max_statistics
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import make_stratum

N = 31
GROUPS = np.repeat([0, 1], [25, 6])
T, F = [[0, 1, 0, 0]], [[0, 1, 0, 0], [0, 0, 1, 0]]


def cohort(seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(N), GROUPS, rng.normal(size=N), rng.uniform(20, 80, N)])
    return x, 80 + rng.normal(size=(N, 8)) * (1 + GROUPS)[:, None]


def written_out(x, c, y, groups, equal=False):
    """G of one voxel, Winkler et al. 2014, with every matrix formed; with `equal` the F of ordinary df with its p."""
    c = np.array(c, float).T
    b = np.linalg.pinv(x) @ y
    resid = np.eye(len(y)) - x @ np.linalg.pinv(x)
    e = resid @ y
    w, uneven = np.zeros(len(y)), 0
    for g in np.unique(groups):
        own = groups == g
        w[own] = np.diag(resid)[own].sum() / (e[own] @ e[own])
    for g in np.unique(groups):
        own = groups == g
        uneven += (1 - w[own].sum() / w.sum()) ** 2 / np.diag(resid)[own].sum()
    s = c.shape[1]
    middle = np.linalg.inv(c.T @ np.linalg.inv(x.T @ np.diag(w) @ x) @ c)
    g = (b @ c @ middle @ c.T @ b) / s / (1 + 2 * (s - 1) / (s * (s + 2)) * uneven)
    if not equal:
        return g
    df = len(y) - x.shape[1]
    welch = min(s * (s + 2) / (3 * uneven), df)
    chi2 = (welch + s / 2 - 1) * np.log(1 + s * g / welch)
    return df / s * (np.exp(chi2 / (df + s / 2 - 1)) - 1)


def weighted_rest(z, y, weights):
    """Residuals of a fit that minimizes the weighted squares."""
    root = np.sqrt(weights)[:, None]
    return y - z @ np.linalg.lstsq(root * z, root * y, rcond=None)[0]


def test_two_groups_are_welchs_t():
    _, y = cohort()
    ours = fit(partition(np.column_stack([np.ones(N), GROUPS]), [0, 1]), y, variance_groups=GROUPS)
    theirs = stats.ttest_ind(y[GROUPS == 1], y[GROUPS == 0], equal_var=False)
    np.testing.assert_allclose(ours.stat, theirs.statistic, rtol=1e-10)
    np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-8)
    limits = theirs.confidence_interval()
    np.testing.assert_allclose([ours.ci_low, ours.ci_high], limits, rtol=1e-8)


def test_three_groups_are_welchs_analysis_of_variance():
    from statsmodels.stats.oneway import anova_oneway

    _, y = cohort()
    groups = np.repeat([0, 1, 2], [12, 12, 7])
    x = np.column_stack([np.ones(N), groups == 1, groups == 2])
    ours = fit(partition(x, [[0, 1, 0], [0, 0, 1]]), y, "F", variance_groups=groups)
    for v in range(y.shape[1]):
        theirs = anova_oneway(y[:, v], groups, use_var="unequal")
        np.testing.assert_allclose([ours.stat[v], ours.p[v]], [theirs.statistic, theirs.pvalue], rtol=1e-8)


@pytest.mark.parametrize("weights", [T, F])
def test_g_is_its_formula_and_for_one_group_the_ordinary_statistic(weights):
    x, y = cohort()
    kind = "t" if len(weights) == 1 else "F"
    ours = fit(partition(x, weights), y, kind, variance_groups=GROUPS).stat
    g = ours ** 2 if kind == "t" else ours
    np.testing.assert_allclose(g, [written_out(x, weights, column, GROUPS) for column in y.T], rtol=1e-9)
    one, plain = (fit(partition(x, weights), y, kind, variance_groups=v) for v in (np.zeros(N, int), None))
    np.testing.assert_allclose([one.stat, one.size], [plain.stat, plain.size], rtol=1e-10)


@pytest.mark.parametrize("contrast", [T, F])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("voxelwise", [False, True])
def test_permuted_g_is_that_of_a_refit(contrast, flip, voxelwise):
    x, y = cohort()
    kind, scheme = "t" if len(contrast) == 1 else "F", make_scheme(N, 20, 3, flip=flip)
    whole = part = partition(x, contrast)
    if voxelwise:
        part = Partition(*(np.repeat(a[None], 8, 0) for a in (part.qz, part.qx, part.scale)), part.df)
    weights = np.where(GROUPS, 0.3, 1.0)
    stratum = make_stratum(part, y, kind, columns=np.arange(8), rows=np.arange(N), flip=flip, variance_groups=GROUPS,
                           weights=weights)
    rest = weighted_rest(whole.qz, y, weights) if flip else residuals(whole.qz, y)
    slow = np.empty((20, 8))
    for b in range(20):
        moved = rest[scheme.order[b]] if scheme.sign is None else rest * scheme.sign[b][:, None]
        for v in range(8):
            g = written_out(x, contrast, moved[:, v], GROUPS, equal=True)
            slow[b, v] = g if kind == "F" else np.sqrt(g)
    maps = statistic_maps([stratum], scheme, np.arange(8), np.empty((len(scheme), 8)))
    np.testing.assert_allclose(np.abs(maps), slow, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(max_statistics([stratum], scheme, 8).maxima[0], slow.max(axis=1), rtol=1e-8)


def test_g_is_compared_as_the_statistic_of_nearly_its_p():
    x, y = cohort()
    for weights, kind in ((T, "t"), (F, "F")):
        found = fit(partition(x, weights), y, kind, variance_groups=GROUPS)
        p = 2 * stats.t.sf(np.abs(found.compared), N - 4) if kind == "t" else stats.f.sf(found.compared, 2, N - 4)
        np.testing.assert_allclose(p, found.p, rtol=0.03)
        assert np.all(np.abs(found.compared) < np.abs(found.stat))
    one = fit(partition(x, T), y, variance_groups=np.zeros(N, int))
    np.testing.assert_allclose([one.p, one.compared], [fit(partition(x, T), y).p, one.stat], rtol=1e-9)


def test_a_scanner_with_one_person_is_refused():
    x, y = cohort()
    x[:, 2] = np.arange(N) == 4
    with pytest.raises(DesignError, match="no residual degree of freedom"):
        fit(partition(x, T), y, variance_groups=(np.arange(N) == 4).astype(int))


def analyzed(groups="scanner", missing=0.0, **settings):
    """Two scanners with 25 and 6 people, the second with twice the SD."""
    rng = np.random.default_rng(8)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(N)], "scanner": GROUPS, "age": rng.normal(size=N)})
    y = 80 + rng.normal(size=(N, 48)) * (1 + GROUPS)[:, None]
    y[rng.uniform(size=y.shape) < missing] = np.nan
    atlas = Image(np.full((1, 6, 8), 11, np.uint8), Geometry((8, 6, 1)))
    return table, y, analyze(y, atlas, table, "map ~ scanner + age", "scanner", variance_groups=groups, seed=2,
                             n_permutations=60, correction="fwe", **settings)


def test_variance_groups_reach_maps_and_permutations():
    """Also where people are missing: each voxel's own people, refitted with every matrix formed."""
    table, y, result = analyzed(missing=0.05, min_count=20)
    assert result.provenance["variance_groups"] == "scanner"
    assert result.provenance["contrasts"][0]["errors"] == "symmetric"
    assert "G statistic" in result.maps["map_scanner_t"].meta["description"]
    scheme, best = make_scheme(N, 60, 2, flip=True), np.zeros(60)
    squares = np.zeros((N, 48))
    for v in range(48):
        rows = np.flatnonzero(np.isfinite(y[:, v]))
        x = np.column_stack([np.ones(len(rows)), GROUPS[rows], table.age[rows]])
        resid = np.eye(len(rows)) - x @ np.linalg.pinv(x)
        e = resid @ y[rows, v]
        squares[rows, v] = e ** 2 / np.diag(resid) / (e @ e / (len(rows) - 3))
    spread = np.array([squares[g == GROUPS].sum() / np.isfinite(y[g == GROUPS]).sum() for g in (0, 1)])
    assert 2 < spread[1] / spread[0] < 6
    for v in range(48):
        rows = np.flatnonzero(np.isfinite(y[:, v]))
        x = np.column_stack([np.ones(len(rows)), GROUPS[rows], table.age[rows]])
        found, own = result.maps["map_scanner_t"].array.ravel()[v], GROUPS[rows]
        np.testing.assert_allclose(found ** 2, written_out(x, [[0, 1, 0]], y[rows, v], own), rtol=1e-4)
        rest = weighted_rest(x[:, [0, 2]], y[rows, v][:, None], 1 / spread[own])[:, 0]
        g = [written_out(x, [[0, 1, 0]], sign[rows] * rest, own, equal=True) for sign in scheme.sign]
        best = np.maximum(best, np.abs(stat_to_z(np.sqrt(g), len(rows) - 3)))
    np.testing.assert_allclose(result.null["scanner_max"], best, rtol=1e-7)


def graded(spread_of_grade=0.0, formula="map ~ grade + C(scanner)", **settings):
    """Three scanners, the last with three times the SD and the worst discs; the spread may rise with the grade, too."""
    rng = np.random.default_rng(9)
    scanner = np.repeat([0, 1, 2], [14, 10, 12])
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(36)], "scanner": scanner,
                          "grade": rng.integers(1, 4, 36) + 2 * (scanner == 2)})
    spread = np.array([1, 1, 3])[scanner] * np.exp(spread_of_grade * table.grade.to_numpy())
    y = 80 + 5 * scanner[:, None] + rng.normal(size=(36, 48)) * spread[:, None]
    atlas = Image(np.full((1, 6, 8), 11, np.uint8), Geometry((8, 6, 1)))
    return table, y, analyze(y, atlas, table, formula, "grade", variance_groups="scanner", seed=2, n_permutations=60,
                             correction="fwe", **settings)


def test_people_change_places_within_their_scanner_where_it_is_in_the_model():
    table, y, result = graded()
    described = result.provenance["contrasts"][0]
    assert described["errors"] == "exchangeable" and "within 3 blocks" in described["permutation"]
    groups = table.scanner.to_numpy()
    z = np.column_stack([groups == g for g in range(3)]).astype(float)
    rest, best = residuals(np.linalg.qr(z)[0], y), np.zeros(60)
    x = np.column_stack([z, table.grade])
    scheme = make_scheme(36, 60, 2, blocks=groups)
    assert (groups[scheme.order] == groups).all()
    for b, order in enumerate(scheme.order):
        best[b] = max(np.sqrt(written_out(x, [[0, 0, 0, 1]], rest[order, v], groups, equal=True)) for v in range(48))
    np.testing.assert_allclose(result.null["grade_max"], best, rtol=1e-7)


@pytest.mark.parametrize("options, errors", [
    ({"formula": "map ~ grade"}, "symmetric"),  # groups compare, and are not exchangeable
    ({"spread_of_grade": 0.5}, "symmetric"), ({"spread_of_grade": 0.5, "errors": "exchangeable"}, "exchangeable"),
    ({"errors": "symmetric"}, "symmetric")])
def test_signs_are_flipped_where_the_rule_says_so(options, errors):
    result = graded(**options)[2]
    assert result.provenance["contrasts"][0]["errors"] == errors


def test_groups_alone_leave_nothing_to_permute():
    with pytest.raises(DesignError, match="'scanner' compares variance groups"):
        analyzed(errors="exchangeable")


def sites(names, missing=(), formula="map ~ age", **settings):
    """People at sites by name; the value of some voxels is missing in some."""
    rng = np.random.default_rng(11)
    table = pd.DataFrame({"participant_id": [f"s{i:02}" for i in range(len(names))], "site": names,
                          "age": rng.normal(size=len(names))})
    y = 80 + rng.normal(size=(len(names), 4))
    for row, voxel in missing:
        y[row, voxel] = np.nan
    atlas = Image(np.full((1, 1, 4), 11, np.uint8), Geometry((4, 1, 1)))
    return analyze(y, atlas, table, formula, "age", variance_groups="site", correction="fwe", n_permutations=30,
                   **settings)


def test_whose_group_is_not_known_is_left_out_and_named():
    names = ["A"] * 9 + ["n/a"] + ["B"] * 9 + [None]
    result = sites(names)
    assert result.provenance["observations"] == 18
    assert "Left out for want of a variance group (site): s09, s19." in result.warnings
    kept = [n for n in names if n in ("A", "B")]
    assert len(kept) == 18 and np.nanmax(result.maps["map_n"].array) == 18
    with pytest.raises(DesignError, match="Row 20 of the table has no variance group"):
        sites(["A"] * 9 + ["B"] * 10 + [None], missing_covariates="error")


def test_small_groups_are_remarked_on_and_one_person_is_refused():
    few = sites(["A"] * 12 + ["B"] * 3)
    assert "Variance groups of 'site' with few observations (B: 3): their spread is hardly known." in few.warnings
    assert not any("few observations" in w for w in sites(["A"] * 12 + ["B"] * 5).warnings)
    with pytest.raises(DesignError, match="'B' of 'site' has one observation"):
        sites(["A"] * 12 + ["B"])


def test_voxels_where_a_group_has_no_spread_are_counted():
    result = sites(["A"] * 12 + ["B"] * 2, missing=[(13, 1), (13, 3)], formula="map ~ age + C(site)")
    assert np.isnan(result.maps["map_age_t"].array.ravel()).tolist() == [False, True, False, True]
    assert any(w.startswith("2 voxels have a design that is collinear, or a variance group") for w in result.warnings)


def test_variance_groups_that_do_not_fit_are_named():
    with pytest.raises(DesignError, match="variance groups 'site' are no column"):
        analyzed("site")
    with pytest.raises(DesignError, match="choose one"):
        analyzed(standard_errors="hc3")


@pytest.mark.slow
@pytest.mark.parametrize("sizes, ratio", [((25, 6), 2.0), ((25, 6), 1.0), ((25, 6), 0.5), ((21, 10), 2.0)])
def test_error_rate_of_unequal_groups_of_unequal_spread(sizes, ratio):
    """1 000 null sets: G with signs flipped, which is what ``errors="auto"`` does with variance groups."""
    n, groups, hits = sum(sizes), np.repeat([0, 1], sizes), 0
    for number in range(1000):
        rng = np.random.default_rng([77, number, sizes[0]])
        y = gaussian_filter(rng.normal(size=(n, 6, 6, 6)), (0, 1, 1, 1)).reshape(n, -1)
        y *= np.where(groups == 1, ratio, 1.0)[:, None]
        part, columns = partition(np.column_stack([np.ones(n), groups]), [0, 1]), np.arange(216)
        squares = relative_squares(part, y).mean(axis=1)
        weights = np.where(groups, 1 / squares[groups == 1].mean(), 1 / squares[groups == 0].mean())
        stratum = make_stratum(part, y, "t", columns=columns, rows=np.arange(n), flip=True, variance_groups=groups,
                               weights=weights)
        null = max_statistics([stratum], make_scheme(n, 199, number, flip=True), 216).maxima[0]
        hits += fwe_p(np.abs(fit(part, y, variance_groups=groups).compared).max()[None], null)[0] <= 0.05
    low, high = stats.binom.ppf([0.001, 0.999], 1000, 0.05)
    assert low <= hits <= high
