"""Echo series from DICOM: classic and enhanced multi-frame MR images of any vendor, in any byte order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry
from ..progress import ProgressCallback, silent, subrange
from . import contents
from .dicom_frames import Frame, read_frames
from .dicom_select import choose_frames
from .dicom_volumes import differences, grid, load, volumes_by_acquisition, volumes_by_time
from .series import KINDS, EchoSeries
from .sidecars import read_json, sidecar_values
from .times import guess_kind, joined_times, number, require_plausible, sources, to_milliseconds


def read_dicom_series(files: list[Path], kind: str | None = None, times_ms: Sequence[float] | None = None,
                      series: int | str | None = None, time_tag: str | None = None,
                      progressCallback: ProgressCallback = silent) -> EchoSeries:
    """Read one echo series from DICOM files; parameters and errors as for ``read_echo_series``."""
    found = find_echoes(files, kind, times_ms, series, time_tag, subrange(progressCallback, 0, 0.5))
    echoes, more = load(found.frames, found.table, found.geometry.shape, subrange(progressCallback, 0.5, 1))
    return EchoSeries(echoes, np.array(found.times_ms, float), found.kind, found.geometry,
                      {"format": "DICOM", "images": int(found.table.size), **found.frames[0].described,
                       "notes": [*found.notes, *more]})


@dataclass(frozen=True)
class FoundEchoes:
    """What the headers say of an echo series: frames, their table (volume, slice), times, kind and grid."""

    frames: list[Frame]
    table: np.ndarray
    times_ms: list[float]
    kind: str
    geometry: Geometry
    notes: list[str]


def find_echoes(files: list[Path], kind: str | None = None, times_ms: Sequence[float] | None = None,
                series: int | str | None = None, time_tag: str | None = None,
                progressCallback: ProgressCallback = silent) -> FoundEchoes:
    """Find an echo series by the headers of DICOM files, without its pixels; errors as for ``read_echo_series``."""
    frames, notes = _select(files, series, progressCallback)
    stated = stated_kind(frames, kind)
    if kind and stated and kind != stated:
        notes.append(f"The header says {stated}; the series was read as {kind}, as asked.")
    kind = kind or stated
    if kind not in KINDS:
        raise EchoSeriesError("The images do not say whether they are a T1rho or a T2 series: give kind=\"T1rho\" or "
                              "kind=\"T2\".", anchor="kind")
    if kind == "T2":
        frames, more = contents.without_zero_echo_time(frames, lambda f: f.header, frames[0].texts)
        notes += more
        if times_ms is None:
            contents.require_spin_echoes(frames[0].header, frames[0].name, frames[0].texts)
        elif contents.is_gradient_echo(frames[0].header):
            notes.append(contents.GRADIENT_NOTE)
    geometry, slices = grid(frames)
    sidecar = _sidecar_times(files, kind) if times_ms is None and time_tag is None else None
    if times_ms is not None:
        table = volumes_by_acquisition(frames, slices)
        times, note = list(times_ms), "Times were given; volumes are in order of acquisition."
    elif sidecar:
        table = volumes_by_acquisition(frames, slices)
        times, note = sidecar
    else:
        table, times, note = _header_times(frames, slices, kind, time_tag, stated == kind)
    return FoundEchoes(frames, table, list(times), kind, geometry, [*notes, note])


def read_dicom_volumes(files: list[Path], series: int | str | None = None,
                       progressCallback: ProgressCallback = silent
                       ) -> tuple[np.ndarray, Geometry, dict, list[dict]]:
    """Return all volumes in order of acquisition: signal (n, k, j, i), geometry, metadata, header of each volume."""
    frames, notes = _select(files, series, subrange(progressCallback, 0, 0.5))
    geometry, slices = grid(frames)
    table = volumes_by_acquisition(frames, slices)
    echoes, more = load(frames, table, geometry.shape, subrange(progressCallback, 0.5, 1))
    meta = {"format": "DICOM", "images": int(table.size), **frames[0].described, "notes": [*notes, *more]}
    return echoes, geometry, meta, [frames[row[0]].header for row in table]


def _select(files, series, progressCallback) -> tuple[list[Frame], list[str]]:
    frames, notes = read_frames([f for f in files if f.suffix.lower() != ".json"], progressCallback)
    frames, more = choose_frames(frames, series)
    return frames, notes + more


def stated_kind(frames: list[Frame], wanted: str | None = None) -> str | None:
    """Return the kind that the images' descriptions and times state, or None; an error if both and none is wanted."""
    try:
        kind = guess_kind([frames[0].texts])
    except EchoSeriesError:
        if wanted:
            return wanted
        raise
    varies = any(len({number(f.header.get(k)) for f in frames}) > 1 for k in ("EffectiveEchoTime", "EchoTime"))
    return kind or ("T2" if varies and wanted is None else None)


def _header_times(frames: list[Frame], slices: np.ndarray, kind: str, time_tag: str | None,
                  stated: bool) -> tuple[np.ndarray, list[float], str]:
    """Find the first source that gives each volume its own time; return frame table, times (ms) and a note."""
    problem = None
    for name, reader in sources(kind, time_tag, stated).items():
        values = [reader(f.header) for f in frames]
        known = [v for v in values if v is not None]
        if len(set(joined_times(known).values())) < 2:
            continue
        if len(known) < len(values):
            odd = frames[values.index(None)].name
            problem = problem or EchoSeriesError(f"{odd} has no time in {name}, where others have one: it does not "
                                                 "belong to the series, or give times_ms.", anchor="missing-echo")
            continue
        try:
            table, times = volumes_by_time(frames, slices, known)
            times, note = to_milliseconds(times, name)
            require_plausible(times, kind, name)
            return table, times, note
        except EchoSeriesError as error:
            # Another source may still be complete; the first problem found is the one worth telling.
            problem = problem or error
    raise problem or _no_times(frames, slices, kind, time_tag)


def _no_times(frames: list[Frame], slices: np.ndarray, kind: str, time_tag: str | None) -> EchoSeriesError:
    what = "spin-lock times" if kind == "T1rho" else "echo times"
    count = int(np.bincount(slices).max())
    if count < 2:
        return EchoSeriesError(f"A map needs at least two echoes; these {len(frames)} image(s) are one volume.",
                               anchor="too-few-echoes")
    if time_tag:
        return EchoSeriesError(f"The attribute {time_tag} does not give each volume its own time.", anchor="times")
    return EchoSeriesError(f"The headers hold no {what} for the {count} volumes: give times_ms in order of "
                           "acquisition, or a sidecar, or name the attribute as time_tag"
                           f"{differences(frames, slices)}.", anchor="times")


def _sidecar_times(files: list[Path], kind: str) -> tuple[list[float], str] | None:
    """Return times from the only JSON file among the images that lists them for the kind."""
    found = []
    for file in sorted(f for f in files if f.suffix.lower() == ".json"):
        listed = sidecar_values(read_json(file), kind)
        if listed and len(listed[0]) > 1:
            found.append((file.name, listed))
    if len({tuple(values[0]) for _, values in found}) > 1:
        raise EchoSeriesError(f"'{found[0][0]}' and '{found[1][0]}' give different times: remove one, or give "
                              "times_ms.", anchor="sidecar")
    if not found:
        return None
    name, (values, unit, key) = found[0]
    times, note = to_milliseconds(values, f"'{name}', {key}", unit)
    require_plausible(times, kind, f"'{name}'")
    return times, note
