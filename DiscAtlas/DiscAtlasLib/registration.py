"""Registration of a person's discs to the atlas behind one interface, whatever finds the correspondence."""

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
from .coordinates import Target
from .quality import QUALITY_COLUMNS, assess, failed_row
from .shape import DiscShape, Seen, disc_shape
from .transforms import DisplacementField, LevelTransform, Match, read_transform, surrounding_grid, write_transform

BACKENDS = ("coordinates", "elastix", "brainsfit")


@dataclass(frozen=True)
class Backend:
    """What finds the correspondence of two discs."""

    name: str
    #: Called with a ``coordinates.Target`` (the atlas's disc) and a DiscShape (the person's); returns a
    #: ``transforms.Match`` or raises RegistrationError.
    match: Callable[[Target, DiscShape], Match]
    #: Whether levels side by side need processes; otherwise they run in threads.
    processes: bool = False


@dataclass
class PersonRegistration:
    """Correspondence of one person's discs with the atlas."""

    person: str
    backend: str
    atlas: Atlas
    #: By label value; levels that failed are absent, and say why in `quality`.
    levels: dict[int, LevelTransform] = field(default_factory=dict)
    #: The person's discs (empty after reading from disk).
    shapes: dict[int, DiscShape] = field(default_factory=dict)
    #: One row per requested level; see ``DiscAtlasLib.quality``.
    quality: Table = field(default_factory=lambda: Table("registration_quality", QUALITY_COLUMNS))
    #: Between which planes the person's image shows each disc; kept on disk.
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
    backend : {'coordinates', 'elastix', 'brainsfit'} or Backend
        What finds the correspondence.
    progressCallback : callable, optional
        Called with (fraction, text); cancels by raising ``Cancelled``.
    person : str
        Named in messages and tables.
    landmarks : dict, optional
        Level name to a pair of (n, 3) LPS points, atlas and person, whose distance is reported.
    workers : int, optional
        Levels at a time (threads; processes with Elastix); by default one per core. The results do not depend on it.

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
    run = find_backend(backend)
    values = [disc_value(n) for n in levels] if levels is not None else list(atlas.values)
    work = partial(_register_level, atlas=atlas, labels=labels, backend=run, person=person, landmarks=landmarks or {})
    outcomes = ordered(work, values, workers, run.processes, progress,
                       lambda value: f"{person} {disc_name(value)}: registered".strip())
    result = PersonRegistration(person, run.name, atlas)
    problems = []
    for value, outcome in zip(values, outcomes):
        if isinstance(outcome, RegistrationError):
            problems.append(outcome.message)
            row = failed_row(value, outcome.message)
        else:
            result.shapes[value], result.levels[value], row = outcome
            result.limits[value] = result.shapes[value].limits
        result.quality.rows.append({"participant_id": person, "backend": run.name, **row})
    if not result.levels:
        raise RegistrationError(" ".join(problems) or f"{person or 'Registration'}: no level was asked for.",
                                anchor="no-level-registered")
    progress(1.0, f"{person} registered".strip())
    return result


def _register_level(value: int, atlas: Atlas, labels: Image, backend: Backend, person: str, landmarks: dict):
    """Return a person's disc, its transform and its row of the quality table, or the error that says why not."""
    try:
        fixed, moving = atlas.target(value), disc_shape(labels, value, person)
        found = backend.match(fixed, moving)
        transform = level_transform(fixed.shape, moving, found)
        return moving, transform, assess(transform, fixed.shape, moving, landmarks.get(disc_name(value)))
    except RegistrationError as error:
        return error


def register_discs(fixed: Image, moving: Image, levels: Sequence[str] | None = None,
                   backend: str | Backend = "coordinates", progressCallback: ProgressCallback | None = None,
                   workers: int | None = None) -> PersonRegistration:
    """Register the discs of one label image to those of another, by shape alone.

    Parameters
    ----------
    fixed, moving : Image
        Label images with the values of ``DiscRelaxometryLib.labels``, on any grids.
    levels, backend, progressCallback, workers
        As for :func:`register_person`; by default all levels of `fixed`.

    Returns
    -------
    PersonRegistration
        With `fixed` as its atlas: ``warp_to_atlas`` brings an image of `moving`'s space onto `fixed`'s grid, and
        ``warp_from_atlas`` the other way; `quality` tells how well each level matched.

    Raises
    ------
    RegistrationError
        If an image holds no disc label, or no level could be registered.
    """
    for name, image in (("fixed", fixed), ("moving", moving)):
        if not Atlas.of(image).values:
            raise RegistrationError(f"The {name} image has no disc label (11 is L5-S1, 12 is L4-L5 and so on upward): "
                                    "give a label image in the project's values.", anchor="missing-level")
    return register_person(moving, Atlas.of(fixed), levels, backend, progressCallback, workers=workers)


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
            name = find_backend(backend).name
            for level in levels or atlas.levels:
                quality.rows.append({"participant_id": person, "backend": name,
                                     **failed_row(disc_value(level), str(error))})
    return done, quality


def find_backend(backend: str | Backend) -> Backend:
    """Return a backend by name; RegistrationError if there is no such backend."""
    if isinstance(backend, Backend):
        return backend
    if backend == "coordinates":
        return Backend("coordinates", _match_coordinates)
    if backend == "elastix":
        from .elastix import match_elastix
        return Backend("elastix", match_elastix, processes=True)
    if backend == "brainsfit":
        return brainsfit_backend()
    raise RegistrationError(f"There is no registration backend '{backend}': choose {', '.join(BACKENDS)}.")


def brainsfit_backend(folder: str | None = None) -> Backend:
    """Return the backend BRAINSFit, whose program is in `folder` or on the PATH; raise where it is not."""
    from .brainsfit import brainsfit_program, match_brainsfit
    return Backend("brainsfit", partial(match_brainsfit, program=brainsfit_program(folder)))


def _match_coordinates(fixed: Target, moving: DiscShape) -> Match:
    found = fixed.match(moving)
    return Match(found.forward, found.inverse)


def level_transform(fixed: DiscShape, moving: DiscShape, found: Match) -> LevelTransform:
    """Sample a correspondence in both directions around the two discs; what is stored does not fold in the disc."""
    inside = fixed.inside
    there = found.forward(inside)
    sampled = DisplacementField.sampled(found.forward, surrounding_grid(inside))
    to_person, grid = sampled.unfolded(inside), surrounding_grid(there)
    if found.inverse is not None and to_person is sampled:
        return LevelTransform(fixed.value, to_person, DisplacementField.sampled(found.inverse, grid))
    inverse = found.inverse
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
