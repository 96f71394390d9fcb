"""The steps of a study, for one person and for the group, and the run of all of them."""

from .pipeline import stages
from .run import make_report, plan_again, plan_study, run_study

__all__ = ["make_report", "plan_again", "plan_study", "run_study", "stages"]
