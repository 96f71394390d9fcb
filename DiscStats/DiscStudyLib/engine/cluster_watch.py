"""End local workers when the run that started them was killed: they would go on writing into its study.

A preload of the process that keeps Dask's workers (the nanny), which is a child of the run; see ``cluster_dask``. A
worker holds the lock of its person, so that a resumed run cannot work on the person before the worker has ended.
"""

import os
import threading
import time

_SECONDS = 0.25


def dask_setup(server) -> None:
    """Start to watch the parent; called by Dask in the nanny's process."""
    threading.Thread(target=_watch, name="watch of the run", daemon=True).start()


def _watch() -> None:
    import psutil

    parent = int(os.environ["DISC_RUN_PROCESS"])
    try:
        run = psutil.Process(parent)
        # A killed process that nobody has waited for yet still exists, but is no longer the parent.
        while run.is_running() and (os.name == "nt" or os.getppid() == parent):
            time.sleep(_SECONDS)
    except psutil.NoSuchProcess:
        pass
    workers = psutil.Process().children(recursive=True)
    for worker in workers:
        worker.kill()
    psutil.wait_procs(workers, 10)
    os._exit(1)
