"""T1rho and T2 maps: relaxation models, estimators, noise and precision."""

from .arrays import DecayFit, fit_arrays, fit_decay
from .maps import MappedSeries, RelaxationFit, fit_relaxation, map_series, sample_signal
from .options import FitOptions
from .precision import cramer_rao_sd
from .status import FitStatus

__all__ = [
    "cramer_rao_sd", "DecayFit", "fit_arrays", "fit_decay", "fit_relaxation", "FitOptions", "FitStatus", "map_series",
    "MappedSeries", "RelaxationFit", "sample_signal",
]
