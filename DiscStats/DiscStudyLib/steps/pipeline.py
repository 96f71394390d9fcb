"""The study's pipeline: stages of person steps and group steps."""

from ..engine import SENSITIVITY, Stage
from ..folder import EVERY, Settings
from .analysis import analysis_step, template_step
from .group import group_means_step, means_step, score_step, tables_step
from .models import models_step
from .person import atlas_step, person_steps
from .pooled import pooled_step
from .report import report_step, tile_step
from .review import automatic_step, decisions_step
from .visits import repeatability_step

#: What the group's steps import: plots, and statistics.
_GROUP_IMPORTS = ("DiscStatsLib.tables.agreement", "DiscStudyLib.report.group", "matplotlib.backends.backend_agg",
                  "matplotlib.figure")


def stages(settings: Settings) -> list[Stage]:
    """Return the stages; building a template waits for everyone's shapes, the shipped atlas does not."""
    first = (*person_steps(), automatic_step(), score_step(), tile_step())
    group = [tables_step(), means_step(), decisions_step()]
    group += [repeatability_step()] if settings.session == EVERY else []
    grades = ("grade",) * settings.estimated + ("measure",) * bool(settings.measured_besides())
    group += [group_means_step(grades)] if settings.compared else []
    if settings.formula:
        group += [pooled_step()] if settings.pooled else []
        group += [analysis_step(settings.analysis, pooled=settings.pooled, after=grades), models_step(grades)]
        if settings.sensitivity:
            group.append(analysis_step(settings.analysis + SENSITIVITY, settings.sensitivity, settings.pooled, grades))
    group.append(report_step(settings.analysis if settings.formula else "", bool(settings.sensitivity)))
    last = Stage("group", tuple(group), _GROUP_IMPORTS)
    if settings.template == "build":
        return [Stage("person", first), Stage("group", (template_step(),)), Stage("person", (atlas_step(),)), last]
    return [Stage("person", (*first, atlas_step())), last]
