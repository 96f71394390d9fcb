"""What a scanner would see of a virtual person: relaxation times, MAPSS volumes, a T2-weighted volume (SIMULATED)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.image import Geometry, Image, resample
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.measure import NUCLEUS, NucleusShape

from .anatomy import TISSUES, Anatomy
from .people import VirtualPerson

#: MAPSS's combined acquisition: volume 0 is shared (PMC4488198, table 1).
SPIN_LOCK_MS = (0.0, 10.0, 40.0, 80.0)
ECHO_MS = (0.0, 13.7, 27.3, 54.7)
#: Tissue -> T2-weighted intensity; MAPSS signal at time 0, T1rho and T2 in ms. Design choices, but for the discs.
_TABLE = {"air": (0.0, 0.0, 20, 20), "fat": (0.60, 0.12, 95, 80), "muscle": (0.13, 0.75, 40, 33),
          "viscera": (0.24, 0.45, 70, 55), "vessel": (0.03, 0.10, 90, 80), "marrow": (0.33, 0.22, 60, 48),
          "cortical": (0.04, 0.06, 25, 18), "csf": (1.0, 0.50, 900, 800), "nerve": (0.48, 0.60, 90, 75),
          "disc": (0.0, 0.72, 70, 50)}
_DISC_M0 = _TABLE["disc"][1]
_TE_T2W = 100.0
_SCALE = 1000.0
# Width of the border between nucleus and annulus, as a share of the nucleus's radius, for severity 1 to 5.
_BORDER = (0.08, 0.10, 0.20, 0.32, 0.45)


@dataclass(frozen=True)
class Site:
    """How one site scans: sizes of voxels in fine-grid steps (LR, CC, AP), noise and motion."""

    name: str
    #: Fine voxels averaged into one, along k, j, i; with the fine grid's 1.0, 0.5, 0.5 mm.
    t2w_block: tuple[int, int, int] = (1, 2, 2)
    mapss_block: tuple[int, int, int] = (4, 2, 2)
    #: Signal of disc tissue in volume 0 over the noise sigma of MAPSS.
    snr: float = 60.0
    #: Of cerebrospinal fluid.
    t2w_snr: float = 45.0
    #: Whether slices are counted so that the grid is left-handed.
    left_handed: bool = True


SITES = (Site("A"), Site("B", t2w_block=(3, 2, 2), mapss_block=(5, 3, 3), snr=40.0, t2w_snr=35.0, left_handed=False))


@dataclass(frozen=True)
class PlantedEffect:
    """A focal association between a variable and a relaxation time, on top of those by grade and region."""

    #: Column of the participants table; numeric.
    variable: str
    #: ``T1rho`` or ``T2``, and the disc.
    kind: str
    level: str
    #: LR, AP, CC in disc coordinates (-1 to 1).
    center: tuple[float, float, float] = (0.0, -0.35, 0.0)
    #: Gaussian width along the same axes.
    radius: tuple[float, float, float] = (0.5, 0.3, 0.6)
    #: ms per unit of the variable, at the center.
    slope: float = -0.8
    #: Value of the variable at which nothing is added.
    reference: float = 30.0

    def at(self, coordinates: np.ndarray, value: float) -> np.ndarray:
        """Return what is added, in ms, at disc coordinates (n, 3)."""
        distance = ((coordinates - np.array(self.center)) / np.array(self.radius)) ** 2
        return self.slope * (value - self.reference) * np.exp(-0.5 * distance.sum(axis=1))


def nucleus_weight(coordinates: np.ndarray, severity: float, shape: NucleusShape) -> np.ndarray:
    """Return the share of nucleus (0 to 1) at disc coordinates (n, 3); its border blurs with degeneration."""
    u, v, w = coordinates.T
    border = np.interp(severity, np.arange(1, 6), _BORDER)
    radius = np.sqrt((u / shape.width) ** 2 + ((v - shape.center) / shape.half_length) ** 2)
    plane = _step((1 - radius) / border)
    height = _step((shape.height + 0.14 - np.abs(w)) / (0.5 * border))
    # The horizontal cleft of grades II and III.
    cleft = np.interp(severity, [1, 2, 3, 4], [0, 0.15, 0.2, 0]) * np.exp(-((w / 0.15) ** 2))
    return plane * height * (1 - cleft)


def _step(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(2 * x))


def disc_values(person: VirtualPerson, level: str, kind: str, coordinates: np.ndarray,
                effects: Sequence[PlantedEffect] = ()) -> np.ndarray:
    """Return the relaxation time in ms at disc coordinates (n, 3) of a person's disc: the ground truth."""
    shape = NUCLEUS.get(disc_value(level), NucleusShape())
    weight = nucleus_weight(coordinates, person.severity[level], shape)
    # The posterior annulus is about 10 % above the anterior one.
    annulus = person.annulus[kind, level] * (1 - 0.05 * np.clip(coordinates[:, 1], -1, 1))
    nucleus = max(person.nucleus[kind, level], annulus.min())
    values = annulus + (nucleus - annulus) * weight
    rng = np.random.default_rng([person.seed, disc_value(level), kind == "T2"])
    waves = rng.normal(0, [2.0, 3.0, 2.0], (6, 3)) @ coordinates.T + rng.uniform(0, 2 * np.pi, (6, 1))
    values = values * (1 + 0.03 * np.sin(waves).sum(axis=0) / np.sqrt(3))
    for effect in effects:
        if (effect.level, effect.kind) == (level, kind):
            values = values + effect.at(coordinates, float(person.variables[effect.variable]))
    return np.maximum(values, 8.0)


class Scanner:
    """Images of one person on one site; fine-grid fields are made once."""

    def __init__(self, person: VirtualPerson, anatomy: Anatomy, site: Site,
                 effects: Sequence[PlantedEffect] = (), echo_motion_mm: float = 0.3, series_motion_mm: float = 1.0):
        self.person, self.anatomy, self.site = person, anatomy, site
        self._rng = np.random.default_rng([person.seed, 77])
        # A real volume keeps its place.
        self.geometry = anatomy.geometry if anatomy.t2w is not None else _posed(anatomy.geometry, self._rng)
        self.truth = {kind: {level: disc_values(person, level, kind, xyz, effects)
                             for level, (_, xyz) in anatomy.discs.items()} for kind in KINDS}
        shift = self._rng.normal(0, 1, 6) * series_motion_mm
        # Someone who moves, moves more the longer it takes.
        steps = np.cumsum(self._rng.normal(0, 1, (7, 6)) * echo_motion_mm / 2, axis=0)
        self.motion = shift + steps - steps[0]
        self._texture = _smooth_noise(anatomy.labels.shape, self._rng)
        self._shading = _shading(anatomy.labels.shape, self._rng)

    def t2w(self) -> Image:
        """Return the T2-weighted volume (uint16), without motion: the person's reference position.

        In a real anatomy that comes with one, the real volume, whatever the simulated grades.
        """
        if self.anatomy.t2w is not None:
            return self.anatomy.t2w
        fine = self._paint([_TABLE[t][0] for t in TISSUES])
        for level, (flat, _) in self.anatomy.discs.items():
            fine.ravel()[flat] = 0.95 * np.exp(-_TE_T2W / self.truth["T2"][level])
        fine *= 1 + 0.06 * self._texture
        image, geometry = _average(fine * self._shading, self.geometry, self.site.t2w_block)
        noisy = _rician(image, 1 / self.site.t2w_snr, self._rng)
        return Image(np.round(_SCALE * noisy).astype(np.uint16), geometry)

    def mapss(self) -> tuple[np.ndarray, Geometry]:
        """Return the seven volumes (7, k, j, i), int16, and their geometry."""
        volumes = []
        plan = [("T1rho", t) for t in SPIN_LOCK_MS] + [("T2", t) for t in ECHO_MS[1:]]
        sigma = _DISC_M0 / self.site.snr
        for (kind, time), motion in zip(plan, self.motion):
            fine = self._signal(kind, time) * self._shading
            image, geometry = _average(self._moved(fine, motion), self.geometry, self.site.mapss_block)
            volumes.append(np.round(_SCALE * _rician(image, sigma, self._rng)).astype(np.int16))
        return np.stack(volumes), geometry

    def labels(self, grid: str) -> Image:
        """Return the majority label of each voxel, on the grid ``t2w`` or ``mapss`` (where the person then lay)."""
        block = self.site.t2w_block if grid == "t2w" else self.site.mapss_block
        fine = self.anatomy.labels
        if grid == "t2w" and self.anatomy.t2w is not None:
            return resample(Image(fine, self.geometry), self.anatomy.t2w.geometry, sitk.sitkNearestNeighbor)
        if grid == "mapss":
            fine = self._moved(fine, self.motion[0], sitk.sitkNearestNeighbor)
        values = np.unique(fine)
        shares = [_average((fine == value).astype(np.float32), self.geometry, block) for value in values]
        most = np.argmax([share for share, _ in shares], axis=0)
        return Image(values[most].astype(np.uint8), shares[0][1])

    def truth_maps(self) -> dict[str, Image]:
        """Return the true T1rho and T2 (mean of a voxel's disc part) and the disc's share, on the MAPSS grid."""
        inside = np.zeros(self.anatomy.labels.shape, np.float32)
        for flat, _ in self.anatomy.discs.values():
            inside.ravel()[flat] = 1
        inside = self._moved(inside, self.motion[0], sitk.sitkNearestNeighbor)
        share, geometry = _average(inside, self.geometry, self.site.mapss_block)
        out = {"disc_share": Image(share, geometry)}
        for kind, levels in self.truth.items():
            fine = np.zeros(inside.shape, np.float32)
            for level, values in levels.items():
                fine.ravel()[self.anatomy.discs[level][0]] = values
            fine = self._moved(fine, self.motion[0], sitk.sitkNearestNeighbor)
            total, _ = _average(fine, self.geometry, self.site.mapss_block)
            with np.errstate(invalid="ignore", divide="ignore"):
                out[kind] = Image(np.where(share > 0, total / share, np.nan).astype(np.float32), geometry)
        return out

    def _signal(self, kind: str, time: float) -> np.ndarray:
        column = 2 if kind == "T1rho" else 3
        fine = self._paint([_TABLE[t][1] * np.exp(-time / _TABLE[t][column]) for t in TISSUES])
        for level, (flat, _) in self.anatomy.discs.items():
            fine.ravel()[flat] = _DISC_M0 * np.exp(-time / self.truth[kind][level])
        fine *= 1 + 0.03 * self._texture
        return fine

    def _paint(self, values: Sequence[float]) -> np.ndarray:
        return np.take(np.array(values, np.float32), self.anatomy.tissue)

    def _moved(self, fine: np.ndarray, motion: np.ndarray, interpolator: int = sitk.sitkLinear) -> np.ndarray:
        """Move the person: translation in mm, then rotation of 0.3 degrees a mm, about the grid's center.

        Tissue goes on beyond the grid (the nearest voxel's): an empty neighborhood would move into the outer slices.
        """
        if not np.any(motion):
            return fine
        center = self.geometry.index_to_world((np.array(self.geometry.size) - 1) / 2)
        transform = sitk.Euler3DTransform(center.tolist(), *np.deg2rad(motion[3:] * 0.3).tolist(), motion[:3].tolist())
        image = Image(fine, self.geometry).to_sitk()
        return sitk.GetArrayFromImage(sitk.Resample(image, image, transform, interpolator, 0.0, image.GetPixelID(),
                                                    True))


def _posed(geometry: Geometry, rng: np.random.Generator) -> Geometry:
    """Lay the person on the table: a few degrees and centimeters off, so that grids are oblique."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", rng.normal(0, [2.0, 2.0, 3.0]), degrees=True).as_matrix()
    direction = turn @ np.array(geometry.direction).reshape(3, 3)
    origin = turn @ np.array(geometry.origin) + rng.normal(0, [8.0, 15.0, 30.0])
    return Geometry(geometry.size, geometry.spacing, origin, direction.ravel())


def _average(fine: np.ndarray, geometry: Geometry, block: tuple[int, int, int]) -> tuple[np.ndarray, Geometry]:
    """Average blocks (k, j, i) of voxels, as thick slices do, and return the coarser geometry."""
    shape = [n // b for n, b in zip(fine.shape, block)]
    cut = fine[tuple(slice(0, n * b) for n, b in zip(shape, block))]
    for axis in (0, 1, 2):
        size = (*cut.shape[:axis], shape[axis], block[axis], *cut.shape[axis + 1:])
        cut = cut.reshape(size).mean(axis=axis + 1, dtype=np.float32)
    steps = np.array(block[::-1])
    origin = geometry.index_to_world((steps - 1) / 2)
    return cut, Geometry(shape[::-1], np.array(geometry.spacing) * steps, origin, geometry.direction)


def _rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    noise = sigma * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return np.hypot(signal + noise[0], noise[1])


def _smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a texture of standard deviation near 1, some mm coarse, fixed in the tissue."""
    small = tuple(-(-s // d) for s, d in zip(shape, (2, 4, 4)))
    noise = ndimage.gaussian_filter(rng.standard_normal(small, dtype=np.float32), 0.6)
    noise /= noise.std()
    return ndimage.zoom(noise, [s / n for s, n in zip(shape, small)], order=1)


def _shading(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a surface coil's sensitivity: brighter toward the back, uneven from head to foot."""
    k, j, i = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    a, b, c = rng.normal(0, 0.06, 3)
    return ((1 + 0.15 * i + a * i * i)[None, None, :] * (1 + b * j - 0.15 * j * j)[None, :, None]
            * (1 + c * k)[:, None, None]).astype(np.float32)
