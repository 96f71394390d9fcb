"""Mixed models against nlme's published fit; ROC against published areas and the definition."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.tables.mixed import fit_mixed
from DiscStatsLib.tables.roc import compare_areas, roc

#: Potthoff and Roy 1964: distance (mm) at 8, 10, 12, 14 years; 16 boys, then 11 girls.
DISTANCE = """26 25 29 31|21.5 22.5 23 26.5|23 22.5 24 27.5|25.5 27.5 26.5 27|20 23.5 22.5 26|24.5 25.5 27 28.5|
22 22 24.5 26.5|24 21.5 24.5 25.5|23 20.5 31 26|27.5 28 31 31.5|23 23 23.5 25|21.5 23.5 24 28|17 24.5 26 29.5|
22.5 25.5 25.5 26|23 24.5 26 30|22 21.5 23.5 25|21 20 21.5 23|21 21.5 24 25.5|20.5 24 24.5 26|23.5 24.5 25 26.5|
21.5 23 22.5 23.5|20 21 21 22.5|21.5 22.5 23 25|23 23 23.5 24|20 21 22 21.5|16.5 19 19 19.5|24.5 25 28 28"""


@pytest.fixture(scope="module")
def orthodont():
    rows = [{"participant_id": f"P{n}", "sex": "M" if n < 16 else "F", "age": age, "distance": float(value)}
            for n, line in enumerate(DISTANCE.replace("\n", "").split("|"))
            for age, value in zip((8, 10, 12, 14), line.split())]
    return pd.DataFrame(rows)


def test_random_intercept_is_that_of_nlme(orthodont):
    fit = fit_mixed(orthodont, "distance ~ age * C(sex, Treatment('M'))")
    # Pinheiro and Bates, Mixed-Effects Models in S and S-PLUS: lme(distance ~ age * Sex, random = ~ 1 | Subject).
    np.testing.assert_allclose(sorted(fit.fixed["estimate"]), sorted([16.34062, 0.78438, 1.03210, -0.30483]), atol=1e-4)
    np.testing.assert_allclose(sorted(fit.fixed["se"]), sorted([0.98131, 0.07750, 1.53740, 0.12142]), atol=1e-4)
    np.testing.assert_allclose(fit.variances["sd"], (1.816214, 1.386382), atol=1e-3)
    assert (fit.n, fit.people, fit.notes) == (108, 27, [])
    assert abs(fit.icc - 1.816214 ** 2 / (1.816214 ** 2 + 1.386382 ** 2)) < 1e-3


def test_random_slope_is_that_of_statsmodels(orthodont):
    import statsmodels.formula.api as smf

    fit = fit_mixed(orthodont, "distance ~ age", slope="age")
    peer = smf.mixedlm("distance ~ age", orthodont, groups=orthodont["participant_id"], re_formula="~age").fit()
    np.testing.assert_allclose(fit.fixed["estimate"], peer.fe_params, atol=1e-3)
    np.testing.assert_allclose(fit.variances["sd"][:2], np.sqrt(np.diag(peer.cov_re)), rtol=0.05)
    # nlme: 16.76111 and 0.660185, between-people SD 2.327 and 0.226.
    np.testing.assert_allclose(fit.fixed["estimate"], (16.76111, 0.660185), atol=1e-3)
    np.testing.assert_allclose(fit.variances["sd"], (2.327, 0.2264, 1.31004), rtol=0.02)


@pytest.mark.parametrize("confidence, digits", [(0.95, 0.05), (0.8, 0.2)])
def test_limits_and_p_are_those_of_statsmodels(orthodont, confidence, digits):
    import statsmodels.formula.api as smf

    fit = fit_mixed(orthodont, "distance ~ age + C(sex)", confidence=confidence)
    peer = smf.mixedlm("distance ~ age + C(sex)", orthodont, groups=orthodont["participant_id"]).fit()
    limits = peer.conf_int(alpha=digits).loc[["Intercept", "C(sex)[T.M]", "age"]].to_numpy()
    order = [fit.fixed["term"].index(name) for name in ("Intercept", "C(sex)[T.M]", "age")]
    np.testing.assert_allclose(np.array([fit.fixed["low"], fit.fixed["high"]]).T[order], limits, rtol=1e-4)
    np.testing.assert_allclose(np.array(fit.fixed["p"])[order], peer.pvalues[["Intercept", "C(sex)[T.M]", "age"]],
                               rtol=1e-3, atol=1e-12)


def test_limits_stand_where_statsmodels_finds_none(orthodont, monkeypatch):
    """Near a variance of 0 its Hessian has no inverse; the limits of nlme and lme4 need none."""
    from statsmodels.regression.mixed_linear_model import MixedLMResults

    expected = fit_mixed(orthodont, "distance ~ age * C(sex)")
    monkeypatch.setattr(MixedLMResults, "bse_fe", np.full(4, np.nan))
    found = fit_mixed(orthodont, "distance ~ age * C(sex)")
    for name in ("low", "high", "p"):
        np.testing.assert_allclose(found.fixed[name], expected.fixed[name], rtol=1e-3)
    # The nuclei of six phantoms at three levels.
    grades = ((1, 2, 3), (2, 4, 1), (3, 3, 2), (4, 1, 5), (2, 4, 4))
    rng = np.random.default_rng(0)
    for _ in range(40):
        table = pd.DataFrame([{"participant_id": f"s{n}", "level": level, "grade": g,
                               "T2": 100 - 20 * g + 5 * level + rng.normal()} for n, own in enumerate(grades)
                              for level, g in enumerate(own)])
        fit = fit_mixed(table, "T2 ~ grade + C(level)")
        assert np.isfinite([fit.fixed["low"], fit.fixed["high"], fit.fixed["p"]]).all()


def test_ignoring_the_person_would_overstate_a_personal_covariate():
    rng = np.random.default_rng(8)
    p_mixed, p_plain = [], []
    for _ in range(24):
        person = rng.normal(0, 3, 20).repeat(5)
        x = rng.normal(0, 1, 20).repeat(5)
        table = pd.DataFrame({"participant_id": np.arange(20).repeat(5).astype(str), "x": x,
                              "y": person + rng.normal(0, 1, 100)})
        p_mixed.append(fit_mixed(table, "y ~ x").fixed["p"][1])
        p_plain.append(stats.linregress(x, table["y"]).pvalue)
    assert np.mean(np.array(p_plain) < 0.05) > 0.2
    assert np.mean(np.array(p_mixed) < 0.05) < 0.2


def test_mixed_bad_input_is_named(orthodont):
    for change, formula, message in (
            (lambda t: t, "distance ~ agee", "no column 'agee'"), (lambda t: t, "age", "no response"),
            (lambda t: t[t["age"] == 8], "distance ~ C(sex)", "one row only"),
            (lambda t: t[t["participant_id"].isin(["P1", "P20"])], "distance ~ age", "at least three people"),
            (lambda t: t.assign(age=t["age"].where(t["age"] > 8)), "distance ~ age", "27 row\\(s\\) lack"),
            (lambda t: t.assign(distance="x"), "distance ~ age", "not numeric"),
            (lambda t: t.assign(distance=1.0), "distance ~ age", "same value")):
        with pytest.raises(DesignError, match=message):
            fit_mixed(change(orthodont), formula)
    left = fit_mixed(orthodont.assign(age=orthodont["age"].where(orthodont["age"] > 8)), "distance ~ age",
                     missing="drop")
    assert left.n == 81 and any("27 row(s)" in note for note in left.notes)
    with pytest.raises(DesignError):
        fit_mixed(orthodont, "distance ~ __import__('os').system('true')")


def test_area_of_hanley_and_mcneil_1982():
    # 109 CT images rated 1 to 5: 58 normal, 51 abnormal; published area 0.893, standard error 0.032 by
    # their own formula, which is near DeLong's.
    scores = np.repeat([1, 2, 3, 4, 5, 1, 2, 3, 4, 5], [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    abnormal = np.arange(109) >= 58
    found = roc(scores, abnormal)
    assert abs(found.area - 0.893) < 0.0005 and abs(found.standard_error - 0.032) < 0.002
    assert found.low < 0.893 < found.high and (found.positives, found.negatives) == (51, 58)
    boot = roc(scores, abnormal, "bootstrap", resamples=1000)
    np.testing.assert_allclose((boot.low, boot.high, boot.standard_error),
                               (found.low, found.high, found.standard_error), atol=0.02)
    assert roc(scores, abnormal, "bootstrap", resamples=200).low == roc(scores, abnormal, "bootstrap",
                                                                        resamples=200).low
    # The curve's trapezoids have the same area.
    assert abs(np.trapezoid(found.true_positive, found.false_positive) - found.area) < 1e-12


def test_delong_is_its_definition():
    rng = np.random.default_rng(2)
    positive = np.arange(40) < 15
    score = np.round(rng.normal(0, 1, 40) + positive, 1)
    high, low = score[positive], score[~positive]
    psi = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    variance = psi.mean(axis=1).var(ddof=1) / 15 + psi.mean(axis=0).var(ddof=1) / 25
    found = roc(score, positive)
    assert abs(found.area - psi.mean()) < 1e-12 and abs(found.standard_error - np.sqrt(variance)) < 1e-12
    assert abs(found.area - stats.mannwhitneyu(high, low).statistic / (15 * 25)) < 1e-12
    assert abs(roc(-score, positive).area - (1 - found.area)) < 1e-12


def test_two_areas_of_the_same_people():
    rng = np.random.default_rng(4)
    positive = np.arange(200) < 100
    truth = positive + rng.normal(0, 1, 200)
    difference, error, p = compare_areas(truth + rng.normal(0, 0.2, 200), truth + rng.normal(0, 3, 200), positive)
    assert difference > 0.1 and error > 0 and p < 1e-3
    assert compare_areas(truth, truth, positive)[2] == 1
    null = [compare_areas(rng.normal(0, 1, 60), rng.normal(0, 1, 60), np.arange(60) < 30)[2] for _ in range(400)]
    assert 0.02 < np.mean(np.array(null) < 0.05) < 0.09


#: 113 patients after subarachnoid hemorrhage (Turck et al. 2010, Intensive Care Med 36:107): WFNS grade and serum S100B
#: in 0.01 ug/l, good outcome, then poor outcome.
GOOD = """1:13 1:14 1:10 1:4 5:47 1:18 2:10 2:10 1:4 2:8 2:4 1:9 1:11 1:7 2:17 1:7 2:11 1:13 1:19 3:5 4:16 1:14 4:34 1:9
5:50 5:46 1:16 1:7 2:43 4:45 1:11 1:8 2:9 2:8 1:6 2:13 1:10 2:14 2:15 1:6 1:5 1:9 1:4 2:9 1:8 2:16 1:9 1:8 3:33 2:11
4:28 2:7 1:10 4:32 1:7 1:5 5:24 4:38 2:10 2:15 1:8 1:14 1:10 3:7 1:4 2:19 2:15 4:47 4:17 1:15 1:50 1:48"""
POOR = """3:13 2:10 4:16 5:12 5:44 5:71 5:49 2:7 5:33 2:9 1:7 2:41 5:35 4:48 4:96 2:25 5:86 5:52 5:207 2:7 5:77 2:30 5:3
2:9 4:23 5:70 4:27 4:71 1:8 4:26 4:13 2:10 2:11 5:22 5:56 2:14 2:58 5:32 5:82 5:74 5:44"""


def test_delong_of_correlated_scores_is_that_of_proc():
    """The pROC manual prints areas 0.8236789 and 0.7313686, Z = 2.209 and p = 0.02718 for these two."""
    wfns, s100b = np.array([[float(v) for v in person.split(":")] for person in (GOOD + " " + POOR).split()]).T
    poor = np.arange(113) >= len(GOOD.split())
    assert (roc(wfns, poor).area, roc(s100b, poor).area) == pytest.approx((0.8236789, 0.7313686), abs=5e-8)
    difference, error, p = compare_areas(wfns, s100b, poor)
    assert difference / error == pytest.approx(2.209, abs=5e-4) and p == pytest.approx(0.02718, abs=5e-6)


def test_roc_bad_input_is_named():
    for scores, labels, message in (([1, 2, 3], [1, 0], "cannot be paired"), ([1, 2, np.nan, 4], [1, 0, 1, 0],
                                    "1 score"), ([1, 2, 3], [1, 0, 0], "two positives"),
                                    ([1, 2, 3, 4], [1, 2, 3, 1], "true or false")):
        with pytest.raises(DesignError, match=message):
            roc(scores, labels)
    with pytest.raises(DesignError, match="unknown"):
        roc([1, 2, 3, 4], [0, 1, 0, 1], "magic")
