"""Power by simulation against the noncentral t of one voxel, its limits, and what it refuses."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image
from DiscStatsLib.analysis import Planted, analyze, design_power, place_of, power
from DiscStatsLib.analysis.power import _drawn, _residuals, _units
from DiscStatsLib.settings import AnalysisSettings

N = 30


def cohort(voxels, missing=0.0):
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"participant_id": [f"sub-{i:02}" for i in range(N)], "grade": rng.integers(1, 6, N),
                          "age": rng.uniform(20, 80, N)})
    y = 80 + 3 * rng.normal(size=(N, voxels)) - 5 * table.grade.to_numpy()[:, None]
    y[rng.uniform(size=y.shape) < missing] = np.nan
    labels = Image(np.full((1, 1, voxels), 11, np.uint8), Geometry((voxels, 1, 1)))
    return table, y, labels


def planted(effect, labels, at=0):
    place = np.zeros(labels.array.shape, np.uint8)
    place[0, 0, at] = 1
    return Planted(effect, labels.like(place))


@pytest.mark.parametrize("effect", [0.7, pytest.param(1.2, marks=pytest.mark.slow)])
def test_power_of_one_voxel_is_that_of_the_noncentral_t(effect):
    table, y, labels = cohort(1)
    found = design_power(y, labels, table, "map ~ grade + age", "grade", planted(effect, labels), sets=150).rows[0]
    x = np.column_stack([np.ones(N), table.grade, table.age])
    sigma = np.sqrt(np.linalg.lstsq(x, y[:, 0], rcond=None)[1][0] / (N - 3))
    center = effect / (sigma * np.sqrt(np.linalg.inv(x.T @ x)[1, 1]))
    t = stats.t.ppf(0.975, N - 3)
    expected = stats.nct.sf(t, N - 3, center) + stats.nct.cdf(-t, N - 3, center)
    assert found["low"] - 0.03 <= expected <= found["high"] + 0.03 and 0.1 < expected < 0.95
    assert found["sets"] == 150 and found["people"] == N and found["outside"] == 0


def test_more_people_find_more_and_no_effect_finds_the_error_rate():
    table, y, labels = cohort(12, missing=0.05)
    table.loc[3, "age"], y[12:, 11] = np.nan, np.nan
    found = design_power(y, labels, table, "nT2w ~ grade + age", "grade", planted(0.9, labels, 5), sets=40,
                         sizes=(20, 60))
    rows = found.rows
    assert any("sub-03" in note for note in found.notes)
    assert any("voxels of 'nT2w' at" in note for note in found.notes)
    assert rows[1]["power"] > rows[0]["power"] + 0.2 and [r["people"] for r in rows] == [20, 60]
    null = design_power(y, labels, table, "map ~ grade + age", "grade", planted(0.0, labels, slice(0, 12)), sets=80,
                        settings=AnalysisSettings(n_permutations=99)).rows[0]
    assert null["power"] <= stats.binom.ppf(0.999, 80, 0.05) / 80


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_noise_is_of_the_residuals_at_equal_spread(missing):
    """Each over the root of what a fit leaves of it, with the people of the voxel alone."""
    table, y, labels = cohort(5, missing)
    settings = AnalysisSettings(correction=())
    noise = _residuals(analyze(y, labels, table, "map ~ grade + age", "grade", settings), settings, "")
    x = np.column_stack([np.ones(N), table.grade, table.age])
    for voxel in range(5):
        own = np.isfinite(y[:, voxel])
        hat = x[own] @ np.linalg.pinv(x[own])
        rest = y[own, voxel] - hat @ y[own, voxel]
        np.testing.assert_allclose(noise[own, voxel], rest / np.sqrt(1 - np.diag(hat)), rtol=1e-8)
        assert np.isnan(noise[~own, voxel]).all()


def test_a_place_is_a_region_of_some_levels():
    labels = Image(np.array([[[11, 11, 12, 12, 0]]], np.uint8), Geometry((5, 1, 1)))
    regions = labels.like(np.array([[[1, 2, 1, 2, 0]]], np.uint8))
    assert place_of(labels, regions, ["L5-S1"], 2).array.ravel().tolist() == [0, 1, 0, 0, 0]
    assert place_of(labels, regions, ["L5-S1", "L4-L5"], None).array.ravel().tolist() == [1, 1, 1, 1, 0]


def test_what_cannot_be_simulated_is_one_sentence():
    table, y, labels = cohort(4)
    some = planted(1.0, labels)
    for change, words in (({"contrast": {"both": [[0, 1, 0], [0, 0, 1]]}}, "one t contrast"),
                          ({"maps": {"T2": y, "T1rho": y}}, "one map"), ({"sizes": (20.5,)}, "whole numbers"),
                          ({"sizes": (4,)}, "at least 10"),
                          ({"planted": Planted(1.0, labels.like(np.zeros_like(labels.array)))}, "no voxel")):
        options = {"maps": y, "contrast": "grade", "planted": some} | change
        maps, contrast, plant = (options.pop(k) for k in ("maps", "contrast", "planted"))
        with pytest.raises(DesignError, match=words):
            design_power(maps, labels, table, "map ~ grade + age", contrast, plant, sets=2, **options)
    with pytest.raises(DesignError, match="at least 10"):
        design_power(y[:8], labels, table[:8], "map ~ grade", "grade", some, sets=2)


def repeated(rng, people=16, lost=2):
    """Two visits of each person, the second of `lost` missing, with a person's effect of twice the noise's SD."""
    table = pd.DataFrame({"participant_id": [f"sub-{i:02}_ses-{s}" for i in range(people) for s in (1, 2)],
                          "participant": [f"sub-{i:02}" for i in range(people) for _ in (1, 2)],
                          "session": ["ses-1", "ses-2"] * people, "treated": np.repeat(np.arange(people) % 2, 2)})
    y = rng.normal(size=(2 * people, 1)) + 2 * np.repeat(rng.normal(size=(people, 1)), 2, axis=0) + 50
    kept = np.setdiff1d(np.arange(2 * people), 1 + 2 * np.arange(lost))
    labels = Image(np.full((1, 1, 1), 11, np.uint8), Geometry((1, 1, 1)))
    return table.iloc[kept].reset_index(drop=True), y[kept], labels


@pytest.mark.parametrize("formula, term, effect", [("map ~ C(session)", "session", 1.0),
                                                   ("map ~ C(session) + treated", "treated", 3.2)])
def test_power_of_visits_keeps_what_visits_of_a_person_share(formula, term, effect):
    """Paired: the noncentral t of the differences. Between people: that of the means of their visits."""
    table, y, labels = repeated(np.random.default_rng(12))
    found = design_power(y, labels, table, formula, term, planted(effect, labels), blocks="participant",
                         settings=AnalysisSettings(n_permutations=99, errors="exchangeable"), sets=100).rows[0]
    wide = pd.DataFrame({"y": y[:, 0]}).assign(who=table.participant, when=table.session).pivot(
        index="who", columns="when", values="y").dropna()
    n = len(wide)
    if term == "session":
        center, df = effect / ((wide["ses-2"] - wide["ses-1"]).std() / np.sqrt(n)), n - 1
    else:
        means, group = wide.mean(axis=1).to_numpy(), np.arange(16)[2:] % 2
        inside = [means[group == g] for g in (0, 1)]
        sd = np.sqrt(sum(((m - m.mean()) ** 2).sum() for m in inside) / (n - 2))
        center, df = effect / (sd * np.sqrt(sum(1 / len(m) for m in inside))), n - 2
    t = stats.t.ppf(0.975, df)
    expected = stats.nct.sf(t, df, center) + stats.nct.cdf(-t, df, center)
    assert found["people"] == 16 and 0.3 < expected < 0.97
    assert found["low"] - 0.08 <= expected <= found["high"] + 0.08


def test_noise_goes_to_the_same_visit_of_a_participant_who_has_no_others():
    table, _, _ = repeated(np.random.default_rng(1), people=12, lost=4)
    units = _units(table, "participant")
    what, who = table.session.to_numpy(), table.participant.to_numpy()
    assert [len(u) for u in units] == [1] * 4 + [2] * 8
    for size in (12, 30):
        people, donors = _drawn(units, size, np.random.default_rng(2))
        rows = np.concatenate(people)
        assert len(people) == size and (what[donors] == what[rows]).all() and len(set(who[donors])) > 5
        for unit in np.split(donors, np.cumsum([len(p) for p in people])[:-1]):
            assert len(set(who[unit])) == 1
    assert _units(table, "") == [{"": k} for k in range(len(table))]


def test_what_a_set_found_in_the_place_and_outside_is_counted_apart(monkeypatch):
    """Four sets with known p of six voxels, the place is the first two: 3 of 4 found, half or all of it, 1 outside."""
    table, y, labels = cohort(6)
    fwe = [[.01, .9, .9, .9, .9, .9], [.05, .02, .9, .9, .9, .9], [.01, .01, .9, .9, .9, .03], [.06] + 5 * [np.nan]]
    tfce = [[.01] + 5 * [.9]] + 3 * [6 * [.9]]
    first = analyze(y, labels, table, "map ~ grade", "grade", AnalysisSettings(correction=()))
    sets = iter(zip(fwe, tfce))

    def found(*given, **options):
        if not given[5].correction:
            return first
        return SimpleNamespace(maps={f"map_tested_{k}": labels.like(np.array(p, np.float32).reshape(labels.array.shape))
                                     for k, p in zip(("pfwe", "ptfce"), next(sets))})

    monkeypatch.setattr(power, "analyze", found)
    row, = design_power(y, labels, table, "map ~ grade", "grade", planted(1.0, labels, slice(0, 2)), sets=4).rows
    limits = stats.beta.ppf([.025, .975], [3, 4], [2, 1])  # Clopper-Pearson of 3 in 4
    assert {k: row[k] for k in ("power", "power_tfce", "found", "outside")} == {
        "power": 0.75, "power_tfce": 0.25, "found": (0.5 + 1 + 1 + 0) / 4, "outside": 0.25}
    assert [row["low"], row["high"]] == pytest.approx(limits)
