"""Echo series: read from DICOM, NIfTI and NRRD files, with their times, and aligned."""

from .align import align_echoes
from .dicom import sidecar_values
from .dicom_frames import list_files
from .read import KINDS, EchoSeries, read_echo_series, read_mapss

__all__ = [
    "align_echoes", "EchoSeries", "KINDS", "list_files", "read_echo_series", "read_mapss", "sidecar_values",
]
