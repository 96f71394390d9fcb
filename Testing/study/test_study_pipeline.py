"""The whole pipeline on phantoms with existing labels: what goes in comes out, everywhere labelled as simulated."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from support.cohort_phantom import LEVELS, true_nucleus
from support.study_results import GRADE, GRADES, HAVE, SETTINGS, output, stat

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscStudyLib import make_report, plan_study, run_study
from DiscStudyLib.after import compare_tables, export_files, export_people, mixed_model
from DiscStudyLib.report.page import SIMULATED


def test_every_step_is_done(run):
    assert [f"{o.person} {o.step}: {o.message}" for o in run.outcomes if o.state != "done"] == []
    assert run.report.exists() and run.missing == {}


def test_grade_lowers_all_maps_in_the_nucleus(run, study):
    for key in HAVE:
        assert np.nanmin(stat(study, f"{key}_pfirrmann_r")) < -0.85
    folder = output(study, "group/analysis-grade")
    assert (folder / "T1rho-nT2w_clusters.tsv").exists() and (folder / "T2_clusters.tsv").exists()
    record = json.loads(output(study, "group/prov/step-analysis-grade_prov.json").read_text(encoding="utf-8"))
    assert any("held by different people" in n for n in record["notes"])


def test_simulated_on_page_and_in_description(run, study):
    assert SIMULATED in run.report.read_text(encoding="utf-8")
    assert json.loads(output(study, "dataset_description.json").read_text())["Simulated"] is True
    tables, images = (list(output(study, "").rglob(f"*.{end}")) for end in ("tsv", "nii.gz"))
    assert len(tables) > 10 and len(images) > 20
    for path in tables:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(line.endswith("SIMULATED") for line in lines[1:]), path
    for path in images:
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        assert json.loads(sidecar.read_text(encoding="utf-8"))["Simulated"] is True, path


def test_report_says_that_signal_is_not_t2(run):
    text = run.report.read_text(encoding="utf-8")
    assert "It is not T2" in text
    for title in ("Study overview", "Warnings", "Segmentation", "Map quality", "Registration quality",
                  "Group mean maps", "Parametric maps", "Clusters", "Sensitivity analysis", "Region statistics",
                  "Methods"):
        assert f">{title}" in text


def test_nothing_is_done_twice_and_report_alone_works(run, study):
    before = run.report.read_bytes()
    again = run_study(study, "pfirrmann", **SETTINGS)
    assert {o.state for o in again.outcomes} == {"current"}
    assert make_report(study).read_bytes() == before


def test_results_hold_no_path_of_the_machine(run, study, made_study):
    for path in output(study, "").rglob("*"):
        if path.suffix in (".json", ".tsv", ".html"):
            text = path.read_text(encoding="utf-8")
            assert str(made_study) not in text and str(study.parent) not in text, path


def test_dicom_export_of_the_study(run, study, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    paths = export_people(study, tmp_path / "dicom", ["sub-01"])
    names = sorted(p.relative_to(tmp_path / "dicom").as_posix() for p in paths)
    assert {"sub-01/T2w/nT2w.dcm", "sub-01/T2w/segmentation.dcm", "sub-01/T1rho/T1rho.dcm",
            "sub-01/T1rho/segmentation.dcm"} <= set(names)
    for path in paths:
        dataset = pydicom.dcmread(path)
        assert dataset.SeriesDescription.startswith("SIMULATED") and "SIMULATED" in str(dataset.PatientName)
    values = pydicom.dcmread(tmp_path / "dicom/sub-01/T1rho/T1rho.dcm").pixel_array
    expected = read_image(output(study, "sub-01/anat/sub-01_T1rhomap.nii.gz")).array
    np.testing.assert_array_equal(np.sort(values[np.isfinite(values)]), np.sort(expected[np.isfinite(expected)]))


def test_dicom_export_says_what_is_missing(run, study, tmp_path):
    pytest.importorskip("highdicom")
    with pytest.raises(StudyError, match="no folder 'sub-01'"):
        export_people(study, tmp_path / "dicom", ["sub-01"], source=tmp_path)
    with pytest.raises(StudyError, match="write QUANTITY=FILE"):
        export_files(tmp_path / "dicom", ["T1rhomap.nii.gz"])
    assert not (tmp_path / "dicom").exists()


def test_mixed_model_of_the_study(run, study):
    pytest.importorskip("statsmodels")
    fit, paths = mixed_model(study, "mean ~ pfirrmann + C(level)", map="T1rho", region="nucleus", name="grade")
    assert (fit.n, fit.people) == (len(GRADE), len(GRADES))
    slope = {r["term"]: r["estimate"] for r in fit.fixed.rows}["pfirrmann"]
    expected = np.mean([np.polyfit(own, [true_nucleus("T1rho", g, level) for g in own], 1)[0]
                        for level, own in zip(LEVELS, zip(*GRADES[:4]))])
    # The region's mean mixes nucleus (most of it) and annulus.
    assert 0.6 * expected > slope > expected
    assert all("SIMULATED" in p.read_text(encoding="utf-8") for p in paths)


@pytest.mark.parametrize(("options", "words"), [({"region": "rim"}, "there are whole"), ({}, "several maps"),
                                                ({"map": "T3"}, "no row with map 'T3'")])
def test_mixed_model_names_bad_choices(run, study, options, words):
    with pytest.raises(StudyError, match=words):
        mixed_model(study, "mean ~ pfirrmann", **options)


def test_agreement_of_two_tables(run, study, tmp_path):
    first = output(study, "group/regions.tsv")
    lines = first.read_text(encoding="utf-8").splitlines()
    column = lines[0].split("\t").index("mean")
    shifted = [lines[0]]
    for line in lines[1:]:
        cells = line.split("\t")
        cells[column] = str(float(cells[column]) + 2.5)
        shifted.append("\t".join(cells))
    second = tmp_path / "second.tsv"
    second.write_text("\n".join(shifted[:-1]) + "\n", encoding="utf-8")
    table, unmatched = compare_tables(first, second, "mean", map="T1rho", region="whole")
    rows = {r["measure"]: r for r in table.rows}
    assert rows["bias"]["value"] == pytest.approx(-2.5) and rows["bias"]["unit"] == "ms"
    assert rows["bias"]["data"] == "SIMULATED" and len(unmatched) <= 1


def test_sensitivity_analysis_stands_beside_the_main_one(run, study):
    folder = output(study, "group/prov")
    facts = {name: json.loads((folder / f"step-analysis-grade{name}_prov.json").read_text(encoding="utf-8"))
             for name in ("", "-sensitivity")}
    people = {name: next(iter(f["facts"].values()))["people"] for name, f in facts.items()}
    assert set(people[""]) - set(people["-sensitivity"]) == {"sub-06"}
    assert "Left out by the rule 'participant_id != sub-06': sub-06." in facts["-sensitivity"]["notes"]
    section = run.report.read_text(encoding="utf-8").split('id="sensitivity"')[1].split("<section")[0]
    # A row of everyone and one of the rule for each level.
    rows = [row for row in section.split("<tr>") if "L4-L5" in row]
    assert any("everyone" in r for r in rows) and any("participant_id != sub-06" in r for r in rows)


def test_what_permutation_assumed_is_done_anew_recorded_and_reported(run, made_study, tmp_path):
    study = shutil.copytree(made_study / "study", tmp_path / "study")  # others read the report
    assert "By the rule set beforehand" in run.report.read_text(encoding="utf-8")
    settings = SETTINGS | {"analysis": "signs", "errors": "symmetric", "standard_errors": "hc3", "sensitivity": "",
                           "maps": ("nT2w",)}
    other = run_study(study, "pfirrmann", **settings)
    done = {o.step for o in other.outcomes if o.state == "done"}
    assert done <= {"analysis-signs", "means", "models", "tables", "report"}
    record = json.loads(output(study, "group/prov/step-analysis-signs_prov.json").read_text(encoding="utf-8"))
    assert (record["parameters"]["errors"], record["parameters"]["standard_errors"]) == ("symmetric", "hc3")
    facts = record["facts"]
    for family in facts.values():
        provenance = family["provenance"]
        assert (provenance["errors"], provenance["standard_errors"]) == ("symmetric", "hc3")
        assert [c["errors"] for c in provenance["contrasts"]] == ["symmetric"]
    text = other.report.read_text(encoding="utf-8")
    assert "given random signs" in text and "HC3" in text and "By the rule set beforehand" not in text
    # Another assumption is another analysis; the same one is not done twice.
    plan = plan_study(study, "pfirrmann", **settings | {"errors": "exchangeable"})
    assert {o.step for o in plan.outcomes if o.state == "pending"} >= {"analysis-signs"}


def test_results_pass_the_bids_validator(run, study):
    folder = output(study, "")
    names = [p.name for p in folder.glob("sub-*/anat/*.nii.gz")]
    maps = [p.stem for p in folder.glob("*map.json")]
    assert "T1rhomap" in maps and all(any(n.endswith(f"_{m}.nii.gz") for n in names) for m in maps)
    program = shutil.which("bids-validator-deno")
    if not program:
        pytest.skip("pip install bids-validator-deno")
    found = subprocess.run([program, "--format", "json", str(folder)], capture_output=True, text=True)
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert {(i["code"], i.get("location")) for i in issues if i["severity"] == "error"} == set()
