"""Settings of a voxel-wise analysis and their defaults: the same for Python, panel, command line and study."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from DiscRelaxometryLib.errors import DesignError

CORRECTIONS = ("fwe", "tfce", "fdr", "cluster")
#: Values of the settings that are a choice.
CHOICES = {
    "missing": ("available", "complete"),
    "missing_covariates": ("drop", "error"),
    "exchange": (None, "within", "whole"),
    "standard_errors": ("classical", "hc3"),
    "errors": ("auto", "exchangeable", "symmetric"),
    "tail": ("counted", "pareto"),
    "alternative": ("two-sided", "greater", "less"),
}


@dataclass(frozen=True)
class AnalysisSettings:
    """How maps are analyzed; checked when made.

    Raises
    ------
    DesignError
        For a value that does not exist.
    """

    #: An empty one gives the uncorrected maps.
    correction: tuple[str, ...] = CORRECTIONS
    #: All distinct rearrangements are listed instead where there are no more than this.
    n_permutations: int = 5000
    seed: int = 1
    #: Analyze voxels that at least `min_count` have, with degrees of freedom per voxel, or those that everyone has.
    missing: str = "available"
    #: Default: half of the level's observations and at least parameters + 2, but no more than all of them.
    min_count: int | None = None
    #: Leave out, with a note, a row in which a needed cell is empty (at the level concerned), or refuse the table.
    missing_covariates: str = "drop"
    #: How blocks are exchanged; default: whole blocks if the tested columns are constant in each block, else within.
    exchange: str | None = None
    #: Ranks of maps and of numeric columns: Spearman's partial correlation.
    ranks: bool = False
    #: Of equal residual spread, or heteroscedasticity-consistent (HC3): t, F, limits and parametric p then hold where
    #: the spread differs between participants.
    standard_errors: str = "classical"
    #: Column of the participants table (scanner, patient or control) whose groups have variances of their own: Welch's
    #: t and F, generalized (the G statistic). Empty means one variance.
    variance_groups: str = ""
    #: What permutation assumes of the errors: that participants can change places, or that each error, of whatever
    #: spread, is symmetric about 0 (signs are flipped). ``auto`` flips signs where the residual spread depends on the
    #: tested variable. With variance groups, participants change places within their group; ``auto`` does that where
    #: the groups are terms of the model that are not tested, and flips signs elsewhere.
    errors: str = "auto"
    #: For t contrasts.
    alternative: str = "two-sided"
    #: Uncorrected p that forms clusters; above 0.001 is not accepted in the field (Woo 2014) and is warned of.
    cluster_p: float = 0.001
    #: Family-wise p by counting alone, or beyond the 90th percentile of the null distribution by a generalized Pareto
    #: distribution, where one fits: p below 1 / (permutations + 1), approximated.
    tail: str = "counted"
    tfce: Any = None
    #: Threads; no result depends on it.
    workers: int = 1
    #: ``cpu``, or a torch device for the permutation products.
    device: str = "cpu"
    #: Shares out blocks of voxels among other processes, called like :func:`DiscRelaxometryLib.parallel.ordered`.
    distribute: Callable | None = None

    def __post_init__(self):
        chosen = (self.correction,) if isinstance(self.correction, str) else tuple(self.correction or ())
        object.__setattr__(self, "correction", chosen)
        unknown = [c for c in chosen if c not in CORRECTIONS]
        if unknown:
            raise DesignError(f"'{unknown[0]}' is no correction: choose from {', '.join(CORRECTIONS)}.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise DesignError(f"{name} = '{getattr(self, name)}' is not known: choose from "
                                  f"{', '.join(a for a in allowed if a)}.")
        for name, least in (("n_permutations", 1), ("seed", 0), ("min_count", 1), ("workers", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
                raise DesignError(f"{name} must be a whole number of at least {least}; '{value}' was given.")
        if self.variance_groups and self.standard_errors == "hc3":
            raise DesignError("Variance groups and standard_errors = 'hc3' both allow for unequal spread: choose one.")
        if not 0 < self.cluster_p < 0.5:
            raise DesignError(f"The cluster-forming p must lie between 0 and 0.5; it is {self.cluster_p}.")
        step = getattr(self.tfce, "step", None)
        if step is not None and not step > 0:
            raise DesignError(f"The step of TFCE must be above 0, or None for the exact sum; it is {step}.")
