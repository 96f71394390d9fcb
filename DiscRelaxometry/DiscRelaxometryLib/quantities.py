"""What a map's numbers mean: name, unit, code, window and color table, the same on every panel and file.

T1rho has no DICOM quantity code; a private one is used and documented in ``Docs/method.md``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A physical or statistical quantity."""

    #: Short name used in file names and parameters.
    key: str
    #: Name shown to the user.
    name: str
    #: UCUM code of the unit (``1`` for none, ``[arb'U]`` for arbitrary units).
    unit: str
    #: Quantity code value, coding scheme, meaning.
    code: tuple[str, str, str]
    #: Fixed display range (low, high), in the unit.
    window: tuple[float, float]
    #: Slicer color node name.
    colors: str
    #: What the number is, in one sentence.
    description: str

    @property
    def unit_code(self) -> tuple[str, str, str]:
        """Code value, coding scheme and meaning of the unit."""
        return self.unit, "UCUM", _UNIT_MEANINGS.get(self.unit, self.unit)


PRIVATE_SCHEME = "99DISCRELAX"
_UNIT_MEANINGS = {"ms": "millisecond", "1": "no units", "%": "percent", "[arb'U]": "arbitrary unit", "mm": "millimeter"}


def _private(value: str, meaning: str) -> tuple[str, str, str]:
    return (value, PRIVATE_SCHEME, meaning)


QUANTITIES = {q.key: q for q in (
    Quantity("T1rho", "T1rho", "ms", _private("T1RHO", "T1rho"), (0, 160), "Viridis",
             "Spin-lattice relaxation time in the rotating frame"),
    Quantity("T2", "T2", "ms", ("113065", "DCM", "T2"), (0, 160), "Viridis", "Transverse relaxation time"),
    Quantity("M0", "M0", "[arb'U]", _private("M0", "Signal at time zero"), (0, 1000), "Grey",
             "Fitted signal at time zero"),
    Quantity("offset", "Offset", "[arb'U]", _private("OFFSET", "Signal offset"), (0, 100), "Grey",
             "Fitted signal that does not decay"),
    Quantity("SE", "Standard error", "ms", _private("SE", "Standard error"), (0, 20), "Plasma",
             "Standard error of the relaxation time from the Fisher information"),
    Quantity("R2", "R squared", "1", _private("RSQ", "Coefficient of determination"), (0, 1), "Viridis",
             "Share of the signal's variance explained by the fit"),
    Quantity("B1", "B1", "%", _private("B1", "Relative transmit field"), (60, 140), "Viridis",
             "Refocusing angle relative to nominal"),
    Quantity("status", "Fit status", "1", _private("STATUS", "Fit status code"), (0, 12), "GenericColors",
             "Reason code of each voxel's fit; 0 is a good fit"),
    Quantity("nT2w", "Normalized T2w signal", "1", _private("NT2W", "T2-weighted signal over CSF median"), (0, 1),
             "Viridis", "T2-weighted signal divided by the median signal of cerebrospinal fluid; this is not T2"),
    Quantity("confidence", "Segmentation confidence", "1", _private("CONF", "Label probability"), (0.5, 1),
             "Viridis", "Calibrated probability of the label"),
)}
