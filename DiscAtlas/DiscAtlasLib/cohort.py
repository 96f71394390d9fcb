"""Registration of a group in one call: choose or build the template, register everyone, keep the results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.discs import import_labels
from DiscRelaxometryLib.errors import RegistrationError, SegmentationError
from DiscRelaxometryLib.image import Image, read_image, require_same_geometry
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.progress import ProgressCallback, silent, subrange
from DiscRelaxometryLib.tables import Table

from .atlas import Atlas, load_atlas, save_atlas
from .montage import montage
from .registration import PersonRegistration, load_registration, register_people, save_registration
from .warping import warp_from_atlas


@dataclass
class CohortRegistration:
    """A group registered to one atlas."""

    atlas: Atlas
    #: Those who failed are absent, and say why in `quality`.
    registrations: dict[str, PersonRegistration] = field(default_factory=dict)
    #: One row per person and level.
    quality: Table | None = None


def read_people(folder: str | os.PathLike, convention: str = "project", progressCallback: ProgressCallback = silent,
                ) -> list[tuple[Path, Image | None]]:
    """Return path and disc labels of every ``*_dseg.nii.gz`` below a folder; no labels for each ``*.seg.nrrd``.

    The convention is the table of the tool that made the label images, or ``auto``; see
    ``DiscRelaxometryLib.discs.import_labels``. SegmentationError if there is no such file.
    """
    paths = sorted([*Path(folder).rglob("*_dseg.nii.gz"), *Path(folder).rglob("*.seg.nrrd")])
    if not paths:
        raise SegmentationError(f"There is no segmentation (*_dseg.nii.gz or *.seg.nrrd) in '{folder}'.",
                                anchor="no-segmentations")
    people = []
    for step, path in enumerate(paths):
        progressCallback(step / len(paths), f"Reading {path.name}")
        # Segment names of a .seg.nrrd are read by Slicer.
        labels = None if path.name.endswith(".nrrd") else import_labels(read_image(path), convention)[0]
        people.append((path, labels))
    return people


def register_cohort(people: dict[str, Image], template: str = "shipped", atlas_folder: str | os.PathLike | None = None,
                    backend: str = "coordinates", output: str | os.PathLike | None = None,
                    levels: Sequence[str] | None = None, progressCallback: ProgressCallback = silent,
                    ) -> CohortRegistration:
    """Register people's discs to an atlas, and write atlas, transforms and quality into a folder if one is given.

    Parameters
    ----------
    people : dict of Image
        Disc labels by name of the person.
    template : str
        ``shipped``, ``folder`` (an atlas that was written before) or ``build`` (from these people).
    atlas_folder : path, optional
        For ``folder``.
    backend : str
        ``coordinates``, ``elastix`` or ``brainsfit``.
    output : path, optional
        Receives ``atlas/``, one folder per person (transforms, quality table and, where matplotlib is installed, a
        montage picture), and ``registration_quality.tsv``.
    levels : sequence of str, optional
        Levels such as ``L4-L5``; all of the atlas by default.

    Raises
    ------
    RegistrationError
        If there is nobody, too few people to build a template, or no level of anyone could be registered.
    """
    if not people:
        raise RegistrationError("Choose at least one person.", anchor="no-level-registered")
    share = 0.0
    if template == "build":
        from .template import build_template

        share = 0.6
        atlas = build_template(list(people.items()), levels or LUMBAR_LEVELS,
                               progressCallback=subrange(progressCallback, 0.0, share))
    else:
        atlas = load_atlas(atlas_folder if template == "folder" else None)
    done, quality = register_people(people.items(), atlas, levels, backend,
                                    progressCallback=subrange(progressCallback, share, 1.0))
    if not done:
        raise RegistrationError("No disc of anyone could be registered: " + str(quality.rows[0].get("flags", "")),
                                anchor="no-level-registered")
    if output is not None:
        folder = Path(output)
        save_atlas(atlas, folder / "atlas")
        for person, registration in done.items():
            save_registration(registration, folder / person)
            if find_spec("matplotlib") is not None:
                montage(registration, folder / person / "montage.png")
        quality.write(folder / "registration_quality.tsv")
    progressCallback(1.0, "Everyone is registered")
    return CohortRegistration(atlas, done, quality)


def load_cohort(folder: str | os.PathLike) -> CohortRegistration:
    """Return what :func:`register_cohort` wrote into a folder."""
    folder = Path(folder)
    atlas = load_atlas(folder / "atlas")
    people = sorted(p for p in folder.iterdir() if p.is_dir() and p.name != "atlas")
    done = {p.name: load_registration(p, atlas) for p in people}
    if not done:
        raise RegistrationError(f"'{folder}' holds no registered person.", anchor="no-atlas")
    first = next(iter(done.values())).quality
    rows = [row for registration in done.values() for row in registration.quality.rows]
    return CohortRegistration(atlas, done, Table("registration_quality", first.columns, rows))


def atlas_on_person(registration: PersonRegistration, own: Image, in_turn: bool = False) -> Image:
    """Return the atlas's discs on the grid of a person's own; `in_turn`, blocks of both."""
    warped = warp_from_atlas(registration.atlas.labels, registration, own.geometry)
    return checkerboard(own, warped) if in_turn else warped


def checkerboard(first: Image, second: Image, block_mm: float = 6.0) -> Image:
    """Return blocks of two images of one grid in turn, to compare borders by eye."""
    require_same_geometry(first, second, "The two images of a checkerboard")
    index = [np.floor(np.arange(n) * s / block_mm).astype(int)
             for n, s in zip(first.geometry.shape, first.geometry.spacing[::-1])]
    parity = (index[0][:, None, None] + index[1][None, :, None] + index[2][None, None, :]) % 2
    return first.like(np.where(parity == 0, first.array, second.array))
