"""Every setting of a study reaches the function it is for: recorded calls of the steps, no value a default."""

import numpy as np
import pytest
from support.cohort_phantom import LEVELS
from support.recorder import Recorder
from support.study_results import GRADE, HAVE, output, warped

import DiscAtlasLib
import DiscRelaxometryLib.discs
import DiscRelaxometryLib.fit
import DiscRelaxometryLib.measure
import DiscStatsLib.analysis
import DiscStatsLib.tables
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.fit import FitOptions
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib import Study, make_settings
from DiscStudyLib.engine import GroupContext, PersonContext, shipped_atlas
from DiscStudyLib.engine.runner import person_records
from DiscStudyLib.steps.analysis import TEMPLATE_STEP, analysis_step
from DiscStudyLib.steps.maps import map_steps
from DiscStudyLib.steps.models import models_step
from DiscStudyLib.steps.person import ATLAS_STEP, SEGMENT_STEP

ANALYSIS = {"permutations": 321, "seed": 9, "missing": "complete", "errors": "symmetric", "standard_errors": "hc3"}


@pytest.fixture
def step(run, study, monkeypatch):
    """Run a step on sub-02 or the group up to a function that is replaced; return what this was given."""
    def recorded(made, module, name, person="sub-02", **settings):
        recorder = Recorder(monkeypatch, module, name, SegmentationError("far enough"))
        found = Study(study)
        records = {p.id: person_records(found, p.id) for p in found.people}
        context = (PersonContext(found, make_settings(**settings), records[person], found.person(person)) if person
                   else GroupContext(found, make_settings(**settings), {}, records))
        with pytest.raises(SegmentationError, match="far enough"):
            made.run(context)
        return recorder
    return recorded


def written(study, name):
    return read_image(output(study, f"sub-02/anat/sub-02_{name}.nii.gz")).array


def test_segmentation(step, study):
    call = step(SEGMENT_STEP, DiscRelaxometryLib.discs, "segment", segmentation="cnn", engine="onnx", threads=3)
    image = call.given.pop("image")
    np.testing.assert_array_equal(image.array, read_image(study / "sub-02/anat/sub-02_T2w.nii.gz").array)
    assert call.given == {"engine": "onnx", "threads": 3}


@pytest.mark.parametrize("kind, model", [("T1rho", "mono3"), ("T2", "epg")])
@pytest.mark.parametrize("estimator", ["nlls", "rician"])
def test_fit(step, kind, model, estimator):
    own = {f"{kind.lower()}_model": model if estimator == "nlls" else "mono2"}
    call = step(map_steps(kind)[0], DiscRelaxometryLib.fit, "map_series", align="on", estimator=estimator, **own)
    assert (call.given["series"].kind, call.given["align"]) == (kind, "on")
    assert call.given["options"] == FitOptions(model=own[f"{kind.lower()}_model"], estimator=estimator)


@pytest.mark.parametrize("kind", ["T1rho", "T2"])
def test_carrying(step, study, kind):
    call = step(map_steps(kind)[1], DiscRelaxometryLib.measure, "carry_labels")
    assert set(call.given) == {"labels", "anatomical", "echo_image"}
    np.testing.assert_array_equal(call.given["labels"].array, written(study, "desc-discs_dseg"))
    np.testing.assert_array_equal(call.given["anatomical"].array, read_image(
        study / "sub-02/anat/sub-02_T2w.nii.gz").array)
    np.testing.assert_array_equal(call.given["echo_image"].array, written(study, f"acq-{kind}_desc-first_echo"))


def test_registration(step, study):
    call = step(ATLAS_STEP, DiscAtlasLib, "register_person", registration="elastix", levels=("L5-S1", "L3-L4"),
                threads=3)
    labels, atlas = call.given.pop("labels"), call.given.pop("atlas")
    np.testing.assert_array_equal(labels.array, written(study, "desc-discs_dseg"))
    np.testing.assert_array_equal(atlas.labels.array, read_image(shipped_atlas().parent / "atlas_dseg.nii.gz").array)
    assert sorted(call.given.pop("levels")) == ["L3-L4", "L5-S1"]
    assert call.given == {"backend": "elastix", "person": "sub-02", "workers": 3}


def test_template(step, study):
    call = step(TEMPLATE_STEP, DiscAtlasLib, "build_template", person="", levels=("L5-S1", "L3-L4"), threads=3)
    assert call.given["levels"] == ("L5-S1", "L3-L4") and call.given["workers"] == 3
    people = list(call.given["people"])
    assert [p for p, _ in people] == HAVE["nT2w"]
    np.testing.assert_array_equal(people[1][1].array, written(study, "desc-discs_dseg"))


@pytest.mark.parametrize("contrast", ["", "C(sex)"])
def test_analysis(step, study, contrast):
    call = step(analysis_step("second", "participant_id != sub-04"), DiscStatsLib.analysis, "analyze", person="",
                formula="age + C(sex)", contrast=contrast, maps=("T2",), levels=("L5-S1", "L3-L4"), **ANALYSIS)
    given = call.given
    assert (given["formula"], given["contrasts"]) == ("map ~ age + C(sex)", contrast or "age")
    assert given["settings"] == AnalysisSettings(n_permutations=321, **{k: v for k, v in ANALYSIS.items()
                                                                        if k != "permutations"})
    assert sorted(given["levels"]) == ["L3-L4", "L5-S1"]
    people = [p for p in HAVE["T2"] if p != "sub-04"]
    assert given["participants"]["participant_id"].tolist() == people and list(given["maps"]) == ["T2"]
    inside = np.isin(given["atlas_labels"].array, [disc_value(v) for v in given["levels"]])
    assert given["maps"]["T2"].shape == (len(people), inside.sum())
    for person, values in zip(people, np.asarray(given["maps"]["T2"])):
        np.testing.assert_array_equal(values, warped(study, person, "T2").array[inside])
    assert given["regions"].array.any() and "nucleus" in given["region_names"].values()


def test_mixed_models(step, study, monkeypatch):
    monkeypatch.setattr(GroupContext, "output_of", lambda self, step, ending: output(study, f"group/{ending}"))
    call = step(models_step(), DiscStatsLib.tables, "fit_mixed", person="", formula="pfirrmann", maps=("T1rho",),
                levels=("L5-S1", "L3-L4"))
    frame = call.given.pop("table")
    assert call.given == {"formula": "mean ~ pfirrmann + C(level)", "group": "participant_id", "missing": "drop"}
    assert set(frame["level"]) == {"L5-S1", "L3-L4"} and set(frame["map"]) == {"T1rho"}
    found = {(p, level): g for p, level, g in zip(frame["participant_id"], frame["level"], frame["pfirrmann"])}
    assert found == {k: g for k, g in GRADE.items() if k[1] in frame["level"].tolist()} and len(LEVELS) == 3
