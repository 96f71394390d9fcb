"""Frames of classic and enhanced MR images: position, orientation and header values, one object per frame.

File names and file order mean nothing; nothing that identifies a patient is kept.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import EchoSeriesError
from ..progress import ProgressCallback, silent
from . import contents
from .dicom_files import damaged, mr_header
from .times import FREE_TEXT, number

#: Elements of a classic image, or of a whole enhanced one.
_KEPT = (*FREE_TEXT, *contents.KEYWORDS, "EchoTime", "EffectiveEchoTime", "InversionTime", "TriggerTime", "EchoNumbers",
         "AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "InstanceNumber", "PixelSpacing",
         "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "SliceThickness", "RescaleSlope",
         "RescaleIntercept")
#: Functional-group macros and the elements that they define (PS3.3 C.7.6.16.2, C.8.13.5, C.8.34): name there to name
#: here. What stands elsewhere in a group, in a vendor's sequence or a reference, is of something else.
_MACROS: dict[str, Mapping[str, str]] = {
    "PixelMeasuresSequence": {k: k for k in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices")},
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {k: k for k in ("RescaleSlope", "RescaleIntercept")},
    "FrameContentSequence": {"FrameComments": "FrameComments", "FrameLabel": "FrameLabel",
                             "FrameAcquisitionNumber": "AcquisitionNumber",
                             "TemporalPositionIndex": "TemporalPositionIndex"},
    "MREchoSequence": {"EffectiveEchoTime": "EffectiveEchoTime"},
    "MRModifierSequence": {"InversionTimes": "InversionTime"},
    "MRImageFrameTypeSequence": {k: k for k in ("FrameType", "ComplexImageComponent")},
    "UnassignedSharedConvertedAttributesSequence": {k: k for k in _KEPT},
    "UnassignedPerFrameConvertedAttributesSequence": {k: k for k in _KEPT},
}
#: Acquisition facts that a map's provenance may carry.
_DESCRIBED = ("Manufacturer", "ManufacturerModelName", "MagneticFieldStrength", "RepetitionTime", "FlipAngle",
              "MRAcquisitionType", "EchoTrainLength", "SliceThickness", "PixelBandwidth")
_PHILIPS = "Philips MR Imaging DD 001"
#: Vendors' private elements by name: group, creator, element.
_PRIVATE = {contents.GE_COMPONENT: (0x0043, "GEMS_PARM_01", 0x2F), contents.PHILIPS_COMPONENT: (0x2005, _PHILIPS, 0x11),
            contents.SIEMENS_TILES: (0x0019, "SIEMENS MR HEADER", 0x0A), "PhilipsScaleSlope": (0x2005, _PHILIPS, 0x0E)}


@dataclass
class Frame:
    """One 2-D image: where it lies, what its header says, where its pixels are."""

    file: Path
    #: Frame number within the file.
    index: int
    #: Series and study instance UID.
    series: str
    study: str
    #: Series number; 0 where absent.
    number: int
    rows: int
    columns: int
    #: Header values keyed by keyword, private ones by ``GGGGEEEE``.
    header: dict = field(repr=False)
    #: Slope and intercept from stored values to signal.
    scale: tuple[float, float] = (1.0, 0.0)
    #: Facts of the acquisition without identity.
    described: dict = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """File name and, in a multi-frame file, the frame's number from 1."""
        return f"'{self.file.name}'" + (f" frame {self.index + 1}" if self.header.get("multiframe") else "")

    @property
    def texts(self) -> str:
        """The descriptions that a technologist or a vendor gave the series."""
        return " ".join(str(self.header.get(k) or "") for k in ("SeriesDescription", "ProtocolName", "SequenceName",
                                                                "PulseSequenceName"))

    def vector(self, keyword: str, length: int) -> np.ndarray:
        """Return a numeric header value of `length` numbers; EchoSeriesError if it is absent or not numeric."""
        try:
            value = np.array([float(v) for v in self.header[keyword]])
        except (KeyError, TypeError, ValueError):
            value = np.empty(0)
        if len(value) != length or not np.all(np.isfinite(value)):
            raise EchoSeriesError(f"{self.name} has no usable {keyword}: export the original images again.",
                                  anchor="missing-geometry")
        return value


def read_frames(files: list[Path], progressCallback: ProgressCallback = silent) -> tuple[list[Frame], list[str]]:
    """Return the frames of all MR images among `files`, and notes on files that are something else.

    EchoSeriesError if there is no MR image, a file is truncated, or an image is not a plain gray one.
    """
    frames, others = [], []
    for step, file in enumerate(files):
        progressCallback(step / len(files), f"Reading headers, file {step + 1} of {len(files)}")
        found = _file_frames(file)
        if found is None:
            others.append(file)
        frames += found or ()
    if not frames:
        raise EchoSeriesError(f"None of the {len(files)} file(s) is a DICOM MR image.", anchor="no-mr-image")
    return frames, [contents.left_out_note(others, "no MR images")] if others else []


def _file_frames(file: Path) -> list[Frame] | None:
    """Return the frames of a file, or None if it is no DICOM MR image."""
    try:
        dataset = mr_header(file)
        return None if dataset is None else list(_frames(file, dataset))
    except EchoSeriesError:
        raise
    except Exception as error:
        # A damaged header fails anywhere in pydicom, because elements are converted when they are looked at.
        raise damaged(file) from error


def _frames(file: Path, dataset) -> Iterator[Frame]:
    common = {k: dataset.get(k) for k in _KEPT if dataset.get(k) is not None} | _private_values(dataset)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    fixed: dict = {"file": file, "series": str(dataset.get("SeriesInstanceUID", "")),
             "study": str(dataset.get("StudyInstanceUID", "")), "number": int(dataset.get("SeriesNumber") or 0),
             "rows": int(dataset.Rows), "columns": int(dataset.Columns),
             "described": {k: _plain(dataset.get(k)) for k in _DESCRIBED if dataset.get(k) not in (None, "")}}
    if not groups:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise EchoSeriesError(f"'{file.name}' has several frames but no functional groups that say where they lie: "
                                  "export enhanced or single-frame images.", anchor="missing-geometry")
        yield _checked(Frame(index=0, header=common, **fixed))
        return
    if len(groups) != int(dataset.get("NumberOfFrames") or len(groups)):
        raise damaged(file)
    for shared in dataset.get("SharedFunctionalGroupsSequence") or ():
        common |= _group_values(shared)
    for index, group in enumerate(groups):
        yield _checked(Frame(index=index, header={**common, "multiframe": True, **_group_values(group)}, **fixed))


def _checked(frame: Frame) -> Frame:
    """Return a frame with its scaling; refuse tiles.

    Philips rescales each image for display; dividing by its private scale slope makes images of one series
    comparable: FP = (SV * RS + RI) / (RS * SS).
    """
    header = frame.header
    if contents.is_tiled(header):
        raise EchoSeriesError(f"{frame.name} is a mosaic, which holds several slices as tiles: export one image per "
                              "slice, or enhanced DICOM.", anchor="mosaic")
    slope, intercept = (number(header.get(k)) if header.get(k) not in (None, "") else default
                        for k, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if not slope or intercept is None:
        raise EchoSeriesError(f"{frame.name} has an unusable RescaleSlope or RescaleIntercept "
                              f"({header.get('RescaleSlope')}, {header.get('RescaleIntercept')}): export the original "
                              "images again.", anchor="truncated")
    factor = number(header.get("PhilipsScaleSlope"))
    if factor:  # known by its private creator; anonymized images may lack the manufacturer
        slope, intercept = 1 / factor, intercept / (slope * factor)
    frame.scale = (slope, intercept)
    return frame


def _group_values(group) -> dict:
    """Return what a functional group says in the macros that define it, and vendors' private numbers."""
    values, private = {}, _private_values(group)
    for sequence, keywords in _MACROS.items():
        for item in group.get(sequence) or ():
            values |= {name: item.get(k) for k, name in keywords.items() if item.get(k) is not None}
            private = _private_values(item) | private
    return private | values


def _private_values(dataset) -> dict:
    """Return private numbers by ``GGGGEEEE``, outer ones before those of private sequences, and marks by name."""
    values: dict = {}
    nested = []
    # What is not private stays unread: pydicom converts an element when it is looked at.
    private = sorted(filter(lambda tag: tag.is_private, dataset.keys()))
    for element in map(dataset.__getitem__, private):
        if element.VR == "SQ":
            nested += element.value
        elif element.VR in ("DS", "IS", "FL", "FD", "SS", "US", "SL", "UL", "UN"):
            value = _private_number(element)
            if value is not None:
                values[f"{element.tag.group:04X}{element.tag.element:04X}"] = value
    for name, (group, creator, element) in _PRIVATE.items() if private else ():
        try:
            value = dataset.private_block(group, creator)[element].value
        except KeyError:
            continue
        values[name] = _decoded(value) if isinstance(value, bytes) else value
    for item in nested:
        values = _private_values(item) | values
    return values


def _private_number(element) -> float | None:
    value = element.value
    if element.VR == "UN" and isinstance(value, bytes):
        # An unknown VR may hide a decimal string.
        value = value.decode("ascii", "ignore").strip(" \0") if len(value) <= 16 else None
    return number(value)


def _decoded(value: bytes) -> str | int:
    """Return the text or the short integer that an element of unknown VR holds."""
    text = value.decode("ascii", "ignore").strip(" \0")
    return text if text.isprintable() and text else int.from_bytes(value[:2], "little")


def _plain(value):
    as_number = number(value)
    return as_number if as_number is not None else str(value)
