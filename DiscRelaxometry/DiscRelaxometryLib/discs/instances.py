"""From class voxels to separate discs in order along the spine.

A curve through the vertebral column orders the discs; along it fused discs are split, the fragments of one disc are
joined, and islands off the column are left out. All distances are in mm in LPS world coordinates, so voxels may be
anisotropic, oblique or flipped. Lengths used as limits are choices of this project, documented in
``Docs/method/levels.md``.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import scipy
import SimpleITK as sitk

from ..errors import SegmentationError
from ..image import Geometry, Image, resample

CORE_DEPTH = 6.0  # mm inside the column; the processes behind the canal are thinner than twice this
COLUMN_RADIUS = 40.0  # mm from the curve; a disc's farthest corner lies about 30 mm out
ISLAND_VOLUME = 60.0  # mm3; the smallest separate piece that can be a disc
DISC_THICKNESS = 22.0  # mm; a piece thicker than this is examined as fused discs
SAME_DISC = 9.0  # mm between a fragment and the plane of its disc; neighboring discs are 20 mm or more apart
SPECK = 0.1  # of a disc's volume; smaller separate parts are no part of it
CUT = "cut by the edge of the image"  # note of a disc
SUPERIOR = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class SpineCurve:
    """Axis of the vertebral column, sampled every millimeter from caudal to cranial."""

    #: Shape (n, 3). LPS positions in mm; straight continuations reach 80 mm beyond the column at both ends.
    points: np.ndarray
    #: Shape (n, 3). Unit vectors toward cranial.
    tangents: np.ndarray

    @functools.cached_property
    def _tree(self) -> scipy.spatial.cKDTree:
        return scipy.spatial.cKDTree(self.points)

    def near(self, lps, reach: float) -> np.ndarray:
        """Tell which of (n, 3) positions are less than `reach` mm from the curve; far ones cost little."""
        return np.isfinite(self._tree.query(lps, distance_upper_bound=reach)[0])

    def locate(self, lps) -> tuple[np.ndarray, np.ndarray]:
        """Return arc length (mm, cranial positive) and distance from the curve (mm) of (n, 3) positions."""
        lps = np.atleast_2d(lps)
        distance, index = self._tree.query(lps)
        along = np.einsum("ij,ij->i", lps - self.points[index], self.tangents[index])
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        arc = np.concatenate([[0.0], np.cumsum(steps)])
        return arc[index] + along, distance

    def tangent(self, lps) -> np.ndarray:
        """Return the unit vector toward cranial at the curve point nearest to one position."""
        return self.tangents[self._tree.query(np.asarray(lps, float))[1]]


@dataclass
class Piece:
    """One disc, or a part of the disc class that is none."""

    #: Shape (n, 3). Array indices (k, j, i) of its voxels.
    indices: np.ndarray
    #: Shape (3,). LPS mm.
    centroid: np.ndarray
    #: mm3.
    volume: float
    #: Arc length along the spine curve, mm.
    position: float
    #: Distance of the centroid from the curve, mm.
    distance: float
    #: Shape (3,). Unit normal of the disc's plane, toward cranial.
    normal: np.ndarray
    extents: np.ndarray
    #: The piece touches the upper or lower border of the image.
    at_edge: bool
    #: What was done to it: split, joined, small.
    notes: list[str]


@dataclass
class Disc:
    """A disc found in an image."""

    #: Label value; 11 is L5-S1, counted upward; 3 has no level.
    value: int
    name: str
    #: LPS mm.
    centroid: tuple[float, ...]
    #: mm3.
    volume: float
    #: mm along the spine, cranial positive.
    position: float
    #: Extent across the disc's plane, mm (2nd to 98th percentile of its voxels).
    height: float
    #: Extent from front to back along the disc's plane, mm (2nd to 98th percentile of its voxels).
    length: float
    #: Mean probability of being L5-S1 by the network; NaN if it was not given.
    l5s1_probability: float = float("nan")
    flags: list[str] = field(default_factory=list)


def world(indices: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return LPS positions (n, 3) of array indices (n, 3) given as k, j, i."""
    return geometry.index_to_world(indices[:, ::-1])


def column_core(classes: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return LPS positions deep inside the column of bodies and discs, and the class of each.

    Most processes are too thin to have a core; those that have one, as in a single slice through the middle of
    touching processes, lie behind the canal. What remains follows the bodies. The image's border does not count as a
    surface: lumbar slabs are often narrower than the spine.
    """
    found = np.argwhere((classes == 1) | (classes == 3))
    if not len(found):
        return np.empty((0, 3)), np.empty(0, int)
    low, high = found.min(0), found.max(0) + 1
    part = np.ascontiguousarray(classes[tuple(slice(a, b) for a, b in zip(low, high))]).astype(np.uint8)
    box = Geometry(part.shape[::-1], geometry.spacing, geometry.index_to_world(low[::-1]), geometry.direction)
    # A coarser grid with about 2 mm voxels keeps this quick; axes finer than that are thinned.
    spacing = tuple(max(s, 2.0) for s in box.spacing)
    size = tuple(max(1, int(np.ceil(n * s / t))) for n, s, t in zip(box.size, box.spacing, spacing))
    coarse = resample(Image(part, box), Geometry(size, spacing, box.origin, box.direction), sitk.sitkNearestNeighbor)
    solid = (coarse.array == 1) | (coarse.array == 3)
    # One closing step bridges the one-voxel seam that networks leave between disc and endplate.
    padded = np.pad(solid, 6, mode="edge")
    padded = scipy.ndimage.binary_closing(padded, iterations=2)
    depth = scipy.ndimage.distance_transform_edt(padded, sampling=spacing[::-1])[6:-6, 6:-6, 6:-6]
    core = np.argwhere((depth >= CORE_DEPTH) & solid)
    kinds = coarse.array[tuple(core.T)].astype(int)
    points = world(core, coarse.geometry)
    kept = ~_behind(points, world(np.argwhere(classes == 2), geometry))
    return points[kept], kinds[kept]


def _behind(points: np.ndarray, canal: np.ndarray) -> np.ndarray:
    """Tell which positions lie behind the middle of the canal at their height; none where most do (a wrong header)."""
    if not len(canal) or not len(points):
        return np.zeros(len(points), bool)
    heights, where = np.unique(np.round(canal[:, 2] / 4), return_inverse=True)
    middle = np.bincount(where, canal[:, 1]) / np.bincount(where)
    behind = points[:, 1] > np.interp(points[:, 2] / 4, heights, middle)
    return behind & (behind.mean() < 0.5)


def spine_curve(classes: np.ndarray, geometry: Geometry, core: np.ndarray | None = None) -> SpineCurve:
    """Fit a curve through the column of vertebral bodies and discs; SegmentationError where they are too few.

    A polynomial of degree 1 to 5 (a degree for each 40 mm) in each coordinate against the position along the column's
    main axis, fitted by iteratively reweighted least squares with Huber weights, continued straight. `core` holds the
    positions of :func:`column_core`, if they are known already.
    """
    points = column_core(classes, geometry)[0] if core is None else core
    if np.count_nonzero(classes == 1) < 30 or len(points) < 30 or np.ptp(points[:, 2]) < 25:
        return _curve_of_discs(classes == 3, geometry)
    center = np.median(points, axis=0)
    axis = _main_axis(points - center)
    along = (points - center) @ axis
    bins = np.floor((along - along.min()) / 5.0).astype(int)
    counts = np.bincount(bins)
    keep = counts > 0
    means = np.stack([np.bincount(bins, weights=points[:, c])[keep] / counts[keep] for c in range(3)], axis=1)
    t = (means - center) @ axis
    degree = int(np.clip((t.max() - t.min()) / 40.0, 1, min(5, max(1, len(t) - 2))))
    low, high = np.percentile(along, [0.5, 99.5])
    curve = _robust_polynomial(t, means, np.sqrt(counts[keep]), degree)
    samples = curve(np.arange(low, max(high, low + 2), 1.0))
    return _resampled(_continued(samples))


def _curve_of_discs(mask: np.ndarray, geometry: Geometry) -> SpineCurve:
    """Join the centers of the disc components by straight pieces, where no vertebrae are labelled."""
    components = [world(c, geometry) for c in _components(mask)]
    if not components or sum(len(c) for c in components) < 8:
        raise SegmentationError("No vertebral column was found: the segmentation holds almost no vertebra or disc.",
                                anchor="no-spine-found")
    largest = max(len(c) for c in components)
    centers = np.array([c.mean(0) for c in components if len(c) > 0.1 * largest])
    if len(centers) == 1:
        return _resampled(_continued(centers[0] + np.array([[-1.0], [0.0], [1.0]]) * SUPERIOR))
    axis = _main_axis(centers - centers.mean(0)) if len(centers) > 2 else SUPERIOR
    centers = centers[np.argsort(centers @ axis)]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(centers, axis=0), axis=1))])
    even = np.arange(0.0, max(arc[-1], 2.0), 1.0)
    return _resampled(_continued(np.stack([np.interp(even, arc, centers[:, c]) for c in range(3)], axis=1)))


def _main_axis(points: np.ndarray) -> np.ndarray:
    """Return the unit axis of an elongated column, or superior where it is too short to have one.

    SegmentationError if a long column runs across the body by the header: then nothing is known of up and down.
    """
    values, vectors = np.linalg.eigh(np.cov(points.T))
    axis = vectors[:, 2] * np.sign(vectors[2, 2] or 1.0)
    elongated = values[2] > 4 * values[1]
    if elongated and axis @ SUPERIOR < 0.5 and np.ptp(points @ axis) > 80:
        raise SegmentationError("By the image's header the spine runs across the body, not from inferior to superior: "
                                "the orientation in the header is wrong. Load the original DICOM, or correct it.",
                                anchor="orientation")
    return axis if elongated and axis @ SUPERIOR >= 0.5 else SUPERIOR


def _robust_polynomial(t: np.ndarray, values: np.ndarray, weights: np.ndarray, degree: int):
    """Return a function t -> (n, 3): weighted polynomial fit with Huber weights (limit 4 mm)."""
    scale = max(np.abs(t).max(), 1.0)
    basis = np.polynomial.chebyshev.chebvander(t / scale, degree)
    huber = np.ones_like(weights)
    if len(t) <= degree:
        basis, degree = basis[:, :1], 0
    for _ in range(10):
        w = (weights * huber)[:, None]
        coefficients = np.linalg.lstsq(basis * np.sqrt(w), values * np.sqrt(w), rcond=None)[0]
        residual = np.linalg.norm(values - basis @ coefficients, axis=1)
        huber = np.minimum(1.0, 4.0 / np.maximum(residual, 1e-6))
    return lambda u: np.polynomial.chebyshev.chebvander(u / scale, degree) @ coefficients


def _continued(samples: np.ndarray, length: float = 80.0) -> np.ndarray:
    """Add straight pieces along the end tangents (taken over 10 mm)."""
    span = min(10, len(samples) - 1)
    ends = []
    for first, inner in ((samples[0], samples[span]), (samples[-1], samples[-1 - span])):
        step = first - inner
        norm = np.linalg.norm(step)
        ends.append((first, step / norm if norm > 0 else SUPERIOR))
    reach = np.arange(1.0, length + 1)[:, None]
    low = ends[0][0] + reach[::-1] * ends[0][1]
    high = ends[1][0] + reach * ends[1][1]
    return np.concatenate([low, samples, high])


def _resampled(samples: np.ndarray) -> SpineCurve:
    """Return the curve at steps of 1 mm with unit tangents, caudal first."""
    if (samples[-1] - samples[0]) @ SUPERIOR < 0:
        samples = samples[::-1]
    arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(samples, axis=0), axis=1))])
    even = np.arange(0.0, arc[-1], 1.0)
    points = np.stack([np.interp(even, arc, samples[:, c]) for c in range(3)], axis=1)
    tangents = np.gradient(points, axis=0)
    return SpineCurve(points, tangents / np.linalg.norm(tangents, axis=1, keepdims=True))


def make_piece(indices: np.ndarray, curve: SpineCurve, geometry: Geometry, notes: list[str] | None = None) -> Piece:
    """Measure the voxels of one piece."""
    points = world(indices, geometry)
    centroid = points.mean(0)
    position, distance = curve.locate(centroid)
    normal, extents = _plane(points - centroid, curve.tangent(centroid), geometry)
    vertical = _vertical_axis(geometry)
    edge = indices[:, vertical]
    at_edge = bool(edge.min() == 0 or edge.max() == geometry.shape[vertical] - 1)
    return Piece(indices, centroid, len(indices) * geometry.voxel_volume, float(position[0]), float(distance[0]),
                 normal, extents, at_edge, list(notes or []))


def _vertical_axis(geometry: Geometry) -> int:
    """Return the array axis (0 = k) nearest to superior-inferior."""
    columns = geometry.matrix3 / np.linalg.norm(geometry.matrix3, axis=0)
    return 2 - int(np.argmax(np.abs(columns[2])))


def _plane(points: np.ndarray, tangent: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit normal (toward cranial) and the extents in mm along normal and the two in-plane axes."""
    extents = np.zeros(3)
    normal = tangent
    if len(points) >= 30:
        values, vectors = np.linalg.eigh(np.cov(points.T))
        # The thinnest axis is the normal only if the piece is flat and lies across the spine.
        if values[0] < 0.35 * values[1] and abs(vectors[:, 0] @ tangent) > 0.6:
            normal = vectors[:, 0] * np.sign(vectors[:, 0] @ tangent)
        else:
            normal = _sagittal_normal(points, tangent, geometry)
        others = [v for v in vectors.T[::-1] if abs(v @ normal) < 0.9][:2]
        for n, axis in enumerate([normal, *others]):
            # Centers of voxels span one voxel less than the voxels themselves.
            extents[n] = np.subtract(*np.percentile(points @ axis, [98, 2])) + np.abs(axis @ geometry.matrix3).max()
    return normal, extents


def _sagittal_normal(points: np.ndarray, tangent: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return the thin axis within the sagittal slices, or the tangent where a piece is not flat in them.

    In few slices a disc is thinner from side to side than it is high. Below the lowest body the tangent is extrapolated
    and may lean backward: the axis is turned to cranial by both it and the body axis.
    """
    columns = geometry.matrix3 / np.linalg.norm(geometry.matrix3, axis=0)
    plane = np.delete(columns, int(np.argmax(np.abs(columns[0]))), axis=1)
    plane = np.linalg.qr(plane)[0]
    values, vectors = np.linalg.eigh(np.cov((points @ plane).T))
    normal = plane @ vectors[:, 0]
    cranial = normal @ (tangent + SUPERIOR)
    return normal * np.sign(cranial) if values[0] < 0.35 * values[1] and abs(cranial) > 0.8 else tangent


def find_discs(classes: np.ndarray, geometry: Geometry, curve: SpineCurve | None = None
               ) -> tuple[list[Piece], list[Piece], SpineCurve]:
    """Separate the disc class into discs, caudal first, and islands that belong to no disc; also return the curve.

    Classes (k, j, i) are 0 background, 1 vertebra, 2 canal, 3 disc; the curve is found from them if it is not given.
    """
    curve = curve or spine_curve(classes, geometry)
    components = _components(classes == 3)
    pieces = [p for c in components for p in _split(c, curve, geometry)]
    pieces.sort(key=lambda p: -p.volume)
    typical = float(np.median([p.volume for p in pieces if p.volume > 300] or [p.volume for p in pieces] or [0]))
    discs: list[Piece] = []
    islands: list[Piece] = []
    for piece in pieces:
        home = _home(piece, discs)
        if home is not None and piece.volume >= SPECK * discs[home].volume:
            notes = discs[home].notes + ["joined from separate parts"]
            discs[home] = make_piece(np.concatenate([discs[home].indices, piece.indices]), curve, geometry, notes)
        elif home is None and _may_be_disc(piece, typical):
            discs.append(piece)
        else:
            islands.append(piece)
    discs.sort(key=lambda p: p.position)
    return discs, islands, curve


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Return the array indices of each face-connected component."""
    labelled, count = scipy.ndimage.label(mask)
    if not count:
        return []
    where = np.argwhere(labelled)
    names = labelled[tuple(where.T)]
    order = np.argsort(names, kind="stable")
    return np.split(where[order], np.cumsum(np.bincount(names)[1:])[:-1])


def _may_be_disc(piece: Piece, typical: float) -> bool:
    """Tell whether a piece that fits no other disc can be a disc of its own."""
    enough = ISLAND_VOLUME if piece.at_edge else max(ISLAND_VOLUME, 0.05 * typical)
    return piece.distance < COLUMN_RADIUS / 2 and piece.volume >= enough


def _home(piece: Piece, discs: list[Piece]) -> int | None:
    """Return the index of the disc in whose plane a piece lies, or None."""
    best, home = SAME_DISC, None
    for n, disc in enumerate(discs):
        step = piece.centroid - disc.centroid
        height = abs(step @ disc.normal)
        if height < best and np.linalg.norm(step) < COLUMN_RADIUS + 10 and piece.distance < COLUMN_RADIUS:
            best, home = height, n
    return home


def _split(indices: np.ndarray, curve: SpineCurve, geometry: Geometry) -> list[Piece]:
    """Split a component that spans several discs where its cross-section along the spine is least."""
    whole = make_piece(indices, curve, geometry)
    if whole.extents[0] < DISC_THICKNESS:
        return [whole]
    positions, _ = curve.locate(world(indices, geometry))
    low, high = np.percentile(positions, [1, 99])
    if high - low < DISC_THICKNESS:
        return [whole]
    counts, edges = np.histogram(positions, bins=np.arange(positions.min() - 5, positions.max() + 6, 1.0))
    profile = scipy.ndimage.gaussian_filter1d(counts.astype(float), 2.0)
    peaks = [n for n in range(1, len(profile) - 1)
             if profile[n] == profile[max(0, n - 12):n + 13].max() and profile[n] > 0.15 * profile.max()]
    cuts = []
    for first, second in zip(peaks, peaks[1:]):
        valley = first + int(np.argmin(profile[first:second + 1]))
        if profile[valley] < 0.6 * min(profile[first], profile[second]):
            cuts.append(edges[valley] + 0.5)
    if not cuts:
        return [whole]
    side = np.digitize(positions, cuts)
    parts = [make_piece(indices[side == n], curve, geometry, ["split from a fused component"])
             for n in range(len(cuts) + 1) if np.any(side == n)]
    return parts if all(_stacked(a, b) for a, b in zip(parts, parts[1:])) else [whole]


def _stacked(low: Piece, high: Piece) -> bool:
    """Tell whether neither of two parts lies in the other's plane, as front and rear of a steep, wedged L5-S1 do.

    The curve says nothing here: below the lowest vertebra it is extrapolated.
    """
    step = high.centroid - low.centroid
    return min(abs(step @ low.normal), abs(step @ high.normal)) >= SAME_DISC
