"""The whole analysis: what goes in, what comes out, policies, blocks, levels, and bad input."""

import numpy as np
import pandas as pd
import pytest
from support.analyses import analyze

from DiscRelaxometryLib.errors import Cancelled, DesignError, GeometryError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.permutation.tfce import TfceSettings

SHAPE = (3, 8, 10)
GEOMETRY = Geometry((10, 8, 3), (1, 1.5, 2), (5, -7, 20), (0, 1, 0, -1, 0, 0, 0, 0, 1))
FAST = {"n_permutations": 99, "seed": 3}


def atlas():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :3, 1:9], labels[:, 5:, 1:9] = 11, 12
    return Image(labels, GEOMETRY)


def people(n=20):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "age": rng.uniform(20, 80, n),
            "sex": np.where(rng.uniform(size=n) < 0.5, "M", "F"),
            "grade_L5S1": rng.integers(1, 6, n),
            "grade_L4L5": rng.integers(1, 6, n),
        }
    )


def cohort(table, effect=2.0, seed=2):
    """Maps in which L5-S1 depends on its own grade in one corner."""
    rng = np.random.default_rng(seed)
    labels, maps = atlas().array, []
    for grade in table.grade_L5S1:
        values = np.where(labels > 0, rng.normal(80, 2, SHAPE), np.nan)
        values[:2, :2, 1:5] -= effect * grade
        maps.append(Image(values, GEOMETRY))
    return maps


def test_each_level_has_its_own_design_and_the_effect_is_found_where_it_is():
    table = people()
    result = analyze(cohort(table), atlas(), table, "T2 ~ grade + age + C(sex)", "grade", n_permutations=499, seed=1)
    p = result.maps["T2_grade_pfwe"].array
    planted = np.zeros(SHAPE, bool)
    planted[:2, :2, 1:5] = True
    assert (p[planted] <= 0.05).mean() > 0.8
    assert np.nanmin(p[~planted]) > 0.05
    assert np.isnan(p[atlas().array == 0]).all()
    # The same numbers as a plain regression on the level's own column.
    from statsmodels.formula.api import ols

    voxel = np.array([m.array[0, 0, 2] for m in cohort(table)])
    model = ols("y ~ grade_L5S1 + age + C(sex)", table.assign(y=voxel)).fit()
    found = {k: result.maps[f"T2_grade_{k}"].array[0, 0, 2] for k in ("effect", "se", "t", "p")}
    np.testing.assert_allclose(
        list(found.values()),
        [model.params["grade_L5S1"], model.bse["grade_L5S1"], model.tvalues["grade_L5S1"], model.pvalues["grade_L5S1"]],
        rtol=2e-6,
    )


def test_cluster_table_has_peak_position_level_and_region():
    table = people()
    regions = atlas().like(np.where(atlas().array > 0, 1 + (np.indices(SHAPE)[2] >= 5), 0))
    result = analyze(
        cohort(table),
        atlas(),
        table,
        "T2 ~ grade",
        n_permutations=199,
        seed=1,
        regions=regions,
        region_names={1: "nucleus", 2: "annulus"},
    )
    row = result.clusters.rows[0]
    assert (row["level"], row["sign"], row["region"], row["quantity"]) == ("L5-S1", "-", "nucleus", "T2")
    t = result.maps["T2_grade_t"]
    k, j, i = np.unravel_index(np.nanargmax(np.abs(t.array)), SHAPE)
    lps = GEOMETRY.index_to_world((i, j, k))
    np.testing.assert_allclose([row["peak_r"], row["peak_a"], row["peak_s"]], [-lps[0], -lps[1], lps[2]])
    assert row["volume_mm3"] == pytest.approx(row["voxels"] * 3.0)
    assert row["p_extent"] == pytest.approx(1 / 200)
    clusters = result.maps["T2_grade_cluster"].array
    assert clusters.dtype.kind in "iu" and (clusters == 1).sum() == row["voxels"]


@pytest.mark.parametrize("workers", [2, 3])
def test_results_do_not_depend_on_the_number_of_workers(workers, monkeypatch):
    from DiscStatsLib.permutation import cluster_null as permutation_clusters
    from DiscStatsLib.permutation import stratum as permutation

    table, maps = people(), cohort(people(), 0.5)
    one = analyze(maps, atlas(), table, "T2 ~ grade", **FAST)
    monkeypatch.setattr(permutation, "VOXEL_BLOCK", 7)
    monkeypatch.setattr(permutation_clusters, "MAP_BATCH", 5)
    many = analyze(maps, atlas(), table, "T2 ~ grade", workers=workers, **FAST)
    for name, image in one.maps.items():
        np.testing.assert_array_equal(image.array, many.maps[name].array, err_msg=name)
    other = analyze(maps, atlas(), table, "T2 ~ grade", n_permutations=99, seed=4)
    assert not np.array_equal(other.null["grade_max"], one.null["grade_max"])


def test_correction_is_joint_over_quantities():
    table = people()
    maps = {"T1rho": cohort(table, 1.0), "T2": cohort(table, 0.0, seed=9)}
    both = analyze(maps, atlas(), table, "map ~ grade", **FAST)
    single = analyze(maps, atlas(), table, "T1rho ~ grade", **FAST)
    assert {"T1rho_grade_t", "T2_grade_t"} <= set(both.maps) and "T2_grade_t" not in single.maps
    np.testing.assert_array_equal(both.maps["T1rho_grade_t"].array, single.maps["T1rho_grade_t"].array)
    assert np.all(both.null["grade_max"] >= single.null["grade_max"])
    assert np.nansum(both.maps["T1rho_grade_pfwe"].array - single.maps["T1rho_grade_pfwe"].array) > 0


def test_missing_voxels_are_left_out_or_have_their_own_degrees_of_freedom():
    table, maps = people(), cohort(people())
    for number, image in enumerate(maps):
        image.array[0, 0, 1:3] = np.nan if number < 4 else image.array[0, 0, 1], 5.0  # the second is not tested
    complete = analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", missing="complete", **FAST)
    assert np.isnan(complete.maps["T2_grade_t"].array[0, 0, 1])
    assert "1 of 72 voxels" in " ".join(complete.warnings)
    some = analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", **FAST)
    df = some.maps["T2_grade_df"].array[0, 0]
    assert some.maps["T2_n"].array[0, 0, 1] == 16 and df[1] == 13 and np.isnan(df[2])
    assert [r.provenance["contrasts"][0]["statistic"] for r in (complete, some)] == ["t", "z of the same p as t"]
    from statsmodels.formula.api import ols

    model = ols("y ~ grade_L5S1 + age", table.assign(y=[m.array[0, 0, 1] for m in maps])).fit()
    assert some.maps["T2_grade_t"].array[0, 0, 1] == pytest.approx(model.tvalues["grade_L5S1"], rel=1e-6)
    few = analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", min_count=17, **FAST)
    assert np.isnan(few.maps["T2_grade_t"].array[0, 0, 1])


def test_the_default_minimum_count_is_that_of_the_level():
    """Without missing voxels both policies agree, down to one residual degree of freedom and with few at a level."""
    table, maps = people(), cohort(people())
    table.loc[4:, "grade_L5S1"] = np.nan
    both = [analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", missing=policy, **FAST)
            for policy in ("available", "complete")]
    there = atlas().array == 11
    assert np.isfinite(both[0].maps["T2_grade_t"].array[there]).all() and (both[0].maps["T2_n"].array[there] == 4).all()
    for name, image in both[1].maps.items():
        np.testing.assert_allclose(both[0].maps[name].array, image.array, rtol=1e-5)


def test_person_without_a_level_counts_at_the_other():
    table, maps = people(), cohort(people())
    maps[3].array[atlas().array == 12] = np.nan
    with pytest.raises(DesignError, match="L4-L5.*sub-03 have none there"):
        analyze(maps, atlas(), table, "T2 ~ age", missing="complete", **FAST)
    result = analyze(maps, atlas(), table, "T2 ~ age", **FAST)
    assert result.maps["T2_n"].array[0, 0, 1] == 20 and result.maps["T2_n"].array[0, 6, 1] == 19


def test_paired_design_with_blocks_is_the_paired_t_test():
    from scipy.stats import ttest_rel

    n = 8
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(n)] * 2, "session": ["a"] * n + ["b"] * n})
    y = rng.normal(size=(2 * n, int((atlas().array > 0).sum()))) + np.tile(rng.normal(0, 3, n), 2)[:, None]
    result = analyze(
        y,
        atlas(),
        table,
        "map ~ C(session) + C(participant_id)",
        "session",
        blocks="participant_id",
        n_permutations=500,
    )
    t = result.maps["map_session_t"].array[atlas().array > 0]
    np.testing.assert_allclose(t, ttest_rel(y[n:], y[:n]).statistic, rtol=1e-5)
    # 2^8 = 256 exchanges within pairs, listed in full; the smallest two-sided p is 2/256.
    assert result.provenance["contrasts"][0]["permutation"] == "all 256 distinct rearrangements, within 8 blocks"
    assert np.nanmin(result.maps["map_session_pperm"].array) == pytest.approx(2 / 256)


def test_one_sample_flips_signs_and_matches_the_paired_test_on_differences():
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(8)]})
    y = rng.normal(0.5, 1, size=(8, int((atlas().array > 0).sum())))
    result = analyze(y, atlas(), table, "map ~ 1", correction="fwe", n_permutations=500)
    assert result.provenance["contrasts"][0]["permutation"] == "all 256 sign flips of 8 observations"
    pooled = pd.DataFrame({"participant_id": [f"s{i}" for i in range(8)] * 2, "session": ["a"] * 8 + ["b"] * 8})
    paired = analyze(
        np.vstack([np.zeros_like(y), y]),
        atlas(),
        pooled,
        "map ~ C(session) + C(participant_id)",
        "session",
        blocks="participant_id",
        correction="fwe",
        n_permutations=500,
    )
    for key in ("t", "pperm", "pfwe"):
        np.testing.assert_allclose(
            result.maps[f"map_Intercept_{key}"].array, paired.maps[f"map_session_{key}"].array, rtol=1e-5
        )


def test_pooled_levels_exchange_whole_persons_for_a_variable_of_the_person():
    rng = np.random.default_rng(7)
    n = 10
    table = pd.DataFrame(
        {
            "participant_id": np.repeat([f"s{i}" for i in range(n)], 2),
            "level": ["L5-S1", "L4-L5"] * n,
            "age": np.repeat(rng.uniform(20, 80, n), 2),
            "grade": rng.integers(1, 6, 2 * n),
        }
    )
    y = rng.normal(size=(2 * n, int((atlas().array > 0).sum())))
    result = analyze(
        y, atlas(), table, "map ~ age + grade + C(level)", ["age", "grade"], blocks="participant_id", **FAST
    )
    modes = {c["name"]: (c["exchange"], c["permutation"]) for c in result.provenance["contrasts"]}
    assert modes["age"] == ("whole", "99 random permutations, as 10 whole blocks")
    assert modes["grade"] == ("within", "99 random permutations, within 10 blocks")
    # A person who lacks one disc at a voxel cannot change places there as a whole, and is left out.
    y[4, 3] = np.nan
    some = analyze(y, atlas(), table, "map ~ age", blocks="participant_id", **FAST)
    assert some.maps["map_n"].array[atlas().array > 0][3] == 18
    y[4, 3] = 0
    with pytest.raises(DesignError, match="No rearrangement|exchange"):
        analyze(y[:, :], atlas(), table, "map ~ age", blocks="participant_id", exchange="within", **FAST)


def test_anova_is_that_of_scipy():
    from scipy.stats import f_oneway

    table = people(18).assign(site=list("abc") * 6)
    y = np.random.default_rng(8).normal(size=(18, int((atlas().array > 0).sum())))
    result = analyze(y, atlas(), table, "map ~ C(site)", **FAST)
    expected = f_oneway(*[y[table.site == s] for s in "abc"])
    np.testing.assert_allclose(result.maps["map_site_F"].array[atlas().array > 0], expected.statistic, rtol=1e-5)
    np.testing.assert_allclose(result.maps["map_site_p"].array[atlas().array > 0], expected.pvalue, rtol=1e-5)


def test_f_of_one_column_gives_the_p_of_two_sided_t():
    table, maps = people(), cohort(people(), 0.7)
    t = analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", **FAST)
    f = analyze(maps, atlas(), table, "T2 ~ grade + age", {"grade": ("F", "grade")}, **FAST)
    # TFCE and clusters differ: F has no sign, so that neighbors of opposite effect join.
    for key in ("p", "pperm", "pfwe", "qfdr"):
        np.testing.assert_allclose(
            t.maps[f"T2_grade_{key}"].array, f.maps[f"T2_grade_{key}"].array, rtol=1e-5, err_msg=key
        )


def test_spearman_is_that_of_scipy():
    from scipy.stats import spearmanr

    table, maps = people(), cohort(people(), 0.7)
    result = analyze(maps, atlas(), table, "T2 ~ age", ranks=True, correction=())
    y = np.array([m.array[atlas().array > 0] for m in maps])
    expected = [spearmanr(table.age, y[:, v]).statistic for v in range(y.shape[1])]
    np.testing.assert_allclose(result.maps["T2_age_r"].array[atlas().array > 0], expected, rtol=1e-5)


def test_one_map_explained_by_another_is_a_regression_in_each_voxel():
    from statsmodels.formula.api import ols

    table = people()
    t1rho, t2 = cohort(table, seed=11), cohort(table, seed=12)
    result = analyze(
        {"T1rho": t1rho},
        atlas(),
        table,
        "T1rho ~ T2 + age",
        ["T2", "age"],
        voxel_covariates={"T2": t2},
        n_permutations=19,
    )
    for voxel in ((0, 0, 1), (2, 7, 8)):
        frame = table.assign(y=[m.array[voxel] for m in t1rho], x=[m.array[voxel] for m in t2])
        model = ols("y ~ x + age", frame).fit()
        for name, column in (("T2", "x"), ("age", "age")):
            assert result.maps[f"T1rho_{name}_t"].array[voxel] == pytest.approx(model.tvalues[column], rel=1e-5)


def test_one_sided_p_and_direction():
    table, maps = people(), cohort(people(), 3.0)
    less = analyze(maps, atlas(), table, "T2 ~ grade", alternative="less", **FAST)
    more = analyze(maps, atlas(), table, "T2 ~ grade", alternative="greater", **FAST)
    at = (0, 0, 2)
    assert less.maps["T2_grade_pfwe"].array[at] == pytest.approx(0.01) and more.maps["T2_grade_pfwe"].array[at] == 1
    np.testing.assert_allclose(
        less.maps["T2_grade_p"].array + more.maps["T2_grade_p"].array, np.where(atlas().array > 0, 1, np.nan), rtol=1e-5
    )


def test_cancel_stops_and_progress_ends_at_one():
    table, maps, seen = people(), cohort(people()), []
    analyze(maps, atlas(), table, "T2 ~ grade", progressCallback=lambda f, t: seen.append(f), **FAST)
    assert seen[-1] == 1 and seen == sorted(seen)

    def cancel(fraction, text):
        if fraction > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        analyze(maps, atlas(), table, "T2 ~ grade", progressCallback=cancel, workers=2, **FAST)


def bad_input():
    table, maps = people(), cohort(people())
    by_person = dict(zip(table.participant_id, maps))
    other = Image(maps[0].array, Geometry((10, 8, 3)))
    empty = maps[0].like(np.full(SHAPE, np.nan))
    infinite = maps[0].like(np.where(np.isnan(maps[0].array), np.nan, np.inf))
    exact = [m.like(np.where(atlas().array > 0, 3.0 * g, np.nan)) for m, g in zip(maps, table.grade_L5S1)]
    no_age = table.assign(age=table.age.where(table.index != 2))
    return {
        "one map too few": (maps[:-1], {}, "19 'T2' maps for 20 rows"),
        "person without a map": (maps[:5] + [None] + maps[6:], {}, "'sub-05'.*no 'T2' map"),
        "person without a map, by id": (
            {k: v for k, v in by_person.items() if k != "sub-07"},
            {},
            "'sub-07'.*no 'T2' map",
        ),
        "map without a person": (by_person | {"sub-99": maps[0]}, {}, "'sub-99', who is not in"),
        "other geometry": ([other] + maps[1:], {}, "'sub-00' are on different grids"),
        "all NaN person": (maps[:4] + [empty] + maps[5:], {}, "'sub-04' has no value inside the mask"),
        "infinite values": (maps[:4] + [infinite] + maps[5:], {}, "'sub-04' holds infinite values"),
        "mask of zero voxels": (maps, {"atlas_labels": atlas().like(np.zeros(SHAPE, np.uint8))}, "mask is empty"),
        "level not in the atlas": (maps, {"levels": ["L1-L2"]}, "mask is empty at L1-L2"),
        "unknown level": (maps, {"levels": ["L9-L8"]}, "'L9-L8' is no disc level"),
        "perfect fit": (exact, {"formula": "T2 ~ grade_L5S1"}, "fitted perfectly"),
        "duplicate ids": (maps, {"participants": table.assign(participant_id="sub-00")}, "'sub-00' stands twice"),
        "NaN in the table": (maps, {"participants": no_age, "missing_covariates": "error"},
                             "no value of 'age' for 'sub-02'"),
        "typo": (maps, {"formula": "T2 ~ gradee + age"}, "'gradee'"),
        "hostile code": (maps, {"formula": "T2 ~ __import__('os').getcwd()"}, "not allowed"),
        "constant covariate": (maps, {"participants": table.assign(age=44)}, "'age' has the same value"),
        "n below the rank": (maps, {"formula": "T2 ~ C(participant_id)"}, "20 observations.*20 parameters"),
        "unknown correction": (maps, {"correction": "bonferroni"}, "'bonferroni' is no correction"),
        "unknown policy": (maps, {"missing": "zero"}, "missing = 'zero'"),
        "no permutations": (maps, {"n_permutations": 0}, "n_permutations must be a whole number of at least 1"),
        "unknown block column": (maps, {"blocks": "family"}, "'family' are no column"),
        "array of other size": (np.zeros((20, 5)), {}, "shape \\(20, 5\\)"),
        "GPU that is not there": (maps, {"device": "cuda:77"}, "cuda:77|torch"),
        "probability": (maps, {"cluster_p": 2.0}, "cluster-forming p"),
        "half a permutation": (maps, {"n_permutations": 9.5}, "whole number of at least 1; '9.5'"),
        "negative seed": (maps, {"seed": -1}, "seed must be a whole number of at least 0"),
        "negative count": (maps, {"min_count": -3, "missing": "available"}, "min_count must be"),
        "two columns": (maps, {"participants": pd.concat([table, table[["age"]]], axis=1)}, "two columns 'age'"),
        "no table": (maps, {"participants": [1, 2]}, "participants table is a list"),
        "word among numbers": (
            maps,
            {"participants": table.assign(age=[*table.age.astype(str)[:-1], "unknown"])},
            "the text 'unknown' \\('sub-19'\\) among numbers",
        ),
        "dates": (maps, {"participants": table.assign(age=pd.date_range("2020-01-01", periods=20))}, "holds dates"),
        "infinite covariate": (
            maps,
            {"participants": table.assign(age=table.age.where(table.index != 2, np.inf))},
            "'age' is not a finite number",
        ),
        "no maps": (None, {}, "maps are a NoneType"),
        "names of files": (["a.nii"] * 20, {}, "'sub-00' is a str, not an Image"),
        "array of text": (np.array([["a"] * 144] * 20), {}, "real numbers are needed"),
        "contrast of words": (maps, {"contrasts": {"x": ["a", "b", "c"]}}, "'x' is neither a text, a vector"),
        "hostile contrast": (maps, {"contrasts": "__import__('os').getcwd()"}, "is no contrast of this design"),
        "step of zero": (maps, {"tfce": TfceSettings(step=0)}, "step of TFCE must be above 0"),
        "block without a name": (maps, {"blocks": [None] * 20}, "Row 1 of the table has no exchangeability block"),
        "covariate map not in the formula": (maps, {"voxel_covariates": {"T1": maps}}, "'T1' is not in the formula"),
        "covariate map that is constant": (
            maps,
            {"voxel_covariates": {"T1": [m.like(np.where(atlas().array > 0, 3.0, np.nan)) for m in maps]},
             "formula": "T2 ~ age + T1"},
            "design is collinear there",
        ),
        "empty table": (maps, {"participants": table.iloc[:0]}, "table is empty"),
    }


@pytest.mark.parametrize("case", list(bad_input()))
def test_bad_input_is_one_clear_sentence(case):
    maps, change, words = bad_input()[case]
    settings = {"atlas_labels": atlas(), "participants": people(), "formula": "T2 ~ grade + age"} | FAST | change
    with pytest.raises((DesignError, GeometryError), match=words) as caught:
        analyze(maps, **settings)
    assert "\n" not in str(caught.value)


def test_constant_and_perfect_voxels_are_left_empty_and_counted():
    table, maps = people(), cohort(people())
    for image, grade in zip(maps, table.grade_L5S1):
        image.array[0, 0, 1], image.array[0, 0, 2], image.array[0, 0, 3] = 5.0, 2.0 * grade, np.nan
    result = analyze(maps, atlas(), table, "T2 ~ grade_L5S1", **FAST)
    assert np.isnan(result.maps["T2_grade_L5S1_t"].array[0, 0, 1:4]).all()
    words = " ".join(result.warnings)
    assert "1 voxels are fitted without residual" in words and "1 voxels do not vary" in words
    assert "1 of 144 voxels have no value in any map" in words
