"""Frames into volumes: a grid sorted by position along the slice normal, checked for gaps, repeats and mixtures."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry
from ..progress import ProgressCallback, silent
from .dicom_files import read_pixels
from .dicom_frames import Frame
from .times import joined_times, number

#: Positions closer than this (mm) are one slice.
SAME_POSITION = 0.05
#: Slice spacings may differ by this share, or this many mm, from their median.
SPACING_SHARE, SPACING_MM = 0.02, 0.05


def grid(frames: list[Frame]) -> tuple[Geometry, np.ndarray]:
    """Return the common grid of all frames, and each frame's slice number along it.

    EchoSeriesError for differing matrices, orientations, pixel sizes or positions, or a missing slice or spacing.
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
            value = number(frames[0].header.get(keyword))
            if value:
                return abs(value)
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
    """Return frame indices (time, slice) and the sorted distinct times; times that are the same but for rounding join.

    EchoSeriesError if a (time, slice) is missing or stands twice.
    """
    joined = joined_times(times)
    distinct = sorted(set(joined.values()))
    table = np.full((len(distinct), int(slices.max()) + 1), -1)
    for index, (time, position) in enumerate(zip(times, slices)):
        row = distinct.index(joined[time])
        if table[row, position] >= 0:
            raise EchoSeriesError(f"{frames[table[row, position]].name} and {frames[index].name} are the same slice at "
                                  f"the same time ({time:g} ms): remove the duplicate or name one series.",
                                  anchor="duplicate")
        table[row, position] = index
    gap = np.argwhere(table < 0)
    if len(gap):
        time, position = distinct[gap[0][0]], int(gap[0][1])
        known = frames[table[table[:, position] >= 0, position][0]]
        counted = ", ".join(f"{t:g} ({n})" for t, n in zip(distinct, (table >= 0).sum(axis=1)))
        raise EchoSeriesError(f"{len(gap)} image(s) are missing, the first at {time:g} ms in the slice of "
                              f"{known.name}; times in ms and their images are {counted}: copy or export all images "
                              "of the series.", anchor="missing-echo")
    return table, distinct


#: Numbers that count volumes: each has the same values in every slice.
_COUNTERS = ("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber", "EchoNumbers", "TriggerTime")


def volumes_by_acquisition(frames: list[Frame], slices: np.ndarray) -> np.ndarray:
    """Return frame indices (volume, slice) in order of acquisition, for times that are not in the header.

    EchoSeriesError if the slices differ in their number of images, or no number orders every slice alike.
    """
    counts = np.bincount(slices)
    if len(set(counts)) > 1:
        low = int(np.argmin(counts))
        raise EchoSeriesError(f"The slice of {_one_of(frames, slices, low)} has {counts[low]} image(s), others have "
                              f"{counts.max()}: images are missing or mixed.", anchor="missing-echo")
    members = np.array([np.nonzero(slices == s)[0] for s in range(len(counts))])
    for keys in _orders(frames):
        columns = [c for key in keys if (c := _column(frames, members, key)) is not None
                   and (len(keys) == 1 or _same_in_every_slice(c))]
        if not columns:
            continue
        order = np.lexsort(columns[::-1], axis=1)
        ordered = np.stack([np.take_along_axis(c, order, axis=1) for c in columns])
        distinct = np.all(np.any(np.diff(ordered, axis=2) != 0, axis=0)) if len(members[0]) > 1 else True
        if distinct and (len(keys) > 1 or _regular(ordered[0]) or _same_in_every_slice(columns[0])):
            return np.take_along_axis(members, order, axis=1).T
    raise EchoSeriesError("The order of acquisition is unknown: no number in the headers orders the images of every "
                          f"slice alike{differences(frames, slices)}. Export the series again with its numbers, or "
                          "one series per time.", anchor="order")


def _orders(frames: list[Frame]) -> Iterator[tuple]:
    """Yield what may order images: the counters together; else the number of the image, or of the frame; else time."""
    yield ("SeriesNumber", *_COUNTERS)
    yield ("InstanceNumber",)
    if len({f.file for f in frames}) == 1:
        yield ("frame",)
    yield ("EffectiveEchoTime",)
    yield ("EchoTime",)


def _column(frames: list[Frame], members: np.ndarray, key: str) -> np.ndarray | None:
    """Return a number of each image as (slice, image), or None where one has none."""
    fixed = {"SeriesNumber": lambda f: f.number, "frame": lambda f: f.index}
    read = fixed.get(key, lambda f: number(f.header.get(key)))
    values = [read(f) for f in frames]
    return None if None in values else np.array(values, float)[members]


def _same_in_every_slice(column: np.ndarray) -> bool:
    return bool(np.all(np.sort(column, axis=1) == np.sort(column[0])))


def _regular(ordered: np.ndarray) -> bool:
    """Tell whether running numbers (slice, volume) count volume by volume, or alike in every slice."""
    return bool(np.all(ordered[:, 1:].min(axis=0) > ordered[:, :-1].max(axis=0))
                or np.all(np.ptp(np.diff(ordered, axis=1), axis=0) == 0))


def differences(frames: list[Frame], slices: np.ndarray) -> str:
    """List numbers that differ between the images of a slice, and alike in every slice, for a user to choose from."""
    counts = np.bincount(slices)
    if len(set(counts)) > 1 or counts[0] < 2:
        return ""
    members = np.array([np.nonzero(slices == s)[0] for s in range(len(counts))])
    found = []
    for key in sorted(set.intersection(*(set(f.header) for f in frames)) - {"InstanceNumber", "GEImageComponent"}):
        column = _column(frames, members, key)
        if column is not None and _same_in_every_slice(column) and len(set(column[0])) == len(column[0]):
            found.append(f"{key} = " + ", ".join(f"{v:g}" for v in sorted(column[0])))
    return f"; these differ between volumes: {'; '.join(found[:6])}" if found else ""


def load(frames: list[Frame], table: np.ndarray, shape: tuple[int, int, int],
         progressCallback: ProgressCallback = silent) -> tuple[np.ndarray, list[str]]:
    """Return signal (volume, k, j, i) as float32 and notes; each file is decoded once.

    EchoSeriesError if pixels are truncated or an integer overflow wrapped values to negative ones.
    """
    echoes = np.empty((len(table), *shape), np.float32)
    wanted = defaultdict(list)
    for (volume, position), index in np.ndenumerate(table):
        wanted[frames[index].file].append((volume, position, frames[index]))
    top, lowest, saturated = 0, 0, 0
    for step, (file, places) in enumerate(wanted.items()):
        progressCallback(step / len(wanted), f"Reading images, file {step + 1} of {len(wanted)}")
        pixels, padding, limit = read_pixels(file)
        for volume, position, frame in places:
            if frame.index >= len(pixels):
                raise EchoSeriesError(f"'{file.name}' is truncated or damaged: copy or export it again.",
                                      anchor="truncated")
            stored = pixels[frame.index]
            signal = stored * np.float64(frame.scale[0]) + frame.scale[1]
            if padding:
                # Padding 0 is left alone: it cannot be told from a true zero.
                signal = np.where(stored == padding, np.nan, signal)
                stored = stored[stored != padding]
            top = max(top, int(stored.max(initial=0)))
            lowest = min(lowest, int(stored.min(initial=0)))
            saturated += int(np.count_nonzero(stored >= limit))
            echoes[volume, position] = signal
    return echoes, integer_notes(lowest, top, saturated / max(echoes.size, 1), limit)


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
