"""Echo series from DICOM: classic and enhanced multi-frame MR images of any vendor, in any byte order."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry
from ..progress import ProgressCallback, silent, subrange
from .dicom_frames import Frame, list_files, read_frames
from .dicom_volumes import choose_series, grid, load, volumes_by_acquisition, volumes_by_time
from .series import KINDS, EchoSeries
from .times import guess_kind, sources, to_milliseconds


def read_dicom_series(path: str | os.PathLike | Iterable, kind: str | None = None,
                      times_ms: Sequence[float] | None = None, series: int | str | None = None,
                      time_tag: str | None = None, progressCallback: ProgressCallback = silent) -> EchoSeries:
    """Read one echo series from DICOM files; parameters and errors as for ``echo.read_echo_series``."""
    frames, notes = _select(path, series, subrange(progressCallback, 0, 0.5))
    kind = kind or guess_kind([str(frames[0].header.get(k) or "") for k in (
        "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")])
    if kind is None:
        kind = "T2" if _varies(frames, "EffectiveEchoTime") or _varies(frames, "EchoTime") else None
    if kind not in KINDS:
        raise EchoSeriesError("The images do not say whether they are a T1rho or a T2 series: give kind=\"T1rho\" or "
                              "kind=\"T2\".", anchor="kind")
    geometry, slices = grid(frames)
    if times_ms is not None:
        table = volumes_by_acquisition(frames, slices)
        times, note = list(times_ms), "Times were given; volumes are in order of acquisition."
    else:
        sidecar = _sidecar_times(path, kind)
        if sidecar:
            table = volumes_by_acquisition(frames, slices)
            times, note = sidecar
        else:
            table, times, note = _header_times(frames, slices, kind, time_tag)
    echoes, more = load(frames, table, geometry.shape, subrange(progressCallback, 0.5, 1))
    return EchoSeries(echoes, np.array(times, float), kind, geometry,
                      {"format": "DICOM", "images": int(table.size), **frames[0].described,
                       "notes": [*notes, note, *more]})


def read_dicom_volumes(path: str | os.PathLike | Iterable, series: int | str | None = None,
                       progressCallback: ProgressCallback = silent
                       ) -> tuple[np.ndarray, Geometry, dict, list[dict]]:
    """Return all volumes in order of acquisition: signal (n, k, j, i), geometry, metadata, header of each volume."""
    frames, notes = _select(path, series, subrange(progressCallback, 0, 0.5))
    geometry, slices = grid(frames)
    table = volumes_by_acquisition(frames, slices)
    echoes, more = load(frames, table, geometry.shape, subrange(progressCallback, 0.5, 1))
    meta = {"format": "DICOM", "images": int(table.size), **frames[0].described, "notes": [*notes, *more]}
    return echoes, geometry, meta, [frames[row[0]].header for row in table]


def _select(path, series, progressCallback) -> tuple[list[Frame], list[str]]:
    frames, notes = read_frames(list_files(path), progressCallback)
    frames, more = choose_series(frames, series)
    return frames, notes + more


def _varies(frames: list[Frame], keyword: str) -> bool:
    return len({str(f.header.get(keyword)) for f in frames}) > 1


def _header_times(frames: list[Frame], slices: np.ndarray, kind: str,
                  time_tag: str | None) -> tuple[np.ndarray, list[float], str]:
    """Find the first source that gives each volume its own time; return frame table, times (ms) and a note."""
    problem = None
    for name, reader in sources(kind, time_tag).items():
        values = [reader(f.header) for f in frames]
        distinct = {v for v in values if v is not None}
        if len(distinct) < 2:
            continue
        if None in values:
            odd = frames[values.index(None)].name
            problem = problem or EchoSeriesError(f"{odd} has no time in {name}, where others have one: it does not "
                                                 "belong to the series, or give times_ms.", anchor="missing-echo")
            continue
        try:
            table, times = volumes_by_time(frames, slices, values)
        except EchoSeriesError as error:
            # Another source may still be complete; the first problem found is the one worth telling.
            problem = problem or error
            continue
        times, note = to_milliseconds(times, name)
        return table, times, note
    raise problem or _no_times(frames, slices, kind, time_tag)


def _no_times(frames: list[Frame], slices: np.ndarray, kind: str, time_tag: str | None) -> EchoSeriesError:
    what = "spin-lock times" if kind == "T1rho" else "echo times"
    count = int(np.bincount(slices).max())
    if count < 2:
        return EchoSeriesError(f"A map needs at least two echoes; these {len(frames)} image(s) are one volume.",
                               anchor="too-few-echoes")
    if time_tag:
        return EchoSeriesError(f"The attribute {time_tag} does not give each volume its own time.", anchor="times")
    hint = _candidates(frames, slices)
    return EchoSeriesError(f"The headers hold no {what} for the {count} volumes: give times_ms in order of "
                           f"acquisition, or a sidecar{hint}.", anchor="times")


def _candidates(frames: list[Frame], slices: np.ndarray) -> str:
    """List numeric attributes that differ between the volumes and not within them, for the user to choose from."""
    if len(set(np.bincount(slices))) > 1:
        return ""
    table = volumes_by_acquisition(frames, slices)
    columns = defaultdict(list)
    for row in table:
        for key in set.intersection(*({k for k, v in frames[i].header.items() if isinstance(v, (int, float))}
                                      for i in row)):
            values = {float(frames[i].header[key]) for i in row}
            columns[key].append(values.pop() if len(values) == 1 else None)
    found = [f"{key} = " + ", ".join(f"{v:g}" for v in values) for key, values in sorted(columns.items())
             if len(values) == len(table) == len(set(values)) and None not in values
             and key not in ("InstanceNumber", "TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers")]
    return ", or name the attribute as time_tag; these differ between volumes: " + "; ".join(found[:6]) if found else ""


def _sidecar_times(path, kind: str) -> tuple[list[float], str] | None:
    """Return times from the only JSON file of a DICOM folder that lists them for the kind."""
    if not isinstance(path, (str, os.PathLike)) or not Path(path).is_dir():
        return None
    for file in sorted(Path(path).glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError:
            raise EchoSeriesError(f"The sidecar '{file.name}' is no valid JSON: correct or remove it.",
                                  anchor="sidecar") from None
        found = sidecar_values(content, kind) if isinstance(content, dict) else None
        if found and len(found[0]) > 1:
            return to_milliseconds(found[0], f"'{file.name}', {found[2]}", found[1])
    return None


#: Sidecar keys of the times, most specific first; BIDS gives them in s.
SIDECAR_KEYS = {"T1rho": ("SpinLockTime", "SpinLockTimes", "TSL", "EchoTime"),
                "T2": ("EchoTime", "EchoTimes", "T2PreparationTime", "PreparationTime", "EffectiveEchoTime")}


def sidecar_values(content: dict, kind: str) -> tuple[list[float], str | None, str] | None:
    """Return times, unit stated by the key's ending (``_ms``) and key name of a sidecar, or None."""
    for key in SIDECAR_KEYS[kind]:
        for suffix, unit in (("", None), ("_ms", "ms"), ("_s", "s")):
            if content.get(key + suffix) is None:
                continue
            value = content[key + suffix]
            try:
                numbers = [float(v) for v in (value if isinstance(value, list) else [value])]
            except (TypeError, ValueError):
                raise EchoSeriesError(f"The sidecar's {key + suffix} is not a number or a list of numbers: {value!r}.",
                                      anchor="sidecar") from None
            return numbers, unit, key + suffix
    return None
