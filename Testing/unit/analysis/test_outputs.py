"""Group maps, z scores and plot numbers without Slicer: definitions and bad input."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress
from support.analyses import analyze

from DiscRelaxometryLib.errors import DesignError, GeometryError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.analysis.plots_data import plot_data
from DiscStatsLib.analysis.save import _design_tables
from DiscStatsLib.analysis.zscore import group_maps, group_moments, reference_group, z_score

GEOMETRY = Geometry((4, 3, 2))


def maps(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return [Image(rng.normal(100, 10, GEOMETRY.shape), GEOMETRY) for _ in range(n)]


def test_reference_leaves_missing_values_out():
    images = maps()
    images[0].array[0, 0, 0] = np.nan
    images[1].array[1, 1, 1] = np.nan
    reference = reference_group(iter(images))  # one at a time
    stack = np.array([i.array for i in images])
    np.testing.assert_allclose(reference.mean.array, np.nanmean(stack, axis=0), rtol=1e-12)
    np.testing.assert_allclose(reference.sd.array, np.nanstd(stack, axis=0, ddof=1), rtol=1e-10)
    assert reference.n.array[0, 0, 0] == 11 and reference.n.array[0, 0, 1] == 12


def test_moments_of_one_map_and_of_voxels_with_one_value():
    images = maps(2)
    images[0].array[0, 0, 0] = np.nan
    found = group_moments(iter(images))
    assert found.mean[0, 0, 0] == images[1].array[0, 0, 0] and np.isnan(found.sd[0, 0, 0]) and found.n[0, 0, 0] == 1
    one = group_moments(iter(images[1:]))
    np.testing.assert_array_equal(one.mean, images[1].array)
    assert one.maps == 1 and np.isnan(one.sd).all()


def test_sd_of_large_values_does_not_cancel():
    images = [Image(i.array + 1e9, GEOMETRY) for i in maps()]
    expected = np.std([i.array - 1e9 for i in images], axis=0, ddof=1)
    np.testing.assert_allclose(reference_group(images).sd.array, expected, rtol=1e-6)


def test_z_of_a_member_of_the_population_is_calibrated():
    # 5 % of people from the same population fall under p = .05 whatever the size of the reference.
    shares = []
    for seed in range(60):
        images = maps(8, seed)
        shares.append(np.mean(z_score(images[0], reference_group(images[1:])).p.array <= 0.05))
    assert 0.03 < np.mean(shares) < 0.07


def test_p_of_one_person_is_that_of_a_regression_with_a_column_for_that_person():
    """Crawford & Howell's test is the t of an indicator of the person beside the reference group."""
    person, *others = maps(6)
    found = z_score(person, reference_group(others))
    values = np.array([i.array[1, 2, 3] for i in (person, *others)])
    assert found.p.array[1, 2, 3] == pytest.approx(linregress([1, 0, 0, 0, 0, 0], values).pvalue, rel=1e-6)
    assert found.z.array[1, 2, 3] == pytest.approx((values[0] - values[1:].mean()) / values[1:].std(ddof=1))


def test_a_voxel_needs_as_many_values_as_are_asked_for():
    images = maps(4)
    for n, image in enumerate(images):
        image.array[0, 0, :n] = np.nan
    assert np.isfinite(reference_group(images).mean.array[0, 0]).tolist() == [False, True, True, True]
    assert np.isfinite(reference_group(images, 3).mean.array[0, 0]).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "run, error, words",
    [
        (lambda: reference_group(maps(1)), DesignError, "at least 2 maps"),
        (lambda: reference_group([*maps(2), Image(np.zeros((1, 1, 1)), Geometry((1, 1, 1)))]), GeometryError, "map 3"),
        (
            lambda: z_score(Image(np.zeros((1, 1, 1)), Geometry((1, 1, 1))), reference_group(maps())),
            GeometryError,
            "grids",
        ),
        (
            lambda: z_score(Image(np.full(GEOMETRY.shape, np.nan), GEOMETRY), reference_group(maps())),
            DesignError,
            "in common",
        ),
        (lambda: group_maps(maps(), ["a"]), DesignError, "1 group names for 12 maps"),
    ],
)
def test_bad_input(run, error, words):
    with pytest.raises(error, match=words):
        run()


@pytest.fixture
def result():
    images = maps(12)
    table = pd.DataFrame(
        {"participant_id": [f"s{i}" for i in range(12)], "age": np.linspace(20, 75, 12), "site": list("abc") * 4}
    )
    labels = Image(np.full(GEOMETRY.shape, 11, np.uint8), GEOMETRY)
    return analyze(images, labels, table, "T2 ~ age + C(site)", n_permutations=19)


def test_adjusted_values_give_the_models_effect(result):
    data = plot_data(result, contrast="age", voxel=(1, 2, 0))
    slope = np.polyfit(data.x, data.adjusted, 1)[0]
    # The adjusted values keep the fitted effect of age; the other columns' share is taken out.
    fitted = result.maps["T2_age_effect"].array[0, 2, 1]
    assert (data.line[1, 1] - data.line[0, 1]) / (data.line[1, 0] - data.line[0, 0]) == pytest.approx(fitted, rel=1e-5)
    assert slope == pytest.approx(fitted, abs=0.15)
    assert data.kind == "scatter" and len(data.ids) == 12 and data.y_title == "T2"


def test_adjusted_values_are_without_a_correlated_covariate():
    """Without noise, what is left of the map is the tested variable's share, on a line of its own slope."""
    rng = np.random.default_rng(4)
    age = rng.uniform(20, 75, 30)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(30)], "age": age, "sex": list("MF") * 15,
                          "weight": 40 + 0.5 * age + rng.normal(0, 5, 30)})
    noise = 1e-3 * rng.normal(size=(30, 24))
    y = 50 + 2 * table.age.to_numpy() - 3 * table.weight.to_numpy() + 7 * (table.sex == "M").to_numpy()
    result = analyze(y[:, None] + noise, Image(np.full(GEOMETRY.shape, 11, np.uint8), GEOMETRY), table,
                     "T2 ~ age + weight + C(sex)", "age", correction=())
    data = plot_data(result, contrast="age", voxel=(1, 2, 0))
    np.testing.assert_allclose(data.x, age)
    expected = 50 + 2 * age - 3 * table.weight.mean() + 7 * 0.5
    np.testing.assert_allclose(data.adjusted, expected, atol=0.05)
    np.testing.assert_allclose(data.y, y, atol=0.01)
    np.testing.assert_allclose(data.line[:, 1], np.interp(data.line[:, 0], np.sort(age), np.sort(expected)), atol=0.05)


def test_groups_are_boxes(result):
    data = plot_data(result, contrast="site", level=11)
    assert data.kind == "box" and data.groups == ["reference", "b", "c"]
    assert data.quartiles().shape == (3, 5) and np.all(np.diff(data.quartiles(), axis=1) >= 0)
    assert "F = " in data.text and "n = 12" in data.text


@pytest.mark.parametrize("offset", [-0.4, 0.4])
def test_a_position_is_that_of_the_nearest_voxel(result, offset):
    lps = GEOMETRY.index_to_world(np.array([1, 1, 0]) + [offset, -offset, offset])
    np.testing.assert_array_equal(plot_data(result, position=lps).y, plot_data(result, voxel=(1, 1, 0)).y)


def test_a_region_is_read_at_the_level_that_holds_most_of_it():
    """And the table of the design has each person's own row, whatever the order of the table."""
    images, labels, regions = maps(9), np.full(GEOMETRY.shape, 12, np.uint8), np.zeros(GEOMETRY.shape, np.uint8)
    labels[0], regions[0, 0, 0], regions[1, 1:] = 11, 1, 1
    people = [f"sub-{n}" for n in (10, 2, 7, 1, 30, 4, 8, 3, 5)]
    table = pd.DataFrame({"participant_id": people, "age": np.arange(9.0) ** 2})
    result = analyze(images, Image(labels, GEOMETRY), table, "T2 ~ age", regions=Image(regions, GEOMETRY),
                     correction=())
    data = plot_data(result, region=1)
    assert "L4-L5" in data.title
    assert dict(zip(data.ids, data.y)) == pytest.approx({p: i.array[1, 1:].mean() for p, i in zip(people, images)})
    (name, design), = _design_tables(result)
    assert name == "design.tsv"
    assert {r["participant_id"]: r["age"] for r in design.rows} == dict(zip(people, table.age))


@pytest.mark.parametrize(
    "place, words",
    [
        ({"voxel": (9, 9, 9)}, "no analyzed voxel"),
        ({"cluster": 77}, "no analyzed voxel"),
        ({"region": 1}, "without a region image"),
        ({"contrast": "sex"}, "no contrast 'sex'"),
        ({"quantity": "T1rho"}, "'T1rho' was not analyzed"),
    ],
)
def test_places_that_do_not_exist(result, place, words):
    with pytest.raises(DesignError, match=words):
        plot_data(result, **place)
