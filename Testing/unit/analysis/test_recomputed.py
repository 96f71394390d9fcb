"""What an analysis writes, recomputed by other means: from its null distribution, or by a slow refit."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.analyses import analyze

from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.analysis import Values
from DiscStatsLib.design import id_order
from DiscStatsLib.permutation.deviates import stat_to_z
from DiscStatsLib.permutation.glm import fit, partition, residuals
from DiscStatsLib.permutation.multiple import adjust_bky
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.tfce import TfceSettings

SHAPE = (3, 8, 10)


def atlas():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :3, 1:9], labels[:, 5:, 1:9] = 11, 12
    return Image(labels, Geometry((10, 8, 3), (1, 1.5, 2), (5, -7, 20), (0, 1, 0, -1, 0, 0, 0, 0, 1)))


def people(n=20):
    rng = np.random.default_rng(1)
    return pd.DataFrame({"participant_id": [f"s{i}" for i in range(n)], "age": rng.uniform(20, 80, n),
                         "grade": rng.integers(1, 6, n)})


def cohort(table, effect=1.0, seed=2):
    """Maps (n, voxels) smooth along the rows of the grid, with an effect of the grade in one corner."""
    rng = np.random.default_rng(seed)
    values = rng.normal(80, 2, (len(table), *SHAPE))
    values += np.roll(values, 1, axis=3) + np.roll(values, 1, axis=2)
    values[:, :2, :2, 1:5] -= effect * table.grade.to_numpy()[:, None, None, None]
    return values[:, atlas().array > 0]


def test_one_scheme_of_flips_where_a_cell_lacks_the_constant():
    """Without intercept, `sex` is the constant where only men have a value: signs are flipped there too."""
    rng = np.random.default_rng(1)
    n = 24
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(n)], "x": rng.normal(size=n), "sex": [0, 1] * 12})
    y = rng.normal(size=(n, 144))
    y[np.ix_(table.sex == 0, np.arange(72))] = np.nan
    result = analyze(y, atlas(), table, "map ~ x + sex - 1", "x", missing="available", min_count=8, correction="fwe",
                     n_permutations=200, seed=4)
    assert result.provenance["contrasts"][0]["errors"] == "symmetric"
    scheme = make_scheme(n, 200, 4, flip=True)
    slow = np.zeros(200)
    for rows, voxels in ((np.flatnonzero(table.sex == 1), slice(0, 72)), (np.arange(n), slice(72, 144))):
        part = partition(table[["x", "sex"]].to_numpy(float)[rows], [1, 0])
        rest = residuals(part.qz, y[rows, voxels])
        for b, sign in enumerate(scheme.sign):
            t = fit(part, sign[rows, None] * rest).stat
            slow[b] = max(slow[b], np.abs(stat_to_z(t, part.df)).max())
    np.testing.assert_allclose(result.null["x_max"], slow, rtol=1e-9)


@pytest.mark.slow
def test_error_rate_of_a_one_sex_cell_without_intercept():
    """300 null cohorts (0.067 where the strata were built for permutation)."""
    sex = np.arange(14) % 2
    grid = Image(np.full((1, 5, 6), 11, np.uint8), Geometry((6, 5, 1)))
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng([3, seed])
        table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(14)], "x": rng.normal(size=14), "sex": sex})
        y = rng.normal(size=(14, 30))
        y[np.ix_(sex == 0, np.arange(29))] = np.nan
        result = analyze(y, grid, table, "map ~ x + sex - 1", "x", missing="available", min_count=7, correction="fwe",
                         n_permutations=39, seed=seed)
        hits += np.nanmin(result.maps["map_x_pfwe"].array) <= 0.05
    # Of these 300, the wrong strata reject 20.
    assert stats.binom.ppf(0.0005, 300, 0.05) <= hits <= 16


def test_effects_are_in_the_maps_unit_per_unit_of_the_variable():
    table = people()
    result = analyze(cohort(table), atlas(), table, "T2 ~ grade + age", {"age": "age", "older": "10 * age"},
                     correction=())
    for key in ("effect", "se", "cilow", "cihigh"):
        assert result.maps[f"T2_age_{key}"].meta["unit"] == "ms/{age}"
        assert result.maps[f"T2_older_{key}"].meta["unit"] == "ms/{older}"
    assert {result.maps[f"T2_{key}"].meta["unit"] for key in ("mean", "sd")} == {"ms"}
    assert result.maps["T2_age_t"].meta["unit"] == result.maps["T2_n"].meta["unit"] == "1"
    mean = analyze(cohort(table), atlas(), table, "T2 ~ 1", correction=())
    assert mean.maps["T2_Intercept_effect"].meta["unit"] == "ms"


def test_changes_between_visits_are_signed_and_in_their_own_unit():
    table, labels = people(), atlas()
    array = cohort(table) - 240
    changes = Values(array, np.arange(len(array)), np.arange(array.shape[1]), change_unit="ms/a")
    maps = analyze({"T2": changes}, labels, table, "T2 ~ age", correction=()).maps
    assert (maps["T2_mean"].meta["unit"], maps["T2_age_effect"].meta["unit"]) == ("ms/a", "ms/a/{age}")
    low, high = maps["T2_mean"].meta["window"]
    assert low == -high < 0 and maps["T2_mean"].meta["description"].startswith("Mean of the change of T2")


def inside(result, key):
    return result.maps[key].array[result.data.inside]


@pytest.fixture(scope="module", params=["complete", "available"])
def joint(request):
    """Two quantities at two levels, with holes where the policy allows them."""
    table = people()
    maps = {"T1rho": cohort(table), "T2": cohort(table, 0.3, seed=5)}
    if request.param == "available":
        holes = np.random.default_rng(7).uniform(size=maps["T2"].shape) < 0.1
        maps = {name: np.where(holes, np.nan, values) for name, values in maps.items()}
    return analyze(maps, atlas(), table, "map ~ grade + age", "grade", n_permutations=150, seed=6, cluster_p=0.1,
                   missing=request.param)


def test_every_corrected_p_is_counted_in_its_null_distribution(joint):
    assert {k.removeprefix("grade_") for k in joint.null} == {"max", "tfce", "extent", "mass"}
    threshold = joint.provenance["contrasts"][0]["max_threshold_05"]
    assert np.mean(joint.null["grade_max"] > threshold) <= 0.05 < np.mean(joint.null["grade_max"] >= threshold) + 0.01
    kept = joint.clusters.rows
    assert {c["quantity"] for c in kept} == {"T1rho", "T2"} and len(kept) > 4
    for quantity in ("T1rho", "T2"):
        shown = {k: inside(joint, f"{quantity}_grade_{k}").astype(float) for k in
                 ("t", "pfwe", "tfce", "ptfce", "cluster", "pextent", "pmass")}
        df = inside(joint, f"{quantity}_grade_df") if f"{quantity}_grade_df" in joint.maps else None
        stat = np.abs(shown["t"] if df is None else stat_to_z(shown["t"], df))
        for size, key, p in ((stat, "max", "pfwe"), (np.abs(shown["tfce"]), "tfce", "ptfce")):
            count = (joint.null[f"grade_{key}"][:, None] >= size * (1 - 1e-6)).sum(axis=0)
            np.testing.assert_allclose(shown[p], (count + 1) / 151, rtol=1e-6)
        for row in (c for c in kept if c["quantity"] == quantity):
            members = shown["cluster"] == row["cluster"]
            assert members.sum() == row["voxels"]
            effect = inside(joint, f"{quantity}_grade_effect")
            peak = np.flatnonzero(members)[np.abs(shown["t"][members]).argmax()]
            left, back, up = joint.data.geometry.index_to_world(joint.data.ijk[peak])
            assert [row[f"peak_{a}"] for a in "ras"] == pytest.approx([-left, -back, up])
            assert [row["effect_mean"], row["effect"]] == pytest.approx([effect[members].mean(), effect[peak]], 1e-5)
            assert (row["peak"], row["peak_p_fwe"], row["peak_p_tfce"]) == pytest.approx(
                [shown[k][peak] for k in ("t", "pfwe", "ptfce")], rel=1e-5)
            assert row["volume_mm3"] == pytest.approx(3.0 * row["voxels"])
            assert row["sign"] == "-+"[int(shown["t"][peak] > 0)]
            assert row["level"] == {11: "L5-S1", 12: "L4-L5"}[int(joint.data.levels[peak])]
            height = stats.norm.isf(0.05) if df is not None else stats.t.isf(0.05, 17)
            np.testing.assert_allclose(row["mass"], (stat[members] - height).sum(), rtol=1e-4)
            for key, size in (("extent", row["voxels"]), ("mass", row["mass"])):
                p = ((joint.null[f"grade_{key}"] >= size * (1 - 1e-9)).sum() + 1) / 151
                assert row[f"p_{key}"] == pytest.approx(p)
                np.testing.assert_allclose(shown[f"p{key}"][members], p, rtol=1e-6)
        outside = (shown["cluster"] == 0) & np.isfinite(stat)
        assert np.all(shown["pextent"][outside] == 1) and np.all(shown["pmass"][outside] == 1)


@pytest.mark.parametrize("levels", [None, ["L5-S1"]])
def test_the_null_of_several_maps_and_levels_is_the_largest_of_each(levels):
    """Corrected over all that is tested: the same rearrangements, each map at each level by itself."""
    table, maps = people(), {name: np.full((20, *SHAPE), np.nan) for name in ("T1rho", "T2")}
    for number, values in enumerate(maps.values()):
        values[:, atlas().array > 0] = cohort(table, 1 - 0.7 * number, seed=2 + number)
    options = {"n_permutations": 40, "seed": 6, "cluster_p": 0.1, "missing": "complete", "errors": "exchangeable"}
    both = analyze(maps, atlas(), table, "map ~ grade + age", "grade", levels=levels, **options).null
    alone = [analyze({name: values}, atlas(), table, "map ~ grade + age", "grade", levels=[level], **options).null
             for name, values in maps.items() for level in levels or ["L5-S1", "L4-L5"]]
    for key, found in both.items():
        np.testing.assert_allclose(found, np.max([null[key] for null in alone], axis=0), rtol=1e-9)
        assert len({tuple(null[key]) for null in alone}) == len(alone)


@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_fdr_of_a_one_sided_test_is_of_its_own_p(alternative):
    table = people()
    maps = analyze(cohort(table), atlas(), table, "T2 ~ grade + age", "grade", correction="fdr",
                   alternative=alternative).maps
    p, q = (maps[f"T2_grade_{k}"].array[atlas().array > 0] for k in ("p", "qfdr"))
    t = maps["T2_grade_t"].array[atlas().array > 0]
    np.testing.assert_allclose(p, stats.t.sf(t if alternative == "greater" else -t, 17), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-4)


def test_fdr_is_that_of_scipy_over_both_quantities(joint):
    p = np.concatenate([inside(joint, f"{q}_grade_p") for q in ("T1rho", "T2")])
    q = np.concatenate([inside(joint, f"{q}_grade_qfdr") for q in ("T1rho", "T2")])
    tested = np.isfinite(p)
    np.testing.assert_allclose(q[tested], stats.false_discovery_control(p[tested]), rtol=1e-5)
    other = np.concatenate([inside(joint, f"{name}_grade_qbky") for name in ("T1rho", "T2")])
    np.testing.assert_allclose(other[tested], adjust_bky(p[tested]), rtol=1e-4)
    assert np.abs(other - q)[tested].max() > 1e-3


def test_uncorrected_permutation_p_and_counts_by_a_slow_refit(joint):
    """Every voxel by itself: the people who have it, rearranged as the scheme says for them."""
    scheme = make_scheme(20, 150, 6)
    table = people()
    for quantity in ("T1rho", "T2"):
        values, found = np.asarray(joint.data.values[quantity]), inside(joint, f"{quantity}_grade_pperm")
        np.testing.assert_array_equal(inside(joint, f"{quantity}_n"),
                                      np.isfinite(values).sum(axis=0))
        for voxel in (0, 3, 50, 100, 143):
            rows = np.flatnonzero(np.isfinite(values[:, voxel]))
            design = np.column_stack([np.ones(len(rows)), table.grade[rows], table.age[rows]])
            part, y = partition(design, [0, 1, 0]), values[rows, voxel][:, None]
            rest = residuals(part.qz, y)
            order, _ = scheme.restrict(rows)
            null = np.abs([fit(part, rest[o]).stat[0] for o in order])
            count = (null >= np.abs(fit(part, y).stat[0]) * (1 - 1e-9)).sum()
            assert found[voxel] == pytest.approx((count + 1) / 151, rel=1e-6)


@pytest.mark.parametrize("contrast, alternative, tail", [("grade", "two-sided", 0.05), ("grade", "less", 0.1),
                                                         ({"grade": ("F", "grade")}, "two-sided", 0.1)])
def test_clusters_are_formed_at_the_height_that_was_asked_for(contrast, alternative, tail):
    table = people()
    result = analyze(cohort(table), atlas(), table, "T2 ~ grade + age", contrast, n_permutations=20, cluster_p=0.1,
                     alternative=alternative, correction="cluster")
    kind = "F" if isinstance(contrast, dict) else "t"
    stat, cluster = inside(result, f"T2_grade_{kind}"), inside(result, "T2_grade_cluster") > 0
    size = {"two-sided": np.abs(stat), "less": -stat}[alternative]
    height = stats.f.isf(tail, 1, 17) if kind == "F" else stats.t.isf(tail, 17)
    np.testing.assert_array_equal(cluster, size >= height)
    assert 5 < cluster.sum() < 100


def test_voxels_that_touch_by_an_edge_are_two_clusters_by_default():
    table, y = people(), np.random.default_rng(3).normal(80, 0.1, (20, *SHAPE))
    for place in ((1, 1, 2), (1, 2, 3), (1, 1, 6), (1, 1, 7)):
        y[(slice(None), *place)] += 5 * table.grade
    result = analyze(y, atlas(), table, "T2 ~ grade", n_permutations=20, levels=["L5-S1"])
    assert sorted(result.clusters["voxels"]) == [1, 1, 2]
    assert result.provenance["contrasts"][0]["tfce"]["connectivity"] == 6
    wide = analyze(y, atlas(), table, "T2 ~ grade", n_permutations=20, levels=["L5-S1"],
                   tfce=TfceSettings(connectivity=18))
    assert sorted(wide.clusters["voxels"]) == [2, 2]


def test_spread_p_is_the_smallest_times_the_number_tested():
    """Breusch and Pagan's regression by hand, for each quantity and level."""
    table = people()
    maps = {"T1rho": cohort(table), "T2": cohort(table, seed=5)}
    maps["T2"] = maps["T2"].mean(axis=0) + (maps["T2"] - maps["T2"].mean(axis=0)) * table.grade.to_numpy()[:, None]
    result = analyze(maps, atlas(), table, "map ~ grade + age", "grade", correction=())
    x = np.column_stack([np.ones(20), table.grade, table.age])
    hat = x @ np.linalg.pinv(x)
    p = []
    for values in maps.values():
        for level in (11, 12):
            y = values[:, result.data.levels == level]
            e = (y - hat @ y) ** 2
            size = (e / e.sum(axis=0) * 17).mean(axis=1) / (1 - np.diag(hat))
            p.append(stats.linregress(table.grade, np.log(size)).pvalue)
    found = result.provenance["contrasts"][0]["residual_spread"]
    assert found["p"] == pytest.approx(min(4 * min(p), 1)) and min(p) < 0.2
    assert found["quantity"] == ["T1rho", "T2"][int(np.argmin(p)) // 2]


def test_mean_sd_and_count_leave_missing_values_out(joint):
    for quantity, values in ((k, np.asarray(v)) for k, v in joint.data.values.items()):
        np.testing.assert_allclose(inside(joint, f"{quantity}_mean"), np.nanmean(values, axis=0), rtol=1e-6)
        np.testing.assert_allclose(inside(joint, f"{quantity}_sd"), np.nanstd(values, axis=0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("alternative, tail", [("greater", stats.t.sf), ("less", stats.t.cdf),
                                               ("two-sided", lambda t, df: 2 * stats.t.sf(np.abs(t), df))])
def test_parametric_p_is_the_tail_of_students_t_that_was_asked_for(alternative, tail):
    table = people()
    result = analyze(cohort(table), atlas(), table, "map ~ grade + age", "grade", alternative=alternative,
                     correction=())
    t = inside(result, "map_grade_t").astype(float)
    assert (t < -2).any() and (t > 0).any()
    np.testing.assert_allclose(inside(result, "map_grade_p"), tail(t, 17), rtol=1e-4)


@pytest.mark.parametrize("blocks", [None, "scan"])
def test_the_order_of_the_table_does_not_matter(blocks):
    """People, maps, blocks and covariates in another order: every map and null distribution to the last digit."""
    table = people().assign(scan=np.arange(20) // 2)
    y, x = cohort(table), cohort(table, seed=9)
    y[::3, 5:40] = np.nan
    order = np.random.default_rng(8).permutation(20)

    def analyzed(rows):
        own = None if blocks is None else table[blocks].to_numpy()[rows]
        return analyze(y[rows], atlas(), table.iloc[rows], "map ~ grade + x", "grade", blocks=own, seed=3,
                       voxel_covariates={"x": x[rows]}, n_permutations=50, min_count=10)

    one, other = analyzed(np.arange(20)), analyzed(order)
    assert one.data.ids == other.data.ids == table.participant_id.tolist()
    for name, image in one.maps.items():
        np.testing.assert_array_equal(other.maps[name].array, image.array, err_msg=name)
    for name, values in one.null.items():
        np.testing.assert_array_equal(other.null[name], values, err_msg=name)
    assert one.clusters.rows == other.clusters.rows


def test_ids_are_ordered_by_the_numbers_in_them():
    ids = ["sub-10", "sub-2", "b", "sub-2", "a10x", "a9x", "sub-02b", "10", "9"]
    assert [ids[n] for n in id_order(ids)] == ["9", "10", "a9x", "a10x", "b", "sub-2", "sub-2", "sub-02b", "sub-10"]
    assert id_order(ids).tolist().index(1) < id_order(ids).tolist().index(3)
