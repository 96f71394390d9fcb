"""Levels side by side in threads: numpy and scipy let go of Python's lock in their long loops."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from .labels import disc_name
from .progress import ProgressCallback


def each_level(function: Callable, items: Sequence, progress: ProgressCallback, words: str,
               workers: int | None = None, name: Callable = disc_name) -> list:
    """Return the function's results for all items, in their order.

    Parameters
    ----------
    function : callable
        Called with an item; must not share what it changes with the other calls.
    items : sequence
    progress : callable
        Called with (fraction, text) in the calling thread; what it raises cancels what has not begun.
    words : str
        What is done, before the item's name.
    workers : int, optional
        Threads; by default one a core, at most one an item. 1 works in the calling thread.
    name : callable
        Name of an item for the progress text; by default that of a disc's label value.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        results = []
        for step, item in enumerate(items):
            progress(step / len(items), f"{words} {name(item)}")
            results.append(function(item))
        return results
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(function, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(done / len(items), f"{words} {name(futures[future])}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
