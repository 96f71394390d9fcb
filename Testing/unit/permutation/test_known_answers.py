"""Published and computed answers of the statistics (shared reference, statistics.md)."""

import numpy as np
import pytest

from DiscStatsLib.permutation.glm import estimates, fit, partition
from DiscStatsLib.permutation.max_statistic import fwe_p, max_statistics
from DiscStatsLib.permutation.multiple import adjust_bh, adjust_bky
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import make_stratum

BH_P = [
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0,
]


def test_benjamini_hochberg_1995():
    adjusted = adjust_bh(BH_P)
    np.testing.assert_allclose(
        adjusted[:10], [0.0015, 0.003, 0.0095, 0.035625, 0.0603, 0.0638571, 0.0638571, 0.0645, 0.0765, 0.486], rtol=1e-5
    )
    assert (adjusted <= 0.05).sum() == 4
    assert (np.array(BH_P) * 15 <= 0.05).sum() == 3


def test_bky_is_the_two_stage_procedure_of_statsmodels():
    from statsmodels.stats.multitest import fdrcorrection_twostage

    rng = np.random.default_rng(1)
    for _ in range(20):
        p = np.concatenate([rng.uniform(size=60), rng.uniform(0, 0.01, size=40)])
        for q in (0.01, 0.05, 0.2):
            rejected = fdrcorrection_twostage(p, q, method="bky", maxiter=1)[0]
            np.testing.assert_array_equal(adjust_bky(p) <= q, rejected)


def test_fdr_of_many_tests_is_not_quadratic():
    p = np.random.default_rng(2).uniform(size=200_000) ** 2
    adjusted = adjust_bky(p)
    order = np.argsort(p)
    assert np.all(np.diff(adjusted[order]) >= 0) and np.all(adjusted <= 1)
    first = adjust_bh(p) <= 0.05 / 1.05
    assert np.array_equal(adjusted <= 0.05, adjust_bh(p) <= 0.05 / 1.05 / (1 - first.mean()))


def test_fdr_leaves_missing_voxels_missing():
    p = np.array([0.01, np.nan, 0.02])
    np.testing.assert_allclose(adjust_bh(p), [0.02, np.nan, 0.02])
    assert np.isnan(adjust_bky(p)[1])


def test_partial_correlation_of_ppcor():
    hl = np.array([7, 15, 19, 15, 21, 22, 57, 15, 20, 18.0])
    disp = np.array([0, 0.964, 0, 0, 0.921, 0, 0, 1.006, 0, 1.011])
    deg = np.array([9, 2, 3, 4, 1, 3, 1, 3, 6, 1.0])
    bc = np.array([1.78e-2, 1.05e-6, 1.37e-5, 7.18e-3, 0, 0, 0, 4.48e-3, 2.1e-6, 0])
    design = np.column_stack([np.ones(10), disp, deg, bc])
    result = fit(partition(design, [[0, 1, 0, 0]]), hl[:, None])
    assert result.df == 6
    np.testing.assert_allclose(
        [result.r[0], result.stat[0], result.p[0]], [-0.6720863, -2.223267, 0.06789202], rtol=1e-6
    )


def test_longley_of_nist():
    import statsmodels.datasets.longley as longley

    data = longley.load_pandas()
    design = np.column_stack([np.ones(16), data.exog.to_numpy()])
    y = data.endog.to_numpy()[:, None]
    b = [
        -3482258.63459582,
        15.0618722713733,
        -0.0358191792925910,
        -2.02022980381683,
        -1.03322686717359,
        -0.0511041056535807,
        1829.15146461355,
    ]
    se = [
        890420.383607373,
        84.9149257747669,
        0.0334910077722432,
        0.488399681651699,
        0.214274163161675,
        0.226073200069370,
        455.478499142212,
    ]
    np.testing.assert_allclose(estimates(design, y)[:, 0], b, rtol=1e-9)
    for j in range(7):
        result = fit(partition(design, np.eye(7)[[j]]), y)
        np.testing.assert_allclose([result.effect[0], result.se[0]], [b[j], se[j]], rtol=1e-8)
    overall = fit(partition(design, np.eye(7)[1:]), y, "F")
    np.testing.assert_allclose([overall.stat[0], overall.size[0]], [330.285339234588, 0.995479004577296], rtol=1e-9)


@pytest.mark.parametrize("contrast", [[[0, 1, 0, 0]], [[0, 1, -1, 0]], [[0, 1, 0, 0], [0, 0, 0, 1]]])
def test_glm_is_that_of_statsmodels(contrast):
    import statsmodels.api as sm

    rng = np.random.default_rng(3)
    design = np.column_stack([np.ones(31), rng.integers(0, 2, 31), rng.normal(50, 12, 31), rng.normal(1e4, 3e3, 31)])
    y = rng.normal(80, 20, (31, 5))
    kind = "t" if len(contrast) == 1 else "F"
    ours = fit(partition(design, contrast), y, kind)
    for v in range(5):
        model = sm.OLS(y[:, v], design).fit()
        if kind == "F":
            theirs = model.f_test(np.array(contrast))
            np.testing.assert_allclose([ours.stat[v], ours.p[v]], [theirs.fvalue, theirs.pvalue], rtol=1e-8)
            continue
        theirs = model.t_test(np.array(contrast))
        limits = theirs.conf_int()[0]
        np.testing.assert_allclose(
            [ours.effect[v], ours.se[v], ours.stat[v], ours.p[v], ours.ci_low[v], ours.ci_high[v]],
            [theirs.effect[0], theirs.sd[0, 0], theirs.tvalue[0, 0], theirs.pvalue, *limits],
            rtol=1e-8,
        )


def test_exhaustive_two_groups_of_four_have_70_relabelings():
    group = np.repeat([0.0, 1.0], 4)
    design = np.column_stack([np.ones(8), group])
    y = (np.arange(8.0) + 10 * group)[:, None]
    scheme = make_scheme(8, 5000, 0, row_types=group)
    assert scheme.exhaustive and len(scheme) == 69
    part = partition(design, [[0, 1]])
    stratum = make_stratum(part, y, "t", columns=np.arange(1), rows=np.arange(8))
    null = max_statistics([stratum], scheme, 1, alternative="greater")
    assert fwe_p(fit(part, y).stat, null.maxima[0])[0] == pytest.approx(1 / 70)
    both = max_statistics([stratum], scheme, 1)
    assert fwe_p(np.abs(fit(part, y).stat), both.maxima[0])[0] == pytest.approx(2 / 70)


def test_exhaustive_flips_are_all_signs_but_those_observed():
    sign = make_scheme(5, 5000, 0, flip=True).sign
    assert sign.shape == (31, 5) and len(np.unique(sign, axis=0)) == 31 and (sign.min(axis=1) == -1).all()


def test_critical_r_of_31_people():
    # |r| at which two-sided p = .05 with 0..4 covariates (statistics.md).
    for covariates, r in enumerate([0.355, 0.361, 0.367, 0.374, 0.381]):
        df = 31 - 2 - covariates
        from scipy.stats import t

        critical = t.isf(0.025, df)
        assert critical / np.sqrt(critical**2 + df) == pytest.approx(r, abs=6e-4)


def test_partial_correlations_of_pingouin():
    # Its data are GPL-3 and read from an installed pingouin; the answers are those its documentation quotes.
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("pingouin")
    if spec is None:
        pytest.skip("pingouin is not installed: its partial_corr.csv is not at hand")
    import pandas as pd
    from scipy.stats import rankdata

    data = pd.read_csv(Path(spec.origin).parent / "datasets" / "partial_corr.csv")
    names = ["cv1", "cv2", "cv3"]
    for count, r in ((1, 0.5681692), (2, 0.5344372), (3, 0.4926007)):
        design = np.column_stack([np.ones(len(data)), data.x, data[names[:count]]])
        found = fit(partition(design, np.eye(count + 2)[[1]]), data[["y"]].to_numpy())
        assert found.r[0] == pytest.approx(r, abs=1e-7)
    ranks = np.column_stack([np.ones(len(data)), *(rankdata(data[c]) for c in ["x", *names])])
    found = fit(partition(ranks, np.eye(5)[[1]]), rankdata(data.y)[:, None])
    assert found.r[0] == pytest.approx(0.5209208, abs=1e-7)
