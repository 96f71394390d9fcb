"""Why a voxel has a value, or none: the reason codes of the status map."""

from enum import IntEnum

import numpy as np


class FitStatus(IntEnum):
    """Reason code of one voxel's fit, and its sentence; every code but OK leaves NaN in all maps."""

    #: For tables, legends and tool tips.
    text: str

    def __new__(cls, code: int, text: str):
        """Make a member that is its code."""
        member = int.__new__(cls, code)
        member._value_, member.text = code, text
        return member

    OK = 0, "Fitted."
    OUTSIDE_MASK = 1, "Outside the mask: not fitted."
    NOT_FINITE = 2, "An echo holds NaN or infinity."
    NO_SIGNAL = 3, "All echoes are zero."
    NEGATIVE = 4, "An echo is negative: not a magnitude image, or an integer overflow."
    DEAD_ECHO = 5, "An echo is zero between echoes with signal: it was lost."
    SATURATED = 6, "An echo reached the largest value that the image can hold."
    TOO_FEW_ECHOES = 7, "Too few echoes lie above the noise floor."
    NO_DECAY = 8, "The signal is constant or rises with time."
    AT_LOWER_BOUND = 9, "The relaxation time is at or below the lower bound."
    AT_UPPER_BOUND = 10, "The relaxation time is at or above the upper bound."
    NOT_CONVERGED = 11, "The iteration did not converge."
    LOW_R2 = 12, "R squared is below the required minimum."


def status_counts(status: np.ndarray) -> dict[str, int]:
    """Return the number of voxels of each code that occurs, keyed by the code's name."""
    counts = np.bincount(np.asarray(status).ravel(), minlength=len(FitStatus))
    return {code.name: int(counts[code]) for code in FitStatus if counts[code]}
