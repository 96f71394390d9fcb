"""Run a whole study from the panel, with a log; finished work is not done again."""

from pathlib import Path

import slicer
from DiscRelaxometryWidgets import requirements
from DiscRelaxometryWidgets.qt_helpers import chosen_path
from slicer.i18n import tr as _

from DiscRelaxometryLib.jobs import Job

from .sample_cohort import FORMULA, STUDY_FOLDER, unpack


def results_folder(study):
    """Return the folder that a study's results are in."""
    from DiscStudyLib.folder import DERIVATIVES

    return Path(study) / DERIVATIVES


class StudyRunner:
    """The cohort runner's widgets."""

    def __init__(self, ui, work):
        self.ui, self.work, self.settings, self._last = ui, work, None, ""
        ui.studyButton.clicked.connect(self.onRun)
        ui.reportButton.clicked.connect(self.onReport)

    def offerSampleCohort(self):
        """Fill in study, table and formula from the sample cohort of the Sample Data module, where none is chosen."""
        p = self.settings
        self._unpack(chosen_path(p.studyFolder))
        if chosen_path(p.studyFolder) or chosen_path(p.participantsFile) or p.formula:
            return
        folders = [n.GetAttribute(STUDY_FOLDER) for n in slicer.util.getNodesByClass("vtkMRMLTableNode")]
        for folder in folders:
            self._unpack(folder)
        folder = next((Path(f) for f in folders if f and Path(f).is_dir()), None)
        if folder is not None:
            with slicer.util.NodeModify(p):
                p.studyFolder, p.participantsFile, p.formula = folder, folder / "participants.tsv", FORMULA

    def _unpack(self, folder):
        """Complete the sample cohort, if this is its folder; return whether nothing is missing."""
        return self.work.attempt(_("The sample cohort cannot be copied."), lambda: unpack(folder) or True)

    def _report(self):
        folder = chosen_path(self.settings.studyFolder)
        return None if folder is None else results_folder(folder) / "report.html"

    def checkCanApply(self):
        """Enable what can be done with the chosen study."""
        ui, p, folder = self.ui, self.settings, chosen_path(self.settings.studyFolder)
        missing = [] if folder is not None else [_("Choose the folder of the study.")]
        if p.studyFormula and not p.formula:
            missing.append(_("Type a formula under Model, or switch the statistics off."))
        if folder is not None and not (Path(folder) / "participants.tsv").exists():
            missing = [_("There is no participants.tsv in this folder: choose the study's top folder.")]
        self.work.allow(ui.studyButton, missing, _("Run every step that is not finished; the log says what is done"))
        report = self._report()
        made = [] if report is not None and report.exists() else [_("Run the study first.")]
        self.work.allow(ui.reportButton, missing or made, _("Open the report in the web browser"))

    def onRun(self):
        """Run the study in a child process."""
        p = self.settings
        needed = [*requirements.STUDY, *(requirements.CLUSTER if p.processes > 1 else ())]
        if not self.work.ensurePackages(needed, _(
                "The whole study needs Python packages for segmentation, statistics and the report (about 300 MB). "
                "Install them into Slicer's Python?")):
            return
        self.ui.logView.setPlainText("")
        self._last = ""
        folder = chosen_path(p.studyFolder)
        if not self._unpack(folder):
            return
        arguments = {"path": folder, "processes": p.processes, "session": p.session.strip()}
        if p.studyFormula:
            arguments.update(formula=p.formula, contrast=p.contrast, permutations=p.permutations, seed=p.seed,
                             errors=p.errors.value, standard_errors=p.standardErrors.value, pooled=p.pooled,
                             missing="available" if p.availableCase else "complete", change=p.change.value,
                             variance_groups=p.varianceGroups.strip())
        self.work.run(
            Job("DiscStudyLib:run_study", arguments, _("Running the study")),
            lambda run: self._show(run, p, folder), self._log,
            _("Cancelled; the steps that were finished stay, and the next run goes on from there."))

    def _log(self, text):
        """Add a line to the log, once."""
        if text and text != self._last:
            self._last = text
            self.ui.logView.appendPlainText(text)

    def _show(self, run, p, folder):
        """Say what was done and what failed, and offer the maps."""
        done = sum(o.state == "done" for o in run.outcomes)
        lines = [_("{done} steps done, {failed} failed, {n} people incomplete.").format(
            done=done, failed=len(run.failed), n=len(run.missing))]
        lines += [f"{person}: {reason}" for person, reason in run.missing.items()]
        lines += [f"{o.step}: {o.message}" for o in run.failed if not o.person]
        for line in lines:
            self._log(line)
        self.work.say("\n".join(lines))
        p.mapsFolder = results_folder(folder)
        if chosen_path(p.participantsFile) is None:
            p.participantsFile = Path(folder) / "participants.tsv"

    def onReport(self):
        """Open the report."""
        import qt

        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._report())))
