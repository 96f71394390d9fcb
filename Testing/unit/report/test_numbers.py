"""Numbers of the report that are recomputed by hand: outlines, agreement, use in training, region tables."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.report import group, stats
from DiscStudyLib.steps.group import _score_row

GRID = Geometry((6, 1, 1), (2.0, 3.0, 4.0))
LABELS = np.array([[[disc_value("L4-L5")] * 3 + [disc_value("L5-S1")] * 3]], np.uint8)


def image(*values, dtype=np.float32):
    return Image(np.array([[values]], dtype), GRID)


def test_significant_voxels_are_outlined_and_p_is_shown_by_its_logarithm(monkeypatch):
    drawn = {}
    monkeypatch.setattr(stats, "atlas_figure", lambda columns, labels, levels, outline: drawn.update(
        columns=columns, outline=outline))
    monkeypatch.setattr(stats, "save", lambda *given: None)
    context = SimpleNamespace(settings=SimpleNamespace(alpha=0.02, levels=("L4-L5", "L5-S1")))
    maps = {"r": image(-0.9, 0.5, 0.2, np.nan, 0.1, -0.3), "effect": image(-9, 5, 2, np.nan, 1, -3),
            "pfwe": image(0.01, 0.03, 1, np.nan, 0.002, 0.02), "p": image(0.001, 0.001, 0.5, np.nan, 0.0002, 0.002),
            "ptfce": image(0.004, 0.5, 1, np.nan, 0.3, 0.3)}
    facts = {"n": 6, "people": list("abcdef"), "levels": {"L4-L5": 6, "L5-S1": 6}, "discs": 0}
    blocks = stats._map_blocks(context, None, "T2", "age", facts, maps, Image(LABELS, GRID))
    for outline in drawn["outline"].values():
        np.testing.assert_array_equal(outline.array.ravel(), [1, 0, 0, 0, 1, 0])
    logs, look = drawn["columns"]["−log10 p"]
    np.testing.assert_allclose(logs.array.ravel(), -np.log10(maps["pfwe"].array.ravel()), rtol=1e-6)
    assert (look.high, look.legend) == (pytest.approx(-np.log10(0.002), rel=1e-5), "family-wise")
    shown = drawn["columns"]["Effect"][1]
    top = np.percentile([9, 5, 2, 1, 3], 98)
    assert (shown.low, shown.high) == (pytest.approx(-top), pytest.approx(top))
    upper, lower = (next(r for r in blocks[1].table.rows if r["level"] == v) for v in ("L4-L5", "L5-S1"))
    assert (upper["voxels"], lower["voxels"]) == (3, 2)
    assert (upper["median r"], upper["strongest r"]) == (pytest.approx(0.2), pytest.approx(-0.9))
    assert (upper["smallest p"], upper["significant"]) == (pytest.approx(0.01), pytest.approx(100 / 3))
    assert (lower["smallest p"], lower["significant"]) == (pytest.approx(0.002), pytest.approx(50))
    assert (upper["smallest p (TFCE)"], lower["significant (TFCE)"]) == (pytest.approx(0.004), 0)


def test_agreement_counts_missing_values_and_voxels_of_the_reference_apart():
    found = Image(LABELS, GRID)
    true = image(12, 12, 0, 0, 11, 11, dtype=np.uint8)
    nan = np.nan
    values = image(10, nan, 40, 70, 80, 90)
    row = _score_row("sub-01", 12, found, true, {"T2": (values, found, true)})
    assert row["dice"] == pytest.approx(2 * 2 / 5)
    assert (row["volume"], row["volume_reference"]) == (pytest.approx(3 * 24e-3), pytest.approx(2 * 24e-3))
    assert (row["T2"], row["T2_reference"]) == (25.0, 10.0)
    row = _score_row("sub-01", 12, found, true, {"T2": (image(nan, nan, nan, 1, 1, 1), found, true)})
    assert np.isnan(row["T2"]) and np.isnan(row["T2_reference"])


def test_people_of_the_training_set_stand_apart(monkeypatch):
    monkeypatch.setattr(group, "trained_on", lambda study: {"sub-02", "sub-03"})
    rows = [{"participant_id": p, "dice": d} for p, d in (("sub-01", 0.5), ("sub-02", 0.9), ("sub-02", 0.7),
                                                          ("sub-03", 0.6), ("sub-01", 0.7), ("sub-04", 0.8))]
    inside, outside = group._by_training(SimpleNamespace(study=None), rows).rows
    assert (inside["people"], inside["n"], inside["discs"]) == ("in the training set", 2, 3)
    assert (inside["mean Dice"], inside["worst person"]) == (pytest.approx(2.2 / 3), pytest.approx(0.6))
    assert (outside["people"], outside["n"], outside["discs"]) == ("held out", 2, 3)
    assert (outside["mean Dice"], outside["worst person"]) == (pytest.approx(2 / 3), pytest.approx(0.6))


def test_all_is_read_that_a_figure_and_its_table_ask_for(monkeypatch):
    """And of no other contrast, whose name begins alike."""
    class Asked(dict):
        def get(self, name):
            self[name] = name

    asked = Asked()
    assert stats._map_blocks(None, None, "T2", "age", {}, asked, None) == [] and len(asked) > 3
    written = [f"T2_{contrast}_{name}" for contrast in ("age", "age_sex") for name in (*asked, "t", "df")]
    monkeypatch.setattr(stats, "read_image", lambda path: path)
    context = SimpleNamespace(output_of=lambda step, ending: f"{step}/{ending}")
    assert stats.read_stats(context, "analysis", "T2_age", written) == {
        name: f"analysis/stat-T2_age_{name}.nii.gz" for name in asked}
    assert stats.read_stats(context, "analysis", "T2_age", ["T2_age_r"]).keys() == {"r"}
