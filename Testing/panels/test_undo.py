"""Undo and redo of the scene, with the panels open: nodes go and come back, and the panels follow."""

import numpy as np
import pytest

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import DISCS
from DiscRelaxometryLib.mrml.segmentations import oriented_image
from panels.host import click, close_panel, finish, open_panel, panel_session, process, wait_until

#: Nodes that a user who works with undo enables it for.
CLASSES = ("vtkMRMLSegmentationNode", "vtkMRMLTableNode", "vtkMRMLScalarVolumeNode")


@pytest.fixture
def undo(slicer):
    """The scene with undo switched on, as a custom application or a user's startup file does."""
    scene = slicer.mrmlScene
    scene.SetUndoOn()
    for name in CLASSES:
        default = scene.CreateNodeByClass(name)
        default.UnRegister(None)
        default.SetUndoEnabled(True)
        scene.AddDefaultNode(default)
    yield scene
    for name in CLASSES:
        scene.GetDefaultNodeByClass(name).SetUndoEnabled(False)
    scene.ClearUndoStack()
    scene.ClearRedoStack()
    scene.SetUndoOff()


@pytest.fixture
def panel(slicer):
    from DiscRelaxometry import DiscRelaxometryWidget

    yield from panel_session(DiscRelaxometryWidget)


def labels() -> Image:
    array = np.zeros((6, 24, 30), np.uint8)
    array[:, 4:9, 6:24], array[:, 14:19, 6:24] = 11, 12
    return Image(array, Geometry((30, 24, 6), (1.0, 1.0, 4.0), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0)))


def names(panel) -> list[str]:
    table = panel.ui.discTable
    return [table.item(r, 0).text() for r in range(table.rowCount())]


def settle():
    """Let the panel notice a change of the segmentation."""
    from DiscRelaxometryWidgets.relaxometry_panel import SETTLED_MS

    process(SETTLED_MS + 50)


def test_renamed_levels_are_undone_and_redone(panel, undo):
    node = panel._parameterNode.segmentation = mrml.segmentation_from_labels(labels(), "Discs")
    before = [node.GetSegmentation().GetNthSegment(n).GetColor() for n in range(2)]
    process()
    assert panel.ui.shiftUpButton.toolTip() == "Rename: L4-L5 → L3-L4, L5-S1 → L4-L5"
    click(panel.ui.shiftUpButton)
    assert names(panel) == ["L3-L4", "L4-L5"]
    assert panel.ui.discTable.item(0, 0).toolTip() == "Renamed by the user, from L4-L5."
    undo.Undo()
    settle()
    assert panel.ui.shiftUpButton.toolTip() == "Rename: L4-L5 → L3-L4, L5-S1 → L4-L5"
    assert panel._parameterNode.segmentation is node and names(panel) == ["L4-L5", "L5-S1"]
    assert [node.GetSegmentation().GetNthSegment(n).GetColor() for n in range(2)] == before
    assert mrml.labels_from_segmentation(node).array.max() == 12
    undo.Redo()
    settle()
    assert names(panel) == ["L3-L4", "L4-L5"]


def test_an_imported_segmentation_is_undone(panel, undo):
    panel.ui.importSelector.setCurrentNode(mrml.volume_from_image(labels(), "theirs",
                                                                  class_name="vtkMRMLLabelMapVolumeNode"))
    panel._parameterNode.convention = "project"
    finish(panel, panel.ui.importButton)
    assert names(panel) == ["L4-L5", "L5-S1"]
    undo.Undo()
    settle()
    assert panel._parameterNode.segmentation is None and names(panel) == []
    assert "Segment the discs" in panel.ui.measureButton.toolTip()
    finish(panel, panel.ui.importButton)
    assert names(panel) == ["L4-L5", "L5-S1"]


def test_measures_are_undone_and_made_again(panel, undo, slicer):
    panel._parameterNode.segmentation = mrml.segmentation_from_labels(labels(), "Discs")
    finish(panel, panel.ui.measureButton)
    assert slicer.util.getNodesByClass("vtkMRMLTableNode")
    undo.Undo()
    process()
    assert not slicer.util.getNodesByClass("vtkMRMLTableNode")
    finish(panel, panel.ui.measureButton)
    assert panel.ui.measuresTable.rowCount() == 2


def test_the_table_follows_edits_made_elsewhere(panel):
    """Segment Editor, Data module or a script may change the segmentation while the panel is open."""
    node = panel._parameterNode.segmentation = mrml.segmentation_from_labels(labels(), "Discs")
    volume = measured(panel)
    segmentation = node.GetSegmentation()
    segmentation.GetSegment("L4L5").SetColor(1.0, 0.0, 0.0)
    settle()
    from PySide6 import QtCore

    color = panel.ui.discTable.item(0, 0).data(QtCore.Qt.DecorationRole)
    assert (color.red(), color.green(), color.blue()) == (255, 0, 0)
    segmentation.RemoveSegment("L5S1")
    settle()
    assert names(panel) == ["L4-L5"] and measured(panel) == pytest.approx(volume)
    half = labels().array == 12
    half[:, :, : np.flatnonzero(half.any((0, 1))).mean().astype(int)] = False
    segmentation.GetSegment("L4L5").AddRepresentation("Binary labelmap", oriented_image(
        np.where(half, 12, 0).astype(np.uint8), labels().geometry))
    settle()
    assert measured(panel) < 0.7 * volume


def measured(panel):
    """Return the volume in the first row, once it has come."""
    wait_until(lambda: panel.ui.discTable.item(0, 1).text() != "...")
    return float(panel.ui.discTable.item(0, 1).text())


def test_an_atlas_panel_outlives_undo(slicer, undo):
    from DiscAtlas import DiscAtlasWidget

    panel = open_panel(DiscAtlasWidget)
    try:
        click(panel.ui.showAtlasButton)
        assert panel.ui.peopleTable.rowCount() == 1
        undo.Undo()
        process()
        assert panel.ui.peopleTable.rowCount() == 0
        undo.Redo()
        process()
        assert panel.ui.peopleTable.rowCount() == 1
    finally:
        close_panel(panel)


def test_another_tools_segmentation_is_used_as_it_is(panel):
    """Names of segments that other tools give are understood without an import."""
    node = mrml.segmentation_from_labels(labels(), "theirs")
    for segment, name in (("L4L5", "disc_L4_L5"), ("L5S1", "IVD L5/S1")):
        part = node.GetSegmentation().GetSegment(segment)
        part.SetName(name)
        part.RemoveTag(part.GetTerminologyEntryTagName())
    panel._parameterNode.segmentation = node
    process()
    assert names(panel) == ["disc_L4_L5", "IVD L5/S1"] and panel.ui.measureButton.isEnabled()
    finish(panel, panel.ui.measureButton)
    assert panel.ui.measuresTable.rowCount() == 2
    click(panel.ui.shiftUpButton)
    assert names(panel) == ["L3-L4", "L4-L5"]


def test_a_renaming_beyond_the_names_is_not_offered(panel):
    array = labels().array
    for low, high in ((12, DISCS[-1]), (11, DISCS[-2])):
        array[array == low] = high.value
    panel._parameterNode.segmentation = mrml.segmentation_from_labels(labels().like(array), "Discs")
    process()
    assert not panel.ui.shiftUpButton.isEnabled() and "there is no name there" in panel.ui.shiftUpButton.toolTip()
    click(panel.ui.shiftDownButton)
    assert panel.ui.shiftUpButton.isEnabled() and names(panel) == [DISCS[-2].name, DISCS[-3].name]
