"""T1rho and T2 maps: relaxation models, estimators, noise and precision."""

from .maps import fit_relaxation
from .precision import cramer_rao_sd

__all__ = [
    "cramer_rao_sd", "fit_relaxation",
]
