"""The DiscAtlas panel on the Qt host: choosing people, registration in a child, quality, overlay, maps, errors."""

import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from PySide6 import QtCore
from support import ROOT
from support.brainsfit import program

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image, write_image
from panels.host import click, finish, panel_session, process, screenshot, wait_until


@pytest.fixture
def panel(slicer):
    from DiscAtlas import DiscAtlasWidget

    yield from panel_session(DiscAtlasWidget)


def moved_atlas(shift=(5, -7, 11), all_levels=False):
    """Return one disc (or all) of the shipped atlas, moved; a person whose registration is known."""
    from DiscAtlasLib.atlas import load_atlas

    atlas = load_atlas()
    geometry = Geometry(atlas.geometry.size, atlas.geometry.spacing, np.add(atlas.geometry.origin, shift),
                        atlas.geometry.direction)
    array = atlas.labels.array if all_levels else np.where(atlas.labels.array == 12, 12, 0)
    return Image(array.astype(np.uint8), geometry)


def one_level(panel, monkeypatch):
    """Register one level only, for speed."""
    job = panel.logic.registerJob
    monkeypatch.setattr(panel.logic, "registerJob", lambda *a, **k: job(*a, **k, levels=["L4-L5"]))


def test_an_empty_panel_says_what_each_button_waits_for(panel):
    ui = panel.ui
    for button, words in ((ui.registerButton, "at least one person"), (ui.loadPeopleButton, "folder"),
                          (ui.overlayButton, "Register people first"), (ui.warpButton, "Register people first"),
                          (ui.loadResultsButton, "folder of results")):
        assert not button.isEnabled() and words in button.toolTip(), button.objectName()
    assert ui.showAtlasButton.isEnabled()


def test_every_bound_widget_has_a_parameter(panel):
    bound = {w.property("SlicerParameterName") for w in vars(panel.ui).values()} - {None}
    assert bound | {"people", "quality", "convention"} == set(panel._parameterNode.allParameters)


def test_people_are_followed_and_checked(panel, slicer):
    first = mrml.segmentation_from_labels(moved_atlas(), "sub-01")
    mrml.segmentation_from_labels(moved_atlas(), "sub-02")
    process()
    table = panel.ui.peopleTable
    assert [table.item(r, 0).text() for r in range(table.rowCount())] == ["sub-01", "sub-02"]
    table.item(0, 0).setCheckState(QtCore.Qt.Checked)
    assert panel._parameterNode.people == [first] and panel.ui.registerButton.isEnabled()
    panel.ui.templateCombo.setCurrentIndex(1)
    assert "at least two" in panel.ui.registerButton.toolTip()
    click(panel.ui.allButton)
    assert len(panel._parameterNode.people) == 2 and panel.ui.registerButton.isEnabled()
    click(panel.ui.noneButton)
    assert panel._parameterNode.people == [] and not panel.ui.registerButton.isEnabled()
    slicer.mrmlScene.RemoveNode(first)
    process()
    assert table.rowCount() == 1


def test_register_look_and_bring_a_map(panel, slicer, tmp_path, monkeypatch):
    one_level(panel, monkeypatch)
    labels = moved_atlas()
    mrml.segmentation_from_labels(labels, "sub-01")
    values = np.random.default_rng(0).normal(80, 5, labels.array.shape).astype(np.float32)
    panel._parameterNode.mapVolume = mrml.volume_from_image(labels.like(values), "T2 of sub-01", "T2")
    click(panel.ui.allButton)
    panel._parameterNode.outputFolder = tmp_path
    click(panel.ui.registerButton)
    assert panel.work.busy
    wait_until(lambda: not panel.work.busy, 300)
    assert "1 people registered" in panel.ui.statusLabel.text()
    quality = mrml.table_from_node(panel._parameterNode.quality)
    assert quality["participant_id"] == ["sub-01"] and quality["dice"][0] > 0.95
    assert panel.ui.qualityTable.rowCount() == 1
    finish(panel, panel.ui.overlayButton)
    shown = slicer.util.getNode("sub-01 atlas")
    assert shown.GetSegmentation().GetNthSegment(0).GetName() == "L4-L5"
    finish(panel, panel.ui.checkerboardButton)
    click(panel.ui.transformsButton)
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLTransformNode")]
    assert {"sub-01 L4-L5 to person", "sub-01 L4-L5 to atlas"} <= set(names)
    click(panel.ui.warpButton)
    warped = slicer.util.getNode("T2 of sub-01 in atlas")
    inside = slicer.util.arrayFromVolume(warped)
    assert abs(np.nanmean(inside) - 80) < 0.5 and warped.GetVoxelValueUnits().GetCodeValue() == "ms"
    # What was written is taken up again.
    panel._cohort = None
    panel._checkCanApply()
    assert not panel.ui.warpButton.isEnabled()
    finish(panel, panel.ui.loadResultsButton)
    assert panel.ui.warpButton.isEnabled()


def test_brainsfit_outside_slicer_says_so(panel, caplog):
    mrml.segmentation_from_labels(moved_atlas(), "sub-01")
    click(panel.ui.allButton)
    panel.ui.backendCombo.setCurrentIndex(2)
    with caplog.at_level(logging.ERROR):
        click(panel.ui.registerButton)
    assert "BRAINSFit is a program of 3D Slicer" in caplog.text and not panel.work.busy


def test_cancel_ends_brainsfit_too(panel, slicer, monkeypatch, tmp_path):
    program(tmp_path, sitk.Transform(), "never")
    monkeypatch.setattr(slicer.modules, "brainsfit", SimpleNamespace(path=str(tmp_path / "BRAINSFit")), raising=False)
    mrml.segmentation_from_labels(moved_atlas(), "sub-01")
    click(panel.ui.allButton)
    panel.ui.backendCombo.setCurrentIndex(2)
    click(panel.ui.registerButton)
    wait_until((tmp_path / "calls.txt").exists)
    group = panel.work.child.process.pid
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy, 10)
    assert "Cancelled" in panel.ui.statusLabel.text()
    wait_until(lambda: not [p for p in Path("/proc").glob("[0-9]*/stat") if in_group(p, group)], 10)


def in_group(stat, group):
    """Return whether a process is alive and of this group."""
    try:
        state, _parent, own = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(own) == group and state != "Z"


def test_people_are_loaded_from_a_folder(panel, tmp_path):
    for name in ("sub-01", "sub-02"):
        write_image(moved_atlas(all_levels=True), tmp_path / name / "anat" / f"{name}_T2w_dseg.nii.gz")
    panel.ui.peopleFolder.setCurrentPath(str(tmp_path))
    finish(panel, panel.ui.loadPeopleButton)
    assert [n.GetName() for n in panel._parameterNode.people] == ["sub-01", "sub-02"]
    assert panel.ui.peopleTable.item(0, 1).text() == "5", "discs are counted, not segments"


def test_an_empty_folder_is_explained(panel, tmp_path, caplog):
    panel.ui.peopleFolder.setCurrentPath(str(tmp_path))
    with caplog.at_level(logging.ERROR):
        finish(panel, panel.ui.loadPeopleButton)
    assert "There is no segmentation" in caplog.text


def test_cancel_while_registering(panel):
    for n in range(3):
        mrml.segmentation_from_labels(moved_atlas((n, 0, 0)), f"sub-0{n}")
    click(panel.ui.allButton)
    click(panel.ui.registerButton)
    child = panel.work.child
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy, 5)
    assert child.process.poll() is not None and "Cancelled" in panel.ui.statusLabel.text()
    assert panel.ui.registerButton.isEnabled() and panel._cohort is None


def test_a_saved_scene_restores_the_panel(panel, slicer, tmp_path):
    mrml.segmentation_from_labels(moved_atlas(), "sub-01")
    click(panel.ui.allButton)
    panel.ui.backendCombo.setCurrentIndex(1)
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    process()
    assert panel.ui.peopleTable.rowCount() == 0
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    panel.enter()
    process()
    assert panel.ui.backendCombo.currentText() == "Elastix"
    assert panel.ui.peopleTable.item(0, 0).checkState() == QtCore.Qt.Checked
    assert [n.GetName() for n in panel._parameterNode.people] == ["sub-01"]


def test_screenshots_in_light_and_dark(panel, tmp_path, monkeypatch):
    """Pictures of the panel; UPDATE_SCREENSHOTS=1 registers people of the sample cohort and keeps them in Docs."""
    folder = tmp_path
    if os.environ.get("UPDATE_SCREENSHOTS"):
        folder = ROOT / "Docs" / "screenshots"
        monkeypatch.chdir(tmp_path)
        source = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort" / "derivatives" / "reference"
        for person in ("sub-005", "sub-007", "sub-018", "sub-034"):
            shutil.copytree(source / person, tmp_path / "spider-people" / person)
        panel.ui.peopleFolder.setCurrentPath("spider-people")
        panel.ui.outputFolder.setCurrentPath("spider-registered")
        finish(panel, panel.ui.loadPeopleButton)
        click(panel.ui.registerButton)
        wait_until(lambda: not panel.work.busy, 600)
    else:
        mrml.segmentation_from_labels(moved_atlas(), "sub-01")
    for dark, suffix in ((False, ""), (True, "-dark")):
        assert screenshot(panel, folder / f"panel-discatlas{suffix}.png", dark).stat().st_size > 5000
