"""Volumes made worse on purpose: what other scanners, short protocols and hardware do to an image."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.image import Geometry, Image


def low_resolution(image: Image, inplane_mm: float, slice_mm: float, noise: float = 0.0, seed: int = 0) -> Image:
    """Average a volume (k, j, i with i the slice axis) to a coarser grid, with Rician noise.

    The slice spacing (mm) is rounded to a multiple of the old one; the noise is the SD of both channels, as a share of
    the 99th percentile of the signal.
    """
    geometry = image.geometry
    thick = max(1, round(slice_mm / geometry.spacing[0]))
    count = image.array.shape[2] // thick
    array = image.array[..., :count * thick].astype(np.float32)
    array = array.reshape(*array.shape[:2], count, thick).mean(3)
    factors = [inplane_mm / mm for mm in (geometry.spacing[2], geometry.spacing[1])]
    smooth = ndimage.gaussian_filter(array, (0.4 * factors[0], 0.4 * factors[1], 0))
    shape = [int(size / f) for size, f in zip(array.shape[:2], factors)]
    coarse = ndimage.affine_transform(smooth, [*factors, 1.0], output_shape=(*shape, count), order=1)
    random, sd = np.random.default_rng(seed), noise * np.percentile(array, 99)
    coarse = np.hypot(coarse + sd * random.standard_normal(coarse.shape), sd * random.standard_normal(coarse.shape))
    spacing = (geometry.spacing[0] * thick, inplane_mm, inplane_mm)
    origin = geometry.index_to_world([(thick - 1) / 2, 0, 0])
    grid = Geometry(coarse.shape[::-1], spacing, tuple(origin), geometry.direction)
    return Image(coarse.astype(np.float32), grid, dict(image.meta))


def _noisy(image: Image, seed: int) -> Image:
    random, sd = np.random.default_rng(seed), 0.12 * np.percentile(image.array, 99)
    array = image.array.astype(np.float32)
    return image.like(np.hypot(array + sd * random.standard_normal(array.shape),
                               sd * random.standard_normal(array.shape)))


def _blurred(image: Image, seed: int) -> Image:
    sigma = [0 if axis == 2 else 2.0 / mm for axis, mm in enumerate(image.geometry.spacing[::-1])]
    return image.like(ndimage.gaussian_filter(image.array.astype(np.float32), sigma))


def _inverted(image: Image, seed: int) -> Image:
    array = image.array.astype(np.float32)
    return image.like(np.percentile(array, 99.5) - np.minimum(array, np.percentile(array, 99.5)))


def _void(image: Image, seed: int) -> Image:
    """Put three signal voids of 12 to 25 mm, as of screws, in the middle third of the image."""
    random, array = np.random.default_rng(seed), image.array.astype(np.float32)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in array.shape)]
    spacing = image.geometry.spacing[::-1]
    for _ in range(3):
        center = [random.uniform(0.2, 0.8) * array.shape[0], random.uniform(0.35, 0.65) * array.shape[1],
                  random.uniform(0.2, 0.8) * array.shape[2]]
        distance = np.sqrt(sum(((g - c) * mm) ** 2 for g, c, mm in zip((z, y, x), center, spacing)))
        array = array * np.clip((distance - random.uniform(6, 12)) / 4, 0, 1)
    return image.like(array)


def _shaded(image: Image, seed: int) -> Image:
    array = image.array.astype(np.float32)
    ramp = np.linspace(0, 1, array.shape[0])[:, None, None]
    return image.like(array * np.exp(-3.0 * ramp))


DEGRADATIONS: dict[str, Callable[[Image, int], Image]] = {
    "as acquired": lambda image, seed: image, "noise": _noisy, "blur 2 mm": _blurred, "inverted": _inverted,
    "signal voids": _void, "shading": _shaded}
