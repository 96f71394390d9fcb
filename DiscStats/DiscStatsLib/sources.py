"""An analysis whose images may be named by their files, so that a child process reads them, not the window."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.progress import ProgressCallback

if TYPE_CHECKING:
    from .analysis import AnalysisResult


def is_file(source) -> bool:
    """Return whether an image is named by its file."""
    return isinstance(source, (str, os.PathLike))


def converted(images, convert: Callable):
    """Return (nested) lists and dicts with each image converted; None (no map) and arrays stay."""
    if isinstance(images, dict):
        return {key: converted(value, convert) for key, value in images.items()}
    if isinstance(images, (list, tuple)):
        return [converted(image, convert) for image in images]
    return images if images is None or hasattr(images, "ndim") else convert(images)


def analyze_sources(maps, atlas_labels, participants, formula: str, regions=None, voxel_covariates=None,
                    progressCallback: ProgressCallback | None = None, **settings) -> AnalysisResult:
    """Read the images that are named by their files, and analyze; parameters are those of :func:`analyze`."""
    from .analysis import analyze

    maps, atlas_labels, regions, voxel_covariates = converted(
        [maps, atlas_labels, regions, voxel_covariates], lambda image: read_image(image) if is_file(image) else image)
    return analyze(maps, atlas_labels, participants, formula, regions=regions, voxel_covariates=voxel_covariates,
                   progressCallback=progressCallback, **settings)
