"""One analysis of maps against a table: from images and formula to result maps."""

from .analyze import AnalysisResult, analyze
from .data import AnalysisData, Values, gather
from .plots_data import PlotData, plot_data
from .power import Planted, design_power, place_of
from .save import save_analysis
from .spread import DEPENDS
from .zscore import group_maps, group_moments, reference_group, z_score

__all__ = [
    "AnalysisData", "AnalysisResult", "analyze", "DEPENDS", "design_power", "gather", "group_maps", "group_moments",
    "place_of", "Planted", "plot_data", "PlotData", "reference_group", "save_analysis", "Values", "z_score",
]
