"""Long work as a value: a function by name with array arguments, run here or in a child process.

A panel runs a :class:`Job` in a child process, so that the window stays alive and Cancel can end it at any moment;
Logic and scripts run the same job in place.
"""

import atexit
import importlib
import inspect
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Cancelled, DiscRelaxometryError, OutputError
from ..progress import ProgressCallback, silent

#: Seconds that a cancelled child has to end by itself before it is killed.
GRACE = 1.0
_RUNNING: set = set()


@dataclass(frozen=True)
class Job:
    """A call that needs no scene."""

    #: ``module:name`` of a function that takes `arguments` and, if it reports progress, ``progressCallback``.
    function: str
    #: Arrays, images, dataclasses of the Libs and plain values.
    arguments: dict = field(default_factory=dict)
    #: What the user reads while it runs.
    title: str = ""

    def run(self, progressCallback: ProgressCallback | None = None):
        """Run here and return the function's result."""
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        reports = "progressCallback" in inspect.signature(function).parameters
        return function(**self.arguments, **({"progressCallback": progressCallback or silent} if reports else {}))


def send(content, path: Path) -> None:
    """Write what the other side is to :func:`receive`; arrays go from memory to the file without a copy."""
    with open(path, "wb") as file:
        pickle.dump(content, file, pickle.HIGHEST_PROTOCOL)


def receive(path: Path):
    """Return what was sent, arrays read in place."""
    with open(path, "rb") as file:
        return pickle.load(file)


def _folder_with(job: Job) -> Path:
    """Return a new folder that holds the job, or raise OutputError."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="DiscRelaxometryJob-"))
        send(job, folder / "job.pickle")
        return folder
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise OutputError(f"Work in the background needs a temporary folder, and none can be written ({error}): free "
                          "some space, or set TMPDIR to another place.", "output", error.errno) from error


class ChildProcess:
    """A job in a Python process of its own.

    The child writes its progress and its result into a private folder; nothing is read from a pipe, so that neither
    side can block the other. Call :meth:`poll` from a timer.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: Job):
        self.job = job
        executable = python_executable()
        self.folder = _folder_with(job)
        self.process = self._start(executable)
        self.started = time.monotonic()
        self._cancelled_at: float | None = None
        _RUNNING.add(self)

    def _start(self, executable: str) -> subprocess.Popen:
        # A process group of its own: Cancel then ends what the child itself has started, too.
        group = {"start_new_session": True} if os.name == "posix" else {
            "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
            | getattr(subprocess, "CREATE_NO_WINDOW", 0)}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with open(self.folder / "log.txt", "wb") as log:
            command = [executable, "-m", "DiscRelaxometryLib.jobs.worker", str(self.folder), str(os.getpid())]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                    env=environment, **group)

    def poll(self, progressCallback: Callable[[float, str], None] = silent) -> bool:
        """Report progress to `progressCallback`; return True once the child has ended."""
        if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > GRACE:
            self.kill()
        ended = self.process.poll() is not None
        if not ended:
            fraction, text = self.progress()
            progressCallback(fraction, text)
        return ended

    def progress(self) -> tuple[float, str]:
        """Return the last fraction and text that the child reported."""
        try:
            return tuple(json.loads((self.folder / "progress.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return 0.0, self.job.title

    def remaining(self) -> float | None:
        """Return the estimated seconds left, or None while there is no ground for an estimate."""
        fraction, elapsed = self.progress()[0], time.monotonic() - self.started
        return elapsed * (1 - fraction) / fraction if fraction > 0.02 and elapsed > 2 else None

    def cancel(self) -> None:
        """Ask the child to stop; a later :meth:`poll` kills it when it does not."""
        (self.folder / "cancel").touch()
        self._cancelled_at = self._cancelled_at or time.monotonic()

    def kill(self) -> None:
        """End the child and what it started, now."""
        if self.process.poll() is None:
            if os.name == "posix":
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                subprocess.run(["taskkill", "/F", "/T", "/PID", str(self.process.pid)], capture_output=True)
        self.process.wait(10)

    def result(self):
        """Return the result of an ended child and remove its folder.

        Raises
        ------
        Cancelled
            If it was cancelled.
        Exception
            What the function raised, or RuntimeError with the end of the child's log if it died.
        """
        try:
            if self._cancelled_at is not None:
                raise Cancelled("Cancelled by the user.")
            path = self.folder / "result.pickle"
            if not path.exists():
                log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
                raise RuntimeError(f"The background process ended without a result (exit code "
                                   f"{self.process.returncode}); it may have run out of memory.\n{log[-2000:]}")
            kind, value = receive(path)
            if kind == "error":
                raise value
            return value
        finally:
            self.close()

    def close(self) -> None:
        """End the child if it runs, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        _RUNNING.discard(self)


def python_executable() -> str:
    """Return the Python to start a child with; inside Slicer that is PythonSlicer, never the application itself."""
    if Path(sys.executable).name.lower().startswith("python"):
        return sys.executable
    found = shutil.which("PythonSlicer")
    if found is None:
        raise DiscRelaxometryError("PythonSlicer was not found beside Slicer: reinstall Slicer, use the module's "
                                   "Logic, or run a study with one process.")
    return found


@atexit.register
def end_children() -> None:
    """End every child that still runs; called when the application quits or a module is unloaded."""
    for child in list(_RUNNING):
        child.close()
