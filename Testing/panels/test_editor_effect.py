"""The Segment Editor effect "Lumbar discs", with the editor's writing and undo as Slicer's library does them."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest
from PySide6 import QtWidgets

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image
from panels.host import process, start_host

GRID = Geometry((30, 60, 6), (1.0, 1.0, 4.0), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
L5S1, L4L5, L3L4 = 11, 12, 13


class ScriptedEffect:
    """What Slicer's effect gives to its Python part: nodes, options, writing by the masking rules, undo."""

    def __init__(self, segmentation, volume):
        self.segmentation, self.volume = segmentation, volume
        self.states, self.options = 0, []
        self.editable = None

    def parameterSetNode(self):
        return types.SimpleNamespace(GetSegmentationNode=lambda: self.segmentation,
                                     GetSourceVolumeNode=lambda: self.volume)

    def addOptionsWidget(self, widget):
        self.options.append(widget)

    def saveStateForUndo(self):
        self.states += 1

    def modifySegmentByLabelmap(self, node, segment, labelmap, mode):
        slicer = start_host()
        assert mode == slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeSet and self.states, "undoable"
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        assert logic.SetBinaryLabelmapToSegment(labelmap, node, segment, logic.MODE_REPLACE)


@pytest.fixture
def effect(slicer, monkeypatch):
    base = types.ModuleType("SegmentEditorEffects")
    base.AbstractScriptedSegmentEditorEffect = type("AbstractScriptedSegmentEditorEffect", (), {
        "__init__": lambda self, scriptedEffect: setattr(self, "scriptedEffect", scriptedEffect)})
    monkeypatch.setitem(sys.modules, "SegmentEditorEffects", base)
    monkeypatch.setattr(slicer, "qSlicerSegmentEditorAbstractEffect", types.SimpleNamespace(ModificationModeSet=0),
                        raising=False)
    sys.modules.pop("DiscRelaxometryWidgets.LumbarDiscsEffect", None)
    module = importlib.import_module("DiscRelaxometryWidgets.LumbarDiscsEffect")
    volume = mrml.volume_from_image(Image(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), GRID),
                                    "T2w")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume.GetID())
    made = module.LumbarDiscsEffect(ScriptedEffect(node, volume))
    made.setupOptionsFrame()
    made.jobs = []
    monkeypatch.setattr(made.work, "run", lambda job, show: made.jobs.append((job, show)))
    monkeypatch.setattr(made.work, "ensurePackages", lambda *a: True)
    yield made
    for widget in made.scriptedEffect.options:
        widget.deleteLater()
    process()


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
    return effect.scriptedEffect.segmentation


def voxels(node, level) -> np.ndarray:
    return mrml.labels_from_segmentation(node).array == level


def paint(node, level, array):
    """Change a disc as a brush does."""
    logic = start_host().vtkSlicerSegmentationsModuleLogic
    assert logic.SetBinaryLabelmapToSegment(mrml.mask_image(Image(array, GRID)), node,
                                            mrml.disc_segments(node)[level], logic.MODE_REPLACE)


def test_all_discs_get_names_colors_and_terminology(effect):
    node = segment_all(effect)
    segments = [node.GetSegmentation().GetNthSegment(n) for n in range(2)]
    assert [s.GetName() for s in segments] == ["L5-S1", "L4-L5"] and effect.scriptedEffect.states == 1
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
        discs=[1], reason="", labels=Image(labels, GRID), confidence=Image(np.ones(GRID.shape, np.float32), GRID),
        quality=[types.SimpleNamespace(value=L5S1, confidence=0.9, review=False)], flags=[])
    volume = effect.scriptedEffect.volume
    node = effect.scriptedEffect.segmentation = DiscRelaxometryLogic().showSegmentation(result, volume).segmentation
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: pytest.fail("a question"))
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
    assert effect.scriptedEffect.states == 2


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
    assert effect.jobs == [] and effect.scriptedEffect.states == 2
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
    effect.scriptedEffect.volume = None
    effect.allButton.click()
    assert effect.jobs == [] and "source volume" in effect.work.ui.statusLabel.text()


def test_it_is_registered_by_its_path(monkeypatch):
    made = []

    class Effect:
        def __init__(self, parent):
            made.append(self)

        def setPythonSource(self, path):
            self.path = path

        def self(self):
            return self

        def register(self):
            self.registered = True

    module = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    module.qSlicerSegmentEditorScriptedEffect = Effect
    monkeypatch.setitem(sys.modules, module.__name__, module)
    from pathlib import Path

    from DiscRelaxometryWidgets import editor_effect

    editor_effect.register()
    source = Path(made[0].path)
    assert made[0].registered and source.exists() and f"class {source.stem}(" in source.read_text(encoding="utf-8")
