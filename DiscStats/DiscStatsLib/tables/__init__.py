"""Statistics of tables: agreement, repeatability, ROC curves, mixed models of region means."""

from .agreement import agreement_table, bland_altman, concordance, icc, pair_tables, repeatability, weighted_kappa
from .mixed import MixedFit, fit_mixed
from .region_means import region_means
from .roc import Roc, compare_areas, roc

__all__ = [
    "agreement_table", "bland_altman", "compare_areas", "concordance", "fit_mixed", "icc", "MixedFit", "pair_tables",
    "region_means", "repeatability", "roc", "Roc", "weighted_kappa",
]
