"""The steps of a study, for one person and for the group."""

from .maps import fit_files
from .pipeline import stages

__all__ = [
    "fit_files", "stages",
]
