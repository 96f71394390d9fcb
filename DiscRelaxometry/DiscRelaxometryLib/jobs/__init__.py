"""Long work in a process of its own, so that a panel stays alive.

The work itself (:mod:`DiscRelaxometryLib.jobs.pipeline`) is named, not imported: panels import this at start-up.
"""

from .jobs import ChildProcess, Job

__all__ = ["ChildProcess", "Job"]
