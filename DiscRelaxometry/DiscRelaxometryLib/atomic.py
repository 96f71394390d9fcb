"""Write to a temporary name, then rename: a killed run leaves no half file."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError


@contextmanager
def atomic_path(path: str | os.PathLike, ending: str = "") -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` on success and removed on error.

    Parameters
    ----------
    path : path
    ending : str
        End of the temporary name, by which writers choose a format; by default the name of `path`.

    Raises
    ------
    OutputError
        If the operating system refuses the folder or the file: full, read-only, in the way.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.partial{ending or '.' + path.name}")
    made = [p for p in path.parents if not p.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            with suppress(OSError):  # another may have written there meanwhile
                for folder in made:
                    folder.rmdir()
            raise
    except OutputError:
        raise
    except OSError as error:
        named = Path(os.fsdecode(error.filename)) if error.filename else temporary
        if named.parent != path.parent and named not in path.parents:
            raise  # of another file, which the caller read
        raise _refused(path, path.parent, error) from error


def check_folder(folder: str | os.PathLike) -> None:
    """Raise OutputError unless files can be written into `folder`; call it before long work.

    What exists is tried, and what does not exist is left so.
    """
    folder = Path(os.path.abspath(folder))
    there = next(p for p in (folder, *folder.parents) if os.path.exists(p))
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()  # a name that is too long
        probe = there / f".{uuid.uuid4().hex[:8]}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _refused(folder, folder, error) from error


def _refused(path: Path, folder: Path, error: OSError) -> OutputError:
    """Return what keeps `path` from being written as a sentence."""
    remedy = "free some space" if error.errno == errno.ENOSPC else "choose another place, or change its permissions"
    reason = (error.strerror or str(error)).lower()
    blocked = next((p for p in (folder, *folder.parents) if os.path.exists(p) and not os.path.isdir(p)), None)
    if blocked:
        reason = f"'{blocked.name}' is a file, not a folder"
    return OutputError(f"'{path}' cannot be written ({reason}): {remedy}.", errno=error.errno)


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text atomically and return the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def write_json(path: str | os.PathLike, value: object) -> Path:
    """Write JSON atomically; NaN is written as null, because JSON has no NaN."""
    return write_text(path, json.dumps(_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _jsonable(value):
    """Return `value` with numpy scalars, arrays, paths and non-finite numbers made JSON-writable."""
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_jsonable(v) for v in value]
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
