"""The study's pipeline: stages of person steps and group steps."""

from DiscRelaxometryLib.echo import KINDS

from ..engine import SENSITIVITY, Stage
from ..folder import EVERY, Settings
from .analysis import TEMPLATE_STEP, analysis_step
from .group import MEANS_STEP, SCORE_STEP, TABLES_STEP, group_means_step
from .maps import map_steps
from .models import models_step
from .person import ATLAS_STEP, GRADE_STEP, MEASURE_STEP, NORMALIZE_STEP, SEGMENT_STEP
from .pooled import POOLED_STEP
from .report import TILE_STEP, report_step
from .review import AUTOMATIC_STEP, REVIEW_STEP, decisions_step
from .visits import REPEATABILITY_STEP

#: What the group's steps import: plots, and statistics.
_GROUP_IMPORTS = ("DiscStatsLib.tables.agreement", "DiscStudyLib.report.group", "matplotlib.backends.backend_agg",
                  "matplotlib.figure")


def stages(settings: Settings) -> list[Stage]:
    """Return the stages; building a template waits for everyone's shapes, the shipped atlas does not."""
    maps = [s for kind in KINDS for s in map_steps(kind)]
    first = (SEGMENT_STEP, REVIEW_STEP, *maps, NORMALIZE_STEP, MEASURE_STEP, GRADE_STEP, AUTOMATIC_STEP, SCORE_STEP,
             TILE_STEP)
    group = [TABLES_STEP, MEANS_STEP, decisions_step()]
    group += [REPEATABILITY_STEP] if settings.session == EVERY else []
    grades = ("grade",) * settings.estimated + ("measure",) * bool(settings.measured_besides())
    group += [group_means_step(grades)] if settings.compared else []
    if settings.formula:
        group += [POOLED_STEP] if settings.pooled else []
        group += [analysis_step(settings.analysis, pooled=settings.pooled, after=grades), models_step(grades)]
        if settings.sensitivity:
            group.append(analysis_step(settings.analysis + SENSITIVITY, settings.sensitivity, settings.pooled, grades))
    group.append(report_step(settings.analysis if settings.formula else "", bool(settings.sensitivity)))
    last = Stage("group", tuple(group), _GROUP_IMPORTS)
    if settings.template == "build":
        return [Stage("person", first), Stage("group", (TEMPLATE_STEP,)), Stage("person", (ATLAS_STEP,)), last]
    return [Stage("person", (*first, ATLAS_STEP)), last]
