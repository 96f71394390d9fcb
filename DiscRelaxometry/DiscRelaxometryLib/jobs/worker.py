"""The child's side of a job: ``python -m DiscRelaxometryLib.jobs.worker FOLDER PARENT``."""

import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from ..atomic import atomic_path
from ..errors import Cancelled
from .jobs import receive, send


def _watch(parent: int, folder: Path) -> None:
    """End this process when its parent is gone, so that a crashed application leaves no child and no image behind."""
    while True:
        time.sleep(1.0)
        if os.name == "posix" and os.getppid() != parent:
            for _ in range(5):  # the main thread may write into the folder while it is removed
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpid(), signal.SIGKILL)
            os._exit(3)


def run(folder: Path) -> None:
    """Run ``job.pickle`` and write ``result.pickle``: ("value", result) or ("error", exception)."""
    job = receive(folder / "job.pickle")
    last = 0.0

    def progress(fraction: float, text: str) -> None:
        nonlocal last
        if (folder / "cancel").exists():
            raise Cancelled("Cancelled by the user.")
        if time.monotonic() - last > 0.05 or fraction >= 1:
            last = time.monotonic()
            with atomic_path(folder / "progress.json") as path:
                path.write_text(json.dumps([min(max(float(fraction), 0.0), 1.0), str(text)]), encoding="utf-8")

    try:
        outcome = ("value", job.run(progress))
    except Exception as error:
        traceback.print_exc()
        outcome = ("error", _portable(error))
    with atomic_path(folder / "result.pickle") as path:
        send(outcome, path)


def _portable(error: Exception) -> Exception:
    """Return the exception, or a RuntimeError with its words if it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(int(sys.argv[2]), Path(sys.argv[1])), daemon=True).start()
    run(Path(sys.argv[1]))
