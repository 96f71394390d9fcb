"""What a computer does to a user: full and read-only disks, missing files and packages, processes that are killed."""

import errno
import importlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from DiscRelaxometryLib.jobs import Job, jobs
from panels.host import close_panel, open_panel, wait_until

MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")


def waits(progressCallback):
    progressCallback(0.3, "working")
    time.sleep(60)


def answers(progressCallback):
    return 42


def fills_the_disk(progressCallback):
    """Stand for a result that the temporary folder cannot take."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/result")


def lacks_a_file(progressCallback):
    from DiscRelaxometryLib.resources import resource_path

    resource_path("Weights/gone.safetensors")


@pytest.fixture(params=MODULES)
def panel(slicer, request):
    shown = open_panel(getattr(importlib.import_module(request.param), f"{request.param}Widget"))
    yield shown
    close_panel(shown)
    assert not jobs._RUNNING


@pytest.fixture
def said(slicer, monkeypatch):
    """The dialogs, as (text, whether a traceback was shown with it)."""
    found = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **extra: found.append((text, bool(extra))))
    return found


def works(panel):
    """See that the panel can work again."""
    panel.work.run(Job(f"{__name__}:waits", {}, "Work"), lambda result: None)
    wait_until(lambda: "working" in panel.ui.statusLabel.text())
    panel.work.stop()


def start(panel, function, **arguments):
    panel.work.run(Job(f"{__name__}:{function}", arguments, "Work"), lambda result: pytest.fail("no result expected"),
                   failed="It could not be done.")


def test_a_temporary_folder_that_cannot_be_written_is_said_once(panel, slicer, said, monkeypatch):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    refused = PermissionError(errno.EACCES, "Permission denied", "/tmp/DiscRelaxometryJob-x")
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **k: (_ for _ in ()).throw(refused))
    start(panel, "waits")
    (text, details), = said
    assert text.startswith("It could not be done.\n\nWork in the background needs a temporary folder") and not details
    assert "TMPDIR" in text and "#output" in text and not panel.work.busy
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes
    monkeypatch.undo()
    works(panel)


def test_a_disk_that_fills_up_with_the_job_leaves_no_folder(panel, said, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(content, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "send", full)
    start(panel, "waits")
    (text, details), = said
    assert "free some space" in text and not details and not panel.work.busy and not list(tmp_path.iterdir())


def test_no_python_to_start_leaves_no_folder(panel, said, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(jobs.sys, "executable", "/opt/Slicer/bin/SlicerApp-real")
    monkeypatch.setattr(shutil, "which", lambda *a, **k: None)
    start(panel, "waits")
    assert len(said) == 1 and "PythonSlicer was not found" in said[0][0]
    assert not panel.work.busy and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_child_that_is_killed_is_said_once_and_nothing_is_lost(panel, slicer, said):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    start(panel, "waits")
    wait_until(lambda: "working" in panel.ui.statusLabel.text())
    child = panel.work.child
    os.kill(child.process.pid, signal.SIGKILL)
    wait_until(lambda: not panel.work.busy)
    (text, _details), = said
    assert "ended without a result (exit code -9)" in text and "memory" in text
    assert not child.folder.exists() and slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert panel.ui.statusLabel.text().startswith("Failed: ") and not panel.ui.cancelButton.isVisible()
    works(panel)


@pytest.mark.parametrize(("function", "words"), [("fills_the_disk", "No space left"), ("lacks_a_file", "Reinstall")])
def test_what_a_child_lacks_is_said_once(panel, said, function, words):
    start(panel, function)
    wait_until(lambda: not panel.work.busy)
    assert len(said) == 1 and words in said[0][0]
    assert said[0][1] == (function == "fills_the_disk"), "a sentence for users needs no traceback"


def test_a_cache_that_cannot_be_written_leaves_the_panel_open(slicer, said, monkeypatch, tmp_path):
    pytest.importorskip("pandas")
    from DiscStatsWidgets import sample_cohort

    from DiscStats import DiscStatsLogic, DiscStatsWidget
    from DiscStudyLib import demo

    monkeypatch.setattr(sample_cohort, "cohort_folder", lambda: tmp_path / "spider-cohort")

    def full(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(demo.shutil, "copyfile", full)
    DiscStatsLogic().getParameterNode().studyFolder = tmp_path / "spider-cohort"
    panel = open_panel(DiscStatsWidget)
    try:
        assert said and all("free some space" in text and not details for text, details in said)
        assert not [f for f in tmp_path.rglob("*") if f.is_file()], "half a file would be taken for a whole one later"
        assert panel._parameterNode is not None
        monkeypatch.setattr(panel.work, "ensurePackages", lambda *a: True)
        before = len(said)
        panel._study.onRun()
        assert len(said) == before + 1 and not panel.work.busy
    finally:
        close_panel(panel)


def test_sizes_that_cannot_be_measured_leave_the_table(slicer, said, monkeypatch):
    from DiscRelaxometryWidgets import disc_table
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    monkeypatch.setattr(disc_table, "ChildProcess", lambda job: (_ for _ in ()).throw(OSError("no room")))
    panel = open_panel(DiscRelaxometryWidget)
    try:
        panel._parameterNode.segmentation = load_person()[1]
        table = panel.ui.discTable
        wait_until(lambda: [table.item(r, 1).text() for r in range(table.rowCount())] == [""] * 7)
        assert not said
    finally:
        close_panel(panel)


def test_a_module_reloaded_while_discs_are_measured_leaves_no_child(slicer):
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    panel = open_panel(DiscRelaxometryWidget)
    panel._parameterNode.segmentation = load_person()[1]
    wait_until(lambda: jobs._RUNNING)
    (child,) = jobs._RUNNING
    close_panel(panel)
    assert not jobs._RUNNING and child.process.poll() is not None and not child.folder.exists()


def test_onnxruntime_is_asked_for_before_anything_starts(slicer, said, monkeypatch):
    import slicer.packaging as packaging
    from DiscRelaxometryWidgets.sample_data import load_person

    from DiscRelaxometry import DiscRelaxometryWidget

    panel, asked = open_panel(DiscRelaxometryWidget), []
    monkeypatch.setattr(packaging, "pip_check", lambda r: "onnxruntime" not in str(r))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *a, **k: asked.append(text) and False)
    try:
        panel._parameterNode.inputVolume = load_person()[0]
        panel.ui.segmentButton.click()
        assert len(asked) == 1 and "onnxruntime" in asked[0] and not said and not panel.work.busy
        assert panel.ui.statusLabel.text() == "Not started: the packages were not installed."
    finally:
        close_panel(panel)


def test_the_window_is_drawn_while_the_browser_loads_a_series(slicer, monkeypatch):
    """The reading of a DICOM series is a child's, which is ended where the waiting fails."""
    from DiscRelaxometryWidgets.work import in_child

    drawn = []
    monkeypatch.setattr(slicer.app, "processEvents", lambda *flags: drawn.append(len(jobs._RUNNING)))
    assert in_child(Job(f"{__name__}:answers")) == 42
    assert set(drawn) == {1}
    monkeypatch.setattr(slicer.app, "processEvents", lambda *flags: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        in_child(Job(f"{__name__}:waits"))
    assert not jobs._RUNNING
