"""What all three panels must survive: closing the scene, reloading the module, two sets of inputs, a saved scene."""

import importlib
import logging
import time

import pytest

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.jobs import jobs
from panels.host import close_panel, open_panel, process, wait_until

MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")


def slow(progressCallback):
    """Work that reports once and then does not listen."""
    progressCallback(0.4, "working")
    time.sleep(60)


def widget_class(name):
    return getattr(importlib.import_module(name), f"{name}Widget")


@pytest.fixture(params=MODULES)
def module(request):
    return request.param


@pytest.fixture
def panel(slicer, module):
    opened = open_panel(widget_class(module))
    yield opened
    close_panel(opened)
    assert not jobs._RUNNING


def start_slow(panel):
    panel.work.run(jobs.Job(f"{__name__}:slow", {}, "Slow work"), lambda result: pytest.fail("no result expected"))
    child = panel.work.child
    wait_until(lambda: "working" in panel.ui.statusLabel.text())
    return child


def test_closing_the_scene_ends_work_and_a_new_scene_works(panel, slicer):
    child = start_slow(panel)
    slicer.mrmlScene.Clear(0)
    process()
    assert child.process.poll() is not None and not child.folder.exists() and not panel.work.busy
    assert "scene was closed" in panel.ui.statusLabel.text()
    assert panel._parameterNode is not None, "the panel is shown and must work on the new scene"
    # It can work again at once.
    start_slow(panel)
    panel.work.cancel()
    wait_until(lambda: not panel.work.busy)
    assert "Cancelled" in panel.ui.statusLabel.text()


def test_the_tab_key_goes_down_the_panel_line_by_line(panel):
    """The order of the focus is that of the eye: from top to bottom, in a line from left to right."""
    from PySide6 import QtCore

    for section in (w for w in vars(panel.ui).values() if hasattr(w, "setCollapsed")):
        section.setCollapsed(False)
    panel.parent.resize(440, 2600)
    process(50)
    named, widget, places = set(vars(panel.ui).values()), panel.uiWidget, []
    while (widget := widget.nextInFocusChain()) is not panel.uiWidget:
        if widget in named and widget.isVisible() and widget.focusPolicy() & QtCore.Qt.TabFocus:
            corner = widget.mapTo(panel.parent, QtCore.QPoint(0, widget.height() // 2))
            places.append((corner.y(), corner.x(), widget.objectName()))
    assert len(places) > 15
    for (y, x, name), (below, right, following) in zip(places, places[1:]):
        assert below > y + 8 or abs(below - y) <= 8 and right > x, f"{name} comes before {following}"


def three(progressCallback):
    return 3


def in_turns(panel, steps, times=1):
    """Start work whose result is shown in turns, three or more times three, and wait until the first has begun."""
    def show(result):
        for step in range(times * result):
            steps.append(step)
            yield

    panel.work.run(jobs.Job(f"{__name__}:three", {}, "Quick work"), show)
    wait_until(lambda: steps)


def test_the_window_answers_between_the_turns_of_a_result(panel):
    from PySide6 import QtCore

    steps, seen, timer = [], [], QtCore.QTimer()
    timer.timeout.connect(lambda: seen.append((len(steps), panel.work.busy)))
    timer.start(0)
    in_turns(panel, steps)
    wait_until(lambda: not panel.work.busy)
    timer.stop()
    assert steps == [0, 1, 2] and {(1, True), (2, True)} <= set(seen)
    assert not panel.ui.cancelButton.isVisible() and panel.ui.statusLabel.text() == "Done."


def test_a_scene_closed_while_a_result_is_shown_ends_the_showing(panel, slicer):
    steps = []
    in_turns(panel, steps, times=1000)
    slicer.mrmlScene.Clear(0)
    shown = len(steps)
    process(100)
    assert len(steps) == shown < 3000 and not panel.work.busy and "scene was closed" in panel.ui.statusLabel.text()


def test_an_error_while_a_result_is_shown_is_said_and_nothing_half_made_stays(panel, slicer, caplog):
    before = slicer.mrmlScene.GetNumberOfNodes()

    def show(result):
        with mrml.all_or_nothing():
            mrml.add_node("vtkMRMLTextNode", "half")
            yield
            raise DiscRelaxometryError("The volume went away.")

    panel.work.run(jobs.Job(f"{__name__}:three", {}, "Quick work"), show, failed="It could not be shown.")
    with caplog.at_level(logging.ERROR):
        wait_until(lambda: not panel.work.busy)
    assert "It could not be shown." in caplog.text and panel.ui.statusLabel.text() == "Failed: The volume went away."
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    start_slow(panel)
    panel.work.stop()


def test_no_work_can_be_started_twice(panel):
    start_slow(panel)
    buttons = [w for w in vars(panel.ui).values() if type(w).__name__ == "QPushButton" and w.isEnabled()]
    names = {b.objectName() for b in buttons}
    # Only what touches no node of the running work stays available.
    assert names <= {"cancelButton", "moreButton", "allButton", "noneButton"}
    panel.work.cancel()
    wait_until(lambda: not panel.work.busy)


def test_reload_while_working_leaves_no_child_and_no_observer(slicer, module):
    first = open_panel(widget_class(module))
    child = start_slow(first)
    close_panel(first)
    assert child.process.poll() is not None and not child.folder.exists() and not first.Observations
    # As Slicer's reload does: the module is imported anew, and a new panel is made.
    source = importlib.import_module(module)
    importlib.reload(source)
    second = open_panel(widget_class(module))
    assert second._parameterNode is not None and not second.work.busy
    close_panel(second)
    assert not second.Observations


def test_opening_and_leaving_many_times_adds_no_node(slicer, module):
    opened = open_panel(widget_class(module))
    count = slicer.mrmlScene.GetNumberOfNodes()
    observers = len(opened.Observations)
    for _ in range(5):
        opened.exit()
        opened.enter()
    assert slicer.mrmlScene.GetNumberOfNodes() == count and len(opened.Observations) == observers
    close_panel(opened)


def test_nothing_is_asked_said_or_installed_at_start(slicer, module, monkeypatch, caplog):
    for name in ("errorDisplay", "warningDisplay", "infoDisplay", "confirmOkCancelDisplay", "confirmYesNoDisplay"):
        monkeypatch.setattr(slicer.util, name, lambda *a, **k: pytest.fail("a message at start"), raising=False)
    monkeypatch.setattr(slicer.packaging, "pip_ensure", lambda *a, **k: pytest.fail("an installation at start"))
    with caplog.at_level(logging.WARNING):
        close_panel(open_panel(widget_class(module)))
    assert not caplog.records


def test_a_scene_loaded_over_another_takes_its_settings(panel, slicer, tmp_path):
    """Two scenes' worth of inputs: the second scene is added to the first, and its settings win, as in Slicer."""
    def state():
        return {name: panel._parameterNode.getValue(name) for name, (kind, _) in
                panel._parameterNode.allParameters.items() if kind.kind in (int, float, bool)}

    changed = {name: (not value if isinstance(value, bool) else value + 1) for name, value in state().items()}
    defaults = state()
    for name, value in changed.items():
        panel._parameterNode.setValue(name, value)
    slicer.util.saveScene(str(tmp_path / "second.mrb"))
    for name, value in defaults.items():
        panel._parameterNode.setValue(name, value)
    slicer.util.loadScene(str(tmp_path / "second.mrb"))
    process()
    assert state() == changed
    for widget in vars(panel.ui).values():
        name = widget.property("SlicerParameterName")
        if name in changed and hasattr(widget, "isChecked"):
            assert widget.isChecked() == changed[name], name


def test_time_left_is_shown(panel, monkeypatch):
    child = start_slow(panel)
    monkeypatch.setattr(type(child), "remaining", lambda self: 42.0)
    wait_until(lambda: "about 42 s left" in panel.ui.statusLabel.text())
    assert panel.ui.progressBar.value() == 40
    panel.work.cancel()
    wait_until(lambda: not panel.work.busy)


def test_cancel_is_quick_by_design(slicer):
    """Two seconds at most: what a deaf child is given, and how often the panel looks."""
    from DiscRelaxometryWidgets.work import POLL_MS

    assert jobs.GRACE + 2 * POLL_MS / 1000 < 2.0


def test_the_self_test_of_the_panel_runs_where_there_is_a_window(panel, slicer, module, monkeypatch):
    opened = []
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: object())
    monkeypatch.setattr(slicer.util, "selectModule", opened.append)
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda name: panel)
    test = getattr(importlib.import_module(module), f"{module}Test")("test_the_panel_opens")
    test.setUp()
    test.test_the_panel_opens()
    assert opened == [module]
