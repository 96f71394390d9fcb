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
from .network import CLIP, FINDINGS, GRADES, ROMAN, GradeConfig, build_grader
from .views import PICTURE, disc_pictures

__all__ = [
    "build_grader", "CLIP", "COLUMNS", "describe_discs", "disc_pictures", "estimate_in_words", "ESTIMATED", "EXPECTED",
    "FINDINGS", "grade_discs", "grade_summary", "GradeConfig", "GRADES", "load_grader", "median_grade", "PICTURE",
    "ROMAN", "UNLIKE",
]
