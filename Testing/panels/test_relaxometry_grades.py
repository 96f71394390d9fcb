"""Estimated Pfirrmann grades in the DiscRelaxometry panel: marked as estimates, refused, and outdated by a change."""

import logging

import numpy as np
import pytest
from support.grade_phantom import spine

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.grades import COLUMNS, ESTIMATED, ROMAN, grade_discs
from panels.host import click, panel_session, process, wait_until

pytest.importorskip("onnxruntime")
NUCLEI = (10, 25, 60, 110, 150, 190)


@pytest.fixture
def panel(slicer):
    from DiscRelaxometry import DiscRelaxometryWidget

    yield from panel_session(DiscRelaxometryWidget)


def fill(panel, **drawn):
    """Put a drawn spine into the scene and choose it; return image and labels."""
    image, labels = spine(NUCLEI, **drawn)
    panel._parameterNode.inputVolume = mrml.volume_from_image(image, "T2w")
    panel._parameterNode.segmentation = mrml.segmentation_from_labels(labels, "Discs")
    process()
    return image, labels


def column(panel):
    """Return texts and tooltips of the table's column of grades."""
    table = panel.ui.discTable
    titles = [table.horizontalHeaderItem(c).text() for c in range(table.columnCount())]
    place = titles.index("Pfirrmann\n(estimated)")
    items = [table.item(row, place) for row in range(table.rowCount())]
    return [i.text() for i in items], [i.toolTip() for i in items]


def estimate(panel):
    click(panel.ui.gradeButton)
    wait_until(lambda: not panel.work.busy, 120)


def test_grades_wait_for_a_volume_and_discs(panel):
    assert not panel.ui.gradeButton.isEnabled()
    assert "Choose the volume" in panel.ui.gradeButton.toolTip()


def test_estimates_are_those_of_the_library_and_say_what_they_are(panel, slicer):
    image, labels = fill(panel)
    texts, tips = column(panel)
    assert texts == [""] * 6 and all("Not estimated" in tip for tip in tips)
    estimate(panel)
    table = grade_discs(image, labels)
    texts, tips = column(panel)
    assert texts == [ROMAN[g - 1] for g in table[ESTIMATED]] and len(set(texts)) > 2
    for row, tip in zip(table.rows, tips):
        assert "not read" in tip and f"I {row['pfirrmann_p1']:.2f}, II {row['pfirrmann_p2']:.2f}" in tip
        assert f"V {row['pfirrmann_p5']:.2f}." in tip
    assert "not read" in panel.ui.statusLabel.text()
    node = slicer.util.getNode("T2w estimated grades")
    assert mrml.table_from_node(node).names == [c.name for c in COLUMNS]


def test_another_contrast_is_refused_and_nothing_is_kept(panel, caplog):
    fill(panel, canal=50.0)
    with caplog.at_level(logging.ERROR):
        estimate(panel)
    assert "grades need T2w" in caplog.text
    assert column(panel)[0] == [""] * 6


def test_a_disc_that_cannot_be_judged_says_why(panel):
    image, labels = fill(panel)
    void = image.array.copy()
    void[108:146] = 0  # around L4-L5
    panel._parameterNode.inputVolume = mrml.volume_from_image(image.like(void), "implant")
    process()
    estimate(panel)
    texts, tips = column(panel)
    assert texts[4] == "" and "No estimate. There is a signal void" in tips[4] and texts[0] in ROMAN


@pytest.mark.parametrize("change", ["levels", "voxels"])
def test_estimates_do_not_outlive_the_discs_they_were_made_of(panel, change):
    fill(panel)
    estimate(panel)
    node = panel._parameterNode.segmentation
    if change == "levels":
        click(panel.ui.shiftUpButton)
    else:
        labels = mrml.labels_from_segmentation(node)
        segment = node.GetSegmentation().GetSegmentIdBySegmentName("L3-L4")
        mask = labels.array == 13
        mask[np.argwhere(mask)[0][0]] = False
        import slicer
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment,
                                                         panel._parameterNode.inputVolume)
        panel._onDiscsSettled()
    texts, tips = column(panel)
    assert texts == [""] * 6 and all("estimate them again" in tip for tip in tips)
    estimate(panel)
    assert all(text in ROMAN for text in column(panel)[0]) or change == "levels"


def test_the_estimates_are_in_a_saved_scene(panel, slicer, tmp_path):
    fill(panel)
    estimate(panel)
    before = column(panel)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    process()
    panel._parameterNode.segmentation = slicer.util.getNode("Discs")
    process()
    panel._onDiscsSettled()
    assert column(panel) == before
