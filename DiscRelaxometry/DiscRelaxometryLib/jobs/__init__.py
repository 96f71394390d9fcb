"""Long work in a process of its own, so that a panel stays alive.

The work itself is named (``DiscRelaxometryLib.discs:segment``), not imported: panels import this at start-up.
"""

from .jobs import ChildProcess, Job, python_executable

__all__ = ["ChildProcess", "Job", "python_executable"]
