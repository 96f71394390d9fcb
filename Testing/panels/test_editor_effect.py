"""The Segment Editor effect "Lumbar discs", with the editor's writing and undo as Slicer's library does them."""

import importlib
import sys
import types

import numpy as np
import pytest
from PySide6 import QtWidgets

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.mrml.segmentations import oriented_image, segment_mask
from panels.host import process, start_host

GRID = Geometry((30, 60, 6), (1.0, 1.0, 4.0), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
L5S1, L4L5, L3L4 = 11, 12, 13


@pytest.fixture
def effect(slicer, monkeypatch):
    volume = mrml.volume_from_image(Image(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), GRID),
                                    "T2w")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    made = opened_effect(node, volume)
    made.jobs = []
    monkeypatch.setattr(made.work, "run", lambda job, show: made.jobs.append((job, show)))
    monkeypatch.setattr(made.work, "ensurePackages", lambda *a: True)
    yield made
    for widget in made.scriptedEffect.options:
        widget.deleteLater()
    process()


def opened_effect(node, volume):
    """Register the effect, and clone it for an editor, as Slicer does."""
    from DiscRelaxometryWidgets import registrations

    registrations.effect()
    clone = start_host().qSlicerSegmentEditorEffectFactory.instance().effects["Lumbar discs"].self().clone()
    clone.edit(node, volume)
    clone.self().setupOptionsFrame()
    return clone.self()


def segmentation_of(effect):
    return effect.scriptedEffect.parameterSetNode().GetSegmentationNode()


def undo_steps(effect) -> int:
    """Return how many times the editor's Undo can be pressed, by pressing it, and press Redo as often."""
    logic, count = effect.scriptedEffect.logic, 0
    while logic.CanUndo():
        logic.Undo()
        count += 1
    for _ in range(count):
        logic.Redo()
    return count


def box(low, high) -> np.ndarray:
    array = np.zeros(GRID.shape, bool)
    array[1:5, low:high, 6:24] = True
    return array


PLACES = {L5S1: (40, 46), L4L5: (24, 30), L3L4: (8, 14)}


def ras_of(level):
    return (GRID.index_to_world([15, sum(PLACES[level]) // 2, 3]) * [-1, -1, 1]).tolist()


def segment_all(effect, levels=(L5S1, L4L5)):
    """Press the button, and give back what the network would."""
    effect.allButton.click()
    job, show = effect.jobs.pop()
    assert job.function == "DiscRelaxometryLib.discs:segment" and job.arguments["image"].geometry == GRID
    labels = np.zeros(GRID.shape, np.uint8)
    for level in levels:
        labels[box(*PLACES[level])] = level
    show(types.SimpleNamespace(labels=Image(labels, GRID), discs=[types.SimpleNamespace(value=v) for v in levels],
                               reason="", flags=["Look at L4-L5."]))
    return segmentation_of(effect)


def voxels(node, level) -> np.ndarray:
    return mrml.labels_from_segmentation(node).array == level


def mask_of(array):
    return oriented_image(array.astype(np.uint8), GRID)


def paint(node, level, array):
    """Change a disc as a brush does."""
    logic = start_host().vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(mask_of(array), node,
                                            mrml.disc_segments(node)[level], logic.MODE_REPLACE)


def test_all_discs_get_names_colors_and_terminology(effect):
    node = segment_all(effect)
    segments = [node.GetSegmentation().GetNthSegment(n) for n in range(2)]
    assert [s.GetName() for s in segments] == ["L5-S1", "L4-L5"] and undo_steps(effect) == 1
    assert [round(255 * c) for c in segments[0].GetColor()] == [8, 69, 148]
    assert "715056000" in mrml.segment_tag(segments[0], segments[0].GetTerminologyEntryTagName())
    for level in (L5S1, L4L5):
        np.testing.assert_array_equal(voxels(node, level), box(*PLACES[level]))
    assert "2 discs." in effect.work.ui.statusLabel.text() and "Look at L4-L5." in effect.work.ui.statusLabel.text()


def test_a_second_run_replaces_its_own_discs_without_a_question(effect, slicer, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: pytest.fail("a question"))
    segment_all(effect)
    node = segment_all(effect)
    assert node.GetSegmentation().GetNumberOfSegments() == 2


def test_discs_of_the_panel_are_the_networks_own(effect, slicer, monkeypatch):
    """Segmented in Disc Relaxometry, then again in the editor: nobody has edited them."""
    from DiscRelaxometry import DiscRelaxometryLogic

    labels = np.where(box(*PLACES[L5S1]), L5S1, 0).astype(np.uint8)
    result = types.SimpleNamespace(
        discs=[types.SimpleNamespace(value=L5S1)], reason="", evidence="seen",
        labels=Image(labels, GRID), confidence=Image(np.ones(GRID.shape, np.float32), GRID),
        quality=[types.SimpleNamespace(value=L5S1, confidence=0.9, review=False)], flags=[])
    volume = effect.scriptedEffect.parameterSetNode().GetSourceVolumeNode()
    node = DiscRelaxometryLogic().showSegmentation(result, volume).segmentation
    effect.scriptedEffect.logic.SetSegmentationNode(node)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: pytest.fail("a question"))
    reason = mrml.segment_tag(node.GetSegmentation().GetNthSegment(0), mrml.LEVEL_REASON)
    assert reason == "Counted from the lowest disc: seen.", "the table's tooltip"
    segment_all(effect)
    assert mrml.edited_discs(node) == []
    paint(node, L5S1, box(38, 47))
    assert mrml.edited_discs(node) == ["L5-S1"]


@pytest.mark.parametrize("agreed", [False, True])
def test_an_edited_disc_is_replaced_only_after_asking(effect, slicer, monkeypatch, agreed):
    node = segment_all(effect)
    own = box(20, 42)
    paint(node, L4L5, own)
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title: asked.append(text) or agreed)
    segment_all(effect)
    assert len(asked) == 1 and "L4-L5" in asked[0] and "L5-S1" not in asked[0]
    if agreed:
        np.testing.assert_array_equal(voxels(node, L4L5), box(*PLACES[L4L5]))
    else:
        np.testing.assert_array_equal(voxels(node, L4L5), own)
        np.testing.assert_array_equal(voxels(node, L5S1), box(42, 46)), "and its neighbor does not grow into it"
        assert "Kept as edited: L4-L5" in effect.work.ui.statusLabel.text()


def test_a_click_segments_the_disc_there_again(effect):
    node = segment_all(effect)
    effect.onClick(ras_of(L4L5))
    job, show = effect.jobs.pop()
    assert job.function == "DiscRelaxometryLib.discs:disc_at"
    np.testing.assert_allclose(job.arguments["lps"], np.array(ras_of(L4L5)) * [-1, -1, 1])
    show(Image(box(23, 31), GRID))
    np.testing.assert_array_equal(voxels(node, L4L5), box(23, 31))
    np.testing.assert_array_equal(voxels(node, L5S1), box(*PLACES[L5S1]))
    assert undo_steps(effect) == 2


def test_a_click_adds_a_disc_that_was_missed(effect):
    node = segment_all(effect, (L5S1, L3L4))
    effect.onClick(ras_of(L4L5))
    effect.jobs.pop()[1](Image(box(*PLACES[L4L5]), GRID))
    np.testing.assert_array_equal(voxels(node, L4L5), box(*PLACES[L4L5]))
    assert set(mrml.disc_segments(node)) == {L5S1, L4L5, L3L4}


def test_no_level_is_invented_where_none_is_free(effect):
    from DiscRelaxometryLib.errors import SegmentationError

    node = segment_all(effect)
    with pytest.raises(SegmentationError, match="No level is free"):
        mrml.free_level(node, Image(box(32, 38), GRID))
    assert mrml.free_level(node, Image(box(*PLACES[L3L4]), GRID)) == L3L4
    with pytest.raises(SegmentationError, match="No level is free"):
        mrml.free_level(node, Image(box(52, 58), GRID))


def test_a_chosen_level_names_the_disc_and_renumbers_the_others(effect):
    node = segment_all(effect)
    effect.clickCombo.setCurrentIndex(effect.clickCombo.findData(L4L5))
    effect.onClick(ras_of(L5S1))
    assert effect.jobs == [] and undo_steps(effect) == 2
    np.testing.assert_array_equal(voxels(node, L4L5), box(*PLACES[L5S1]))
    np.testing.assert_array_equal(voxels(node, L3L4), box(*PLACES[L4L5]))
    assert not mrml.edited_discs(node), "a renamed disc is not an edited one"
    effect.onClick((500.0, 0.0, 0.0))
    assert "no named disc" in effect.work.ui.statusLabel.text()


def test_clicks_elsewhere_are_left_to_the_view(effect, monkeypatch):
    import vtk

    clicked = []
    effect.xyToRas = lambda xy, view: [*xy, 0.0]
    monkeypatch.setattr(effect, "onClick", clicked.append)
    interactor = types.SimpleNamespace(GetEventPosition=lambda: (3, 4))
    views = {name: types.SimpleNamespace(className=lambda name=name: name) for name in (
        "qMRMLSliceWidget", "qMRMLThreeDWidget")}
    press, move = vtk.vtkCommand.LeftButtonPressEvent, vtk.vtkCommand.MouseMoveEvent
    assert not effect.processInteractionEvents(interactor, press, views["qMRMLThreeDWidget"])
    assert not effect.processInteractionEvents(interactor, move, views["qMRMLSliceWidget"])
    assert effect.processInteractionEvents(interactor, press, views["qMRMLSliceWidget"]) and clicked == [[3, 4, 0.0]]


def test_options_are_shown_and_work_has_progress_and_cancel(effect):
    buttons = [w for o in effect.scriptedEffect.options for w in [o, *o.findChildren(QtWidgets.QWidget)]]
    assert effect.allButton in buttons and effect.work.ui.cancelButton in buttons
    assert effect.helpText() and effect.scriptedEffect.name == "Lumbar discs"
    effect.scriptedEffect.logic.SetSourceVolumeNode(None)
    effect.allButton.click()
    assert effect.jobs == [] and "source volume" in effect.work.ui.statusLabel.text()


def test_loading_the_effect_replaces_no_module(slicer, monkeypatch):
    """Slicer puts an effect's file into sys.modules under the name of its folder."""
    factory = slicer.qSlicerSegmentEditorEffectFactory
    monkeypatch.setattr(factory, "_only", None)
    from DiscRelaxometryWidgets import registrations

    for name in [n for n in sys.modules if "LumbarDiscs" in n]:
        del sys.modules[name]
    before = dict(sys.modules)
    registrations.effect()
    assert {n for n in before if sys.modules.get(n) is not before[n]} == set()
    monkeypatch.delitem(sys.modules, "DiscRelaxometryWidgets.fit_inspector", raising=False)
    importlib.import_module("DiscRelaxometryWidgets.fit_inspector")
    assert list(factory.instance().effects) == ["Lumbar discs"]


def test_undo_and_redo_bring_back_voxels_names_and_colors(effect):
    node, logic = segment_all(effect), effect.scriptedEffect.logic
    effect.clickCombo.setCurrentIndex(effect.clickCombo.findData(L4L5))
    effect.onClick(ras_of(L5S1))
    logic.Undo()
    np.testing.assert_array_equal(voxels(node, L5S1), box(*PLACES[L5S1]))
    assert set(mrml.disc_segments(node)) == {L5S1, L4L5}
    logic.Undo()
    assert node.GetSegmentation().GetNumberOfSegments() == 0
    logic.Redo()
    logic.Redo()
    assert set(mrml.disc_segments(node)) == {L4L5, L3L4}


def editable_above(effect, threshold):
    """Restrict editing to voxels of the source volume above a value, as the editor's check box does."""
    settings = effect.scriptedEffect.parameterSetNode()
    settings.SourceVolumeIntensityMaskOn()
    settings.SetSourceVolumeIntensityMaskRange(threshold, 1e6)


def test_the_editable_intensity_range_is_kept(effect, slicer):
    volume = effect.scriptedEffect.parameterSetNode().GetSourceVolumeNode()
    editable_above(effect, 0.0)
    node = segment_all(effect)
    np.testing.assert_array_equal(voxels(node, L5S1), box(*PLACES[L5S1]) & (slicer.util.arrayFromVolume(volume) >= 0))


def test_other_segments_are_overwritten_or_not_as_the_editor_says(effect, slicer):
    node, settings = segment_all(effect), effect.scriptedEffect.parameterSetNode()
    other = node.GetSegmentation().AddEmptySegment("mine", "mine")
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    own = box(38, 44)
    for mode, kept in ((settings.OverwriteNone, own), (settings.OverwriteAllSegments, own & ~box(*PLACES[L5S1]))):
        logic.SetBinaryLabelmapToSegment(mask_of(own), node, other, logic.MODE_REPLACE)
        settings.SetOverwriteMode(mode)
        segment_all(effect)
        np.testing.assert_array_equal(segment_mask(node, other, GRID), kept)
        np.testing.assert_array_equal(voxels(node, L5S1), box(*PLACES[L5S1]))


def test_a_segmentation_on_another_grid_than_the_volume_gets_the_discs_in_place(effect, slicer):
    """The editor writes on the grid of the segmentation, not on that of the volume, and below the node's transform."""
    fine = Geometry((60, 100, 24), (0.5, 0.5, 1.0), (1.0, 2.0, -3.0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    other = mrml.volume_from_image(Image(np.zeros(fine.shape, np.float32), fine), "another grid")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "On another grid")
    node.SetReferenceImageGeometryParameterFromVolumeNode(other)
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 1.5, -2.0, 1.0
    moved.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(moved.GetID())
    effect.scriptedEffect.edit(node, effect.scriptedEffect.parameterSetNode().GetSourceVolumeNode())
    for levels in ((L5S1, L4L5), (L5S1, L4L5)):
        segment_all(effect, levels)
        for level in levels:
            inside = segment_mask(node, mrml.disc_segments(node)[level], GRID)
            wanted = box(*PLACES[level])
            assert 2 * (inside & wanted).sum() / (inside.sum() + wanted.sum()) > 0.97
