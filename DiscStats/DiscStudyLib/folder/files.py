"""Checks of single image files and echo series, for ``validate``."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.echo import KINDS, read_json, sidecar_of, stated_times
from DiscRelaxometryLib.errors import DiscRelaxometryError, EchoSeriesError
from DiscRelaxometryLib.image import read_header, read_image, read_volumes

from .study import Series

#: Fields that identify a person; they are never copied, and a study should not carry them.
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "OtherPatientIDs", "AccessionNumber",
            "ReferringPhysicianName", "OperatorsName", "InstitutionName", "InstitutionAddress")
#: Sidecar field that a missing or wrong time is asked for in.
TIME_FIELD = {"T1rho": "SpinLockTime", "T2": "EchoTime"}
LINK_TO_NOTHING = ("error", "The file is a link to one that is not here.",
                   "Get that file, as 'datalad get' does, or remove the link.")
_BODY_PARTS = ("SPINE", "LSPINE", "LUMBAR", "LUMBARSPINE", "TLSPINE", "LSSPINE", "LWS", "WHOLESPINE", "ABDOMEN", "")


def check_image(path: Path, read: bool = True) -> Iterator[tuple[str, str, str]]:
    """Yield (severity, problem, remedy) of one volume: readable, lumbar field of view, sagittal, usable unit."""
    if not path.exists():
        yield LINK_TO_NOTHING
        return
    header = read_header(path)
    if header is None:
        yield ("error", "The file cannot be read: it is damaged, or no image.", "Export or convert it again.")
        return
    if header.GetDimension() == 4 and header.GetSize()[3] > 1:
        yield ("error", f"The volume is 4-D ({header.GetSize()[3]} volumes).",
               "Name an echo series '_T1rho' or '_MESE'; a T2-weighted volume is 3-D.")
        return
    found = [*_check_view(header), *_check_sidecar(path)]
    yield from found
    if not read or any(severity == "error" for severity, _, _ in found):
        return
    try:
        image = read_image(path)
    except DiscRelaxometryError as error:
        yield ("error", error.message, "Copy, export or convert it again.")
    else:
        yield from (("warning", note, "Look at the image in a viewer.") for note in image.meta.get("notes", []))


def check_labels(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (severity, problem, remedy) of a segmentation's label values: whose they are, and which nobody knows."""
    from DiscRelaxometryLib.discs import project_labels

    try:
        _, notes = project_labels(read_image(path))
    except DiscRelaxometryError as error:
        yield ("error", error.message, "Correct the segmentation, or use --segmentation cnn.")
        return
    yield from (("note", note, "Look at the segmentation.") for note in notes)


def _readable(path: Path) -> bool:
    """Read all data; a truncated file is none."""
    try:
        read_volumes(path)
    except DiscRelaxometryError:
        return False
    return True


def _check_view(header: sitk.ImageFileReader) -> Iterator[tuple[str, str, str]]:
    """Check unit, orientation and extent of the field of view."""
    spacing = np.array(header.GetSpacing()[:3])
    size = np.array(header.GetSize()[:3])
    dimension = header.GetDimension()
    direction = np.array(header.GetDirection()).reshape(dimension, dimension)[:3, :3]
    if spacing.max() > 50 or spacing.max() < 0.05 or spacing.min() <= 0:
        yield ("error", f"The voxel spacing {tuple(float(f'{s:.4g}') for s in spacing)} is not in mm.",
               "Correct the header: lengths are in mm.")
        return
    extent = np.abs(direction) @ (spacing * size)  # mm along left-right, anterior-posterior, cranio-caudal
    slices = int(np.argmin(size)) if size.min() < 0.5 * np.median(size) else int(np.argmax(spacing))
    axis = int(np.argmax(np.abs(direction[:, slices])))
    if size.min() < 2:
        yield ("warning", "The volume is a single slice.",
               "Read its signal and grades as those of that slice; volume and width of the discs are not seen.")
    if axis != 0 and (spacing.max() > 1.5 * spacing.min() or size.min() < 0.5 * np.median(size)):
        name = {1: "coronal", 2: "axial"}[axis]
        yield ("error", f"The slices are {name}, not sagittal.", "Use the sagittal series of the lumbar spine.")
    elif extent[2] < 100:
        yield ("error", f"The image covers {extent[2]:.0f} mm from head to foot: not a lumbar spine.",
               "Use a sagittal series that shows L1 to S1 (usually 200 mm or more).")
    elif extent[2] < 150:
        yield ("warning", f"The image covers {extent[2]:.0f} mm from head to foot; upper levels may be cut off.",
               "Look at the segmentation.")


def _check_sidecar(path: Path) -> Iterator[tuple[str, str, str]]:
    """Check the optional sidecar of a volume: identity, body part."""
    file = sidecar_of(path)
    try:
        data = read_json(file) if file.exists() else {}
    except EchoSeriesError:
        yield ("error", "The JSON sidecar cannot be read.", "Correct or remove it.")
        return
    identity = [n for n in IDENTITY if data.get(n)]
    if identity:
        yield ("warning", f"The sidecar holds identifying fields ({', '.join(identity)}).",
               "Remove them; they are not copied to results.")
    part = str(data.get("BodyPartExamined", "")).upper().replace(" ", "").replace("_", "").replace("-", "")
    if part and not any(p and p in part for p in _BODY_PARTS):
        yield ("error", f"The sidecar says body part '{data['BodyPartExamined']}': not a lumbar spine.",
               "Use a lumbar series, or correct 'BodyPartExamined'.")


def check_series(series: Series, read: bool = True) -> Iterator[tuple[Path, str, str, str]]:
    """Yield (file, severity, problem, remedy) of an echo series: files, sidecars, times and their unit."""
    volumes = 0
    for file in series.files:
        if not file.exists():
            yield (file, *LINK_TO_NOTHING)
            return
        header = read_header(file)
        if header is None or (read and not _readable(file)):
            yield (file, "error", "The file cannot be read: it is damaged, truncated, or no image.",
                   "Export or convert it again.")
            return
        volumes += header.GetSize()[3] if header.GetDimension() == 4 else 1
        if file is series.files[0]:
            yield from ((file, *finding) for finding in _check_view(header))
    first = series.files[0]
    if not any(sidecar_of(f).exists() for f in series.files):
        what = "spin-lock" if series.kind != "T2" else "echo"
        field = TIME_FIELD["T2" if series.kind == "T2" else "T1rho"]
        yield (first, "error", f"The JSON sidecar is missing, so the {what} times are unknown.",
               f"Write '{sidecar_of(first).name}' with '{field}': [...] in seconds; times are never guessed.")
        return
    for file in series.files:
        yield from ((file, *finding) for finding in _check_sidecar(file))
    yield from _check_times(series, volumes)


def _check_times(series: Series, volumes: int) -> Iterator[tuple[Path, str, str, str]]:
    """Check the times of each map the series gives; MAPSS gives two, of four volumes each."""
    if series.kind == "mapss":
        if volumes != 7:
            yield (series.files[0], "error", f"There are {volumes} volumes; a combined MAPSS acquisition has 7.",
                   "Name separate series '_T1rho' and '_MESE'.")
            return
        for kind in KINDS:
            yield from _check_kind(series, kind, 4)
        return
    yield from _check_kind(series, series.kind, volumes)


def _check_kind(series: Series, kind: str, volumes: int) -> Iterator[tuple[Path, str, str, str]]:
    field = TIME_FIELD[kind]
    first = series.files[0]
    try:
        found = stated_times(series.files, kind, volumes)
    except EchoSeriesError as error:
        yield (first, "error", error.message, "Correct the sidecar.")
        return
    if found is None or (series.kind == "mapss" and kind == "T1rho" and found[2].startswith("EchoTime")):
        yield (first, "error", f"The sidecar lacks the times of the {kind} map ('{field}').",
               f"Add '{field}' in seconds, one value per volume.")
        return
    times, seconds = found[0], found[1] != "ms"
    if len(times) != volumes:
        yield (first, "error", f"There are {volumes} volumes but {len(times)} times of the {kind} map.",
               "Give one time per volume.")
    elif seconds and max(times) > 1.0:
        yield (first, "error", f"The times reach {max(times):g}: they are in ms, where BIDS wants seconds.",
               f"Divide '{field}' by 1000, or name it '{field}_ms'.")
    elif seconds and 0 < max(times) < 0.001:
        yield (first, "error", f"The longest time is {max(times):g} s: the unit is wrong.", "Give seconds.")
