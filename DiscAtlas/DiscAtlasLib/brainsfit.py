"""Backend BRAINSFit: rigid, affine and B-spline registration of signed distance maps by Slicer's program.

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

from .shape import DiscShape
from .start import composed, pose

#: Control grid spacing, mm: 5-8 mm is below a disc's height.
CONTROL_SPACING = 6.0
#: Given the images by BRAINSFit's parameter names and its other parameters, returns the transform it found.
Runner = Callable[[dict[str, Image], dict], sitk.Transform]


class BrainsfitBackend:
    """Backend that matches discs with BRAINSFit.

    Parameters
    ----------
    runner : callable
        Runs the program on images and parameters.
    """

    name = "brainsfit"

    def __init__(self, runner: Runner):
        self.runner = runner

    def __call__(self, pairs: list[tuple[DiscShape, DiscShape]], progress: ProgressCallback) -> list:
        """Match each pair of discs; see ``registration.Backend``."""
        results = []
        for step, (fixed, moving) in enumerate(pairs):
            progress(step / len(pairs), f"{moving.name}: BRAINSFit")
            problem = pose(fixed, moving)
            images = {"fixedVolume": problem.fixed, "movingVolume": problem.moving,
                      "fixedBinaryVolume": problem.mask, "movingBinaryVolume": problem.mask.like(
                          np.ones_like(problem.mask.array))}
            try:
                results.append((composed(problem, self.runner(images, parameters_for(problem.geometry))),))
            except RegistrationError as error:
                results.append(RegistrationError(f"{moving.name}: {error.message}"))
        return results


def parameters_for(geometry: Geometry) -> dict:
    """Return BRAINSFit's parameters, without images, for a registration on this grid."""
    extent = np.array(geometry.size) * np.array(geometry.spacing)
    return {
        # The frames have placed the discs; another initialization would undo it.
        "initializeTransformMode": "Off",
        "useRigid": True, "useAffine": True, "useBSpline": True,
        "splineGridSize": [int(n) for n in np.maximum(np.ceil(extent / CONTROL_SPACING), 4)],
        # Both images are distances in mm: equal values correspond, no histogram is needed.
        "costMetric": "MSE",
        # The band around the surface; farther out, and where the disc is cut, nothing is to be matched.
        "maskProcessingMode": "ROI", "ROIAutoDilateSize": 0.0,
        "samplingPercentage": 0.3, "samplingStrategy": "Random",
        "numberOfIterations": [500, 500, 500],
        # No control point farther than this (mm): below 0.4 x the spacing a cubic B-spline does not fold.
        "maxBSplineDisplacement": 0.4 * CONTROL_SPACING,
        "interpolationMode": "Linear",
        "numberOfThreads": 1,
    }
