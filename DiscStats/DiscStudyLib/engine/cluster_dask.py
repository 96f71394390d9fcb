"""People, and blocks of voxels, on Dask: local worker processes, or any cluster by its scheduler's address."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.jobs import python_executable
from DiscRelaxometryLib.parallel import one_blas_thread
from DiscRelaxometryLib.progress import ProgressCallback, silent

#: Memory one person's chain may need, measured (see Docs/validation/study.md); decides how many workers fit.
PERSON_MEMORY_GB = 2.0
_START_SECONDS = 60
#: Dask looks at its workers' stacks, memory and clock up to a hundred times a second: 5 % of a core each (measured). A
#: worker of one long task has no use for that.
_QUIET = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
          "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
          "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
          "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
          # Dask lets glibc return all memory above 64 kB at once, so that every array's pages are made anew: a third
          # more processor time (measured). These are glibc's own largest values, and one heap for all threads.
          "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON": "{'MALLOC_TRIM_THRESHOLD_': '67108864', "
          "'MALLOC_MMAP_THRESHOLD_': '33554432', 'MALLOC_ARENA_MAX': '1'}"}


def workers_that_fit(processes: int, memory_gb: float = PERSON_MEMORY_GB) -> int:
    """Return how many of `processes` workers are of use: no more than cores, nor than memory allows (at least 1).

    Workers compute all the time, so that more of them than cores only cost their start, memory and cache.
    """
    from distributed.system import MEMORY_LIMIT

    return max(1, min(processes, cores(), int(0.9 * MEMORY_LIMIT / (memory_gb * 1e9))))


def threads_of_people(people: int, workers: int) -> list[int]:
    """Return each person's threads, in the order of work: one, but the last, fewer than workers, share their cores."""
    last = people if people <= workers else people % workers
    return [1] * (people - last) + [max(1, min(workers, cores()) // last)] * last if last else [1] * people


def cores() -> int:
    """Return the cores this process may use, control groups and affinity included."""
    from dask.system import CPU_COUNT

    return CPU_COUNT


@contextmanager
def connect(scheduler: str = "", processes: int = 1, memory_gb: float | None = None):
    """Yield a connected ``distributed.Client``; StudyError if Dask is not installed or the scheduler not reached.

    The scheduler is an address such as ``tcp://host:8786``, or the path of a scheduler file; empty starts local
    workers of one thread, as many as `processes`, cores and memory allow, restarted above `memory_gb`.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise StudyError("Several processes need Dask: install 'dask' and 'distributed' "
                         "(pip install 'disc-relaxometry[cohort]'), or run with one process.",
                         anchor="dask") from error
    if scheduler:
        with _client(Client, scheduler) as client:
            yield client
        return
    memory_gb = memory_gb or PERSON_MEMORY_GB
    count = workers_that_fit(processes, memory_gb)
    # Any free port, on this machine alone: without one Dask takes 8787, and warns where another cluster has it.
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0", protocol="tcp", host="127.0.0.1",
                      silence_logs="ERROR") as cluster, Client(cluster) as client:
        worker = _start_workers(cluster.scheduler_address, count, memory_gb)
        try:
            _wait_for_workers(client, count, worker)
            yield client
        finally:
            client.retire_workers()
            _stop(worker)


def _client(Client, scheduler: str):
    try:
        if os.path.exists(scheduler):
            return Client(scheduler_file=scheduler, timeout=_START_SECONDS)
        return Client(scheduler, timeout=_START_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise StudyError(f"The Dask scheduler '{scheduler}' does not answer: check that it runs and that this "
                         "machine may reach it.", anchor="dask") from error


def _start_workers(address: str, count: int, memory_gb: float) -> subprocess.Popen:
    # Started as programs, not by multiprocessing: works from Slicer's console and from unguarded scripts.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
                   "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
                   "DISC_RUN_PROCESS": str(os.getpid()), **_QUIET}
    command = [python_executable(), "-m", "distributed.cli.dask_worker", address, "--nworkers", str(count),
               "--nthreads", "1", "--memory-limit", f"{memory_gb:.3f}GB", "--no-dashboard",
               "--death-timeout", str(_START_SECONDS),
               "--preload-nanny", str(Path(__file__).with_name("cluster_watch.py"))]  # a file: the wing takes long
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for_workers(client, count: int, worker: subprocess.Popen) -> None:
    try:
        client.wait_for_workers(count, timeout=_START_SECONDS)
    except TimeoutError as error:
        raise StudyError(f"The local workers did not start within {_START_SECONDS} s (exit code "
                         f"{worker.poll()}): run with one process.", anchor="dask") from error


def _stop(worker: subprocess.Popen) -> None:
    worker.terminate()
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def map_people(client, function: Callable, people: Sequence[str], resources: Mapping[str, float] | None = None,
               threads: Sequence[int] = ()) -> Iterator[tuple[str, Any, str]]:
    """Run ``function(person_id)`` for all people, the first ones first; yield (id, result, error) as they finish.

    The function can be pickled; each task needs the Dask `resources`, such as ``{"GPU": 1}``. Numbers in `threads`,
    one per person, are given to it as ``threads``.
    """
    from distributed import as_completed

    futures = {}
    for n, person in enumerate(people):
        more = {"threads": threads[n]} if threads else {}
        future = client.submit(function, person, pure=False, key=f"person-{person}-{os.urandom(4).hex()}",
                               resources=dict(resources or {}) or None, priority=-n, **more)
        futures[future] = person
    try:
        for future in as_completed(futures):
            error = future.exception()
            if error is None:
                yield futures[future], future.result(), ""
            else:
                yield futures[future], None, _explain(error)
    finally:
        client.cancel([f for f in futures if not f.done()])


@dataclass
class _Work:
    """What every worker of a cluster gets once: a function and the items it is called with."""

    function: Callable
    items: Sequence

    def do(self, number: int) -> Any:
        with one_blas_thread():
            return self.function(self.items[number])


def ordered_on(client, work: Callable, items: Sequence, workers: int | None = None,
               progress: ProgressCallback = silent, words: Callable = str) -> Iterator:
    """Yield the result of each item in order, like :func:`DiscRelaxometryLib.parallel.ordered`, by Dask's workers.

    `work` and `items` can be closures and values of files that the workers see (cloudpickle); each worker gets them
    once. Leaving the loop early cancels what has not begun.
    """
    from distributed import KilledWorker

    client.wait_for_workers(1)
    package = client.scatter([_Work(work, items)], broadcast=True, hash=False)[0]
    futures = [client.submit(_Work.do, package, n, pure=False, priority=-n) for n in range(len(items))]
    try:
        for number, future in enumerate(futures):
            try:
                result = future.result()
            except KilledWorker as error:
                raise StudyError(_explain(error), anchor="dask") from error
            progress((number + 1) / len(items), words(items[number]))
            yield result
            future.release()
    finally:
        client.cancel([f for f in futures if not f.done()])


def _explain(error: BaseException) -> str:
    if type(error).__name__ == "KilledWorker":
        return ("The worker was ended several times, most likely for lack of memory: use fewer processes or raise "
                "the memory a worker may use.")
    return f"{type(error).__name__}: {error}"
