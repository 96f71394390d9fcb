"""Two visits on two scanners, from validate to report: paired, longitudinal, change, repeatability, and bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.cohort_phantom import make_spine_study
from support.recorder import Recorder
from support.study_results import output

import DiscStatsLib.analysis
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStatsLib.tables import repeatability
from DiscStudyLib import Study, make_settings, plan_study, run_study, validate
from DiscStudyLib.after import study_power
from DiscStudyLib.engine import read_rows
from DiscStudyLib.engine.observed import _change_unit, _scale, change
from DiscStudyLib.folder import first_and_last
from DiscStudyLib.folder.visits import sessions_of
from DiscStudyLib.steps.visits import within_maps

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
SETTINGS = {"levels": "L4-L5", "permutations": 100, "seed": 7, "maps": ("T1rho",), "session": "all",
            "align": "off"}
#: Grades at the visits, of L5-S1 and L4-L5; nobody has L3-L4.
FIRST, SECOND = ([(g, g, 0) for g in grades] for grades in ((1, 2, 3, 2, 1, 3), (2, 3, 4, 2, 2, 4)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Six people, a year or two apart, of scanner A or B; the sixth lacks the second visit."""
    root = make_spine_study(tmp_path_factory.mktemp("visits"), FIRST, ["T1rho"], moved=False)
    other = make_spine_study(tmp_path_factory.mktemp("later"), SECOND, ["T1rho"], moved=False)
    for n in range(1, 7):
        person = f"sub-{n:02}"
        for session, source in (("ses-1", root), ("ses-2", other)):
            if (n, session) == (6, "ses-2"):
                continue
            folder = root / person / session / "anat"
            folder.mkdir(parents=True)
            for file in list((source / person / "anat").iterdir()):
                shutil.move(file, folder / file.name.replace(person, f"{person}_{session}"))
        (root / person / "anat").rmdir()
        rows = [("session_id", "acq_time", "scanner"), ("ses-1", "2024-03-01T10:00:00", "AB"[n % 2]),
                ("ses-2", f"202{5 + n % 2}-03-01T10:00:00", "AB"[n % 2])]
        (root / person / f"{person}_sessions.tsv").write_text("\n".join(map("\t".join, rows)) + "\n")
    return root


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "C(session)", **SETTINGS)


def facts(study, name="main"):
    path = output(study, "group") / "prov" / f"step-analysis-{name}_prov.json"
    return json.loads(path.read_text(encoding="utf-8"))["facts"]["T1rho"]


def test_visits_are_found_and_told_before_a_run(study):
    found = validate(Study(study, "all"), make_settings(formula="years", **SETTINGS))
    assert not [f for f in found if f.severity == "error"], "\n".join(map(str, found))
    assert [f.person for f in found if "one visit" in f.problem] == ["sub-06"]
    visits = Study(study, "all")
    assert len(visits.people) == 11 and visits.people[1].id == "sub-01_ses-2" and visits.people[1].of_kind("T1rho")
    rows = {r["participant_id"]: r for r in visits.participants.rows}
    assert float(rows["sub-01_ses-2"]["years"]) == pytest.approx(730 / 365.25, abs=1e-5)
    assert rows["sub-02_ses-2"]["scanner"] == "A" and rows["sub-02_ses-2"]["participant"] == "sub-02"
    assert len(Study(study, "all", only=("02",)).people) == 2
    assert [p.id for p in Study(study, "all", only=("sub-02_ses-2",)).people] == ["sub-02_ses-2"]
    plain = validate(Study(study), make_settings())
    assert any("--session all" in f.remedy for f in plain)


def test_paired_visits_are_tested_within_people(run, study):
    assert not run.failed, run.failed
    described = facts(study)["provenance"]["contrasts"][0]
    assert described["exchange"] == "within" and facts(study)["n"] == 11
    effect = read_image(output(study, "group/analysis-main/space-DiscAtlas_stat-T1rho_session_effect.nii.gz")).array
    maps = {p: read_image(output(study, "group").parent / p / "anat" / f"{p}_space-DiscAtlas_T1rho.nii.gz").array
            for p in (f"sub-{n:02}_ses-{s}" for n in range(1, 6) for s in (1, 2))}
    pairs = np.stack([maps[f"sub-{n:02}_ses-2"] - maps[f"sub-{n:02}_ses-1"] for n in range(1, 6)])
    both = np.isfinite(pairs).all(axis=0) & np.isfinite(effect)
    assert both.sum() > 2000
    np.testing.assert_allclose(effect[both], pairs.mean(axis=0)[both], atol=2e-3)
    page = (output(study, "group").parent / "report.html").read_text(encoding="utf-8")
    assert "Repeatability" in page and "sub-06 ses-1" in page.replace("_", " ")
    assert "Each visit was an observation and each person an exchangeability block" in page
    assert "session ses-1 (n = 6)" in page and "session ses-2 (n = 5)" in page


def test_change_per_year_is_that_of_the_dates(run, study):
    run_study(study, "pfirrmann", analysis="change", change="per-year", **SETTINGS)
    found = facts(study, "change")
    assert found["n"] == 5 and found["people"] == [f"sub-{n:02}" for n in range(1, 6)]
    mean = read_image(output(study, "group") / "analysis-change" / "space-DiscAtlas_stat-T1rho_mean.nii.gz").array
    years = [2.0, 1.0, 2.0, 1.0, 2.0]
    maps = [[read_image(output(study, "group").parent / p / "anat" / f"{p}_space-DiscAtlas_T1rho.nii.gz").array
             for p in (f"sub-{n:02}_ses-1", f"sub-{n:02}_ses-2")] for n in range(1, 6)]
    expected = np.stack([(b - a) / y for (a, b), y in zip(maps, years)])
    both = np.isfinite(expected).all(axis=0)
    np.testing.assert_allclose(mean[both], expected.mean(axis=0)[both], rtol=2e-3, atol=0.05)
    record = (output(study, "group") / "prov" / "step-analysis-change_prov.json").read_text(encoding="utf-8")
    assert "sub-06 has one visit" in record
    page = (output(study, "group").parent / "report.html").read_text(encoding="utf-8")
    assert "was fitted to the change per year between the first and the last visit in T1rho" in page
    plan = plan_study(study, "pfirrmann", analysis="change", change="percent", **SETTINGS)
    assert {o.step for o in plan.outcomes if o.state == "pending"} == {"analysis-change", "report"}


def test_power_takes_the_visits_as_the_last_run_did(run, study, monkeypatch):
    run_study(study, "C(session)", **SETTINGS)
    call = Recorder(monkeypatch, DiscStatsLib.analysis, "design_power", StudyError("far enough"))
    with pytest.raises(StudyError, match="far enough"):
        study_power(study, "T1rho ~ years", 2.0, region="nucleus", sizes=(30,), sets=7)
    given = call.given
    assert (given["blocks"], given["formula"], given["contrast"]) == ("participant", "T1rho ~ years", "years")
    assert (given["sizes"], given["sets"]) == ((30,), 7)
    assert given["settings"] == replace(make_settings(**SETTINGS).statistics(), n_permutations=199)
    table = given["participants"]
    assert len(table) == given["maps"].shape[0] == 11 and table["session"].tolist()[:2] == ["ses-1", "ses-2"]
    assert np.isfinite(given["maps"].at([0], slice(None))).any()
    assert np.unique(given["atlas_labels"].array).tolist() == [0, disc_value("L4-L5")]
    place = given["planted"].place.array > 0
    assert 500 < place.sum() < (given["atlas_labels"].array > 0).sum() / 2


def test_repeatability_by_region_and_voxel(run, study):
    rows = read_rows(output(study, "group") / "repeatability.tsv").rows
    nucleus = next(r for r in rows if (r["map"], r["level"], r["region"]) == ("T1rho", "L4-L5", "nucleus"))
    regions = {r["participant_id"]: r["mean"] for r in read_rows(output(study, "group") / "regions.tsv").rows
               if (r["map"], r["level"], r["region"]) == ("T1rho", "L4-L5", "nucleus")}
    pairs = np.array([[regions[f"sub-{n:02}_ses-{s}"] for s in (1, 2)] for n in range(1, 6)])
    sd = np.sqrt(np.mean((pairs[:, 0] - pairs[:, 1]) ** 2) / 2)
    assert nucleus["n"] == 5 and nucleus["within_sd"] == pytest.approx(sd, rel=1e-3)
    assert nucleus["smallest_change"] == pytest.approx(2.77 * sd, rel=1e-2)
    assert np.isfinite(read_image(output(study, "group") / "space-DiscAtlas_stat-wsd_T1rho.nii.gz").array).sum() > 2000


def test_a_changed_date_redoes_the_statistics_alone(run, study):
    path = study / "sub-01" / "sub-01_sessions.tsv"
    before = path.read_text()
    try:
        path.write_text(before.replace("2026-03-01", "2027-03-01"))
        plan = plan_study(study, "C(session)", **SETTINGS)
    finally:
        path.write_text(before)
    due = [o for o in plan.outcomes if o.state == "pending"]
    assert {o.step for o in due} <= {"analysis-main", "models", "means", "group-means", "repeatability", "report"}
    assert {o.person for o in due} == {""}


@pytest.mark.parametrize("table, words", [
    ("session_id\tacq_time\nses-1\t01/02/2024\nses-2\t2025-01-01\n", "cannot be read"),
    ("session_id\tacq_time\nses-1\t2024-01-01\nses-1\t2025-01-01\n", "ses-1 twice"),
    ("session_id\tage\nses-1\tfifty\nses-2\t52\n", "not a number"),
    ("visit\tage\nses-1\t50\n", "session_id")])
def test_bad_sessions_tables_are_one_sentence(study, table, words):
    path = study / "sub-01" / "sub-01_sessions.tsv"
    before = path.read_text()
    try:
        path.write_text(table)
        found = validate(Study(study, "all"), make_settings(formula="years", **SETTINGS), read_images=False)
    finally:
        path.write_text(before)
    assert sum(f.severity == "error" and words in f.problem for f in found) == 1, "\n".join(map(str, found))


def test_visits_on_other_scanners_are_a_note(study):
    path = study / "sub-02" / "sub-02_sessions.tsv"
    before = path.read_text()
    try:
        path.write_text("session_id\tage\tscanner\nses-1\t40\tA\nses-2\t43\tB\n")
        found = validate(Study(study, "all"), make_settings(formula="years", **SETTINGS), read_images=False)
        assert {r["participant_id"]: r["years"] for r in Study(study, "all").participants.rows}["sub-02_ses-2"] == "3"
    finally:
        path.write_text(before)
    assert [(f.severity, f.person) for f in found if "differ in scanner (A, B)" in f.problem] == [("note", "sub-02")]


def table(*rows):
    """A table of visits: participant, session, years, grade."""
    return pd.DataFrame([{"participant_id": f"{who}_{session}", "participant": who, "session": session, "years": years,
                          "grade": grade} for who, session, years, grade in rows])


def test_change_is_from_the_first_to_the_last_in_time():
    """Dates decide where there are some, not the names: 'post' is before 'pre' in the alphabet."""
    pairs, people, remarks = first_and_last(table(
        ("a", "ses-post", 1.5, 4), ("a", "ses-pre", 0.0, 2), ("b", "ses-10", None, 5), ("b", "ses-9", None, 3),
        ("c", "ses-1", 0.0, 1), ("d", "ses-1", 0.0, 1), ("d", "ses-2", 0.5, 2), ("d", "ses-3", 1.0, 3)))
    assert [(a["session"], b["session"]) for a, b in pairs] == [("ses-pre", "ses-post"), ("ses-9", "ses-10"),
                                                                 ("ses-1", "ses-3")]
    assert people["participant_id"].tolist() == ["a", "b", "d"] and people["grade"].tolist() == [2, 3, 1]
    assert not {"session", "years"} & set(people.columns)
    assert len(remarks) == 2 and "a: the visits are taken in the order of their dates (ses-pre, ses-post)" in remarks[0]
    assert remarks[1].startswith("c has one visit")


@pytest.mark.parametrize("how, expected", [("absolute", [10.0, -20.0, np.nan]), ("per-year", [4.0, -8.0, np.nan]),
                                           ("percent", [20.0, -50.0, np.nan])])
def test_change_of_a_map(how, expected):
    """From 50 to 60 and from 40 to 20 in two and a half years; nothing can be said in percent of nothing."""
    first, last = (np.array(v, np.float32) for v in ([50, 40, 0 if how == "percent" else np.nan], [60, 20, 5]))
    visits = table(("a", "ses-1", 0.5, 1), ("a", "ses-2", 3.0, 1))
    (a, b), = first_and_last(visits)[0]
    np.testing.assert_allclose(change(first, last, how, _scale(how, a, b)), expected)


def test_changes_have_units_of_their_own():
    assert [_change_unit(how, "T1rho") for how in ("absolute", "per-year", "percent")] == ["ms", "ms/a", "%"]


def test_without_dates_there_is_no_change_per_year():
    for years in ((None, None), (0.0, 0.0), (0.0, None)):
        pairs, _, _ = first_and_last(table(("a", "ses-1", years[0], 1), ("a", "ses-2", years[1], 1)))
        with pytest.raises(StudyError, match="between the visits of a is not known"):
            _scale("per-year", *pairs[0])


def test_a_formula_of_change_is_checked_on_participants(study):
    """A term that differs between visits cannot explain their change."""
    for formula, words in (("years", "'years'"), ("C(session)", "'session'")):
        settings = make_settings(formula=formula, change="absolute", **SETTINGS)
        found = validate(Study(study, "all"), settings, read_images=False)
        assert any(f.severity == "error" and words in f.problem for f in found), formula
    settings = make_settings(formula="age", change="absolute", **SETTINGS)
    found = validate(Study(study, "all"), settings, read_images=False)
    assert not [f for f in found if f.severity == "error"], "\n".join(map(str, found))


def test_a_date_that_cannot_be_read_ends_a_run_with_the_same_sentence(study):
    path = study / "sub-01" / "sub-01_sessions.tsv"
    before = path.read_text()
    try:
        path.write_text("session_id\tacq_time\nses-1\t45123\nses-2\t2025-01-01\n")
        with pytest.raises(StudyError, match="'45123' of sub-01_ses-1"):
            run_study(study, "C(session)", **SETTINGS)
    finally:
        path.write_text(before)


def test_the_tenth_session_is_after_the_second(tmp_path):
    for n in (10, 2, 1):
        (tmp_path / f"ses-{n}").mkdir()
    assert sessions_of(tmp_path) == ["ses-1", "ses-2", "ses-10"] and sessions_of(tmp_path / "ses-1") == [""]


def test_settings_of_change():
    for bad in ({"change": "absolute"}, {"change": "absolute", "session": "all", "levels": "pooled"},
                {"change": "yearly", "session": "all"}):
        with pytest.raises(StudyError):
            make_settings(**bad)


def test_within_maps_are_those_of_bland_and_altman():
    """Peak flow of 20 schoolchildren, four readings each: residual mean square 460.52, SD 21.5 (BMJ 1996;313:744)."""
    text = ("190 220 200 200 220 200 240 230 260 260 240 280 210 300 280 265 270 265 280 270 280 280 270 275 260 "
            "280 280 300 275 275 275 305 280 290 300 290 320 290 300 290 300 300 310 300 270 250 330 370 320 330 "
            "330 330 335 320 335 375 350 320 340 365 360 320 350 345 330 340 380 390 335 385 360 370 400 420 425 "
            "420 430 460 480 470")
    readings = np.array(text.split(), float).reshape(20, 4)
    found = within_maps([[np.array([v]) for v in child] for child in readings])
    assert found["wsd"][0] ** 2 == pytest.approx(460.52, abs=0.005) and found["wsd"][0] == pytest.approx(21.5, abs=0.05)
    whole = repeatability(readings)
    assert (found["wsd"][0], found["cv"][0], found["sdc"][0]) == pytest.approx(
        (whole.within_sd, whole.rms_cv, whole.coefficient), rel=1e-6)
    some = readings.copy()
    some[3, 2:], some[7, 1:] = np.nan, np.nan  # two readings of one child, one of another: that one says nothing
    found = within_maps([[np.array([v]) for v in child] for child in some])
    freedom = 18 * 3 + 1
    squares = sum(np.nansum((child - np.nanmean(child)) ** 2) for child in some)
    assert found["wsd"][0] == pytest.approx(np.sqrt(squares / freedom), rel=1e-9)
