"""The atlas: one grid that holds the discs of all levels, with their regions and where they came from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image, read_image, require_same_geometry, voxel_points, write_image
from DiscRelaxometryLib.labels import DISCS, disc_name
from DiscRelaxometryLib.resources import resource_path

from .coordinates import Target
from .shape import DiscShape, disc_shape

_FILES = {"labels": "atlas_dseg.nii.gz", "regions": "atlas_regions.nii.gz", "thirds": "atlas_thirds.nii.gz"}
#: Values of the image of thirds: thirds of the AP depth.
THIRDS = {"anterior_third": 1, "middle_third": 2, "posterior_third": 3}


@dataclass
class Atlas:
    """Template discs of all levels on one LPS-aligned grid."""

    #: Disc labels (values of ``DiscRelaxometryLib.labels``).
    labels: Image
    #: Values of ``DiscRelaxometryLib.measure.regions.PARTITION``: nucleus, four parts of the annulus, endplate margin.
    regions: Image
    #: Values of :data:`THIRDS`.
    thirds: Image
    #: Who and what it was built from, with license, method, convergence and versions.
    provenance: dict = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Image) -> Atlas:
        """Return any label image as an atlas without regions."""
        nothing = labels.like(np.zeros_like(labels.array))
        return cls(labels, nothing, nothing)

    @property
    def geometry(self) -> Geometry:
        """Grid of the atlas."""
        return self.labels.geometry

    @cached_property
    def values(self) -> tuple[int, ...]:
        """Label values of the discs, cranial to caudal as reports list them."""
        present = set(np.unique(self.labels.array).tolist())
        return tuple(d.value for d in reversed(DISCS) if d.value in present)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the discs, such as ``L4-L5``, cranial to caudal."""
        return tuple(disc_name(v) for v in self.values)

    @cached_property
    def _targets(self) -> dict[int, Target]:
        return {}

    def target(self, value: int) -> Target:
        """Return a template disc as what people's discs are matched to (made once).

        Raises
        ------
        RegistrationError
            If the atlas has no such disc.
        """
        if value not in self.values:
            raise RegistrationError(f"The atlas has no disc {disc_name(value)}; it has {', '.join(self.levels)}.",
                                    anchor="missing-level")
        if value not in self._targets:
            self._targets[value] = Target(disc_shape(self.labels, value, "atlas"))
        return self._targets[value]

    def shape(self, value: int) -> DiscShape:
        """Return the shape of a template disc."""
        return self.target(value).shape


def make_atlas(labels: Image, provenance: dict) -> Atlas:
    """Return an atlas of a label image, with regions and thirds defined on its discs.

    Regions are those of ``DiscRelaxometryLib.measure.regions``, found once here in atlas space.
    """
    from DiscRelaxometryLib.measure import region_image

    atlas = Atlas(labels, region_image(labels), labels, provenance)
    thirds = np.zeros(labels.array.shape, np.uint8)
    for value in atlas.values:
        shape = atlas.shape(value)
        inside = labels.array == value
        y = shape.to_frame(voxel_points(inside, labels.geometry))[:, 1] / shape.half[1]
        thirds[inside] = np.where(y > 1 / 3, 1, np.where(y < -1 / 3, 3, 2))
    atlas.thirds = labels.like(thirds, content="AP thirds")
    return atlas


def save_atlas(atlas: Atlas, folder: str | os.PathLike) -> Path:
    """Write the atlas's images and provenance into a folder."""
    folder = Path(folder)
    for name, file in _FILES.items():
        image = getattr(atlas, name)
        write_image(Image(image.array.astype(np.uint8), image.geometry), folder / file)
    write_json(folder / "atlas.json", atlas.provenance)
    return folder


def load_atlas(path: str | os.PathLike | None = None) -> Atlas:
    """Read an atlas folder; without a path, the shipped atlas.

    Raises
    ------
    RegistrationError
        If the folder holds no complete atlas.
    """
    folder = resource_path("Atlas", "DiscAtlasLib") if path is None else Path(path)
    missing = [f for f in (*_FILES.values(), "atlas.json") if not (folder / f).exists()]
    if missing:
        raise RegistrationError(f"'{folder}' is no atlas folder: {', '.join(missing)} missing. Choose a folder written "
                                "by DiscAtlas, or none for the shipped atlas.", anchor="no-atlas")
    images = {name: read_image(folder / file) for name, file in _FILES.items()}
    for name in ("regions", "thirds"):
        require_same_geometry(images["labels"], images[name], f"The atlas's labels and {name}")
    return Atlas(**images, provenance=json.loads((folder / "atlas.json").read_text(encoding="utf-8")))
