"""Person steps: segmentation, normalized signal, measures, registration to the atlas, maps in atlas space."""

import functools
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.echo import KINDS, sidecar_of
from DiscRelaxometryLib.errors import DiscRelaxometryError, GeometryError, SegmentationError
from DiscRelaxometryLib.image import Image, read_image, resample, write_image
from DiscRelaxometryLib.labels import DISCS, LUMBAR_LEVELS, disc_name
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import Table

from ..engine import (
    MAP_STEPS,
    PersonContext,
    Step,
    anatomical_image,
    context_atlas,
    disc_labels,
    echo_transform,
    endings,
    file_hash,
    of_person,
    person_maps,
    shipped_atlas,
    uses_existing,
)
from .maps import moved_to_anatomy


def _run_segment(context: PersonContext) -> None:
    image = anatomical_image(context.person)
    if uses_existing(context):
        labels, confidence, flags = _existing_labels(context, image), None, list(image.notes)
    else:
        from DiscRelaxometryLib.discs import segment

        result = segment(image, engine=context.settings.engine, threads=context.settings.threads)
        if not result.found:
            raise SegmentationError(result.reason, anchor="no-spine-found")
        labels, confidence, flags = result.labels, result.confidence, [*image.notes, *result.flags]
        context.facts.update(discs=[{"name": q.name, **vars(q)} for q in result.quality], model=result.model,
                             engine=result.engine, certain=result.certain, evidence=result.evidence)
    values = sorted(set(np.unique(labels.array).tolist()) & {d.value for d in DISCS})
    if not values:
        raise SegmentationError("No disc was found: is it a sagittal image of the lumbar spine? "
                                + " ".join(flags), anchor="no-disc")
    missing = [v for v in context.settings.levels if v not in map(disc_name, values)]
    if missing:
        flags.append(f"Levels not found: {', '.join(missing)}.")
    context.notes += flags
    context.facts.update(levels=[disc_name(v) for v in values], source="existing" if uses_existing(context) else "cnn")
    write_image(labels, context.path(endings.DISCS))
    if confidence is not None:
        # Confidence has two meaningful digits: 8 bits keep the file small.
        percent = np.clip(np.rint(100 * np.nan_to_num(confidence.array)), 0, 100).astype(np.uint8)
        write_image(confidence.like(percent), context.path("desc-confidence_percent.nii.gz"))


def _existing_labels(context: PersonContext, image: Image) -> Image:
    from DiscRelaxometryLib.discs import project_labels

    path = context.person.labels[0]
    existing = read_image(path)
    labels, notes = project_labels(existing)
    context.notes += [*(f"'{path.name}': {n}" for n in existing.notes), *notes]
    if not labels.geometry.difference(image.geometry):
        return labels
    moved = resample(labels, image.geometry, sitk.sitkNearestNeighbor)
    if not moved.array.any():
        raise GeometryError(f"'{path.name}' does not overlap the image: it belongs to another "
                            "volume.", anchor="different-grids")
    context.notes.append("The segmentation was resampled (nearest neighbor) to the image's grid.")
    return moved


def _weights(network: str) -> dict:
    try:
        folder = resource_path("Weights")
    except DiscRelaxometryError:
        return {"weights": "missing"}
    files = [f for f in sorted(folder.glob(f"{network}.*")) if f.suffix in (".onnx", ".safetensors")]
    return {"weights": {f.name: _hash(f, f.stat().st_mtime_ns) for f in files}}


@functools.lru_cache
def _hash(path: Path, time_ns: int) -> str:
    """Return a file's hash, found once for everyone a process works on."""
    return file_hash(path)


def _segment_inputs(context: PersonContext) -> list[Path]:
    person = context.person
    if person.anatomical:
        files = list(person.anatomical[:1])
    else:
        files = list(person.of_kind(person.kinds[0]).files)
        files += [sidecar_of(f) for f in files if sidecar_of(f).exists()]
    return files + (list(person.labels[:1]) if uses_existing(context) else [])


def _run_normalize(context: PersonContext) -> None:
    from DiscRelaxometryLib.measure import normalized_t2w

    normalized = normalized_t2w(anatomical_image(context.person), disc_labels(context))
    context.facts["csf"] = normalized.meta["csf"]
    context.notes += normalized.meta["flags"]
    write_image(normalized, context.path(endings.NORMALIZED))


def _run_measure(context: PersonContext) -> None:
    from DiscRelaxometryLib.measure import measure_regions, measure_spine

    labels, maps = disc_labels(context), person_maps(context)
    discs, vertebrae = measure_spine(labels, {k: image for k, (image, _) in maps.items() if k == "nT2w"})
    tables = [measure_regions(names, {key: image}) for key, (image, names) in maps.items()]
    context.write(of_person(context, discs), endings.MEASURES)
    if vertebrae.rows:
        context.write(of_person(context, vertebrae), endings.VERTEBRAE)
    if tables:
        regions = Table("regions", tables[0].columns, [r for t in tables for r in t.rows])
        context.write(of_person(context, regions), endings.REGIONS)


def _run_grade(context: PersonContext) -> None:
    from DiscRelaxometryLib.grades import grade_discs

    image, labels = anatomical_image(context.person), disc_labels(context)
    try:
        table = grade_discs(image, labels, context.settings.engine, threads=context.settings.threads)
    except DiscRelaxometryError as error:
        context.notes.append(f"Grades were not estimated. {error.message}")
        return
    context.notes += [f"{r['level']} has no estimated grade. {r['statement']}" for r in table.rows if r["statement"]]
    context.write(of_person(context, table), endings.GRADES)


def _run_atlas(context: PersonContext) -> None:
    """Register the person's discs with the atlas and bring all maps there, with one interpolation each."""
    from DiscAtlasLib import register_person, warp_to_atlas

    atlas = context_atlas(context)
    labels = disc_labels(context)
    levels = [v for v in LUMBAR_LEVELS if v in context.settings.levels]
    registration = register_person(labels, atlas, levels=levels, backend=context.settings.registration,
                                   person=context.name, workers=context.settings.threads)
    quality = registration.quality
    context.facts["quality"] = [dict(r) for r in quality.rows]
    context.notes += [f"{r['level']}: {r['flags']}" for r in quality.rows if r.get("flags")]
    context.write(quality, endings.REGISTRATION)
    for key, (image, _) in person_maps(context).items():
        if key in KINDS:
            image = moved_to_anatomy(image, echo_transform(context, key))
        warped = warp_to_atlas(image, registration)
        context.facts[f"{key}_voxels"] = int(np.isfinite(warped.array).sum())
        write_image(warped, context.path(endings.in_atlas(key)))


def _atlas_identity(context: PersonContext) -> dict:
    if context.settings.template == "build":
        return {}
    path = shipped_atlas()
    return {"atlas": _provenance(path, path.stat().st_mtime_ns)}


@functools.lru_cache
def _provenance(path: Path, time_ns: int) -> str:
    return str(json.loads(path.read_text(encoding="utf-8")))


SEGMENT_STEP = Step("segment", "3", _run_segment, _segment_inputs, ("segmentation", "engine", "levels"),
                    extra=lambda c: {"source": "existing"} if uses_existing(c) else _weights("lumbar-discs"))
NORMALIZE_STEP = Step("normalize", "1", _run_normalize, lambda c: c.person.anatomical, needs=("segment", "review"),
                      applies=lambda c: bool(c.person.anatomical))
MEASURE_STEP = Step("measure", "2", _run_measure, needs=("segment", "review"), optional=("normalize", *MAP_STEPS))
GRADE_STEP = Step("grade", "1", _run_grade, lambda c: c.person.anatomical, ("engine",), needs=("segment", "review"),
                  applies=lambda c: bool(c.person.anatomical), extra=lambda c: _weights("disc-grades"))
ATLAS_STEP = Step("atlas", "1", _run_atlas, parameters=("registration", "levels", "template"),
                  needs=("segment", "review"), optional=("normalize", "template", *MAP_STEPS), extra=_atlas_identity)
