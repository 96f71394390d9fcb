"""A disc as a shape: its frame, its signed distance, and what of it the image does not show.

World coordinates are LPS mm. A disc's frame has rows LR (to the patient's left), AP (to anterior) and CC (to cranial),
so frame coordinates are ``(x, y, z) = axes @ (p - center)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import CANAL, disc_name

#: Fewest voxels a disc needs: fewer hold no orientation.
MIN_VOXELS = 30
#: A disc's width over its mid-sagittal AP depth (``Docs/method/atlas.md``; an assumption, no source measured it).
WIDTH_TO_DEPTH = 1.4
#: A mask whose last slice has at least this share of the largest cross-section ends where the image (or the observer)
#: did, not where the disc does ...
CUT_SHARE = 0.5
#: ... unless the part seen on that side is already this share of the AP depth (a whole half-width is about 0.7).
CUT_REACH = 0.55
#: The same for masks as wide as a whole disc, of which one side may be cut all the same.
CUT_REACH_WIDE = 0.4
#: Masks narrower than this share of the AP depth are no whole discs, even if their outer slices taper (whole: 1.0-1.6).
TRIM_WIDTH = 0.9
#: Terms of the polynomials of mid-surface and height; beyond this normalized coordinate they are constant.
TERMS, RIM, RIDGE = 15, 1.15, 0.01
#: SD of the Gaussian that takes the staircase off a surface, in voxels of the finest axis.
SMOOTHING = 0.8
_LEFT = np.array([1.0, 0.0, 0.0])
_CRANIAL = np.array([0.0, 0.0, 1.0])


@dataclass
class DiscShape:
    """One disc of one label image.

    Attributes
    ----------
    value : int
        Label value.
    center : ndarray, shape (3,)
        LPS mm: the centroid; of a cut disc the middle of the mid-sagittal chord.
    axes : ndarray, shape (3, 3)
        Rows LR, AP, CC, orthonormal.
    half : ndarray, shape (3,)
        Half width (LR), half depth (AP) and half mean height (CC) in mm; of a whole disc twice the SD along the axis
        (exact for an ellipse, and steadier than the borders), of a cut one from the mid-sagittal chord.
    chord : tuple of float
        Half length and middle (AP frame coordinate) of the mid-sagittal chord, mm.
    distance : ndarray, shape (k, j, i)
        Signed distance in mm, negative inside, on `geometry` (the disc's surroundings, with a margin); its sign is that
        of the voxels.
    surface : ndarray, shape (k, j, i)
        The same without the staircase of the voxels: its zero is the smooth surface that registration uses.
    geometry : Geometry
    cut : tuple of bool
        Whether the disc goes on outside the volume at the patient's right and left.
    seen : tuple of float
        LR frame coordinates (mm) between which the image shows the disc.
    mid, logheight : ndarray
        Coefficients (of :func:`polynomial`'s terms) of the mid-surface (mm) and of the log half height, in x / half[0]
        and y / half[1]; of degree 4, of a cut disc of degree 2.
    midline : ndarray, shape (3,), or None
        Center of the spinal canal at the disc's height (LPS mm), where it is labelled and whole.
    notes : list of str
        What is unusual: pieces dropped, sides cut, edges touched.
    """

    value: int
    center: np.ndarray
    axes: np.ndarray
    half: np.ndarray
    chord: tuple[float, float]
    distance: np.ndarray
    surface: np.ndarray
    geometry: Geometry
    cut: tuple[bool, bool]
    seen: tuple[float, float]
    mid: np.ndarray
    logheight: np.ndarray
    midline: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Level, such as ``L4-L5``."""
        return disc_name(self.value)

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
        index = np.moveaxis(self.geometry.world_to_index(lps)[..., ::-1], -1, 0)
        return ndimage.map_coordinates(array, index, order=1, mode="nearest")

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
        x = self.to_frame(lps)[..., 0]
        return (~np.array(self.cut[0]) | (x >= self.seen[0])) & (~np.array(self.cut[1]) | (x <= self.seen[1]))


def disc_shape(labels: Image, value: int, person: str = "") -> DiscShape:
    """Return the shape of one labelled disc.

    Parameters
    ----------
    labels : Image
        Label image with the values of ``DiscRelaxometryLib.labels``; any spacing and orientation.
    value : int
        Label value of the disc.
    person : str
        Named in error messages.

    Raises
    ------
    RegistrationError
        If the disc is absent, has too few voxels, or is in pieces of comparable size.
    """
    who = f"{person + ', ' if person else ''}{disc_name(value)}"
    mask, box, notes = _crop(labels.array == value, who)
    mask, box = _trimmed(mask, box, labels.geometry, notes)
    edges = _lateral_edges(mask, labels.geometry)
    padded, geometry, at_cut = _pad(mask, box, labels.geometry, edges)
    points = geometry.index_to_world(np.argwhere(padded & ~at_cut)[:, ::-1])
    midline = _canal_center(labels, points)
    center, axes, xyz, chord = _placed(points, None if midline is None else midline[0], whole=False)
    step = abs(axes[0] @ geometry.matrix3).max()
    seen = (xyz[:, 0].min() - step / 2, xyz[:, 0].max() + step / 2)
    depth = 2 * chord[0]
    limit = depth * (CUT_REACH if seen[1] - seen[0] < TRIM_WIDTH * depth else CUT_REACH_WIDE)
    cut = tuple(bool(edges[side]["large"] and abs(reach) < limit)
                for side, reach in (("right", seen[0]), ("left", seen[1])))
    if not any(cut):
        center, axes, xyz, chord = _placed(points, None, whole=True)
        seen = (xyz[:, 0].min() - step / 2, xyz[:, 0].max() + step / 2)
    if edges and not all(cut):
        padded = padded & ~_far(at_cut, edges, cut, padded.shape)
    whole = not any(cut)
    half = np.array([2 * xyz[:, 0].std(), 2 * xyz[:, 1].std(), 1.0] if whole else
                    [WIDTH_TO_DEPTH * chord[0], chord[0], 1.0])
    for side, is_cut in zip(("right", "left"), cut):
        if is_cut:
            notes.append(f"cut at the patient's {side}")
    distance = signed_distance(padded, geometry)
    shape = DiscShape(value, center, axes, half, chord, distance, without_staircase(distance, geometry), geometry, cut,
                      seen, np.zeros(TERMS), np.zeros(TERMS), midline, notes)
    _fit_surfaces(shape)
    return shape


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


def _crop(mask: np.ndarray, who: str):
    """Return the largest piece of the mask in its bounding box, the box, and notes."""
    count = int(mask.sum())
    if count == 0:
        raise RegistrationError(f"{who}: the segmentation has no such disc. Label it, or leave the level out.",
                                anchor="missing-level")
    if count < MIN_VOXELS:
        raise RegistrationError(f"{who}: only {count} voxels are labelled, too few to tell the disc's orientation "
                                f"(at least {MIN_VOXELS}). Check the segmentation.", anchor="tiny-disc")
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    pieces, number = ndimage.label(mask[box], np.ones((3, 3, 3)))
    notes = []
    if number > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        if np.sort(sizes)[-2] > 0.25 * sizes.max():
            raise RegistrationError(
                f"{who}: the label has {number} separate pieces of {', '.join(map(str, np.sort(sizes)[::-1][:4]))} "
                "voxels. Two discs may share one label: correct the segmentation.", anchor="two-components")
        notes.append(f"{number - 1} small piece(s) left out ({count - sizes.max()} voxels)")
        pieces = pieces == 1 + int(sizes.argmax())
        inner = ndimage.find_objects(pieces.astype(np.uint8))[0]
        box = tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, inner))
        return pieces[inner], box, notes
    return pieces > 0, box, notes


def _lateral_areas(mask, geometry):
    """Return the array axis nearest to left-right, its sign toward the left, and the mask's areas along it."""
    columns = geometry.matrix3 / np.array(geometry.spacing)
    axis = int(np.argmax(np.abs(columns[0])))  # Image axis (i, j, k).
    array_axis = 2 - axis
    return array_axis, columns[0, axis], mask.sum(axis=tuple(a for a in range(3) if a != array_axis))


def _trimmed(mask, box, geometry, notes):
    """Leave out the tapering outer slices of a mask that is too narrow to be a whole disc.

    They are where the observer stopped, not where the disc ends.
    """
    array_axis, _, areas = _lateral_areas(mask, geometry)
    other = [a for a in range(3) if a != array_axis]
    spacing = geometry.spacing[::-1]
    largest = np.argwhere(mask.take(int(areas.argmax()), axis=array_axis))
    depth = np.hypot(*[np.ptp(largest[:, n]) * spacing[a] for n, a in enumerate(other)])
    if len(areas) * spacing[array_axis] >= TRIM_WIDTH * depth:
        return mask, box
    keep = np.nonzero(areas >= CUT_SHARE * areas.max())[0]
    if len(keep) < len(areas):
        notes.append(f"{len(areas) - (keep[-1] - keep[0] + 1)} tapering outer slice(s) left out")
    inner, outer = [slice(None)] * 3, list(box)
    inner[array_axis] = slice(keep[0], keep[-1] + 1)
    start = box[array_axis].start
    outer[array_axis] = slice(start + keep[0], start + keep[-1] + 1)
    return mask[tuple(inner)], tuple(outer)


def _lateral_edges(mask, geometry):
    """Return, for the sides right and left, whether the mask (in its box) ends with a large cross-section."""
    array_axis, sign, areas = _lateral_areas(mask, geometry)
    # Whether the volume's edge is met does not matter: masks are often left out on the last slices.
    first = bool(areas[0] >= CUT_SHARE * areas.max())
    last = bool(areas[-1] >= CUT_SHARE * areas.max())
    sides = ("right", "left") if sign > 0 else ("left", "right")
    return {sides[0]: {"axis": array_axis, "end": 0, "large": first},
            sides[1]: {"axis": array_axis, "end": 1, "large": last}}


def _pad(mask, box, geometry, edges, margin: float = 12.0):
    """Pad the cropped mask by `margin` mm of background, and by itself where it may be cut.

    The self-padding keeps the distance near a cut edge free of a surface that is not there.
    """
    width = [int(np.ceil(margin / s)) for s in geometry.spacing[::-1]]
    padded = np.pad(mask, [(w, w) for w in width])
    at_cut = np.zeros(padded.shape, bool)
    for edge in edges.values():
        if edge["large"]:
            axis, w = edge["axis"], width[edge["axis"]]
            region = [slice(None)] * 3
            source = [slice(None)] * 3
            region[axis] = slice(0, w) if edge["end"] == 0 else slice(padded.shape[axis] - w, None)
            source[axis] = slice(w, w + 1) if edge["end"] == 0 else slice(-w - 1, -w)
            padded[tuple(region)] = padded[tuple(source)]
            at_cut[tuple(region)] = True
    start = np.array([b.start - w for b, w in zip(box, width)])[::-1]
    return padded, Geometry(padded.shape[::-1], geometry.spacing, geometry.index_to_world(start),
                            geometry.direction), at_cut


def _far(at_cut, edges, cut, shape):
    """Return the self-padding of the sides that turned out not to be cut."""
    far = np.zeros(shape, bool)
    for side, is_cut in zip(("right", "left"), cut):
        edge = edges[side]
        if edge["large"] and not is_cut:
            half = [slice(None)] * 3
            n = shape[edge["axis"]]
            half[edge["axis"]] = slice(0, n // 2) if edge["end"] == 0 else slice(n // 2, None)
            far[tuple(half)] = at_cut[tuple(half)]
    return far


def _canal_center(labels: Image, points: np.ndarray) -> np.ndarray | None:
    """Return the spinal canal's center (LPS mm) at the disc's height, or None where it is absent or cut."""
    canal = labels.array == CANAL.value
    if not canal.any():
        return None
    edges = _lateral_edges(canal, labels.geometry)
    # A canal that fills the edge slices is cut on both sides: its middle is only the slab's.
    if any(e["large"] for e in edges.values()):
        return None
    where = labels.geometry.index_to_world(np.argwhere(canal)[:, ::-1])
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


def _fit_surfaces(shape: DiscShape, step: float = 1.5) -> None:
    """Fit the mid-surface and log half height by polynomials in the normalized outline, from columns along CC."""
    a, b, _ = shape.half
    top = float(np.abs((shape.geometry.index_to_world(
        np.argwhere(shape.distance < 0)[:, ::-1]) - shape.center) @ shape.axes[2]).max()) + 3
    fine = min(0.5, top / 12)
    low, high = max(-0.95 * a, shape.seen[0]), min(0.95 * a, shape.seen[1])
    x = np.linspace(low, high, max(int((high - low) / step), 5))
    y = np.arange(-0.95 * b, 0.95 * b + step, step)
    z = np.arange(-top, top + fine, fine)
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    d = shape.distance_at(shape.to_world(grid))
    # Soft occupancy: columns' lengths and centroids vary smoothly with the surface.
    inside = np.clip(0.5 - d / (2 * fine), 0, 1)
    length = inside.sum(-1) * fine
    keep = (length > 0.25 * np.median(length[length > 0])) & ((x[:, None] / a) ** 2 + (y / b) ** 2 < 0.85)
    if keep.sum() < 12:
        keep = length > 0
    center = (inside * z).sum(-1) / np.maximum(inside.sum(-1), 1e-9)
    u, v = np.broadcast_arrays(x[:, None] / a, y[None] / b)
    count = 6 if any(shape.cut) else TERMS
    terms = polynomial(u, v)[keep][:, :count]
    # A light ridge on all but the constant keeps the extrapolation of a cut or thin disc tame.
    ridge = np.diag([0, *[1] * (count - 1)]) * RIDGE * keep.sum()
    gram = terms.T @ terms + ridge
    shape.mid[:count] = np.linalg.solve(gram, terms.T @ center[keep])
    shape.logheight[:count] = np.linalg.solve(gram, terms.T @ np.log(length[keep] / 2))
    shape.half[2] = float(np.exp(shape.logheight[0]))
