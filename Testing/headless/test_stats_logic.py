"""DiscStatsLogic, headless: maps to volumes, cluster table and plots; files; z scores; real people where they are."""

import json

import numpy as np
import pandas as pd
import pytest

from DiscRelaxometryLib.headless import start_headless

start_headless()

import DiscStats as module  # noqa: E402
from DiscRelaxometryLib import mrml as base  # noqa: E402
from DiscRelaxometryLib.errors import Cancelled, DesignError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image  # noqa: E402
from DiscRelaxometryLib.jobs.jobs import Job  # noqa: E402
from DiscStats import DiscStatsLogic  # noqa: E402
from DiscStatsLib.mrml import _box  # noqa: E402

GEOMETRY = Geometry((10, 8, 3), (1, 1.5, 2), (5, -7, 20), (0, 1, 0, -1, 0, 0, 0, 0, 1))


def atlas():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[:, :3, 1:9], labels[:, 5:, 1:9] = 11, 12
    return Image(labels, GEOMETRY)


@pytest.fixture
def cohort():
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"participant_id": [f"sub-{n:02d}" for n in range(20)], "age": rng.uniform(20, 80, 20),
                          "sex": ["M", "F"] * 10, "grade_L5S1": rng.integers(1, 6, 20),
                          "grade_L4L5": rng.integers(1, 6, 20)})
    maps = []
    for grade in table.grade_L5S1:
        values = np.where(atlas().array > 0, rng.normal(80, 2, GEOMETRY.shape), np.nan)
        values[:2, :2, 1:5] -= 3.0 * grade
        maps.append(Image(values.astype(np.float32), GEOMETRY))
    return table, maps


@pytest.fixture
def result(slicer, cohort):
    table, maps = cohort
    return DiscStatsLogic().analyze(maps, atlas(), table, "T2 ~ grade + age + C(sex)", ["grade", "sex"], atlas(),
                                    n_permutations=99, seed=1, region_names={11: "lower", 12: "upper"})


def test_nodes_tables_and_files_give_the_same_analysis(slicer, cohort, tmp_path):
    table, maps = cohort
    logic, settings = DiscStatsLogic(), {"n_permutations": 19, "seed": 1}
    volumes = [base.volume_from_image(m, f"map {n}") for n, m in enumerate(maps)]
    labels = base.volume_from_image(atlas(), "atlas", class_name="vtkMRMLLabelMapVolumeNode")
    paths = [write_image(m, tmp_path / f"{n}.nii.gz") for n, m in enumerate(maps)]
    table.to_csv(tmp_path / "participants.tsv", sep="\t", index=False)
    node = slicer.util.loadTable(str(tmp_path / "participants.tsv"))
    first = logic.analyze(volumes, labels, node, "T2 ~ grade + C(sex)", **settings)
    second = logic.analyze(paths, write_image(atlas(), tmp_path / "atlas.nii.gz"), tmp_path / "participants.tsv",
                           "T2 ~ grade + C(sex)", **settings)
    for name in ("T2_grade_t", "T2_grade_pfwe", "T2_sex_ptfce"):
        np.testing.assert_array_equal(first.maps[name].array, second.maps[name].array)


def test_assumptions_pass_through_the_batch_interface(slicer, cohort):
    table, maps = cohort
    result = DiscStatsLogic().analyze(maps, atlas(), table, "T2 ~ grade + age", "grade", n_permutations=19,
                                      errors="symmetric", standard_errors="hc3")
    assert (result.provenance["errors"], result.provenance["standard_errors"]) == ("symmetric", "hc3")
    assert "sign flips" in result.provenance["contrasts"][0]["permutation"]


def test_every_map_is_a_described_volume(slicer, result):
    nodes = DiscStatsLogic().showResult(result, maps=None)
    assert set(nodes.maps) == set(result.maps)
    for name, node in nodes.maps.items():
        meta, display = result.maps[name].meta, node.GetDisplayNode()
        np.testing.assert_array_equal(base.image_from_volume(node).array, result.maps[name].array)
        assert base.volume_geometry(node).difference(GEOMETRY) == ""
        assert node.GetDescription() == meta["description"] and node.GetDescription()
        if meta["colors"] == "labels":
            assert node.IsA("vtkMRMLLabelMapVolumeNode")
            continue
        expected = {"diverging": "DivergingBlueRed", "sequential": "Viridis"}[meta["colors"]]
        assert display.GetColorNode().GetName() == expected
        if meta["colors"] == "diverging":
            assert display.GetWindowLevelMin() == -display.GetWindowLevelMax()
        if meta["statistic"].startswith(("p", "q")):
            assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == (0.0, 0.05)
        assert node.GetVoxelValueUnits().GetCodeValue() == meta["unit"]
    assert nodes.maps["T2_grade_effect"].GetVoxelValueUnits().GetCodeValue() == "ms/{grade}"
    assert slicer.modules.colors.logic().GetColorLegendDisplayNode(nodes.maps["T2_grade_t"]) is not None
    assert json.loads(nodes.provenance.GetText())["seed"] == 1
    table = base.table_from_node(nodes.clusters)
    assert table["level"][0] == "L5-S1" and table["region"][0] == "lower"
    assert nodes.clusters.GetColumnUnitLabel("volume_mm3") == "mm3"


def test_scatter_at_the_crosshair_is_the_persons_values(slicer, cohort, result):
    table, maps = cohort
    lps = GEOMETRY.index_to_world((2, 0, 1))
    chart = DiscStatsLogic().plotAt(result, ras=(-lps[0], -lps[1], lps[2]), contrast="grade")
    points = base.table_from_node(chart.GetNthPlotSeriesNode(0).GetTableNode())
    np.testing.assert_allclose(points["x"], table.grade_L5S1)
    np.testing.assert_allclose(points["measured"], [m.array[1, 0, 2] for m in maps], rtol=1e-6)
    line = base.table_from_node(chart.GetNthPlotSeriesNode(1).GetTableNode())
    slope = (line["y"][1] - line["y"][0]) / (line["x"][1] - line["x"][0])
    assert slope == pytest.approx(result.maps["T2_grade_effect"].array[1, 0, 2], rel=1e-5)
    assert "partial r = " in chart.GetDescription() and "L5-S1" in chart.GetTitle()
    # The residuals of the adjusted values around the line are those of the full model.
    residual = np.array(points["y"]) - np.interp(points["x"], line["x"], line["y"])
    assert abs(residual.mean()) < 1e-6


def test_box_plot_of_a_group_and_refill(slicer, result):
    logic = DiscStatsLogic()
    chart = logic.plotAt(result, level=12, contrast="sex")
    assert chart.GetNumberOfPlotSeriesNodes() == 3 and "0 = reference, 1 = M" in chart.GetXAxisTitle()
    box = base.table_from_node(chart.GetNthPlotSeriesNode(2).GetTableNode())
    points = base.table_from_node(chart.GetNthPlotSeriesNode(0).GetTableNode())
    group = [y for x, y in zip(points["x"], points["y"]) if x > 0.5]
    assert box["y"][3] == pytest.approx(np.median(group)) and max(box["y"]) == pytest.approx(max(group))
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode")
    again = logic.plotAt(result, cluster=1, contrast="grade", chartNode=chart)
    assert again is chart and chart.GetNumberOfPlotSeriesNodes() == 2
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode") == before - 1


def test_a_box_is_drawn_by_upright_and_level_lines_through_its_quartiles():
    box = _box(2, (1.0, 3.0, 4.0, 6.0, 9.0))
    lines = list(zip(box, box[1:]))
    assert all((end == start).any() for start, end in lines)
    upright = {(x, *sorted((low, high))) for (x, low), (to, high) in lines if x == to}
    assert upright == {(2, 1, 3), (2, 6, 9), (1.75, 3, 4), (1.75, 4, 6), (2.25, 3, 6)}


def test_place_outside_the_discs_is_a_clear_error_and_leaves_the_scene(slicer, result):
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(DesignError, match="no analyzed voxel"):
        DiscStatsLogic().plotAt(result, ras=(900, 0, 0))
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_saved_result_reads_back(slicer, result, tmp_path):
    logic = DiscStatsLogic()
    logic.showResult(result)
    written = logic.saveResult(result, tmp_path / "out put ä", scene=True)
    assert all(p.exists() for p in written)
    folder = tmp_path / "out put ä"
    back = read_image(folder / "stat-T2-grade-t_statmap.nii.gz")
    np.testing.assert_array_equal(back.array, result.maps["T2_grade_t"].array)
    assert back.geometry.difference(GEOMETRY) == ""
    sidecar = json.loads((folder / "stat-T2-grade-t_statmap.json").read_text())
    assert sidecar["description"].startswith("Student's t of grade on T2")
    clusters = pd.read_csv(folder / "clusters.tsv", sep="\t", na_values="n/a")
    assert clusters.level[0] == "L5-S1" and len(clusters) == len(result.clusters)
    design = pd.read_csv(folder / "design_L5S1.tsv", sep="\t")
    np.testing.assert_allclose(design["grade"], result.designs[11].matrix[:, 2])
    provenance = json.loads((folder / "analysis.json").read_text())
    assert provenance["formula"] == "T2 ~ grade + age + C(sex)" and provenance["versions"]["numpy"]
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(folder / "analysis.mrb"))
    loaded = slicer.util.getNode("T2_grade_t")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), result.maps["T2_grade_t"].array)
    assert loaded.GetDisplayNode().GetColorNode().GetName() == "DivergingBlueRed"


def test_job_result_survives_another_process(cohort):
    import pickle
    table, maps = cohort
    job = DiscStatsLogic().analysisJob(maps, atlas(), table, "T2 ~ grade", n_permutations=9)
    assert isinstance(job, Job)
    result = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(job)).run()))
    assert result.maps["T2_grade_t"].array.shape == GEOMETRY.shape


def test_cancel_leaves_the_scene(slicer, cohort):
    table, maps = cohort
    before = slicer.mrmlScene.GetNumberOfNodes()

    def cancel(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        DiscStatsLogic().analyze(maps, atlas(), table, "T2 ~ grade", n_permutations=9, progressCallback=cancel)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_design_is_shown_before_computing(slicer, cohort, tmp_path):
    logic = DiscStatsLogic()
    design = logic.checkDesign(cohort[0], "map ~ grade + age", level="L4-L5")
    assert design.columns == ["Intercept", "grade", "age"]
    with pytest.raises(DesignError, match="does not exist"):
        logic.checkDesign(tmp_path / "none.tsv", "map ~ age")


def test_z_score_and_group_maps(slicer, cohort):
    from scipy.stats import t as student
    table, maps = cohort
    z, p = DiscStatsLogic().zScore(maps[0], maps[1:])
    stack = np.array([m.array for m in maps[1:]], float)
    mean, sd = stack.mean(axis=0), stack.std(axis=0, ddof=1)
    expected = (maps[0].array - mean) / sd
    np.testing.assert_allclose(slicer.util.arrayFromVolume(z), expected, rtol=1e-4)
    modified = student.sf(np.abs(maps[0].array - mean) / (sd * np.sqrt(20 / 19)), 18) * 2
    np.testing.assert_allclose(slicer.util.arrayFromVolume(p), modified, rtol=1e-4)
    assert "19 people" in z.GetDescription()
    assert [(d.GetWindowLevelMin(), d.GetWindowLevelMax()) for d in (z.GetDisplayNode(), p.GetDisplayNode())] == [
        (-4, 4), (0, 0.05)]
    groups = DiscStatsLogic().groupMaps(maps, table.sex, "T2")
    male = np.array([m.array for m, s in zip(maps, table.sex) if s == "M"], float)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(groups["M"][0]), male.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(groups["M"][1]), male.std(axis=0, ddof=1), rtol=1e-4)
    assert groups["M"][0].GetVoxelValueUnits().GetCodeValue() == "ms" and set(groups) == {"F", "M"}


def test_self_test_of_the_module(slicer):
    case = module.DiscStatsTest("test_effect_is_found_where_it_was_put")
    case.setUp()
    case.test_effect_is_found_where_it_was_put()
