"""Loops compiled by numba where it is installed; each has a slower path that gives the same numbers."""

from collections.abc import Callable
from functools import lru_cache


@lru_cache
def have_numba() -> bool:
    """Tell whether numba can be imported."""
    from importlib.util import find_spec

    return find_spec("numba") is not None


def kernel_if_numba(function: Callable, **options) -> Callable | None:
    """Return a function compiled by numba, or None where numba is not installed."""
    return kernel(function, **options) if have_numba() else None


@lru_cache
def kernel(function: Callable, **options) -> Callable:
    """Return a function compiled by numba, which releases Python's lock; compiled code is kept on disk."""
    import numba

    if "fastmath" in options:
        options["fastmath"] = set(options["fastmath"])  # a frozen set, which the cache of this function needs
    try:
        return numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:
        # No folder to keep compiled code in: compile once a process.
        return numba.njit(nogil=True, **options)(function)
