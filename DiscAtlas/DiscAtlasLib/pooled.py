"""One disc for all levels: the mean of the atlas's discs, and maps carried between it and each of them.

Disc coordinates match any two discs, also of different levels: the mean disc is a template whose "people" are the
atlas's discs, and each of these is registered to it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.image import Image, voxel_points
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value

from .atlas import Atlas, load_atlas, save_atlas
from .registration import PersonRegistration, load_registration, register_discs, save_registration
from .template import build_template
from .warping import sample, warp_to_atlas

#: Label of the pooled disc while it is registered: any disc's, as every level takes it in turn.
_AS = "L4-L5"


@dataclass
class PooledDisc:
    """The mean disc of an atlas's levels."""

    #: One disc, with regions.
    atlas: Atlas
    #: Of each level's atlas disc with the mean disc.
    levels: dict[str, PersonRegistration]

    def pool(self, image: Image, level: str) -> Image:
        """Return a map of the atlas's space at one level, in the pooled disc."""
        return warp_to_atlas(image, self.levels[level])

    def lay_back(self, image: Image, labels: Image) -> Image:
        """Return a map of the pooled disc on the discs of the atlas's labels: each voxel takes its nearest one."""
        result = np.full(labels.array.shape, np.nan, np.float32)
        for level, registration in self.levels.items():
            mask = labels.array == disc_value(level)
            points = voxel_points(mask, labels.geometry)
            there = registration.levels[disc_value(_AS)].to_atlas(points)
            result[mask] = sample(image, there, "nearest")
        return Image(result, labels.geometry, dict(image.meta))


def pooled_disc(atlas: Atlas, levels: Sequence[str]) -> PooledDisc:
    """Return the mean disc of some levels of an atlas.

    Raises
    ------
    RegistrationError
        If fewer than two levels are given, or one cannot be matched.
    """
    alone = {level: atlas.labels.like(np.where(atlas.labels.array == disc_value(level), disc_value(_AS), 0)
                                      .astype(atlas.labels.array.dtype)) for level in levels}
    mean = build_template(list(alone.items()), levels=(_AS,), provenance={"name": "Pooled disc",
                                                                          "atlas": atlas.provenance.get("name", "")})
    return PooledDisc(mean, {level: register_discs(mean.labels, labels, workers=1) for level, labels in alone.items()})


def save_pooled(pooled: PooledDisc, folder: str | os.PathLike) -> Path:
    """Write the pooled disc and the transforms of its levels into a folder."""
    folder = Path(folder)
    save_atlas(pooled.atlas, folder)
    for level, registration in pooled.levels.items():
        save_registration(registration, folder / level.replace("-", ""))
    return folder


def load_pooled(folder: str | os.PathLike) -> PooledDisc:
    """Read what :func:`save_pooled` wrote."""
    folder = Path(folder)
    atlas = load_atlas(folder)
    found = {name: folder / name.replace("-", "") for name in LUMBAR_LEVELS}
    return PooledDisc(atlas, {name: load_registration(f, atlas) for name, f in found.items() if f.is_dir()})
