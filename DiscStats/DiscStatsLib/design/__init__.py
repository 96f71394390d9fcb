"""Designs of a statistical model: formula, columns, contrasts."""

from .contrasts import Contrast, build_contrasts
from .design import ID, Design, build_design, check_participants, is_level_wise, level_columns, numeric_columns
from .formula import Formula, parse_formula, require_columns

__all__ = [
    "build_contrasts", "build_design", "check_participants", "Contrast", "Design", "Formula", "ID", "is_level_wise",
    "level_columns", "numeric_columns", "parse_formula", "require_columns",
]
