"""Maps and labels between a person and the atlas: one interpolation, and what is missing stays missing."""

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image, voxel_points

from .registration import PersonRegistration

#: An interpolated value needs at least this share of its weight from voxels that are not NaN.
VALID_SHARE = 0.5


def warp_to_atlas(image: Image, registration: PersonRegistration, interpolation: str = "linear") -> Image:
    """Resample a person's map onto the atlas, once.

    Parameters
    ----------
    image : Image
        A map (float; NaN is missing) or a label image, on any grid in the person's space.
    registration : PersonRegistration
    interpolation : {'linear', 'nearest'}
        Use 'nearest' for labels. Cubic interpolation rings at the border of nucleus and annulus.

    Returns
    -------
    Image
        float32 on the atlas's grid. NaN outside its discs, where the person's image does not reach or does not show the
        disc, and where most of the interpolation's weight is on NaN. Labels (integer input) have 0 there.
    """
    atlas = registration.atlas
    result = np.full(atlas.geometry.shape, np.nan, np.float32)
    for value, transform in registration.levels.items():
        mask = atlas.labels.array == value
        points = voxel_points(mask, atlas.geometry)
        there = transform.to_person(points)
        values = sample(image, there, interpolation)
        if value in registration.limits:
            values[~registration.limits[value].contains(there)] = np.nan
        result[mask] = values
    return _like_input(image, result, atlas.geometry)


def warp_from_atlas(image: Image, registration: PersonRegistration, geometry: Geometry,
                    interpolation: str | None = None) -> Image:
    """Resample an image of the atlas (labels, regions, a statistical map) onto a person's grid, once.

    Parameters
    ----------
    image : Image
        On the atlas's space; integers are taken as labels.
    registration : PersonRegistration
    geometry : Geometry
        The person's grid.
    interpolation : {'linear', 'nearest', 'label'}, optional
        'label' (default for integers) takes the label with the largest linear weight, which keeps borders smooth;
        'linear' is the default otherwise.

    Returns
    -------
    Image
        NaN (labels: 0) where no disc's transform reaches.
    """
    is_label = np.issubdtype(image.array.dtype, np.integer) or image.array.dtype == bool
    interpolation = interpolation or ("label" if is_label else "linear")
    result = np.full(geometry.shape, np.nan, np.float32)
    for transform in registration.levels.values():
        box = _overlap(transform.to_atlas.geometry, geometry)
        if box is None:
            continue
        index = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), axis=-1)
        there = transform.to_atlas(geometry.index_to_world(index[..., ::-1]))
        found = sample(image, there, interpolation)
        view = result[box]
        # Neighboring discs' boxes overlap: background of one must not overwrite the disc of the other.
        use = np.isfinite(found) & (np.isnan(view) | ((found != 0) & (view == 0)) if is_label else np.isnan(view))
        view[use] = found[use]
    return _like_input(image, result, geometry)


def sample(image: Image, points: np.ndarray, interpolation: str = "linear") -> np.ndarray:
    """Return values of an image at (..., 3) LPS points; NaN outside the volume, half a voxel beyond its last centers.

    Linear interpolation leaves NaN voxels out and needs :data:`VALID_SHARE` of the weight from the others.
    """
    index = np.moveaxis(image.geometry.world_to_index(points)[..., ::-1], -1, 0)
    size = np.array(image.array.shape).reshape(3, *[1] * (index.ndim - 1))
    outside = ~np.all((index >= -0.5) & (index <= size - 0.5), axis=0)
    index = np.clip(np.nan_to_num(index), 0, size - 1)
    if interpolation == "nearest":
        found = image.array[tuple(np.rint(index).astype(int))].astype(np.float32)
    elif interpolation == "label":
        found = _label_linear(image.array, index)
    elif interpolation == "linear":
        array = image.array.astype(np.float32)
        valid = np.isfinite(array)
        weight = ndimage.map_coordinates(valid.astype(np.float32), index, order=1)
        total = ndimage.map_coordinates(np.where(valid, array, 0), index, order=1)
        found = np.where(weight >= VALID_SHARE, total / np.maximum(weight, 1e-6), np.nan).astype(np.float32)
    else:
        raise RegistrationError(f"There is no interpolation '{interpolation}': choose linear, nearest or label.")
    found[outside] = np.nan
    return found


def _label_linear(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return at each point the label with the largest linear weight."""
    low = np.floor(index).astype(int)
    near = np.stack([array[tuple(np.minimum(low + np.array(o).reshape(3, *[1] * (index.ndim - 1)),
                                            np.array(array.shape).reshape(3, *[1] * (index.ndim - 1)) - 1))]
                     for o in np.ndindex(2, 2, 2)])
    best = np.zeros(index.shape[1:], np.float32)
    weight = np.zeros(index.shape[1:])
    for label in np.unique(near):
        share = ndimage.map_coordinates((array == label).astype(np.float32), index, order=1)
        best[share > weight] = label
        weight = np.maximum(weight, share)
    return best


def _overlap(source: Geometry, target: Geometry) -> tuple[slice, ...] | None:
    """Return the box of `target`'s array that the grid `source` reaches, or None."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in source.size])).reshape(3, -1).T
    index = target.world_to_index(source.index_to_world(corners))[:, ::-1]
    low = np.maximum(np.floor(index.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(index.max(0)).astype(int) + 1, target.shape)
    return tuple(slice(a, b) for a, b in zip(low, high)) if np.all(high > low) else None


def _like_input(image: Image, result: np.ndarray, geometry: Geometry) -> Image:
    """Return labels as integers with 0 for missing, maps as float32 with their metadata."""
    if np.issubdtype(image.array.dtype, np.integer) or image.array.dtype == bool:
        dtype = np.uint8 if image.array.dtype == bool else image.array.dtype
        return Image(np.nan_to_num(result).astype(dtype), geometry, dict(image.meta))
    return Image(result, geometry, dict(image.meta))
