"""Which steps of the real pipeline become due: for each setting, and for each file that a step reads."""

import json
import os
import shutil
from dataclasses import fields

import numpy as np
import pytest
import SimpleITK as sitk
from support.study_results import GRADES, SETTINGS

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image, write_image
from DiscStudyLib import Settings, Study, make_settings, plan_study
from DiscStudyLib.engine import PersonContext, results, shipped_atlas
from DiscStudyLib.steps.person import SEGMENT_STEP

TABLES = {"tables", "decisions"}
JOINED = {"measure", "tile", "atlas", "score", "automatic", *TABLES}
MAPPED = {"maps-T1rho", "carry-T1rho", *JOINED}
T2_MAPPED = {"maps-T2", "carry-T2", *JOINED}
ANALYZED = {"analysis-grade", "analysis-grade-sensitivity"}
GROUP = {"means", *ANALYZED, "models"}
SEGMENTED = {"segment", "review", "normalize", "grade", "carry-T1rho", "carry-T2", *JOINED, *GROUP}
#: For each setting: another value, and the steps that become due besides the report.
DUE = {
    "formula": ("pfirrmann + age", GROUP), "contrast": ("pfirrmann", ANALYZED), "maps": (("T1rho",), GROUP),
    "analysis": ("other", {"analysis-other", "analysis-other-sensitivity"}), "segmentation": ("cnn", SEGMENTED),
    "engine": ("onnx", SEGMENTED), "align": ("on", MAPPED | T2_MAPPED | GROUP),
    "t1rho_model": ("mono3", MAPPED | GROUP), "t2_model": ("epg", T2_MAPPED | GROUP),
    "estimator": ("loglinear", MAPPED | T2_MAPPED | GROUP), "registration": ("elastix", {"atlas", *TABLES, *GROUP}),
    "template": ("build", {"template", "atlas", *TABLES, *GROUP}), "levels": (("L4-L5", "L5-S1"), SEGMENTED),
    "permutations": (300, ANALYZED), "seed": (7, ANALYZED),
    "sensitivity": ("participant_id != sub-05", {"analysis-grade-sensitivity"}), "missing": ("complete", ANALYZED),
    "errors": ("symmetric", ANALYZED), "pooled": (True, {"pooled-disc", *ANALYZED}),
    "groups": ("pfirrmann <= 3", {"group-means"}), "variance_groups": ("sex", ANALYZED),
    "standard_errors": ("hc3", ANALYZED), "alpha": (0.01, set()),
    "require_review": ("all", None), "session": ("ses-01", None), "change": ("absolute", None),
    "on_error": ("stop", None), "threads": (2, None)}


def due(plan) -> set[str]:
    return {o.step for o in plan.outcomes if o.state == "pending"}


@pytest.mark.parametrize("name", [f.name for f in fields(Settings)])
def test_each_setting_redoes_the_steps_that_it_shapes(run, study, name):
    value, steps = DUE[name]
    settings = {"formula": "pfirrmann", **SETTINGS, name: value}
    if name == "change":  # of visits: test_study_visits.py
        with pytest.raises(StudyError, match="between visits"):
            make_settings(**settings)
        return
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
     {"score", "models", *TABLES}),
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
    assert due(plan_study(study, "pfirrmann", **SETTINGS)) == {"atlas", *TABLES, *GROUP, "report"}
    weights = tmp_path / "Weights" / "lumbar-discs.safetensors"
    weights.parent.mkdir()
    monkeypatch.setattr("DiscStudyLib.steps.person.resource_path", lambda name: weights.parent)
    context = PersonContext(Study(study), make_settings(segmentation="cnn"), {}, Study(study).person("sub-01"))
    found = []
    for content in (b"0", b"1"):
        weights.write_bytes(content)
        os.utime(weights, ns=(len(found), len(found)))
        found.append(SEGMENT_STEP.extra(context))
    assert found[0] != found[1]


def test_a_template_that_was_built_anew_is_read_anew(tmp_path):
    """One process may run a study again after somebody was added."""
    folder = shutil.copytree(shipped_atlas().parent, tmp_path / "atlas")
    first = results._atlas_at(folder / "atlas.json")
    assert results._atlas_at(folder / "atlas.json") is first
    labels = folder / "atlas_dseg.nii.gz"
    image = read_image(labels)
    write_image(image.like(np.where(image.array == image.array.max(), 0, image.array)), labels)
    os.utime(folder / "atlas.json", ns=(1, 1))
    assert len(results._atlas_at(folder / "atlas.json").values) == len(first.values) - 1
