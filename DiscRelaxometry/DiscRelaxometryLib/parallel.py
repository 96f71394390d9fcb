"""Work side by side, in threads or processes, with results in order and one BLAS thread per worker."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context

from .progress import ProgressCallback, silent

_lock = threading.Lock()
_limits: list = []


def ordered(work: Callable, items: Sequence, workers: int | None = None, processes: bool = False,
            progress: ProgressCallback = silent, words: Callable = str) -> Iterator:
    """Yield the result of each item in order, with a few items ahead under way.

    Leaving the loop early, by whatever exception, drops the items that have not begun and waits for those that have.

    Parameters
    ----------
    work : callable
        Called with an item; must not share what it changes with the other calls. For processes, both can be pickled.
    items : sequence
    workers : int, optional
        By default one per core, at most one per item; 1 works in the calling thread.
    processes : bool
        Processes (spawned: threads of libraries do not survive a fork) in place of threads, which suit numpy, scipy
        and compiled loops, since these release the GIL.
    progress : callable
        Called with (fraction, text) in the calling thread; what it raises cancels.
    words : callable
        Text of the progress for an item.

    Raises
    ------
    BrokenProcessPool
        If a process dies, as when memory runs out.
    """
    workers = max(1, min(workers or available_cores(), len(items)))
    with one_blas_thread():
        if workers == 1:
            for step, item in enumerate(items):
                progress(step / len(items), words(item))
                yield work(item)
            return
        pool = (ProcessPoolExecutor(workers, get_context("spawn"), _one_blas_thread_from_the_start) if processes
                else ThreadPoolExecutor(workers))
        call = partial(_in_process, work) if processes else work
        waiting, done = deque(), 0
        try:
            for step, item in enumerate(items, start=1):
                waiting.append(pool.submit(call, item))
                while waiting and (len(waiting) > 2 * workers or step == len(items)):
                    result = waiting.popleft().result()
                    done += 1
                    progress(done / len(items), words(items[done - 1]))
                    yield result
        finally:
            pool.shutdown(cancel_futures=True)


def _one_blas_thread_from_the_start():
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"))


def _in_process(work, item):
    with one_blas_thread():
        return work(item)


@contextmanager
def one_blas_thread():
    """Limit BLAS to one thread, where threadpoolctl is installed, until the last of those inside leaves.

    BLAS threads inside small products only wait for each other, for minutes on a machine that others use too; and with
    one thread the rounding of a sum does not depend on the machine's cores.
    """
    with _lock:
        # The last to leave restores: with limits of their own, two that overlap would leave one behind for good.
        _limits.append(_limit_blas() if not _limits else None)
    try:
        yield
    finally:
        with _lock:
            if len(_limits) > 1:
                _limits.pop()
            elif (limit := _limits.pop()) is not None:
                limit.restore_original_limits()


def _limit_blas():
    try:
        libraries = _libraries_in_memory(*(name in sys.modules for name in ("scipy.linalg", "torch")))
    except ImportError:
        return None
    return libraries.limit(limits=1, user_api="blas")


@cache
def _libraries_in_memory(*brought: bool):
    """Look for BLAS, anew once a package has brought its own: that takes longer than a small analysis."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
