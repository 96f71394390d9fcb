"""A process that ends in the middle of its writing: all files of the project get their names by ``os.replace``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest


def killed_at_each_write(work: Callable[[], object]) -> Iterator[int]:
    """Do the work, ending it as its first, second, ... file would get its name; yield after each, until it ends well.

    The caller puts everything back where it was, or goes on from what is there.
    """
    replace, number, done = os.replace, 0, False
    while not done:
        left = [number]

        def counted(source, target, left=left, **options):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", counted)
            try:
                work()
                done = True
            except KeyboardInterrupt:
                pass
        if not done:
            yield number
            number += 1
