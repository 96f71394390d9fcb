"""Pfirrmann grades and findings of discs, estimated from T2-weighted images."""

from .grade import (
    COLUMNS,
    ESTIMATED,
    EXPECTED,
    UNLIKE,
    describe_discs,
    estimate_in_words,
    grade_discs,
    grade_summary,
    load_grader,
    median_grade,
)
from .network import FINDINGS, GRADES, ROMAN, GradeConfig, build_grader

__all__ = [
    "build_grader", "COLUMNS", "describe_discs", "estimate_in_words", "ESTIMATED", "EXPECTED", "FINDINGS",
    "grade_discs", "grade_summary", "GradeConfig", "GRADES", "load_grader", "median_grade", "ROMAN",
    "UNLIKE",
]
