"""Registration by other programs: greedy and itk-elastix, with their own defaults."""

import tempfile

import numpy as np
import SimpleITK as sitk

VERSIONS = ("picsl-greedy", "itk-elastix")


def greedy(fixed: sitk.Image, moving: sitk.Image, metric: str) -> sitk.Transform:
    """Return greedy's affine and deformable transform, fixed to moving points (one thread).

    Parameters
    ----------
    fixed, moving : SimpleITK.Image
    metric : str
        As greedy names it, such as ``SSD`` or ``NCC 4x4x2``.
    """
    from picsl_greedy import Greedy3D

    images = {"fx": fixed, "mv": moving}
    with tempfile.TemporaryDirectory() as folder:
        run, file = Greedy3D(), f"{folder}/affine.mat"
        run.execute(f"-d 3 -threads 1 -V 0 -a -dof 12 -ia-identity -i fx mv -o aff -n 50x20 -m {metric}", aff=None,
                    **images)
        affine = np.array(run["aff"])
        np.savetxt(file, affine)
        run.execute(f"-d 3 -threads 1 -V 0 -i fx mv -it {file} -o warp -n 100x50 -m {metric} -s 1.732vox 0.707vox",
                    warp=None, **images)
        field = sitk.DisplacementFieldTransform(sitk.Cast(run["warp"], sitk.sitkVectorFloat64))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # its matrices are in RAS
    matrix = flip @ affine @ flip
    linear = sitk.AffineTransform(3)
    linear.SetMatrix(matrix[:3, :3].ravel())
    linear.SetTranslation(matrix[:3, 3])
    return sitk.CompositeTransform([linear, field])


def elastix(fixed, moving) -> sitk.Transform:
    """Return the transform of itk-elastix's default rigid, affine and B-spline maps for two images (one thread)."""
    import itk

    from DiscAtlasLib.elastix import to_sitk

    parameters = itk.ParameterObject.New()
    for name in ("rigid", "affine", "bspline"):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(name))
    views = []
    for image in (fixed, moving):
        view = itk.image_from_array(np.ascontiguousarray(image.array))
        view.SetSpacing(image.geometry.spacing)
        view.SetOrigin(image.geometry.origin)
        view.SetDirection(itk.matrix_from_array(np.array(image.geometry.direction).reshape(3, 3)))
        views.append(view)
    with tempfile.TemporaryDirectory() as folder:
        method = itk.ElastixRegistrationMethod.New(*views)
        method.SetParameterObject(parameters)
        method.SetOutputDirectory(folder)
        method.SetNumberOfThreads(1)
        method.SetLogToConsole(False)
        method.UpdateLargestPossibleRegion()
        found = method.GetTransformParameterObject()
        return to_sitk([dict(found.GetParameterMap(n)) for n in range(found.GetNumberOfParameterMaps())])


def points_through(transform: sitk.Transform, points: np.ndarray, geometry) -> np.ndarray:
    """Return where a transform takes the points (k, j, i, 3) of a grid."""
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, geometry.size, geometry.origin,
                                              geometry.spacing, geometry.direction)
    return points + sitk.GetArrayFromImage(field)
