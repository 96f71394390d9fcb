"""Estimated grades in a study: in tables, report and formulas, never in place of a reader's."""

import shutil

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table, read_tsv
from DiscStudyLib import Study, make_settings, plan_study, run_study
from DiscStudyLib.after import mixed_model
from DiscStudyLib.engine import GroupContext, participants_of, read_rows, with_estimates
from DiscStudyLib.folder import trained_on, validate
from DiscStudyLib.report.grades import _agreement, grades_beside, pairs

for library in ("jinja2", "matplotlib", "pandas", "patsy", "onnxruntime"):
    pytest.importorskip(library)
GRADES = (1, 2, 3, 4, 5, 2)
SETTINGS = {"levels": ("L4-L5", "L5-S1"), "permutations": 200}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = make_spine_study(tmp_path_factory.mktemp("grades"), GRADES, series=())
    # The last person has no canal labelled, so that nothing of theirs is graded.
    from DiscRelaxometryLib.image import read_image, write_image
    path = root / "sub-06" / "anat" / "sub-06_dseg.nii.gz"
    labels = read_image(path)
    write_image(labels.like(np.where(labels.array == 2, 0, labels.array)), path)
    return root


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "nT2w ~ pfirrmann_expected", **SETTINGS)


@pytest.fixture(scope="module")
def group(run, study):
    return study / "derivatives" / "disc-relaxometry" / "group"


def test_grades_are_joined_and_marked_as_estimated(group):
    table = read_rows(group / "grades.tsv")
    assert "pfirrmann_estimated" in table.names and "pfirrmann" not in table.names
    assert {r["participant_id"] for r in table.rows} == {f"sub-0{n}" for n in range(1, 6)}
    means = [np.mean([r["pfirrmann_expected"] for r in table.rows if r["participant_id"] == f"sub-0{n}"])
             for n in (1, 3, 5)]
    assert means[0] < means[1] < means[2]


def test_what_is_not_graded_is_said(run, group):
    page = (group.parent / "report.html").read_text(encoding="utf-8")
    assert "sub-06: Grades were not estimated. The spinal canal is not seen beside " in page


def test_the_analysis_uses_the_estimates_of_each_level(group, study):
    people = read_tsv(study / "participants.tsv")
    rows = read_rows(group / "grades.tsv").rows
    table = with_estimates(people, ("pfirrmann_expected",), rows)
    for row in table.rows:
        for level, column in (("L4-L5", "pfirrmann_expected_L4L5"), ("L5-S1", "pfirrmann_expected_L5S1")):
            known = [r["pfirrmann_expected"] for r in rows
                     if (r["participant_id"], r["level"]) == (row["participant_id"], level)]
            assert [row[column]] == (known or [None])
        # The reader's columns stay what they were.
        assert row["pfirrmann_L4L5"] == {r["participant_id"]: r for r in people.rows}[row["participant_id"]][
            "pfirrmann_L4L5"]
    models = read_rows(group / "mixed_models.tsv").rows
    assert {r["term"] for r in models} == {"pfirrmann_expected"} and all(r["people"] == 5 for r in models)
    assert list(group.glob("analysis-main/*pfirrmann_expected*"))


def test_the_page_says_that_grades_are_estimated_and_compares_them(group):
    page = (group.parent / "report.html").read_text(encoding="utf-8")
    for words in ("Estimated Pfirrmann grades", "grades are estimated by a network, not read by a person",
                  "These estimates enter the model as pfirrmann_expected, in place of a reader", "no person read them",
                  "Agreement of estimated with read grades", "Discs by read and estimated grade"):
        assert words in page


def test_a_mixed_model_takes_estimates_too(group, study):
    fit, _ = mixed_model(study, "mean ~ pfirrmann_expected", map="nT2w")
    assert fit.people == 5 and any("not a reader's" in note for note in fit.notes)
    assert not any("estimate" in note for note in mixed_model(study, "mean ~ pfirrmann", map="nT2w")[0].notes)


def test_new_grading_weights_redo_the_grades_and_not_the_outlines(run, study, monkeypatch):
    import DiscStudyLib.steps.person as person

    original = person._weights
    monkeypatch.setattr(person, "_weights", lambda n: {"weights": "new"} if n == "disc-grades" else original(n))
    due = {o.step for o in plan_study(study, "nT2w ~ pfirrmann_expected", **SETTINGS).outcomes if o.state == "pending"}
    assert {"grade", "tables", "analysis-main", "models"} <= due and not {"segment", "atlas", "measure"} & due
    # A formula of read grades does not wait for the estimates.
    due = {o.step for o in plan_study(study, "nT2w ~ pfirrmann", **SETTINGS, analysis="read").outcomes
           if o.state == "pending"}
    assert "grade" in due


def findings(study, formula):
    settings = make_settings(formula=formula)
    return [f for f in validate(Study(study), settings, read_images=False) if f.severity == "error"]


def test_validate_knows_the_variable_and_keeps_its_name(study, tmp_path):
    assert not findings(study, "pfirrmann_estimated + age")
    copy = shutil.copytree(study, tmp_path / "copy", ignore=shutil.ignore_patterns("derivatives"))
    text = (copy / "participants.tsv").read_text()
    (copy / "participants.tsv").write_text(text.replace("pfirrmann_L4L5", "pfirrmann_estimated_L4L5"))
    assert "name kept" in findings(copy, "pfirrmann_estimated")[0].problem
    with pytest.raises(DesignError, match="rename it"):
        with_estimates(read_tsv(copy / "participants.tsv"), ("pfirrmann_estimated",), [])
    (copy / "participants.tsv").write_text(text.replace("pfirrmann_L", "reader_L"))
    assert "'pfirrmann_estimated' is the program's estimate" in findings(copy, "pfirrmann")[0].remedy
    for path in copy.glob("sub-*/anat/*_T2w.nii.gz"):
        path.unlink()
    assert any("needs T2-weighted images" in f.problem for f in findings(copy, "pfirrmann_estimated"))


PEOPLE = Table("participants", [Column("participant_id"), Column("pfirrmann_L5S1"), Column("pfirrmann_L4L5")],
               [{"participant_id": "sub-1", "pfirrmann_L5S1": "4", "pfirrmann_L4L5": "n/a"},
                {"participant_id": "sub-2", "pfirrmann_L5S1": "2", "pfirrmann_L4L5": "1"}])
ROWS = [{"participant_id": "sub-2", "level": "L5-S1", "pfirrmann_estimated": 3.0},
        {"participant_id": "sub-2", "level": "L4-L5", "pfirrmann_estimated": float("nan")},
        {"participant_id": "sub-1", "level": "L5-S1", "pfirrmann_estimated": 5.0},
        {"participant_id": "sub-1", "level": "L4-L5", "pfirrmann_estimated": 5.0}]


def test_pairs_are_by_person_and_level():
    assert pairs(ROWS, PEOPLE) == {("sub-1", "L5-S1"): (4, 5), ("sub-2", "L5-S1"): (2, 3),
                                   ("sub-2", "L4-L5"): (1, None)}
    table = grades_beside(ROWS, PEOPLE, {"sub-2"})
    assert [(r["participant"], r["L5-S1"], r.get("L4-L5")) for r in table.rows] == [
        ("sub-1", "IV / V", None), ("sub-2 *", "II / III", "I / \N{EN DASH}")]


def test_agreement_is_of_those_trained_on_and_of_others_with_what_was_read_in_rows():
    blocks = _agreement([*ROWS, {"participant_id": "sub-1", "level": "L4-L5", "pfirrmann_estimated": 5.0}], PEOPLE,
                        {"sub-2"})
    columns = ("people", "n", "discs", "same grade", "within one", "mean error")
    assert [tuple(row[c] for c in columns) for row in blocks[0].table.rows] == [
        ("in the network's training set", 1, 1, 0.0, 100.0, 1.0), ("not in it", 1, 1, 0.0, 100.0, 1.0)]
    counted = {(row["read"], name.removeprefix("estimated ")) for row in blocks[2].table.rows
               for name, count in row.items() if name != "read" and count}
    assert counted == {("II", "III"), ("IV", "V")}


def test_training_sets_of_the_networks_are_apart():
    from DiscRelaxometryLib.resources import resource_path

    cohort = Study(resource_path("SampleData/spider-cohort", "DiscStatsLib"))
    outlines, grades = trained_on(cohort), trained_on(cohort, "disc-grades")
    # All volumes trained the outlines; the grades those people of whom there is a clinical T2w slice.
    assert outlines == {p.id for p in cohort.people} and "sub-078" in grades and "sub-141" in outlines - grades


def test_without_estimates_in_the_formula_the_table_is_the_participants(study, run):
    context = GroupContext(Study(study), make_settings(formula="pfirrmann"), {})
    assert participants_of(context).names == Study(study).participants.names
