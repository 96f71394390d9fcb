"""Pictures of a person, and the group's report, as steps."""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.quantities import QUANTITIES
from DiscRelaxometryLib.resources import resource_path

from ..engine import (
    MAP_STEPS,
    SENSITIVITY,
    GroupContext,
    PersonContext,
    Step,
    anatomical_image,
    disc_labels,
    endings,
    file_hash,
    person_maps,
)
from ..folder import REPORT, TABLE
from ..report import (
    Look,
    Report,
    group_sections,
    map_row,
    people_sections,
    person_tile,
    reported,
    save_figure,
    write_picture,
    write_report,
)
from ..review import LINK, write_link


def _run_tile(context: PersonContext) -> None:
    tile = person_tile(anatomical_image(context.person), disc_labels(context))
    write_picture(tile, context.path(endings.SEGMENTATION_TILE, "figures"))
    shown = {key: value for key, value in person_maps(context).items() if np.isfinite(value[0].array).any()}
    if any(k in KINDS for k in shown):
        looks = {k: Look("viridis", *QUANTITIES[k].window, QUANTITIES[k].unit if QUANTITIES[k].unit != "1" else "")
                 for k in shown}
        figure = map_row({k: (image, names, looks[k]) for k, (image, names) in shown.items()})
        save_figure(figure, context.path(endings.MAPS_TILE, "figures"), context.study.simulated, 110)


TILE_STEP = Step("tile", "2", _run_tile, lambda c: c.person.anatomical[:1], needs=("segment", "review"),
                 optional=("normalize", *MAP_STEPS), extra=lambda c: {"simulated": c.study.simulated})


def _run_report(context: GroupContext, analysis: str) -> None:
    folder = context.study.output / "figures"
    sections = [*people_sections(context, folder), *group_sections(context, folder, analysis)]
    name = str(context.study.description.get("Name") or "Lumbar disc study")
    count = len({*context.everyone, *context.missing})
    with_results = sum("segment" in r for r in context.everyone.values())
    formula = f" Model: {context.settings.formula}." if context.settings.formula else ""
    report = Report(name, f"{with_results} of {count} people.{formula}", sections, context.study.simulated,
                    f"DiscRelaxometry {__version__}. For research; not a medical device. This file holds no name, "
                    "birth date or DICOM header.")
    path = context.study.output / REPORT
    context.written.append(path)
    if not (context.study.output / LINK).exists():  # not while the review page runs
        write_link(context.study)
    write_report(report, path)


def report_step(analysis: str = "", sensitivity: bool = False) -> Step[GroupContext]:
    """Return the group step that writes the report and its figures."""
    optional = ["segment", "normalize", "measure", "score", "tile", "atlas", "tables", "means", "decisions",
                "group-means", "repeatability", *MAP_STEPS]
    if analysis:
        optional += ["models", f"analysis-{analysis}"]
        optional += [f"analysis-{analysis}{SENSITIVITY}"] if sensitivity else []
    return Step("report", "1", partial(_run_report, analysis=analysis),
                lambda c: [t for t in [c.study.root / TABLE] if t.exists()], reported(), optional=tuple(optional),
                extra=lambda c: {"missing": dict(c.missing), "people": list(c.everyone),
                                 "notes": {p: {s: r.notes for s, r in records.items()}
                                           for p, records in c.everyone.items()},
                                 "simulated": c.study.simulated, "version": __version__, "source": _source()})


def _source() -> str:
    """Return a hash of what makes the page, so that a newer program makes it anew."""
    own = Path(__file__).parent.parent / "report"
    files = [*own.glob("*.py"), *resource_path("Report", "DiscStatsLib").iterdir()]
    text = "".join(file_hash(f) for f in sorted(files) if f.is_file())
    return hashlib.sha256(text.encode()).hexdigest()
