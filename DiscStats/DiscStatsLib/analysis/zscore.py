"""One person against a reference group, and the mean and SD of groups, voxel by voxel."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import special

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image, require_same_geometry

#: Below this many people the SD is too uncertain for a norm; the map is still made, with a warning.
SMALL_REFERENCE = 20


@dataclass(frozen=True)
class Reference:
    """Mean, SD (n - 1) and count of a group at each voxel; NaN where fewer than two have a value."""

    mean: Image
    sd: Image
    n: Image


@dataclass(frozen=True)
class Deviation:
    """One person against a reference."""

    #: (value - mean) / SD: how many reference SDs the person lies from the mean.
    z: Image
    #: Two-sided p that a member of the reference population deviates as much: t = z / sqrt(1 + 1/n) with n - 1 degrees
    #: of freedom (Crawford & Howell 1998), which allows for the reference being a sample. Uncorrected.
    p: Image
    warnings: list[str]


def reference_group(images: Iterable[Image], min_count: int = 2) -> Reference:
    """Return mean, SD and count of a group of maps on one grid.

    Parameters
    ----------
    images : iterable of Image
        Read one after the other; NaN is missing.
    min_count : int
        Voxels with fewer values are NaN.

    Raises
    ------
    DesignError
        If there are fewer than two maps.
    GeometryError
        If the maps are on different grids.
    """
    found = group_moments(images)
    if found.maps < 2:
        raise DesignError(f"A reference group needs at least 2 maps; {found.maps} were given.")
    enough, first = found.n >= max(2, min_count), found.first
    return Reference(first.like(np.where(enough, found.mean, np.nan), **first.meta),
                     first.like(np.where(enough, found.sd, np.nan)), first.like(found.n.astype(np.int32)))


@dataclass(frozen=True)
class Moments:
    """Number of maps, the first of them, and count, mean (NaN where none) and SD (NaN below two) at each voxel."""

    maps: int
    first: Image
    n: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def group_moments(images: Iterable[Image]) -> Moments:
    """Return count, mean and SD (n - 1) of maps on one grid, with one of them in memory at a time.

    Raises
    ------
    DesignError
        If there is no map.
    GeometryError
        If the maps are on different grids.
    """
    images, maps, n, mean, squares = iter(images), 0, np.zeros(()), np.zeros(()), np.zeros(())
    first = next(images, None)
    if first is None:
        raise DesignError("A reference group needs at least 2 maps; 0 were given.")
    for maps, image in enumerate(itertools.chain([first], images), start=1):
        require_same_geometry(first, image, f"Map 1 and map {maps} of the reference group")
        # Welford's update: no cancellation in the SD.
        value = image.array.astype(float)
        present = np.isfinite(value)
        n = n + present
        step = np.where(present, value - mean, 0.0)
        mean = mean + step / np.maximum(n, 1)
        squares = squares + step * np.where(present, value - mean, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = np.where(n > 1, np.sqrt(squares / (n - 1)), np.nan)
    return Moments(maps, first, n, np.where(n > 0, mean, np.nan), sd)


def z_score(image: Image, reference: Reference) -> Deviation:
    """Return the z-score map of one person against a reference group.

    Raises
    ------
    GeometryError
        If the map is not on the reference's grid.
    """
    require_same_geometry(image, reference.mean, "The person's map and the reference group")
    sd, n = reference.sd.array.astype(float), reference.n.array
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 0, (image.array - reference.mean.array) / sd, np.nan)
        p = 2 * special.stdtr(n - 1.0, -np.abs(z) / np.sqrt(1 + 1 / n))
    remarks = list(image.notes)
    usual = int(np.median(n[np.isfinite(z)])) if np.isfinite(z).any() else 0
    if usual == 0:
        raise DesignError("The person's map and the reference group have no voxel in common.", anchor="empty-map")
    if usual < SMALL_REFERENCE:
        remarks.append(f"The reference group has {usual} people at the median voxel: its SD is uncertain by about "
                       f"{100 / np.sqrt(2 * max(usual - 1, 1)):.0f} %.")
    return Deviation(image.like(z), image.like(p), remarks)


def group_maps(images: list[Image], groups) -> dict[str, Reference]:
    """Return mean, SD and count for each group with at least two people.

    Parameters
    ----------
    images : list of Image
    groups : sequence
        Group of each image.
    """
    groups = [str(g) for g in groups]
    if len(groups) != len(images):
        raise DesignError(f"{len(groups)} group names for {len(images)} maps: give one per map.")
    found = {g: [i for i, own in zip(images, groups) if own == g] for g in sorted(set(groups))}
    return {g: reference_group(members) for g, members in found.items() if len(members) > 1}
