"""How good a registration is: overlap, surface distance, folding, inverse consistency, landmarks; with flags."""

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.image import voxel_points
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.tables import Column

from .shape import DiscShape
from .transforms import LevelTransform

QUALITY_COLUMNS = [
    Column("participant_id", "", "Person"),
    Column("level", "", "Disc level"),
    Column("backend", "", "What found the correspondence"),
    Column("dice", "1", "Dice of the person's disc and the atlas's, warped onto the person's voxels, where seen"),
    Column("surface_mean", "mm", "Mean distance from the warped atlas disc's surface to the person's"),
    Column("surface_95", "mm", "95th percentile of that distance"),
    Column("folding", "1", "Share of the atlas disc's voxels where the map folds (Jacobian determinant <= 0)"),
    Column("jacobian_min", "1", "Smallest Jacobian determinant in the atlas's disc"),
    Column("jacobian_max", "1", "Largest Jacobian determinant in the atlas's disc"),
    Column("inverse_error", "mm", "Mean distance after atlas to person and back"),
    Column("seen", "1", "Share of the atlas's disc that the person's image shows"),
    Column("landmark_error", "mm", "Mean distance of known landmarks, where given"),
    Column("flags", "", "What to look at; empty is good"),
]
#: Thresholds beyond which a level is flagged: (column, comparison, limit, words).
THRESHOLDS = (
    ("dice", "<", 0.88, "low overlap"),
    ("surface_95", ">", 2.0, "surfaces far apart"),
    ("folding", ">", 0.0, "folding"),
    ("jacobian_min", "<", 0.05, "strong compression"),
    ("jacobian_max", ">", 20.0, "strong expansion"),
    ("inverse_error", ">", 0.2, "forward and inverse disagree"),
    ("seen", "<", 0.9, "not all of the disc is in the image"),
)


def assess(transform: LevelTransform, fixed: DiscShape, moving: DiscShape, landmarks=None) -> dict:
    """Return a level's quality as a table row; landmarks are corresponding LPS points (n, 3) of atlas and person."""
    inside_atlas = fixed.inside
    there = transform.to_person(inside_atlas)
    seen = moving.seen_at(there)
    back = transform.to_atlas(there[seen])
    field = transform.to_person
    jacobian = ndimage.map_coordinates(field.jacobian(), field.index(inside_atlas), order=0, mode="nearest")
    # The atlas disc on the person's own voxels: what is compared is the person's segmentation, not a resampled one.
    points = voxel_points(moving.distance < 6, moving.geometry)
    points = points[moving.seen_at(points)]
    theirs = moving.distance_at(points) < 0
    atlas_distance = fixed.surface_at(np.nan_to_num(transform.to_atlas(points), nan=1e6))
    atlas_distance[~np.isfinite(atlas_distance)] = np.inf
    ours = atlas_distance < 0
    surface = np.abs(_surface_distance(transform, fixed, moving))
    row = {
        "level": disc_name(fixed.value),
        "dice": float(2 * (ours & theirs).sum() / max(ours.sum() + theirs.sum(), 1)),
        "surface_mean": float(surface.mean()) if surface.size else float("nan"),
        "surface_95": float(np.percentile(surface, 95)) if surface.size else float("nan"),
        "folding": float((jacobian <= 0).mean()),
        "jacobian_min": float(jacobian.min()),
        "jacobian_max": float(jacobian.max()),
        "inverse_error": float(np.nanmean(np.linalg.norm(back - inside_atlas[seen], axis=-1))),
        "seen": float(seen.mean()),
    }
    if landmarks is not None:
        mapped = transform.to_person(landmarks[0])
        row["landmark_error"] = float(np.nanmean(np.linalg.norm(mapped - landmarks[1], axis=-1)))
    row["flags"] = "; ".join([*flags_of(row), *moving.notes])
    return row


def flags_of(row: dict) -> list[str]:
    """Return what is beyond its threshold, in words."""
    flags = []
    for column, comparison, limit, words in THRESHOLDS:
        value = row.get(column, float("nan"))
        if (value < limit) if comparison == "<" else (value > limit):
            flags.append(f"{words} ({column} {value:.3g})")
    return flags


def failed_row(value: int, reason: str) -> dict:
    """Return the row of a level that was not registered."""
    return {"level": disc_name(value), "flags": f"not registered: {reason}"}


def _surface_distance(transform, fixed, moving) -> np.ndarray:
    """Return the signed distances of the mapped atlas surface from the person's, where the image shows it."""
    index = np.argwhere(np.abs(fixed.distance) < 1.1 * max(fixed.geometry.spacing))
    points = fixed.geometry.index_to_world(index[:, ::-1])
    for _ in range(4):
        gradient = _gradient(fixed, points)
        points = points - fixed.surface_at(points)[:, None] * gradient / np.maximum(
            (gradient**2).sum(-1, keepdims=True), 0.5)
    points = points[np.abs(fixed.surface_at(points)) < 0.1]
    mapped = transform.to_person(points)
    mapped = mapped[np.isfinite(mapped).all(-1)]
    mapped = mapped[moving.seen_at(mapped)]
    # The distance jumps by a voxel between the voxels on either side of the surface: its slope there is up to two.
    slope = np.linalg.norm(_gradient(moving, mapped), axis=-1)
    return moving.surface_at(mapped) / np.maximum(slope, 1.0)


def _gradient(shape: DiscShape, points: np.ndarray) -> np.ndarray:
    """Return the gradient of the signed distance at (n, 3) points by central differences."""
    steps = 0.5 * np.eye(3)  # mm
    return np.stack([shape.surface_at(points + s) - shape.surface_at(points - s) for s in steps], axis=-1)
