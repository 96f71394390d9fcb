"""The whole pipeline on phantoms with existing labels: what goes in comes out, everywhere labelled as simulated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from support.cohort_phantom import ANNULUS_T1RHO, NUCLEUS_T1RHO, make_spine_study

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import Settings, Study, make_report, make_settings, plan_study, run_study
from DiscStudyLib.after import compare_tables, export_files, export_people, mixed_model
from DiscStudyLib.engine import Context, read_rows, shipped_atlas
from DiscStudyLib.report.page import SIMULATED, cell_text
from DiscStudyLib.report.stats import summary
from DiscStudyLib.steps.maps import map_steps
from DiscStudyLib.steps.person import segment_step

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
GRADES = (1, 2, 3, 4, 5, 2)
SETTINGS = {"levels": ("L4-L5",), "permutations": 200, "analysis": "grade",
            "sensitivity": "participant_id != sub-06"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_spine_study(tmp_path_factory.mktemp("Studie mit Umläuten äöü"), GRADES)


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "pfirrmann", **SETTINGS)


def output(study, name):
    return study / "derivatives" / "disc-relaxometry" / name


MAPPED = {"maps-T1rho", "carry-T1rho", "measure", "tile", "atlas", "tables"}
ANALYZED = {"analysis-grade", "analysis-grade-sensitivity"}
GROUP = {"means", *ANALYZED, "models"}
SEGMENTED = {"segment", "review", "normalize", *MAPPED, *GROUP} - {"maps-T1rho"}
#: For each setting: another value, and the steps that become due besides the report.
DUE = {
    "formula": ("pfirrmann + age", GROUP), "contrast": ("pfirrmann", ANALYZED), "maps": (("T1rho",), GROUP),
    "analysis": ("other", {"analysis-other", "analysis-other-sensitivity"}), "segmentation": ("cnn", SEGMENTED),
    "engine": ("onnx", SEGMENTED), "align": ("off", MAPPED | GROUP), "t1rho_model": ("mono3", MAPPED | GROUP),
    "t2_model": ("epg", set()),  # nobody has a T2 series; see test_models_of_t2_are_a_parameter
    "estimator": ("loglinear", MAPPED | GROUP), "registration": ("elastix", {"atlas", "tables", *GROUP}),
    "template": ("build", {"template", "atlas", "tables", *GROUP}), "levels": (("L4-L5", "L5-S1"), SEGMENTED),
    "permutations": (300, ANALYZED), "seed": (7, ANALYZED),
    "sensitivity": ("participant_id != sub-05", {"analysis-grade-sensitivity"}), "missing": ("complete", ANALYZED),
    "errors": ("symmetric", ANALYZED), "standard_errors": ("hc3", ANALYZED), "alpha": (0.01, set()),
    "session": ("ses-01", None), "on_error": ("stop", None), "threads": (2, None)}


def due(plan) -> set[str]:
    return {o.step for o in plan.outcomes if o.state == "pending"}


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_each_setting_redoes_the_steps_that_it_shapes(run, study, name):
    value, steps = DUE[name]
    settings = {"formula": "pfirrmann", **SETTINGS, name: value}
    assert make_settings(**settings) != make_settings(**{"formula": "pfirrmann", **SETTINGS})
    plan = plan_study(study, **settings)
    if name == "session":  # other files: nobody has any
        assert len(plan.missing) == len(GRADES)
    else:
        assert due(plan) == (set() if steps is None else {*steps, "report"})


def test_models_of_t2_are_a_parameter():
    fit, _ = map_steps("T2")
    assert "t2_model" in fit.parameters and "t1rho_model" not in fit.parameters


def one_voxel(path):
    image = sitk.ReadImage(str(path))
    corner = [0] * image.GetDimension()
    image[corner] = image[corner] + 1
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("name, change, steps", [
    ("sub-02/anat/sub-02_T2w.nii.gz", one_voxel, SEGMENTED),
    ("sub-02/anat/sub-02_dseg.nii.gz", one_voxel, SEGMENTED),
    ("sub-02/anat/sub-02_T1rho.nii.gz", one_voxel, MAPPED | GROUP),
    ("sub-02/anat/sub-02_T1rho.json", lambda p: p.write_text(p.read_text().replace("0.04", "0.05")), MAPPED | GROUP),
    ("participants.tsv", lambda p: p.write_text(p.read_text().replace("\tM\t", "\tF\t", 1)), {*ANALYZED, "models"})])
def test_each_input_redoes_the_steps_that_read_it(run, study, name, change, steps):
    path = study / name
    before, stat = path.read_bytes(), path.stat()
    try:
        change(path)
        plan = plan_study(study, "pfirrmann", **SETTINGS)
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert due(plan) == {*steps, "report"}
    assert {o.person for o in plan.outcomes if o.state == "pending"} - {""} <= {"sub-02"}


def test_another_atlas_or_network_redoes_what_it_made(run, study, monkeypatch, tmp_path):
    atlas = tmp_path / "atlas.json"
    content = json.loads(shipped_atlas().read_text(encoding="utf-8"))
    atlas.write_text(json.dumps({**content, "name": "Another"}), encoding="utf-8")
    monkeypatch.setattr("DiscStudyLib.steps.person.shipped_atlas", lambda: atlas)
    assert due(plan_study(study, "pfirrmann", **SETTINGS)) == {"atlas", "tables", *GROUP, "report"}
    weights = tmp_path / "Weights" / "network.safetensors"
    weights.parent.mkdir()
    monkeypatch.setattr("DiscStudyLib.steps.person.resource_path", lambda name: weights.parent)
    context = Context(Study(study), make_settings(segmentation="cnn"), Study(study).person("sub-01"), {})
    found = []
    for content in (b"0", b"1"):
        weights.write_bytes(content)
        os.utime(weights, ns=(len(found), len(found)))
        found.append(segment_step().extra(context))
    assert found[0] != found[1]


def test_group_maps_are_those_of_the_people(run, study):
    for key in ("T1rho", "nT2w"):
        maps = np.stack([read_image(output(study, f"sub-{n:02d}/anat/sub-{n:02d}_space-DiscAtlas_{key}.nii.gz")).array
                         for n in range(1, len(GRADES) + 1)]).astype(float)
        count = np.isfinite(maps).sum(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # voxels without a value
            expected = {"n": count, "mean": np.nanmean(maps, axis=0), "sd": np.nanstd(maps, axis=0, ddof=1)}
        assert count.max() == len(GRADES)
        for name, values in expected.items():
            found = read_image(output(study, f"group/space-DiscAtlas_stat-{name}_{key}.nii.gz")).array
            np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-4, err_msg=f"{name} {key}")


def test_table_of_the_report_is_of_the_corrected_p(run, study):
    folder = output(study, "group/analysis-grade")
    p = {name: read_image(folder / f"space-DiscAtlas_stat-T1rho_pfirrmann_{name}.nii.gz").array
         for name in ("pfwe", "p")}
    corrected = p["pfwe"][np.isfinite(p["pfwe"])]
    assert np.mean(corrected < 0.05) < np.mean(p["p"][np.isfinite(p["p"])] < 0.05)
    images = {name: read_image(folder / f"space-DiscAtlas_stat-T1rho_pfirrmann_{name}.nii.gz")
              for name in ("r", "pfwe", "p")}
    atlas = read_image(shipped_atlas().parent / "atlas_dseg.nii.gz")
    rows = summary("pfirrmann", atlas, images["r"], images["pfwe"], images["p"], 0.05).rows
    (row,) = [r for r in rows if r["level"] == "L4-L5"]
    assert row["smallest p"] == pytest.approx(corrected.min())
    assert row["significant"] == pytest.approx(100 * np.mean(corrected < 0.05))
    page = run.report.read_text(encoding="utf-8").split('id="parametric"')[1].split("<section")[0]
    assert f">{cell_text(row['significant'])}<" in page


def test_every_step_is_done(run):
    assert [f"{o.person} {o.step}: {o.message}" for o in run.outcomes if o.state != "done"] == []
    assert run.report.exists() and run.missing == {}


def test_true_relaxation_times_come_out(run, study):
    rows = [r for r in read_rows(output(study, "group/regions.tsv")).rows
            if r["map"] == "T1rho" and r["region"] == "nucleus" and r["level"] == "L4-L5"]
    assert len(rows) == len(GRADES)
    for row, grade in zip(rows, GRADES):
        # The true nucleus of the phantom is smaller than the region: the median is of it, the mean is not.
        assert row["median"] == pytest.approx(NUCLEUS_T1RHO[grade], rel=0.06)


def test_echo_and_anatomy_meet_in_atlas_space(run, study):
    """The people moved 6 mm and 5 degrees between the images: the bright nucleus is in one place all the same."""
    inside = read_image(shipped_atlas().parent / "atlas_dseg.nii.gz").array == disc_value("L4-L5")
    maps = {key: read_image(output(study, f"sub-01/anat/sub-01_space-DiscAtlas_{key}.nii.gz"))
            for key in ("T1rho", "nT2w")}
    bright = {"T1rho": (NUCLEUS_T1RHO[1] + ANNULUS_T1RHO) / 2, "nT2w": 0.43}  # halfway from nucleus to annulus
    nucleus = {key: inside & (np.nan_to_num(image.array) > bright[key]) for key, image in maps.items()}
    centers = {key: maps[key].geometry.index_to_world(np.argwhere(where)[:, ::-1]).mean(axis=0)
               for key, where in nucleus.items()}
    # Echo voxels are 2 mm high; the inverse transform would be off by 12 mm.
    assert np.linalg.norm(centers["T1rho"] - centers["nT2w"]) < 2.0


def test_grade_lowers_both_maps_in_the_nucleus(run, study):
    folder = output(study, "group/analysis-grade")
    for key in ("T1rho", "nT2w"):
        r = read_image(folder / f"space-DiscAtlas_stat-{key}_pfirrmann_r.nii.gz").array
        assert np.nanmin(r) < -0.85
    assert (folder / "T1rho-nT2w_clusters.tsv").exists()


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


def test_results_hold_no_path_of_the_machine(run, study):
    for path in output(study, "").rglob("*"):
        if path.suffix in (".json", ".tsv", ".html"):
            assert str(study.parent) not in path.read_text(encoding="utf-8"), path


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
    # L4-L5 and L5-S1 alone have a grade in this study.
    assert (fit.n, fit.people) == (2 * len(GRADES), len(GRADES))
    slope = {r["term"]: r["estimate"] for r in fit.fixed.rows}["pfirrmann"]
    expected = np.polyfit(GRADES, [NUCLEUS_T1RHO[g] for g in GRADES], 1)[0]
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


def test_mixed_models_of_the_regions_are_made(run, study):
    # One level only: everyone has one disc, and a random person cannot be told from error.
    record = json.loads(output(study, "group/prov/step-models_prov.json").read_text(encoding="utf-8"))
    assert any("one row only" in n for n in record["notes"])


def test_what_permutation_assumed_is_done_anew_recorded_and_reported(run, study):
    assert "By the rule set beforehand" in run.report.read_text(encoding="utf-8")
    settings = SETTINGS | {"analysis": "signs", "errors": "symmetric", "standard_errors": "hc3", "sensitivity": ""}
    other = run_study(study, "pfirrmann", **settings)
    assert {o.step for o in other.outcomes if o.state == "done"} <= {"analysis-signs", "models", "tables", "report"}
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
