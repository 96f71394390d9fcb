"""Parametric sagittal lumbar anatomy: discs, vertebrae, canal, muscle, on a fine grid (SIMULATED).

The spine stands in coordinates x (to the left), y (to posterior), z (to cranial), in mm. Disc sizes are the
literature's (``Docs/method/virtual-cohort.md``), varied by person and reduced by degeneration.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import BY_NAME, CANAL, SACRUM, disc_value

from .people import LEVELS, VirtualPerson

#: Anterior, middle, posterior height and AP length in mm.
DISC_SIZES = {"T12-L1": (9.0, 8.4, 6.4, 29.5), "L1-L2": (10.8, 10.0, 7.3, 30.2), "L2-L3": (13.1, 11.6, 8.6, 32.0),
              "L3-L4": (15.2, 12.5, 9.1, 32.9), "L4-L5": (18.1, 13.8, 10.1, 33.1), "L5-S1": (18.7, 13.0, 8.5, 31.3)}
WIDTH_TO_AP = 1.4
#: Fine grid in mm along i (posterior), j (caudal), k (left-right).
FINE = (0.5, 0.5, 1.0)
#: Field of view in mm along the same axes.
_EXTENT = (132.0, 240.0, 64.0)
#: Tilt of each disc's plane in degrees, positive where its anterior end is lower (lordosis).
_TILT = {"T12-L1": -15, "L1-L2": -12, "L2-L3": -7, "L3-L4": 1, "L4-L5": 13, "L5-S1": 31}
# Height that is left at severity 1 to 5.
_HEIGHT_LEFT = (1.0, 1.0, 0.95, 0.84, 0.62)
_BODY_HEIGHT = 27.0
#: Tissues of the fine grid that are not labelled structures.
TISSUES = ("air", "fat", "muscle", "viscera", "vessel", "marrow", "cortical", "csf", "nerve", "disc")
_T = {name: n for n, name in enumerate(TISSUES)}


@dataclass
class Anatomy:
    """A person's fine grid; arrays (k, j, i), k to the left or right, j downward, i to posterior."""

    #: Fine grid in the person's own axes (LPS).
    geometry: Geometry
    #: uint8. The project's label values.
    labels: np.ndarray
    #: uint8. Index into :data:`TISSUES`.
    tissue: np.ndarray
    #: Level -> (flat indices, coordinates (n, 3): LR, AP, CC, as ``regions.disc_coordinates`` defines them).
    discs: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    #: Level -> anterior, middle, posterior height and AP length in mm (of a real anatomy: AP length only).
    measures: dict[str, tuple[float, ...]] = field(default_factory=dict)
    #: A real anatomy's T2-weighted volume.
    t2w: Image | None = None


@dataclass(frozen=True)
class _Disc:
    """One disc's frame and size."""

    level: str
    center: np.ndarray
    anterior: np.ndarray
    cranial: np.ndarray
    heights: tuple[float, float, float]
    length: float
    bumps: np.ndarray

    def local(self, points: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Return LR and AP as shares of the half size, and CC in mm, for broadcastable x, y, z."""
        x, y, z = (p - c for p, c in zip(points, self.center))
        ap = y * self.anterior[1] + z * self.anterior[2]
        cc = y * self.cranial[1] + z * self.cranial[2]
        return np.broadcast_arrays(x / (0.5 * WIDTH_TO_AP * self.length), ap / (0.5 * self.length), cc)

    def outline(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the radius in the disc plane: 1 at the border, with the posterior border slightly concave."""
        v = np.where(v < 0, v * (0.92 + 0.08 * np.exp(-((u / 0.35) ** 2))), v)
        return np.abs(u) ** 2.4 + np.abs(v) ** 2.4

    def half_height(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return half of the local height in mm."""
        v, u = np.clip(v, -1.1, 1.1), np.clip(u, -1.1, 1.1)
        front, middle, back = self.heights
        height = middle + 0.5 * (front - back) * v + (0.5 * (front + back) - middle) * v * v
        height = height * (1 - 0.12 * u * u)
        # Endplates are never smooth: low waves of a few tenths of a mm.
        a, b, c, d = self.bumps
        coarse, small = np.sin(2.5 * v + a) * np.cos(2 * u + b), np.sin(5 * v + c) * np.cos(3 * u + d)
        return 0.5 * height + 0.25 * coarse + 0.15 * small


def build_anatomy(person: VirtualPerson, spacing: tuple[float, float, float] = FINE,
                  left_handed: bool = True) -> Anatomy:
    """Build a person's anatomy on a fine grid, mm along i (posterior), j (caudal), k (left-right).

    Slices counted from right to left make a left-handed grid with i and j; else they count from left to right.
    """
    rng = np.random.default_rng(person.seed)
    discs = _spine(person, rng)
    middle = np.mean([d.center for d in discs], axis=0)
    size = tuple(int(round(e / s)) for e, s in zip(_EXTENT, spacing))
    side = 1.0 if left_handed else -1.0
    direction = (0, 0, side, 1, 0, 0, 0, -1, 0)
    top = discs[0].center[2] + 16.0
    origin = (-side * (size[2] - 1) * spacing[2] / 2, middle[1] - 52.0, top)
    geometry = Geometry(size, spacing, origin, direction)
    x = (origin[0] + side * spacing[2] * np.arange(size[2]))[:, None, None]
    z = (origin[2] - spacing[1] * np.arange(size[1]))[None, :, None]
    y = (origin[1] + spacing[0] * np.arange(size[0]))[None, None, :]
    anatomy = Anatomy(geometry, np.zeros(geometry.shape, np.uint8), np.zeros(geometry.shape, np.uint8))
    _soft_tissue(anatomy, discs, person, rng, x, y, z)
    _vertebrae(anatomy, discs, x, y, z)
    for disc in discs:
        _disc(anatomy, disc, x, y, z)
    return anatomy


def _spine(person: VirtualPerson, rng: np.random.Generator) -> list[_Disc]:
    """Return the discs from cranial to caudal, standing on the sacrum."""
    scale = (0.95 if person.sex == "F" else 1.05) * np.exp(rng.normal(0, 0.035))
    lordosis = np.clip(rng.normal(1.0, 0.18), 0.5, 1.4)
    lean = rng.normal(0, 2.0)
    curve, phase = rng.normal(0, 1.5), rng.uniform(0, 2 * np.pi)
    discs: list[_Disc] = []
    for n, level in enumerate(reversed(LEVELS)):
        *sizes, length = (s * scale for s in DISC_SIZES[level])
        left = np.interp(person.severity[level], np.arange(1, 6), _HEIGHT_LEFT) * np.exp(rng.normal(0, 0.05))
        heights: Any = tuple(h * left for h in sizes)
        length *= np.exp(rng.normal(0, 0.03))
        tilt = np.deg2rad(_TILT[level] * lordosis + lean + rng.normal(0, 1.5))
        anterior = np.array([0.0, -np.cos(tilt), -np.sin(tilt)])
        cranial = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
        if discs:
            below = discs[-1]
            step = _BODY_HEIGHT * scale * np.exp(rng.normal(0, 0.02)) + 0.5 * (heights[1] + below.heights[1])
            up = below.cranial + cranial
            center = below.center + step * up / np.linalg.norm(up)
        else:
            center = np.zeros(3)
        center = np.array([curve * np.sin(phase + 0.9 * n), center[1], center[2]])
        discs.append(_Disc(level, center, anterior, cranial, heights, float(length), rng.uniform(0, 2 * np.pi, 4)))
    return discs[::-1]


def _disc(anatomy: Anatomy, disc: _Disc, x, y, z) -> None:
    box = _box(disc, anatomy.geometry.shape, x, y, z, 14.0)
    u, v, cc = disc.local((x[box[0]], y[:, :, box[2]], z[:, box[1]]))
    w = cc / disc.half_height(u, v)
    inside = (disc.outline(u, v) <= 1) & (np.abs(w) <= 1)
    anatomy.labels[box][inside] = disc_value(disc.level)
    anatomy.tissue[box][inside] = _T["disc"]
    at = np.nonzero(inside)
    flat = np.ravel_multi_index(tuple(a + b.start for a, b in zip(at, box)), anatomy.labels.shape)
    anatomy.discs[disc.level] = flat, np.column_stack([u[inside], v[inside], w[inside]]).astype(np.float32)
    anatomy.measures[disc.level] = (*disc.heights, disc.length)


def _box(disc: _Disc, shape, x, y, z, reach: float) -> tuple[slice, ...]:
    """Return slices (k, j, i) that hold a disc and `reach` mm above and below it."""
    half = 0.5 * disc.length + 2
    limits = ((x.ravel(), disc.center[0], 0.75 * disc.length), (z.ravel(), disc.center[2], 0.6 * half + reach),
              (y.ravel(), disc.center[1], half + 8))
    out = []
    for values, center, reach_mm in limits:
        near = np.nonzero(np.abs(values - center) <= reach_mm)[0]
        out.append(slice(near[0], near[-1] + 1) if near.size else slice(0, 0))
    return tuple(out)


def _vertebrae(anatomy: Anatomy, discs: list[_Disc], x, y, z) -> None:
    """Fill the bodies between neighboring discs, the sacrum's first segment, and the body above the top disc."""
    names = ["T12", "L1", "L2", "L3", "L4", "L5"]
    for name, above, below in zip(names, [None, *discs[:-1]], discs):
        _body(anatomy, BY_NAME[name].value, above, below, x, y, z)
    _body(anatomy, SACRUM.value, discs[-1], None, x, y, z)


def _body(anatomy, value, above: _Disc | None, below: _Disc | None, x, y, z) -> None:
    ends = [d for d in (above, below) if d is not None]
    low = min(d.center[2] for d in ends) - (40 if below is None else 12)
    high = max(d.center[2] for d in ends) + (40 if above is None else 12)
    j = np.nonzero((z.ravel() > low) & (z.ravel() < high))[0]
    if not j.size:
        return
    rows = slice(j[0], j[-1] + 1)
    points = (x, y, z[:, rows])
    if below is not None:
        u_b, v_b, cc_b = below.local(points)
        up = cc_b - below.half_height(u_b, v_b)
    if above is not None:
        u_a, v_a, cc_a = above.local(points)
        down = -cc_a - above.half_height(u_a, v_a)
    if above is None:
        u, v, down = u_b, v_b, 26.0 - up
    elif below is None:
        u, v, up = u_a, v_a, 30.0 - down
        # The sacrum narrows and turns backward below its endplate.
        v = (v + 0.012 * np.maximum(down, 0)) * (1 + 0.014 * np.maximum(down, 0))
    else:
        share = np.clip(up / np.maximum(up + down, 1e-3), 0, 1)
        u, v = share * u_a + (1 - share) * u_b, share * v_a + (1 - share) * v_b
    place = np.clip(up / np.maximum(up + down, 1e-3), 0, 1)
    waist = 1 - 0.11 * 4 * place * (1 - place)
    radius = np.abs(u / (0.98 * waist)) ** 2.6 + np.abs(v / (1.02 * waist)) ** 2.6
    inside = (up > 0) & (down > 0) & (radius <= 1)
    rim = inside & ((up < 0.9) | (down < 0.9) | (radius > 0.90))
    anatomy.labels[:, rows][inside] = value
    anatomy.tissue[:, rows][inside] = _T["marrow"]
    anatomy.tissue[:, rows][rim] = _T["cortical"]


def _soft_tissue(anatomy: Anatomy, discs: list[_Disc], person: VirtualPerson, rng, x, y, z) -> None:
    """Fill what surrounds the column: canal with cerebrospinal fluid and roots, muscle, fat, vessel, skin."""
    back = np.array([d.center - d.anterior * (0.5 * d.length + 8.5) for d in discs])
    steps = [back[0] + [0, 4, 45], *back, back[-1] + [0, 16, -28], back[-1] + [0, 30, -60]]
    nodes = np.array(steps)[::-1]
    path = CubicSpline(nodes[:, 2], nodes[:, 1])
    side = CubicSpline(nodes[:, 2], nodes[:, 0])
    yc, xc = path(z), side(z)
    front = yc - 8.5 - 34
    tissue = anatomy.tissue
    tissue[:] = np.where(y < front, _T["viscera"], _T["fat"])
    flank = np.abs(x - xc) > 19
    psoas = flank & (y > front + 6) & (y <= yc + 2)
    tissue[psoas] = _T["muscle"]
    vessel = ((y - (front - 9)) ** 2 + (x - xc - 6) ** 2 < 8.0**2) & (z > discs[-2].center[2])
    tissue[vessel] = _T["vessel"]
    muscle = (y > yc + 9) & (y < yc + 48) & (np.abs(x - xc) > 3.5 + 0.05 * (y - yc))
    tissue[muscle] = _T["muscle"]
    _fat_streaks(tissue, muscle, person.fat_fraction / 100, rng)
    tissue[np.broadcast_to(y > yc + 58, tissue.shape)] = _T["air"]
    for upper, lower in zip(discs[:-1], discs[1:]):
        # Spinous process: one behind each body, pointing backward and slightly down.
        zm = 0.5 * (upper.center[2] + lower.center[2]) - 6
        ym = float(path(zm)) + 24
        tilt = z - zm + 0.25 * (y - ym)
        spinous = (np.abs(x - float(side(zm))) / 3.5) ** 4 + ((y - ym) / 15.0) ** 4 + (tilt / 9.5) ** 4
        tissue[spinous < 1] = _T["cortical"]
        tissue[spinous < 0.6] = _T["marrow"]
    radius = ((y - yc) / 7.5) ** 2 + ((x - xc) / 11.0) ** 2
    canal = np.broadcast_to((radius <= 1) & (z > discs[-1].center[2] - 45), tissue.shape)
    tissue[canal] = _T["csf"]
    anatomy.labels[canal] = CANAL.value
    conus = discs[1].center[2]
    cord = ((y - yc) / 3.6) ** 2 + ((x - xc) / 5.0) ** 2 <= np.clip((z - conus + 10) / 14, 0, 1)
    roots = (np.abs((y - yc - 2.6) / 2.2) ** 2 + ((x - xc) / 7.5) ** 2 <= 1) & (z < conus + 5)
    tissue[canal & (cord | roots)] = _T["nerve"]


def _fat_streaks(tissue, muscle, fraction, rng) -> None:
    """Turn a share of the muscle into streaks of fat along the fibers."""
    shape = tuple(max(s // d, 4) for s, d in zip(tissue.shape, (3, 16, 4)))
    field_ = ndimage.gaussian_filter(rng.standard_normal(shape), 0.7)
    zoom = [s / f for s, f in zip(tissue.shape, shape)]
    field_ = ndimage.zoom(field_.astype(np.float32), zoom, order=1)
    limit = np.quantile(field_[muscle][::50], 1 - fraction) if muscle.any() else 0
    tissue[muscle & (field_ > limit)] = _T["fat"]
