"""Command line ``disc-relaxometry``: a study with one command, and its parts one by one."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command line; errors are one sentence on stderr, and exit status 1."""
    try:
        from .app import build_app

        app = build_app()
    except ImportError as error:
        sys.exit(f"The command line needs '{error.name}': pip install 'disc-relaxometry[cohort]'.")
    from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError

    try:
        app()
    except DiscRelaxometryError as error:
        message = str(error).replace(str(Path.cwd()), ".")
        sys.exit(f"Error: {message}")
    except (Cancelled, KeyboardInterrupt):
        sys.exit("Stopped. Finished steps are kept; the same command goes on from here.")


if __name__ == "__main__":
    main()
