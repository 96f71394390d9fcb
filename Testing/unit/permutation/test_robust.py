"""Standard errors and inference where the residual spread differs between people."""

import numpy as np
import pandas as pd
import pytest
from support import ROOT
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.permutation.cluster_null import statistic_maps
from DiscStatsLib.permutation.glm import Partition, fit, partition
from DiscStatsLib.permutation.max_statistic import fwe_p, max_statistics
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import make_stratum

N, V = 24, 40
T = [[0, 1, -0.01, 0]]
F = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def design(rng):
    return np.column_stack([np.ones(N), rng.integers(1, 6, N), rng.uniform(20, 80, N), rng.normal(1e6, 1e5, N)])


def values(rng, x):
    return 80 + x[:, 1:2] * rng.normal(0, 3, (N, V))


@pytest.mark.parametrize("weights", [T, F])
def test_hc3_is_that_of_statsmodels(weights):
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    x = design(rng)
    y, kind = values(rng, x), "t" if len(weights) == 1 else "F"
    ours = fit(partition(x, weights), y, kind, robust=True)
    for v in range(5):
        model = sm.OLS(y[:, v], x).fit(cov_type="HC3", use_t=True)
        if kind == "F":
            theirs = model.f_test(np.array(weights))
            np.testing.assert_allclose([ours.stat[v], ours.p[v]], [theirs.fvalue, theirs.pvalue], rtol=1e-8)
            continue
        theirs = model.t_test(np.array(weights))
        limits = theirs.conf_int()[0]
        np.testing.assert_allclose(
            [ours.effect[v], ours.se[v], ours.stat[v], ours.p[v], ours.ci_low[v], ours.ci_high[v]],
            [theirs.effect[0], theirs.sd.item(), theirs.tvalue.item(), theirs.pvalue, *limits], rtol=1e-8)  # fmt: skip


def refit(x, weights, y, scheme):
    """Statistics of every rearrangement by statsmodels' HC3 refit of reduced fit + rearranged residuals."""
    import statsmodels.api as sm

    null = np.linalg.svd(np.atleast_2d(weights))[2][len(weights):].T
    reduced = x @ null
    fitted = reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    out = np.empty((len(scheme), y.shape[1]))
    for b in range(len(scheme)):
        sign = 1 if scheme.sign is None else scheme.sign[b][:, None]
        new = fitted + sign * (y - fitted)[scheme.order[b]]
        for v in range(y.shape[1]):
            model = sm.OLS(new[:, v], x).fit(cov_type="HC3", use_t=True)
            test = model.t_test(weights) if len(weights) == 1 else model.f_test(weights)
            out[b, v] = test.tvalue.item() if len(weights) == 1 else test.fvalue
    return out


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
@pytest.mark.parametrize("weights", [T, F])
@pytest.mark.parametrize("flip", [False, True])
def test_robust_maxima_are_those_of_a_refit(weights, flip, device):
    if device != "cpu":
        pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = design(rng)
    x[:, 3] = x[:, 3] * 1e-5  # statsmodels inverts X'X: columns of like size for the slow reference
    y, weights = values(rng, x)[:, :6], np.array(weights, float)
    part, kind = partition(x, weights), "t" if len(weights) == 1 else "F"
    scheme = make_scheme(N, 25, 3, flip=flip)
    stratum = make_stratum(part, y, kind, columns=np.arange(6), rows=np.arange(N), flip=flip, robust=True)
    ours = max_statistics([stratum], scheme, 6, device=device)
    slow = refit(x, weights, y, scheme)
    np.testing.assert_allclose(ours.maxima[0], np.abs(slow).max(axis=1), rtol=1e-8)
    maps = statistic_maps([stratum], scheme, np.arange(6), np.empty((len(scheme), 6)))
    np.testing.assert_allclose(maps, slow, rtol=1e-7, atol=1e-9)
    stat = np.abs(fit(part, y, kind, robust=True).stat)
    np.testing.assert_array_equal(ours.counts, (np.abs(slow) >= stat).sum(axis=0))


def test_a_design_at_every_voxel_gives_the_same():
    rng = np.random.default_rng(3)
    x = design(rng)
    y, scheme = values(rng, x), make_scheme(N, 20, 4)
    part = partition(x, T)
    many = Partition(np.repeat(part.qz[None], V, 0), np.repeat(part.qx[None], V, 0), np.full(V, part.scale), part.df)
    found = []
    for p in (part, many):
        stratum = make_stratum(p, y, "t", columns=np.arange(V), rows=np.arange(N), robust=True)
        fitted = fit(p, y, robust=True)
        found.append((fitted.stat, fitted.se, max_statistics([stratum], scheme, V).maxima[0]))
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_a_person_with_a_parameter_of_his_own_is_refused():
    x = np.column_stack([np.ones(8), np.arange(8.0), np.eye(8)[3]])
    with pytest.raises(DesignError, match="parameter of its own"):
        fit(partition(x, [[0, 1, 0]]), np.random.default_rng(0).normal(size=(8, 2)), robust=True)


SHAPE = (2, 6, 6)


def cohort(by, n=30, seed=0):
    """Maps without any effect, whose spread follows `by`."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(n)], "grade": np.arange(n) % 5 + 1.0,
                          "age": rng.uniform(20, 80, n)})  # fmt: skip
    spread = 1.0 + 3 * (table.grade - 1) / 4 if by == "grade" else np.full(n, 1.0)
    maps = 80 + spread.to_numpy()[:, None] * rng.normal(size=(n, np.prod(SHAPE))) if by == "grade" \
        else 80 + rng.normal(size=(n, np.prod(SHAPE)))
    return maps, Image(np.full(SHAPE, 11, np.uint8), Geometry(SHAPE[::-1])), table


def test_spread_that_depends_on_the_tested_variable_is_told():
    maps, atlas, table = cohort("grade")
    result = analyze(maps, atlas, table, "map ~ grade + age", ["grade", "age"], correction=(),
                     errors="exchangeable")  # fmt: skip
    told = [w for w in result.warnings if "residual spread" in w]
    assert len(told) == 1 and "'grade'" in told[0] and "errors='symmetric'" in told[0]
    spread = {c["name"]: c["residual_spread"] for c in result.provenance["contrasts"]}
    # The planted variance ratio is 16.
    assert 8 < spread["grade"]["ratio"] < 32 and spread["grade"]["p"] < 1e-6 and spread["age"]["p"] > 0.01
    quiet = analyze(maps, atlas, table, "map ~ grade + age", "grade", correction=(), errors="symmetric",
                    standard_errors="hc3")  # fmt: skip
    assert not [w for w in quiet.warnings if "residual spread" in w]


def test_the_spread_within_scanners_is_tested_as_statsmodels_tests_it():
    """Scanners of a spread each; the logarithm of the mean squares is explained by scanner and grade."""
    sm = pytest.importorskip("statsmodels.api")
    maps, atlas, table = cohort("", seed=3)
    table["scanner"] = np.repeat(["a", "b", "c"], 10)
    maps = 80 + (maps - 80) * np.repeat([1.0, 2.0, 3.0], 10)[:, None]
    found = analyze(maps, atlas, table, "map ~ grade + age", "grade", correction=(), variance_groups="scanner")
    x = np.column_stack([np.ones(30), table.grade, table.age])
    hat = x @ np.linalg.pinv(x)
    rest = (maps - hat @ maps) ** 2
    log = np.log((rest / (rest.sum(axis=0) / 27) / (1 - np.diag(hat))[:, None]).mean(axis=1))
    dummies = pd.get_dummies(table.scanner).to_numpy(float)
    slow = sm.OLS(log, np.column_stack([dummies, table.grade])).fit()
    assert found.provenance["contrasts"][0]["residual_spread"]["p"] == pytest.approx(slow.pvalues[-1], rel=1e-6)
    assert 0.01 < slow.pvalues[-1] < 0.99


def test_the_rule_flips_signs_only_where_the_spread_depends_on_what_is_tested():
    maps, atlas, table = cohort("grade")
    settings = {"n_permutations": 40, "seed": 2, "correction": "fwe"}
    both = analyze(maps, atlas, table, "map ~ grade + age", ["grade", "age"], **settings)
    assert both.provenance["errors"] == "auto"
    assert [c["errors"] for c in both.provenance["contrasts"]] == ["symmetric", "exchangeable"]
    assert ["sign flips" in c["permutation"] for c in both.provenance["contrasts"]] == [True, False]
    # The rule chooses one of two procedures and changes nothing else.
    for name, errors in (("grade", "symmetric"), ("age", "exchangeable")):
        alone = analyze(maps, atlas, table, "map ~ grade + age", name, errors=errors, **settings)
        np.testing.assert_array_equal(both.null[f"{name}_max"], alone.null[f"{name}_max"])
    told = [w for w in both.warnings if "residual spread" in w]
    assert len(told) == 1 and "Signs were flipped" in told[0] and "symmetric" not in told[0]


def test_equal_spread_is_told_of_as_rarely_as_it_should():
    told = 0
    for seed in range(60):
        maps, atlas, table = cohort("", seed=seed)
        result = analyze(maps, atlas, table, "map ~ grade + age", "grade", correction=())
        told += any("residual spread" in w for w in result.warnings)
    assert told <= 4  # 1 % nominal; more than 4 of 60 has a chance of 0.03 %


def test_symmetric_errors_are_flipped_and_recorded():
    maps, atlas, table = cohort("grade")
    settings = {"n_permutations": 60, "seed": 2}
    result = analyze(maps, atlas, table, "map ~ grade + age", "grade", errors="symmetric", **settings)
    assert result.provenance["errors"] == "symmetric" and result.provenance["standard_errors"] == "classical"
    assert result.provenance["contrasts"][0]["permutation"] == "60 random sign flips of 30 observations"
    x = np.column_stack([np.ones(30), table.grade, table.age])
    part, scheme = partition(x, [[0, 1, 0]]), make_scheme(30, 60, 2, flip=True)
    rest = maps - part.qz @ (part.qz.T @ maps)
    slow = [np.abs(fit(part, sign[:, None] * rest).stat).max() for sign in scheme.sign]
    np.testing.assert_allclose(result.null["grade_max"], slow, rtol=1e-9)
    expected = fwe_p(np.abs(fit(part, maps).stat), np.array(slow))
    np.testing.assert_allclose(result.maps["map_grade_pfwe"].array.ravel(), expected, rtol=1e-6)


def test_hc3_reaches_the_maps_of_the_analysis():
    maps, atlas, table = cohort("grade")
    result = analyze(maps, atlas, table, "map ~ grade + age", "grade", standard_errors="hc3", n_permutations=19)
    part = partition(np.column_stack([np.ones(30), table.grade, table.age]), [[0, 1, 0]])
    expected = fit(part, maps, robust=True)
    for key, values_ in (("t", expected.stat), ("se", expected.se), ("p", expected.p), ("cilow", expected.ci_low)):
        np.testing.assert_allclose(result.maps[f"map_grade_{key}"].array.ravel(), values_, rtol=1e-5)
    assert "HC3" in result.maps["map_grade_t"].meta["description"]


@pytest.mark.parametrize("setting", [{"standard_errors": "white"}, {"errors": "normal"}])
def test_unknown_choices(setting):
    maps, atlas, table = cohort("")
    with pytest.raises(DesignError, match="is not known: choose from"):
        analyze(maps, atlas, table, "map ~ grade", **setting)


def calibration_module():
    import sys

    sys.path.insert(0, str(ROOT / "Testing" / "benchmarks"))
    try:
        import calibration
    finally:
        sys.path.pop(0)
    return calibration


def test_the_rule_sees_a_twofold_spread_and_seldom_one_that_is_not_there():
    from scipy.stats import binom

    calibration = calibration_module()
    by_title = {s.title: s for s in calibration.SCENARIOS}
    seen = {}
    for title in ("smooth normal noise", "SD differs 2-fold with the variable of interest"):
        sets = (calibration.make_set(by_title[title], np.random.default_rng([13, number])) for number in range(300))
        seen[title] = sum(calibration.depends(y, x) for y, x in sets)
    none, twofold = seen.values()
    assert binom.ppf(0.0005, 300, 0.05) <= none <= binom.ppf(0.9995, 300, 0.05)
    assert twofold > 0.95 * 300


def test_error_rate_guard_where_the_spread_depends_on_the_tested_variable():
    """A quick guard of the slow table: the rule holds 5 %, permuting does not, on the same 300 null sets."""
    from scipy.stats import binom

    calibration = calibration_module()
    scenario = next(s for s in calibration.SCENARIOS if s.spread == "interest")
    found, ruled = {True: 0, False: 0}, 0
    for number in range(300):
        y, x = calibration.make_set(scenario, np.random.default_rng([11, number]))
        part, rows, columns = partition(x, [[0, 1, 0, 0]]), np.arange(len(y)), np.arange(y.shape[1])
        stat = np.abs(fit(part, y).stat).max()
        depends = calibration.depends(y, x)
        for flip in found:
            scheme = make_scheme(len(y), 39, number, flip=flip)
            stratum = make_stratum(part, y, "t", columns=columns, rows=rows, flip=flip)
            rejected = fwe_p(stat[None], max_statistics([stratum], scheme, len(columns)).maxima[0])[0] <= 0.05
            found[flip] += rejected
            ruled += rejected and flip == depends
    low, high = binom.ppf([0.0005, 0.9995], 300, 0.05)
    assert low <= found[True] <= high and low <= ruled <= high
    assert found[False] > 1.3 * found[True]


def test_flips_of_whole_people_and_any_number_of_workers():
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"participant_id": np.repeat([f"s{i}" for i in range(10)], 2), "session": [1, 2] * 10,
                          "age": np.repeat(rng.uniform(20, 80, 10), 2)})  # fmt: skip
    atlas = Image(np.full(SHAPE, 11, np.uint8), Geometry(SHAPE[::-1]))
    maps = rng.normal(size=(20, np.prod(SHAPE))) + np.repeat(rng.normal(size=10), 2)[:, None]
    maps[4, 3] = np.nan
    settings = {"blocks": "participant_id", "errors": "symmetric", "standard_errors": "hc3", "missing": "available",
                "n_permutations": 50, "seed": 1}  # fmt: skip
    one = analyze(maps, atlas, table, "map ~ age + session", "session", **settings)
    many = analyze(maps, atlas, table, "map ~ age + session", "session", workers=3, **settings)
    # The two sessions of a person keep their signs together: errors of one person are not independent.
    assert one.provenance["contrasts"][0]["permutation"] == "50 random sign flips of 10 blocks"
    assert one.maps["map_n"].array.ravel()[3] == 19
    for name, image in one.maps.items():
        np.testing.assert_array_equal(image.array, many.maps[name].array, err_msg=name)
