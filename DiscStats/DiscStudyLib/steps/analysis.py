"""Group steps that need everyone: the study's own template, and the voxel-wise analysis."""

from dataclasses import replace
from functools import partial

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import write_image

from ..engine import (
    GroupContext,
    Step,
    context_atlas,
    disc_labels,
    endings,
    maps_in_atlas,
    observations,
    pooled_disc_of,
)
from ..folder import people_by_rule


def _run_template(context: GroupContext) -> None:
    """Build a template from the people's disc labels."""
    from DiscAtlasLib import build_template, save_atlas

    people = [p for p, done in context.everyone.items() if "segment" in done]
    if len(people) < 3:
        raise StudyError(f"A template needs at least 3 people; {len(people)} have a segmentation. Use the shipped "
                         "atlas.")
    # One image at a time: what stays of it are the shapes of its discs, on disk.
    atlas = build_template(((p, disc_labels(context.of(p))) for p in people), levels=context.settings.levels,
                           workers=context.settings.threads)
    folder = context.path("template/atlas.json").parent
    save_atlas(atlas, folder)
    context.written += sorted(f for f in folder.iterdir() if f.suffix in (".json", ".gz"))


TEMPLATE_STEP = Step("template", "1", _run_template, parameters=("levels",), optional=("segment", "review"))


def _families(people: dict[str, list[str]]) -> list[tuple[str, ...]]:
    """Group maps that are tested together: those that the same people have."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, ids in people.items():
        groups.setdefault(tuple(ids), []).append(key)
    return [tuple(keys) for keys in groups.values()]


def _run_analysis(context: GroupContext, name: str, rule: str) -> None:
    files = maps_in_atlas(context)
    listed = set(context.study.participants["participant_id"])
    people = {key: [p for p in some if p in listed] for key, some in files.items()}
    for key, ids in people.items():
        left_out = sorted(set(files[key]) - set(ids))
        if left_out:
            context.notes.append(f"{key}: {', '.join(left_out)} have no row in participants.tsv and were left out.")
    if rule:
        kept = people_by_rule(context.study.participants, rule)
        out = sorted({p for ids in people.values() for p in ids} - kept)
        context.notes.append(f"Left out by the rule '{rule}': {', '.join(out) or 'nobody'}.")
        people = {key: [p for p in ids if p in kept] for key, ids in people.items()}
    families = _families(people)
    if len(families) > 1:
        context.notes.append("Maps are held by different people; p is corrected within "
                             + " and within ".join(", ".join(f) for f in families) + ", not across them.")
    for family in families:
        _analyze_family(context, f"analysis-{name}", family, people[family[0]])


def _analyze_family(context: GroupContext, folder: str, family, people: list[str]) -> None:
    from DiscRelaxometryLib.measure import PARTITION
    from DiscStatsLib.analysis import analyze

    settings, atlas = context.settings, context_atlas(context)
    disc = pooled_disc_of(context)
    data = observations(context, family, people)
    formula = f"map ~ {settings.model.terms}" if disc is None else str(settings.pooled_model)
    result = analyze(contrasts=settings.tested, settings=replace(settings.statistics(), distribute=context.distribute),
                     formula=formula, region_names={code: region for region, code in PARTITION.items()}, **data)
    for stat, image in result.maps.items():
        image = image.like(np.asarray(image.array, np.float32))
        if disc is not None:
            write_image(image, context.path(f"{folder}/space-PooledDisc_stat-{stat}_map.nii.gz"))
            image = disc.lay_back(image, atlas.labels)
        write_image(image, context.path(f"{folder}/{endings.in_atlas(f'stat-{stat}')}"))
    if disc is not None:
        for row in result.clusters.rows:
            row["level"] = "pooled"
    table = context.write(result.clusters, f"{folder}/{'-'.join(family)}_clusters.tsv")
    contrasts = [c.name for c in result.contrasts]
    # Of the fitted model, which leaves people without a covariate out.
    fitted, counts = result.provenance["participants"], result.provenance["observations_by_level"]
    discs = sum(counts.values()) if disc is not None else 0
    if discs:
        rows = data["participants"].dropna(subset=list(settings.columns))
        counts = {level: int((rows["level"] == level).sum()) for level in disc.levels}
    context.facts["-".join(family)] = {
        "maps": list(family), "discs": discs, "people": fitted, "n": len(fitted), "levels": counts,
        "stats": sorted(result.maps), "contrasts": contrasts, "clusters": table.name, "provenance": result.provenance}
    context.notes += result.warnings


def analysis_step(name: str, rule: str = "", pooled: bool = False, after: tuple[str, ...] = ()) -> Step[GroupContext]:
    """Return the voxel-wise analysis, one a name, so that several analyses of a study stand side by side.

    With a rule, it is the sensitivity analysis of the people for whom the rule holds. `after` are further steps whose
    results it reads.
    """
    return Step(f"analysis-{name}", "6", partial(_run_analysis, name=name, rule=rule), lambda c: c.study.tables,
                ("formula", "contrast", "maps", "levels", "pooled", "permutations", "seed", "missing", "errors",
                 "standard_errors", "variance_groups", "change", "template"),
                needs=("pooled-disc",) if pooled else (), optional=("atlas", "template", *after),
                applies=lambda c: bool(maps_in_atlas(c)),
                extra=lambda c: {"variables": list(c.settings.variables), **({"rule": rule} if rule else {})})
