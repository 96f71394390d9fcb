"""A sagittal lumbar phantom with a known smooth deformation: two vertebrae, one disc, the canal; signal and T2.

Everything is an analytic function of position, so that the moving image is evaluated, not resampled:
moving(y) = fixed(inverse map(y)). The map, fixed to moving, is a rotation about the disc's center, a translation and a
smooth random displacement (Gaussian-filtered white noise, 18 mm), scaled so that the mean displacement in the disc is
`start` mm.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiscAtlasLib.parametric import LITERATURE, disc_level
from DiscAtlasLib.transforms import grid_points
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import CANAL, disc_value

L45 = disc_value("L4-L5")
#: 96 x 96 x 24 at 0.8 x 0.8 x 3 mm, sagittal: i to posterior, j to caudal, k to the patient's left.
GRID = Geometry((96, 96, 24), (0.8, 0.8, 3.0), (-34.5, -38.0, 38.0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
#: T2 in ms of nucleus, annulus (grade II), vertebra, cerebrospinal fluid and surroundings.
T2 = {"nucleus": 129.0, "annulus": 52.0, "vertebra": 65.0, "canal": 300.0, "other": 45.0}
#: SD (mm) of each component of the local displacement: with it greedy's error is that of the published comparison.
LOCAL = 0.8
#: Position (AP to anterior, CC to cranial, mm) and tilt (degrees, anterior side up) of each disc: a plain lordosis.
POSE = {"L1-L2": (-12.0, 75.0, -12.0), "L2-L3": (-3.0, 38.0, -5.0), "L3-L4": (0.0, 0.0, 2.0),
        "L4-L5": (-4.0, -38.0, 12.0), "L5-S1": (-17.0, -75.0, 32.0)}
DENSITY = {"nucleus": 1.0, "annulus": 0.7, "vertebra": 0.55, "canal": 1.1, "other": 0.5}


@dataclass
class Phantom:
    """Fixed and moving labels, T2 maps and T2-weighted images, and the true map from fixed to moving points."""

    fixed: dict[str, Image]
    moving: dict[str, Image]
    displacement: Image
    seed: int

    def truth(self, lps):
        """Map (..., 3) fixed points to moving points."""
        return lps + smooth_displacement(self.displacement, lps)


def tissue(lps: np.ndarray) -> np.ndarray:
    """Return tissue codes at LPS points: 0 other, 1 vertebra, 2 canal, 3 annulus, 4 nucleus."""
    xyz = lps * [1, -1, 1]
    size = LITERATURE["L4-L5"]
    code = np.zeros(lps.shape[:-1], np.uint8)
    a, b = 0.70 * size.depth, size.depth / 2
    rim = np.abs(xyz[..., 0] / a) ** 2.5 + np.abs(xyz[..., 1] / b) ** 2.5
    code[(rim < 0.95) & (np.abs(xyz[..., 2]) < 34)] = 1
    level = disc_level(xyz, size)
    code[(rim < 1.1) & (np.abs(level) < 1.5) & (level >= 0) & (code == 1)] = 1
    code[(((xyz[..., 0] / 11) ** 2 + ((xyz[..., 1] + b + 9) / 7.5) ** 2) < 1)] = 2
    code[level < 0] = 3
    code[(level < 0) & (nucleus_level(lps) < 1)] = 4
    return code


def nucleus_level(lps: np.ndarray) -> np.ndarray:
    """Return a function that is below 1 in the nucleus, at LPS points."""
    size = LITERATURE["L4-L5"]
    a, b = 0.70 * size.depth, size.depth / 2
    ellipse = (lps[..., 0] / (0.66 * a)) ** 2 + ((-lps[..., 1] + 0.05 * b) / (0.64 * b)) ** 2
    return np.sqrt(ellipse + (lps[..., 2] / (0.42 * size.middle)) ** 4)


def make_phantom(seed: int = 0, start: float = 5.2, noise: float = 0.02) -> Phantom:
    """Return the phantom; `noise` is the SD of the signal's Gaussian noise relative to the density scale."""
    rng = np.random.default_rng(seed)
    points = grid_points(GRID)
    field = _random_map(rng, start)

    def forward(p):
        return p + smooth_displacement(field, p)

    source = points.copy()
    for _ in range(30):
        source = source - (forward(source) - points)
    return Phantom(_images(points, rng, noise), _images(source, rng, noise), field, seed)


def smooth_displacement(field: Image, lps: np.ndarray) -> np.ndarray:
    """Return the cubic interpolation of the displacement at LPS points."""
    index = np.moveaxis(field.geometry.world_to_index(lps)[..., ::-1], -1, 0)
    return np.stack([ndimage.map_coordinates(c, index, order=3, mode="nearest", prefilter=False)
                     for c in field.meta["vectors"]], axis=-1)


def _random_map(rng, start: float) -> Image:
    geometry = Geometry((31, 31, 31), (4.0,) * 3, (-60.0,) * 3)
    points = grid_points(geometry)
    vectors = np.stack([ndimage.gaussian_filter(rng.standard_normal(geometry.shape), 18 / 4, mode="wrap")
                        for _ in range(3)])
    vectors *= LOCAL / vectors.std()
    angles = np.radians(rng.uniform(-4, 4, 3))
    rotation = np.cross(np.broadcast_to(angles, points.shape), points)
    shift = rng.standard_normal(3)
    vectors = vectors + np.moveaxis(rotation, -1, 0)
    disc = tissue(points) >= 3
    shift *= np.array([1.0, 1.0, 1.0]) / np.linalg.norm(shift)
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        size = np.linalg.norm(vectors[:, disc] + middle * shift[:, None], axis=0).mean()
        low, high = (middle, high) if size < start else (low, middle)
    return Image(np.zeros(geometry.shape, np.uint8), geometry,
                 {"vectors": vectors + low * shift[:, None, None, None]})


def _images(points, rng, noise) -> dict[str, Image]:
    code = tissue(points)
    names = ("other", "vertebra", "canal", "annulus", "nucleus")
    t2 = np.array([T2[n] for n in names])[code]
    density = np.array([DENSITY[n] for n in names])[code]
    # Inside the disc T2 changes smoothly from nucleus to annulus, over about 3 mm.
    share = np.clip((1.25 - nucleus_level(points)) / 0.5, 0, 1)
    share = np.where(code >= 3, share * share * (3 - 2 * share), 0)
    disc = code >= 3
    t2 = np.where(disc, T2["annulus"] + share * (T2["nucleus"] - T2["annulus"]), t2)
    density = np.where(disc, DENSITY["annulus"] + share * (DENSITY["nucleus"] - DENSITY["annulus"]), density)
    signal = density * np.exp(-80.0 / t2)
    signal = signal + noise * rng.standard_normal(signal.shape)
    labels = np.where(code >= 3, L45, np.where(code == 2, CANAL.value, np.where(code == 1, 1, 0)))
    return {"labels": Image(labels.astype(np.uint8), GRID), "t2": Image(t2.astype(np.float32), GRID),
            "signal": Image(signal.astype(np.float32), GRID)}


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
