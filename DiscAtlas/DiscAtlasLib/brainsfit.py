"""Backend BRAINSFit: registration of signed distance maps by Slicer's program.

The program is reached through a runner that is given to the backend, so that this file needs no Slicer;
``mrml.brainsfit_backend`` makes the one for Slicer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.progress import ProgressCallback

from .coordinates import Target
from .shape import DiscShape
from .start import composed, posed
from .transforms import Match

#: Control grid spacings, mm, of the two B-splines, each found after the one before: a flat or bent disc is farther from
#: the atlas than a fine grid may move it, and 6 mm is below a disc's height.
CONTROL_SPACINGS = (12.0, 6.0)
#: Given the images by BRAINSFit's parameter names, its other parameters and a progress callback, returns the transform
#: that it found.
Runner = Callable[[dict[str, Image], dict, ProgressCallback], sitk.Transform]


def match_brainsfit(fixed: Target, moving: DiscShape, progress: ProgressCallback, runner: Runner) -> Match:
    """Match two discs by BRAINSFit.

    Parameters
    ----------
    fixed : Target
        The atlas's disc.
    moving : DiscShape
        The person's.
    progress : callable
        Called while the program runs; what it raises cancels the program.
    runner : callable
        Runs the program on images and parameters.

    Raises
    ------
    RegistrationError
        If the program failed.
    """
    to_moving = None
    for spacing in CONTROL_SPACINGS:
        images = posed(fixed.shape, moving, to_moving)
        volumes = {"fixedVolume": images.fixed, "movingVolume": images.moving, "fixedBinaryVolume": images.mask,
                   "movingBinaryVolume": images.mask.like(np.ones_like(images.mask.array))}
        try:
            found = runner(volumes, parameters_for(images.geometry, spacing), progress)
        except RegistrationError as error:
            raise RegistrationError(f"{moving.who}: {error.message}", error.anchor) from error
        to_moving = composed(images, found)
    return Match(to_moving)


def parameters_for(geometry: Geometry, spacing: float) -> dict:
    """Return BRAINSFit's parameters, without images, for a B-spline of this control spacing (mm) on this grid."""
    extent = np.array(geometry.size) * np.array(geometry.spacing)
    cells = np.maximum(np.ceil(extent / spacing), 4).astype(int)
    return {
        # The frames have placed the discs; another initialization would undo it.
        "initializeTransformMode": "Off",
        # No linear stage: along left-right it slides where a disc is cut, and the frames did its work.
        "useBSpline": True,
        "splineGridSize": cells.tolist(),
        # Both images are distances in mm: equal values correspond, no histogram is needed.
        "costMetric": "MSE",
        # The band around the surface; farther out, and where the disc is cut, nothing is to be matched.
        "maskProcessingMode": "ROI",
        "samplingPercentage": 0.3, "metricSamplingStrategy": "Random",
        "numberOfIterations": [40],
        # The program's own 2e13 ends the B-spline after one iteration; below 1e12 nothing changes but the time.
        "costFunctionConvergenceFactor": 1e12,
        # No control point farther than this (mm): below 0.4 x the spacing a cubic B-spline does not fold.
        "maxBSplineDisplacement": float(0.4 * (extent / cells).min()),
        "interpolationMode": "Linear",
        "numberOfThreads": 1,
    }
