"""Long work, messages and Python packages of a panel, and the footer that shows them."""

import logging
import time

import slicer
from slicer.i18n import tr as _

from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError
from DiscRelaxometryLib.jobs import ChildProcess

from .qt_helpers import allow, duration, silent, value

#: Page that explains an error further; an error's anchor is a heading of it.
TROUBLESHOOTING = "https://github.com/DiscRelaxometry/SlicerDiscRelaxometry/blob/main/Docs/troubleshooting.md"
POLL_MS = 100
#: Between two turns of showing a result; with 0 the next one would come before clicks and other timers.
TURN_MS = 10
#: Characters that fit into two lines of the footer; the rest of a message is behind "More".
SHORT = 96


def shortened(text):
    """Return the sentences of a text that fit into two lines, or its beginning where the first does not."""
    line = " ".join(text.split())
    if len(line) <= SHORT:
        return line
    end = line.rfind(". ", 0, SHORT)
    return line[:end + 1] if end > 0 else line[:line.rfind(" ", 0, SHORT)] + " ..."


def in_child(job):
    """Return the result of a job that a child process does; the window is drawn meanwhile."""
    child = ChildProcess(job)
    try:
        while not child.poll():
            slicer.app.processEvents()
            time.sleep(0.02)
        return child.result()
    finally:
        child.close()


class Work:
    """Runs one job at a time and tells the user how it goes.

    `ui` has ``progressBar``, ``statusLabel``, ``moreButton`` and ``cancelButton``; `requester` is the module's name,
    said when packages are asked for; `changed` is called after work has started or ended, so that the buttons follow.
    """

    def __init__(self, ui, requester, changed):
        import qt

        self.ui, self.requester, self.changed = ui, requester, changed
        self.child = self._turns = None
        self._text, self._onResult, self._onProgress, self._cancelledText, self._failedText = "", None, None, "", ""
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self._poll)
        ui.cancelButton.clicked.connect(self.cancel)
        ui.moreButton.toggled.connect(lambda shown: self._showText())
        self._showIdle()

    @property
    def busy(self):
        """Whether work runs."""
        return self.child is not None or self._turns is not None

    # ------------------------------------------------------------ jobs

    def start(self, failed, make, onResult):
        """Run the job that ``make()`` returns; say `failed` where the one or the other does not succeed."""
        job = self.attempt(failed, make)
        if job is not None:
            self.run(job, onResult, failed=failed)

    def run(self, job, onResult, onProgress=None, cancelled=None, failed=None):
        """Run a job in a child process; `failed` is said above the reason of a failure.

        `onResult` is called with the result in the window's thread, and the window answers at its ``yield``;
        `onProgress` with each progress text, for a log. `cancelled` is said after Cancel, where something stays.
        """
        self._failedText = failed or _("The computation failed.")
        self.child = self.attempt(self._failedText, lambda: ChildProcess(job))
        if self.child is None:
            return
        self._onResult, self._onProgress = onResult, onProgress
        self._cancelledText = cancelled or _("Cancelled; nothing was changed.")
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)
        self.ui.cancelButton.setVisible(True)
        self.ui.cancelButton.setEnabled(True)
        self.say(job.title)
        self.changed()
        self._timer.start()

    def stop(self, text=""):
        """End the running work at once, if there is any, and say why."""
        self._timer.stop()
        if self.busy:
            if self.child is not None:
                self.child.close()
            self.child = self._turns = None
            self._showIdle(text)

    def cancel(self):
        """Ask the running work to stop; it is killed where it does not within a second."""
        if self.child is not None:
            self.child.cancel()
            self.ui.cancelButton.setEnabled(False)
            self.say(_("Cancelling ..."))

    def _poll(self):
        child = self.child
        if child is None or not child.poll(self._showProgress):
            return
        self._timer.stop()
        self.child, self._turns = None, self._show(child)
        self._turn()

    def _show(self, child):
        """Show the result of a child; each ``yield`` lets the window answer."""
        outcome = child.result()
        self._showIdle(_("Done."))
        yield
        # Takes effect where the user has switched the scene's undo on.
        slicer.mrmlScene.SaveStateForUndo()
        yield from self._onResult(outcome) or ()

    def _turn(self):
        """Go on with showing a result, or say why there is none."""
        import qt

        turns = self._turns
        if turns is None:  # stopped meanwhile
            return
        failure = None
        try:
            next(turns)
            qt.QTimer.singleShot(TURN_MS, self._turn)
            return
        except StopIteration:
            pass
        except Cancelled:
            self._showIdle(self._cancelledText)
        except Exception as error:
            failure = error
            self._showIdle(_("Failed: {reason}").format(reason=getattr(error, "message", error)))
        self._turns = None
        if failure is not None:
            self.showError(self._failedText, failure)
        self.changed()

    def _showProgress(self, fraction, text):
        self.ui.progressBar.setValue(int(round(100 * fraction)))
        left = self.child.remaining()
        left = "" if left is None else _(" (about {time} left)").format(time=duration(left))
        self.say(f"{text}{left}")
        if self._onProgress is not None:
            self._onProgress(text)

    def _showIdle(self, text=""):
        self.ui.progressBar.setVisible(False)
        self.ui.cancelButton.setVisible(False)
        self.say(text)

    # ------------------------------------------------------------ messages

    def say(self, text):
        """Show a message in the footer, in two lines; the whole of a longer one appears at the press of "More"."""
        self._text = text
        with silent(self.ui.moreButton):
            self.ui.moreButton.setChecked(False)
        self.ui.moreButton.setVisible(shortened(text) != text)
        self._showText()

    def _showText(self):
        whole = value(self.ui.moreButton, "isChecked")
        self.ui.statusLabel.setText(self._text if whole else shortened(self._text))
        self.ui.statusLabel.setToolTip(self._text)

    def allow(self, button, missing, ready):
        """Enable a button where nothing is missing and no work runs; say why in its tooltip."""
        if self.busy:
            missing = [_("Wait until the running work has ended, or press Cancel.")]
        allow(button, missing, ready)

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
        """Run a user's action (`undo`: it changes nodes); return its result, or None after showing why it failed."""
        try:
            with slicer.util.WaitCursor():
                if undo:
                    slicer.mrmlScene.SaveStateForUndo()
                return action()
        except Exception as error:
            self.showError(message, error)
            return None

    # ------------------------------------------------------------ packages

    def ensurePackages(self, requirements, purpose):
        """Install "name>=version" if the user agrees to `purpose` (with size); return whether all are there."""
        import slicer.packaging

        if all(slicer.packaging.pip_check(r) for r in requirements):
            return True
        if not self.agreed(purpose):
            return False
        try:
            # The user has just agreed, to a text that says what for and how large.
            slicer.packaging.pip_ensure(list(requirements), prompt_install=False, requester=self.requester)
        except Exception as error:
            self.showError(_("The Python packages could not be installed."), error)
            return False
        return all(slicer.packaging.pip_check(r) for r in requirements)

    def agreed(self, purpose):
        """Return whether the user agrees to an installation; the footer says what the answer leads to."""
        agreed = slicer.util.confirmOkCancelDisplay(purpose, _("Python packages are needed"))
        self.say("" if agreed else _("Not started: the packages were not installed."))
        return agreed
