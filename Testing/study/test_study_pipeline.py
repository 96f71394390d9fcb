"""The whole pipeline on phantoms with existing labels: what goes in comes out, everywhere labelled as simulated."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import warnings
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from support.cohort_phantom import ANNULUS, LEVELS, add_reference, make_spine_study, true_nucleus

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.measure import PARTITION
from DiscStatsLib.analysis import analyze
from DiscStatsLib.design import read_participants
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib import Settings, Study, make_report, make_settings, plan_study, run_study
from DiscStudyLib.after import compare_tables, export_files, export_people, find_maps, mixed_model
from DiscStudyLib.engine import Context, read_rows, shipped_atlas
from DiscStudyLib.report.page import SIMULATED, cell_text
from DiscStudyLib.steps.person import segment_step

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
#: Grades of L5-S1, L4-L5 and L3-L4; one disc is missing.
GRADES = ((1, 2, 3), (2, 4, 1), (3, 3, 2), (4, 1, 5), (5, 5, 0), (2, 4, 4))
PEOPLE = [f"sub-{n:02d}" for n in range(1, len(GRADES) + 1)]
GRADE = {(p, level): g for p, own in zip(PEOPLE, GRADES) for level, g in zip(LEVELS, own) if g}
#: Who has each map.
HAVE = {"T1rho": PEOPLE, "T2": [p for p in PEOPLE if p != "sub-03"], "nT2w": PEOPLE}
SETTINGS = {"levels": LEVELS, "permutations": 120, "analysis": "grade", "align": "off", "alpha": 0.5,
            "sensitivity": "participant_id != sub-06"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = make_spine_study(tmp_path_factory.mktemp("Studie mit Umläuten äöü"), GRADES, ("T1rho", "T2"))
    for path in folder.glob("sub-03/anat/*MESE*"):
        path.unlink()
    add_reference(folder, "sub-01", "L4-L5")
    add_reference(folder, "sub-02", "L5-S1")
    return folder


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "pfirrmann", **SETTINGS)


def output(study, name):
    return study / "derivatives" / "disc-relaxometry" / name


JOINED = {"measure", "tile", "atlas", "score", "tables"}
MAPPED = {"maps-T1rho", "carry-T1rho", *JOINED}
T2_MAPPED = {"maps-T2", "carry-T2", *JOINED}
ANALYZED = {"analysis-grade", "analysis-grade-sensitivity"}
GROUP = {"means", *ANALYZED, "models"}
SEGMENTED = {"segment", "review", "normalize", "carry-T1rho", "carry-T2", *JOINED, *GROUP}
#: For each setting: another value, and the steps that become due besides the report.
DUE = {
    "formula": ("pfirrmann + age", GROUP), "contrast": ("pfirrmann", ANALYZED), "maps": (("T1rho",), GROUP),
    "analysis": ("other", {"analysis-other", "analysis-other-sensitivity"}), "segmentation": ("cnn", SEGMENTED),
    "engine": ("onnx", SEGMENTED), "align": ("on", MAPPED | T2_MAPPED | GROUP),
    "t1rho_model": ("mono3", MAPPED | GROUP), "t2_model": ("epg", T2_MAPPED | GROUP),
    "estimator": ("loglinear", MAPPED | T2_MAPPED | GROUP), "registration": ("elastix", {"atlas", "tables", *GROUP}),
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
    ("sub-02/anat/sub-02_MESE.nii.gz", one_voxel, T2_MAPPED | GROUP),
    ("sub-02/anat/sub-02_MESE.json", lambda p: p.write_text(p.read_text().replace("0.03", "0.04")), T2_MAPPED | GROUP),
    ("derivatives/rater/sub-02/anat/sub-02_dseg.nii.gz", one_voxel,
     {"score", "tables", "models"}),
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


def warped(study, person, key):
    """Return a person's map in atlas space, as written."""
    return read_image(output(study, f"{person}/anat/{person}_space-DiscAtlas_{key}.nii.gz"))


def stat(study, name, analysis="grade"):
    return read_image(output(study, f"group/analysis-{analysis}/space-DiscAtlas_stat-{name}.nii.gz")).array


@functools.cache
def at_level(level):
    return read_image(shipped_atlas().parent / "atlas_dseg.nii.gz").array == disc_value(level)


def page_tables(run, section):
    """Return caption -> rows of the tables of a section of the report, cells as text by column."""
    html = run.report.read_text(encoding="utf-8").split(f'id="{section}"')[1].split("<section")[0]
    found = {}
    for table in html.split("<table>")[1:]:
        table = table.split("</table>")[0]
        names = [re.sub(r"<[^>]*>", "", re.split(r"<span", h)[0]).strip() for h in re.findall(r"<th[^>]*>(.*?)</th>",
                                                                                              table, re.DOTALL)]
        body = table.split("<tbody>")[1]
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body.split("<tr>")[1:]]
        found[re.search(r"<caption>(.*?)</caption>", table).group(1)] = [dict(zip(names, row)) for row in rows]
    return found


def test_group_maps_are_those_of_the_people(run, study):
    for key, people in HAVE.items():
        maps = np.stack([warped(study, p, key).array for p in people]).astype(float)
        count = np.isfinite(maps).sum(axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # voxels without a value
            expected = {"n": count, "mean": np.nanmean(maps, axis=0), "sd": np.nanstd(maps, axis=0, ddof=1)}
        assert count.max() == len(people)
        for name, values in expected.items():
            found = read_image(output(study, f"group/space-DiscAtlas_stat-{name}_{key}.nii.gz")).array
            np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-4, err_msg=f"{name} {key}")


def test_each_level_is_explained_by_its_own_grades(run, study):
    """Correlation with the grade of that person and level, by numpy, where everyone who has the disc has a value."""
    for key, people in HAVE.items():
        found = stat(study, f"{key}_pfirrmann_r")
        images = {p: warped(study, p, key).array.astype(float) for p in people}
        for level in LEVELS:
            graded = [p for p in people if (p, level) in GRADE]
            maps = np.stack([images[p][at_level(level)] for p in graded])
            full = np.isfinite(maps).all(axis=0) & (maps.std(axis=0) > 1e-3)
            grades = np.array([GRADE[p, level] for p in graded], float)
            r = [np.corrcoef(grades, v)[0, 1] for v in maps[:, full].T]
            assert len(r) > 100
            np.testing.assert_allclose(found[at_level(level)][full], r, atol=1e-4, err_msg=f"{key} {level}")


def p_rows(study, key, analysis, level):
    """Return what a row of the report about a level says, from the files of an analysis."""
    inside, row = at_level(level), {}
    for words, name in (("", "pfwe"), (" (TFCE)", "ptfce")):
        p = stat(study, f"{key}_pfirrmann_{name}", analysis)[inside]
        p = p[np.isfinite(p)]
        row |= {f"smallest p{words}": float(p.min()),
                f"significant{words}": 100 * float(np.mean(p < SETTINGS["alpha"]))}
    r = stat(study, f"{key}_pfirrmann_r", analysis)[inside]
    r = r[np.isfinite(r)]
    return row | {"voxels": len(r), "median r": float(np.median(r)), "strongest r": float(r[np.abs(r).argmax()])}


@pytest.mark.parametrize("key", list(HAVE))
def test_tables_of_the_report_are_of_the_corrected_p(run, study, key):
    rows = page_tables(run, "parametric")[f"{key} and pfirrmann, by level"]
    assert {row["level"] for row in rows} == set(LEVELS)
    for row in rows:
        expected = p_rows(study, key, "grade", row["level"])
        for name, value in expected.items():
            assert row[name] == cell_text(value), (row["level"], name)
        p = stat(study, f"{key}_pfirrmann_p")[at_level(row["level"])]
        assert np.nanmin(p) < expected["smallest p"] and 100 * np.mean(
            p[np.isfinite(p)] < SETTINGS["alpha"]) > expected["significant"] + 1, "they must differ"


@pytest.mark.parametrize("key", list(HAVE))
def test_sensitivity_table_is_of_the_corrected_p(run, study, key):
    rows = page_tables(run, "sensitivity")[f"{key} and pfirrmann, by level"]
    counts = {(level, who): len([p for p in HAVE[key] if (p, level) in GRADE and (who == "everyone" or p != "sub-06")])
              for level in reversed(LEVELS) for who in ("everyone", SETTINGS["sensitivity"])}
    # Three people are too few for a line.
    assert {(r["level"], r["analysis"]): int(r["people"]) for r in rows} == {k: n for k, n in counts.items() if n > 3}
    for row in rows:
        name = "grade" if row["analysis"] == "everyone" else "grade-sensitivity"
        expected = p_rows(study, key, name, row["level"])
        for column in ("voxels", "median r", "smallest p", "smallest p (TFCE)"):
            assert row[column] == cell_text(expected[column]), (row, column)


def test_region_table_is_of_the_written_rows(run, study):
    rows = read_rows(output(study, "group/regions.tsv")).rows
    for key in HAVE:
        for row in page_tables(run, "regions")[f"{key} by level and region, mean (SD between people)"]:
            for region in ("whole", "nucleus", "anterior annulus"):
                values = [r["mean"] for r in rows if (r["map"], r["level"], r["region"]) == (
                    key, row["level"], region.replace(" ", "_"))]
                mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
                assert row[region] == f"{cell_text(mean)} ({cell_text(sd)})"
                assert row["discs"] == str(len(values))


def test_mixed_models_of_the_report_are_those_of_statsmodels(run, study):
    """Grade, level and a random person, fitted by statsmodels to the written tables; limits are its conf_int."""
    pandas, smf = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.formula.api")
    frame = pandas.read_csv(output(study, "group/regions.tsv"), sep="\t", na_values="n/a")
    frame["grade"] = [GRADE.get((p, level)) for p, level in zip(frame.participant_id, frame.level)]
    written = read_rows(output(study, "group/mixed_models.tsv")).rows
    assert {(r["map"], r["region"]) for r in written} >= {(k, r) for k in HAVE for r in ("whole", "nucleus")}
    compared = 0
    for row in written:
        some = frame[(frame["map"] == row["map"]) & (frame.region == row["region"])]
        assert (row["term"], row["discs"], row["people"]) == ("pfirrmann", len(some), some.participant_id.nunique())
        assert np.isfinite([row["low"], row["high"], row["p"]]).all()
        if row["icc"] < 0.1 or row["map"] == "nT2w":  # at the boundary optimizers differ
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer, alone = (smf.mixedlm(formula, some, groups=some.participant_id).fit(method=["bfgs", "lbfgs"])
                           for formula in ("mean ~ grade + C(level)", "mean ~ grade"))
        low, high = peer.conf_int().loc["grade"]
        np.testing.assert_allclose((row["estimate"], row["low"], row["high"]), (peer.params["grade"], low, high),
                                   rtol=0.01)
        assert abs(alone.params["grade"] / peer.params["grade"] - 1) > 0.02, "levels must differ by themselves"
        compared += 1
    assert compared >= 2
    shown = page_tables(run, "regions")["T1rho: mixed models"]
    for row, cells in zip((r for r in written if r["map"] == "T1rho"), shown):
        assert cells["change"] == cell_text(row["estimate"]) and cells["p"] == cell_text(row["p"])
        assert cells["95 % limits"] == f"{cell_text(row['low'])} to {cell_text(row['high'])}"


def test_agreement_is_that_of_the_written_masks(run, study):
    rows = read_rows(output(study, "group/agreement.tsv")).rows
    assert {(r["participant_id"], r["level"]) for r in rows} == {(p, v) for p in ("sub-01", "sub-02") for v in LEVELS}
    for row in rows:
        person, value = row["participant_id"], disc_value(row["level"])
        found, true = (read_image(path).array == value for path in (
            output(study, f"{person}/anat/{person}_desc-discs_dseg.nii.gz"),
            study / f"derivatives/rater/{person}/anat/{person}_dseg.nii.gz"))
        assert row["dice"] == pytest.approx(2 * (found & true).sum() / (found.sum() + true.sum()))
        assert row["dice"] < 1 if (person, row["level"]) in {("sub-01", "L4-L5"), ("sub-02", "L5-S1")} else row[
            "dice"] == 1
        image = read_image(output(study, f"{person}/anat/{person}_desc-csfnorm_nT2w.nii.gz")).array
        assert row["nT2w"] == pytest.approx(image[found].mean(), rel=1e-5)
        assert row["nT2w_reference"] == pytest.approx(image[true].mean(), rel=1e-5)
    text = run.report.read_text(encoding="utf-8").split('id="agreement"')[1].split("<section")[0]
    assert cell_text(float(np.mean([r["dice"] for r in rows]))) in text


def test_three_routes_give_one_answer(run, study):
    """The study, the panel's job and `analyze` itself, each reading the files for itself: the same to the last digit.

    The table lists people in an order that is not that of their ids.
    """
    start_headless()
    from DiscAtlasLib import load_atlas
    from DiscStats import DiscStatsLogic

    atlas, table = load_atlas(shipped_atlas().parent), study / "participants.tsv"
    names = {code: name for name, code in PARTITION.items()}
    frame, files = read_participants(table), find_maps(output(study, ""))["T2"]
    frame = frame[frame.participant_id.isin(list(files))]
    assert frame.participant_id.tolist() != sorted(files)
    by_call = analyze({"T2": {p: read_image(f) for p, f in files.items()}}, atlas.labels, frame, "T2 ~ pfirrmann",
                      "pfirrmann", AnalysisSettings(n_permutations=120), levels=list(LEVELS), regions=atlas.regions,
                      region_names=names)
    by_panel = DiscStatsLogic().analysisJob(
        {"T2": files}, atlas.labels, frame, "T2 ~ pfirrmann", "pfirrmann", atlas.regions, region_names=names,
        n_permutations=120, levels=list(LEVELS)).run()
    compared = [name for name in by_call.maps if name.startswith("T2_pfirrmann_")]
    assert {"T2_pfirrmann_pfwe", "T2_pfirrmann_ptfce", "T2_pfirrmann_pextent", "T2_pfirrmann_pperm"} <= set(compared)
    for name in compared:
        for other in (by_panel.maps[name].array, stat(study, name)):
            np.testing.assert_array_equal(other, np.asarray(by_call.maps[name].array, np.float32), err_msg=name)
    assert by_panel.clusters.rows == by_call.clusters.rows
    written = read_rows(output(study, "group/analysis-grade/T2_clusters.tsv")).rows
    assert [r["p_extent"] for r in written] == pytest.approx([r["p_extent"] for r in by_call.clusters.rows], rel=1e-5)
    assert [r["region"] for r in written] == [r["region"] for r in by_call.clusters.rows]


def test_every_step_is_done(run):
    assert [f"{o.person} {o.step}: {o.message}" for o in run.outcomes if o.state != "done"] == []
    assert run.report.exists() and run.missing == {}


@pytest.mark.parametrize("kind", ["T1rho", "T2"])
def test_true_relaxation_times_come_out(run, study, kind):
    rows = [r for r in read_rows(output(study, "group/regions.tsv")).rows
            if r["map"] == kind and r["region"] == "nucleus"]
    assert {(r["participant_id"], r["level"]) for r in rows} == {k for k in GRADE if k[0] in HAVE[kind]}
    for row in rows:
        # The true nucleus of the phantom is smaller than the region: the median is of it, the mean is not.
        truth = true_nucleus(kind, GRADE[row["participant_id"], row["level"]], row["level"])
        assert row["median"] == pytest.approx(truth, rel=0.08), row


def test_echoes_and_anatomy_meet_in_atlas_space(run, study):
    """People moved 6 mm and 5 degrees, otherwise for each series: the bright nucleus is in one place all the same."""
    images = {key: warped(study, "sub-01", key) for key in HAVE}
    for level in LEVELS:
        centers = {}
        for key, image in images.items():
            bright = 0.43 if key == "nT2w" else (true_nucleus(key, GRADE["sub-01", level], level) + ANNULUS[key]) / 2
            where = at_level(level) & (np.nan_to_num(image.array) > bright)
            centers[key] = image.geometry.index_to_world(np.argwhere(where)[:, ::-1]).mean(axis=0)
        for kind in ("T1rho", "T2"):
            # Echo voxels are 2 mm high; the inverse transform would be off by 12 mm.
            assert np.linalg.norm(centers[kind] - centers["nT2w"]) < 2.0, (kind, level)


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
