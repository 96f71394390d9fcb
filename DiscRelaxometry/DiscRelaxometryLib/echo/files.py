"""Echo series from NIfTI with BIDS sidecars, NRRD, MetaImage, and Slicer sequences (``.seq.nrrd``)."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError, GeometryError
from ..image import Geometry, read_volumes
from . import contents, names
from .dicom_volumes import integer_notes
from .nrrd import is_nrrd, nrrd_described, nrrd_header, nrrd_times
from .series import KINDS, EchoSeries
from .sidecars import read_sidecar, sidecar_values, stated_times
from .times import guess_kind, require_plausible, to_milliseconds

_KINDS_OF_SUFFIX = {"MESE": "T2", "T2": "T2", "T2w": "T2", "TSL": "T1rho", "T1rho": "T1rho", "T1rhow": "T1rho"}
#: Axes of a NRRD file whose values are not echoes.
_COLORS = {"rgb", "rgba", "xyz", "vector", "covariant", "normal", "gradient", "matrix", "complex", "color"}
_GRADIENT_SUFFIXES = ("MEGRE", "T2starw")


def read_file_series(files: list[Path], kind: str | None = None, times_ms: Sequence[float] | None = None,
                     by_name: bool = True) -> EchoSeries:
    """Read one echo series from image files; parameters and errors as for ``read_echo_series``."""
    files, notes = choose_files(files, by_name)
    stated = nrrd_times(files[0]) if len(files) == 1 and is_nrrd(files[0]) else {}
    said = _stated_kind(files, stated, kind)
    if kind and said and kind != said:
        notes.append(f"'{files[0].name}' says {said}; the series was read as {kind}, as asked.")
    kind = kind or said
    if kind not in KINDS:
        raise EchoSeriesError(f"'{files[0].name}' does not say whether it is a T1rho or a T2 series: give "
                              "kind=\"T1rho\" or kind=\"T2\".", anchor="kind")
    if kind == "T2":
        files, more = contents.without_zero_echo_time(files, read_sidecar, names.stem(files[0]))
        notes += more + _gradient_echoes(files, times_ms is not None)
    echoes, geometry, meta = load_volumes(files)
    if times_ms is not None:
        times, note = list(times_ms), "Times were given, in the order of the volumes" + (
            f" ({', '.join(f.name for f in files)})." if len(files) > 1 else ".")
    else:
        times, note = _times(files, stated, kind, len(echoes), said)
    return EchoSeries(echoes, np.array(times, float), kind, geometry, {**meta, "notes": [
        *notes, *meta["notes"], note]})


def load_volumes(files: list[Path]) -> tuple[np.ndarray, Geometry, dict]:
    """Return the volumes (n, k, j, i) of a series' files, their common geometry, and format and notes."""
    parts, notes = [_read(file) for file in files], []
    geometry = parts[0][1]
    for file, (_, grid, more) in zip(files, parts):
        difference = geometry.difference(grid)
        if difference:
            raise EchoSeriesError(f"'{file.name}' is on another grid than '{files[0].name}' ({difference}): the echoes "
                                  "of a series share one grid.", anchor="different-geometry")
        notes += [n for n in more if n not in notes]
    meta = {"format": files[0].name.partition(".")[2].lower(), "notes": notes}
    return np.concatenate([array for array, *_ in parts]), geometry, meta


def choose_files(files: list[Path], by_name: bool = True) -> tuple[list[Path], list[str]]:
    """Return the files of the only series among `files`, in order of their echo number, and notes.

    With `by_name` maps and masks are left out by their names, as in a folder; files that a user named are not.
    """
    kept, notes = contents.only_echoes(files, _described, names.left_out if by_name else names.component)
    if not kept:
        raise EchoSeriesError(" ".join(["There is no NIfTI, NRRD or MetaImage echo file here.", *notes,
                                        *(["Name a file itself to read it."] if by_name and notes else [])]),
                              anchor="no-image")
    groups = names.group_series(kept)
    if len(groups) > 1:
        listed = ", ".join(f"'{group[0].name}' ({len(group)})" for group in groups)
        raise EchoSeriesError(f"The files mix {len(groups)} series: {listed}. Give the files of one series.",
                              anchor="mixed-series")
    return groups[0], notes


def _described(file: Path) -> dict:
    """Return what an image's sidecar and NRRD header say of it."""
    return {**(nrrd_described(file) if is_nrrd(file) else {}), **read_sidecar(file)}


def _read(file: Path) -> tuple[np.ndarray, Geometry, list[str]]:
    """Return volumes (n, k, j, i), their grid, and notes."""
    try:
        image, array, geometry, notes = read_volumes(file)
    except GeometryError as error:
        anchor = "truncated" if error.anchor == "unreadable-image" else error.anchor
        raise EchoSeriesError(error.message, anchor=anchor) from error
    channels = image.GetNumberOfComponentsPerPixel()
    colors = not is_nrrd(file) or (not nrrd_times(file) and _COLORS & set(
        re.findall("[a-z]+", nrrd_header(file).get("kinds", "").lower())))
    if channels > 1 and (image.GetDimension() == 4 or colors):
        raise EchoSeriesError(f"'{file.name}' holds {channels} values per voxel (color or vectors): volumes over time "
                              "are needed.", anchor="not-a-series")
    if channels > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() == 3:
        array = array[None]
    if array.ndim != 4:
        raise EchoSeriesError(f"'{file.name}' has {array.ndim} dimensions; volumes over time are needed.",
                              anchor="not-a-series")
    if np.iscomplexobj(array):
        raise EchoSeriesError(f"'{file.name}' holds complex numbers: export magnitude images.", anchor="complex")
    if np.issubdtype(array.dtype, np.integer):
        limit = np.iinfo(array.dtype).max
        notes += integer_notes(int(array.min()), int(array.max()), float(np.mean(array == limit)), limit)
    return array.astype(np.float32), geometry, notes


def _stated_kind(files: list[Path], stated: dict, wanted: str | None) -> str | None:
    """Return the kind that sidecars, the suffix, the name or the header state, or None."""
    described = [_described(f) for f in files]
    named = {k for c in described for k in KINDS if c.get("Kind") == k}
    if len(named) == 1:
        return named.pop()
    if any(sidecar_values({k: v for k, v in c.items() if k.startswith(("SpinLock", "TSL"))}, "T1rho")
           for c in described):
        return "T1rho"
    suffix = names.suffix(files[0])
    if suffix in _KINDS_OF_SUFFIX:
        return _KINDS_OF_SUFFIX[suffix]
    try:
        texts = [str(c.get(k) or "") for c in described[:1] for k in ("SeriesDescription", "ProtocolName")]
        kind = guess_kind([names.stem(files[0]), stated.get("name", ""), *texts])
    except EchoSeriesError:
        if wanted:
            return None
        raise
    if kind or wanted:
        return kind
    times = "echo" in stated.get("name", "").lower() or any(sidecar_values(c, "T2") for c in described)
    return "T2" if times or suffix in _GRADIENT_SUFFIXES else None


def _gradient_echoes(files: list[Path], given: bool) -> list[str]:
    """Raise for a T2 series of gradient echoes; where the user gives its times, note what is measured."""
    described = _described(files[0])
    if names.suffix(files[0]) in _GRADIENT_SUFFIXES:
        described = {**described, "ScanningSequence": "GR"}
    if given:
        return [contents.GRADIENT_NOTE] if contents.is_gradient_echo(described) else []
    if not any(k.startswith(("T2Prep", "Prep")) for k in described):
        texts = " ".join(str(described.get(k) or "") for k in ("SeriesDescription", "ProtocolName"))
        contents.require_spin_echoes(described, f"'{files[0].name}'", f"{names.stem(files[0])} {texts}")
    return []


def _times(files: list[Path], stated: dict, kind: str, count: int, said: str | None) -> tuple[list[float], str]:
    found = stated_times(files, kind, count)
    if found and kind == "T1rho" and found[2].startswith("EchoTime") and said != "T1rho":
        raise EchoSeriesError(f"The sidecar of '{files[0].name}' gives echo times, no spin-lock times: add "
                              "SpinLockTime in s, or give times_ms.", anchor="times")
    if not found and len(files) == 1 and stated.get("times"):
        source, values, unit = f"the header of '{files[0].name}'", stated["times"], stated["unit"]
    elif found:
        source, (values, unit, _) = f"{found[2]} of the JSON sidecar", found
    else:
        wanted = "SpinLockTime" if kind == "T1rho" else "EchoTime"
        raise EchoSeriesError(f"Nothing gives the times of '{files[0].name}': add a JSON sidecar with {wanted} in s, "
                              "or give times_ms.", anchor="times")
    times, note = to_milliseconds(values, source, unit)
    require_plausible(times, kind, source)
    return times, note

