"""Why a voxel has a value, or none: the reason codes of the status map."""

from enum import IntEnum

import numpy as np


class FitStatus(IntEnum):
    """Reason code of one voxel's fit; every code but OK leaves NaN in all maps."""

    OK = 0
    OUTSIDE_MASK = 1
    NOT_FINITE = 2
    NO_SIGNAL = 3
    NEGATIVE = 4
    DEAD_ECHO = 5
    SATURATED = 6
    TOO_FEW_ECHOES = 7
    NO_DECAY = 8
    AT_LOWER_BOUND = 9
    AT_UPPER_BOUND = 10
    NOT_CONVERGED = 11
    LOW_R2 = 12


#: One sentence a code, for tables, legends and tool tips.
STATUS_TEXT = {
    FitStatus.OK: "Fitted.",
    FitStatus.OUTSIDE_MASK: "Outside the mask: not fitted.",
    FitStatus.NOT_FINITE: "An echo holds NaN or infinity.",
    FitStatus.NO_SIGNAL: "All echoes are zero.",
    FitStatus.NEGATIVE: "An echo is negative: not a magnitude image, or an integer overflow.",
    FitStatus.DEAD_ECHO: "An echo is zero between echoes with signal: it was lost.",
    FitStatus.SATURATED: "An echo reached the largest value that the image can hold.",
    FitStatus.TOO_FEW_ECHOES: "Too few echoes lie above the noise floor.",
    FitStatus.NO_DECAY: "The signal is constant or rises with time.",
    FitStatus.AT_LOWER_BOUND: "The relaxation time is at or below the lower bound.",
    FitStatus.AT_UPPER_BOUND: "The relaxation time is at or above the upper bound.",
    FitStatus.NOT_CONVERGED: "The iteration did not converge.",
    FitStatus.LOW_R2: "R squared is below the required minimum.",
}


def status_counts(status: np.ndarray) -> dict[str, int]:
    """Return the number of voxels of each code that occurs, keyed by the code's name."""
    counts = np.bincount(np.asarray(status).ravel(), minlength=len(FitStatus))
    return {code.name: int(counts[code]) for code in FitStatus if counts[code]}
