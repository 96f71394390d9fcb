"""Backend Elastix: rigid, affine and B-spline registration of signed distance maps with itk-elastix.

itk-elastix 0.25.4 crashes on a B-spline with two or more threads, so each process uses one thread and levels side by
side run in processes.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.resources import resource_path

from .coordinates import Target
from .shape import DiscShape
from .start import DiscImages, composed, posed
from .transforms import Match

PARAMETER_FILES = ("1_rigid.txt", "2_affine.txt", "3_bspline.txt")


def match_elastix(fixed: Target, moving: DiscShape) -> Match:
    """Match a person's disc to the atlas's by Elastix; RegistrationError if it is not installed, or stopped."""
    images = posed(fixed.shape, moving)
    try:
        return Match(composed(images, to_sitk(run_elastix(images, parameter_files()))))
    except RegistrationError as error:
        raise RegistrationError(f"{moving.who}: {error.message}", error.anchor) from error


def parameter_files(folder: str | os.PathLike | None = None) -> list[str]:
    """Return the paths of the three parameter files."""
    root = resource_path("Parameters", "DiscAtlasLib") if folder is None else Path(folder)
    missing = [f for f in PARAMETER_FILES if not (root / f).exists()]
    if missing:
        raise RegistrationError(f"Elastix parameter files are missing from '{root}': {', '.join(missing)}.")
    return [str(root / f) for f in PARAMETER_FILES]


def run_elastix(images: DiscImages, files: list[str]) -> list[dict]:
    """Run Elastix on two discs and return its transform parameter maps, first applied first.

    RegistrationError in plain words, where Elastix only says that it stopped.
    """
    try:
        import itk
    except ImportError as error:
        raise RegistrationError("Elastix is not installed: install the package itk-elastix, or choose the backend "
                                "'coordinates'.", anchor="no-elastix") from error
    parameters = itk.ParameterObject.New()
    for file in files:
        parameters.AddParameterFile(file)
    views = [_itk_image(itk, i) for i in (images.fixed, images.moving, images.mask)]
    # Elastix and transformix leave files where they are told, or in the working directory.
    with tempfile.TemporaryDirectory() as folder:
        method = itk.ElastixRegistrationMethod.New(views[0], views[1])
        method.SetFixedMask(views[2])
        method.SetParameterObject(parameters)
        method.SetOutputDirectory(folder)
        method.SetLogToConsole(False)
        method.SetLogToFile(True)
        method.SetLogFileName("elastix.log")
        method.SetNumberOfThreads(1)
        try:
            method.UpdateLargestPossibleRegion()
        except RuntimeError as error:
            log = Path(folder) / "elastix.log"
            text = (log.read_text(errors="replace") if log.exists() else "") + str(error)
            raise RegistrationError(plain_words(text), anchor="elastix-failed") from error
        found = method.GetTransformParameterObject()
        return [{k: tuple(v) for k, v in dict(found.GetParameterMap(n)).items()}
                for n in range(found.GetNumberOfParameterMaps())]


def plain_words(log: str) -> str:
    """Return what an Elastix log says went wrong, and the remedy."""
    if "Too many samples map outside moving image buffer" in log:
        return ("Elastix moved the disc out of the image: the two discs are too far apart or too different in size. "
                "Check that the level's label is right and the disc complete, or use the backend 'coordinates'.")
    if "No valid voxels" in log or "mask" in log.lower() and "empty" in log.lower():
        return ("Elastix found no voxel to compare: the disc is hardly in the image. Check the segmentation, or use "
                "the backend 'coordinates'.")
    last = [line.strip() for line in log.splitlines() if "rror" in line]
    return f"Elastix stopped ({last[-1] if last else 'no reason given'}). Use the backend 'coordinates' for this level."


def _itk_image(itk, image):
    view = itk.image_from_array(np.ascontiguousarray(image.array))
    view.SetSpacing(image.geometry.spacing)
    view.SetOrigin(image.geometry.origin)
    return view


def to_sitk(maps: list[dict]) -> sitk.CompositeTransform:
    """Return Elastix's Euler, affine and cubic B-spline maps (first applied first; no others) as one ITK transform."""
    composite = sitk.CompositeTransform(3)
    for parameters in reversed(maps):  # ITK applies the transform added last first.
        composite.AddTransform(_one(parameters))
    return composite


def _one(parameters: dict) -> sitk.Transform:
    kind = parameters["Transform"][0]
    values = [float(v) for v in parameters["TransformParameters"]]
    if kind == "BSplineTransform":
        transform = sitk.BSplineTransform(3, 3)
        fixed = [float(v) for key in ("GridSize", "GridOrigin", "GridSpacing") for v in parameters[key]]
        # Elastix lists direction cosines column by column, ITK row by row.
        direction = np.array([float(v) for v in parameters["GridDirection"]]).reshape(3, 3).T.ravel()
        transform.SetFixedParameters([*fixed, *direction])
        transform.SetParameters(values)
        return transform
    center = [float(v) for v in parameters.get("CenterOfRotationPoint", (0, 0, 0))]
    if kind == "AffineTransform":
        affine = sitk.AffineTransform(3)
        affine.SetFixedParameters(center)
        affine.SetParameters(values)
        return affine
    if kind == "EulerTransform":
        rigid = sitk.Euler3DTransform()
        rigid.SetCenter(center)
        rigid.SetComputeZYX(parameters.get("ComputeZYX", ("false",))[0] == "true")
        rigid.SetParameters(values)
        return rigid
    raise RegistrationError(f"Elastix used a transform of kind '{kind}', which cannot be written for Slicer: use "
                            "EulerTransform, AffineTransform and BSplineTransform in the parameter files.")
