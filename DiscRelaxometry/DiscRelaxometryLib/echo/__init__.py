"""Echo series: read from DICOM, NIfTI and NRRD files, with their times, and aligned."""

from .align import align_echoes
from .dicom import find_echoes
from .dicom_files import list_files
from .names import component, group_series, series_name, stem
from .read import EchoSeries, read_echo_series, read_mapss
from .series import KINDS
from .sidecars import read_json, sidecar_of, sidecar_values, stated_times

__all__ = [
    "align_echoes", "component", "EchoSeries", "find_echoes", "group_series", "KINDS", "list_files", "read_echo_series",
    "read_json", "read_mapss", "series_name", "sidecar_of", "sidecar_values", "stated_times", "stem",
]
