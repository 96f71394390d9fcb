"""T1rho and T2 maps: relaxation models, estimators and noise."""

from .arrays import DecayFit, fit_arrays, fit_decay
from .maps import MappedSeries, RelaxationFit, fit_relaxation, map_series, sample_signal
from .options import FitOptions
from .status import FitStatus

__all__ = [
    "DecayFit", "fit_arrays", "fit_decay", "fit_relaxation", "FitOptions", "FitStatus", "map_series", "MappedSeries",
    "RelaxationFit", "sample_signal",
]
