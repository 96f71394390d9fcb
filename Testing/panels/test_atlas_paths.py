"""Paths of the DiscAtlas panel to their results: template from people, atlas folder, Elastix, flags, maps on disk."""

import logging

import numpy as np
import pytest

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.jobs import jobs
from panels.host import click, close_panel, finish, open_panel, process, wait_until

LEVEL = "L4-L5"


@pytest.fixture
def panel(slicer, monkeypatch):
    from DiscAtlas import DiscAtlasWidget

    opened = open_panel(DiscAtlasWidget)
    # One level alone, for speed; everything else is what the panel asks for.
    job = opened.logic.registerJob
    monkeypatch.setattr(opened.logic, "registerJob", lambda *a, **k: job(*a, **k, levels=[LEVEL]))
    yield opened
    close_panel(opened)
    assert not jobs._RUNNING


def disc(scale=1.0, shift=(0.0, 0.0, 0.0)) -> Image:
    """Return one disc of the shipped atlas, scaled and moved: a person whose shape is known."""
    from DiscAtlasLib.atlas import load_atlas

    atlas = load_atlas()
    where = np.argwhere(atlas.labels.array == 12)
    (z0, y0, x0), (z1, y1, x1) = where.min(0) - 3, where.max(0) + 4
    # Every second voxel, for speed.
    array = np.where(atlas.labels.array == 12, 12, 0)[z0:z1:2, y0:y1:2, x0:x1:2].astype(np.uint8)
    spacing = tuple(2 * scale * s for s in atlas.geometry.spacing)
    return Image(array, Geometry(array.shape[::-1], spacing, shift, atlas.geometry.direction))


def register(panel) -> list[str]:
    """Press Register, wait, and return the progress texts that the user saw."""
    click(panel.ui.registerButton)
    texts = []
    wait_until(lambda: texts.append(panel.ui.statusLabel.text()) or not panel.work.busy, 300)
    return list(dict.fromkeys(texts))


def people(panel, scales) -> list:
    nodes = [mrml.segmentation_from_labels(disc(s, (n, 2 * n, 0)), f"sub-0{n + 1}") for n, s in enumerate(scales)]
    process()
    click(panel.ui.allButton)
    return nodes


@pytest.mark.slow
def test_a_template_is_built_from_these_people_and_used_again(panel, slicer, tmp_path):
    people(panel, (0.9, 1.1))
    panel.ui.templateCombo.setCurrentIndex(1)
    panel._parameterNode.outputFolder = tmp_path
    texts = register(panel)
    assert "2 people registered" in panel.ui.statusLabel.text()
    assert any("sub-01" in t and LEVEL in t for t in texts), "progress names person and level"
    quality = mrml.table_from_node(panel._parameterNode.quality)
    assert sorted(quality["participant_id"]) == ["sub-01", "sub-02"] and min(quality["dice"]) > 0.9
    # Between a small and a large disc of one shape lies the disc of scale 1, in volume.
    template = panel._cohort.atlas
    volume = np.count_nonzero(template.labels.array) * np.prod(template.geometry.spacing)
    small, large = (np.count_nonzero(disc().array) * np.prod(disc(s).geometry.spacing) for s in (0.9, 1.1))
    assert small < volume < large and volume == pytest.approx(np.sqrt(small * large), rel=0.1)
    click(panel.ui.showAtlasButton)
    assert slicer.util.getNode("Disc atlas").GetSegmentation().GetNthSegment(0).GetName() == LEVEL
    # The atlas that was written serves the next person.
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("Disc atlas"))
    click(panel.ui.noneButton)
    person = mrml.segmentation_from_labels(disc(1.0, (5, 5, 5)), "sub-03")
    panel._parameterNode.people = [person]
    panel.ui.templateCombo.setCurrentIndex(2)
    assert not panel.ui.registerButton.isEnabled() and "folder of the atlas" in panel.ui.registerButton.toolTip()
    panel._parameterNode.outputFolder = type(panel._parameterNode.outputFolder)("")
    panel.ui.atlasFolder.setCurrentPath(str(tmp_path / "atlas"))
    register(panel)
    assert mrml.table_from_node(panel._parameterNode.quality)["participant_id"] == ["sub-03"]
    assert panel._cohort.atlas.geometry == template.geometry


def test_a_wrong_atlas_folder_is_explained(panel, tmp_path, caplog):
    people(panel, (1.0,))
    panel.ui.templateCombo.setCurrentIndex(2)
    panel.ui.atlasFolder.setCurrentPath(str(tmp_path))
    with caplog.at_level(logging.ERROR):
        register(panel)
    assert "troubleshooting.md#no-atlas" in caplog.text and panel._parameterNode.quality is None


@pytest.mark.slow
def test_elastix_registers_in_the_child_process(panel):
    pytest.importorskip("itk")
    people(panel, (1.0,))
    panel.ui.backendCombo.setCurrentIndex(1)
    register(panel)
    quality = mrml.table_from_node(panel._parameterNode.quality)
    assert quality["backend"] == ["elastix"] and quality["dice"][0] > 0.85, panel.ui.statusLabel.text()


def test_a_person_without_the_disc_is_flagged_and_named(panel, monkeypatch):
    good, = people(panel, (1.0,))
    other = disc()
    wrong = mrml.segmentation_from_labels(other.like(np.where(other.array == 12, 11, 0).astype(np.uint8)), "sub-bad")
    panel._parameterNode.people = [good, wrong]
    register(panel)
    assert "1 people registered" in panel.ui.statusLabel.text() and "Look at: sub-bad" in panel.ui.statusLabel.text()
    rows = {r["participant_id"]: r["flags"] for r in mrml.table_from_node(panel._parameterNode.quality).rows}
    assert "not registered" in rows["sub-bad"] and not rows["sub-01"]
    combo = panel.ui.personCombo
    assert [combo.itemText(i) for i in range(combo.count())] == ["sub-01"]


def test_overlay_draws_outlines_and_checkerboard_both_in_turn(panel, slicer):
    node, = people(panel, (1.0,))
    for shown in (node,):
        shown.CreateDefaultDisplayNodes()
    register(panel)
    finish(panel, panel.ui.overlayButton)
    outline = slicer.util.getNode("sub-01 atlas")
    assert node.GetDisplayNode().GetVisibility() and not outline.GetDisplayNode().GetVisibility2DFill()
    finish(panel, panel.ui.checkerboardButton)
    board = slicer.util.getNode("sub-01 checkerboard")
    assert not node.GetDisplayNode().GetVisibility() and board.GetDisplayNode().GetVisibility2DFill()
    own, turn = (mrml.labels_from_segmentation(n).array > 0 for n in (node, board))
    # A disc that fits looks whole in turns, too.
    assert 2 * np.count_nonzero(own & turn) / (np.count_nonzero(own) + np.count_nonzero(turn)) > 0.9


def test_a_map_is_written_where_statistics_find_it(panel, slicer, tmp_path):
    from DiscStudyLib.after.cohort_maps import find_maps

    people(panel, (1.0,))
    labels = disc(1.0)
    values = np.random.default_rng(0).normal(80, 5, labels.array.shape).astype(np.float32)
    panel._parameterNode.mapVolume = mrml.volume_from_image(labels.like(values), "T2 of sub-01", "T2")
    panel._parameterNode.outputFolder = tmp_path
    register(panel)
    click(panel.ui.warpButton)
    found = find_maps(tmp_path)
    assert list(found) == ["T2"] and list(found["T2"]) == ["sub-01"]
    assert "sub-01_space-DiscAtlas_T2.nii.gz" in panel.ui.statusLabel.toolTip()
    from DiscRelaxometryLib.image import read_image

    written = read_image(found["T2"]["sub-01"])
    shown = slicer.util.arrayFromVolume(slicer.util.getNode("T2 of sub-01 in atlas"))
    np.testing.assert_array_equal(written.array, shown)
    # The results are taken up again, the map beside them does no harm.
    finish(panel, panel.ui.loadResultsButton)
    assert panel.ui.overlayButton.isEnabled()


def test_a_volume_of_nothing_known_is_not_written(panel, slicer, tmp_path, caplog):
    people(panel, (1.0,))
    labels = disc(1.0)
    panel._parameterNode.mapVolume = mrml.volume_from_image(labels.like(labels.array.astype(np.float32)), "T2w")
    panel._parameterNode.outputFolder = tmp_path
    register(panel)
    with caplog.at_level(logging.ERROR):
        click(panel.ui.warpButton)
    assert "cannot be named for statistics" in caplog.text and slicer.util.getNode("T2w in atlas") is not None


def test_two_sets_of_people(panel, slicer):
    """A second group in the scene leaves the first one's choice alone, and can be chosen in its place."""
    first = people(panel, (1.0,))
    second = mrml.segmentation_from_labels(disc(1.1), "other-01")
    process()
    assert panel._parameterNode.people == first and panel.ui.peopleTable.rowCount() == 2
    panel._parameterNode.people = [second]
    register(panel)
    assert mrml.table_from_node(panel._parameterNode.quality)["participant_id"] == ["other-01"]
    second.SetName("sub-01")
    panel._parameterNode.people = [*first, second]
    assert "same name" in panel.ui.registerButton.toolTip()


def test_the_label_table_is_kept_in_the_scene(panel, slicer, tmp_path):
    combo = panel.ui.conventionCombo
    combo.setCurrentIndex(combo.findData("spider"))
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    combo.setCurrentIndex(combo.findData("project"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    panel.enter()
    assert combo.currentData() == "spider"
