"""Images on their grids, read and written without losses."""

from .grid import Geometry, Image, bounding_box, one_thread, require_same_geometry, resample, voxel_points
from .read import format_ending, read_header, read_image, read_volumes
from .write import check_output, require_written, save_checked, write_image

__all__ = [
    "bounding_box", "check_output", "format_ending", "Geometry", "Image", "one_thread", "read_header", "read_image",
    "read_volumes", "require_same_geometry", "require_written", "resample", "save_checked", "voxel_points",
    "write_image",
]
