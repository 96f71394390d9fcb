"""The report of a study: one HTML page with figures, tables and methods."""

from .figures import save_figure
from .figures_maps import Look, map_row, person_tile, write_picture
from .grades import NETWORK, grades_beside
from .group import sections as group_sections
from .methods import reported
from .page import Report, cell_text, write_report
from .people import sections as people_sections

__all__ = [
    "cell_text", "grades_beside", "group_sections", "Look", "map_row", "NETWORK", "people_sections", "person_tile",
    "Report", "reported", "save_figure", "write_picture", "write_report",
]
