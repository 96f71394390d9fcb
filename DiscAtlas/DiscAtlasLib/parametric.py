"""Discs of the size and form that the literature gives, the neutral start of a template."""

from dataclasses import dataclass

import numpy as np

from .shape import WIDTH_TO_DEPTH


@dataclass(frozen=True)
class DiscSize:
    """Heights and AP length of a disc in mm."""

    anterior: float
    middle: float
    posterior: float
    depth: float


#: Heights and AP lengths of 14 healthy adults on MRI; source in ``Docs/method/atlas.md``.
LITERATURE = {
    "L1-L2": DiscSize(10.8, 10.0, 7.3, 30.2), "L2-L3": DiscSize(13.1, 11.6, 8.6, 32.0),
    "L3-L4": DiscSize(15.2, 12.5, 9.1, 32.9), "L4-L5": DiscSize(18.1, 13.8, 10.1, 33.1),
    "L5-S1": DiscSize(18.7, 13.0, 8.5, 31.3),
}


def disc_level(xyz: np.ndarray, size: DiscSize) -> np.ndarray:
    """Return values that are negative inside a disc, at (..., 3) frame points (LR, AP, CC in mm).

    The outline is a superellipse with a posterior concavity, the height a parabola through the three heights, and the
    rim is rounded.
    """
    a, b = WIDTH_TO_DEPTH * size.depth / 2, size.depth / 2
    v = xyz[..., 1] / b
    u = xyz[..., 0] / a
    dent = 0.10 * np.exp(-((u / 0.35) ** 2)) * (v < 0)
    rim = (np.abs(u) ** 2.5 + np.abs(v * (1 + dent)) ** 2.5) ** (1 / 2.5)
    slope, bow = (size.anterior - size.posterior) / 2, (size.anterior + size.posterior) / 2 - size.middle
    half = np.maximum(size.middle + slope * v + bow * v * v, 1.0) / 2
    return (np.maximum(rim, 0) ** 6 + (np.abs(xyz[..., 2]) / half) ** 4) - 1
