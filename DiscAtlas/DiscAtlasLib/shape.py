"""A disc as a shape: its frame, its signed distance, and what of it the image does not show.

World coordinates are LPS mm. A disc's frame has rows LR (to the patient's left), AP (to anterior) and CC (to cranial),
so frame coordinates are ``(x, y, z) = axes @ (p - center)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.compiled import kernel_if_numba
from DiscRelaxometryLib.image import Geometry, Image, voxel_points
from DiscRelaxometryLib.interpolation import linear_scalar_at
from DiscRelaxometryLib.labels import CANAL, disc_name

from . import disc_mask

#: A disc's width over its mid-sagittal AP depth (``Docs/method/atlas.md``; an assumption, no source measured it).
WIDTH_TO_DEPTH = 1.4
#: A mask that ends with a large slice is cut there, unless the part seen on that side is already this share of the AP
#: depth (a whole half-width is about 0.7).
CUT_REACH = 0.55
#: The same for masks as wide as a whole disc, of which one side may be cut all the same.
CUT_REACH_WIDE = 0.4
#: Terms of the polynomials of mid-surface and height, and the weight of their ridge a column.
TERMS, RIDGE = 15, 0.01
#: Beyond this normalized coordinate the polynomials are constant.
RIM = 1.15
#: SD of the Gaussian that takes the staircase off a surface, in voxels of the finest axis.
SMOOTHING = 0.8
_LEFT = np.array([1.0, 0.0, 0.0])
_CRANIAL = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Seen:
    """Between which planes an image shows a disc: LR positions `low` and `high` (mm, infinite where it is not cut)."""

    center: np.ndarray
    axis: np.ndarray
    low: float
    high: float

    def contains(self, lps: np.ndarray) -> np.ndarray:
        """Return whether the image shows the disc's tissue at (..., 3) LPS points."""
        x = (np.asarray(lps, float) - self.center) @ self.axis
        return (x >= self.low) & (x <= self.high)

    def to_dict(self) -> dict:
        """Return plain numbers for JSON; an infinite limit is None."""
        low, high = (float(v) if np.isfinite(v) else None for v in (self.low, self.high))
        return {"center": [float(v) for v in self.center], "axis": [float(v) for v in self.axis], "low": low,
                "high": high}

    @classmethod
    def from_dict(cls, values: dict) -> Seen:
        """Return what :meth:`to_dict` wrote."""
        low, high = values["low"], values["high"]
        return cls(np.array(values["center"]), np.array(values["axis"]), -np.inf if low is None else low,
                   np.inf if high is None else high)


@dataclass(frozen=True, eq=False)
class DiscShape:
    """One disc of one label image."""

    #: Label value.
    value: int
    #: Shape (3,). LPS mm: the centroid; of a cut disc the middle of the mid-sagittal chord.
    center: np.ndarray
    #: Shape (3, 3). Rows LR, AP, CC, orthonormal.
    axes: np.ndarray
    #: Shape (3,). Half width (LR), half depth (AP) and half mean height (CC) in mm; of a whole disc twice the SD along
    #: the axis (exact for an ellipse, and steadier than the borders), of a cut one from the mid-sagittal chord.
    half: np.ndarray
    #: Half length and middle (AP frame coordinate) of the mid-sagittal chord, mm.
    chord: tuple[float, float]
    #: Shape (k, j, i). Signed distance in mm, negative inside, on `geometry` (the disc's surroundings, with a margin);
    #: its sign is that of the voxels.
    distance: np.ndarray
    #: Shape (k, j, i). The same without the staircase of the voxels: its zero is the smooth surface that registration
    #: uses.
    surface: np.ndarray
    geometry: Geometry
    #: Whether the disc goes on outside the volume at the patient's right and left.
    cut: tuple[bool, ...]
    #: LR frame coordinates (mm) between which the image shows the disc.
    seen: tuple[float, float]
    #: Coefficients (of :func:`polynomial`'s terms) of the mid-surface (mm) and of the log half height, in x / half[0]
    #: and y / half[1]; of degree 4, of a cut disc of degree 2.
    mid: np.ndarray
    logheight: np.ndarray
    #: Shape (3,). Center of the spinal canal at the disc's height (LPS mm), where it is labelled and whole.
    midline: np.ndarray | None = None
    #: What is unusual: pieces dropped, sides cut, edges touched.
    notes: tuple[str, ...] = ()
    #: Named in messages.
    person: str = ""

    @property
    def name(self) -> str:
        """Level, such as ``L4-L5``."""
        return disc_name(self.value)

    @property
    def who(self) -> str:
        """Person (where known) and level, for messages."""
        return _who(self.person, self.value)

    @property
    def inside(self) -> np.ndarray:
        """LPS positions (n, 3) of the disc's voxels."""
        return voxel_points(self.distance < 0, self.geometry)

    def to_frame(self, lps: np.ndarray) -> np.ndarray:
        """Map (..., 3) LPS mm to frame mm."""
        return (np.asarray(lps, float) - self.center) @ self.axes.T

    def to_world(self, xyz: np.ndarray) -> np.ndarray:
        """Map (..., 3) frame mm to LPS mm."""
        return np.asarray(xyz, float) @ self.axes + self.center

    def distance_at(self, lps: np.ndarray) -> np.ndarray:
        """Return the signed distance (mm) at (..., 3) LPS points; beyond the grid, that of its nearest voxel."""
        return self._at(self.distance, lps)

    def surface_at(self, lps: np.ndarray) -> np.ndarray:
        """Return the signed distance (mm) from the smooth surface at (..., 3) LPS points."""
        return self._at(self.surface, lps)

    def _at(self, array: np.ndarray, lps: np.ndarray) -> np.ndarray:
        return linear_scalar_at(array, self.geometry, lps)

    def uncertainty_at(self, lps: np.ndarray) -> np.ndarray:
        """Return the standard error (mm) of the surface's position near (n, 3) LPS points.

        It is that of a position known to a voxel, along the surface's normal; 0.2 mm of it comes from the observer.
        """
        direction = np.array(self.geometry.direction).reshape(3, 3)
        spacing = np.array(self.geometry.spacing)
        steps = direction * (spacing / 2)
        normal = np.stack([(self.surface_at(lps + steps[:, a]) - self.surface_at(lps - steps[:, a])) / spacing[a]
                           for a in range(3)], axis=-1)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-3)
        return np.sqrt((normal**2 * spacing**2 / 12).sum(-1) + 0.2**2)

    def seen_at(self, lps: np.ndarray) -> np.ndarray:
        """Return whether the image shows the disc's tissue at (..., 3) LPS points (the sides that are not cut do)."""
        return self.limits.contains(lps)

    @property
    def limits(self) -> Seen:
        """Where the image shows the disc."""
        low, high = (v if c else s * np.inf for v, c, s in zip(self.seen, self.cut, (-1, 1)))
        return Seen(self.center, self.axes[0], low, high)


def disc_shape(labels: Image, value: int, person: str = "") -> DiscShape:
    """Return the shape of one labelled disc, in a label image of any spacing and orientation; errors name `person`.

    RegistrationError if the disc is absent, has too few voxels, or is in pieces of comparable size.
    """
    mask, box, notes = disc_mask.crop(labels.array == value, _who(person, value))
    mask, box = disc_mask.trimmed(mask, box, labels.geometry, notes)
    edges = disc_mask.lateral_edges(mask, labels.geometry)
    padded, geometry, at_cut = disc_mask.pad(mask, box, labels.geometry, edges)
    points = voxel_points(padded & ~at_cut, geometry)
    midline = _canal_center(labels, points)
    center, axes, xyz, chord = _placed(points, None if midline is None else midline[0], whole=False)
    step = abs(axes[0] @ geometry.matrix3).max()
    seen = (xyz[:, 0].min() - step / 2, xyz[:, 0].max() + step / 2)
    depth = 2 * chord[0]
    limit = depth * (CUT_REACH if seen[1] - seen[0] < disc_mask.TRIM_WIDTH * depth else CUT_REACH_WIDE)
    cut = tuple(bool(edges[side]["large"] and abs(reach) < limit)
                for side, reach in (("right", seen[0]), ("left", seen[1])))
    if not any(cut):
        center, axes, xyz, chord = _placed(points, None, whole=True)
        seen = (xyz[:, 0].min() - step / 2, xyz[:, 0].max() + step / 2)
    if edges and not all(cut):
        padded = padded & ~disc_mask.far(at_cut, edges, cut, padded.shape)
    whole = not any(cut)
    half = (2 * xyz[:, 0].std(), 2 * xyz[:, 1].std()) if whole else (WIDTH_TO_DEPTH * chord[0], chord[0])
    for side, is_cut in zip(("right", "left"), cut):
        if is_cut:
            notes.append(f"cut at the patient's {side}")
    distance = signed_distance(padded, geometry)
    columns = _columns(distance, geometry, center, axes, half, seen)
    u, v, middle, length = columns
    mid, logheight = _fit_surfaces(u, v, middle, length, 6 if any(cut) else TERMS)
    return DiscShape(value, center, axes, np.array([*half, np.exp(logheight[0])]), chord, distance,
                     without_staircase(distance, geometry), geometry, cut, seen, mid, logheight, midline, tuple(notes),
                     person)


def _who(person: str, value: int) -> str:
    return f"{person}, {disc_name(value)}" if person else disc_name(value)


def signed_distance(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the signed distance (mm, negative inside) whose zero lies halfway between inside and outside voxels."""
    sampling = geometry.spacing[::-1]
    return (ndimage.distance_transform_edt(~mask, sampling=sampling)
            - ndimage.distance_transform_edt(mask, sampling=sampling)).astype(np.float32)


def without_staircase(distance: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return a signed distance freed of the staircase of the voxels.

    A low-pass with a flat pass band, ``2 G - G * G`` with G a Gaussian of :data:`SMOOTHING` voxels of the finest axis:
    G alone would move a rounded rim inward by half its variance times the curvature. Along thick slices the Gaussian is
    narrower than a voxel and leaves the linear interpolation of the distance, that is, of the shape.
    """
    sigma = SMOOTHING * min(geometry.spacing) / np.array(geometry.spacing[::-1])
    once = ndimage.gaussian_filter(distance, sigma, mode="nearest", truncate=3)
    return 2 * once - ndimage.gaussian_filter(once, sigma, mode="nearest", truncate=3)


def polynomial(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the 15 terms up to degree 4 of u and v (degree 2 first), held at the rim's values beyond it."""
    u, v = np.clip(u, -RIM, RIM), np.clip(v, -RIM, RIM)
    uu, uv, vv = u * u, u * v, v * v
    return np.stack([np.ones_like(u), u, v, uu, uv, vv, uu * u, uu * v, u * vv, vv * v,
                     uu * uu, uu * uv, uu * vv, uv * vv, vv * vv], axis=-1)


def quartic(coefficients: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the sum of :func:`polynomial`'s terms by Horner's rule."""
    u, v = np.broadcast_arrays(np.clip(u, -RIM, RIM), np.clip(v, -RIM, RIM))
    run = kernel_if_numba(_quartic) or _quartic
    return run(coefficients, u.ravel(), v.ravel()).reshape(u.shape)


def _quartic(c, u, v):
    return ((((c[10] * u + c[11] * v + c[6]) * u + (c[12] * v + c[7]) * v + c[3]) * u
             + ((c[13] * v + c[8]) * v + c[4]) * v + c[1]) * u
            + (((c[14] * v + c[9]) * v + c[5]) * v + c[2]) * v + c[0])


def _canal_center(labels: Image, points: np.ndarray) -> np.ndarray | None:
    """Return the spinal canal's center (LPS mm) at the disc's height, or None where it is absent or cut."""
    canal = labels.array == CANAL.value
    if not canal.any():
        return None
    edges = disc_mask.lateral_edges(canal, labels.geometry)
    # A canal that fills the edge slices is cut on both sides: its middle is only the slab's.
    if any(e["large"] for e in edges.values()):
        return None
    where = voxel_points(canal, labels.geometry)
    near = where[np.abs(where[:, 2] - points[:, 2].mean()) < 10]
    return near.mean(0) if len(near) >= 50 else None


def _frame(points: np.ndarray, midline: float | None, whole: bool):
    """Return center and axes: AP and CC from the sagittal profile, tilt from the mid-surface, twist from the outline.

    Principal axes of the whole mask fail on laterally cut discs, whose width may be close to their height.
    """
    center = points.mean(0)
    lr = _LEFT
    flat = points - center
    flat = flat - np.outer(flat @ lr, lr)
    ap = np.linalg.svd(flat.T @ flat)[0][:, 0]
    ap = ap - (ap @ lr) * lr
    cc = np.cross(lr, ap)
    cc, ap = _orient(cc, ap, lr)
    for _ in range(3):
        local = (points - center) @ np.array([lr, ap, cc]).T
        design = np.column_stack([np.ones(len(local)), local[:, :2]])
        # Ridge on the coronal tilt: a narrow slab does not determine it.
        gram = design.T @ design + np.diag([0, len(local) * 9.0, 0])
        slope = np.linalg.solve(gram, design.T @ local[:, 2])
        cc = cc - slope[1] * lr - slope[2] * ap
        cc /= np.linalg.norm(cc)
        lr = _LEFT - (_LEFT @ cc) * cc
        lr /= np.linalg.norm(lr)
        ap = np.cross(lr, cc)
        cc, ap = _orient(cc, ap, lr)
    if whole:
        local = (points - center) @ np.array([lr, ap, cc]).T
        cov = np.cov(local[:, :2].T)
        # Angle of the outline's long axis, trusted only as far as the outline is elongated.
        angle = 0.5 * np.arctan2(2 * cov[0, 1], cov[0, 0] - cov[1, 1])
        if cov[0, 0] > 1.2 * cov[1, 1] and abs(angle) < np.radians(25):
            lr, ap = np.cos(angle) * lr + np.sin(angle) * ap, np.cos(angle) * ap - np.sin(angle) * lr
    if midline is not None:
        center = center + (midline - center[0]) / max(lr[0], 0.5) * lr
    return center, np.array([lr, ap, cc])


def _placed(points, midline, whole):
    """Return center, axes, the points in frame mm, and the mid-sagittal chord (half length, middle)."""
    center, axes = _frame(points, midline, whole)
    xyz = (points - center) @ axes.T
    depth, middle = _depth(xyz)
    if whole:
        return center, axes, xyz, (depth / 2, middle)
    xyz[:, 1] -= middle
    return center + middle * axes[1], axes, xyz, (depth / 2, 0.0)


def _orient(cc, ap, lr):
    """Return CC pointing cranially and AP pointing anteriorly (LR x CC is anterior in LPS)."""
    cc = cc if cc @ _CRANIAL > 0 else -cc
    return cc / np.linalg.norm(cc), np.cross(lr, cc) / np.linalg.norm(np.cross(lr, cc))


def _depth(xyz: np.ndarray) -> tuple[float, float]:
    """Return the mid-sagittal AP depth and the AP position of its middle, in mm."""
    band = np.abs(xyz[:, 0]) <= max(5.0, 1.5 * np.abs(xyz[:, 0]).min())
    y = np.sort(xyz[band, 1] if band.sum() > 20 else xyz[:, 1])
    low, high = np.percentile(y, [1.0, 99.0])
    return max(float(high - low) / 0.98, 4.0), float(high + low) / 2


def _columns(distance, geometry, center, axes, half, seen, step: float = 1.5):
    """Return normalized LR and AP coordinates, middle (mm) and length (mm) of the disc's columns along CC."""
    a, b = half
    points = voxel_points(distance < 0, geometry)
    top = float(np.abs((points - center) @ axes[2]).max()) + 3
    fine = min(0.5, top / 12)
    low, high = max(-0.95 * a, seen[0]), min(0.95 * a, seen[1])
    x = np.linspace(low, high, max(int((high - low) / step), 5))
    y = np.arange(-0.95 * b, 0.95 * b + step, step)
    z = np.arange(-top, top + fine, fine)
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1) @ axes + center
    d = linear_scalar_at(distance, geometry, grid)
    # Soft occupancy: columns' lengths and centroids vary smoothly with the surface.
    inside = np.clip(0.5 - d / (2 * fine), 0, 1)
    length = inside.sum(-1) * fine
    keep = (length > 0.25 * np.median(length[length > 0])) & ((x[:, None] / a) ** 2 + (y / b) ** 2 < 0.85)
    if keep.sum() < 12:
        keep = length > 0
    middle = (inside * z).sum(-1) / np.maximum(inside.sum(-1), 1e-9)
    u, v = np.broadcast_arrays(x[:, None] / a, y[None] / b)
    return u[keep], v[keep], middle[keep], length[keep]


def _fit_surfaces(u, v, middle, length, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit mid-surface and log half height of columns by the first `count` terms of the polynomials."""
    terms = polynomial(u, v)[:, :count]
    # A light ridge on all but the constant keeps the extrapolation of a cut or thin disc tame.
    ridge = np.diag([0, *[1] * (count - 1)]) * RIDGE * len(terms)
    gram = terms.T @ terms + ridge
    mid, logheight = np.zeros(TERMS), np.zeros(TERMS)
    mid[:count] = np.linalg.solve(gram, terms.T @ middle)
    logheight[:count] = np.linalg.solve(gram, terms.T @ np.log(length / 2))
    return mid, logheight
