"""Segment one disc: a run of the network around a point."""

import numpy as np
import scipy

from ..errors import SegmentationError
from ..image import Geometry, Image
from ..progress import ProgressCallback, subrange
from .engine import Model, load_engine, load_model
from .inference import predict
from .instances import find_discs

#: mm around the point that the network sees: sideways, front to back, up and down; three discs and the canal.
REACH = (35.0, 80.0, 80.0)
#: mm from the point to the disc.
NEAR = 8.0
#: Probabilities of a disc that are tried in turn: a disc that was missed lies below the usual one.
PROBABILITIES = (0.5, 0.2)
_DISC_CLASS = 3


def around(image: Image, lps) -> tuple[Image, tuple[slice, ...]]:
    """Return the part of an image within REACH of a point, and where it lies in the array."""
    geometry = image.geometry
    corners = np.array([geometry.world_to_index(np.asarray(lps) + np.array(REACH) * [x, y, z])
                        for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0)) + 1, geometry.size).astype(int)
    where = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1]))
    part = Geometry(high - low, geometry.spacing, geometry.index_to_world(low), geometry.direction)
    return Image(np.ascontiguousarray(image.array[where]), part, dict(image.meta)), where


def disc_at(image: Image, lps, engine: str = "auto", device: str | None = None, threads: int | None = None,
            model: Model | None = None, progressCallback: ProgressCallback | None = None) -> Image:
    """Segment the disc at a point of a sagittal volume.

    Parameters
    ----------
    image : Image
        As for :func:`segment`.
    lps : sequence of float
        Point in the disc, or NEAR it, in mm.
    engine, device, threads, model, progressCallback
        As for :func:`segment`.

    Returns
    -------
    Image of bool
        The disc on the grid of `image`.

    Raises
    ------
    SegmentationError
        If the point lies outside the image, or the network sees no disc there.
    """
    if image.geometry.voxel_at(lps) is None:
        raise SegmentationError("This point lies outside the volume: click on a disc of the volume that is edited.")
    report = subrange(progressCallback, 0.0, 1.0)
    report(0.0, "Loading the network")
    model = model or load_model()
    part, where = around(image, lps)
    prediction, _flags = predict(part, model, load_engine(model, engine, device, threads),
                                 progressCallback=subrange(progressCallback, 0.05, 0.95))
    found = nearest_disc(prediction.classes, prediction.disc.astype(float), part.geometry, lps)
    if found is None:
        raise SegmentationError("The network sees no disc at this point: click nearer to the middle of a disc, or "
                                "paint it.", anchor="no-spine-found")
    whole = np.zeros(image.array.shape, bool)
    whole[where] = found
    report(1.0, "The disc is ready")
    return image.like(whole)


def nearest_disc(classes: np.ndarray, probability: np.ndarray, geometry: Geometry, lps) -> np.ndarray | None:
    """Return the mask of the disc within NEAR of a point, or None; discs that touch are told apart where possible."""
    for limit in PROBABILITIES:
        mask = probability >= limit
        pieces = _pieces(np.where(mask, _DISC_CLASS, np.where(classes == _DISC_CLASS, 0, classes)), geometry)
        distances = [np.linalg.norm(geometry.index_to_world(p[:, ::-1]) - lps, axis=1).min() for p in pieces]
        if distances and min(distances) <= NEAR:
            result = np.zeros(mask.shape, bool)
            result[tuple(pieces[int(np.argmin(distances))].T)] = True
            return result
    return None


def _pieces(classes: np.ndarray, geometry: Geometry) -> list[np.ndarray]:
    """Return the array indices of each disc; of each connected part, where too little of the spine is seen."""
    try:
        discs, _islands, _curve = find_discs(classes, geometry)
        if discs:
            return [d.indices for d in discs]
    except SegmentationError:
        pass
    parts, count = scipy.ndimage.label(classes == _DISC_CLASS, np.ones((3, 3, 3)))
    return [np.argwhere(parts == n) for n in range(1, count + 1)]
