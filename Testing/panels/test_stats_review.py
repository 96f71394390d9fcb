"""The Review section of Disc Statistics: participants in one layout, decisions on disk, edits that come back."""

import numpy as np
import pytest
from support.review_study import make_reviewable, outlines

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.folder import read_decisions
from DiscStudyLib.review import Session
from panels.host import click, panel_session, process

FLAGS = {"sub-02": (["The network is unsure of L4-L5: look."], {})}


@pytest.fixture
def panel(slicer):
    from DiscStats import DiscStatsWidget

    yield from panel_session(DiscStatsWidget)


@pytest.fixture
def study(tmp_path):
    return make_reviewable(tmp_path / "study", 3, FLAGS)


@pytest.fixture
def reviewing(panel, study):
    panel._parameterNode.studyFolder = study
    panel.ui.reviewerEdit.setText("AB")
    process()
    click(panel.ui.reviewButton)
    return panel


def decisions(study):
    found = read_decisions(study / "derivatives/disc-relaxometry/review.tsv")
    return {d.disc: (d.decision, d.reason or d.renamed_to, d.reviewer) for d in found.values()}


def choose(panel, level):
    rows = [panel.ui.reviewTable.item(n, 0).text() for n in range(panel.ui.reviewTable.rowCount())]
    panel._review.onRow(rows.index(level), 0)
    process()


def test_without_a_study_or_a_person_nothing_can_be_decided(panel):
    ui = panel.ui
    assert not ui.reviewButton.isEnabled() and "Choose the folder" in ui.reviewButton.toolTip()
    for name in ("accept", "exclude", "rename", "edit", "saveEdit", "takeBack", "next", "previous"):
        assert not getattr(ui, f"{name}Button").isEnabled(), name


def test_a_study_without_results_says_so(panel, tmp_path, monkeypatch, slicer):
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: shown.append(text))
    (tmp_path / "empty" / "sub-01").mkdir(parents=True)
    panel._parameterNode.studyFolder = tmp_path / "empty"
    process()
    click(panel.ui.reviewButton)
    assert "was not run yet" in shown[0] and panel._review.session is None


def test_flagged_participants_come_first_and_the_layout_shows_image_map_and_outlines(reviewing, slicer):
    ui = reviewing.ui
    assert ui.reviewLabel.text() == "sub-02: 0 of 3 reviewed"
    flags = [ui.reviewTable.item(n, 2).text() for n in range(6)]
    assert flags == ["", "", "", "", "The network is unsure of L4-L5: look.", ""]
    shown = {n.GetLayoutName(): slicer.mrmlScene.GetNodeByID(n.GetBackgroundVolumeID()).GetName()
             for n in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}
    assert (shown["Red"], shown["Yellow"]) == ("sub-02 image", "sub-02 nT2w")
    display = reviewing._review.nodes["outlines"].GetDisplayNode()
    assert display.GetVisibility2DOutline() and not display.GetVisibility2DFill()
    found = mrml.labels_from_segmentation(reviewing._review.nodes["outlines"], reviewing._review.nodes["image"])
    assert (found.array == outlines().array).all()


def test_decisions_reach_the_file_and_the_next_participant_follows(reviewing, study, slicer):
    ui = reviewing.ui
    count = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    click(ui.acceptButton)  # all of sub-02
    assert ui.reviewLabel.text() == "sub-01: 1 of 3 reviewed"
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == count  # the last one's images are gone
    choose(reviewing, "L3-L4")
    ui.reasonCombo.setEditText("hardware")
    click(ui.excludeButton)
    choose(reviewing, "L1-L2")
    ui.levelCombo.setCurrentText("T12-L1")
    click(ui.renameButton)
    assert decisions(study) == {("sub-02", "all"): ("accepted", "", "AB"),
                                ("sub-01", "L3-L4"): ("excluded", "hardware", "AB"),
                                ("sub-01", "L1-L2"): ("renamed", "T12-L1", "AB")}
    click(ui.takeBackButton)
    assert ("sub-01", "L1-L2") not in decisions(study)
    assert not ui.takeBackButton.isEnabled()
    ui.compareCheck.setChecked(True)
    process()
    assert "AB" in ui.reviewTable.item(3, 1).text() and "hardware" in ui.reviewTable.item(3, 1).text()
    click(ui.nextButton)
    assert ui.reviewLabel.text().startswith("sub-03")
    click(ui.nextButton)
    assert "last participant" in ui.statusLabel.text()
    click(ui.previousButton)
    assert ui.reviewLabel.text().startswith("sub-01")


def test_edited_outlines_come_back_as_a_correction(reviewing, study, slicer):
    ui, section = reviewing.ui, reviewing._review
    assert not ui.saveEditButton.isEnabled()
    click(ui.editButton)
    editor = slicer.modules.segmenteditor
    assert (editor.segmentation, editor.volume) == (section.nodes["outlines"], section.nodes["image"])
    slicer.util.selectModule("DiscStats")
    node, image = section.nodes["outlines"], section.nodes["image"]
    drawn = outlines().array.copy()
    drawn[2][drawn[2] == disc_value("L4-L5")] = 0
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, "L4L5", image)
    slicer.util.updateSegmentBinaryLabelmapFromArray((drawn == disc_value("L4-L5")).astype(array.dtype), node, "L4L5",
                                                     image)
    section.checkCanApply()
    click(ui.nextButton)  # what was edited is not dropped
    assert ui.reviewLabel.text().startswith("sub-02") and "were edited: save them" in ui.statusLabel.text()
    click(ui.saveEditButton)
    mask = study / "derivatives/disc-relaxometry/sub-02/anat/sub-02_desc-reviewed_dseg.nii.gz"
    assert (read_image(mask).array == drawn).all()
    assert decisions(study) == {("sub-02", "L4-L5"): ("corrected", "", "AB")}
    assert "Corrected: L4-L5." in ui.statusLabel.text()
    shown = mrml.labels_from_segmentation(section.nodes["outlines"], section.nodes["image"])
    assert (shown.array == drawn).all() and "before" in section.nodes
    assert np.count_nonzero(drawn) < np.count_nonzero(outlines().array)


def test_another_reviewers_decision_is_not_written_over(reviewing, study, monkeypatch, slicer):
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **more: shown.append(text))
    Session(study, reviewer="CD").decide("sub-02", "all", "excluded", reason="motion")
    click(reviewing.ui.acceptButton)
    assert "was decided by CD meanwhile" in shown[0]
    assert decisions(study) == {("sub-02", "all"): ("excluded", "motion", "CD")}
    assert "excluded" in reviewing.ui.reviewTable.item(0, 1).text()


def test_keys_press_the_buttons(reviewing, study):
    from PySide6 import QtCore, QtTest

    ui = reviewing.ui
    keys = {n: getattr(ui, f"{n}Button").shortcut().toString() for n in ("accept", "exclude", "rename", "edit", "next",
                                                                          "previous", "takeBack")}
    assert keys == {"accept": "A", "exclude": "X", "rename": "R", "edit": "E", "next": "N", "previous": "P",
                    "takeBack": "U"}
    ui.reviewGroup.collapsed = False
    reviewing.parent.activateWindow()
    ui.reviewTable.setFocus()
    process(100)
    QtTest.QTest.keyClick(reviewing.parent.windowHandle(), QtCore.Qt.Key.Key_N)
    process(300)  # the button is seen to go down
    assert ui.reviewLabel.text().startswith("sub-01")
    QtTest.QTest.keyClick(reviewing.parent.windowHandle(), QtCore.Qt.Key.Key_A)
    process(300)
    assert decisions(study) == {("sub-01", "all"): ("accepted", "", "AB")}


def test_a_closed_scene_or_another_study_ends_the_session(reviewing, slicer, tmp_path):
    reviewing._parameterNode.studyFolder = make_reviewable(tmp_path / "other", 1)
    process()
    assert reviewing._review.session is None and not reviewing.ui.acceptButton.isEnabled()
    click(reviewing.ui.reviewButton)
    assert reviewing.ui.reviewLabel.text() == "sub-01: 0 of 1 reviewed"
    slicer.mrmlScene.Clear(0)
    process()
    assert reviewing._review.session is None
