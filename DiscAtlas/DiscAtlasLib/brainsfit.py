"""Backend BRAINSFit: registration of signed distance maps by Slicer's program.

Slicer's command line modules are programs with options. This one is run as such, so that registration by it needs no
scene and works in a child process, level beside level.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, write_image

from .coordinates import Target
from .shape import DiscShape
from .start import DiscImages, composed, posed
from .transforms import Match

#: Control grid spacings, mm, of the two B-splines, each found after the one before: a flat or bent disc is farther from
#: the atlas than a fine grid may move it, and 6 mm is below a disc's height.
CONTROL_SPACINGS = (12.0, 6.0)


def brainsfit_program(folder: str | None = None) -> str:
    """Return the program's path, in `folder` or on the PATH; RegistrationError if it is not there."""
    program = shutil.which("BRAINSFit", path=folder)
    if program is None:
        raise RegistrationError("BRAINSFit is a program of 3D Slicer and is not here: use Slicer, put the program on "
                                "the PATH, or choose the backend 'coordinates' or 'elastix'.",
                                anchor="brainsfit-outside-slicer")
    return program


def match_brainsfit(fixed: Target, moving: DiscShape, program: str) -> Match:
    """Match a person's disc to the atlas's by BRAINSFit, at the path `program`; RegistrationError if it failed."""
    to_moving = None
    for spacing in CONTROL_SPACINGS:
        images = posed(fixed.shape, moving, to_moving)
        try:
            found = run_brainsfit(program, images, parameters_for(images.geometry, spacing))
        except RegistrationError as error:
            raise RegistrationError(f"{moving.who}: {error.message}", error.anchor) from error
        to_moving = composed(images, found)
    assert to_moving is not None
    return Match(to_moving)


def run_brainsfit(program: str, images: DiscImages, parameters: dict) -> sitk.Transform:
    """Run the program on two discs and return its transform; RegistrationError with its last words if it failed."""
    volumes = {"fixedVolume": images.fixed, "movingVolume": images.moving, "fixedBinaryVolume": images.mask,
               "movingBinaryVolume": images.mask.like(np.ones_like(images.mask.array))}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.h5"
        command = [program, "--outputTransform", str(found), *_options(parameters)]
        for name, image in volumes.items():
            path = Path(folder) / f"{name}.nrrd"
            write_image(image, path)
            command += [f"--{name}", str(path)]
        # On Windows a program of the console opens a window otherwise.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                              errors="replace", creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        try:
            if done.returncode == 0:
                return sitk.ReadTransform(str(found))
        except RuntimeError as error:
            raise RegistrationError("BRAINSFit wrote no transform that can be read.", "brainsfit-failed") from error
        reason = _reason(done.stdout, done.stderr) or f"no reason given, exit code {done.returncode}"
        raise RegistrationError(f"BRAINSFit stopped: {reason}", anchor="brainsfit-failed")


def _reason(*streams: str) -> str:
    """Return the last words of an error: warnings of two lines stand before it, a usage stands after it."""
    text = re.sub(r"WARNING: .*\n.*", "", "\n".join(text.split("Brief USAGE")[0] for text in streams))
    said = [line.strip() for line in text.splitlines() if line.strip()]
    last = max((n for n, line in enumerate(said) if "error" in line.lower()), default=-3)
    return " ".join(said[last:][:3])


def _options(parameters: dict) -> list[str]:
    """Return options of the command line; a list is joined by commas, True stands for a flag."""
    words = []
    for name, value in parameters.items():
        words.append(f"--{name}")
        if value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return words


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
