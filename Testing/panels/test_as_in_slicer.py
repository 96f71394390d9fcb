"""What a real Slicer showed: panels that are left, scenes that are loaded over them, fields, legends and headings."""

import importlib
import logging

import numpy as np
import pytest
from PySide6 import QtWidgets

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.jobs import Job
from panels.host import click, close_panel, finish, open_panel, process, wait_until

MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")
GRID = Geometry((30, 24, 6), (1.0, 1.0, 4.0), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
TIMES = np.array([1.0, 20.0, 40.0])


def opened(name):
    return open_panel(getattr(importlib.import_module(name), f"{name}Widget"))


@pytest.fixture(params=MODULES)
def panel(slicer, request):
    shown = opened(request.param)
    yield shown
    close_panel(shown)


@pytest.fixture
def relaxometry(slicer):
    shown = opened("DiscRelaxometry")
    yield shown
    close_panel(shown)


@pytest.fixture
def stats(slicer):
    pytest.importorskip("pandas")
    shown = opened("DiscStats")
    yield shown
    close_panel(shown)


def discs() -> Image:
    array = np.zeros(GRID.shape, np.uint8)
    array[1:5, 4:9, 6:24], array[1:5, 14:19, 6:24] = 11, 12
    return Image(array, GRID)


def fill(panel):
    """Choose a volume, discs, an echo series and its times; return the nodes."""
    p = panel._parameterNode
    echoes = 1000 * np.exp(-TIMES[:, None, None, None] / np.full(GRID.shape, 60.0))
    p.inputVolume = mrml.volume_from_image(Image(np.ones(GRID.shape, np.float32), GRID), "T2w")
    p.segmentation = mrml.segmentation_from_labels(discs(), "Discs", p.inputVolume)
    p.series = mrml.sequence_from_series(EchoSeries(echoes.astype(np.float32), TIMES, "T2", GRID), "echoes")
    process()
    return p.inputVolume, p.segmentation, p.series


def visible_legends(slicer) -> list:
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    return [n.GetDisplayableNode() for n in legends if n.GetVisibility()]


def visible_segmentations(slicer) -> set:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return {n.GetName() for n in nodes if n.GetDisplayNode() is not None and n.GetDisplayNode().GetVisibility()}


def test_edit_hands_over_the_nodes_although_the_panel_is_left(relaxometry, slicer):
    volume, segmentation, _ = fill(relaxometry)
    click(relaxometry.ui.editButton)
    editor = slicer.modules.segmenteditor
    assert relaxometry._parameterNode is None, "another module is shown"
    assert editor.segmentation is segmentation and editor.volume is volume
    slicer.util.selectModule("DiscRelaxometry")
    assert relaxometry._parameterNode.segmentation is segmentation


def test_no_handler_needs_the_panel_to_be_shown(panel, slicer):
    """Whatever a click leads to, it must not fail where the panel was left meanwhile."""
    panel.parent.entered = False
    panel.exit()
    for button in (w for w in vars(panel.ui).values() if isinstance(w, QtWidgets.QPushButton)):
        assert button.toolTip()
    panel._checkCanApply()
    panel._onModified()
    slicer.util.selectModule(panel.moduleName)
    assert panel._parameterNode is not None


def test_work_that_ends_after_the_panel_was_left_gives_its_result_and_lets_go(relaxometry, slicer):
    fill(relaxometry)
    p = relaxometry._parameterNode
    click(relaxometry.ui.computeButton)
    slicer.util.selectModule("Data")
    wait_until(lambda: not relaxometry.work.busy, 120)
    assert p.relaxationMap is not None and relaxometry._parameterNode is None
    slicer.util.selectModule("DiscRelaxometry")
    assert relaxometry.ui.mapSelector.currentNode() is p.relaxationMap


def test_a_scene_loaded_over_an_open_panel_fills_it(relaxometry, slicer, tmp_path):
    fill(relaxometry)
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    slicer.mrmlScene.Clear(0)
    process()
    assert relaxometry.ui.discTable.rowCount() == 0
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    process()
    ui = relaxometry.ui
    assert [s.currentNode().GetName() for s in (ui.inputVolumeSelector, ui.segmentationSelector, ui.seriesSelector)] \
        == ["T2w", "Discs", "echoes"]
    assert ui.discTable.rowCount() == 2 and ui.timesTable.rowCount() == 3 and ui.segmentButton.isEnabled()


def test_nothing_is_asked_or_looked_at_while_a_scene_is_loaded(panel, slicer, tmp_path, monkeypatch):
    if panel.moduleName == "DiscRelaxometry":
        fill(panel)
        panel._parameterNode.inspect = True
    slicer.util.saveScene(str(tmp_path / "s.mrb"))
    during = []
    changed = panel.onParametersChanged
    monkeypatch.setattr(panel, "onParametersChanged", lambda: (
        during.append(slicer.mrmlScene.IsImporting()), changed()))
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda *a, **k: pytest.fail(f"a dialog: {a[0]}"))
    slicer.util.loadScene(str(tmp_path / "s.mrb"))
    process()
    assert during and not any(during) and panel._parameterNode is not None


def busy(progressCallback):
    import time

    progressCallback(0.5, "Working on sub-01")
    time.sleep(60)


def dies(progressCallback):
    import os

    print("could not allocate 9 GB", flush=True)
    os._exit(3)


def test_work_that_dies_shows_its_last_lines(panel, caplog):
    with caplog.at_level(logging.ERROR):
        panel.work.run(Job(f"{__name__}:dies", {}, "Work"), lambda result: pytest.fail("no result expected"))
        wait_until(lambda: not panel.work.busy)
    assert "could not allocate 9 GB" in caplog.text and "exit code 3" in caplog.text
    assert panel.ui.statusLabel.text().startswith("Failed: ")


def test_progress_and_cancel_are_in_sight_while_work_runs(panel):
    """In a window of ordinary height, the sections scroll and the footer does not."""
    panel.parent.resize(440, 500)
    panel.work.run(Job(f"{__name__}:busy", {}, "Work"), lambda result: None)
    wait_until(lambda: "sub-01" in panel.ui.statusLabel.text())
    process(50)
    for widget in (panel.ui.progressBar, panel.ui.cancelButton, panel.ui.statusLabel):
        assert widget.isVisible() and widget.visibleRegion().boundingRect().size() == widget.size(), \
            widget.objectName()
    scroll = panel.parent.findChild(QtWidgets.QScrollArea, "sections")
    assert scroll.widget() is panel.uiWidget and scroll.verticalScrollBar().maximum() > 0
    assert scroll.horizontalScrollBar().maximum() == 0, "nothing is cut off at the right"
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy)
    assert not panel.ui.progressBar.isVisible() and not panel.ui.cancelButton.isVisible()


def test_a_long_message_takes_two_lines_and_is_read_at_a_press(panel):
    from DiscRelaxometryWidgets.work import SHORT

    text = "The maps are ready. " + " ".join(f"Note {n} says something." for n in range(20))
    panel.work.say(text)
    process()
    shown = panel.ui.statusLabel.text()
    assert shown.startswith("The maps are ready.") and len(shown) <= SHORT and shown.endswith(".")
    click(panel.ui.moreButton)
    assert panel.ui.statusLabel.text() == text
    panel.work.say("Done.")
    process()
    assert panel.ui.statusLabel.text() == "Done." and not panel.ui.moreButton.isVisible()


def test_one_legend_of_what_is_shown(slicer):
    nodes = [mrml.volume_from_image(Image(np.ones(GRID.shape, np.float32), GRID), key, key) for key in ("T2", "M0")]
    assert visible_legends(slicer) == [], "a map in the scene is not yet a map that is shown"
    mrml.show_legend(nodes[0])
    mrml.show_legend(nodes[1])
    assert visible_legends(slicer) == [nodes[1]]
    mrml.show_legend(None)
    assert visible_legends(slicer) == []


def test_one_person_is_shown_with_the_atlas(slicer, monkeypatch):
    pytest.importorskip("DiscAtlas")
    panel = opened("DiscAtlas")
    try:
        for name in ("sub-02", "sub-01", "sub-03"):
            mrml.segmentation_from_labels(discs(), name).CreateDefaultDisplayNodes()
        process()
        monkeypatch.setattr(panel.logic, "overlayJob", lambda *arguments: Job(f"{__name__}:discs"))
        panel._cohort = object()
        panel.ui.personCombo.addItems(["sub-01", "sub-02"])
        panel._checkCanApply()
        finish(panel, panel.ui.overlayButton)
        assert visible_segmentations(slicer) == {"sub-01", "sub-01 atlas"}
        table = panel.ui.peopleTable
        assert [table.item(r, 0).text() for r in range(table.rowCount())] == ["sub-02", "sub-01", "sub-03"], \
            "an overlay is not a person"
        finish(panel, panel.ui.checkerboardButton)
        assert visible_segmentations(slicer) == {"sub-01 checkerboard"}
    finally:
        panel._cohort = None
        close_panel(panel)


def test_the_map_is_seen_in_the_discs_and_earlier_results_are_hidden(relaxometry, slicer):
    fill(relaxometry)
    earlier = mrml.segmentation_from_labels(discs(), "Discs of an earlier run")
    earlier.CreateDefaultDisplayNodes()
    click(relaxometry.ui.computeButton)
    wait_until(lambda: not relaxometry.work.busy, 120)
    assert visible_segmentations(slicer) == {"Discs"}
    first = visible_legends(slicer)
    assert len(first) == 1 and first[0].GetName().endswith("in the discs")
    array = slicer.util.arrayFromVolume(first[0])
    np.testing.assert_array_equal(np.isfinite(array), discs().array > 0)
    np.testing.assert_array_equal(array[discs().array > 0], slicer.util.arrayFromVolume(
        relaxometry._parameterNode.relaxationMap)[discs().array > 0])
    click(relaxometry.ui.computeButton)
    wait_until(lambda: not relaxometry.work.busy, 120)
    second = visible_legends(slicer)
    assert len(second) == 1 and second[0] is not first[0]


def test_a_path_that_is_not_chosen_is_not_a_dot(panel):
    fields = [w for w in vars(panel.ui).values() if hasattr(w, "setCurrentPath")]
    assert fields and [f.currentPath() for f in fields] == [""] * len(fields)
    chosen = fields[0]
    chosen.setCurrentPath("somewhere")
    process()
    assert [f.currentPath() for f in fields] == ["somewhere", *[""] * (len(fields) - 1)]
    name = chosen.property("SlicerParameterName")
    assert str(panel._parameterNode.getValue(name)) == "somewhere"
    chosen.setCurrentPath("")
    process()
    assert [f.currentPath() for f in fields] == [""] * len(fields)


def test_the_volume_that_is_shown_chooses_itself(slicer):
    other = mrml.volume_from_image(Image(np.ones(GRID.shape, np.float32), GRID), "first")
    mrml.volume_from_image(Image(np.ones(GRID.shape, np.float32), GRID), "a map", "T2")
    shown = mrml.volume_from_image(Image(np.ones(GRID.shape, np.float32), GRID), "shown")
    slicer.util.setSliceViewerLayers(background=shown)
    panel = opened("DiscRelaxometry")
    try:
        assert panel.ui.inputVolumeSelector.currentNode() is shown and panel.ui.segmentButton.isEnabled()
        panel._parameterNode.inputVolume = other
        panel.exit()
        panel.enter()
        assert panel._parameterNode.inputVolume is other, "what the user has chosen stays"
    finally:
        close_panel(panel)


def test_panel_and_study_take_the_same_permutations(stats):
    from DiscRelaxometryLib.errors import StudyError
    from DiscStudyLib.folder import make_settings

    least = stats.ui.permutationsSpin.minimum()
    assert make_settings(permutations=least).permutations == least
    with pytest.raises(StudyError):
        make_settings(permutations=least - 1)


def test_a_refused_installation_is_forgotten_after_a_later_one(panel, slicer, monkeypatch):
    import slicer.packaging as packaging

    installed = []
    monkeypatch.setattr(packaging, "pip_check", lambda r: bool(installed))
    monkeypatch.setattr(packaging, "pip_ensure", lambda r, **k: installed.append(r))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: False)
    assert not panel.work.ensurePackages(["a>=1"], "...") and "Not started" in panel.ui.statusLabel.text()
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *a, **k: True)
    assert panel.work.ensurePackages(["a>=1"], "...") and panel.ui.statusLabel.text() == ""


def test_a_cancelled_study_says_what_stays(stats, monkeypatch, tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\n")
    monkeypatch.setattr(stats.work, "ensurePackages", lambda *a: True)
    stats._parameterNode.studyFolder = tmp_path
    stats._parameterNode.studyFormula = False
    told = []
    monkeypatch.setattr(stats.work, "run", lambda job, onResult, onProgress, cancelled: told.append(cancelled))
    click(stats.ui.studyButton)
    assert "stay" in told[0] and "nothing was changed" not in told[0]


@pytest.mark.parametrize("formula", ["T2 ~ missing_column", "T2 ~ age +", "T2 ~ 0", "T2 ~ age:", "T2 ~ f(age)"])
def test_no_error_names_an_internal_column(stats, tmp_path, formula):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n" + "".join(
        f"sub-{n}\t{20 + n}\n" for n in range(12)))
    stats._parameterNode.participantsFile = tmp_path / "participants.tsv"
    stats._parameterNode.formula = formula
    text = stats.ui.designView.toPlainText()
    assert text and "__" not in text


def test_the_preview_asks_for_packages_where_a_table_is_chosen_without_them(stats, tmp_path, monkeypatch):
    import slicer.packaging as packaging

    monkeypatch.setattr(packaging, "pip_check", lambda r: False)
    stats._installed = False
    stats._parameterNode.participantsFile = tmp_path / "participants.tsv"
    assert "Install the packages" in stats.ui.designView.toPlainText()


def test_the_legends_of_a_second_plot_are_words(slicer):
    from DiscStatsLib.analysis import PlotData
    from DiscStatsLib.mrml import plot_nodes

    data = PlotData(title="T2", x_title="age", y_title="T2 (ms)", kind="scatter", ids=["a", "b"], groups=[],
                    x=np.arange(2.0), y=np.arange(2.0), adjusted=np.arange(2.0), line=np.zeros((2, 2)), text="")
    for _ in range(2):
        chart = plot_nodes(data)
        assert [chart.GetNthPlotSeriesNode(n).GetName() for n in range(2)] == ["people", "fit"]


def test_headings_are_words_with_units_and_fill_the_width(panel, slicer):
    tables = [w for w in vars(panel.ui).values() if isinstance(w, QtWidgets.QTableWidget)]
    assert tables and all(t.horizontalHeader().stretchLastSection() for t in tables), "empty tables, too"
    from DiscAtlasLib.quality import QUALITY_COLUMNS
    from DiscRelaxometryLib.measure import measure_discs, measure_regions

    maps = {"T2": Image(np.full(GRID.shape, 60.0), GRID, {"unit": "ms"})}
    columns = [*QUALITY_COLUMNS, *measure_discs(discs(), maps).columns, *measure_regions(discs(), maps).columns]
    for column in columns:
        words = mrml.heading(column)
        assert "_" not in words and "[" not in words and words[0] == words[0].upper(), words
        assert (f"({column.unit})" in words) == (column.unit not in ("", "1", "[arb'U]")), words


def test_a_long_text_takes_no_other_column_out_of_sight(slicer):
    from DiscRelaxometryWidgets.qt_helpers import WIDEST_COLUMN, fill_table

    table = QtWidgets.QTableWidget()
    fill_table(table, ["Person", "Flags", "Note"], [["sub-01", "seen in part " * 40, "cut " * 100]])
    widths = [table.horizontalHeader().sectionSize(c) for c in range(2)]
    assert widths[0] < 120 and widths[1] == WIDEST_COLUMN < 200
    assert [table.item(0, c).toolTip() for c in (1, 2)] == ["seen in part " * 40, "cut " * 100]
