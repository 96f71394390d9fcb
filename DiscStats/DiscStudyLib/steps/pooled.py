"""Group step and observations of the pooled analysis: all levels of a person in one disc."""

from DiscRelaxometryLib.errors import StudyError

from ..engine import GroupContext, Step, context_atlas, maps_in_atlas


def _run_pooled(context: GroupContext) -> None:
    """Make the mean disc of the atlas's levels, and register each of them to it."""
    from DiscAtlasLib import pooled_disc, save_pooled

    atlas = context_atlas(context)
    levels = [v for v in context.settings.levels if v in atlas.levels]
    if len(levels) < 2:
        raise StudyError("A pooled analysis needs at least two levels: name more with --levels, or leave 'pooled' out.")
    folder = save_pooled(pooled_disc(atlas, levels), context.path("pooled-disc/atlas.json").parent)
    context.written += sorted(f for f in folder.rglob("*") if f.is_file())


POOLED_STEP = Step("pooled-disc", "1", _run_pooled, parameters=("levels", "template"), optional=("template",),
                   applies=lambda c: bool(maps_in_atlas(c)), extra=lambda c: {"atlas": context_atlas(c).provenance})
