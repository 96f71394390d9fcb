"""Analytic discs on grids of several orientations and spacings."""

import numpy as np
from scipy.spatial.transform import Rotation

from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.measure.axes import PATIENT_AXES

# Columns i to posterior, j to caudal, k to left: a left-handed grid.
_SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
_OBLIQUE = Rotation.from_euler("xyz", [8, -5, 11], degrees=True).as_matrix()
#: Name: direction matrix (columns i, j, k in LPS) and spacing.
GRIDS = {
    "isotropic": (np.eye(3), (0.8, 0.8, 0.8)),
    "sagittal_4mm": (_SAGITTAL, (0.6, 0.6, 4.0)),
    "oblique": (_OBLIQUE @ _SAGITTAL @ np.diag([1.0, 1.0, -1.0]), (0.7, 0.7, 3.0)),
    "left_handed": (_OBLIQUE @ _SAGITTAL, (0.7, 0.7, 3.0)),
}


def grid_around(name: str, extent: tuple[float, float, float] = (66.0, 60.0, 50.0)) -> Geometry:
    """Return a grid centered at the world's origin that covers `extent` mm along L, P, S."""
    direction, spacing = GRIDS[name]
    reach = np.abs(direction.T) @ np.array(extent)
    size = np.ceil(reach / spacing).astype(int)
    matrix = direction * np.array(spacing)
    return Geometry(tuple(size), spacing, tuple(-matrix @ ((size - 1) / 2)), tuple(direction.ravel()))


def tilted_axes(sagittal: float, coronal: float, axial: float) -> np.ndarray:
    """Return LR, AP, CC rows of a disc tilted by angles in degrees."""
    return PATIENT_AXES @ Rotation.from_euler("xyz", [sagittal, coronal, axial], degrees=True).as_matrix()


def _local(geometry: Geometry, axes: np.ndarray, center) -> list[np.ndarray]:
    """Return the voxels' coordinates along LR, AP and CC, mm from a center: three arrays of the image's shape."""
    k, j, i = np.ogrid[tuple(map(slice, geometry.shape))]
    start = axes @ (np.array(geometry.origin) - center)
    return [first + a * i + b * j + c * k for first, (a, b, c) in zip(start, axes @ geometry.matrix3)]


def ellipsoid(geometry: Geometry, axes: np.ndarray, size, center=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the mask of an ellipsoid with diameters `size` along LR, AP, CC."""
    return sum((2 * at / n) ** 2 for at, n in zip(_local(geometry, axes, center), size)) <= 1


def cuboid(geometry: Geometry, axes: np.ndarray, size, center=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Return the mask of a box with edges `size` along LR, AP, CC."""
    return np.logical_and.reduce([np.abs(2 * at) <= n for at, n in zip(_local(geometry, axes, center), size)])


def label_image(name: str) -> Image:
    """Return three stacked discs (L5-S1, L4-L5, L3-L4) and a canal behind them."""
    geometry = grid_around(name, (66.0, 90.0, 110.0))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[cuboid(geometry, PATIENT_AXES, (16, 14, 100), center=(0, 30, 0))] = 2
    for value, height, tilt in ((11, -34, 15), (12, 0, 5), (13, 34, -5)):
        labels[ellipsoid(geometry, tilted_axes(tilt, 0, 0), (46, 33, 12), center=(0, 0, height))] = value
    return Image(labels, geometry)


#: Sagittal outlines of a column: tilts (degrees) of the endplates from S1 upward, each body's lower and upper one.
TILTS = (-35, -20, -12, -5, -4, 3, 3, 8, 9, 12, 12)
BODY_DEPTH, BODY_HEIGHT, DISC_GAP = 34.0, 26.0, 10.0


def column(name: str, slips=(0, 0, 0, 0, 0), canal=14.0, width=30.0, sacrum=False, size=1.0) -> Image:
    """Return five bodies, their discs and a canal, extruded to both sides; `size` scales all but the canal.

    Parameters
    ----------
    name : str
        Of the grid.
    slips : sequence of float
        How far each body, L5 first, stands in front of the one below, mm along that one's upper endplate.
    canal : float
        Diameter at right angles to its course, mm.
    sacrum : bool
        Label a sacrum, too.
    """
    geometry = grid_around(name, (width + 10, 130.0, 250.0))
    local = _local(geometry, PATIENT_AXES, (0, 0, 0))
    labels = np.zeros(geometry.shape, np.uint8)

    def draw(value: int, reach: float, corners, margin: float, inside) -> None:
        """Label what lies in a shape of the sagittal plane, asked only of the part of the grid around its corners."""
        low, high = (-reach, *np.min(corners, axis=0) - margin), (reach, *np.max(corners, axis=0) + margin)
        ends = np.stack(np.meshgrid(*zip(low, high)), axis=-1).reshape(-1, 3) @ PATIENT_AXES
        index = geometry.world_to_index(ends)[:, ::-1]
        part = tuple(slice(max(int(a), 0), int(b) + 2) for a, b in zip(index.min(axis=0), index.max(axis=0)))
        left, *at = (along[part] for along in local)
        labels[part][(np.abs(left) <= reach) & inside(np.stack(at, axis=-1))] = value

    length = BODY_DEPTH * size
    plates = [np.array([[-length / 2, -80.0 * size], [-length / 2, -80.0 * size]]) + _rising(TILTS[0], length)]
    for n, slip in enumerate(slips):
        along, up = _unit(TILTS[2 * n]), _unit(TILTS[2 * n] + 90)
        corner = plates[-1][0] + slip * along + DISC_GAP * size * up
        plates.append(corner + _rising(TILTS[2 * n + 1], length))
        top = corner + BODY_HEIGHT * size * _unit(TILTS[2 * n + 1] + 90)
        plates.append(top + _rising(TILTS[2 * n + 2], length))
    behind = [p[0] - (6 + canal / 2) * _unit(t) for p, t in zip(plates, TILTS)]
    behind = [behind[0] - 30 * _unit(60), *behind, behind[-1] + 30 * _unit(100)]
    for a, b in zip(behind, behind[1:]):
        draw(2, 8, (a, b), canal / 2, lambda points, a=a, b=b: _distance(points, a, b) <= canal / 2)

    def quadrangle(value: int, lower: np.ndarray, upper: np.ndarray) -> None:
        draw(value, width / 2, [*lower, *upper], 0, lambda points: _between(points, lower, upper))

    for n in range(5):
        quadrangle(11 + n, plates[2 * n], plates[2 * n + 1])
        quadrangle(31 + n, plates[2 * n + 1], plates[2 * n + 2])
        process = plates[2 * n + 1].mean(axis=0) + [-52, 13 * size]
        draw(31 + n, 4, [process], 7, lambda points, center=process: np.abs(points - center).max(axis=-1) <= 7)
    if sacrum:
        quadrangle(30, plates[0] - 60 * _unit(TILTS[0] + 90), plates[0])
    return Image(labels, geometry)


def _unit(degrees: float) -> np.ndarray:
    """Return a direction in the sagittal plane (anterior, cranial)."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _rising(degrees: float, length: float) -> np.ndarray:
    """Return an endplate's two ends from its posterior one."""
    return np.array([[0.0, 0.0], length * _unit(degrees)])


def _distance(at: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of points from a straight piece."""
    step = end - start
    share = np.clip((at - start) @ step / (step @ step), 0, 1)
    return np.linalg.norm(at - start - share[..., None] * step, axis=-1)


def _between(at: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return which points lie in the quadrangle of two endplates."""
    corners = [lower[0], lower[1], upper[1], upper[0]]
    inside = np.ones(at.shape[:-1], bool)
    for a, b in zip(corners, [*corners[1:], corners[0]]):
        side, to = b - a, at - a
        inside &= side[0] * to[..., 1] - side[1] * to[..., 0] >= 0
    return inside
