"""Analyses with their settings as plain keywords, so that a test shows only what it is about."""

from dataclasses import fields

from DiscStatsLib.analysis.analyze import analyze as analyze_with
from DiscStatsLib.settings import AnalysisSettings


def analyze(maps, atlas_labels, participants, formula, contrasts=None, **options):
    """Return :func:`DiscStatsLib.analysis.analyze` with those options that are settings as AnalysisSettings."""
    own = {f.name: options.pop(f.name) for f in fields(AnalysisSettings) if f.name in options}
    return analyze_with(maps, atlas_labels, participants, formula, contrasts, AnalysisSettings(**own), **options)
