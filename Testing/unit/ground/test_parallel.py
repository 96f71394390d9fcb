"""Work side by side: results in order, errors and cancel that end it, one BLAS thread, dead processes."""

import os
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from types import ModuleType, SimpleNamespace

import pytest

from DiscRelaxometryLib import parallel
from DiscRelaxometryLib.errors import Cancelled
from DiscRelaxometryLib.parallel import available_cores, one_blas_thread, ordered


def square(x):
    return x * x


def die(x):
    os._exit(3)


def blas_threads(_=None):
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    return {i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"}


@pytest.mark.parametrize("workers", [1, 3, None, 50])
def test_results_come_in_order_whatever_the_workers(workers):
    def slow_first(x):
        time.sleep(0.02 * (x == 0))
        return square(x)

    seen = []
    found = list(ordered(slow_first, range(20), workers, progress=lambda f, t: seen.append((f, t)),
                         words=lambda x: f"item {x}"))
    assert found == [square(x) for x in range(20)]
    assert [t for _, t in seen] == [f"item {x}" for x in range(20)]
    assert [f for f, _ in seen] == sorted(f for f, _ in seen) and 0 <= seen[0][0] < seen[-1][0] <= 1


def test_no_item_is_no_work():
    assert list(ordered(square, [])) == [] and list(ordered(square, [], 2, processes=True)) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", ["work", "progress", "consumer"])
def test_whatever_stops_it_drops_what_has_not_begun(workers, how):
    begun, before = [], threading.active_count()

    def work(x):
        begun.append(x)
        if how == "work" and x == 3:
            raise ValueError("three")
        return x

    def progress(fraction, text):
        if how == "progress" and fraction > 0.05:
            raise Cancelled

    def consume():
        for x in ordered(work, range(100), workers, progress=progress):
            if how == "consumer" and x == 3:
                raise KeyError(x)

    with pytest.raises((ValueError, Cancelled, KeyError)):
        consume()
    assert len(begun) < 30
    assert threading.active_count() == before


def test_only_a_few_items_are_held_ahead():
    begun = []
    results = ordered(lambda x: begun.append(x), range(1000), 2)
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 6
    results.close()


def test_processes_give_the_same_and_a_dead_one_is_an_error():
    assert list(ordered(square, range(5), 2, processes=True)) == [0, 1, 4, 9, 16]
    with pytest.raises(BrokenProcessPool):
        list(ordered(die, range(4), 2, processes=True))


def test_blas_has_one_thread_in_every_worker_and_is_restored_after_the_last(monkeypatch):
    pytest.importorskip("threadpoolctl")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        for workers in (1, 2):
            assert set().union(*ordered(blas_threads, range(4), workers)) == {1}
            assert blas_threads() == before
        # Two that overlap, of which the first to come is the first to leave.
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    assert set().union(*ordered(blas_threads, range(2), 2, processes=True)) == {1}


def test_one_thread_is_asked_of_blas_once_and_given_back_once(monkeypatch):
    """By what it is asked for: where the environment allows BLAS one thread, its own count shows nothing."""
    calls = []
    limiter = SimpleNamespace(restore_original_limits=lambda: calls.append("restored"))
    libraries = SimpleNamespace(limit=lambda **limit: calls.append(limit) or limiter)
    monkeypatch.setattr(parallel, "_libraries_in_memory", lambda *_: libraries)
    with one_blas_thread(), one_blas_thread():
        assert calls == [{"limits": 1, "user_api": "blas"}]
    assert calls[1:] == ["restored"]


def test_blas_that_a_package_brings_later_is_looked_for(monkeypatch):
    asked, libraries = [], SimpleNamespace(limit=lambda **_: None)
    monkeypatch.setattr(parallel, "_libraries_in_memory", lambda *brought: asked.append(brought) or libraries)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    parallel._limit_blas()
    monkeypatch.delitem(sys.modules, "torch")
    parallel._limit_blas()
    assert asked[0] != asked[1]


def test_cores_are_those_of_this_process():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
