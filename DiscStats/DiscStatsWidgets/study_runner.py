"""Run a whole study from the panel, with a log; finished work is not done again."""

from pathlib import Path

import slicer
from DiscRelaxometryWidgets.qt_helpers import chosen_path
from slicer.i18n import tr as _

from DiscRelaxometryLib.jobs import Job


class StudyRunner:
    """The cohort runner's widgets.

    :param panel: the StatsPanel.
    """

    def __init__(self, panel):
        self.panel, self.last = panel, ""
        ui = panel.ui
        ui.studyButton.clicked.connect(self.onRun)
        ui.reportButton.clicked.connect(self.onReport)

    def _folder(self):
        path = chosen_path(self.panel._parameterNode.studyFolder)
        return None if path is None else Path(path)

    def offerSampleCohort(self):
        """Fill in study, table and formula from the sample cohort of the Sample Data module, where none is chosen."""
        p = self.panel._parameterNode
        if chosen_path(p.studyFolder) or chosen_path(p.participantsFile) or p.formula:
            return
        folders = [n.GetAttribute("DiscStats.StudyFolder") for n in slicer.util.getNodesByClass("vtkMRMLTableNode")]
        folder = next((Path(f) for f in folders if f and Path(f).is_dir()), None)
        if folder is not None:
            with slicer.util.NodeModify(p):
                p.studyFolder = folder
                p.participantsFile = folder / "participants.tsv"
                p.formula = "pfirrmann + age + C(sex)"

    def _report(self):
        folder = self._folder()
        return None if folder is None else folder / "derivatives" / "disc-relaxometry" / "report.html"

    def checkCanApply(self):
        """Enable what can be done with the chosen study."""
        ui, folder = self.panel.ui, self._folder()
        p = self.panel._parameterNode
        missing = [] if folder is not None else [_("Choose the folder of the study.")]
        if p.studyFormula and not p.formula:
            missing.append(_("Type a formula under Model, or switch the statistics off."))
        if folder is not None and not (folder / "participants.tsv").exists():
            missing = [_("There is no participants.tsv in this folder: choose the study's top folder.")]
        self.panel.allow(ui.studyButton, missing, _("Run every step that is not finished; the log says what is done"))
        report = self._report()
        made = [] if report is not None and report.exists() else [_("Run the study first.")]
        self.panel.allow(ui.reportButton, missing or made, _("Open the report in the web browser"))

    def onRun(self):
        """Run the study in a child process."""
        from DiscStats import REQUIREMENTS

        needed = [*REQUIREMENTS, "onnxruntime>=1.20", "jinja2>=3.1", "matplotlib>=3.9"]
        p = self.panel._parameterNode
        if p.processes > 1:
            needed += ["dask>=2025.1", "distributed>=2025.1"]
        if not self.panel.ensurePackages(needed, _(
                "The whole study needs Python packages for segmentation, statistics and the report (about 300 MB). "
                "Install them into Slicer's Python?")):
            return
        self.panel.ui.logView.setPlainText("")
        self.last = ""
        arguments = {"path": str(self._folder()), "processes": p.processes}
        if p.studyFormula:
            arguments.update(formula=p.formula, contrast=p.contrast, permutations=p.permutations, seed=p.seed,
                             errors=p.errors.value, standard_errors=p.standardErrors.value)
        self.panel.runJob(Job("DiscStudyLib.engine.runner:run_study", arguments, _("Running the study")), self.show)

    def log(self, text):
        """Add a line to the log, once."""
        if text and text != self.last:
            self.last = text
            self.panel.ui.logView.appendPlainText(text)

    def show(self, run):
        """Say what was done and what failed."""
        done = sum(o.state == "done" for o in run.outcomes)
        lines = [_("{done} steps done, {failed} failed, {n} people incomplete.").format(
            done=done, failed=len(run.failed), n=len(run.missing))]
        lines += [f"{person}: {reason}" for person, reason in run.missing.items()]
        lines += [f"{o.step}: {o.message}" for o in run.failed if not o.person]
        for line in lines:
            self.log(line)
        self.panel.ui.statusLabel.setText(lines[0])
        p = self.panel._parameterNode
        p.mapsFolder = type(p.mapsFolder)(self._folder() / "derivatives" / "disc-relaxometry")
        if chosen_path(p.participantsFile) is None:
            p.participantsFile = type(p.participantsFile)(self._folder() / "participants.tsv")

    def onReport(self):
        """Open the report."""
        import qt

        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report())))
