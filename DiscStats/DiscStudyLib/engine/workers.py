"""Who works on the people of a study: this process, or Dask's workers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from DiscRelaxometryLib.parallel import available_cores
from DiscRelaxometryLib.progress import subrange

from .steps import Outcome


@dataclass(frozen=True)
class Cluster:
    """Where people are worked on, if not in plain local processes."""

    #: Address of a Dask scheduler, or its file; its workers must see the study folder. Empty for local processes.
    scheduler: str = ""
    #: Memory a local worker may use.
    memory_gb: float | None = None
    #: Dask resources a person needs, such as ``{"GPU": 1}``.
    resources: Mapping[str, float] = field(default_factory=dict)


class Workers:
    """Runs people in this process, or on Dask, which is started when the first person has something to do.

    Parameters
    ----------
    cluster : Cluster
    processes : int
        People worked on at the same time.
    share : bool
        Give the last people, when fewer than workers are left, the cores that would be idle.
    """

    def __init__(self, cluster: Cluster, processes: int = 1, share: bool = False):
        self._cluster, self._processes, self._share = cluster, processes, share
        self._running, self._count = ExitStack(), 0
        self._client: Any = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error) -> None:
        self._running.close()

    @property
    def idle(self) -> int:
        """Cores that nobody uses while the group is worked on."""
        return min(self._processes, available_cores()) if self._share else 1

    def parallel(self, people: int) -> bool:
        """Say whether so many people are worked on outside this process."""
        return bool(self._cluster.scheduler) or min(self._processes, people) > 1

    def map(self, function: Callable, ids: Sequence[str], progress, imports: Sequence[str] = (),
            ) -> Iterator[tuple[str, list[Outcome], str]]:
        """Yield (person, outcomes, error) as people finish; import modules here while the last ones are worked on."""
        if not ids:
            return
        if not self.parallel(len(ids)):
            for n, person in enumerate(ids):
                part = subrange(progress, n / len(ids), (n + 1) / len(ids))
                yield person, function(person, progressCallback=part), ""
            return
        from . import cluster_dask  # Dask is optional

        client = self._connected(min(self._processes, len(ids)))
        workers = len(client.nthreads())
        threads = cluster_dask.threads_of_people(len(ids), workers) if self._share else ()
        results = cluster_dask.map_people(client, function, ids, self._cluster.resources, threads)
        for finished, result in enumerate(results, start=1):
            if finished == len(ids) - workers + 1:
                _import(imports)
            yield result

    @property
    def distribute(self) -> Callable | None:
        """What shares out a group step among a scheduler's workers; None where there are local processes alone."""
        return self._ordered if self._cluster.scheduler else None

    def _ordered(self, work: Callable, items: Sequence, *options, **named) -> Iterator:
        from .cluster_dask import ordered_on

        return ordered_on(self._connected(), work, items, *options, **named)

    def _connected(self, count: int = 1) -> Any:
        from . import cluster_dask

        cluster = self._cluster
        if self._client is None or count > self._count and not cluster.scheduler:
            self._running.close()
            self._client = self._running.enter_context(
                cluster_dask.connect(cluster.scheduler, count, cluster.memory_gb))
            self._count = count
        return self._client


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # the step that needs it says so
            importlib.import_module(module)
