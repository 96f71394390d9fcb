"""What is installed, for the records of what made a result."""

import functools
import platform
from collections.abc import Iterable
from importlib import metadata

from . import __version__


def versions_of(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of this project, Python, and those libraries that are installed."""
    found = {"disc-relaxometry": __version__, "python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = _version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _version(name: str) -> str:
    """Return the version of a library as this process found it: to look again takes as long as a small step."""
    return metadata.version(name)
