"""A virtual cohort with known truth, written as a study folder."""

from .study import write_virtual_study

__all__ = ["write_virtual_study"]
