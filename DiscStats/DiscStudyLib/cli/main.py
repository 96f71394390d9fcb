"""Command line ``disc-relaxometry``: a study with one command, and its parts one by one."""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

#: Options that take several values, as those of BIDS apps do: ``--participant-label 01 02``.
_SEVERAL = ("--participant-label",)
#: Exit status after Ctrl-C, as shells have it; typer ends with it by itself, without a word.
INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors are one sentence on stderr, and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot print a letter shows another
            stream.reconfigure(errors="replace")
    try:
        from .app import build_app

        app = build_app()
    except ImportError as error:
        sys.exit(f"The command line needs '{error.name}': pip install 'disc-relaxometry[cohort]'.")
    from DiscRelaxometryLib.errors import Cancelled

    try:
        try:
            app(spread(sys.argv[1:]))
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be dealt with
    except (Cancelled, KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        print("Stopped. Finished steps are kept; the same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # what reads the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if "DISC_TRACEBACK" in os.environ:
            raise
        sys.exit("Error: " + sentence(error).replace(str(Path.cwd()), "."))


def spread(words: Sequence[str]) -> list[str]:
    """Repeat an option of several values before each of them, as typer reads it."""
    found: list[str] = []
    option = ""
    for word in words:
        if word.startswith("-"):
            option = word if word in _SEVERAL else ""
            found += [] if option else [word]
        else:
            found += [option, word] if option else [word]
    return found


def sentence(error: Exception) -> str:
    """Say in one sentence what went wrong: in the input, in the system, or in a library."""
    from DiscRelaxometryLib.errors import DiscRelaxometryError

    if isinstance(error, DiscRelaxometryError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The memory is full: use fewer processes (--n-procs), or smaller images."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full: free some space and run again{_of(error)}."
    if isinstance(error, OSError) and error.strerror:
        return f"The system says '{error.strerror}'{_of(error)}: check the path and its permissions."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (f"Unexpected {type(error).__name__}: {lines[-1] if lines else 'no message'} Please report it, with what "
            "DISC_TRACEBACK=1 before the command shows.")


def _of(error: OSError) -> str:
    return f" ('{error.filename}')" if error.filename else ""


if __name__ == "__main__":
    main()
