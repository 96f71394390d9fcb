"""Frames into volumes: a grid sorted by position along the slice normal, checked for gaps, repeats and mixtures."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry
from ..progress import ProgressCallback, silent
from .dicom_frames import Frame, read_pixels

#: Positions closer than this (mm) are one slice.
SAME_POSITION = 0.05
#: Slice spacings may differ by this share, or this many mm, from their median.
SPACING_SHARE, SPACING_MM = 0.02, 0.05


def choose_series(frames: list[Frame], series: int | str | None) -> tuple[list[Frame], list[str]]:
    """Return the frames of one series, and notes.

    Several series are one echo series only where each is one complete volume, as vendors export one series a
    spin-lock time; otherwise the user has to name one.

    Parameters
    ----------
    series : int or str, optional
        Series number or series instance UID.
    """
    groups = defaultdict(list)
    for frame in frames:
        groups[frame.series].append(frame)
    if series is not None:
        chosen = [f for f in frames if series in (f.series, f.number) or str(series) == str(f.number)]
        if not chosen:
            raise EchoSeriesError(f"There is no series {series}; found {_listed(groups)}.", anchor="mixed-series")
        if len({f.series for f in chosen}) > 1:
            raise EchoSeriesError(f"Series number {series} stands for several series; name one by its UID: "
                                  f"{', '.join(sorted({f.series for f in chosen}))}.", anchor="mixed-series")
        return chosen, []
    if len(groups) == 1:
        return frames, []
    if all(_is_one_volume(group) for group in groups.values()) and len({len(g) for g in groups.values()}) == 1:
        return frames, [f"{len(groups)} series of one volume each were joined."]
    raise EchoSeriesError(f"The files mix {len(groups)} series ({_listed(groups)}): name one with series=NUMBER, or "
                          "point to the folder of one series.", anchor="mixed-series")


def _listed(groups: dict[str, list[Frame]]) -> str:
    return "; ".join(f"number {g[0].number}, {len(g)} images" for g in sorted(groups.values(),
                                                                              key=lambda g: g[0].number))


def _is_one_volume(frames: list[Frame]) -> bool:
    positions = [tuple(np.round([float(v) for v in f.header.get("ImagePositionPatient") or []], 2)) for f in frames]
    return len(set(positions)) == len(positions)


def grid(frames: list[Frame]) -> tuple[Geometry, np.ndarray]:
    """Return the common grid of all frames, and each frame's slice number along it.

    Raises
    ------
    EchoSeriesError
        If matrices, orientations, pixel sizes or in-plane positions differ, a slice is missing, or a spacing is absent.
    """
    _require_one([(f.rows, f.columns) for f in frames], frames, "matrix (rows, columns)")
    orientations = np.array([f.vector("ImageOrientationPatient", 6) for f in frames])
    _require_one([tuple(o) for o in np.round(orientations, 3)], frames, "orientation", orientations, 2e-3)
    pixel_sizes = np.array([f.vector("PixelSpacing", 2) for f in frames])
    _require_one([tuple(p) for p in np.round(pixel_sizes, 4)], frames, "pixel spacing", pixel_sizes, 1e-3)
    direction = _orthonormal(orientations[0], frames[0])
    positions = np.array([f.vector("ImagePositionPatient", 3) for f in frames])
    along = positions @ direction[:, 2]
    slices = _cluster(along)
    first = positions[np.argmin(along)]
    spacing = _slice_spacing(frames, along, slices)
    drift = positions - first - np.outer(along - along.min(), direction[:, 2])
    worst = int(np.argmax(np.linalg.norm(drift, axis=1)))
    if np.linalg.norm(drift[worst]) > max(0.1, 0.1 * pixel_sizes[0].min()):
        raise EchoSeriesError(f"{frames[worst].name} is shifted by {np.linalg.norm(drift[worst]):.2f} mm within its "
                              "plane against the first slice: the images are no stack on one normal.",
                              anchor="different-geometry")
    size = (frames[0].columns, frames[0].rows, int(slices.max()) + 1)
    geometry = Geometry(size, (pixel_sizes[0][1], pixel_sizes[0][0], spacing), tuple(first), tuple(direction.ravel()))
    return geometry, slices


def _require_one(keys: list, frames: list[Frame], what: str, values: np.ndarray | None = None,
                 tolerance: float = 0.0) -> None:
    """Raise, naming the first odd frame, unless all keys are equal or all values close to the most frequent one."""
    common = Counter(keys).most_common(1)[0][0]
    reference = keys.index(common)
    for position, (key, frame) in enumerate(zip(keys, frames)):
        if key == common or (values is not None and np.abs(values[position] - values[reference]).max() <= tolerance):
            continue
        raise EchoSeriesError(f"{frame.name} has another {what} ({_text(key)}) than the other images "
                              f"({_text(common)}): remove the images that do not belong to the series.",
                              anchor="different-geometry")


def _text(key: tuple) -> str:
    return ", ".join(f"{float(v):g}" for v in key)


def _orthonormal(orientation: np.ndarray, frame: Frame) -> np.ndarray:
    """Return the direction matrix (columns i, j, k) from row and column cosines."""
    row, column = orientation[:3], orientation[3:]
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        raise EchoSeriesError(f"{frame.name} has an impossible ImageOrientationPatient: export the original images "
                              "again.", anchor="missing-geometry")
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return np.column_stack([row, column, np.cross(row, column)])


def _cluster(along: np.ndarray) -> np.ndarray:
    """Number positions along the normal, joining those that are the same slice."""
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order]) > SAME_POSITION
    slices = np.empty(len(along), int)
    slices[order] = np.concatenate([[0], np.cumsum(steps)])
    return slices


def _slice_spacing(frames: list[Frame], along: np.ndarray, slices: np.ndarray) -> float:
    centers = np.array([along[slices == s].mean() for s in range(slices.max() + 1)])
    if len(centers) == 1:
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            value = frames[0].header.get(keyword)
            if value not in (None, "") and float(value) > 0:
                return abs(float(value))
        raise EchoSeriesError(f"{frames[0].name} is a single slice without thickness or spacing: export the original "
                              "images again.", anchor="missing-geometry")
    gaps = np.diff(centers)
    usual = float(np.median(gaps))
    odd = np.abs(gaps - usual) > np.maximum(SPACING_SHARE * usual, SPACING_MM)
    if odd.any():
        at = int(np.nonzero(odd)[0][0])
        where = f"between {_one_of(frames, slices, at)} and {_one_of(frames, slices, at + 1)}"
        multiple = gaps[at] / usual
        if multiple > 1.5 and abs(multiple - round(multiple)) < 0.1:
            raise EchoSeriesError(f"{round(multiple) - 1} slice(s) are missing {where} (gap {gaps[at]:.2f} mm, usual "
                                  f"spacing {usual:.2f} mm): copy or export all images.", anchor="missing-slice")
        raise EchoSeriesError(f"The slice spacing is not uniform: {gaps[at]:.2f} mm {where}, {usual:.2f} mm elsewhere. "
                              "A missing slice or several stacks? Load one stack.", anchor="missing-slice")
    return float((centers[-1] - centers[0]) / len(gaps))


def _one_of(frames: list[Frame], slices: np.ndarray, number: int) -> str:
    return frames[int(np.nonzero(slices == number)[0][0])].name


def volumes_by_time(frames: list[Frame], slices: np.ndarray, times: list[float]) -> tuple[np.ndarray, list[float]]:
    """Return frame indices (time, slice) and the sorted distinct times.

    Raises
    ------
    EchoSeriesError
        If a (time, slice) is missing or stands twice.
    """
    distinct = sorted(set(times))
    table = np.full((len(distinct), int(slices.max()) + 1), -1)
    for index, (time, position) in enumerate(zip(times, slices)):
        row = distinct.index(time)
        if table[row, position] >= 0:
            raise EchoSeriesError(f"{frames[table[row, position]].name} and {frames[index].name} are the same slice at "
                                  f"the same time ({time:g} ms): remove the duplicate or name one series.",
                                  anchor="duplicate")
        table[row, position] = index
    gap = np.argwhere(table < 0)
    if len(gap):
        time, position = distinct[gap[0][0]], int(gap[0][1])
        known = frames[table[table[:, position] >= 0, position][0]]
        raise EchoSeriesError(f"{len(gap)} image(s) are missing, the first at {time:g} ms in the slice of "
                              f"{known.name}: copy or export all images of the series.", anchor="missing-echo")
    return table, distinct


def volumes_by_acquisition(frames: list[Frame], slices: np.ndarray) -> np.ndarray:
    """Return frame indices (volume, slice) in order of acquisition, for times that are not in the header.

    Raises
    ------
    EchoSeriesError
        If the slices do not all have the same number of images.
    """
    counts = np.bincount(slices)
    if len(set(counts)) > 1:
        low = int(np.argmin(counts))
        raise EchoSeriesError(f"The slice of {_one_of(frames, slices, low)} has {counts[low]} image(s), others have "
                              f"{counts.max()}: images are missing or mixed.", anchor="missing-echo")

    def key(index: int) -> tuple:
        header = frames[index].header
        numbers = (header.get(k) for k in ("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber",
                                           "EchoNumbers", "TriggerTime", "InstanceNumber"))
        return (*(float(n) if isinstance(n, (int, float)) or str(n).replace(".", "").isdigit() else 0.0
                  for n in numbers), frames[index].number, frames[index].index)

    table = [sorted(np.nonzero(slices == s)[0], key=key) for s in range(len(counts))]
    return np.array(table).T


def load(frames: list[Frame], table: np.ndarray, shape: tuple[int, int, int],
         progressCallback: ProgressCallback = silent) -> tuple[np.ndarray, list[str]]:
    """Return signal (volume, k, j, i) as float32 and notes; each file is decoded once.

    Raises
    ------
    EchoSeriesError
        If pixels are truncated or an integer overflow wrapped values to negative ones.
    """
    echoes = np.empty((len(table), *shape), np.float32)
    wanted = defaultdict(list)
    for (volume, position), index in np.ndenumerate(table):
        wanted[frames[index].file].append((volume, position, frames[index]))
    top, lowest, saturated = 0, 0, 0
    for step, (file, places) in enumerate(wanted.items()):
        progressCallback(step / len(wanted), f"Reading images, file {step + 1} of {len(wanted)}")
        pixels, padding = read_pixels(file)
        for volume, position, frame in places:
            if frame.index >= len(pixels):
                raise EchoSeriesError(f"'{file.name}' is truncated or damaged: copy or export it again.",
                                      anchor="truncated")
            stored = pixels[frame.index]
            signal = stored * np.float64(frame.scale[0]) + frame.scale[1]
            if padding:
                # Padding 0 is left alone: it can not be told from a true zero.
                signal = np.where(stored == padding, np.nan, signal)
                stored = stored[stored != padding]
            top = max(top, int(stored.max(initial=0)))
            lowest = min(lowest, int(stored.min(initial=0)))
            saturated += int(np.count_nonzero(stored == np.iinfo(pixels.dtype).max))
            echoes[volume, position] = signal
    return echoes, integer_notes(lowest, top, saturated / max(echoes.size, 1), np.iinfo(pixels.dtype).max)


def integer_notes(lowest: int, top: int, saturated: float, limit: int) -> list[str]:
    """Judge integer magnitudes: raise where values wrapped, note negative or saturated ones.

    A magnitude is not negative. Where the largest value comes near the type's limit as well, the negative ones are
    values that ran over it.
    """
    if lowest < 0 and top > 0.9 * limit:
        raise EchoSeriesError(f"The images hold values from {lowest} to {top}: bright values ran over the integer "
                              "limit and became negative. Export them again with another scaling or as 32-bit.",
                              anchor="integer-overflow")
    notes = []
    if lowest < 0:
        notes.append(f"The images hold negative values (lowest stored value {lowest}).")
    if saturated > 1e-4:
        notes.append(f"{saturated:.2%} of the voxels are saturated at the largest integer ({limit}).")
    return notes
