"""Voxels that lack some observations: the statistics of each are those of its own people, rearranged by themselves."""

import numpy as np
import pandas as pd
import pytest
from support.analyses import analyze

from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.permutation import missing
from DiscStatsLib.permutation.deviates import stat_to_z
from DiscStatsLib.permutation.glm import fit, partition, residuals
from DiscStatsLib.permutation.schemes import make_scheme

N, V = 26, 60
GRID = Image(np.full((1, 6, 10), 11, np.uint8), Geometry((10, 6, 1)))
FORMULA = "map ~ grade + age + C(sex)"


def cohort(seed=0, share=0.15):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(N)], "grade": rng.integers(1, 6, N),
                          "age": rng.uniform(20, 80, N), "sex": list("MF") * 13, "scan": np.arange(N) // 2})
    y = rng.normal(80, 5, (N, V)) + 2 * table.grade.to_numpy()[:, None]
    y[rng.uniform(size=y.shape) < share] = np.nan
    y[:, :4] = rng.normal(80, 5, (N, 4))  # some have everyone
    return table, y


def slow_null(table, y, scheme, weights, kind, robust=False, ranks=False, blocks=None):
    """Statistic of each rearrangement, (m, v): each voxel's people alone, their residuals rearranged and refitted.

    Within blocks, each block among them has an intercept of its own.
    """
    from scipy.stats import rankdata

    out = np.empty((len(scheme), V))
    for v in range(V):
        rows = np.flatnonzero(np.isfinite(y[:, v]))
        own, values = table.iloc[rows], y[rows, v][:, None]
        columns = [own.grade, own.age]
        if ranks:
            columns, values = [rankdata(c) for c in columns], rankdata(values, axis=0)
        matrix, tested = np.column_stack([np.ones(len(rows)), own.sex == "M", *columns]), weights
        if blocks is not None:
            matrix = np.column_stack([matrix[:, 1:], blocks[rows][:, None] == np.unique(blocks[rows])])
            tested = [*weights[1:], *np.zeros(matrix.shape[1] - 3)]
        part = partition(matrix, tested)
        rest = residuals(part.qz, values)
        order, sign = scheme.restrict(rows)
        for b in range(len(scheme)):
            moved = rest[order[b]] if sign is None else rest[order[b]] * sign[b][:, None]
            out[b, v] = stat_to_z(fit(part, moved, kind, robust=robust).stat[0], part.df, kind, part.r)
    return out


CASES = {
    "t": ({}, [0, 0, 1, 0], "t"), "F": ({}, [[0, 0, 1, 0], [0, 1, 0, 0]], "F"),
    "flipped": ({"errors": "symmetric"}, [0, 0, 1, 0], "t"), "hc3": ({"standard_errors": "hc3"}, [0, 0, 1, 0], "t"),
    "hc3 flipped F": ({"standard_errors": "hc3", "errors": "symmetric"}, [[0, 0, 1, 0], [0, 0, 0, 1]], "F"),
    "ranks": ({"ranks": True}, [0, 0, 1, 0], "t"),
    "within": ({"blocks": "scan", "exchange": "within"}, [0, 0, 1, 0], "t")}


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("case", list(CASES))
def test_maxima_and_counts_are_those_of_each_voxels_own_people(case, numba, monkeypatch):
    if not numba:
        monkeypatch.setattr(missing, "kernel_if_numba", lambda function: None)
    elif missing.kernel_if_numba(missing._shares) is None:
        pytest.skip("numba is not installed")
    settings, weights, kind = CASES[case]
    table, y = cohort()
    settings = {"errors": "exchangeable"} | settings
    result = analyze(y, GRID, table, FORMULA, {"tested": (kind, np.atleast_2d(weights))},
                     missing="available", correction="fwe", n_permutations=70, seed=3, **settings)
    flip = settings["errors"] == "symmetric"
    blocks = np.unique(table.scan.astype(str), return_inverse=True)[1] if "blocks" in settings else None
    scheme = make_scheme(N, 70, 3, flip=flip, blocks=blocks)
    slow = slow_null(table, y, scheme, weights, kind, "standard_errors" in settings, "ranks" in settings, blocks)
    size = np.abs(slow) if kind == "t" else slow
    np.testing.assert_allclose(result.null["tested_max"], size.max(axis=1), rtol=1e-9)
    stat = stat_to_z(result.maps[f"map_tested_{kind}"].array.ravel(), result.maps["map_tested_df"].array.ravel(), kind,
                     len(np.atleast_2d(weights)))
    stat = np.abs(stat) if kind == "t" else stat
    count = result.maps["map_tested_pperm"].array.ravel() * 71 - 1
    assert np.all(np.abs(count - (size >= stat - 1e-5).sum(axis=0)) <= 1.01)
    assert np.mean(np.abs(count - (size >= stat - 1e-5).sum(axis=0)) < 0.01) > 0.95


def test_covariate_maps_with_holes_are_fitted_and_permuted_voxel_by_voxel():
    table, y = cohort()
    x = np.random.default_rng(4).normal(size=y.shape)
    x[3, 20:30] = np.nan
    result = analyze(y, GRID, table, "map ~ grade + x", "x", voxel_covariates={"x": x}, missing="available",
                     correction="fwe", n_permutations=40, seed=2, errors="exchangeable")
    scheme, best = make_scheme(N, 40, 2), np.zeros(40)
    for v in range(V):
        rows = np.flatnonzero(np.isfinite(y[:, v]) & np.isfinite(x[:, v]))
        part = partition(np.column_stack([np.ones(len(rows)), table.grade[rows], x[rows, v]]), [0, 0, 1])
        rest = residuals(part.qz, y[rows, v][:, None])
        t = [fit(part, rest[order]).stat[0] for order in scheme.restrict(rows)[0]]
        best = np.maximum(best, np.abs(stat_to_z(t, part.df)))
    np.testing.assert_allclose(result.null["x_max"], best, rtol=1e-9)


def test_designs_that_are_nearly_collinear_among_those_present_are_fitted_by_qr():
    """`age` and `weight` differ in one person and by 1e-5 in the others: without that person QR is needed."""
    rng = np.random.default_rng(5)
    table, y = cohort(share=0.0)
    table["weight"] = table.age + 1e-5 * rng.normal(size=N)
    table.loc[4, "weight"] += 30
    y[4, 10:20] = np.nan
    result = analyze(y, GRID, table, "map ~ age + weight", "age", missing="available", correction="fwe", seed=1,
                     n_permutations=30, errors="exchangeable")
    rows = np.delete(np.arange(N), 4)
    part = partition(np.column_stack([np.ones(N), table.age, table.weight])[rows], [0, 1, 0])
    t = fit(part, y[rows, 10:20]).stat
    np.testing.assert_allclose(result.maps["map_age_t"].array.ravel()[10:20], t, rtol=1e-5)
    assert np.isfinite(result.null["age_max"]).all()


def test_both_order_and_signs_follow_the_cycles():
    rng = np.random.default_rng(6)
    table, y = cohort()
    rows = np.isfinite(y[:, 20])
    present = rows[None]
    order = rng.permuted(np.tile(np.arange(N, dtype=np.int32), (9, 1)), axis=1)
    sign = rng.choice([-1.0, 1.0], (9, N))
    e, q = np.where(rows, rng.normal(size=N), 0.0)[:, None], np.where(rows[:, None], rng.normal(size=(N, 2)), 0.0)
    found, _ = missing.voxelwise_products(q[None], e, present, order, sign)
    for b in range(9):
        moved = missing.rearranged(e, present, order[b], sign[b])
        np.testing.assert_allclose(found[:, b, 0], (q.T @ moved)[:, 0], atol=1e-12)
        for place in np.flatnonzero(rows):
            who = order[b, place]
            while not rows[who]:
                who = order[b, who]
            assert moved[place, 0] == pytest.approx(sign[b, place] * e[who, 0])
    group = missing.alike_voxels(e, missing.Presence(present, np.eye(2)[None]))
    shares = missing.shares(q, group, 1, order, sign, True)
    np.testing.assert_allclose(shares[:, 0], np.copysign(found[1, :, 0] ** 2, found[1, :, 0]) / np.maximum(
        1 - found[0, :, 0] ** 2, 1e-14))


@pytest.mark.parametrize("how", ["permuted", "flipped", "both"])
@pytest.mark.parametrize("reference", ["everyone", "nobody", "half", "one"])
def test_no_result_depends_on_the_reference_of_voxels_that_are_alike(how, reference):
    """Of each voxel's own rearranged data, also where whole cycles are absent from the reference or from the voxel."""
    rng = np.random.default_rng(7)
    present = rng.uniform(size=(20, N)) < np.linspace(0.15, 1, 20)[:, None]
    present[:, :3] = True
    order = rng.permuted(np.tile(np.arange(N, dtype=np.int32), (40, 1)), axis=1)
    if how == "flipped":
        order[:] = np.arange(N)
    sign = None if how == "permuted" else rng.choice([-1.0, 1.0], order.shape)
    e, q = np.where(present.T, rng.normal(size=(N, 20)) / N, 0.0), rng.normal(size=(N, 3)) / N
    chosen = {"everyone": np.ones(N, bool), "nobody": np.zeros(N, bool), "half": np.arange(N) % 2 == 0,
              "one": np.arange(N) == 9}[reference]
    turn = rng.normal(size=(20, 3, 2))
    group = missing._alike(np.ascontiguousarray(e.T), np.arange(20), missing.Presence(present, turn), chosen)
    found = missing.shares(q, [group], 1, order, sign, True)
    for b in range(len(order)):
        moved = missing.rearranged(e, present, order[b], None if sign is None else sign[b])
        along = np.einsum("vcp,mc,mv->vp", turn, q, moved)
        np.testing.assert_allclose(found[b], np.sign(along[:, 1]) * along[:, 1] ** 2 / (1 - along[:, 0] ** 2))


def test_voxels_with_nearly_the_same_people_share_a_reference():
    rng = np.random.default_rng(8)
    people = np.sort(rng.integers(0, 40, 300))  # each has the slices from a number of their own
    slices = np.repeat(np.arange(5, 40), 30)
    present = slices[:, None] >= people
    present ^= rng.uniform(size=present.shape) < 0.002
    groups = missing.alike_voxels(rng.normal(size=present.T.shape), missing.Presence(present, np.zeros((1050, 2, 2))))
    assert sorted(np.concatenate([g.voxels for g in groups])) == list(range(1050)) and 5 < len(groups) < 36
    assert 0 < sum(len(g.differ) for g in groups) < 0.1 * np.sum(~present)
    for g in groups:
        who = [np.flatnonzero(row) for row in present[g.voxels] != g.reference]
        np.testing.assert_array_equal(np.concatenate(who), g.strays[g.differ])
        np.testing.assert_array_equal(np.cumsum([0, *map(len, who)]), g.first)
