"""One analysis of maps against a table: from images and formula to result maps."""

from .analyze import AnalysisResult, analyze
from .data import AnalysisData, gather
from .plots_data import PlotData, plot_data
from .save import save_analysis
from .spread import DEPENDS
from .zscore import group_maps, group_moments, reference_group, z_score

__all__ = [
    "AnalysisData", "AnalysisResult", "analyze", "DEPENDS", "gather", "group_maps", "group_moments", "plot_data",
    "PlotData", "reference_group", "save_analysis", "z_score",
]
