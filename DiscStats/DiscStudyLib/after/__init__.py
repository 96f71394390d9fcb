"""What is asked of a study that has run: status, tables, exports, maps."""

from .cohort_maps import atlas_of, find_maps
from .export import export_files, export_people
from .power import study_power
from .status import status_table
from .tables import compare_tables, mixed_model

__all__ = [
    "atlas_of", "compare_tables", "export_files", "export_people", "find_maps", "mixed_model", "status_table",
    "study_power",
]
