"""Results of a study as DICOM: a Segmentation and Parametric Maps of each person, one folder per space."""

import os
from collections.abc import Sequence
from pathlib import Path

from DiscRelaxometryLib.dicom_export import export_study
from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange

from ..engine import Context, disc_labels, person_maps, person_records
from ..folder import Settings, Study

#: Maps of a fit that are exported with the relaxation map itself.
_FIT = ("M0", "offset", "SE", "R2", "B1")


def export_people(path, folder, people: Sequence[str] = (), source=None, output=None, session: str = "",
                  progressCallback: ProgressCallback | None = None) -> list[Path]:
    """Export segmentations and maps of a study that was run.

    Parameters
    ----------
    path : path
        Study folder.
    folder : path
        Receives ``sub-XX/T2w/`` (segmentation, nT2w), ``sub-XX/T1rho/`` and ``sub-XX/T2/`` (carried discs, maps).
    people : sequence of str
        Ids; empty for everyone with results.
    source : path, optional
        DICOM of the examinations: one folder per person, named as in the study. The objects join these studies and
        carry their patient attributes. Without it they form studies of their own, with the id as patient.
    output : path, optional
        Results folder of the run.
    session : str
    progressCallback : callable, optional

    Raises
    ------
    StudyError
        If the study was not run, nobody has results, or the source lacks a person.
    """
    study = Study(Path(path), session, output, tuple(people))
    progress = progressCallback or silent
    written = []
    for number, person in enumerate(study.people):
        records = person_records(study, person.id)
        if "segment" not in records:
            if people:
                raise StudyError(f"{person.id} has no segmentation to export: run the study first.", anchor="study-run")
            continue
        images = _source_of(source, person.id)
        automatic = _algorithm(records["segment"].facts)
        part = subrange(progress, number / len(study.people), (number + 1) / len(study.people))
        for space, (maps, labels) in _spaces(Context(study, Settings(), records)).items():
            written += export_study(Path(folder) / person.id / space, maps, labels, images, person.id, automatic,
                                    simulated=study.simulated, progressCallback=part)
    if not written:
        raise StudyError("Nobody in this study has results to export: run it first.", anchor="study-run")
    return written


def _algorithm(facts: dict) -> str | None:
    """Return the name of the algorithm that segmented, or None where a segmentation came with the study."""
    if facts.get("source") != "cnn":
        return None
    return f"DiscRelaxometry {facts.get('model') or 'network'}"


def _source_of(source, person: str) -> Path | None:
    if source is None:
        return None
    folder = Path(source) / person
    if not folder.is_dir():
        raise StudyError(f"The DICOM folder has no folder '{person}': name one folder per person as in the study, or "
                         "export without --source.", anchor="dicom-export")
    return folder


def _spaces(context: Context) -> dict[str, tuple[dict[str, Image], Image]]:
    """Return space -> (maps by quantity, labels on the same grid)."""
    found: dict[str, tuple[dict[str, Image], Image]] = {"T2w": ({}, disc_labels(context))}
    for key, (image, labels) in person_maps(context).items():
        maps, _ = found.setdefault(key if key in KINDS else "T2w", ({}, labels))
        fits = {k: context.output_of(f"maps-{key}", f"desc-{k}_{key}fit.nii.gz") for k in _FIT}
        maps.update({key: image}, **{k: read_image(path) for k, path in fits.items() if path})
    return found


def export_files(folder, maps: Sequence[str] = (), labels=None, source=None, subject: str = "anonymous",
                 algorithm: str | None = None) -> list[Path]:
    """Export image files; `maps` are texts such as ``T1rho=T1rhomap.nii.gz``.

    Raises
    ------
    StudyError
        If a text names no quantity.
    """
    images = {}
    for text in maps:
        key, _, file = text.partition("=")
        if not file:
            raise StudyError(f"'{text}' does not say what the map is: write QUANTITY=FILE, such as T1rho={text}.",
                             anchor="dicom-export")
        images[key] = read_image(file)
    return export_study(os.fspath(folder), images, read_image(labels) if labels else None, source, subject, algorithm)
