"""What the three panels share: life of the parameter node, long work in a child process, messages."""

import logging

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError
from DiscRelaxometryLib.jobs import ChildProcess

from .displays import renew_thresholds
from .qt_helpers import allow, duration, value

#: Page that explains an error further; an error's anchor is a heading of it.
TROUBLESHOOTING = "https://github.com/DiscRelaxometry/SlicerDiscRelaxometry/blob/main/Docs/troubleshooting.md"
POLL_MS = 100


class InPlace:
    """A job that runs in this process; takes the place of a child."""

    def __init__(self, job):
        self.job, self.cancelled = job, False
        self.cancel = self.close = self._stop

    def _stop(self):
        self.cancelled = True

    def remaining(self):
        """Return None: the time left is not known."""


class DiscPanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Base of the module panels.

    A subclass sets ``uiName`` and implements ``createLogic``, ``connectWidgets`` and ``_checkCanApply``; its .ui file
    has ``progressBar``, ``statusLabel`` and ``cancelButton``.
    """

    uiName = ""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._child = None
        self._onResult = None
        self._timer = None

    # ------------------------------------------------------------ life of the panel

    def setup(self):
        """Build the panel; called once, when it is opened for the first time."""
        import qt

        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.uiName}.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.createLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        self.ui.cancelButton.clicked.connect(self.onCancel)
        self._showIdle()
        self.connectWidgets()
        self.initializeParameterNode()

    def cleanup(self):
        """Let go of everything: the module is unloaded or reloaded."""
        if self._timer is not None:
            self._timer.stop()
        if self._child is not None:
            self._child.close()
            self._child = None
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """Take up the parameter node: the panel is shown."""
        self.initializeParameterNode()

    def exit(self):
        """Leave the parameter node: another module is shown. Work that runs goes on."""
        if self._child is None:
            self.setParameterNode(None)

    def onSceneStartClose(self, caller, event):
        """Leave the scene's nodes before they go; work on them is pointless now."""
        if self._child is not None:
            self._child.close()
            self._child = None
            self._timer.stop()
            self._showIdle(_("Stopped: the scene was closed."))
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        """Start anew on the empty scene, if the panel is shown."""
        if value(self.parent, "isEntered"):
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """Show the maps of a loaded scene as they were saved."""
        renew_thresholds()

    def initializeParameterNode(self):
        """Use the scene's parameter node, made with the defaults if there is none."""
        if self.logic is not None:
            renew_thresholds()
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node, or to none."""
        import vtk

        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
            self._onModified()

    def _onModified(self, caller=None, event=None):
        if self._parameterNode is not None:
            self.onParametersChanged()
            self._checkCanApply()

    def onParametersChanged(self):
        """Show what depends on the settings; called before ``_checkCanApply``."""

    def allow(self, button, missing, ready):
        """Enable a button where nothing is missing and no work runs; say why in its tooltip."""
        if self._child is not None:
            missing = [_("Wait until the running work has ended, or press Cancel.")]
        allow(button, missing, ready)

    # ------------------------------------------------------------ long work

    def runJob(self, job, onResult):
        """Run a job in a child process; `onResult(result)` is called in the window's thread."""
        self._child, self._onResult = ChildProcess(job), onResult
        self._showBusy(job)
        self._timer.start()

    def _showBusy(self, job):
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)
        self.ui.cancelButton.setVisible(True)
        self.ui.cancelButton.setEnabled(True)
        self.ui.statusLabel.setText(job.title)
        self._checkCanApply()

    def runHere(self, job, onResult):
        """Run a job in this process, for work that needs the scene; Cancel takes effect between its units."""
        self._child, self._onResult = InPlace(job), onResult
        self._showBusy(job)
        try:
            self._end(lambda: job.run(self._reportHere))
        finally:
            self._child = None
            self._checkCanApply()

    def _reportHere(self, fraction, text):
        if self._child is not None:
            self._showProgress(fraction, text)
            slicer.app.processEvents()
        if self._child is None or self._child.cancelled:
            raise Cancelled

    def _poll(self):
        child = self._child
        if child is None or not child.poll(self._showProgress):
            return
        self._timer.stop()
        self._child = None
        self._end(child.result)
        self._checkCanApply()

    def _end(self, result):
        """Show the result that `result()` returns, or why there is none."""
        try:
            outcome = result()
            self._showIdle(_("Done."))
            # Takes effect where the user has switched the scene's undo on.
            slicer.mrmlScene.SaveStateForUndo()
            self._onResult(outcome)
        except Cancelled:
            self._showIdle(_("Cancelled; nothing was changed."))
        except Exception as error:
            self._showIdle(_("Failed: {reason}").format(reason=getattr(error, "message", error)))
            self.showError(_("The computation failed."), error)

    def _showProgress(self, fraction, text):
        self.ui.progressBar.setValue(int(round(100 * fraction)))
        left = self._child.remaining()
        time = "" if left is None else _(" (about {time} left)").format(time=duration(left))
        self.ui.statusLabel.setText(f"{text}{time}")
        self.onProgress(text)

    def onProgress(self, text):
        """Take note of a progress text, for a log."""

    def _showIdle(self, text=""):
        self.ui.progressBar.setVisible(False)
        self.ui.cancelButton.setVisible(False)
        self.ui.statusLabel.setText(text)

    def onCancel(self):
        """Ask the running work to stop; it is killed where it does not within a second."""
        if self._child is not None:
            self._child.cancel()
            self.ui.cancelButton.setEnabled(False)
            self.ui.statusLabel.setText(_("Cancelling ..."))

    @property
    def busy(self):
        """Whether work runs."""
        return self._child is not None

    # ------------------------------------------------------------ messages and packages

    def showError(self, message, error):
        """Show an error in words, with the page that explains it."""
        import traceback

        details = "".join(traceback.format_exception(error))
        text = f"{message}\n\n{getattr(error, 'message', error)}"
        if getattr(error, "anchor", None):
            text += "\n\n" + _("More: {link}").format(link=f"{TROUBLESHOOTING}#{error.anchor}")
        logging.debug(details)
        # A sentence for the user needs no traceback; anything else does.
        extra = {} if isinstance(error, DiscRelaxometryError) else {"detailedText": details}
        slicer.util.errorDisplay(text, **extra)

    def attempt(self, message, action, undo=False):
        """Run a user's action; return its result, or None after showing why it failed.

        :param undo: the action changes nodes: keep the scene's state for Undo.
        """
        try:
            with slicer.util.WaitCursor():
                if undo:
                    slicer.mrmlScene.SaveStateForUndo()
                return action()
        except Exception as error:
            self.showError(message, error)
            return None

    def ensurePackages(self, requirements, purpose):
        """Install what an action needs, after the user has agreed; return whether it is there.

        :param requirements: list of "name>=version".
        :param purpose: what they are for and their size, said before the user is asked.
        """
        import slicer.packaging

        if all(slicer.packaging.pip_check(r) for r in requirements):
            return True
        if not slicer.util.confirmOkCancelDisplay(purpose, _("Python packages are needed")):
            self.ui.statusLabel.setText(_("Not started: the packages were not installed."))
            return False
        try:
            # The user has just agreed, to a text that says what for and how large.
            slicer.packaging.pip_ensure(requirements, prompt_install=False, requester=self.moduleName)
        except Exception as error:
            self.showError(_("The Python packages could not be installed."), error)
            return False
        return all(slicer.packaging.pip_check(r) for r in requirements)
