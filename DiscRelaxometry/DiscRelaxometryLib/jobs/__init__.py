"""Long work in a process of its own, so that a panel stays alive."""

from .jobs import ChildProcess, Job
from .pipeline import sample_signal

__all__ = [
    "ChildProcess", "Job", "sample_signal",
]
