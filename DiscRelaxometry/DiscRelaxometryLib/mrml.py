"""Between MRML nodes and the project's arrays, tables and echo series: the names that Logic classes use."""

from __future__ import annotations

from .mrml_segmentations import (
    labels_from_segmentation,
    own_geometry,
    segment_tag,
    segment_value,
    segmentation_from_labels,
    set_segment_tag,
    shift_segment_levels,
    terminology_entry,
    was_edited,
)
from .mrml_tables import (
    echo_volume,
    sequence_from_series,
    sequence_of,
    sequence_times,
    series_from_nodes,
    table_from_node,
    table_node,
)
from .mrml_volumes import (
    ATTRIBUTE,
    FITTED_SERIES,
    add_node,
    all_or_nothing,
    color_node,
    create_folder,
    geometry_from_ras,
    image_from_volume,
    position_from_ras,
    put_in_folder,
    ras_matrix,
    volume_from_image,
    volume_geometry,
)

__all__ = [
    "ATTRIBUTE", "FITTED_SERIES", "add_node", "all_or_nothing", "color_node", "create_folder", "echo_volume",
    "geometry_from_ras", "image_from_volume", "labels_from_segmentation", "own_geometry", "position_from_ras",
    "put_in_folder", "ras_matrix", "segment_tag", "segment_value", "segmentation_from_labels", "sequence_from_series",
    "sequence_of", "sequence_times", "series_from_nodes", "set_segment_tag", "shift_segment_levels",
    "table_from_node", "table_node", "terminology_entry", "volume_from_image", "volume_geometry", "was_edited",
]
