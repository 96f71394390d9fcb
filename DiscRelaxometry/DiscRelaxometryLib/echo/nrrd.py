"""NRRD headers: times of Slicer's sequences and MultiVolumes, and what else they say of the images."""

import re
from pathlib import Path

from .contents import KEYWORDS


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


def nrrd_described(file: Path) -> dict:
    """Return what a header says of the kind of its images, by DICOM keyword; converters add prefixes."""
    fields = {re.sub(r"^(MultiVolume\.)?DICOM[._]", "", k): v for k, v in nrrd_header(file).items()}
    return {k: fields[k] for k in (*KEYWORDS, "SeriesDescription", "ProtocolName") if k in fields}


def is_nrrd(file: Path) -> bool:
    """Tell by its ending whether a file has a NRRD header."""
    return file.name.lower().endswith((".nrrd", ".nhdr"))


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
