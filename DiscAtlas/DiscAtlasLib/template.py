"""Unbiased group-wise template: average the people's discs in shape, level by level, until the mean map is identity."""

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.interpolation import linear_scalar_at
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_name, disc_value
from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange

from .atlas import Atlas, make_atlas
from .coordinates import Target
from .parametric import LITERATURE, disc_level
from .shape import DiscShape, disc_shape, signed_distance, without_staircase
from .transforms import DisplacementField, grid_points

#: Half size (mm, LR AP CC) of the grid on which one level's template is built, centered on the disc.
_EXTENT = np.array([38.0, 34.0, 24.0])
#: Iterations stop when the template's surface moves by less than this (mm, mean).
CONVERGED = 0.1
#: The mean map is found this near (mm) to the disc; beyond it is affine.
NEAR = 6.0
#: Width (mm) over which a person's disc fades out of the mean toward an edge where it is cut.
FADE = 4.0
#: What nobody sees follows the template's surface, taken this thick (mm, each side).
RIM = 1.0


@dataclass
class _Level:
    """One level under construction, in frame coordinates written as LPS (x left, -y anterior, z cranial)."""

    value: int
    distance: np.ndarray
    geometry: Geometry
    moves: list[float]

    def shape(self) -> DiscShape:
        labels = Image(np.where(self.distance < 0, self.value, 0).astype(np.uint8), self.geometry)
        shape = disc_shape(labels, self.value, "template")
        # The surface between the voxels is known here: taken from voxels anew it would move by a part of one each time.
        return replace(shape, surface=linear_scalar_at(self.distance, self.geometry, grid_points(shape.geometry)))


def build_template(people: Iterable[tuple[str, Image]], levels: Sequence[str] = LUMBAR_LEVELS, iterations: int = 8,
                   symmetric: bool = False, spacing: float = 1.0, provenance: dict | None = None,
                   progressCallback: ProgressCallback | None = None, workers: int = 1) -> Atlas:
    """Return the mean discs of many people as an atlas.

    Each iteration registers the template to everybody by disc coordinates, averages where its points go in the people's
    disc frames (pose is not shape), and moves the template there. Discs that the images cut laterally count where they
    are seen; where nobody's is, the literature's width over depth stays.

    Parameters
    ----------
    people : iterable of (str, Image)
        Identifier and disc labels.
    levels : sequence of str
    iterations : int
        At most; fewer when the template moves by less than 0.1 mm.
    symmetric : bool
        Make each disc its own mirror image, which a laterality that nobody verified needs.
    spacing : float
        Grid step of the atlas, mm.
    provenance : dict, optional
        Source and license of the people's data, added to the atlas's provenance.
    workers : int
        Threads, each of which matches a person; the result does not depend on it.

    Raises
    ------
    RegistrationError
        If fewer than two people have a level.
    """
    progress = progressCallback or silent
    with TemporaryDirectory(prefix="disc-template-") as folder:
        shapes, problems = collect_shapes(people, levels, Path(folder))
        for value, ready in shapes.items():
            if len(ready) < 2:
                raise RegistrationError(f"{disc_name(value)}: only {len(ready)} people have a usable disc, a template "
                                        f"needs two. {' '.join(problems)}", anchor="template-people")
        built = {}
        for step, (value, ready) in enumerate(shapes.items()):
            part = subrange(progress, step / len(shapes), (step + 1) / len(shapes))
            built[value] = build_level(value, ready, iterations, symmetric, workers, progress=part)
        labels = _compose(built, shapes, spacing)
    return make_atlas(labels, {
        "name": "Group template", **(provenance or {}), "software": f"DiscAtlas {__version__}",
        "people": {disc_name(v): ready.people for v, ready in shapes.items()}, "problems": problems,
        "convergence_mm": {disc_name(v): [round(m, 3) for m in level.moves] for v, level in built.items()},
        "symmetric": symmetric, "method": "disc coordinates, mean of maps in disc frames; Docs/method/atlas.md"})


class _Stored(Sequence):
    """People's shapes of one level, which lie in files and are read one at a time."""

    def __init__(self, folder: Path):
        self.folder, self.people = folder, []
        folder.mkdir()

    def add(self, person: str, shape: DiscShape) -> None:
        (self.folder / str(len(self.people))).write_bytes(pickle.dumps(shape))
        self.people.append(person)

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, number):
        if not 0 <= number < len(self):
            raise IndexError(number)
        return pickle.loads((self.folder / str(number)).read_bytes())


def collect_shapes(people, levels, folder: Path) -> tuple[dict[int, _Stored], list[str]]:
    """Return the usable shapes of each level, kept in a folder, and the sentences of those that are not."""
    shapes = {value: _Stored(folder / str(value)) for value in map(disc_value, levels)}
    problems = []
    for person, labels in people:
        for value, found in shapes.items():
            try:
                found.add(person, disc_shape(labels, value, person))
            except RegistrationError as error:
                problems.append(error.message)
    return shapes, problems


def build_level(value: int, shapes: Sequence[DiscShape], iterations: int, symmetric: bool = False, workers: int = 1, *,
                progress: ProgressCallback = silent) -> _Level:
    """Return the mean disc of one level; `workers` are threads."""
    level = _start(value, shapes)
    points = grid_points(level.geometry)
    for iteration in range(iterations):
        part = subrange(progress, iteration / iterations, (iteration + 1) / iterations)
        fixed = level.shape()
        mean, distance = _means(fixed, shapes, points, workers, part, f"{disc_name(value)}: iteration {iteration + 1}")
        if symmetric:
            mean = (mean + mean[:, :, ::-1] * [-1, 1, 1]) / 2
            distance = (distance + distance[..., ::-1]) / 2
        back = DisplacementField(mean.astype(np.float32), level.geometry).inverse(guess=lambda p: p)
        distance = linear_scalar_at(distance, level.geometry, points + back.vectors)
        if symmetric:
            distance = (distance + distance[..., ::-1]) / 2
        level.moves.append(_movement(level.distance, distance))
        level.distance = distance
        if level.moves[-1] < CONVERGED:
            break
    return level


def _movement(before: np.ndarray, after: np.ndarray) -> float:
    """Return how far (mm, mean) the surface moves along its normal: a shape has no other movement."""
    surface = np.abs(before) < 0.75
    return float(np.mean(np.abs(after[surface] - before[surface])
                         / np.maximum(np.linalg.norm(np.gradient(before), axis=0)[surface], 0.5)))


def _means(fixed: DiscShape, shapes, points, workers, progress, words) -> tuple[np.ndarray, np.ndarray]:
    """Return two means over people at the template's points.

    Of where the points lie in the people's disc frames, less the points; and of their distance from the people's
    surfaces. The second takes away what nobody has, and the first, inverted, moves what is left to the mean. Each
    person's map is an affine one and the rest: the affine one goes on where the image shows nothing, so that sides that
    only some people show are not those of larger or smaller people.
    """
    distance, target = fixed.surface_at(points), Target(fixed)
    near = distance < NEAR
    nearby, inside, rim = points[near], distance[near] < 0, np.abs(distance[near]) < RIM
    terms = _affine_terms(nearby)
    bend, gap, weight = np.zeros(nearby.shape), np.zeros(len(nearby)), np.zeros(len(nearby))

    def work(number: int) -> tuple | None:
        person = shapes[number]
        try:
            matched = target.match(person).forward(nearby)
        except RegistrationError:
            return None
        seen = _seen_share(person, matched)
        moved = person.to_frame(matched) * [1, -1, 1] - nearby
        # A common shift is pose, not shape.
        moved -= np.average(moved[inside], axis=0, weights=seen[inside])
        weighted = terms[rim] * seen[rim][:, None]
        own = np.linalg.solve(weighted.T @ terms[rim], weighted.T @ moved[rim])
        return own, seen[:, None] * (moved - terms @ own), seen * person.surface_at(matched), seen, all(person.cut)

    affines, cut = [], []
    for found in filter(None, ordered(work, range(len(shapes)), workers, progress=progress,
                                      words=lambda number: f"{words}, person {number + 1}")):
        affines.append(found[0])
        cut.append(found[4])
        bend += found[1]
        gap += found[2]
        weight += found[3]
    if len(affines) < 2:
        raise RegistrationError(f"{disc_name(fixed.value)}: fewer than two discs could be matched to the template.")
    share = np.clip(2 * weight / len(affines), 0, 1)
    weight = np.maximum(weight, 1e-6)
    affine = np.mean(affines, axis=0)
    mean = _affine_terms(points.reshape(-1, 3)) @ affine
    mean[near.ravel()] += (share / weight)[:, None] * bend
    mean = mean.reshape(points.shape)
    if all(cut):
        # Nobody shows how wide the disc is: its width over depth stays as it is.
        mean[..., 0] = affine[1, 1] * points[..., 0]
    averaged = distance.copy()
    averaged[near] = share * gap / weight + (1 - share) * distance[near]
    return mean, averaged


def _affine_terms(points: np.ndarray) -> np.ndarray:
    """Return the terms (n, 3) of a map that is affine in AP and CC; LR is not known where a disc is cut."""
    return np.column_stack([np.ones(len(points)), points[:, 1:]])


def _seen_share(shape: DiscShape, lps: np.ndarray) -> np.ndarray:
    """Return how far (n, 3) points count: 1 where the image shows the disc, fading to 0 at a cut edge."""
    x = shape.to_frame(lps)[:, 0]
    right = np.clip((x - shape.seen[0]) / FADE, 0, 1) if shape.cut[0] else 1.0
    left = np.clip((shape.seen[1] - x) / FADE, 0, 1) if shape.cut[1] else 1.0
    return np.ones(len(x)) * right * left


def _start(value: int, shapes: Sequence[DiscShape]) -> _Level:
    """Return the literature's disc, scaled to the people's mean mid-sagittal depth and height."""
    geometry = Geometry((2 * _EXTENT + 1).astype(int), (1.0,) * 3, -_EXTENT)
    name = disc_name(value)
    size = LITERATURE.get(name, LITERATURE["L1-L2"])
    depth, height = np.mean([(s.chord[0], s.half[2]) for s in shapes], axis=0) * 2 / (size.depth, size.middle)
    xyz = grid_points(geometry) * [1, -1, 1] / [depth, depth, height]
    distance = without_staircase(signed_distance(disc_level(xyz, size) < 0, geometry), geometry)
    return _Level(value, distance, geometry, [])


def _compose(built: dict[int, _Level], shapes, spacing: float) -> Image:
    """Place all levels at the people's mean relative poses on one grid."""
    poses = _mean_poses(shapes)
    corners = []
    for value, level in built.items():
        inside = grid_points(level.geometry)[level.distance < 0] * [1, -1, 1]
        center, axes = poses[value]
        corners.append(inside @ axes + center)
    low = np.floor(np.min([c.min(0) for c in corners], axis=0)) - 4
    high = np.ceil(np.max([c.max(0) for c in corners], axis=0)) + 4
    geometry = Geometry(np.ceil((high - low) / spacing).astype(int) + 1, (spacing,) * 3, low)
    points = grid_points(geometry)
    best, labels = np.zeros(geometry.shape), np.zeros(geometry.shape, np.uint8)
    for value, level in built.items():
        center, axes = poses[value]
        distance = level.shape().surface_at(((points - center) @ axes.T) * [1, -1, 1])
        take = distance < best
        best[take], labels[take] = distance[take], value
    return Image(labels, geometry, {"content": "atlas discs"})


def _mean_poses(shapes) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the mean center and axes of each level relative to the middle of the people's discs."""
    by_person: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for value, found in shapes.items():
        for person, shape in zip(found.people, found):
            by_person.setdefault(person, {})[value] = shape.center, shape.axes
    complete = [p for p in by_person.values() if len(p) == len(shapes)]
    if not complete:
        raise RegistrationError("Nobody has all levels that the template should hold: leave a level out.",
                                anchor="template-people")
    poses = {}
    for value in shapes:
        centers = [p[value][0] - np.mean([center for center, _ in p.values()], axis=0) for p in complete]
        u, _, vt = np.linalg.svd(np.mean([p[value][1] for p in complete], axis=0))
        poses[value] = (np.mean(centers, axis=0), u @ vt)
    return poses
