"""DiscStatsLogic, headless: region tables, mixed models, agreement and ROC as MRML nodes."""

import numpy as np
import pandas as pd
import pytest

from DiscRelaxometryLib.headless import start_headless

start_headless()

from DiscRelaxometryLib import mrml as base  # noqa: E402
from DiscRelaxometryLib.errors import DesignError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image, read_image  # noqa: E402
from DiscStats import DiscStatsLogic  # noqa: E402

GEOMETRY = Geometry((10, 8, 3), (1, 1.5, 2))


@pytest.fixture
def cohort():
    rng = np.random.default_rng(1)
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[:, :3, 1:9], labels[:, 5:, 1:9] = 11, 12
    regions = np.where(labels > 0, 1 + (np.indices(GEOMETRY.shape)[2] >= 5), 0).astype(np.uint8)
    table = pd.DataFrame({"participant_id": [f"sub-{n:02d}" for n in range(20)], "age": rng.uniform(20, 80, 20),
                          "sex": ["M", "F"] * 10, "grade_L5S1": rng.integers(1, 6, 20),
                          "grade_L4L5": rng.integers(1, 6, 20)})
    maps = []
    for person in table.itertuples():
        values = np.where(labels > 0, rng.normal(80, 2, GEOMETRY.shape) + rng.normal(0, 3), np.nan)
        for label, grade in ((11, person.grade_L5S1), (12, person.grade_L4L5)):
            values[labels == label] -= 4.0 * grade
        maps.append(Image(values, GEOMETRY))
    maps[3].array[labels == 12] = np.nan
    return maps, Image(labels, GEOMETRY), table, Image(regions, GEOMETRY)


def test_region_table_has_each_discs_own_grade_and_mean(slicer, cohort):
    maps, labels, table, regions = cohort
    node = DiscStatsLogic().regionTable({"T2": maps}, labels, table, regions, region_names={1: "front", 2: "back"})
    rows = pd.DataFrame(base.table_from_node(node).rows)
    assert len(rows) == 20 * 2 * 2 and set(rows.level) == {"L5-S1", "L4-L5"} and set(rows.region) == {"front", "back"}
    row = rows[(rows.participant_id == "sub-05") & (rows.level == "L4-L5") & (rows.region == "back")].iloc[0]
    inside = (labels.array == 12) & (regions.array == 2)
    assert row["T2"] == pytest.approx(maps[5].array[inside].mean()) and row["T2_voxels"] == inside.sum()
    assert row["T2_sd"] == pytest.approx(maps[5].array[inside].std(ddof=1))
    assert row["grade"] == table.grade_L4L5[5] and row["age"] == pytest.approx(table.age[5])
    absent = rows[(rows.participant_id == "sub-03") & (rows.level == "L4-L5")]
    assert absent["T2"].isna().all() and (absent["T2_voxels"] == 0).all()


def test_mixed_model_of_the_region_table_is_statsmodels(slicer, cohort):
    import statsmodels.formula.api as smf

    maps, labels, table, _ = cohort
    logic = DiscStatsLogic()
    node = logic.regionTable({"T2": maps}, labels, table)
    formula = "T2 ~ grade + C(level) + age"
    fixed, variances = logic.mixedModel(node, formula, missing="drop")
    frame = pd.DataFrame(base.table_from_node(node).rows).dropna(subset=["T2"])
    peer = smf.mixedlm(formula, frame, groups=frame["participant_id"]).fit(reml=True)
    ours = pd.DataFrame(base.table_from_node(fixed).rows).set_index("term")
    for term in ("grade", "age"):
        assert ours.estimate[term] == pytest.approx(peer.fe_params[term], rel=1e-3)
        assert ours.se[term] == pytest.approx(peer.bse_fe[term], rel=1e-2)
    assert ours.low["grade"] < -4 < ours.high["grade"]  # what was planted
    assert "39 rows of 20 people" in fixed.GetDescription() and "1 row(s)" in fixed.GetDescription()
    between = pd.DataFrame(base.table_from_node(variances).rows).set_index("component").sd["person: intercept"]
    assert 1.5 < between < 5  # planted: 3
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(DesignError, match="lack a value"):
        logic.mixedModel(node, formula)
    with pytest.raises(DesignError, match="'T3'"):
        logic.mixedModel(node, "T3 ~ grade")
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_agreement_and_roc_become_nodes(slicer):
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(2)
    table = pd.DataFrame({"manual": rng.normal(60, 8, 30)})
    table["automatic"] = table.manual + rng.normal(1, 2, 30)
    table["painful"] = (table.manual + rng.normal(0, 6, 30) > 60).astype(int)
    logic = DiscStatsLogic()
    rows = base.table_from_node(logic.agreement(table, "automatic", "manual", "ms")).rows
    values = {r["measure"]: r["value"] for r in rows}
    assert values["bias"] == pytest.approx((table.automatic - table.manual).mean())
    assert {f"ICC({f},{k})" for f in (1, 2, 3) for k in (1, "k")} <= set(values) and "concordance correlation" in values
    chart = logic.rocCurve(table, "manual", "painful")
    area = mannwhitneyu(table.manual[table.painful == 1], table.manual[table.painful == 0]).statistic
    area /= table.painful.sum() * (30 - table.painful.sum())
    assert f"{area:.3f} (" in chart.GetDescription() and chart.GetNumberOfPlotSeriesNodes() == 2
    points = base.table_from_node(chart.GetNthPlotSeriesNode(0).GetTableNode()).rows
    mirrored = logic.rocCurve(table.assign(manual=-table.manual), "manual", "painful")
    # By trapezoids: more than half above the diagonal, less below it.
    for shown, expected in ((points, area), (base.table_from_node(mirrored.GetNthPlotSeriesNode(0).GetTableNode()).rows,
                                             1 - area)):
        assert np.trapezoid([r["y"] for r in shown], [r["x"] for r in shown]) == pytest.approx(expected)
    with pytest.raises(DesignError, match="no column 'reader'"):
        logic.agreement(table, "reader", "manual")
    with pytest.raises(DesignError, match="holds 'x' where a number"):
        logic.rocCurve(table.assign(manual="x"), "manual", "painful")


def test_maps_can_be_saved_as_nrrd(slicer, cohort, tmp_path):
    maps, labels, table, _ = cohort
    logic = DiscStatsLogic()
    result = logic.analyze({"T2": maps}, labels, table, "T2 ~ grade", missing="available", correction=())
    logic.saveResult(result, tmp_path, extension=".nrrd")
    back = read_image(tmp_path / "stat-T2-grade-t_statmap.nrrd")
    np.testing.assert_array_equal(back.array, result.maps["T2_grade_t"].array)
    assert (tmp_path / "stat-T2-grade-t_statmap.json").exists()
    with pytest.raises(DesignError, match="'.png'"):
        logic.saveResult(result, tmp_path, extension=".png")
