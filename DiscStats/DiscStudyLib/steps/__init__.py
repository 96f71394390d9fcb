"""The steps of a study, for one person and for the group."""

from .pipeline import stages

__all__ = [
    "stages",
]
