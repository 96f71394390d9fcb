"""Power of a study's model by simulation from its residuals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.progress import ProgressCallback
from DiscRelaxometryLib.tables import Table

from ..folder import Study
from .cohort_maps import atlas_of, find_maps


def study_power(path, formula: str, effect: float, *, map: str = "", region: str = "whole", levels: Sequence[str] = (),
                sizes: Sequence[float] = (), sets: int = 100, output=None, session: str = "",
                progressCallback: ProgressCallback | None = None) -> tuple[Table, Path]:
    """Return how often the voxel-wise analysis of a study's first term would find an effect, and where it is written.

    Parameters
    ----------
    path : path
        Study that was run; its maps and table give noise and people.
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
    from DiscAtlasLib import load_atlas
    from DiscRelaxometryLib.measure import PARTITION
    from DiscStatsLib.analysis import Planted, design_power, place_of
    from DiscStatsLib.design import parse_formula, rows_of, to_frame

    study, model = Study(Path(path), session, output), parse_formula(formula)
    check_folder(study.output / "group")
    found = find_maps(study.output)
    key = map or (model.response if model.response in found else next(iter(found)) if len(found) == 1 else "")
    if key not in found:
        raise StudyError(f"Choose the map with --map: the study has {', '.join(found)}.")
    if region != "whole" and region not in PARTITION:
        raise StudyError(f"There is no region '{region}': choose whole, {', '.join(PARTITION)}.")
    people = [p for p in found[key] if p in study.participants["participant_id"]]
    atlas = load_atlas(atlas_of(study.output))
    place = place_of(atlas.labels, atlas.regions, levels or atlas.levels, PARTITION.get(region))
    table = design_power([read_image(found[key][p]) for p in people], atlas.labels,
                         rows_of(to_frame(study.participants), people), f"map ~ {model.terms}", model.first_term,
                         Planted(effect, place), sizes=sizes, sets=sets, progressCallback=progressCallback)
    return table, table.write(study.output / "group" / f"power_{key}.tsv")
