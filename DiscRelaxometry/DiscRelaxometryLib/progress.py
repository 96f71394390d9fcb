"""Progress and cancel: long work calls ``progressCallback(fraction, text)`` between units of work.

The callback cancels by raising :class:`DiscRelaxometryLib.errors.Cancelled`.
"""

from collections.abc import Callable

ProgressCallback = Callable[[float, str], None]


def silent(fraction: float, text: str) -> None:
    """Ignore progress; the default callback."""


def subrange(callback: ProgressCallback | None, start: float, stop: float) -> ProgressCallback:
    """Return a callback that maps its fraction 0..1 to ``start``..``stop`` of `callback`."""
    if callback is None:
        return silent
    return lambda fraction, text: callback(start + (stop - start) * fraction, text)
