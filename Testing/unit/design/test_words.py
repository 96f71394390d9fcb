"""Contrasts in words against the columns they stand for, and against statsmodels' own tests."""

import numpy as np
import pandas as pd
import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.design import build_contrasts, build_design

N = 40


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    return pd.DataFrame({"participant_id": [f"s{i}" for i in range(N)], "age": rng.uniform(20, 80, N),
                         "bmi": rng.normal(25, 3, N), "sex": rng.choice(["F", "M"], N),
                         "odi": rng.choice(["minimal", "moderate", "severe"], N), "y": rng.normal(size=N)})


@pytest.mark.parametrize("formula, words, columns", [
    ("map ~ C(odi) + age", "severe - minimal", {"C(odi)[T.severe]": 1}),
    ("map ~ odi + age", "severe - minimal", {"odi[T.severe]": 1}),
    ("map ~ C(odi) + age", "Severe - moderate", {"C(odi)[T.severe]": 1, "C(odi)[T.moderate]": -1}),
    ("map ~ C(odi) + age", "minimal - severe", {"C(odi)[T.severe]": -1}),
    ("map ~ C(odi) - 1", "severe - minimal", {"C(odi)[severe]": 1, "C(odi)[minimal]": -1}),
    ("map ~ age * C(sex)", "age in women - age in men", {"age:C(sex)[T.M]": -1}),
    ("map ~ age * C(sex)", "slope in women - slope in men", {"age:C(sex)[T.M]": -1}),
    ("map ~ age * sex + bmi", "age in men", {"age": 1, "age:sex[T.M]": 1}),
    ("map ~ sex + age:sex", "slope in F", {"age:sex[F]": 1}),
    ("map ~ sex + age:sex", "slope in F - slope in M", {"sex[F]:age": 1, "sex[M]:age": -1})])
def test_words_are_these_weights(table, formula, words, columns):
    design = build_design(formula, table)
    (contrast,) = build_contrasts(words, design)
    alike = {":".join(sorted(c.split(":"))): at for at, c in enumerate(design.columns)}
    expected = np.zeros(design.rank)
    for name, weight in columns.items():
        expected[alike[":".join(sorted(name.split(":")))]] = weight
    np.testing.assert_array_equal(contrast.weights, [expected])
    assert contrast.kind == "t"


def test_a_curve_and_a_factor_are_tested_by_the_f_of_statsmodels(table):
    from statsmodels.formula.api import ols

    from DiscStatsLib.permutation import fit, partition

    design = build_design("map ~ age + I(age ** 2) + C(odi) + bmi", table)
    for words, reduced in (("all of age", "C(odi) + bmi"), ("odi", "age + I(age ** 2) + bmi")):
        (contrast,) = build_contrasts(words, design)
        ours = fit(partition(design.matrix, contrast.weights), table[["y"]].to_numpy(), "F")
        full = ols("y ~ age + I(age ** 2) + C(odi) + bmi", table).fit()
        f, p, df = full.compare_f_test(ols(f"y ~ {reduced}", table).fit())
        assert contrast.kind == "F" and len(contrast.weights) == df == 2
        assert (ours.stat[0], ours.p[0]) == pytest.approx((f, p), rel=1e-6)
    assert len(build_contrasts("all of age", build_design("map ~ age * C(sex)", table))[0].weights) == 2


@pytest.mark.parametrize("formula, words", [
    ("map ~ C(odi) + age", "severe + minimal"), ("map ~ C(odi) + age", "severe - nobody"),
    ("map ~ C(odi) + age", "severe"), ("map ~ age * C(sex)", "women - men"), ("map ~ age + C(sex)", "slope in women"),
    ("map ~ age * C(sex) + bmi * C(sex)", "slope in women"), ("map ~ age + C(odi)", "all of weight"),
    ("map ~ age + C(odi)", "severe - severe")])
def test_words_without_one_meaning_are_refused(table, formula, words):
    with pytest.raises(DesignError, match="no contrast of this design|row of zeros"):
        build_contrasts(words, build_design(formula, table))


def test_words_reach_the_maps_of_an_analysis(table):
    """A curve and a factor by F, a difference of slopes by t: as statsmodels finds them, under names fit for files."""
    from statsmodels.formula.api import ols
    from support.analyses import analyze

    from DiscRelaxometryLib.image import Geometry, Image

    atlas = Image(np.full((1, 1, 2), 11, np.uint8), Geometry((2, 1, 1)))
    y = np.column_stack([table.y, -table.y])
    terms = "age * C(sex) + I(age**2) + C(odi)"
    found = analyze(y, atlas, table, f"map ~ {terms}", ["I(age ** 2)", "odi", "age in women - age in men"],
                    correction="fwe", n_permutations=20)
    full = ols(f"y ~ {terms}", table).fit()
    f = full.compare_f_test(ols("y ~ age * C(sex) + I(age**2)", table).fit())[0]
    maps = {name: image.array.ravel() for name, image in found.maps.items()}
    np.testing.assert_allclose(maps["map_odi_F"], f, rtol=1e-5)
    np.testing.assert_allclose(maps["map_IAge2_t"], full.tvalues["I(age ** 2)"] * np.array([1, -1]), rtol=1e-4)
    slopes = full.tvalues["age:C(sex)[T.M]"] * np.array([-1, 1])
    np.testing.assert_allclose(maps["map_ageInWomenMinusAgeInMen_t"], slopes, rtol=1e-5)
