"""Echo series from NIfTI with BIDS sidecars, NRRD, MetaImage, and Slicer sequences (``.seq.nrrd``)."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import EchoSeriesError, GeometryError
from ..image import Geometry
from ..nifti import restore_missing
from .dicom import sidecar_values
from .dicom_volumes import integer_notes
from .series import KINDS, EchoSeries
from .times import guess_kind, to_milliseconds

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
#: File name parts that count echoes; files that differ in these alone are one series.
_ECHO_ENTITY = re.compile(r"(?:^|_)(?:echo|tsl|te|inv|acq-tsl)-?(\d+)(?:ms)?(?=_|$)", re.I)
_LEFT_OUT = re.compile(r"(?:^|_)(?:part-(?:phase|real|imag)|(?:desc|label)-[^_]+|[^_]*(?:dseg|mask|map|probseg))"
                       r"(?=_|$)", re.I)
_KINDS_OF_SUFFIX = {"MESE": "T2", "T2": "T2", "T2w": "T2", "TSL": "T1rho", "T1rho": "T1rho", "T1rhow": "T1rho"}


def image_files(path: str | os.PathLike | Iterable) -> list[Path]:
    """Return the NIfTI, NRRD and MetaImage files of a folder, a path, or a list; empty if there are none."""
    if not isinstance(path, (str, os.PathLike)):
        return [Path(p) for p in path if str(p).lower().endswith(SUFFIXES)]
    path = Path(path)
    files = sorted(p for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else [path]
    return [p for p in files if p.name.lower().endswith(SUFFIXES)]


def read_file_series(path: str | os.PathLike | Iterable, kind: str | None = None,
                     times_ms: Sequence[float] | None = None) -> EchoSeries:
    """Read one echo series from image files; parameters and errors as for ``echo.read_echo_series``."""
    echoes, geometry, meta, files, stated = read_volumes(path)
    kind = kind or _kind(files, stated)
    if times_ms is not None:
        times, note = list(times_ms), "Times were given, in the order of the volumes."
    else:
        times, note = _times(files, stated, kind, len(echoes))
    return EchoSeries(echoes, np.array(times, float), kind, geometry, {**meta, "notes": [*meta["notes"], note]})


def read_volumes(path: str | os.PathLike | Iterable) -> tuple[np.ndarray, Geometry, dict, list[Path], dict]:
    """Return volumes (n, k, j, i), geometry, metadata, their files, and times stated in the file itself."""
    files = _one_series(image_files(path))
    volumes, geometry, notes, stated = [], None, [], {}
    for file in files:
        array, grid, header, more = _read(file)
        difference = geometry.difference(grid) if geometry else ""
        if difference:
            raise EchoSeriesError(f"'{file.name}' is on another grid than '{files[0].name}' ({difference}): the echoes "
                                  "of a series share one grid.", anchor="different-geometry")
        geometry = geometry or grid
        volumes.append(array)
        notes += [n for n in more if n not in notes]
        stated = header or stated
    echoes = np.concatenate(volumes)
    meta = {"format": files[0].name.partition(".")[2].lower(), "notes": notes}
    return echoes, geometry, meta, files, stated if len(files) == 1 else {}


def _one_series(files: list[Path]) -> list[Path]:
    """Return the files of the only series among `files`, in order of their echo number."""
    files = [f for f in files if not _LEFT_OUT.search(_stem(f))]
    if not files:
        raise EchoSeriesError("There is no NIfTI, NRRD or MetaImage echo file here.", anchor="no-image")
    groups = defaultdict(list)
    for file in files:
        groups[(file.parent, _ECHO_ENTITY.sub("", _stem(file)))].append(file)
    if len(groups) > 1 and not any(_ECHO_ENTITY.search(_stem(f)) for f in files) and _differ_in_number(files):
        groups = {None: files}
    if len(groups) > 1:
        listed = ", ".join(f"'{group[0].name}' ({len(group)})" for group in groups.values())
        raise EchoSeriesError(f"The files mix {len(groups)} series: {listed}. Give the files of one series.",
                              anchor="mixed-series")
    return sorted(next(iter(groups.values())), key=lambda f: [int(n) for n in _ECHO_ENTITY.findall(_stem(f))]
                  or [int(n) for n in re.findall(r"\d+", _stem(f))])


def _differ_in_number(files: list[Path]) -> bool:
    """Tell whether names differ in one number only, as echo1.nrrd, echo2.nrrd do."""
    parts = [re.split(r"(\d+)", _stem(f)) for f in files]
    return len({len(p) for p in parts}) == 1 and sum(len(set(c)) > 1 for c in zip(*parts)) == 1


def _stem(file: Path) -> str:
    return re.sub(r"(\.seq)?(\.nii\.gz|\.nii|\.nrrd|\.nhdr|\.mha|\.mhd)$", "", file.name, flags=re.I)


def _read(file: Path) -> tuple[np.ndarray, Geometry, dict, list[str]]:
    """Return volumes (n, k, j, i), their grid, times stated in the header, and notes."""
    if not file.exists():
        raise EchoSeriesError(f"'{file}' does not exist.")
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise EchoSeriesError(f"'{file.name}' can not be read: the file is truncated, damaged, or no image.",
                              anchor="truncated") from error
    header = nrrd_times(file) if file.name.lower().endswith((".nrrd", ".nhdr")) else {}
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        try:
            restore_missing(array, file)
        except GeometryError as error:
            raise EchoSeriesError(str(error), anchor="truncated") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() == 3:
        array = array[None]
    if array.ndim != 4 or (image.GetDimension() == 4 and image.GetNumberOfComponentsPerPixel() > 1):
        raise EchoSeriesError(f"'{file.name}' has {array.ndim} dimensions; volumes over time are needed.",
                              anchor="not-a-series")
    if np.iscomplexobj(array):
        raise EchoSeriesError(f"'{file.name}' holds complex numbers: export magnitude images.", anchor="complex")
    notes = []
    if np.issubdtype(array.dtype, np.integer):
        limit = np.iinfo(array.dtype).max
        notes = integer_notes(int(array.min()), int(array.max()), float(np.mean(array == limit)), limit)
    return array.astype(np.float32), _spatial(image, file), header, notes


def _spatial(image: sitk.Image, file: Path) -> Geometry:
    """Return the geometry of the first three axes."""
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    try:
        return Geometry(image.GetSize()[:3], image.GetSpacing()[:3], image.GetOrigin()[:3], tuple(direction.ravel()))
    except GeometryError as error:
        raise EchoSeriesError(f"'{file.name}': {error}", anchor="unusable-geometry") from None


def nrrd_times(file: Path) -> dict:
    """Return index values, their name and unit that Slicer wrote into a NRRD header (sequence or MultiVolume)."""
    fields = nrrd_header(file)
    # Older versions of Slicer put the sequence on axis 0, newer ones on axis 3.
    axis = next((n for n in range(4) if f"axis {n} index values" in fields), None)
    if axis is not None:
        values = fields[f"axis {axis} index values"].replace(",", " ").split()
        labels = [*re.findall(r'"([^"]*)"', fields.get("labels", "")), *[""] * 4]
        units = [*re.findall(r'"([^"]*)"', fields.get("units", "")), *[""] * 4]
        name, unit = labels[axis], units[axis]
    elif "MultiVolume.FrameLabels" in fields:
        values = fields["MultiVolume.FrameLabels"].split(",")
        name = fields.get("MultiVolume.FrameIdentifyingDICOMTagName", "")
        unit = fields.get("MultiVolume.FrameIdentifyingDICOMTagUnits", "")
    else:
        return {}
    try:
        return {"times": [float(v) for v in values], "name": name, "unit": unit if unit not in ("", "frame") else None}
    except ValueError:
        return {}


def nrrd_header(file: Path) -> dict[str, str]:
    """Return a NRRD header's fields and key/value pairs."""
    fields = {}
    with open(file, "rb") as stream:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            if not line:
                break
            match = re.match(r"([^:#]+):[= ]\s*(.*)", line)
            if match:
                fields[match.group(1)] = match.group(2)
    return fields


def _kind(files: list[Path], stated: dict) -> str:
    suffix = _stem(files[0]).rpartition("_")[2]
    if suffix in ("MEGRE", "T2starw"):
        raise EchoSeriesError(f"'{files[0].name}' holds gradient echoes, which measure T2*, not T2: use spin echoes or "
                              "T2-prepared images.", anchor="kind")
    contents = [c for c in map(_sidecar, files) if c]
    named = {k for c in contents for k in KINDS if c.get("Kind") == k}
    spin_lock = any(sidecar_values({k: v for k, v in c.items() if k.startswith(("SpinLock", "TSL"))}, "T1rho")
                    for c in contents)
    kind = (next(iter(named)) if len(named) == 1 else None) or ("T1rho" if spin_lock else None)
    kind = kind or _KINDS_OF_SUFFIX.get(suffix)
    kind = kind or guess_kind([_stem(files[0]), stated.get("name", "")])
    if kind is None and ("echo" in stated.get("name", "").lower() or any(
            sidecar_values(c, "T2") for c in contents)):
        kind = "T2"
    if kind is None:
        raise EchoSeriesError(f"'{files[0].name}' does not say whether it is a T1rho or a T2 series: give "
                              "kind=\"T1rho\" or kind=\"T2\".", anchor="kind")
    return kind


def _times(files: list[Path], stated: dict, kind: str, count: int) -> tuple[list[float], str]:
    contents = [(f, _sidecar(f)) for f in files]
    found = [(f, sidecar_values(c, kind)) for f, c in contents if c]
    found = [(f, v) for f, v in found if v]
    if len(files) == 1 and not found and stated.get("times"):
        return to_milliseconds(stated["times"], f"the header of '{files[0].name}'", stated["unit"])
    if len(found) == len(files):
        key, unit = found[0][1][2], found[0][1][1]
        lists = [values for _, (values, _, _) in found]
        # A sidecar shared by all echoes lists all times; one of its own gives one.
        values = lists[0] if len(lists[0]) == count else [v for values in lists for v in values]
        return to_milliseconds(values, f"{key} of the JSON sidecar", unit)
    if found:
        odd = next(f for f in files if f not in [g for g, _ in found])
        raise EchoSeriesError(f"The sidecar of '{odd.name}' is missing or holds no time: add it, or give times_ms.",
                              anchor="sidecar")
    wanted = "SpinLockTime" if kind == "T1rho" else "EchoTime"
    raise EchoSeriesError(f"Nothing gives the times of '{files[0].name}': add a JSON sidecar with {wanted} in s, or "
                          "give times_ms.", anchor="times")


def _sidecar(file: Path) -> dict | None:
    """Return the JSON beside an image: of its own name, or of the name without the echo entity."""
    for stem in dict.fromkeys((_stem(file), _ECHO_ENTITY.sub("", _stem(file)))):
        candidate = file.with_name(stem + ".json")
        if candidate.exists():
            try:
                content = json.loads(candidate.read_text(encoding="utf-8-sig"))
            except ValueError:
                raise EchoSeriesError(f"The sidecar '{candidate.name}' is no valid JSON: correct or remove it.",
                                      anchor="sidecar") from None
            if isinstance(content, dict):
                return content
    return None
