"""The one table of structures: fixed label values, names, SNOMED CT codes and colors.

Label values count upward from the sacrum, so that a missing top of the spine changes no value.
SNOMED CT codes are those listed in DICOM PS3.16; generic codes stand where a level has none of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import SegmentationError

if TYPE_CHECKING:
    from .image import Image

#: Labels stored as floating point are rounded when they are this near to a whole number.
ROUNDING = 0.01


@dataclass(frozen=True)
class Structure:
    """A labelled structure."""

    #: Voxel value in label images (uint8).
    value: int
    #: Name shown to the user, such as ``L4-L5``.
    name: str
    #: Name in file names and tables, such as ``L4L5``.
    key: str
    #: SNOMED CT code and meaning.
    snomed: tuple[str, str]
    #: RGB, 0-255.
    color: tuple[int, int, int]
    #: ``disc``, ``vertebra``, ``canal`` or ``unnamed``.
    kind: str


VERTEBRA = Structure(1, "Vertebra (no level)", "vertebra", ("51282000", "Vertebra"), (212, 188, 102), "unnamed")
CANAL = Structure(2, "Spinal canal", "canal", ("61853006", "Spinal canal"), (255, 234, 92), "canal")
DISC = Structure(3, "Disc (no level)", "disc", ("360499006", "Intervertebral disc"), (170, 170, 190), "unnamed")
SACRUM = Structure(30, "Sacrum", "sacrum", ("54735007", "Sacrum"), (180, 150, 90), "vertebra")

_GENERIC_DISC = "360499006"
_DISC_CODES = {"L5-S1": "715056000", "L4-L5": "84020006", "L3-L4": "62551000", "L2-L3": "67459009",
               "L1-L2": "80064006", "T12-L1": "76206002"}
_VERTEBRA_CODES = {"L5": "49668003", "L4": "11994002", "L3": "36470004", "L2": "14293000", "L1": "66794005"}
# One hue family (blue), alternating in lightness so that neighbors differ for color-blind readers too.
_DISC_COLORS = [(8, 69, 148), (66, 146, 198), (33, 113, 181), (107, 174, 214), (49, 130, 189), (158, 202, 225)]
_VERTEBRAE = ["L5", "L4", "L3", "L2", "L1"] + [f"T{n}" for n in range(12, 0, -1)]


def _discs() -> list[Structure]:
    below = ["S1"] + _VERTEBRAE[:-1]
    table = []
    for step, (upper, lower) in enumerate(zip(_VERTEBRAE, below)):
        name = f"{upper}-{lower}"
        code = (_DISC_CODES.get(name, _GENERIC_DISC), f"{upper}/{lower} disc")
        if name not in _DISC_CODES:
            code = (_GENERIC_DISC, "Intervertebral disc")
        table.append(Structure(11 + step, name, name.replace("-", ""), code,
                               _DISC_COLORS[step % len(_DISC_COLORS)], "disc"))
    return table


def _vertebrae() -> list[Structure]:
    return [Structure(31 + step, name, name, (_VERTEBRA_CODES.get(name, "51282000"),
                                              f"{name} vertebra" if name in _VERTEBRA_CODES else "Vertebra"),
                      (212 - 14 * (step % 2), 188 - 14 * (step % 2), 102), "vertebra")
            for step, name in enumerate(_VERTEBRAE)]


DISCS = tuple(_discs())
VERTEBRAE = (SACRUM, *_vertebrae())
STRUCTURES = (VERTEBRA, CANAL, DISC, *DISCS, *VERTEBRAE)
BY_VALUE = {s.value: s for s in STRUCTURES}
BY_NAME = {s.name: s for s in STRUCTURES} | {s.key: s for s in STRUCTURES}
#: The five lumbar discs, cranial to caudal, as reports list them.
LUMBAR_LEVELS = ("L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")


def disc_value(name: str) -> int:
    """Return the label value of a disc level such as ``L4-L5`` (or ``L4L5``)."""
    return BY_NAME[name].value


def disc_name(value: int) -> str:
    """Return the level name of a disc's label value."""
    return BY_VALUE[int(value)].name


def whole_labels(image: Image) -> Image:
    """Return a label image with whole numbers: floating-point values within 0.01 of one are rounded.

    Raises
    ------
    SegmentationError
        If a value is no whole number.
    """
    import numpy as np

    array = image.array
    if array.dtype.kind in "iu":
        return image
    if array.dtype.kind == "b":
        return replace(image, array=array.astype(np.uint8))
    rounded = np.rint(array)
    # NaN and infinity fail the comparison, too; the margin is the rounding of a float32.
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(array - rounded) <= ROUNDING + 1e-4)
        wrong |= np.abs(rounded) > np.iinfo(np.int32).max
    if wrong.any():
        found = ", ".join(f"{v:g}" for v in np.unique(array[wrong])[:5])
        raise SegmentationError(f"This image holds fractions, NaN or huge values ({found}), so it is not a label "
                                "image: choose the segmentation, not the signal.", anchor="label-conventions")
    return replace(image, array=rounded.astype(np.int32))
