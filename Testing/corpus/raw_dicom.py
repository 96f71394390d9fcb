"""A writer of DICOM that checks nothing, so that tests can make what no library would write.

The encoding is that of DICOM PS3.5; a dataset is a dictionary of tag to VR and value.
"""

import struct

#: Keyword to tag and VR of what images of these tests hold.
TAGS = {"ImageType": (0x00080008, "CS"), "SOPClassUID": (0x00080016, "UI"), "SOPInstanceUID": (0x00080018, "UI"),
        "Modality": (0x00080060, "CS"), "Manufacturer": (0x00080070, "LO"), "SeriesDescription": (0x0008103E, "LO"),
        "ReferencedImageSequence": (0x00081140, "SQ"), "FrameType": (0x00089007, "CS"),
        "ComplexImageComponent": (0x00089208, "CS"), "ScanningSequence": (0x00180020, "CS"),
        "SliceThickness": (0x00180050, "DS"), "RepetitionTime": (0x00180080, "DS"), "EchoTime": (0x00180081, "DS"),
        "InversionTime": (0x00180082, "DS"), "EchoNumbers": (0x00180086, "IS"),
        "SpacingBetweenSlices": (0x00180088, "DS"), "TriggerTime": (0x00181060, "DS"),
        "EffectiveEchoTime": (0x00189082, "FD"), "MREchoSequence": (0x00189114, "SQ"),
        "MRImageFrameTypeSequence": (0x00189226, "SQ"), "StudyInstanceUID": (0x0020000D, "UI"),
        "SeriesInstanceUID": (0x0020000E, "UI"), "SeriesNumber": (0x00200011, "IS"),
        "AcquisitionNumber": (0x00200012, "IS"), "InstanceNumber": (0x00200013, "IS"),
        "ImagePositionPatient": (0x00200032, "DS"), "ImageOrientationPatient": (0x00200037, "DS"),
        "TemporalPositionIdentifier": (0x00200100, "IS"), "ImageComments": (0x00204000, "LT"),
        "FrameContentSequence": (0x00209111, "SQ"), "PlanePositionSequence": (0x00209113, "SQ"),
        "PlaneOrientationSequence": (0x00209116, "SQ"), "FrameComments": (0x00209158, "LT"),
        "SamplesPerPixel": (0x00280002, "US"), "PhotometricInterpretation": (0x00280004, "CS"),
        "NumberOfFrames": (0x00280008, "IS"), "Rows": (0x00280010, "US"), "Columns": (0x00280011, "US"),
        "PixelSpacing": (0x00280030, "DS"), "BitsAllocated": (0x00280100, "US"), "BitsStored": (0x00280101, "US"),
        "HighBit": (0x00280102, "US"), "PixelRepresentation": (0x00280103, "US"),
        "RescaleIntercept": (0x00281052, "DS"), "RescaleSlope": (0x00281053, "DS"),
        "PixelMeasuresSequence": (0x00289110, "SQ"), "PixelValueTransformationSequence": (0x00289145, "SQ"),
        "SharedFunctionalGroupsSequence": (0x52009229, "SQ"), "PerFrameFunctionalGroupsSequence": (0x52009230, "SQ"),
        "PixelData": (0x7FE00010, "OW")}
SYNTAXES = {"implicit": "1.2.840.10008.1.2", "explicit": "1.2.840.10008.1.2.1", "big": "1.2.840.10008.1.2.2"}
_LONG = {"OB", "OW", "SQ", "UN", "UT"}


def dataset(**elements) -> dict:
    """Return a dataset from keywords; lists are values of an element, or items of a sequence."""
    return {TAGS[k][0]: (TAGS[k][1], v) for k, v in elements.items() if v is not None}


def encoded(content: dict, syntax: str = "explicit") -> bytes:
    """Return a dataset in one of :data:`SYNTAXES`, elements in order of their tags."""
    order, out = ">" if syntax == "big" else "<", b""
    for tag, (vr, value) in sorted(content.items()):
        data = _value(vr, value, syntax)
        head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if syntax == "implicit":
            head += struct.pack(order + "I", len(data))
        elif vr in _LONG:
            head += vr.encode() + struct.pack(order + "HI", 0, len(data))
        else:
            head += vr.encode() + struct.pack(order + "H", len(data))
        out += head + data
    return out


def _value(vr: str, value, syntax: str) -> bytes:
    order = ">" if syntax == "big" else "<"
    if isinstance(value, bytes):
        data = value
    elif vr == "SQ":
        items = [encoded(item, syntax) for item in value]
        data = b"".join(struct.pack(order + "HHI", 0xFFFE, 0xE000, len(i)) + i for i in items)
    elif vr in ("US", "SS", "FD", "FL"):
        values = value if isinstance(value, list) else [value]
        data = struct.pack(order + {"US": "H", "SS": "h", "FD": "d", "FL": "f"}[vr] * len(values), *values)
    else:
        data = "\\".join(map(_text, value if isinstance(value, list) else [value])).encode("latin-1")
        data += b"\0" if vr == "UI" and len(data) % 2 else b""
    return data + b" " * (len(data) % 2)


def _text(value) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


def file_bytes(content: dict, syntax: str = "explicit", form: str = "part 10") -> bytes:
    """Return a file: with preamble and meta header (``part 10``), with the meta header alone, or the bare dataset."""
    meta = encoded({0x00020010: ("UI", SYNTAXES[syntax])})
    body = encoded(content, syntax)
    if form == "bare":
        return body
    meta = encoded({0x00020000: ("UL", struct.pack("<I", len(meta)))}) + meta
    return (bytes(128) + b"DICM" if form == "part 10" else b"") + meta + body
