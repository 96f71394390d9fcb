"""Frames of classic and enhanced MR images: position, orientation, header values and pixels, one object a frame.

File names and file order mean nothing; nothing that identifies a patient is kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError
from ..progress import ProgressCallback, silent
from .times import number

_IMAGE_CLASSES = {"1.2.840.10008.5.1.4.1.1.4": "MR Image", "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image",
                  "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image"}
_PHASE_WORDS = {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "MIXED", "R_SE", "I_SE", "P_SE", "R_FFE",
                "I_FFE", "P_FFE"}
_MAP_WORDS = {"T2 MAP", "T2_MAP", "T2MAP", "T1RHO MAP", "R2_MAP", "R2 MAP", "T2_STAR MAP"}
_KEPT = ("EchoTime", "EffectiveEchoTime", "InversionTime", "TriggerTime", "ImageComments", "FrameComments",
         "FrameLabel", "SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName", "AcquisitionContrast",
         "DerivationDescription", "ScanOptions", "EchoNumbers", "AcquisitionNumber", "TemporalPositionIdentifier",
         "TemporalPositionIndex", "InstanceNumber", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
         "SpacingBetweenSlices", "SliceThickness", "RescaleSlope", "RescaleIntercept", "ImageType", "FrameType",
         "ComplexImageComponent")
#: Acquisition facts that a map's provenance may carry.
_DESCRIBED = ("Manufacturer", "ManufacturerModelName", "MagneticFieldStrength", "RepetitionTime", "FlipAngle",
              "MRAcquisitionType", "EchoTrainLength", "SliceThickness", "PixelBandwidth")
_PHILIPS = "Philips MR Imaging DD 001"


@dataclass
class Frame:
    """One 2-D image: where it lies, what its header says, where its pixels are.

    Attributes
    ----------
    file : Path
    index : int
        Frame number within the file.
    series : str
        Series instance UID.
    number : int
        Series number; 0 where absent.
    rows, columns : int
    header : dict
        Header values keyed by keyword, private ones by ``GGGGEEEE``.
    scale : tuple of float
        Slope and intercept from stored values to signal.
    described : dict
        Facts of the acquisition without identity.
    """

    file: Path
    index: int
    series: str
    number: int
    rows: int
    columns: int
    header: dict = field(repr=False)
    scale: tuple[float, float] = (1.0, 0.0)
    described: dict = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """File name and, in a multi-frame file, the frame's number from 1."""
        return f"'{self.file.name}'" + (f" frame {self.index + 1}" if self.header.get("multiframe") else "")

    def vector(self, keyword: str, length: int) -> np.ndarray:
        """Return a numeric header value of `length` numbers.

        Raises
        ------
        EchoSeriesError
            If it is absent or not numeric.
        """
        try:
            value = np.array([float(v) for v in self.header[keyword]])
        except (KeyError, TypeError, ValueError):
            value = np.empty(0)
        if len(value) != length or not np.all(np.isfinite(value)):
            raise EchoSeriesError(f"{self.name} has no usable {keyword}: export the original images again.",
                                  anchor="missing-geometry")
        return value


def list_files(path: str | os.PathLike | Iterable[str | os.PathLike]) -> list[Path]:
    """Return the files of a folder (and its subfolders), of one path, or of a list of paths."""
    if not isinstance(path, (str, os.PathLike)):
        return [Path(p) for p in path]
    path = Path(path)
    if not path.exists():
        raise EchoSeriesError(f"'{path}' does not exist.")
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")
                  and p.name.upper() != "DICOMDIR")


def read_frames(files: list[Path], progressCallback: ProgressCallback = silent) -> tuple[list[Frame], list[str]]:
    """Return the magnitude frames of all MR images among `files`, and notes on what was left out.

    Raises
    ------
    EchoSeriesError
        If there is no MR image, a file is truncated, or an image is not a plain gray one.
    """
    frames, skipped, others = [], 0, 0
    for step, file in enumerate(files):
        progressCallback(step / len(files), f"Reading headers, file {step + 1} of {len(files)}")
        found = _file_frames(file)
        others += found is None
        for frame in found or ():
            if _is_magnitude(frame.header):
                frames.append(frame)
            else:
                skipped += 1
    if not frames:
        raise EchoSeriesError(f"None of the {len(files)} file(s) is a DICOM MR magnitude image.", anchor="no-mr-image")
    notes = []
    if skipped:
        notes.append(f"{skipped} phase, real, imaginary or map image(s) were left out.")
    if others:
        notes.append(f"{others} file(s) that are no MR images were left out.")
    return frames, notes


def _file_frames(file: Path) -> list[Frame] | None:
    """Return the frames of a file, or None if it is no DICOM MR image."""
    try:
        dataset = _header(file)
        return None if dataset is None else list(_frames(file, dataset))
    except EchoSeriesError:
        raise
    except Exception as error:
        # A damaged header fails anywhere in pydicom, because elements are converted when they are looked at.
        raise _truncated(file) from error


def _header(file: Path):
    """Return a file's dataset without pixels, or None if the file is no DICOM MR image."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        return None
    if "SOPClassUID" not in dataset:
        raise _truncated(file)
    if str(dataset.SOPClassUID) not in _IMAGE_CLASSES:
        return None
    if dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation", "") != "MONOCHROME2":
        raise EchoSeriesError(f"'{file.name}' is {dataset.get('PhotometricInterpretation', 'of unknown color')}, not a "
                              "plain gray image (MONOCHROME2): export the original images again.", anchor="color")
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise _truncated(file)
    return dataset


def _truncated(file: Path) -> EchoSeriesError:
    return EchoSeriesError(f"'{file.name}' is truncated or damaged: copy or export it again.", anchor="truncated")


def _frames(file: Path, dataset) -> Iterator[Frame]:
    common = _values(dataset)
    shared = dataset.get("SharedFunctionalGroupsSequence")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    described = {k: _plain(dataset.get(k)) for k in _DESCRIBED if dataset.get(k) not in (None, "")}
    fixed = {"file": file, "series": str(dataset.get("SeriesInstanceUID", "")),
             "number": int(dataset.get("SeriesNumber") or 0),
             "rows": int(dataset.Rows), "columns": int(dataset.Columns)}
    if not per_frame:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise EchoSeriesError(f"'{file.name}' has several frames but no functional groups that say where they lie: "
                                  "export enhanced or single-frame images.", anchor="missing-geometry")
        yield Frame(index=0, header=common, scale=_scale(dataset, [dataset]), described=described, **fixed)
        return
    if len(per_frame) != int(dataset.get("NumberOfFrames") or len(per_frame)):
        raise _truncated(file)
    base = dict(common, multiframe=True)
    for group in shared or []:
        base |= _flattened(group)
    for index, group in enumerate(per_frame):
        scale = _scale(dataset, [*_items(group), *(_items(shared[0]) if shared else [])])
        yield Frame(index=index, header=base | _flattened(group), scale=scale, described=described, **fixed)


def _items(group) -> list:
    """Return a functional group and all items of the sequences in it."""
    found = [group]
    for element in group:
        if element.VR == "SQ":
            for item in element.value:
                found += _items(item)
    return found


def _flattened(group) -> dict:
    values = {}
    for item in _items(group):
        values |= _values(item)
    return values


def _values(dataset) -> dict:
    """Return the kept attributes and the private numeric ones of one dataset level."""
    values = {k: dataset.get(k) for k in _KEPT if dataset.get(k) is not None}
    for element in dataset:
        if element.tag.is_private and element.VR in ("DS", "IS", "FL", "FD", "SS", "US", "SL", "UL", "UN"):
            value = _private_number(element)
            if value is not None:
                values[f"{element.tag.group:04X}{element.tag.element:04X}"] = value
    return values


def _private_number(element) -> float | None:
    value = element.value
    if element.VR == "UN" and isinstance(value, bytes):
        # An unknown VR may hide a decimal string.
        value = value.decode("ascii", "ignore").strip(" \0") if len(value) <= 16 else None
    return number(value)


def _plain(value):
    as_number = number(value)
    return as_number if as_number is not None else str(value)


def _is_magnitude(header: dict) -> bool:
    component = str(header.get("ComplexImageComponent") or "MAGNITUDE").upper()
    words = {str(w).upper() for w in [*(header.get("ImageType") or []), *(header.get("FrameType") or [])][2:]}
    return component == "MAGNITUDE" and not words & (_PHASE_WORDS | _MAP_WORDS)


def _scale(dataset, items: list) -> tuple[float, float]:
    """Return slope and intercept from stored values to signal.

    Philips rescales each image for display; dividing by its private scale slope makes images of one series
    comparable: FP = (SV * RS + RI) / (RS * SS).
    """
    slope = next((number(i.get("RescaleSlope")) for i in items if i.get("RescaleSlope") is not None), 1.0) or 1.0
    intercept = next((number(i.get("RescaleIntercept")) for i in items if i.get("RescaleIntercept") is not None),
                     0.0) or 0.0
    if "philips" in str(dataset.get("Manufacturer", "")).lower():
        for item in items:
            factor = _philips_scale_slope(item)
            if factor:
                return 1 / factor, intercept / (slope * factor)
    return slope, intercept


def _philips_scale_slope(item) -> float | None:
    try:
        return number(item.private_block(0x2005, _PHILIPS)[0x0E].value)
    except KeyError:
        return None


def read_pixels(file: Path) -> tuple[np.ndarray, int | None]:
    """Return a file's stored values (frame, row, column) and its pixel padding value.

    Raises
    ------
    EchoSeriesError
        If the pixels are absent, fewer than the header says, or compressed in a way that can not be decoded.
    """
    import pydicom

    dataset = pydicom.dcmread(file)
    try:
        pixels = dataset.pixel_array
    except (NotImplementedError, RuntimeError) as error:
        raise EchoSeriesError(f"'{file.name}' is compressed ({dataset.file_meta.TransferSyntaxUID.name}) and can not "
                              "be decoded here: export it uncompressed.", anchor="compressed") from error
    except Exception as error:
        raise _truncated(file) from error
    padding = dataset.get("PixelPaddingValue")
    return pixels.reshape(-1, dataset.Rows, dataset.Columns), int(padding) if padding is not None else None
