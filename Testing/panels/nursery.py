"""Children of panels, forked from a process that has imported what they need, for which a new one takes a second.

Stands in for :meth:`DiscRelaxometryLib.jobs.jobs.ChildProcess._start` alone; what a child does, and how it ends, is the
product's. ``unit/jobs`` and ``test_stats_study`` start the processes that users have.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path


class Nursery:
    """A process that forks children on request, and knows how they ended."""

    def __init__(self):
        here, there = socket.socketpair()
        with there:
            paths = os.pathsep.join(p for p in sys.path if p)
            self.process = subprocess.Popen([sys.executable, "-m", __name__, str(there.fileno())],
                                            pass_fds=[there.fileno()], env={**os.environ, "PYTHONPATH": paths})
        self.socket, self.file = here, here.makefile("rw")

    def ask(self, *words):
        """Send a request, and return the answer."""
        print(json.dumps(words), file=self.file, flush=True)
        return json.loads(self.file.readline())

    def start(self, child, executable: str) -> Child:
        """Start the worker of a :class:`ChildProcess`."""
        return Child(self, self.ask("start", str(child.folder), dict(os.environ)))

    def close(self) -> None:
        """End the process."""
        self.file.close()
        self.socket.close()
        self.process.wait()


class Child:
    """What jobs use of ``subprocess.Popen``."""

    def __init__(self, nursery: Nursery, pid: int):
        self.nursery, self.pid, self.returncode = nursery, pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.nursery.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("child", timeout)
            time.sleep(0.005)
        return self.returncode


def work(folder: Path, environment: dict) -> None:
    """Be the worker of a job, as ``python -m DiscRelaxometryLib.jobs.worker FOLDER PARENT`` is."""
    from DiscRelaxometryLib.jobs import worker

    os.environ.clear()
    os.environ.update(environment)
    for target, source in ((0, os.open(os.devnull, os.O_RDONLY)),
                           (1, os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)), (2, 1)):
        os.dup2(source, target)
    threading.Thread(target=worker._watch, args=(os.getppid(), folder), daemon=True).start()
    worker.run(folder)


def main() -> None:
    """Answer requests until the other side is gone."""
    for name in ("numpy", "pandas", "scipy.ndimage", "scipy.stats", "SimpleITK", "onnxruntime",
                 "matplotlib.backends.backend_agg", "matplotlib.figure", "DiscRelaxometryLib.discs",
                 "DiscRelaxometryLib.echo", "DiscRelaxometryLib.fit", "DiscRelaxometryLib.measure", "DiscAtlasLib",
                 "DiscStatsLib.analysis", "panels.host"):
        with suppress(ImportError):  # what a child lacks, it says itself
            importlib.import_module(name)
    with suppress(ImportError):
        from numba.core.registry import cpu_target

        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()
    with socket.socket(fileno=int(sys.argv[1])) as other, other.makefile("rw") as file:
        for line in iter(file.readline, ""):
            what, value, *more = json.loads(line)
            if what == "start":
                answer = os.fork()
                if not answer:
                    code = 1
                    try:
                        other.close()
                        work(Path(value), *more)
                        code = 0
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(code)
                os.setpgid(answer, answer)  # as start_new_session does, before anybody can ask
            else:
                ended, status = os.waitpid(value, os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if ended else None
            print(json.dumps(answer), file=file, flush=True)


if __name__ == "__main__":
    main()
