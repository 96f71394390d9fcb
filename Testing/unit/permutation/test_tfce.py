"""TFCE and clusters against analytic values, a brute-force sum, nilearn's test numbers and MRtrix3's output."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage, stats
from scipy.ndimage import generate_binary_structure, label
from support import shared_data

from DiscRelaxometryLib.compiled import have_numba
from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.permutation import clusters, deviates
from DiscStatsLib.permutation.cluster_null import MapLayout, map_null, one_side, statistic_maps
from DiscStatsLib.permutation.clusters import cluster_maxima, cluster_sizes, find_clusters
from DiscStatsLib.permutation.deviates import stat_to_z
from DiscStatsLib.permutation.glm import fit, partition
from DiscStatsLib.permutation.max_statistic import fwe_p
from DiscStatsLib.permutation.schemes import make_scheme
from DiscStatsLib.permutation.stratum import make_stratum
from DiscStatsLib.permutation.tfce import TfceSettings, neighbors_of, tfce_maxima, tfce_values

COMPILED = [False, True] if have_numba() else [False]


def block_map():
    grid = np.zeros((10, 10, 10))
    grid[0, 0, :] = 10.0
    grid[5, 5, :] = -11.0
    return grid.ravel(), neighbors_of(np.ones((10, 10, 10), int))


def brute_force(stat, inside, connectivity, e=0.5, h=2.0):
    structure = generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])

    def one_sign(values):
        total, grid = np.zeros(inside.shape), np.zeros(inside.shape)
        grid[inside] = values
        heights = np.unique(np.concatenate([[0.0], grid[grid > 0]]))
        for low, high in zip(heights[:-1], heights[1:]):
            parts, _ = label(grid >= high, structure)
            size = np.bincount(parts.ravel()).astype(float)
            total += np.where(parts > 0, size[parts] ** e * (high ** (h + 1) - low ** (h + 1)) / (h + 1), 0)
        return total[inside]

    return one_sign(stat) - one_sign(-stat)


@pytest.mark.parametrize("compiled", COMPILED)
def test_uniform_block_is_the_integral(compiled):
    stat, neighbors = block_map()
    value = tfce_values(stat, neighbors, compiled=compiled)
    np.testing.assert_allclose(value[:10], 10**0.5 * 10**3 / 3, rtol=1e-12)  # 1054.09
    np.testing.assert_allclose(value.min(), -(10**0.5) * 11**3 / 3, rtol=1e-12)


@pytest.mark.parametrize(
    "step, times_step, two_sided, expected",
    [(0.1, False, False, 5050), (0.11, False, True, 5555), (1.0, True, False, 550), (1.0, False, False, 550)],
)
def test_numbers_of_nilearns_test(step, times_step, two_sided, expected):
    stat, neighbors = block_map()
    settings = TfceSettings(extent_power=1, height_power=1, step=step, times_step=times_step)
    value = np.abs(tfce_values(stat if two_sided else np.maximum(stat, 0), neighbors, settings))
    assert value.max() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_exact_tfce_is_the_brute_force_sum(compiled, connectivity):
    rng = np.random.default_rng(4)
    inside = rng.uniform(size=(6, 9, 8)) < 0.8
    stat = np.round(rng.normal(size=inside.sum()), 1)  # ties
    value = tfce_values(
        stat,
        neighbors_of(inside.astype(int), connectivity),
        TfceSettings(connectivity=connectivity),
        compiled=compiled,
    )
    np.testing.assert_allclose(value, brute_force(stat, inside, connectivity), rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not have_numba(), reason="numba is not installed")
def test_compiled_and_plain_code_are_equal():
    stat = np.random.default_rng(5).normal(size=3000)
    neighbors = neighbors_of(np.ones((10, 15, 20), int))
    np.testing.assert_array_equal(*(tfce_values(stat, neighbors, compiled=c) for c in (True, False)))


def test_steps_approach_the_integral():
    stat = np.random.default_rng(6).normal(size=1000)
    neighbors = neighbors_of(np.ones((10, 10, 10), int))
    exact, fine = tfce_values(stat, neighbors), tfce_values(stat, neighbors, TfceSettings(step=1e-4))
    np.testing.assert_allclose(fine, exact, atol=2e-3)


@pytest.mark.parametrize("compiled", COMPILED)
def test_maxima_are_those_of_the_map_in_each_level(compiled):
    rng = np.random.default_rng(8)
    labels = np.zeros((6, 12, 14), int)
    labels[1:4, 2:11, 1:8], labels[2:, 1:, 8:], labels[0, 0, 0] = 11, 12, 13
    neighbors, own = neighbors_of(labels, 18), labels[labels > 0]
    for settings in (TfceSettings(connectivity=18), TfceSettings(connectivity=18, step=0.1)):
        stat = np.round(rng.normal(size=len(own)), 2)
        stat[rng.uniform(size=len(own)) < 0.1] = np.nan
        value = np.abs(tfce_values(stat, neighbors, settings, compiled))
        expected = [np.nanmax(value[own == label]) for label in (11, 12, 13)]
        np.testing.assert_array_equal(tfce_maxima(stat, neighbors, settings, compiled), expected)


@pytest.mark.skipif(not have_numba(), reason="numba is not installed")
@pytest.mark.parametrize("far", [0.0, 1e12])
def test_compiled_order_is_numpys(far):
    # An outlier far above the rest leaves them one bucket; ties stay in array order.
    stat = np.round(np.random.default_rng(9).normal(size=5000), 2)
    stat[7] += far
    neighbors = neighbors_of(np.ones((10, 20, 25), int))
    np.testing.assert_array_equal(*(tfce_values(stat, neighbors, compiled=c) for c in (True, False)))


def test_levels_are_not_neighbors():
    labels = np.ones((1, 1, 6), int)
    labels[..., 3:] = 2
    together, apart = (tfce_values(np.full(6, 3.0), neighbors_of(x)) for x in (np.ones((1, 1, 6), int), labels))
    np.testing.assert_allclose(together / apart, 2**0.5)


def test_missing_voxels_are_background_and_infinite_ones_refused():
    neighbors = neighbors_of(np.ones((1, 1, 5), int))
    value = tfce_values(np.array([1.0, 1.0, np.nan, 1.0, 1.0]), neighbors)
    np.testing.assert_allclose(value[[0, 1, 3, 4]], 2**0.5 / 3)
    with pytest.raises(DesignError, match="infinite"):
        tfce_values(np.array([1, np.inf, 0, 0, 0]), neighbors)
    with pytest.raises(DesignError, match="6, 18 or 26"):
        neighbors_of(np.ones((2, 2, 2), int), 8)


def test_clusters_are_those_of_scipy():
    rng = np.random.default_rng(7)
    grid = rng.normal(size=(8, 9, 10)).round(1)  # some voxels are at the height itself
    found = find_clusters(grid.ravel(), 1.0, neighbors_of(np.ones(grid.shape, int)))
    expected = np.concatenate([np.bincount(label(s * grid >= 1)[0].ravel())[1:] for s in (1, -1)])
    extent, mass = cluster_sizes(grid.ravel(), found, 1.0)
    np.testing.assert_array_equal(extent, np.sort(expected)[::-1])
    assert mass.sum() == pytest.approx((np.abs(grid) - 1)[np.abs(grid) >= 1].sum())


def mrtrix(name):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data("statistics/mrtrix_clusterstats") / f"{name}.nii.gz")))


def mrtrix_model(prefix):
    folder = shared_data("statistics/mrtrix_clusterstats")
    t = mrtrix(f"{prefix}_tvalue")
    inside = t != 0
    y = mrtrix("input4d").reshape(16, -1)[:, inside.ravel()].astype(float)
    part = partition(np.loadtxt(folder / "design.txt"), np.loadtxt(folder / "contrast.txt")[None])
    return inside, y, part


@pytest.mark.shared_data
@pytest.mark.parametrize("prefix", ["default", "masked", "threshold"])
def test_mrtrix_effect_t_and_standardized_effect(prefix):
    inside, y, part = mrtrix_model(prefix)
    ours = fit(part, y)
    for name, values in (
        ("abs_effect", ours.effect),
        ("tvalue", ours.stat),
        ("std_effect", ours.size),
        ("std_dev", ours.effect / ours.size),
    ):
        np.testing.assert_allclose(values, mrtrix(f"{prefix}_{name}")[inside], rtol=1e-5, err_msg=name)


@pytest.mark.shared_data
@pytest.mark.parametrize("prefix", ["default", "masked"])
def test_mrtrix_z_and_tfce(prefix):
    # MRtrix3 enhances z (not t), one-sided, with steps of 0.1 that it does not multiply by.
    inside, y, part = mrtrix_model(prefix)
    z = stat_to_z(fit(part, y).stat, part.df)
    np.testing.assert_allclose(z, mrtrix(f"{prefix}_Zstat")[inside], rtol=1e-5)
    value = tfce_values(np.maximum(z, 0), neighbors_of(inside.astype(int)), TfceSettings(step=0.1, times_step=False))
    np.testing.assert_allclose(value, mrtrix(f"{prefix}_tfce")[inside], rtol=1e-5, atol=1e-5)


@pytest.mark.shared_data
def test_mrtrix_cluster_sizes():
    inside, y, part = mrtrix_model("threshold")
    found = find_clusters(np.maximum(fit(part, y).stat, 0), 3.0, neighbors_of(inside.astype(int)))
    sizes = np.concatenate([[0], np.bincount(found)[1:]])[found]
    np.testing.assert_array_equal(sizes, mrtrix("threshold_cluster_sizes")[inside])


@pytest.mark.shared_data
def test_mrtrix_fwe_p_within_monte_carlo_error():
    inside, y, part = mrtrix_model("default")
    n, m = int(inside.sum()), 1000
    scheme = make_scheme(16, m, 1)
    stratum = make_stratum(part, y, "t", columns=np.arange(n), rows=np.arange(16))
    neighbors = neighbors_of(inside.astype(int))
    settings = TfceSettings(step=0.1, times_step=False)
    null = map_null(
        [stratum],
        scheme,
        MapLayout(1, neighbors, [np.arange(n)]),
        settings=settings,
        height=None,
        alternative="greater",
        as_z=True,
    )
    z = stat_to_z(fit(part, y).stat, part.df)
    ours = fwe_p(tfce_values(np.maximum(z, 0), neighbors, settings), null.tfce[0])
    theirs = 1 - mrtrix("default_fwe_1mpvalue")[inside]
    error = np.sqrt(theirs * (1 - theirs) * (1 / m + 1 / 5000))
    assert np.all(np.abs(ours - theirs) <= 4 * error + 2 / m)
    assert (theirs < 0.01).sum() == (ours < 0.01).sum() > 100


@pytest.mark.parametrize("numba", COMPILED)
def test_cluster_maxima_are_those_of_the_clusters_of_each_level(numba, monkeypatch):
    rng = np.random.default_rng(8)
    labels = np.zeros((6, 12, 14), int)
    labels[1:4, 2:11, 1:8], labels[2:, 1:, 8:], labels[0, 0, 0] = 11, 12, 13
    neighbors, own = neighbors_of(labels), labels[labels > 0]
    if not numba:
        monkeypatch.setattr(clusters, "kernel_if_numba", lambda function: None)
    height = rng.uniform(0.4, 0.8, len(own))
    for spread in (1.0, 0.2):
        stat = rng.normal(0, spread, len(own))
        stat[rng.uniform(size=len(own)) < 0.1] = np.nan
        found = find_clusters(stat, height, neighbors)
        best = cluster_maxima(stat, height, neighbors, own - 11, 3)
        for number, label_ in enumerate((11, 12, 13)):
            inside = np.where(own == label_, found, 0)
            sizes = np.bincount(inside)[1:]
            mass = [(np.abs(stat) - height)[inside == c].sum() for c in range(1, len(sizes) + 1)]
            np.testing.assert_allclose(best[:, number], [max(sizes, default=0), max(mass, default=0)], rtol=1e-12)


def test_where_f_is_given_as_z_no_effect_is_background():
    """The z of F is far below 0 where F is near 0: that is not the other side of an effect."""
    z = np.array([3.5, 3.2, -4.0, -4.0, -4.0, np.nan, 0.2])
    np.testing.assert_array_equal(one_side(z, "two-sided", "F"), [3.5, 3.2, 0, 0, 0, np.nan, 0.2])
    np.testing.assert_array_equal(one_side(z, "less", "t"), [0, 0, -4, -4, -4, np.nan, 0])
    np.testing.assert_array_equal(one_side(z, "two-sided", "t"), z)
    rng = np.random.default_rng(3)
    y, rows, columns = rng.normal(size=(20, 30)), np.arange(20), np.arange(30)
    part = partition(np.column_stack([np.ones(20), rng.normal(size=20)]), [0, 1])
    layout = MapLayout(1, neighbors_of(np.ones((1, 5, 6), int)), [columns])
    strata, scheme = [make_stratum(part, y, "F", columns=columns, rows=rows)], make_scheme(20, 50, 1)
    null = map_null(strata, scheme, layout, settings=TfceSettings(), height=np.full(30, 1.0), as_z=True)
    maps = statistic_maps(strata, scheme, columns, np.empty((50, 30)), as_z=True)
    sizes = [[cluster_sizes(m, find_clusters(m, 1.0, layout.neighbors), 1.0)[0].max(initial=0)
              for m in (z, np.maximum(z, 0))] for z in maps]
    np.testing.assert_array_equal(null.extent[0], np.array(sizes)[:, 1])
    assert np.any(np.diff(sizes, axis=1) < 0)  # there are larger ones of no effect
    np.testing.assert_allclose(null.tfce[0], [tfce_values(np.maximum(z, 0), layout.neighbors).max() for z in maps])


@pytest.mark.parametrize("kind", ["t", "F"])
def test_voxels_that_are_not_tested_are_background(kind):
    """The layout of the tested voxels gives what maps with NaN elsewhere give, map by map and level by level."""
    rng = np.random.default_rng(5)
    labels = np.zeros((4, 9, 8), int)
    labels[:3, 1:8, :4], labels[1:, :, 5:] = 11, 13
    neighbors, own = neighbors_of(labels), labels[labels > 0]
    v, level = len(own), (11, 13)
    tested = rng.uniform(size=2 * v) < 0.6
    tested[v:][own == 11] = False  # nothing of one level in one map
    y = ndimage.gaussian_filter1d(rng.normal(size=(16, 2 * v)), 1.5, axis=1)
    part = partition(np.column_stack([np.ones(16), rng.normal(size=16)]), [0, 1])
    columns = rng.permutation(np.flatnonzero(tested))
    strata = [make_stratum(part, y[:, some], kind, columns=some, rows=np.arange(16)) for some in
              (columns[:50], np.sort(columns[50:]))]
    scheme, height = make_scheme(16, 20, 1), rng.uniform(0.5, 1.5, 2 * v)
    layout = MapLayout(2, neighbors, [np.flatnonzero(own == value) for value in level], tested)
    null = map_null(strata, scheme, layout, settings=TfceSettings(), height=height)
    maps = np.full((20, 2 * v), np.nan)
    statistic_maps(strata, scheme, np.arange(2 * v), maps)
    for b, flat in enumerate(maps):
        for m in range(2):
            stat, over = flat[m * v:(m + 1) * v], height[m * v:(m + 1) * v]
            enhanced = np.abs(tfce_values(np.sqrt(stat) if kind == "F" else stat, neighbors))
            extent = cluster_maxima(stat, over, neighbors, np.searchsorted(level, own), 2)
            for k, value in enumerate(level):
                inside = (own == value) & ~np.isnan(stat)
                assert null.tfce[2 * m + k, b] == pytest.approx(enhanced[inside].max(initial=0), rel=1e-12)
                assert [null.extent[2 * m + k, b], null.mass[2 * m + k, b]] == pytest.approx(extent[:, k].tolist())
    assert (null.extent > 0).any() and not null.tfce[2].any()


@pytest.mark.parametrize("numba", COMPILED)
@pytest.mark.parametrize("kind", ["t", "F"])
def test_normal_deviates_by_column(kind, numba, monkeypatch):
    """Columns of other degrees of freedom, some without any, are those of each alone; few and many of them."""
    if not numba:
        monkeypatch.setattr(deviates, "kernel_if_numba", lambda function: None)
    rng = np.random.default_rng(2)
    for size in (5, 2 * deviates.MOST):
        df = rng.permutation(np.append(np.arange(3.0, 3 + size), [np.nan, 3.0]))
        stat = rng.normal(0, 6, (300, len(df)))
        stat[0, 0], stat[1, 1] = np.nan, 40.0
        stat = stat if kind == "t" else np.exp(stat)
        found = stat_to_z(stat, df, kind, 2)
        assert np.isnan(found[:, np.isnan(df)]).all() and np.isnan(found[0, 0])
        for column in np.flatnonzero(np.isfinite(df)):
            np.testing.assert_array_equal(found[:, column], stat_to_z(stat[:, column], df[column], kind, 2))


@pytest.mark.parametrize("df", [1, 2, 5, 28, 400, 3000])
def test_normal_deviates_by_table_are_those_of_scipy(df):
    rng = np.random.default_rng(df)
    t = np.concatenate([rng.uniform(-17, 17, 20_000), [0.0, -0.0, 16.0, np.nan, 100.0]])
    p = stats.t.sf(np.abs(t), df)
    near = ~(p < 1e-290)
    np.testing.assert_allclose(stat_to_z(t, df)[near], np.copysign(stats.norm.isf(p), t)[near], atol=2e-10)
    for r in (1, 2, 6):
        f = np.exp(rng.uniform(-13, 11, 10_000))
        upper, lower = stats.f.sf(f, r, df), stats.f.cdf(f, r, df)
        expected = np.where(upper < lower, stats.norm.isf(upper), stats.norm.ppf(lower))
        near = np.minimum(upper, lower) > 1e-290
        np.testing.assert_allclose(stat_to_z(f, df, "F", r)[near], expected[near], atol=2e-10)
    mixed = stat_to_z(np.array([2.0, np.nan, 2.0]), np.array([df, np.nan, 7.0]))
    np.testing.assert_allclose(mixed, [*stat_to_z([2.0], df), np.nan, *stat_to_z([2.0], 7)])
