"""What steps and later questions hand on: the reference's discs alone, the term that is asked about, and first."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib.after import power
from DiscStudyLib.engine import load_series
from DiscStudyLib.folder import Series, make_settings
from DiscStudyLib.steps import group, models, person

GRID = Geometry((5, 1, 1))


def test_the_references_discs_come_to_the_echoes_without_its_vertebrae(monkeypatch):
    """A vertebra that fills more of a thick voxel than the disc would take it."""
    reference = Image(np.array([[[11, 31, 2, 30, 12]]], np.uint8), GRID)
    carried: list = []
    monkeypatch.setattr(group, "person_maps", lambda context: {"T2": (reference, reference), "nT2w": (reference,) * 2})
    monkeypatch.setattr(group, "echo_transform", lambda context, key: key)
    monkeypatch.setattr(group, "resample_labels", lambda labels, grid, transform: (carried.append(labels), transform))
    found = group._scored_maps(None, reference)
    assert carried[0].array.tolist() == [[[11, 0, 0, 0, 12]]] and len(carried) == 1
    assert found["nT2w"][2] is reference


def test_the_term_of_interest_is_the_first_of_a_mixed_model(monkeypatch):
    """Factors stand before numbers in a design, whatever the formula says."""
    rng = np.random.default_rng(0)
    people = [f"sub-{n:02d}" for n in range(12)]
    table = Table("participants", [Column(n) for n in ("participant_id", "age", "sex")], [
        {"participant_id": p, "age": str(30 + 3 * n), "sex": "MF"[n % 2]} for n, p in enumerate(people)])
    rows = [{"participant_id": p, "level": level, "mean": 100 + rng.normal(), "unit": "ms"} for p in people
            for level in ("L4-L5", "L5-S1")]
    monkeypatch.setattr(models, "participants_of", lambda context: table)
    for formula, first in (("age + C(sex)", "age"), ("C(sex) + age", "C(sex)[T.M]")):
        study = SimpleNamespace(block="participant_id")
        context = SimpleNamespace(settings=make_settings(formula=formula), study=study)
        found = models.fitted_terms(context, "T2", "whole", rows)
        assert found[0]["term"] == first and len(found) == 2
        assert {r["discs"] for r in found} == {24} and {r["people"] for r in found} == {12}


def test_power_is_of_the_formula_that_was_asked_about(monkeypatch, tmp_path):
    """The last run's contrast, rule and groups are of its own formula; its statistics stay."""
    ran = make_settings(formula="T2 ~ grade + age", contrast="age", sensitivity="age > 40", groups="sex", seed=9)
    study = SimpleNamespace(output=tmp_path, people=[], participants={"participant_id": ["sub-01"]})
    asked: dict = {}
    labels = Image(np.array([[[11, 12, 12, 0, 13]]], np.uint8), GRID)
    (tmp_path / "group").mkdir()

    def design_power(values, labels, participants, formula, contrast, planted, **options):
        asked.update(options, formula=formula, contrast=contrast, planted=planted, labels=labels.array[0, 0].tolist())
        return Table("power", [Column("n")], [])

    for name, value in (("Study", lambda *arguments: study), ("last_settings", lambda study: ran),
                        ("person_records", lambda study, person: {}),
                        ("maps_in_atlas", lambda context: {"T2": {"sub-01": tmp_path}}),
                        ("observations", lambda context, family, people: {
                            "atlas_labels": labels, "regions": labels, "levels": ["L4-L5", "L5-S1"],
                            "maps": {"T2": None}, "participants": people})):
        monkeypatch.setattr(power, name, value)
    monkeypatch.setattr("DiscStatsLib.analysis.design_power", design_power)
    power.study_power(tmp_path, "T2 ~ odi + age", 3.0, levels=("L5-S1",), sizes=(20, 40), sets=7)
    assert asked["formula"].partition("~")[2].strip() == "odi + age" and asked["contrast"] == "odi"
    assert (asked["sizes"], asked["sets"]) == ((20, 40), 7)
    assert asked["settings"].seed == 9 and asked["labels"] == [11, 12, 12, 0, 0]
    assert asked["planted"].effect == 3.0 and (asked["planted"].place.array[0, 0] > 0).tolist() == [True, *[False] * 4]


def test_what_is_scored_stands_in_the_column_of_its_own_mask():
    grid = Geometry((6, 1, 1), (10.0, 10.0, 10.0))
    found, true = (Image(np.array([[row]], np.uint8), grid) for row in ([11, 11, 0, 0, 0, 12], [11] * 4 + [0, 0]))
    values = Image(np.array([[[10.0, 20.0, 60.0, np.nan, 90.0, 90.0]]]), grid)
    row = group._score_row("sub-01", 11, found, true, {"T2": (values, found, true)})
    assert (row.pop("participant_id"), row.pop("level")) == ("sub-01", "L5-S1")
    assert row == pytest.approx({"dice": 4 / 6, "volume": 2, "volume_reference": 4, "T2": 15, "T2_reference": 30})


def test_confidence_is_kept_in_percent(monkeypatch, tmp_path):
    labels = Image(np.array([[[11, 12, 13, 14, 15]]], np.uint8), GRID)
    confidence = labels.like(np.array([[[0.0, 0.254, 0.996, 1.0, np.nan]]], np.float32))
    result = SimpleNamespace(found=True, labels=labels, confidence=confidence, flags=[], quality=[], model="m",
                             engine="onnx", certain=True, evidence="")
    monkeypatch.setattr(person, "anatomical_image", lambda who: labels)
    monkeypatch.setattr(person, "uses_existing", lambda context: False)
    monkeypatch.setattr("DiscRelaxometryLib.discs.segment", lambda image, **options: result)
    context = SimpleNamespace(person=None, settings=make_settings(), notes=[], facts={}, path=tmp_path.joinpath)
    person._run_segment(context)
    assert read_image(tmp_path / "desc-confidence_percent.nii.gz").array.tolist() == [[[0, 25, 100, 100, 0]]]
    assert context.facts["levels"] == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"] and not context.notes


@pytest.mark.parametrize("kind, found", [("T1rho", "spin locks"), ("T2", "preparations")])
def test_each_map_of_a_combined_acquisition_has_its_own_series(monkeypatch, kind, found):
    monkeypatch.setattr("DiscRelaxometryLib.echo.read_mapss", lambda source: ("spin locks", "preparations"))
    assert load_series(Series("sub-01", ("all.nii.gz",), "mapss"), kind) == found
