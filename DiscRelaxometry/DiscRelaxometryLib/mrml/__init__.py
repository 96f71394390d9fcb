"""Between MRML nodes and the project's arrays, tables and echo series: the names that Logic classes use.

Nothing heavy is imported until a name is used, because Slicer imports every module when it starts.
"""

import importlib

_HOMES = {
    "edits": (
        "disc_segments", "disc_under", "edited_discs", "ensure_disc_segment", "free_level", "keep_grades",
        "kept_grades", "mark_written", "mask_image", "outside",
    ),
    "segmentations": (
        "LEVEL_REASON", "discs_of", "labels_from_segmentation", "level_moves", "own_geometry", "segment_centers",
        "segment_tag", "segment_value", "segmentation_from_labels", "set_segment_tag", "shift_segment_levels",
        "terminology_entry", "was_edited",
    ),
    "tables": (
        "echo_volume", "heading", "sequence_from_series", "sequence_of", "sequence_times", "series_from_nodes",
        "shown_volume", "table_from_node", "table_node",
    ),
    "views": ("show_alone", "show_in_views", "show_legend", "show_map"),
    "volumes": (
        "ATTRIBUTE", "FITTED_SERIES", "add_hidden_node", "add_node", "all_or_nothing", "color_node", "create_folder",
        "geometry_from_ras", "image_from_volume", "position_from_ras", "put_beside", "put_in_folder", "ras_matrix",
        "remove_nodes", "volume_from_image", "volume_geometry", "volumes_by_quantity",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = list(_HOME_OF)


def __getattr__(name: str):
    """Import the module that holds a name when the name is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value
