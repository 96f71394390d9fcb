"""The input of an analysis, checked: maps as arrays over the atlas's voxels, one row per observation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image, require_same_geometry
from DiscRelaxometryLib.labels import whole_labels

from ..design import ID, require_moderate
from ..permutation import level_name

#: Numbers of a map that are worked on at a time (64 MB).
NUMBERS = 2 ** 23


@dataclass(frozen=True)
class Values:
    """Maps over voxels: some rows and columns of an array that stays where it is, perhaps on disk; NaN is missing."""

    #: Shape (people, voxels), float.
    array: np.ndarray
    #: Shapes (n,) and (v,).
    rows: np.ndarray
    columns: np.ndarray
    #: What the readers of the maps noted.
    notes: tuple[str, ...] = ()
    #: UCUM unit of changes between visits; empty for values of the quantity itself.
    change_unit: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Observations and voxels."""
        return len(self.rows), len(self.columns)

    def at(self, rows, columns) -> np.ndarray:
        """Return the values of some observations and voxels, float64."""
        rows, columns = self.rows[rows], self.columns[columns]
        found, array = np.empty((len(rows), len(columns))), np.asarray(self.array)
        for number, row in enumerate(rows):  # ten times as fast as a list of both
            found[number] = array[row].take(columns)
        return found

    def of(self, rows=slice(None), columns=slice(None)) -> Values:
        """Return some observations and voxels without reading them."""
        return replace(self, rows=self.rows[rows], columns=self.columns[columns])

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield all observations of a few voxels at a time, (voxels, float64 values)."""
        for block in voxel_blocks(*self.shape):
            yield block, self.at(slice(None), block)

    def __getstate__(self) -> dict:
        """A file is opened again by who gets these values, not sent along."""
        state, array = dict(vars(self)), self.array
        file = array.filename if isinstance(array, np.memmap) and array.flags.c_contiguous else None
        if file and str(file).endswith(".npy") and np.load(file, mmap_mode="r").size == array.size:
            state["array"] = file, array.shape
        return state

    def __setstate__(self, state: dict) -> None:
        if isinstance(state["array"], tuple):
            file, shape = state["array"]
            state["array"] = np.load(file, mmap_mode="r").reshape(shape)
        vars(self).update(state)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.at(slice(None), slice(None)), dtype)


def voxel_blocks(n: int, voxels: int) -> Iterator[slice]:
    """Yield slices of voxels, so many at a time as memory takes of n observations."""
    size = max(NUMBERS // max(n, 1), 1)
    for start in range(0, voxels, size):
        yield slice(start, min(start + size, voxels))


@dataclass
class AnalysisData:
    """Maps over the voxels of the mask."""

    geometry: Geometry
    #: bool, shape (k, j, i). Voxels analyzed, in array order.
    inside: np.ndarray
    #: Shape (v,). Label value of each voxel.
    levels: np.ndarray
    #: Shape (v,).
    regions: np.ndarray | None
    #: Shape (n, v). Maps by quantity.
    values: dict[str, Values]
    #: Shape (n, v). Voxel-wise covariates.
    covariates: dict[str, Values]
    #: Person of each observation.
    ids: list[str]
    warnings: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of observations."""
        return len(self.ids)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return len(self.levels)

    @property
    def level_values(self) -> list[int]:
        """Label values present, ascending."""
        return [int(v) for v in np.unique(self.levels)]

    def of_rows(self, rows: np.ndarray) -> AnalysisData:
        """Return some of the observations."""
        return replace(self, ids=[self.ids[r] for r in rows], values={k: v.of(rows) for k, v in self.values.items()},
                       covariates={k: v.of(rows) for k, v in self.covariates.items()})

    def at_levels(self, values) -> AnalysisData:
        """Return the data of some levels alone."""
        kept = np.isin(self.levels, list(values))
        inside = self.inside.copy()
        inside[inside] = kept
        return replace(self, inside=inside, levels=self.levels[kept],
                       regions=None if self.regions is None else self.regions[kept],
                       values={k: v.of(columns=kept) for k, v in self.values.items()},
                       covariates={k: v.of(columns=kept) for k, v in self.covariates.items()})

    def voxels_of(self, level: int) -> np.ndarray:
        """Return the voxels of a level from right to left: who has a value changes most in that direction."""
        at = np.flatnonzero(self.levels == level)
        return at[np.argsort(self.ijk[at, 0], kind="stable")]

    def measured(self, level: int) -> np.ndarray:
        """Return the observations that have a value of some map at a level."""
        return np.flatnonzero(self._measured[:, self.level_values.index(level)])

    @cached_property
    def _measured(self) -> np.ndarray:
        at = np.array([self.levels == level for level in self.level_values]).T
        found = np.zeros((self.n, at.shape[1]), bool)
        for values in self.values.values():
            for block, some in values.blocks():
                found |= np.isfinite(some) @ at[block]
        return found

    @cached_property
    def ijk(self) -> np.ndarray:
        """Index (i, j, k) of each voxel, shape (v, 3)."""
        return np.argwhere(self.inside)[:, ::-1]

    def to_image(self, values: np.ndarray, **meta) -> Image:
        """Return per-voxel values as an image: NaN (0 for integers) outside the mask; floats become float32."""
        values = np.asarray(values)
        if values.dtype.kind == "f":
            array = np.full(self.inside.shape, np.nan, np.float32)
        else:
            array = np.zeros(self.inside.shape, values.dtype)
        array[self.inside] = values
        return Image(array, self.geometry, meta)


def gather(maps, atlas_labels: Image, participants, *, levels=None, regions: Image | None = None,
           voxel_covariates: dict | None = None, response: str = "") -> AnalysisData:
    """Return the checked input of an analysis; see :func:`DiscStatsLib.analysis.analyze.analyze` for the parameters.

    Raises
    ------
    DesignError
        Empty mask, persons without a map and the reverse, an all-NaN person, infinite values.
    GeometryError
        Maps of another grid than the atlas.
    """
    atlas_labels = whole_labels(atlas_labels)
    inside = _mask(atlas_labels, levels)
    label = atlas_labels.array[inside]
    if regions is not None:
        require_same_geometry(atlas_labels, regions, "Atlas labels and atlas regions")
        regions = whole_labels(regions)
    ids = [str(i) for i in participants[ID]]
    data = AnalysisData(atlas_labels.geometry, inside, label, None if regions is None else regions.array[inside],
                        {}, {}, ids)
    for name, value in _by_quantity(maps, response or "map").items():
        data.values[name] = _stack(value, name, ids, atlas_labels, inside)
    for name, value in (voxel_covariates or {}).items():
        data.covariates[name] = _stack(value, name, ids, atlas_labels, inside)
    data.warnings += _image_notes([("atlas", atlas_labels), ("atlas", regions), *(
        (name, image) for name, value in {**_by_quantity(maps, response or "map"), **(voxel_covariates or {})}.items()
        for image in (value.values() if isinstance(value, dict) else [value] if isinstance(value, Values) else value))])
    empty = np.logical_and.reduce([_check_values(v, name, ids) for name, v in data.values.items()])
    for name, value in data.covariates.items():
        _check_values(value, name, ids)
    if empty.any():
        data.warnings.append(f"{int(empty.sum())} of {len(empty)} voxels have no value in any map and stay empty.")
    return data


def _image_notes(images) -> list[str]:
    """Return what was noted when images (name, Image or array) were read; a note of several stands once."""
    notes = Counter((name, note) for name, image in images if isinstance(image, (Image, Values))
                    for note in image.notes)
    return [f"{name} ({count} image{'s' * (count > 1)}): {note}" for (name, note), count in notes.items()]


def _mask(atlas_labels: Image, levels) -> np.ndarray:
    array = atlas_labels.array
    levels = [levels] if isinstance(levels, (str, int)) else levels
    if levels is None:
        inside = array > 0
        if not inside.any():
            raise DesignError("The mask is empty: the atlas label image has no voxel above 0.", anchor="empty-mask")
        return inside
    from DiscRelaxometryLib.labels import BY_NAME

    unknown = [v for v in levels if isinstance(v, str) and v not in BY_NAME]
    if unknown:
        raise DesignError(f"'{unknown[0]}' is no disc level: use names such as 'L4-L5'.")
    wanted = [BY_NAME[v].value if isinstance(v, str) else int(v) for v in levels]
    absent = [level_name(v) for v in wanted if not (array == v).any()]
    if absent or not wanted:
        there = ", ".join(level_name(v) for v in np.unique(array[array > 0]))
        raise DesignError(f"The mask is empty at {', '.join(absent) or 'the chosen levels (none)'}: the atlas has "
                          f"{there or 'no label'}.", anchor="empty-mask")
    return np.isin(array, wanted)


def _by_quantity(maps, response: str) -> dict:
    """Return {quantity: maps}; a dict of single images is one quantity, by person."""
    if not isinstance(maps, dict):
        return {response: maps}
    if not maps:
        raise DesignError("No map was given.")
    if all(isinstance(v, Image) or v is None for v in maps.values()):
        return {response: maps}
    # The response picks one quantity where it is the name of one; any other word stands for all.
    return {response: maps[response]} if response in maps else dict(maps)


def _stack(value, name: str, ids: list[str], atlas: Image, inside: np.ndarray) -> Values:
    """Return values from images in table order, images by person, or an array, which is not copied."""
    if isinstance(value, dict):
        surplus = [k for k in value if str(k) not in ids]
        if surplus:
            raise DesignError(f"There is a '{name}' map of '{surplus[0]}', who is not in the participants table "
                              f"({len(surplus)} such map(s)): add the person, or leave the map out.",
                              anchor="participants-table")
        if len(set(ids)) < len(ids):
            raise DesignError(f"The '{name}' maps are given by person, but the table has several rows per person: give "
                              "them as a list in the order of the rows.")
        named = {str(k): v for k, v in value.items()}
        value = [named.get(i) for i in ids]
    if isinstance(value, (np.ndarray, Values)):
        return _from_array(value, name, ids, inside)
    if not isinstance(value, (list, tuple)):
        raise DesignError(f"The '{name}' maps are a {type(value).__name__}: give a list of images, images by person, "
                          "or an array.")
    if len(value) != len(ids):
        raise DesignError(f"{len(value)} '{name}' maps for {len(ids)} rows of the participants table: give one map "
                          "per row, in the same order.", anchor="participants-table")
    stacked = np.empty((len(ids), int(inside.sum())))
    for row, image in enumerate(value):
        if image is None:
            raise DesignError(f"'{ids[row]}' is in the participants table but has no '{name}' map: add the map, or "
                              "take the row out.", anchor="participants-table")
        if not isinstance(image, Image):
            raise DesignError(f"The '{name}' map of '{ids[row]}' is a {type(image).__name__}, not an Image: read it "
                              "with read_image first.")
        require_same_geometry(atlas, image, f"The atlas and the '{name}' map of '{ids[row]}'")
        stacked[row] = image.array[inside]
    return _whole(stacked)


def _whole(array: np.ndarray) -> Values:
    return Values(array, np.arange(len(array)), np.arange(array.shape[1]))


def _from_array(value, name: str, ids: list[str], inside: np.ndarray) -> Values:
    if not isinstance(value, Values):
        if value.dtype.kind not in "fiub":
            raise DesignError(f"The '{name}' array holds {value.dtype}: real numbers are needed.")
        if value.ndim == 4 and value.shape[1:] == inside.shape:
            value = value[:, inside]
    if len(value.shape) != 2 or value.shape[1] != inside.sum():
        raise DesignError(f"The '{name}' array has shape {value.shape}; (people, {int(inside.sum())} voxels of the "
                          f"mask) or (people, {', '.join(map(str, inside.shape))}) is needed.")
    if value.shape[0] != len(ids):
        raise DesignError(f"{value.shape[0]} '{name}' maps for {len(ids)} rows of the participants table: give one map "
                          "per row, in the same order.", anchor="participants-table")
    return value if isinstance(value, Values) else _whole(value)


def _check_values(values: Values, name: str, ids: list[str]) -> np.ndarray:
    """Return which voxels nobody has."""
    infinite, empty = np.zeros(len(ids), bool), np.ones(len(ids), bool)
    nobody, largest = np.zeros(values.shape[1], bool), np.zeros(len(ids))
    for block, some in values.blocks():
        missing = np.isnan(some)
        largest = np.fmax(largest, np.fmax.reduce(np.abs(some), axis=1))
        infinite |= np.isinf(some).any(axis=1)
        empty &= missing.all(axis=1)
        nobody[block] = missing.all(axis=0)
    if infinite.any():
        raise DesignError(f"The '{name}' map of '{ids[int(np.argmax(infinite))]}' holds infinite values: mark failed "
                          "voxels as NaN.")
    for who, size in zip(ids, largest[:, None]):
        require_moderate(size, f"The '{name}' map of '{who}'")
    if empty.any():
        raise DesignError(f"The '{name}' map of '{ids[int(np.argmax(empty))]}' has no value inside the mask: was it "
                          "brought to atlas space?", anchor="empty-map")
    return nobody
