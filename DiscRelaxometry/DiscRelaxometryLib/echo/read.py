"""Read echo series; what each format gives is in ``Docs/method/echo-series.md``.

>>> series = read_echo_series("sub-01/T1rho_dicom")          # doctest: +SKIP
>>> t1rho, t2 = read_mapss("sub-01/mapss", tsl_ms=(0, 10, 40, 80), te_ms=(0, 13.7, 27.3, 54.7))   # doctest: +SKIP
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError
from ..progress import ProgressCallback, silent
from .contents import left_out_note
from .dicom import read_dicom_series, read_dicom_volumes
from .dicom_files import list_files
from .files import choose_files, load_volumes, read_file_series
from .names import is_image
from .series import KINDS, EchoSeries, check_times
from .sidecars import read_sidecar, sidecar_values
from .times import sources, to_milliseconds

__all__ = ["KINDS", "MAPSS_T1RHO", "MAPSS_T2", "EchoSeries", "check_times", "read_echo_series", "read_mapss"]

#: Volumes of MAPSS's combined acquisition that each fit uses; volume 0 (no preparation) is shared.
MAPSS_T1RHO, MAPSS_T2 = (0, 1, 2, 3), (0, 4, 5, 6)
#: Endings of files that accompany images.
_BESIDE = (".json", ".txt", ".tsv", ".csv", ".raw", ".zraw", ".md", ".bval", ".bvec")


def read_echo_series(path: str | os.PathLike | Iterable, kind: str | None = None,
                     times_ms: Sequence[float] | None = None, *, series: int | str | None = None,
                     time_tag: str | None = None, skip_echoes: Sequence[int] = (),
                     progressCallback: ProgressCallback = silent) -> EchoSeries:
    """Read an echo series from DICOM, NIfTI with BIDS sidecars, NRRD, MetaImage or a Slicer sequence.

    Parameters
    ----------
    path : path or list of paths
        A folder of DICOM files or of one file per echo; an enhanced DICOM file; a 4-D NIfTI; a NRRD; ``.seq.nrrd``.
    kind : {"T1rho", "T2"}, optional
        Read from the header, file name or sidecar where they say it.
    times_ms : sequence of float, optional
        Times in ms, which replace those of the files: in order of acquisition for DICOM, of the volumes otherwise.
    series : int or str, optional
        DICOM series number or UID, where the files mix several series.
    time_tag : str, optional
        DICOM keyword or tag (``0019,10B6``) that holds the times, where a vendor put them in a private attribute.
    skip_echoes : sequence of int
        Echoes to leave out, counted from 0 in order of time; a dead echo has to be named here.
    progressCallback : callable, optional

    Returns
    -------
    EchoSeries
        Sorted by time; ``notes`` say where the times came from and what was done.

    Raises
    ------
    EchoSeriesError
        If series are mixed, an image is missing, repeated, truncated or on another grid, times or kind are not
        stated, an echo is empty, or integers overflowed. The message names the file and the remedy.
    """
    images, files, notes = _at_the_door(path)
    if images:
        result = read_file_series(images, kind, times_ms, by_name=_is_folder(path))
    else:
        result = read_dicom_series(files, kind, times_ms, series, time_tag, progressCallback)
    for note in notes:
        result = result.with_note(note)
    skip = {int(s) for s in skip_echoes}
    if skip - set(range(len(result))):
        raise EchoSeriesError(f"skip_echoes {sorted(skip)} does not fit the {len(result)} echoes (0 to "
                              f"{len(result) - 1}).")
    if skip:
        listed = ", ".join(f"{result.times_ms[s]:g}" for s in sorted(skip))
        result = result.select([n for n in range(len(result)) if n not in skip]).with_note(
            f"The echo(es) at {listed} ms were left out.")
    _require_signal(result)
    return result


def read_mapss(path: str | os.PathLike | Iterable, tsl_ms: Sequence[float] | None = None,
               te_ms: Sequence[float] | None = None, *, series: int | str | None = None, time_tag: str | None = None,
               progressCallback: ProgressCallback = silent) -> tuple[EchoSeries, EchoSeries]:
    """Read MAPSS's combined acquisition: 7 volumes, T1rho from 0, 1, 2, 3 and T2 from 0, 4, 5, 6.

    Parameters
    ----------
    path, series, time_tag, progressCallback
        As for :func:`read_echo_series`.
    tsl_ms, te_ms : sequence of 4 float, optional
        Spin-lock and preparation echo times in ms, the shared volume's first. By default read from the headers or a
        JSON sidecar (``SpinLockTime`` and ``EchoTime``, in s).

    Returns
    -------
    t1rho, t2 : EchoSeries

    Raises
    ------
    EchoSeriesError
        If there are not 7 volumes, or times are neither given nor found.
    """
    images, files, notes = _at_the_door(path)
    headers, sidecar = [], {}
    if images:
        images, more = choose_files(images, by_name=_is_folder(path))
        echoes, geometry, meta = load_volumes(images)
        sidecar, notes = read_sidecar(images[0]), notes + more
    else:
        echoes, geometry, meta, headers = read_dicom_volumes(files, series, progressCallback)
    meta["notes"] = [*notes, *meta["notes"]]
    if len(echoes) != 7:
        raise EchoSeriesError(f"A combined MAPSS acquisition has 7 volumes (T1rho 0-3, T2 0 and 4-6); found "
                              f"{len(echoes)}. Read separate series with read_echo_series.", anchor="mapss")
    result = []
    for kind, volumes, given in (("T1rho", MAPSS_T1RHO, tsl_ms), ("T2", MAPSS_T2, te_ms)):
        times, note = (list(given), "Times were given.") if given is not None else _mapss_times(
            kind, volumes, headers, sidecar, time_tag)
        note = f"MAPSS volumes {', '.join(map(str, volumes))}; {note}"
        one = EchoSeries(echoes[list(volumes)], np.array(times, float), kind, geometry,
                         {**meta, "notes": [*meta["notes"], note]})
        _require_signal(one)
        result.append(one)
    return result[0], result[1]


def _mapss_times(kind: str, volumes: Sequence[int], headers: list[dict], sidecar: dict,
                 time_tag: str | None) -> tuple[list[float], str]:
    found = sidecar_values({k: v for k, v in sidecar.items() if kind == "T2" or not k.startswith("EchoTime")}, kind)
    if found and len(found[0]) == 4:
        return to_milliseconds(found[0], f"{found[2]} of the JSON sidecar", found[1])
    for name, reader in sources(kind, time_tag).items() if headers else ():
        values = [reader(headers[v]) for v in volumes]
        # The shared volume has no preparation: a text source leaves it without a time, which then is 0.
        values[0] = 0.0 if values[0] is None and None not in values[1:] else values[0]
        known = [v for v in values if v is not None]
        if len(set(known)) == len(values) and known == sorted(known):
            return to_milliseconds(known, name)
    name, example = ("tsl_ms", "(0, 10, 40, 80)") if kind == "T1rho" else ("te_ms", "(0, 13.7, 27.3, 54.7)")
    raise EchoSeriesError(f"The files hold no {kind} times for the MAPSS volumes {', '.join(map(str, volumes))}: give "
                          f"{name}, for example {example} if that is your protocol.", anchor="mapss")


def _is_folder(path) -> bool:
    return isinstance(path, (str, os.PathLike)) and Path(path).is_dir()


def _at_the_door(path) -> tuple[list[Path], list[Path], list[str]]:
    """List a path once: its image files, all of its files, and a note on what stands beside image files."""
    if not isinstance(path, (str, os.PathLike)):
        path = list(path)
    files = list_files(path)
    images = [f for f in files if is_image(f) and (not _is_folder(path) or f.parent == Path(path))]
    others = [f for f in files if f not in images and f.suffix.lower() not in _BESIDE] if images else []
    return images, files, [left_out_note(others, "beside image files")] if others else []


def _require_signal(series: EchoSeries) -> None:
    """Raise if one echo is empty although others hold signal."""
    alive = [bool(np.any(np.nan_to_num(e) != 0)) and np.nanmin(e) != np.nanmax(e) for e in series.echoes]
    if any(alive) and not all(alive):
        dead = [n for n, a in enumerate(alive) if not a]
        listed = ", ".join(f"{n} ({series.times_ms[n]:g} ms)" for n in dead)
        raise EchoSeriesError(f"Echo {listed} is empty (one value everywhere): export it again, or leave it out with "
                              f"skip_echoes={tuple(dead)}.", anchor="empty-echo")
