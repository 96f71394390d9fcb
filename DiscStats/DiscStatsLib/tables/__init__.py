"""Statistics of tables: agreement, ROC curves, mixed models of region means."""

from .agreement import agreement_table, bland_altman, icc, pair_tables
from .mixed import MixedFit, fit_mixed
from .region_means import region_means
from .roc import Roc, roc

__all__ = [
    "agreement_table", "bland_altman", "fit_mixed", "icc", "MixedFit", "pair_tables", "region_means", "roc", "Roc",
]
