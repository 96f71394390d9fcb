"""The DiscStats panel's whole study: run to the report, log, cancel, sample cohort, dropped table."""

import os
from pathlib import Path

import pytest
from PySide6 import QtCore, QtGui, QtWidgets
from support import ROOT

from panels.host import click, panel_session, process, wait_until

for library in ("pandas", "jinja2", "matplotlib", "patsy"):
    pytest.importorskip(library)


@pytest.fixture(autouse=True)
def children():
    """Let children be the processes that users have."""


@pytest.fixture
def panel(slicer):
    from DiscStats import DiscStatsWidget

    yield from panel_session(DiscStatsWidget)


@pytest.fixture
def study(tmp_path):
    from support.cohort_phantom import make_spine_study

    return make_spine_study(tmp_path / "study", (1, 2, 5, 4))


def fill(panel, study, monkeypatch):
    """Choose a study of digital phantoms; one level only, for speed."""
    p = panel._parameterNode
    p.studyFolder, p.participantsFile = study, study / "participants.tsv"
    p.formula, p.permutations = "pfirrmann", 100
    run = panel.work.run

    def one_level(job, *more):
        job.arguments["levels"] = ("L4-L5",)
        run(job, *more)

    monkeypatch.setattr(panel.work, "run", one_level)
    process()


def running(group: int) -> list[str]:
    """Return the processes of a process group that are alive."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, pgid = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(pgid) == group and state != "Z":
            found.append(folder.name)
    return found


def test_the_whole_study_runs_to_its_report(panel, study, monkeypatch):
    fill(panel, study, monkeypatch)
    ui = panel.ui
    assert not ui.reportButton.isEnabled() and "Run the study first" in ui.reportButton.toolTip()
    click(ui.studyButton)
    assert panel.work.busy and not ui.runButton.isEnabled()
    wait_until(lambda: not panel.work.busy, 500)
    log = ui.logView.toPlainText()
    assert "0 failed, 0 people incomplete" in ui.statusLabel.text(), log
    assert "Checking the study" in log and "sub-03" in log and "Finished" in log
    # Its maps are at hand for another analysis at once.
    assert panel._parameterNode.mapsFolder == study / "derivatives" / "disc-relaxometry"
    assert ui.quantityCombo.currentText() == "nT2w (4 people)" and ui.runButton.isEnabled()
    assert "Left out, for want of a column: L2-L3, L1-L2" in ui.designView.toPlainText()
    opened = []
    monkeypatch.setattr(QtGui.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    click(ui.reportButton)
    assert opened == [str(study / "derivatives" / "disc-relaxometry" / "report.html")]
    assert "pfirrmann" in Path(opened[0]).read_text(encoding="utf-8")
    # A second run finds everything done.
    click(ui.studyButton)
    wait_until(lambda: not panel.work.busy, 300)
    assert ui.statusLabel.text().startswith("0 steps done")


def test_settings_of_the_model_reach_the_study(panel, study, monkeypatch):
    found = []
    fill(panel, study, monkeypatch)
    monkeypatch.setattr(panel.work, "run", lambda job, *more, **named: found.append(job.arguments))
    p = panel._parameterNode
    p.contrast, p.seed = "pfirrmann", 7
    p.errors, p.standardErrors = type(p.errors).symmetric, type(p.standardErrors).hc3
    panel.ui.pooledCheck.setChecked(True)
    click(panel.ui.studyButton)
    panel.ui.studyFormulaCheck.setChecked(False)
    click(panel.ui.studyButton)
    assert found == [{"path": str(study), "processes": 1, "session": "", "change": "", "variance_groups": "",
                      "formula": "pfirrmann", "contrast": "pfirrmann",
                      "permutations": 100, "seed": 7, "errors": "symmetric", "standard_errors": "hc3",
                      "missing": "available", "pooled": True},
                     {"path": str(study), "processes": 1, "session": ""}]
    panel.ui.studyFormulaCheck.setChecked(True)
    p.formula = ""
    assert not panel.ui.studyButton.isEnabled() and "formula" in panel.ui.studyButton.toolTip()


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are looked up in /proc")
@pytest.mark.parametrize("processes", [1, 2])
def test_cancel_leaves_no_process_of_the_study(panel, study, monkeypatch, processes):
    if processes > 1:
        pytest.importorskip("distributed")
    fill(panel, study, monkeypatch)
    panel._parameterNode.processes = processes
    click(panel.ui.studyButton)
    child = panel.work.child
    group = os.getpgid(child.process.pid)
    assert group != os.getpgid(0)
    wait_until(lambda: "Checking" in panel.ui.logView.toPlainText() and len(running(group)) >= processes, 120)
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.work.busy, 30)
    assert "Cancelled" in panel.ui.statusLabel.text()
    wait_until(lambda: not running(group), 5)
    assert panel.ui.studyButton.isEnabled(), "a cancelled study can be continued"


def test_an_error_of_the_study_is_said_in_its_words(panel, study, monkeypatch, caplog):
    fill(panel, study, monkeypatch)
    panel._parameterNode.formula = "no_such_column"
    click(panel.ui.studyButton)
    wait_until(lambda: not panel.work.busy, 120)
    assert "no_such_column" in panel.ui.statusLabel.toolTip() and "no_such_column" in caplog.text


def test_the_sample_cohort_fills_the_panel(panel, slicer):
    """As a user does: Sample Data, then Disc Statistics."""
    from DiscStatsWidgets.sample_cohort import load_cohort

    panel.exit()
    table, = load_cohort()
    panel.enter()
    process()
    p, ui = panel._parameterNode, panel.ui
    assert ui.participantsTable.rowCount() == 33 and ui.studyButton.isEnabled()
    assert "pfirrmann" in p.formula and "33 people" in ui.designView.toPlainText()
    folder = Path(str(p.studyFolder))
    assert ROOT not in folder.parents, "results are never written into the installation"
    assert len(list(folder.glob("sub-*/anat/*_T2w.nii.gz"))) == 33
    # What a user has chosen is never replaced.
    p.studyFolder, p.formula = folder.parent, "age"
    panel.exit()
    panel.enter()
    assert p.formula == "age" and Path(str(p.studyFolder)) == folder.parent


def test_a_trimmed_cache_is_filled_again(panel, slicer):
    """Slicer deletes old files of its cache when it starts; the cohort that lies there is whole again when shown."""
    from DiscStatsWidgets.sample_cohort import load_cohort

    panel.exit()
    load_cohort()
    panel.enter()
    folder = Path(str(panel._parameterNode.studyFolder))
    panel.exit()
    files = sorted(folder.rglob("*_T2w.nii.gz"))
    for file in files[::2]:
        file.unlink()
    own = folder / "participants.tsv"
    own.write_text(own.read_text() + "\n")
    changed = own.read_bytes()
    panel.enter()
    assert sorted(folder.rglob("*_T2w.nii.gz")) == files and own.read_bytes() == changed, "what is there stays"


def drop(widget, path):
    """Drop a file on a widget with real Qt events."""
    data = QtCore.QMimeData()
    data.setUrls([QtCore.QUrl.fromLocalFile(str(path))])
    for kind in (QtGui.QDragEnterEvent, QtGui.QDropEvent):
        point = QtCore.QPoint(5, 5) if kind is QtGui.QDragEnterEvent else QtCore.QPointF(5, 5)
        event = kind(point, QtCore.Qt.CopyAction, data, QtCore.Qt.LeftButton, QtCore.Qt.NoModifier)
        QtWidgets.QApplication.sendEvent(widget, event)
    process()


# Qt before 6.12 has no other constructor.
@pytest.mark.filterwarnings("ignore:.*QDragEnterEvent:DeprecationWarning")
@pytest.mark.parametrize("target", ["participantsTable", "participantsFile"])
def test_a_table_is_dropped_on_the_panel(panel, study, tmp_path, target):
    widget = getattr(panel.ui, target)
    widget = widget.viewport() if target == "participantsTable" else widget.findChild(QtWidgets.QLineEdit)
    strange = tmp_path / "Tabelle mit Leerzeichen ä.tsv"
    strange.write_bytes((study / "participants.tsv").read_bytes())
    for path in (study / "participants.tsv", strange):
        drop(widget, path)
        assert panel._parameterNode.participantsFile == path, panel.ui.participantsFile.currentPath()
        assert panel.ui.participantsTable.rowCount() == 4
