"""A study on disk: who takes part, their files, settings, and what is wrong with them."""

from .bids import describe_results, last_settings
from .decisions import (
    ALL,
    COLUMNS,
    CORRECTED,
    EXCLUDED,
    KINDS,
    RENAMED,
    REVIEW,
    Decision,
    apply_decisions,
    change,
    compare_reviews,
    corrected_mask,
    decide,
    decision_for,
    read_decisions,
    require_unchanged,
    stale,
)
from .finding import Finding
from .groups import groups_by, values_by_level
from .rules import people_by_rule
from .settings import CHOICES, MAPS, Settings, make_settings
from .simulated import COLUMN, label_results
from .spider import import_spider, imported_series
from .study import DERIVATIVES, REPORT, TABLE, Person, Series, Study, level_columns, long_frame
from .training import trained_on
from .validate import validate
from .visits import EVERY, OWNER, SESSION, YEARS, first_and_last

__all__ = [
    "ALL", "apply_decisions", "change", "CHOICES", "COLUMN", "COLUMNS", "compare_reviews", "CORRECTED",
    "corrected_mask", "decide", "Decision", "decision_for", "DERIVATIVES", "describe_results", "EVERY", "EXCLUDED",
    "Finding", "first_and_last", "groups_by", "import_spider", "imported_series", "KINDS", "label_results",
    "last_settings", "level_columns", "long_frame", "make_settings", "MAPS", "OWNER", "people_by_rule", "Person",
    "read_decisions", "RENAMED", "REPORT", "require_unchanged", "REVIEW", "Series", "SESSION", "Settings", "stale",
    "Study", "TABLE", "trained_on", "validate", "values_by_level", "YEARS",
]
