"""Settings of all tests: generated examples repeat in `make test`, and are fresh where the slow tests run too."""

import gc
import os
from contextlib import nullcontext
from functools import wraps

import pytest
from hypothesis import settings

settings.register_profile("repeated", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None)


def pytest_configure(config):
    """Choose the profile by what runs."""
    settings.load_profile("repeated" if "not slow" in (config.getoption("markexpr") or "") else "fresh")
    if "PYTEST_XDIST_WORKER" in os.environ:
        compile_once()


def compile_once():
    """Let one worker compile a function, and the others wait for what it keeps on disk."""
    try:
        from filelock import FileLock
        from numba.core.compiler_lock import global_compiler_lock
        from numba.core.dispatcher import Dispatcher
    except ImportError:
        return
    compile_here = Dispatcher.compile

    @wraps(compile_here)
    def in_turn(self, signature):
        folder = self._cache.cache_path
        # Threads take turns first, so that none waits for a file that is held by one that waits for it.
        with global_compiler_lock, FileLock(f"{folder}/{self.py_func.__name__}.lock") if folder else nullcontext():
            return compile_here(self, signature)

    Dispatcher.compile = in_turn


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import all that tests import without a look for garbage in it, now and later: a fifth of the time to begin."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


#: Files that take longest begin first, so that none is left to one worker at the end. The first one makes the study
#: that others wait for.
FIRST = ("test_study_due", "test_study_visits", "test_study_pooled", "test_study_workers",
         "test_study_review", "test_stats_study", "test_relaxometry_panel", "test_cookbook",
         "test_study_grades", "test_power", "test_session")


def pytest_collection_modifyitems(items):
    """Put the files in the order in which workers take them."""
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
