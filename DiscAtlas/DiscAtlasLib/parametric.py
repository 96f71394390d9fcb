"""Discs of the size and form that the literature gives, as a label image: a neutral start, and test shapes."""

from dataclasses import dataclass

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_value

from .shape import WIDTH_TO_DEPTH
from .transforms import grid_points


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
#: Position (AP to anterior, CC to cranial, mm) and tilt (degrees, anterior side up) of each disc: a plain lordosis.
POSE = {"L1-L2": (-12.0, 75.0, -12.0), "L2-L3": (-3.0, 38.0, -5.0), "L3-L4": (0.0, 0.0, 2.0),
        "L4-L5": (-4.0, -38.0, 12.0), "L5-S1": (-17.0, -75.0, 32.0)}


def disc_level(xyz: np.ndarray, size: DiscSize) -> np.ndarray:
    """Return a function that is negative inside a disc, at (..., 3) frame points (LR, AP, CC in mm).

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


def literature_labels(spacing: float = 1.0) -> Image:
    """Return a label image of the five lumbar discs in literature geometry on an LPS-aligned isotropic grid."""
    low, high = np.array([-27.0, -24.0, -100.0]), np.array([27.0, 42.0, 92.0])
    geometry = Geometry(np.ceil((high - low) / spacing).astype(int) + 1, (spacing,) * 3, low)
    points = grid_points(geometry)
    array = np.zeros(geometry.shape, np.uint8)
    for name, size in LITERATURE.items():
        forward, up, tilt = POSE[name]
        array[disc_level(to_disc(points, forward, up, tilt), size) < 0] = disc_value(name)
    return Image(array, geometry, {"content": "literature geometry"})


def to_disc(lps: np.ndarray, forward: float, up: float, tilt: float) -> np.ndarray:
    """Map LPS points to the frame of a disc whose center lies `forward` (anterior) and `up`, tilted in degrees."""
    angle = np.radians(tilt)
    anterior, cranial = -lps[..., 1] - forward, lps[..., 2] - up
    return np.stack([lps[..., 0], np.cos(angle) * anterior + np.sin(angle) * cranial,
                     -np.sin(angle) * anterior + np.cos(angle) * cranial], axis=-1)
