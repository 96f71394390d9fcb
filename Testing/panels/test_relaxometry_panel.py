"""The DiscRelaxometry panel on the Qt host: each button's path to its result, errors, cancel, saved scenes."""

import logging
import os
import time

import numpy as np
import pytest
from PySide6 import QtCore
from support import ROOT
from support.echo_writer import write_echo_series

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.jobs import jobs
from panels.host import click, close_panel, finish, open_panel, panel_session, process, screenshot, wait_until

TIMES = np.array([1.0, 20.0, 40.0, 80.0])


def phantom():
    grid = Geometry((48, 40, 9), (1.0, 1.0, 4.0), (-16, -20, 20), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:8, 8:16, 8:40], labels[1:8, 26:34, 8:40] = 12, 11
    value = np.select([labels == 12, labels == 11], [80.0, 120.0], 30.0)
    echoes = (1000 + 5.0 * np.arange(48)) * np.exp(-TIMES[:, None, None, None] / value)
    return Image(labels, grid), EchoSeries(echoes.astype(np.float32), TIMES, "T1rho", grid), value


def slow(progressCallback):
    """Work that reports once and then does not listen."""
    progressCallback(0.4, "working")
    time.sleep(60)


def refuse(progressCallback):
    from DiscRelaxometryLib.errors import SegmentationError
    raise SegmentationError("No disc was found: check that the image is sagittal.", anchor="no-spine-found")


@pytest.fixture
def panel(slicer):
    from DiscRelaxometry import DiscRelaxometryWidget

    yield from panel_session(DiscRelaxometryWidget)


def fill(panel):
    """Put the phantom into the scene and choose it."""
    labels, series, truth = phantom()
    parameters = panel._parameterNode
    parameters.series = mrml.sequence_from_series(series, "spin lock")
    parameters.segmentation = mrml.segmentation_from_labels(labels, "Discs")
    parameters.alignment = type(parameters.alignment).off
    process()
    return labels, series, truth


def test_an_empty_panel_says_what_each_button_waits_for(panel):
    ui = panel.ui
    for button, words in ((ui.segmentButton, "Choose the volume"), (ui.computeButton, "echo series"),
                          (ui.measureButton, "Segment the discs"), (ui.exportButton, "Measure first"),
                          (ui.editButton, "Segment the discs"), (ui.importButton, "label volume"),
                          (ui.loadSeriesButton, "folder")):
        assert not button.isEnabled() and words in button.toolTip(), button.objectName()


def test_every_bound_widget_changes_its_parameter(panel):
    ui, p = panel.ui, panel._parameterNode
    ui.gpuCheck.click()
    assert p.useGpu is False
    ui.modelCombo.setCurrentIndex(1)
    assert p.model.value == "mono2/rician"
    ui.upperBoundSpin.setValue(300)
    assert p.upperBound == 300
    ui.exportFolder.setCurrentPath("/tmp/out")
    assert str(p.exportFolder) == "/tmp/out"
    volume = mrml.volume_from_image(Image(np.zeros((3, 3, 3), np.float32), Geometry((3, 3, 3))), "T2w")
    ui.inputVolumeSelector.setCurrentNode(volume)
    assert p.inputVolume is volume and ui.segmentButton.isEnabled()
    bound = {w.property("SlicerParameterName") for w in vars(ui).values()} - {None}
    assert bound | {"times", "m0Map", "offsetMap", "convention"} == set(p.allParameters)


def test_discs_are_listed_with_color_and_size_and_a_click_jumps(panel, slicer):
    labels, _, _ = fill(panel)
    table = panel.ui.discTable
    assert [table.item(r, 0).text() for r in range(table.rowCount())] == ["L4-L5", "L5-S1"]
    assert table.item(0, 1).text() == table.item(1, 2).text() == "...", "sizes come from a child process"
    wait_until(lambda: table.item(0, 1).text() != "...")
    assert float(table.item(0, 1).text()) == pytest.approx(7 * 8 * 32 * 4 / 1000, abs=0.01)
    color = table.item(1, 0).data(QtCore.Qt.DecorationRole)
    assert (color.red(), color.green(), color.blue()) == (8, 69, 148)
    table.cellClicked.emit(1, 0)
    target = labels.geometry.index_to_world(np.argwhere(labels.array == 11)[:, ::-1].mean(0)) * [-1, -1, 1]
    node = slicer.util.getNode("Red")
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    assert np.abs(matrix[:3, 3] - target).max() < 4.5


def test_levels_shift_and_an_impossible_shift_is_explained(panel):
    fill(panel)
    click(panel.ui.shiftUpButton)
    assert panel.ui.discTable.item(1, 0).text() == "L4-L5"
    click(panel.ui.shiftDownButton)
    assert not panel.ui.shiftDownButton.isEnabled()
    assert "'L5-S1' cannot be moved" in panel.ui.shiftDownButton.toolTip()


def test_maps_are_computed_in_a_child_and_shown(panel, slicer):
    _, _, truth = fill(panel)
    click(panel.ui.computeButton)
    assert panel.work.busy and not panel.ui.measureButton.isEnabled() and "Cancel" in panel.ui.measureButton.toolTip()
    wait_until(lambda: not panel.work.busy)
    p = panel._parameterNode
    np.testing.assert_allclose(slicer.util.arrayFromVolume(p.relaxationMap), truth, rtol=1e-4)
    assert p.m0Map is not None and panel.ui.mapSelector.currentNode() is p.relaxationMap
    # The views show the map inside the discs, under outlines, with one legend.
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    labels, _, _ = phantom()
    np.testing.assert_allclose(slicer.util.arrayFromVolume(shown), np.where(labels.array > 0, truth, np.nan), rtol=1e-4)
    display = p.segmentation.GetDisplayNode()
    assert display.GetVisibility() and display.GetVisibility2DOutline() and not display.GetVisibility2DFill()
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert [n.GetDisplayableNode() for n in legends if n.GetVisibility()] == [shown]
    assert not panel.ui.progressBar.isVisible()


def test_measure_and_export(panel, tmp_path):
    fill(panel)
    click(panel.ui.computeButton)
    wait_until(lambda: not panel.work.busy)
    finish(panel, panel.ui.measureButton)
    assert panel.ui.measuresTable.rowCount() > 0
    panel._parameterNode.exportFolder = tmp_path
    click(panel.ui.exportButton)
    assert len(list(tmp_path.glob("*.tsv"))) == 2 and "2 tables" in panel.ui.statusLabel.text()


def test_fit_inspector_follows_the_crosshair(panel, slicer):
    labels, series, _ = fill(panel)
    click(panel.ui.computeButton)
    wait_until(lambda: not panel.work.busy)
    panel.ui.inspectCheck.setChecked(True)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionRAS((labels.geometry.index_to_world([13, 30, 5]) * [-1, -1, 1]).tolist())
    assert "T1rho 120.0 ms" in panel.ui.inspectorLabel.text()
    view = panel._inspector.plot
    drawn = {name: pairs for name, pairs, _, _ in view.points()}
    np.testing.assert_allclose(drawn["Signal"], np.stack([TIMES, series.echoes[:, 5, 30, 13]], 1), rtol=1e-5)
    curve = np.array(drawn["Fit"])
    np.testing.assert_allclose(curve[:, 1], 1065 * np.exp(-curve[:, 0] / 120), rtol=1e-3)
    crosshair.SetCursorPositionRAS((500.0, 500.0, 500.0))
    assert "Outside" in panel.ui.inspectorLabel.text()
    panel.ui.inspectCheck.setChecked(False)
    assert panel._inspector.series is None


def test_missing_times_block_and_typed_times_are_used(panel, slicer):
    _, _, truth = fill(panel)
    panel._parameterNode.series = None
    sequence = slicer.util.getFirstNodeByClassByName("vtkMRMLSequenceNode", "spin lock")
    sequence.SetIndexUnit("")
    panel._parameterNode.series = sequence
    assert not panel.ui.computeButton.isEnabled() and "missing times" in panel.ui.computeButton.toolTip()
    for row, time_ms in enumerate(TIMES):
        panel.ui.timesTable.item(row, 1).setText(str(time_ms))
    assert panel._parameterNode.times == TIMES.tolist()
    for typed, read in (("12,5", 12.5), (" 0.75", 0.75), ("soon", np.nan), (f"{TIMES[1]:g}", TIMES[1])):
        panel.ui.timesTable.item(1, 1).setText(typed)
        np.testing.assert_array_equal(panel._parameterNode.times[:2], [TIMES[0], read])
    click(panel.ui.computeButton)
    wait_until(lambda: not panel.work.busy)
    np.testing.assert_allclose(slicer.util.arrayFromVolume(panel._parameterNode.relaxationMap), truth, rtol=1e-4)


def test_load_series_from_a_folder(panel, tmp_path):
    _, series, _ = phantom()
    write_echo_series(series, tmp_path / "sub-01_T1rho.nii.gz")
    panel.ui.seriesPath.setCurrentPath(str(tmp_path))
    finish(panel, panel.ui.loadSeriesButton)
    table = panel.ui.timesTable
    assert [float(table.item(r, 1).text()) for r in range(table.rowCount())] == TIMES.tolist()
    assert panel.ui.computeButton.isEnabled()


def test_a_bad_folder_is_explained(panel, tmp_path, caplog):
    panel.ui.seriesPath.setCurrentPath(str(tmp_path / "nothing-here"))
    with caplog.at_level(logging.ERROR):
        finish(panel, panel.ui.loadSeriesButton)
    assert "could not be loaded" in caplog.text and "nothing-here" in caplog.text


def test_import_of_another_tools_labels(panel):
    labels, _, _ = phantom()
    theirs = np.select([labels.array == 11, labels.array == 12], [201, 202]).astype(np.int16)
    node = mrml.volume_from_image(labels.like(theirs), "spider", class_name="vtkMRMLLabelMapVolumeNode")
    panel.ui.importSelector.setCurrentNode(node)
    combo = panel.ui.conventionCombo
    combo.setCurrentIndex(combo.findData("spider"))
    finish(panel, panel.ui.importButton)
    table = panel.ui.discTable
    assert [table.item(r, 0).text() for r in range(table.rowCount())] == ["L4-L5", "L5-S1"]


def test_a_volume_without_a_spine_is_refused_in_words(panel, slicer, caplog):
    _, series, _ = phantom()
    panel._parameterNode.inputVolume = mrml.volume_from_image(series.echo(0), "blocks")
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    with caplog.at_level(logging.ERROR):
        click(panel.ui.segmentButton)
        wait_until(lambda: not panel.work.busy, 120)
    assert "The discs could not be segmented" in caplog.text and panel.ui.discTable.rowCount() == 0
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes


@pytest.mark.slow
def test_the_sample_person_is_segmented(panel, slicer):
    from DiscRelaxometryLib.resources import resource_path

    volume = slicer.util.loadVolume(str(resource_path("SampleData/spider-sub-078_T2w.nii.gz")))
    panel._parameterNode.inputVolume = volume
    click(panel.ui.segmentButton)
    wait_until(lambda: not panel.work.busy, 600)
    table = panel.ui.discTable
    names = [table.item(r, 0).text() for r in range(table.rowCount())]
    assert {"L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"} <= set(names), panel.ui.statusLabel.text()
    assert all(0.5 < float(table.item(r, 4).text()) <= 1 for r in range(table.rowCount()))


def test_discs_are_carried_to_the_echo_series(panel):
    labels, series, _ = fill(panel)
    panel._parameterNode.inputVolume = mrml.volume_from_image(series.echo(1), "anatomical")
    before = panel._parameterNode.segmentation
    click(panel.ui.carryButton)
    wait_until(lambda: not panel.work.busy, 120)
    carried = panel._parameterNode.segmentation
    assert carried is not before, panel.ui.statusLabel.text()
    back = mrml.labels_from_segmentation(carried)
    overlap = ((back.array == 12) & (labels.array == 12)).sum() / (labels.array == 12).sum()
    assert back.geometry.difference(series.geometry, 1e-3) == "" and overlap > 0.9


def test_cancel_ends_the_work_and_leaves_nothing(panel):
    fill(panel)
    nodes = panel._parameterNode.parameterNode.GetScene().GetNumberOfNodes()
    panel.work.run(jobs.Job(f"{__name__}:slow", {}, "Slow work"), lambda result: pytest.fail("no result expected"))
    child = panel.work.child
    wait_until(lambda: "working" in panel.ui.statusLabel.text())
    assert panel.ui.progressBar.value() == 40 and not panel.ui.computeButton.isEnabled()
    # How long it takes is measured by bench_cancel.py, and bounded by design in test_panel_life.py.
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy)
    assert child.process.poll() is not None and "Cancelled" in panel.ui.statusLabel.text()
    assert panel.ui.computeButton.isEnabled()
    assert panel._parameterNode.parameterNode.GetScene().GetNumberOfNodes() == nodes


def test_an_error_in_the_child_is_shown_in_its_own_words(panel, caplog):
    with caplog.at_level(logging.ERROR):
        panel.work.run(jobs.Job(f"{__name__}:refuse"), lambda result: None)
        wait_until(lambda: not panel.work.busy)
    assert "No disc was found: check that the image is sagittal." in caplog.text
    assert "troubleshooting.md#no-spine-found" in caplog.text and "Traceback" not in caplog.text
    assert "No disc was found" in panel.ui.statusLabel.text()


def test_a_saved_scene_restores_the_panel(panel, slicer, tmp_path):
    fill(panel)
    p = panel._parameterNode
    p.model, p.upperBound, p.times = type(p.model).mono3, 444.0, [1.0, 20.0, 40.5, 80.0]
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    process()
    assert panel.ui.discTable.rowCount() == 0 and panel.ui.seriesSelector.currentNode() is None
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    panel.enter()
    process()
    ui = panel.ui
    assert ui.upperBoundSpin.value() == 444 and "offset" in ui.modelCombo.currentText()
    assert ui.seriesSelector.currentNode().GetName() == "spin lock" and ui.discTable.rowCount() == 2
    assert panel._parameterNode.times == [1.0, 20.0, 40.5, 80.0] and ui.timesTable.item(2, 1).text() == "40.500"


def test_closing_the_scene_ends_running_work_and_the_panel_goes_on(panel, slicer):
    fill(panel)
    panel.work.run(jobs.Job(f"{__name__}:slow"), lambda result: pytest.fail("no result expected"))
    child = panel.work.child
    slicer.mrmlScene.Clear(0)
    process()
    assert child.process.poll() is not None and not panel.work.busy
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCrosshairNode", "Crosshair")
    fill(panel)
    assert panel.ui.computeButton.isEnabled()


def test_reload_leaves_no_child_and_no_observer(slicer):
    from DiscRelaxometry import DiscRelaxometryWidget

    first = open_panel(DiscRelaxometryWidget)
    fill(first)
    first.work.run(jobs.Job(f"{__name__}:slow"), lambda result: None)
    child = first.work.child
    close_panel(first)
    assert child.process.poll() is not None and not first.Observations
    second = open_panel(DiscRelaxometryWidget)
    assert second.ui.discTable.rowCount() == 2
    close_panel(second)


def test_two_sets_of_inputs_can_be_switched(panel):
    fill(panel)
    _, series, _ = phantom()
    other = EchoSeries(series.echoes[:3], TIMES[:3], "T2", series.geometry)
    node = mrml.sequence_from_series(other, "T2 series")
    first = panel._parameterNode.series
    panel.ui.seriesSelector.setCurrentNode(node)
    assert panel.ui.timesTable.rowCount() == 3 and panel._parameterNode.times == TIMES[:3].tolist()
    panel.ui.seriesSelector.setCurrentNode(first)
    assert panel.ui.timesTable.rowCount() == 4 and panel._parameterNode.times == TIMES.tolist()


def test_missing_packages_are_asked_for_with_size_and_purpose(panel, slicer, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title=None: asked.append(text))
    assert not panel.work.ensurePackages(["no-such-package>=1"], "Segmentation needs this package (18 MB).")
    assert asked == ["Segmentation needs this package (18 MB)."] and "Not started" in panel.ui.statusLabel.text()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: True)
    with caplog.at_level(logging.ERROR):
        assert not panel.work.ensurePackages(["no-such-package>=1"], "...")
    assert "no-such-package" in caplog.text


def test_edit_opens_the_segment_editor_on_this_segmentation(panel, slicer, monkeypatch):
    import types
    fill(panel)
    calls = []
    editor = types.SimpleNamespace(setSegmentationNode=calls.append, setSourceVolumeNode=calls.append)
    widget = types.SimpleNamespace(self=lambda: types.SimpleNamespace(editor=editor))
    monkeypatch.setattr(slicer.util, "selectModule", calls.append)
    monkeypatch.setattr(slicer.modules, "segmenteditor", types.SimpleNamespace(
        widgetRepresentation=lambda: widget), raising=False)
    click(panel.ui.editButton)
    assert calls == ["SegmentEditor", panel._parameterNode.segmentation]


def test_screenshots_in_light_and_dark(panel, slicer, tmp_path):
    """Pictures of the panel in use; UPDATE_SCREENSHOTS=1 keeps them, with the real person segmented, in Docs."""
    from PySide6.QtGui import QImage

    labels, _, _ = fill(panel)
    slicer.util.getFirstNodeByClassByName("vtkMRMLSequenceNode", "spin lock").SetName("simulated spin-lock series")
    panel.ui.inspectorButton.setCollapsed(False)
    click(panel.ui.computeButton)
    wait_until(lambda: not panel.work.busy)
    panel.ui.inspectCheck.setChecked(True)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionRAS((labels.geometry.index_to_world([20, 30, 4]) * [-1, -1, 1]).tolist())
    folder = tmp_path
    if os.environ.get("UPDATE_SCREENSHOTS"):
        from DiscRelaxometryWidgets.sample_data import load_person
        panel._parameterNode.inputVolume, panel._parameterNode.segmentation = load_person()[0], None
        click(panel.ui.segmentButton)
        wait_until(lambda: not panel.work.busy, 900)
        finish(panel, panel.ui.gradeButton, 900)
        wait_until(lambda: panel.ui.discTable.item(0, 1).text() not in ("", "..."))
        folder = ROOT / "Docs" / "screenshots"
    for dark, suffix in ((False, ""), (True, "-dark")):
        image = QImage(str(screenshot(panel, folder / f"panel-discrelaxometry{suffix}.png", dark)))
        corner = image.pixelColor(3, image.height() - 3).lightness()
        assert image.height() > 600 and (corner < 90 if dark else corner > 200)
