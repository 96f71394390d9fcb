"""Person steps on echo series: T1rho and T2 maps, and discs carried to the maps' space."""

from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.echo import sidecar_of
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image

from ..engine import PersonContext, Step, anatomical_image, disc_labels, endings, load_series


def _run_fit(context: PersonContext, kind: str) -> None:
    from DiscRelaxometryLib.fit import FitOptions, map_series

    settings = context.settings
    model = settings.t1rho_model if kind == "T1rho" else settings.t2_model
    mapped = map_series(load_series(context.person.of_kind(kind), kind),
                        FitOptions(model=model, estimator=settings.estimator), settings.align)
    fit, echoes = mapped.fit, mapped.series
    # Where the times came from is in the facts of every series.
    context.notes += [n for n in mapped.notes if not n.startswith("Times ")]
    context.facts.update(notes=echoes.notes, counts=fit.counts, report=report_values(fit.report),
                         motion=[dict(r) for r in mapped.motion.rows] if mapped.motion is not None else [])
    context.facts.update(times_ms=echoes.times_ms.tolist(), model=model, echoes=len(echoes),
                         voxels=int(np.isfinite(fit.value).sum()), size=list(echoes.geometry.size),
                         spacing=list(echoes.geometry.spacing))
    write_image(echoes.echo(0), context.path(f"acq-{kind}_{endings.FIRST_ECHO}"))
    for key, image in fit.images().items():
        name = f"{kind}map" if key == kind else f"acq-{kind}_desc-{key.replace(' ', '')}_{kind}fit"
        write_image(image, context.path(f"{name}.nii.gz"))


def _run_carry(context: PersonContext, kind: str) -> None:
    from DiscRelaxometryLib.measure import carry_labels

    labels, transform = disc_labels(context), sitk.Transform(sitk.Euler3DTransform())
    if context.person.anatomical:  # otherwise the series itself was segmented
        echo = read_image(context.needed(f"maps-{kind}", endings.FIRST_ECHO))
        result = carry_labels(labels, anatomical_image(context.person), echo)
        labels, transform = result.labels, result.transform
        context.facts["report"] = report_values(result.report)
        context.notes += result.report.flags
    write_image(labels, context.path(endings.carried(kind)))
    with atomic_path(context.path(f"from-{kind}_to-T2w_mode-points_{endings.TRANSFORM}", "xfm")) as temporary:
        sitk.WriteTransform(transform, str(temporary))


def report_values(report) -> dict:
    """Return a result's report (dict or dataclass) as plain values."""
    if isinstance(report, dict):
        return dict(report)
    return {k: v for k, v in vars(report).items() if isinstance(v, (int, float, str, bool, list))}


def moved_to_anatomy(image: Image, transform: sitk.Transform) -> Image:
    """Move an echo-space image's grid rigidly into anatomical space (points in LPS mm); nothing is interpolated."""
    grid = image.geometry
    origin = np.array(transform.TransformPoint(grid.origin))
    columns = np.array(grid.direction).reshape(3, 3)
    tips = [tuple(np.array(grid.origin) + columns[:, n]) for n in range(3)]
    moved = [np.array(transform.TransformPoint(tip)) - origin for tip in tips]
    direction = np.stack(moved, axis=1)
    return Image(image.array, Geometry(grid.size, grid.spacing, tuple(origin), tuple(direction.ravel())), image.meta)


def _series_inputs(context: PersonContext, kind: str) -> list[Path]:
    files = context.person.of_kind(kind).files
    return [*files, *(sidecar_of(f) for f in files if sidecar_of(f).exists())]


def map_steps(kind: str) -> tuple[Step, Step]:
    """Return the steps ``maps-<kind>`` and ``carry-<kind>``."""
    def applies(context: PersonContext) -> bool:
        return kind in context.person.kinds
    model = "t1rho_model" if kind == "T1rho" else "t2_model"
    return (Step(f"maps-{kind}", "3", partial(_run_fit, kind=kind), partial(_series_inputs, kind=kind),
                 (model, "estimator", "align"), applies=applies),
            Step(f"carry-{kind}", "1", partial(_run_carry, kind=kind), lambda c: c.person.anatomical,
                 needs=("segment", "review", f"maps-{kind}"), applies=applies))
