"""Registration of a person's discs to the atlas behind one interface, whatever finds the correspondence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import disc_name, disc_value
from DiscRelaxometryLib.parallel import ordered
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange
from DiscRelaxometryLib.tables import Table, read_tsv

from .atlas import Atlas
from .coordinates import match
from .quality import QUALITY_COLUMNS, assess, failed_row
from .shape import DiscShape, Seen, disc_shape
from .transforms import DisplacementField, LevelTransform, PointMap, read_transform, surrounding_grid, write_transform

BACKENDS = ("coordinates", "elastix", "brainsfit")
#: A backend takes the atlas's and the person's discs and returns, for each, the map of atlas points to the person's
#: and, if it knows it, the inverse; or the error that stopped it.
Backend = Callable[[list[tuple[DiscShape, DiscShape]], ProgressCallback], list]


@dataclass
class PersonRegistration:
    """Correspondence of one person's discs with the atlas.

    Attributes
    ----------
    person : str
    backend : str
    atlas : Atlas
    levels : dict of int to LevelTransform
        By label value; levels that failed are absent, and say why in `quality`.
    shapes : dict of int to DiscShape
        The person's discs (empty after reading from disk).
    quality : Table
        One row a requested level; see ``DiscAtlasLib.quality``.
    limits : dict of int to Seen
        Between which planes the person's image shows each disc; kept on disk.
    """

    person: str
    backend: str
    atlas: Atlas
    levels: dict[int, LevelTransform] = field(default_factory=dict)
    shapes: dict[int, DiscShape] = field(default_factory=dict)
    quality: Table = field(default_factory=lambda: Table("registration_quality", QUALITY_COLUMNS))
    limits: dict[int, Seen] = field(default_factory=dict)


def register_person(labels: Image, atlas: Atlas, levels: Sequence[str] | None = None,
                    backend: str | Backend = "coordinates", progressCallback: ProgressCallback | None = None,
                    person: str = "", landmarks: dict[str, tuple] | None = None,
                    workers: int | None = None) -> PersonRegistration:
    """Register the discs of one person to the atlas, by shape alone.

    Parameters
    ----------
    labels : Image
        The person's disc labels; any spacing and orientation. The canal's label helps with laterally cut discs.
    atlas : Atlas
    levels : sequence of str, optional
        Levels such as ``L4-L5``; all of the atlas by default.
    backend : {'coordinates', 'elastix', 'brainsfit'} or callable
        What finds the correspondence.
    progressCallback : callable, optional
        Called with (fraction, text); cancels by raising ``Cancelled``.
    person : str
        Named in messages and tables.
    landmarks : dict, optional
        Level name to a pair of (n, 3) LPS points, atlas and person, whose distance is reported.
    workers : int, optional
        Levels at a time (threads; processes with Elastix); by default one a core. The results do not depend on it.

    Returns
    -------
    PersonRegistration
        A level that fails has a row in the quality table that says why; the others go on.

    Raises
    ------
    RegistrationError
        If no level could be registered.
    """
    progress = progressCallback or silent
    values = [disc_value(n) for n in levels] if levels is not None else list(atlas.values)
    run = find_backend(backend, workers)
    result = PersonRegistration(person, backend if isinstance(backend, str) else getattr(run, "name", "custom"),
                                atlas)
    outcomes = list(ordered(lambda value: _shapes(atlas, labels, value, person), values, workers,
                            progress=subrange(progress, 0, 0.1), words=lambda v: f"{person} {disc_name(v)}: shape"))
    problems = {v: o.message for v, o in zip(values, outcomes) if isinstance(o, RegistrationError)}
    pairs = {v: o for v, o in zip(values, outcomes) if v not in problems}
    result.shapes = {v: moving for v, (_, moving) in pairs.items()}
    found = dict(zip(pairs, run(list(pairs.values()), subrange(progress, 0.1, 0.7)))) if pairs else {}
    for value, outcome in list(found.items()):
        if isinstance(outcome, Exception):
            problems[value] = f"{person + ', ' if person else ''}{outcome}"
            del found[value]

    def finish(value):
        transform = level_transform(*pairs[value], *found[value])
        return transform, assess(transform, *pairs[value], (landmarks or {}).get(disc_name(value)))

    finished = dict(zip(found, ordered(finish, list(found), workers, progress=subrange(progress, 0.7, 1.0),
                                       words=lambda v: f"{person} {disc_name(v)}: quality")))
    for value in values:
        if value in finished:
            result.limits[value] = result.shapes[value].limits
            result.levels[value], row = finished[value]
        else:
            row = failed_row(value, problems[value])
        result.quality.rows.append({"participant_id": person, "backend": result.backend, **row})
    if not result.levels:
        raise RegistrationError(" ".join(problems.values()) or f"{person}: no level was asked for.",
                                anchor="no-level-registered")
    progress(1.0, f"{person} registered".strip())
    return result


def register_people(people: Iterable[tuple[str, Image]], atlas: Atlas, levels: Sequence[str] | None = None,
                    backend: str | Backend = "coordinates", progressCallback: ProgressCallback | None = None,
                    ) -> tuple[dict[str, PersonRegistration], Table]:
    """Register many people; one who fails has rows in the table that say why, and the others go on.

    Returns
    -------
    registrations : dict of str to PersonRegistration
    quality : Table
        The rows of all people.
    """
    people = list(people)
    done, quality = {}, Table("registration_quality", QUALITY_COLUMNS)
    for step, (person, labels) in enumerate(people):
        part = subrange(progressCallback, step / len(people), (step + 1) / len(people))
        try:
            done[person] = register_person(labels, atlas, levels, backend, part, person)
            quality.rows += done[person].quality.rows
        except RegistrationError as error:
            name = backend if isinstance(backend, str) else getattr(backend, "name", "custom")
            for level in levels or atlas.levels:
                quality.rows.append({"participant_id": person, "backend": name,
                                     **failed_row(disc_value(level), str(error))})
    return done, quality


def _shapes(atlas: Atlas, labels: Image, value: int, person: str):
    """Return the atlas's and the person's disc, or what is wrong with them."""
    try:
        return atlas.shape(value), disc_shape(labels, value, person)
    except RegistrationError as error:
        return error


def find_backend(backend: str | Backend, workers: int | None = None) -> Backend:
    """Return a backend by name, which runs so many levels at a time (None: one a core).

    Raises
    ------
    RegistrationError
        If there is no such backend.
    """
    if callable(backend):
        return backend
    if backend == "coordinates":
        return partial(match_coordinates, workers=workers)
    if backend == "elastix":
        from .elastix import match_elastix
        return partial(match_elastix, workers=workers)
    if backend == "brainsfit":
        raise RegistrationError("BRAINSFit is a program of 3D Slicer: call DiscAtlasLogic there, or choose the backend "
                                "'coordinates' or 'elastix'.", anchor="brainsfit-outside-slicer")
    raise RegistrationError(f"There is no registration backend '{backend}': choose {', '.join(BACKENDS)}.")


def match_coordinates(pairs: list[tuple[DiscShape, DiscShape]], progress: ProgressCallback,
                      workers: int | None = 1) -> list:
    """Match each pair of discs by disc coordinates, `workers` at a time; a pair that fails has its error."""
    def one(pair):
        try:
            found = match(*pair)
            return found.forward, found.inverse
        except RegistrationError as error:
            return error

    return list(ordered(one, pairs, workers, progress=progress, words=lambda pair: f"{pair[1].name}: disc coordinates"))


def level_transform(fixed: DiscShape, moving: DiscShape, forward: PointMap,
                    inverse: PointMap | None = None) -> LevelTransform:
    """Sample a correspondence in both directions around the two discs; what is stored does not fold in the disc."""
    inside = fixed.geometry.index_to_world(np.argwhere(fixed.distance < 0)[:, ::-1])
    there = forward(inside)
    sampled = DisplacementField.sampled(forward, surrounding_grid(inside))
    to_person, grid = sampled.unfolded(inside), surrounding_grid(there)
    if inverse is not None and to_person is sampled:
        return LevelTransform(fixed.value, to_person, DisplacementField.sampled(inverse, grid))
    if inverse is None:
        affine = np.linalg.lstsq(np.column_stack([there, np.ones(len(there))]), inside, rcond=None)[0]

        def inverse(points):
            return points @ affine[:3] + affine[3]

    return LevelTransform(fixed.value, to_person, to_person.inverse(grid, inverse))


def save_registration(registration: PersonRegistration, folder: str | os.PathLike, suffix: str = ".h5") -> Path:
    """Write transforms (``<level>_to_person.h5``, ``<level>_to_atlas.h5``) and the quality table into a folder."""
    folder = Path(folder)
    for value, transform in registration.levels.items():
        key = disc_name(value).replace("-", "")
        write_transform(transform.to_person, folder / f"{key}_to_person{suffix}")
        write_transform(transform.to_atlas, folder / f"{key}_to_atlas{suffix}")
    registration.quality.write(folder / "quality.tsv")
    write_json(folder / "registration.json", {
        "person": registration.person, "backend": registration.backend, "suffix": suffix,
        "levels": [disc_name(v) for v in registration.levels],
        "seen": {disc_name(v): limits.to_dict() for v, limits in registration.limits.items()},
        "direction": "to_person maps atlas points to the person's (LPS mm): it resamples the person's images onto "
                     "the atlas; to_atlas is its inverse"})
    return folder


def load_registration(folder: str | os.PathLike, atlas: Atlas) -> PersonRegistration:
    """Read what :func:`save_registration` wrote.

    Raises
    ------
    RegistrationError
        If the folder holds no registration, or a transform is missing.
    """
    folder = Path(folder)
    if not (folder / "registration.json").exists():
        raise RegistrationError(f"'{folder}' holds no registration: run DiscAtlas on this person first.")
    about = json.loads((folder / "registration.json").read_text(encoding="utf-8"))
    numeric = [c.name for c in QUALITY_COLUMNS if c.name not in ("participant_id", "backend", "level", "flags")]
    rows = read_tsv(folder / "quality.tsv", numeric=numeric).rows
    result = PersonRegistration(about["person"], about["backend"], atlas,
                                quality=Table("registration_quality", QUALITY_COLUMNS, rows))
    result.limits = {disc_value(n): Seen.from_dict(v) for n, v in about.get("seen", {}).items()}
    for name in about["levels"]:
        value, key, suffix = disc_value(name), name.replace("-", ""), about["suffix"]
        result.levels[value] = LevelTransform(value, read_transform(folder / f"{key}_to_person{suffix}"),
                                              read_transform(folder / f"{key}_to_atlas{suffix}"))
    return result
