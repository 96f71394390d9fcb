"""The demonstration's own parts: the cohort is copied whole, masks stay apart, real multi-echo data are fitted."""

from support import shared_data

from DiscStudyLib.demo import FORMULA, SENSITIVITY, SERIES, copy_cohort, fit_shared_series, grades, remembered
from DiscStudyLib.folder.rules import people_by_rule
from DiscStudyLib.folder.settings import make_settings
from DiscStudyLib.folder.study import Study
from DiscStudyLib.folder.validate import validate


def test_cohort_is_copied_valid_and_its_masks_are_for_scoring_only(tmp_path):
    study = Study(copy_cohort(tmp_path / "cohort"))
    assert len(study.people) == 33
    assert all(p.anatomical and p.reference and not p.labels for p in study.people)
    settings = make_settings(formula=FORMULA, segmentation="cnn", sensitivity=SENSITIVITY)
    found = validate(study, settings, read_images=False)
    assert [str(f) for f in found if f.severity == "error"] == []
    assert not study.simulated


def test_real_multi_echo_series_is_fitted(tmp_path, monkeypatch):
    folder = shared_data(SERIES)
    monkeypatch.setenv("DISC_SHARED_DATA", str(folder.parents[1]))
    text = fit_shared_series(tmp_path)
    assert "10 echoes" in text and (tmp_path / "multi-echo" / "T2.nii.gz").exists()


def test_everyone_is_analyzed_and_one_field_strength_beside(tmp_path):
    table = Study(copy_cohort(tmp_path / "cohort")).participants
    kept = people_by_rule(table, SENSITIVITY)
    assert len(table.rows) == 33 and set(table["participant_id"]) - kept == {"sub-141"}


def test_what_is_known_is_not_done_again(tmp_path):
    source, output, calls = tmp_path / "input", tmp_path / "output", []
    output.mkdir()
    source.write_text("1")

    def work():
        calls.append(source.read_text())
        (output / "result").write_text(calls[-1])
        return f"says {calls[-1]}", [output / "result"]

    assert [remembered(output, "step", [source], work) for _ in range(2)] == ["says 1", "says 1"] and len(calls) == 1
    source.write_text("22")
    assert remembered(output, "step", [source], work) == "says 22"
    (output / "result").unlink()
    assert remembered(output, "step", [source], work) == "says 22" and len(calls) == 3


def test_estimated_grades_are_shown_beside_those_read(tmp_path):
    from DiscRelaxometryLib.tables import Column, Table

    folder = copy_cohort(tmp_path / "cohort")
    assert grades(folder) == "No Pfirrmann grade was estimated."
    rows = [{"participant_id": "sub-007", "level": "L5-S1", "pfirrmann_estimated": 4},
            {"participant_id": "sub-141", "level": "L5-S1", "pfirrmann_estimated": 2}]
    Table("grades", [Column(name) for name in rows[0]], rows).write(
        Study(folder).output / "group" / "grades.tsv")
    lines = grades(folder).splitlines()
    assert [line.split() for line in lines[2:]] == [["sub-007", "*", "V", "/", "IV"],
                                                    ["sub-141", *lines[3].split()[1:]]]
    assert lines[3].split()[-1] == "II" and "*" not in lines[3]
