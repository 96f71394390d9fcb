"""Locks of a study: two runs on one person, or on the group, would overwrite each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from DiscRelaxometryLib.errors import StudyError

#: How long to wait for the workers of a killed run to end.
LOCK_SECONDS = 5.0


def held(folder: Path) -> bool:
    """Say whether a run holds the lock of a folder now."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def exclusive(folder: Path, name: str = "this study") -> Iterator[None]:
    """Hold the lock of a folder; the system releases that of a killed process.

    Parameters
    ----------
    folder : Path
        Receives the file ``.lock``.
    name : str
        What is worked on, for the message.

    Raises
    ------
    StudyError
        If another run holds the lock, or filelock is not installed.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise StudyError("A study needs 'filelock': pip install 'disc-relaxometry[cohort]'.") from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise StudyError(f"Another run is working on {name}: wait for it, or stop it.", anchor="study-run") from error
