"""The DiscStats panel on the Qt host: table, preview, analysis in a child, results, plots, study, errors."""

import json
import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from DiscStatsWidgets.threshold import show_beyond, threshold_of
from support import ROOT

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.quantities import Quantity
from panels.host import click, panel_session, process, screenshot, wait_until

pandas = pytest.importorskip("pandas")


@pytest.fixture
def panel(slicer):
    from DiscStats import DiscStatsWidget

    yield from panel_session(DiscStatsWidget)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Maps of 16 simulated people in the space of the shipped atlas: T2 falls with the grade in one disc's front."""
    from DiscAtlasLib.atlas import load_atlas

    folder = tmp_path_factory.mktemp("study")
    atlas, rng = load_atlas(), np.random.default_rng(0)
    disc = np.argwhere(atlas.labels.array == 12)
    front = disc[disc[:, 1] < np.median(disc[:, 1])]
    table = pandas.DataFrame({"participant_id": [f"sub-{n:02d}" for n in range(16)],
                              "age": rng.integers(20, 70, 16), "sex": ["F", "M"] * 8})
    for level in ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2"):
        table[f"grade_{level}"] = rng.integers(1, 6, 16)
    for row in table.itertuples():
        values = np.full(atlas.geometry.shape, np.nan, np.float32)
        values[atlas.labels.array > 0] = rng.normal(80, 2, np.count_nonzero(atlas.labels.array)) + rng.normal(0, 1)
        values[tuple(front.T)] -= 3 * row.grade_L4L5
        write_image(Image(values, atlas.geometry), folder / "maps" / row.participant_id
                    / f"{row.participant_id}_space-DiscAtlas_T2.nii.gz")
    table.to_csv(folder / "participants.tsv", sep="\t", index=False, na_rep="n/a")
    return folder


def fill(panel, study, formula="T2 ~ grade_L4L5 + age"):
    p = panel._parameterNode
    p.participantsFile = study / "participants.tsv"
    p.mapsFolder = study / "maps"
    p.formula, p.permutations, p.contrast = formula, 100, "grade_L4L5" if "grade_L4L5" in formula else ""
    p.tfce = False
    process()


def opacity(node):
    """Return which voxels the display pipeline draws, in the order of the array."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    display = node.GetDisplayNode()
    display.UpdateImageDataPipeline()
    producer = display.GetOutputImageDataConnection().GetProducer()
    producer.Update()
    drawn = vtk_to_numpy(producer.GetOutputDataObject(0).GetPointData().GetScalars())
    return drawn[:, -1].reshape(node.GetImageData().GetDimensions()[::-1]) > 0


def test_an_empty_panel_says_what_each_button_waits_for(panel):
    ui = panel.ui
    for button, words in ((ui.runButton, "participants table"), (ui.plotButton, "Run the analysis first"),
                          (ui.saveButton, "Run the analysis first"), (ui.studyButton, "folder of the study"),
                          (ui.reportButton, "folder of the study")):
        assert not button.isEnabled() and words in button.toolTip(), button.objectName()
    assert not ui.installButton.isVisibleTo(panel.parent)


def test_every_bound_widget_has_a_parameter(panel):
    bound = {w.property("SlicerParameterName") for w in vars(panel.ui).values()} - {None}
    assert bound | {"resultMaps", "shownMap", "clusters", "quantity"} == set(panel._parameterNode.allParameters)


def test_table_and_maps_are_shown(panel, study):
    fill(panel, study)
    ui = panel.ui
    assert ui.participantsTable.rowCount() == 16 and ui.participantsTable.item(0, 0).text() == "sub-00"
    assert ui.quantityCombo.currentText() == "T2 (16 people)" and ui.runButton.isEnabled()


def test_preview_says_what_the_table_says(panel, study, tmp_path):
    fill(panel, study)
    table = (study / "participants.tsv").read_text(encoding="utf-8")
    (tmp_path / "commas.tsv").write_text(re.sub(r"(\t\d+)(\t[FM]\t)", r"\1,5\2", table), encoding="utf-8")
    panel._parameterNode.participantsFile = tmp_path / "commas.tsv"
    process()
    text = panel.ui.designView.toPlainText()
    assert text.count("are read as decimal points") == 1 and "'commas.tsv'" in text


def test_preview_follows_the_formula(panel, study):
    fill(panel, study)
    ui = panel.ui
    text = ui.designView.toPlainText()
    assert "16 people, 3 columns, rank 3" in text and "grade_L4L5 (t)" in text
    ui.formulaEdit.setText("T2 ~ grade + C(sex)")
    ui.contrastEdit.setText("")
    text = ui.designView.toPlainText()
    assert "L5-S1: 16 people" in text and "L1-L2: 16 people" in text and "C(sex)[T.M]" in text
    for formula, words in (("T2 ~ hight", "hight"), ("T2 ~ age +", ""), ("T2 ~ age + age2", "age2"),
                           ("T2 ~ __import__('os')", "")):
        ui.formulaEdit.setText(formula)
        assert not ui.runButton.isEnabled() and "preview" in ui.runButton.toolTip(), formula
        assert words in ui.designView.toPlainText()


def test_preview_counts_those_who_have_a_map(panel, study, tmp_path):
    """The table lists 16, of whom 9 have a map: 9 is what the analysis will have."""
    import shutil

    for n in range(9):
        shutil.copytree(study / "maps" / f"sub-{n:02d}", tmp_path / "maps" / f"sub-{n:02d}")
    fill(panel, study)
    panel._parameterNode.mapsFolder = tmp_path / "maps"
    process()
    assert "9 people, 3 columns, rank 3" in panel.ui.designView.toPlainText()


def test_completion_offers_columns(panel, study):
    fill(panel, study)
    panel._preview.complete("T2 ~ age + gr")
    offers = panel._preview.completer.model().stringList()
    assert offers[0] == "T2 ~ age + grade" and "T2 ~ age + grade_L5S1" in offers


@pytest.mark.parametrize("statistic, window, limit, shown", [
    ("pfwe", (0, 0.05), 0.02, (0, 0.02)), ("qfdr", (0, 0.05), 0.03, (0, 0.03)), ("F", (0, 20), 4.0, (4, 9)),
    ("r", (-1, 1), 0.5, (-5, 9)), ("t", (-6, 6), 3.0, (-5, 9))])
def test_a_threshold_keeps_small_p_large_f_and_both_signs_of_t(slicer, statistic, window, limit, shown):
    quantity = Quantity(statistic, statistic, "1", ("C", "99", "m"), window, "Viridis", "d")
    image = Image(np.linspace(-5, 9, 60).reshape(3, 4, 5), Geometry((5, 4, 3)))
    node = mrml.volume_from_image(image, statistic, quantity)
    node.SetAttribute(mrml.ATTRIBUTE + "Statistic", statistic)
    show_beyond(node, limit)
    display = node.GetDisplayNode()
    assert (display.GetLowerThreshold(), display.GetUpperThreshold()) == pytest.approx(shown, abs=0.02)
    assert threshold_of(node) == limit
    rgba, seen = [0.0] * 4, []
    for index in (2, 128, 253):
        display.GetColorNode().GetColor(index, rgba)
        seen.append(rgba[3])
    assert seen == ([1, 0, 1] if window[0] < 0 else [1, 1, 1])


def test_a_dropped_file_is_taken_as_its_path(panel, study):
    panel.ui.participantsFile.setCurrentPath("file://" + str(study / "participants.tsv"))
    process()
    assert panel._parameterNode.participantsFile == study / "participants.tsv"
    assert panel.ui.participantsTable.rowCount() == 16


def test_a_bad_table_is_explained(panel, tmp_path, caplog):
    bad = tmp_path / "participants.tsv"
    bad.write_text("participant_id\tage\nsub-01\t30\nsub-01\t40\n")
    with caplog.at_level(logging.ERROR):
        panel._parameterNode.participantsFile = bad
    assert "cannot be used" in caplog.text and "sub-01" in caplog.text
    assert not panel.ui.runButton.isEnabled()


def test_a_folder_without_maps_is_explained(panel, tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        panel._parameterNode.mapsFolder = tmp_path
    assert "no map in atlas space" in caplog.text


def test_analysis_results_clusters_plot_and_save(panel, slicer, study, tmp_path):
    fill(panel, study)
    ui, p = panel.ui, panel._parameterNode
    click(ui.runButton)
    assert panel.work.busy
    wait_until(lambda: not panel.work.busy, 400)
    names = [ui.resultTable.item(r, 0).text() for r in range(ui.resultTable.rowCount())]
    assert {"T2_grade_L4L5_t", "T2_grade_L4L5_pfwe", "T2_mean"} <= set(names), ui.statusLabel.text()
    # The list's click shows the map, the slider changes the display and no value.
    row = names.index("T2_grade_L4L5_t")
    ui.resultTable.cellClicked.emit(row, 0)
    node = p.shownMap
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == node.GetID()
    before = slicer.util.arrayFromVolume(node).copy()
    ui.thresholdSlider.setProperty("value", 3.0)
    shown = opacity(node)
    assert not shown[np.abs(before) < 2.9].any() and shown[np.abs(before) > 3.1].all()
    assert (before < -3.1).any(), "the planted effect is negative, and must stay visible"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
    # The legend's box shows and changes the legend of the map.
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    assert ui.legendCheck.isChecked() == bool(legend and legend.GetVisibility())
    ui.legendCheck.click()
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    assert ui.legendCheck.isChecked() == bool(legend.GetVisibility())
    pfwe = names.index("T2_grade_L4L5_pfwe")
    ui.resultTable.cellClicked.emit(pfwe, 0)
    ui.thresholdSlider.setProperty("value", 0.02)
    assert p.shownMap.GetDisplayNode().GetUpperThreshold() == pytest.approx(0.02, abs=1e-3)
    # Back on the first map, the slider says what that map hides.
    ui.resultTable.cellClicked.emit(row, 0)
    assert ui.thresholdSlider.property("value") == pytest.approx(3.0)
    # The plot follows the crosshair, too.
    peak = np.argwhere(before == np.nanmin(before))[0]
    geometry = mrml.volume_geometry(node)
    ras = geometry.index_to_world(peak[::-1]) * [-1, -1, 1]
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCrosshairRAS(*ras)
    click(ui.plotButton)
    assert "n = 16" in ui.plotLabel.text()
    # A cluster jumps to its peak and is plotted; its front half of L4-L5 was planted.
    assert ui.clusterTable.rowCount() >= 1
    ui.clusterTable.cellClicked.emit(0, 0)
    values = p.clusters.GetTable()
    peak = [values.GetValueByName(0, name).ToDouble() for name in ("peak_r", "peak_a", "peak_s")]
    view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceNode").GetSliceToRAS()
    assert [view.GetElement(row, 3) for row in range(3)] == pytest.approx(peak, abs=0.01) and abs(peak[1]) > 1
    assert ui.plotContainer.isVisibleTo(panel.parent) and ui.plotLabel.text()
    points = {name: pairs for name, pairs, _, _ in panel._results.plot.points()}
    assert any(len(pairs) == 16 for pairs in points.values())
    header = [ui.clusterTable.horizontalHeaderItem(c).text() for c in range(ui.clusterTable.columnCount())]
    assert ui.clusterTable.item(0, header.index("Level")).text() == "L4-L5"
    assert ui.clusterTable.item(0, header.index("Region")).text() in (
        "anterior annulus", "nucleus", "endplate margin", "left annulus", "right annulus")
    assert float(ui.clusterTable.item(0, header.index("Effect")).text()) == pytest.approx(-3, abs=1.5)
    p.resultsFolder = tmp_path / "out"
    click(ui.saveButton)
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) > 3
    # A saved scene brings maps, threshold and clusters back.
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    process()
    assert ui.resultTable.rowCount() == 0
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    panel.enter()
    process()
    assert ui.resultTable.rowCount() == len(names) and ui.clusterTable.rowCount() >= 1
    t_map = slicer.util.getNode("T2_grade_L4L5_t")
    ui.resultTable.cellClicked.emit(names.index("T2_grade_L4L5_t"), 0)
    assert ui.thresholdSlider.property("value") == pytest.approx(3.0)
    np.testing.assert_array_equal(opacity(t_map), shown)
    assert ui.formulaEdit.text() == "T2 ~ grade_L4L5 + age" and "Run the analysis" in ui.plotButton.toolTip()


def test_assumptions_reach_the_analysis_and_come_back_with_the_scene(panel, slicer, study, tmp_path, monkeypatch):
    fill(panel, study)
    ui, p, found = panel.ui, panel._parameterNode, []
    monkeypatch.setattr(panel.work, "run", lambda job, *more, **named: found.append(job.arguments["settings"]))
    click(ui.runButton)
    for combo, parameter, value in ((ui.errorsCombo, p.errors, "symmetric"),
                                    (ui.standardErrorsCombo, p.standardErrors, "hc3")):
        combo.setCurrentIndex([e.value for e in type(parameter)].index(value))
    click(ui.runButton)
    assert [(s.errors, s.standard_errors) for s in found] == [("auto", "classical"), ("symmetric", "hc3")]
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    panel.enter()
    process()
    assert (ui.errorsCombo.currentText(), ui.standardErrorsCombo.currentText()) == (
        panel._parameterNode.errors.label(), panel._parameterNode.standardErrors.label())
    assert (panel._parameterNode.errors.value, panel._parameterNode.standardErrors.value) == ("symmetric", "hc3")


def test_cancel_while_analyzing(panel, study):
    fill(panel, study)
    panel._parameterNode.permutations = 100000
    click(panel.ui.runButton)
    child = panel.work.child
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy, 5)
    assert child.process.poll() is not None and panel.ui.runButton.isEnabled()
    assert panel.ui.resultTable.rowCount() == 0


def test_study_button_needs_a_study_and_logs_steps(panel, slicer, tmp_path, monkeypatch):
    ui, p = panel.ui, panel._parameterNode
    p.studyFolder = tmp_path
    assert "no participants.tsv" in ui.studyButton.toolTip()
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n")
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "empty"}))
    panel._checkCanApply()
    assert "Type a formula" in ui.studyButton.toolTip()
    ui.studyFormulaCheck.setChecked(False)
    monkeypatch.setattr(panel.work, "ensurePackages", lambda *a: True)
    click(ui.studyButton)
    wait_until(lambda: not panel.work.busy, 120)
    assert "Failed" in ui.statusLabel.text() and ui.studyButton.isEnabled()
    assert "Checking the study" in ui.logView.toPlainText() or "Failed" in ui.statusLabel.text()


def test_missing_packages_show_a_button_that_asks(panel, slicer, monkeypatch):
    import slicer.packaging as packaging
    asked = []
    monkeypatch.setattr(packaging, "pip_check", lambda r: False)
    panel._installed = False  # as where the panel is opened without them
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title=None: asked.append(text))
    panel._checkCanApply()
    assert panel.ui.installButton.isVisibleTo(panel.parent) and "Install the packages" in panel.ui.runButton.toolTip()
    click(panel.ui.installButton)
    assert "pandas" in asked[0] and "MB" in asked[0]


def test_screenshots_in_light_and_dark(panel, study, tmp_path, monkeypatch):
    """Pictures of the panel; UPDATE_SCREENSHOTS=1 analyzes the people of `make demo` and keeps them in Docs."""
    folder, cohort = tmp_path, Path(os.environ.get("DEMO_OUTPUT", ROOT / "demo-output")) / "spider-cohort"
    if os.environ.get("UPDATE_SCREENSHOTS"):
        if not cohort.exists():
            pytest.skip("run 'make demo' first, or name its folder in DEMO_OUTPUT")
        folder = ROOT / "Docs" / "screenshots"
        monkeypatch.chdir(tmp_path)
        (tmp_path / "spider-cohort").symlink_to(cohort)
        p = panel._parameterNode
        p.participantsFile, p.mapsFolder = Path("spider-cohort/participants.tsv"), Path("spider-cohort/derivatives")
        p.formula, p.contrast, p.permutations = "nT2w ~ pfirrmann + age + C(sex)", "pfirrmann", 499
        p.availableCase = True  # one disc of one person is not in the atlas
        process()
        click(panel.ui.runButton)
        wait_until(lambda: not panel.work.busy, 900)
        table = panel.ui.resultTable
        names = [table.item(r, 0).text() for r in range(table.rowCount())]
        table.cellClicked.emit(names.index("nT2w_pfirrmann_t"), 0)
        panel.ui.thresholdSlider.setProperty("value", 2.0)
        panel.ui.clusterTable.cellClicked.emit(0, 0)
    else:
        fill(panel, study)
    for dark, suffix in ((False, ""), (True, "-dark")):
        assert screenshot(panel, folder / f"panel-discstats{suffix}.png", dark).stat().st_size > 5000
