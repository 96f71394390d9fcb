"""Designs of a statistical model: formula, columns, contrasts."""

from .contrasts import Contrast, build_contrasts, require_weights
from .design import PLACES, Design, NotEstimable, build_design, check_participants, is_level_wise, level_columns
from .formula import Formula, parse_formula, require_columns
from .levels import LevelDesigns, build_level_designs
from .participants import (
    ID,
    id_order,
    numeric_columns,
    read_participants,
    require_moderate,
    require_sizes,
    rows_of,
    to_frame,
)

__all__ = [
    "build_contrasts", "build_design", "build_level_designs", "check_participants", "Contrast", "Design", "Formula",
    "ID", "id_order", "is_level_wise", "level_columns", "LevelDesigns", "NotEstimable", "numeric_columns",
    "parse_formula", "PLACES", "read_participants", "require_columns", "require_moderate", "require_sizes",
    "require_weights", "rows_of", "to_frame",
]
