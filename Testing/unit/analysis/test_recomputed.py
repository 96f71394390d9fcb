"""What an analysis writes, recomputed by other means: from its null distribution, or by a slow refit."""

import numpy as np
import pandas as pd

from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.analysis.analyze import analyze
from DiscStatsLib.permutation.glm import fit, partition, residuals, stat_to_z
from DiscStatsLib.permutation.schemes import make_scheme

SHAPE = (3, 8, 10)


def atlas():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :3, 1:9], labels[:, 5:, 1:9] = 11, 12
    return Image(labels, Geometry((10, 8, 3), (1, 1.5, 2), (5, -7, 20), (0, 1, 0, -1, 0, 0, 0, 0, 1)))


def people(n=20):
    rng = np.random.default_rng(1)
    return pd.DataFrame({"participant_id": [f"s{i}" for i in rng.permutation(n)], "age": rng.uniform(20, 80, n),
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


def test_error_rate_of_a_one_sex_cell_without_intercept():
    """300 null cohorts (0.067 where the strata were built for permutation)."""
    from scipy.stats import binom

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
    assert binom.ppf(0.0005, 300, 0.05) <= hits <= 16


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
