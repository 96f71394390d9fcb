"""Measures of each disc and its regions, and labels carried from one image to another."""

from .carry import carry_labels
from .measures import measure_all, measure_discs, measure_regions, measure_spine, statistics
from .normalize import normalized_t2w
from .regions import (
    NUCLEUS,
    PARTITION,
    NucleusShape,
    disc_coordinates,
    disc_frame,
    disc_frames,
    region_image,
    spine_axes,
)
from .resample_labels import resample_labels
from .spine import DISC_COLUMNS

__all__ = [
    "carry_labels", "DISC_COLUMNS", "disc_coordinates", "disc_frame", "disc_frames", "measure_all", "measure_discs",
    "measure_regions", "measure_spine", "normalized_t2w", "NUCLEUS", "NucleusShape", "PARTITION", "region_image",
    "resample_labels", "spine_axes", "statistics",
]
