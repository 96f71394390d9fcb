"""Settings of a fit, checked once, and the echoes that they leave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import EchoSeriesError

#: Models and the number of their parameters.
MODELS = {"mono2": 2, "mono3": 3, "epg": 3}
ESTIMATORS = ("nlls", "loglinear", "loglinear-unweighted", "rician")


@dataclass(frozen=True)
class FitOptions:
    """Settings of a fit.

    Raises
    ------
    EchoSeriesError
        For a setting that cannot be used.
    """

    #: ``mono2`` M0 exp(-t/T); ``mono3`` with a constant offset (near-singular for four spin-lock times); ``epg``
    #: multi-echo spin echo with stimulated echoes and B1.
    model: str = "mono2"
    #: ``nlls`` least squares; ``loglinear`` a line through the logarithm, weighted by the squared signal;
    #: ``loglinear-unweighted``; ``rician`` maximum likelihood for magnitude noise. All but ``nlls`` need ``mono2``.
    estimator: str = "nlls"
    #: Lowest and highest time in ms. A healthy nucleus reaches 200 ms and more: a low upper bound blanks it.
    bounds: tuple[float, float] = (1.0, 1000.0)
    #: Echoes to use, counted from 0; ``range(1, n)`` leaves out the first.
    echoes: Sequence[int] | None = None
    #: Noise level sigma, a number or one per voxel; gives the standard error. For ``rician`` it is estimated if
    #: absent: from the background of the last echo, or where there is none from the residuals.
    noise: float | np.ndarray | None = None
    #: Leave out, voxel by voxel, the echoes from the first one below this signal on.
    noise_floor: float | None = None
    #: Fail voxels whose R squared is lower.
    min_r2: float | None = None
    #: Fail voxels with an echo at or above this signal. By default the largest value of an integer type, or a maximum
    #: of 4095, 32767 or 65535 that several samples share.
    saturation: float | None = None
    #: Allow a negative offset in ``mono3``; an offset is a noise floor, so by default it is not negative.
    negative_offset: bool = False
    #: Of ``epg``: T1 in ms and the nominal refocusing angle in degrees.
    t1: float = 1000.0
    refocusing: float = 180.0
    #: Of ``epg``: lowest and highest relative transmit field; equal ends fix it.
    b1_range: tuple[float, float] | None = None
    #: Of ``epg``: ms; by default the smallest gap of the times.
    echo_spacing: float | None = None

    def __post_init__(self):
        if self.model not in MODELS:
            raise EchoSeriesError(f"'{self.model}' is not a model: choose one of {', '.join(MODELS)}.")
        if self.estimator not in ESTIMATORS:
            raise EchoSeriesError(f"'{self.estimator}' is not an estimator: choose one of {', '.join(ESTIMATORS)}.")
        if self.model != "mono2" and self.estimator != "nlls":
            raise EchoSeriesError(f"The model '{self.model}' is fitted by least squares only: choose the estimator "
                                  f"'nlls', or the model 'mono2' for '{self.estimator}'.")
        lower, upper = self.bounds
        if not (np.isfinite([lower, upper]).all() and 0 < lower < upper):
            raise EchoSeriesError(f"The bounds ({lower}, {upper}) ms cannot be used: give a lower one above 0 and a "
                                  "larger upper one.")
        if self.noise is not None and not np.all(np.asarray(self.noise) > 0):
            raise EchoSeriesError("The noise level (sigma) has to be above 0 everywhere.")
        for name in ("t1", "refocusing", "echo_spacing"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise EchoSeriesError(f"The option {name} is {value}: give a number above 0.")
        if self.b1_range is not None and not 0 < self.b1_range[0] <= self.b1_range[1] < np.inf:
            raise EchoSeriesError(f"The range of B1 {tuple(self.b1_range)} cannot be used: give a lower end above "
                                  "0 and an upper end that is not below it, relative to the nominal field.")

    @property
    def parameters(self) -> int:
        """Number of parameters that the model estimates."""
        if self.model == "epg" and self.b1_range is not None and self.b1_range[0] == self.b1_range[1]:
            return 2
        return MODELS[self.model]

    def select_echoes(self, signals: np.ndarray, times_ms: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `signals` (n, voxels) to use, ordered by time, and their times in ms.

        Raises
        ------
        EchoSeriesError
            If they cannot be fitted.
        """
        times = np.asarray(times_ms, float).ravel()
        if signals.ndim != 2 or signals.dtype.kind not in "biuf":
            raise EchoSeriesError(f"Real signals of shape (echoes, voxels) are needed; these are {signals.dtype} of "
                                  f"shape {signals.shape}.")
        if times.size != signals.shape[0]:
            raise EchoSeriesError(f"There are {signals.shape[0]} echoes but {times.size} times: give one time per "
                                  "echo.", anchor="echo-times")
        if not np.isfinite(times).all() or np.any(times < 0):
            raise EchoSeriesError("A time is negative or not a number: correct the times (ms).", anchor="echo-times")
        rows = np.arange(times.size) if self.echoes is None else np.asarray(self.echoes, int).ravel()
        if np.any(rows < 0) or np.any(rows >= times.size) or np.unique(rows).size != rows.size:
            raise EchoSeriesError(f"The echo selection {rows.tolist()} does not fit a series of {times.size} echoes "
                                  "(counted from 0, each at most once).")
        rows = rows[np.argsort(times[rows], kind="stable")]
        different = np.unique(times[rows]).size
        if different < self.parameters:
            raise EchoSeriesError(
                f"The model '{self.model}' has {self.parameters} parameters, but the series has only {different} "
                f"different time(s): use a simpler model, or add echoes.", anchor="too-few-echoes")
        return rows, times[rows]
