"""People's maps as an analysis reads them: the voxels of the discs, on disk, so that no step holds everyone's maps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DiscRelaxometryLib.image import read_image, require_same_geometry
from DiscRelaxometryLib.labels import disc_value

from .context import GroupContext
from .results import context_atlas
from .rows import filled_rows

if TYPE_CHECKING:
    from DiscStatsLib.analysis import Values


def map_values(context: GroupContext, key: str, files: dict[str, Path], people: Sequence[str],
               levels: Iterable[str]) -> Values:
    """Return people's maps of a quantity at some levels of the atlas, one row per person."""
    labels = context_atlas(context).labels
    inside = labels.array > 0

    def read(person: str) -> tuple[np.ndarray, list[str]]:
        image = read_image(files[person])
        require_same_geometry(labels, image, f"The atlas and the '{key}' map of '{person}'")
        return image.array[inside], image.notes

    basis = hashlib.sha256(inside.tobytes() + repr(labels.geometry).encode()).hexdigest()
    values = of_people(context, key, basis, inside, {p: source(context, p, files[p]) for p in people}, read)
    return values.of(columns=np.isin(labels.array[inside], [disc_value(v) for v in levels]))


def source(context: GroupContext, person: str, file: Path) -> str:
    """Return the hash of a person's map in atlas space, as the step that wrote it has recorded it."""
    return context.everyone[person]["atlas"].outputs[context.study.relative(file)]["sha256"]


def with_value(values: Iterable[Values], rows: int) -> np.ndarray:
    """Return which rows have a value in each of several maps, bool."""
    return np.array([all(np.isfinite(v.at([row], slice(None))).any() for v in values) for row in range(rows)], bool)


def of_people(context: GroupContext, name: str, basis: str, inside: np.ndarray, sources: dict[str, str],
              read: Callable[[str], tuple[np.ndarray, list[str]]], maps: int = 1) -> Values:
    """Return rows of the voxels inside, as many per person as `maps`; see :func:`DiscStudyLib.engine.filled_rows`.

    `read` gives the voxels of a person's maps, one after the other. Voxels lie on disk from right to left:
    who has them changes in that direction, and those that the same people have are worked on together.
    """
    from DiscStatsLib.analysis import Values

    order = np.argsort(np.argwhere(inside)[:, 2], kind="stable")

    def sorted_voxels(person: str) -> tuple[np.ndarray, list[str]]:
        found, notes = read(person)
        return found.reshape(-1, len(order))[:, order].ravel(), notes

    array, rows = filled_rows(context.folder / "voxels" / f"{name}.npy", basis, maps * len(order), sources,
                              sorted_voxels, context.settings.threads)
    array = array.reshape(-1, len(order))
    first = np.array([rows[p].number for p in sources], int) * maps
    return Values(array, (first[:, None] + np.arange(maps)).ravel(), np.argsort(order),
                  tuple(note for p in sources for note in rows[p].notes))
