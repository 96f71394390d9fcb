"""Power of a study's model by simulation from its residuals."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.progress import ProgressCallback
from DiscRelaxometryLib.tables import Table

from ..engine import GroupContext, maps_in_atlas, observations, person_records
from ..folder import Study, last_settings


def study_power(path, formula: str, effect: float, *, map: str = "", region: str = "whole", levels: Sequence[str] = (),
                sizes: Sequence[float] = (), sets: int = 100, output=None, session: str = "",
                progressCallback: ProgressCallback | None = None) -> tuple[Table, Path]:
    """Return how often the voxel-wise analysis of a study's first term would find an effect, and where it is written.

    Parameters
    ----------
    path : path
        Study that was run; its maps and table give noise and people, its settings say what an observation is (pooled
        levels, visits, change) and how it is analyzed.
    formula : str
        Such as ``T1rho ~ pfirrmann + age``; the first term is tested.
    effect : float
        Change of the map for one unit of the term.
    map, region, levels
        Map (default: the formula's, or the only one), and where the effect is (default: all levels, whole discs).
    sizes : sequence of float
        Sizes of study (default: its own).
    sets : int

    Raises
    ------
    StudyError, DesignError
        See :func:`DiscStatsLib.analysis.design_power`.
    """
    from DiscRelaxometryLib.measure import PARTITION
    from DiscStatsLib.analysis import Planted, design_power, place_of

    study = Study(Path(path), session, output)
    check_folder(study.output / "group")
    ran = last_settings(study)
    settings = replace(ran, formula=formula, contrast="", sensitivity="", groups="")
    if ran.session and not session:
        study = Study(Path(path), ran.session, output)
    context = GroupContext(study, settings, person_records(study, "group"),
                           {p.id: person_records(study, p.id) for p in study.people})
    found = maps_in_atlas(context)
    key = map or (next(iter(found)) if len(found) == 1 else "")
    if key not in found:
        raise StudyError(f"Choose the map with --map: the study has {', '.join(found) or 'none in atlas space'}.")
    if region != "whole" and region not in PARTITION:
        raise StudyError(f"There is no region '{region}': choose whole, {', '.join(PARTITION)}.")
    if levels and settings.pooled:
        raise StudyError("The study's levels are pooled in one disc, which has no level: leave --levels out.")
    known = set(study.participants["participant_id"])
    data = observations(context, (key,), [p for p in found[key] if p in known])
    labels, model = data["atlas_labels"], settings.pooled_model if settings.pooled else settings.model
    if not settings.pooled:
        kept = np.isin(labels.array, [disc_value(v) for v in data["levels"]])
        labels = labels.like(np.where(kept, labels.array, 0))
    place = place_of(labels, data["regions"], () if settings.pooled else levels or data["levels"],
                     PARTITION.get(region))
    table = design_power(data["maps"][key], labels, data["participants"], f"{key} ~ {model.terms}", settings.tested,
                         Planted(effect, place), settings=replace(settings.statistics(), n_permutations=199),
                         blocks=data.get("blocks", ""), sizes=sizes, sets=sets, progressCallback=progressCallback)
    return table, table.write(study.output / "group" / f"power_{key}.tsv")
