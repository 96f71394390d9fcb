"""A study whose levels are analyzed as one disc: settings, validation, maps in both spaces, and the report's words."""

import json

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study
from support.recorder import Recorder
from support.study_results import output

import DiscStatsLib.analysis
from DiscAtlasLib import load_atlas, load_pooled
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscStudyLib import Study, make_settings, plan_study, run_study, validate
from DiscStudyLib.after import atlas_of, study_power
from DiscStudyLib.report.figures_maps import atlas_figure as figure

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
PAIR = ("L4-L5", "L5-S1")
SETTINGS = {"levels": "pooled,L4-L5,L5-S1", "permutations": 100, "maps": ("T1rho",), "align": "off"}


#: Of L5-S1 and L4-L5; nobody has L3-L4.
GRADES = [(own, 1 + n % 3, 0) for n, own in enumerate((1, 2, 3, 4, 5, 2, 3), 1)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_spine_study(tmp_path_factory.mktemp("pooled"), GRADES, ["T1rho"], moved=False)


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "pfirrmann + age", **SETTINGS)


def record(study, name="main"):
    return json.loads((output(study, "group") / "prov" / f"step-analysis-{name}_prov.json").read_text(encoding="utf-8"))


def test_pooled_stands_among_the_levels():
    chosen = make_settings(**SETTINGS)
    assert chosen.pooled and chosen.levels == PAIR
    assert make_settings(levels="pooled").levels == LUMBAR_LEVELS
    assert make_settings(**chosen.to_dict()) == chosen
    assert not make_settings(levels="L4-L5").pooled


def test_grade_is_tested_within_people_and_laid_back_on_both_levels(run, study):
    assert not run.failed, run.failed
    facts = record(study)["facts"]["T1rho"]
    assert facts["n"] == 7 and facts["discs"] == 14 and facts["levels"] == dict.fromkeys(PAIR, 7)
    described = facts["provenance"]["contrasts"][0]
    assert (described["name"], described["exchange"], described["block_means_removed"]) == ("pfirrmann", "within", True)
    assert "C(level)" in facts["provenance"]["formula"]
    folder = output(study, "group") / "analysis-main"
    pooled = read_image(folder / "space-PooledDisc_stat-T1rho_pfirrmann_t_map.nii.gz")
    atlas, back = load_atlas(), read_image(folder / "space-DiscAtlas_stat-T1rho_pfirrmann_t.nii.gz")
    known = set(pooled.array[np.isfinite(pooled.array)].tolist())
    for level in PAIR:
        values = back.array[atlas.labels.array == disc_value(level)]
        assert np.isfinite(values).mean() > 0.85 and set(values[np.isfinite(values)].tolist()) <= known
    assert not np.isfinite(back.array[atlas.labels.array == disc_value("L1-L2")]).any()


def test_the_pooled_disc_is_not_taken_for_the_studys_own_atlas(run, study):
    assert atlas_of(study) is None


def test_pooled_maps_meet_those_of_the_levels(run, study):
    """A map of the AP coordinate in each atlas disc is that of the pooled disc, whatever the level."""
    disc, atlas = load_pooled(output(study, "group") / "pooled-disc"), load_atlas()
    inside = disc.atlas.labels.array > 0
    for level in PAIR:
        value = disc_value(level)
        shape, array = atlas.shape(value), np.full(atlas.geometry.shape, np.nan, np.float32)
        mask = atlas.labels.array == value
        array[mask] = shape.to_frame(atlas.geometry.index_to_world(np.argwhere(mask)[:, ::-1]))[:, 1] / shape.half[1]
        own = disc.atlas.shape(disc.atlas.values[0])
        there = own.to_frame(disc.atlas.geometry.index_to_world(np.argwhere(inside)[:, ::-1]))[:, 1] / own.half[1]
        found = disc.pool(atlas.labels.like(array), level).array[inside]
        good = np.isfinite(found)
        assert good.mean() > 0.95 and np.abs(found - there)[good].mean() < 0.04


def test_age_exchanges_whole_people_and_the_report_says_so(run, study):
    run_study(study, "pfirrmann + age", contrast="age", analysis="age", **SETTINGS)
    facts = record(study, "age")["facts"]["T1rho"]
    assert facts["provenance"]["contrasts"][0]["exchange"] == "whole"
    page = (output(study, "group").parent / "report.html").read_text(encoding="utf-8")
    assert "carried into one mean disc" in page and "tested between persons" in page and "with 14 discs" in page


def test_a_level_in_the_formula_and_one_level_alone_are_told_before_a_run(study):
    assert not [f for f in validate(Study(study), make_settings(formula="pfirrmann + C(level) + age", **SETTINGS))
                if f.severity == "error"]
    found = validate(Study(study), make_settings(formula="pfirrmann + C(level)", levels="L4-L5"), read_images=False)
    assert any("'level' is not a column" in f.problem for f in found)
    found = validate(Study(study), make_settings(formula="pfirrmann", levels="pooled,L4-L5"), read_images=False)
    assert any("at least two levels" in f.problem for f in found)


def test_variance_groups_must_be_a_column(run, study):
    settings = make_settings(formula="pfirrmann", variance_groups="scanner", **SETTINGS)
    found = validate(Study(study), settings, read_images=False)
    assert any("'scanner' is not a column" in f.problem for f in found)
    assert {o.step for o in plan_study(study, "pfirrmann + age", variance_groups="sex", **SETTINGS).outcomes
            if o.state == "pending"} == {"analysis-main", "report"}


def test_power_takes_the_discs_as_the_last_run_did(run, study, monkeypatch):
    run_study(study, "pfirrmann + age", **SETTINGS)
    call = Recorder(monkeypatch, DiscStatsLib.analysis, "design_power", StudyError("far enough"))
    with pytest.raises(StudyError, match="far enough"):
        study_power(study, "pfirrmann + age", -4.0)
    given, inside = call.given, load_pooled(output(study, "group") / "pooled-disc").atlas.labels.array > 0
    assert (given["blocks"], given["formula"]) == ("participant_id", "T1rho ~ pfirrmann + age + C(level)")
    assert given["maps"].shape == (14, inside.sum()) and len(given["participants"]) == 14
    np.testing.assert_array_equal(given["planted"].place.array > 0, inside)
    with pytest.raises(StudyError, match="pooled in one disc"):
        study_power(study, "pfirrmann", -4.0, levels=("L4-L5",))


@pytest.mark.parametrize("scanners, severity, words", [
    ("AAAAAAB", "error", "'B' of 'scanner' has one observation"), ("AAAABBB", "warning", "(A: 4, B: 3)"),
    (["A"] * 4 + ["B"] * 2 + ["n/a"], "warning", "'scanner' is empty for 1 of 7 participants")])
def test_small_scanners_are_told_before_a_run(study, scanners, severity, words):
    path = study / "participants.tsv"
    before = path.read_text()
    lines = before.splitlines()
    try:
        path.write_text("\n".join(f"{line}\t{own}" for line, own in zip(lines, ["scanner", *scanners])) + "\n")
        settings = make_settings(formula="age", levels="L4-L5", variance_groups="scanner")
        found = validate(Study(study), settings, read_images=False)
    finally:
        path.write_text(before)
    assert [f for f in found if f.severity == severity and words in f.problem], "\n".join(map(str, found))


def test_average_maps_of_groups_stand_side_by_side_in_one_window(run, study, monkeypatch):
    """By the grade of each disc: a person's two discs may be of two groups."""
    from DiscStudyLib.report import group

    shown = []
    monkeypatch.setattr(group, "atlas_figure", lambda columns, *more, **other: (
        shown.append(columns), figure(columns, *more, **other))[1])
    run_study(study, "pfirrmann + age", analysis="age", contrast="age", groups="pfirrmann <= 2", **SETTINGS)
    labels, folder = load_atlas().labels.array, output(study, "group")
    people = [f"sub-{n:02}" for n in range(1, 8)]
    images = {p: read_image(folder.parent / p / "anat" / f"{p}_space-DiscAtlas_T1rho.nii.gz").array for p in people}
    for number, kept in ((1, lambda g: g <= 2), (2, lambda g: g > 2)):
        mean = read_image(folder / f"space-DiscAtlas_stat-mean_group-{number}_T1rho.nii.gz").array
        for place, level in ((0, "L5-S1"), (1, "L4-L5")):
            own = np.stack([images[f"sub-{n:02}"] for n, g in enumerate(GRADES, 1) if kept(g[place])])
            at = (labels == disc_value(level)) & np.isfinite(own).all(axis=0)
            assert at.sum() > 2000
            np.testing.assert_allclose(mean[at], own.mean(axis=0)[at], rtol=1e-5)
    columns = next(c for c in shown if any("pfirrmann <= 2" in title for title in c))
    looks = [look for _, look in columns.values()]
    assert len(looks) == 2 and looks[0] == looks[1] and "Average maps of groups" in (
        folder.parent / "report.html").read_text(encoding="utf-8")
