"""Registration of a phantom with a known smooth deformation: disc coordinates against greedy and itk-elastix.

Run it with a Python that has picsl-greedy and itk-elastix besides numpy, scipy and SimpleITK::

    python Testing/benchmarks/bench_phantom.py --phantoms 5 --elastix 1

Disc coordinates see the labels only (disc and canal); the peers see the T2-weighted images, with the whole contrast.
CPU seconds are of this process; one thread each. The phantom is described in ``Testing/support/atlas_phantom.py``.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / p) for p in ("DiscRelaxometry", "DiscAtlas", "Testing")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
from support.atlas_phantom import GRID, L45, make_phantom  # noqa: E402

from DiscAtlasLib.coordinates import match  # noqa: E402
from DiscAtlasLib.shape import disc_shape  # noqa: E402
from DiscAtlasLib.transforms import DisplacementField, grid_points  # noqa: E402
from DiscAtlasLib.warping import sample  # noqa: E402
from DiscRelaxometryLib.image import Image  # noqa: E402


def coordinates(phantom):
    found = match(disc_shape(phantom.fixed["labels"], L45), disc_shape(phantom.moving["labels"], L45))
    return found.forward(grid_points(GRID))


def greedy(phantom):
    from picsl_greedy import Greedy3D

    fixed, moving = phantom.fixed["signal"].to_sitk(), phantom.moving["signal"].to_sitk()
    with tempfile.TemporaryDirectory() as folder:
        run, file = Greedy3D(), f"{folder}/affine.mat"
        run.execute("-d 3 -threads 1 -V 0 -a -dof 12 -ia-identity -i fx mv -o aff -n 50x20 -m NCC 4x4x2",
                    fx=fixed, mv=moving, aff=None)
        affine = np.array(run["aff"])
        np.savetxt(file, affine)
        run.execute(f"-d 3 -threads 1 -V 0 -i fx mv -it {file} -o warp -n 100x50 -m NCC 4x4x2 -s 1.732vox 0.707vox",
                    fx=fixed, mv=moving, warp=None)
        field = sitk.GetArrayFromImage(run["warp"])
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = flip @ affine @ flip
    return (grid_points(GRID) + field) @ matrix[:3, :3].T + matrix[:3, 3]


def elastix(phantom):
    import itk

    parameters = itk.ParameterObject.New()
    for name in ("rigid", "affine", "bspline"):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(name))
    views = []
    for image in (phantom.fixed["signal"], phantom.moving["signal"]):
        view = itk.image_from_array(np.ascontiguousarray(image.array))
        view.SetSpacing(GRID.spacing)
        view.SetOrigin(GRID.origin)
        view.SetDirection(itk.matrix_from_array(np.array(GRID.direction).reshape(3, 3)))
        views.append(view)
    with tempfile.TemporaryDirectory() as folder:
        method = itk.ElastixRegistrationMethod.New(*views)
        method.SetParameterObject(parameters)
        method.SetOutputDirectory(folder)
        method.SetNumberOfThreads(1)
        method.SetLogToConsole(False)
        method.UpdateLargestPossibleRegion()
        found = method.GetTransformParameterObject()
        from DiscAtlasLib.elastix import to_sitk
        transform = to_sitk([dict(found.GetParameterMap(n)) for n in range(found.GetNumberOfParameterMaps())])
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, GRID.size, GRID.origin, GRID.spacing,
                                              GRID.direction)
    return grid_points(GRID) + sitk.GetArrayFromImage(field)


def figures(phantom, mapped) -> dict:
    """Return Dice, target registration error, map error and folding inside the fixed disc."""
    points = grid_points(GRID)
    disc = phantom.fixed["labels"].array == L45
    moving = Image((phantom.moving["labels"].array == L45).astype(np.float32), GRID)
    warped = np.nan_to_num(sample(moving, mapped)) > 0.5
    error = np.linalg.norm(mapped[disc] - phantom.truth(points[disc]), axis=-1)
    t2 = np.abs(sample(phantom.moving["t2"], mapped[disc]) - phantom.fixed["t2"].array[disc])
    jacobian = DisplacementField(mapped - points, GRID).jacobian()[disc]
    return {"Dice": 2 * (warped & disc).sum() / (warped.sum() + disc.sum()), "TRE mm": error.mean(),
            "TRE 95 mm": np.percentile(error, 95), "map ms": np.nanmean(t2), "folding": (jacobian <= 0).mean()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=5)
    parser.add_argument("--elastix", type=int, default=1, help="phantoms on which itk-elastix's default maps run")
    options = parser.parse_args()
    rows: dict[str, list[dict]] = {}
    for seed in range(options.phantoms):
        phantom = make_phantom(seed)
        points = grid_points(GRID)
        methods = {"start": lambda p: grid_points(GRID), "true mapping": lambda p: p.truth(grid_points(GRID)),
                   "disc coordinates": coordinates, "greedy, local NCC": greedy}
        if seed < options.elastix:
            methods["itk-elastix, default"] = elastix
        assert points.shape[:3] == GRID.shape
        for name, method in methods.items():
            begin = time.process_time()
            try:
                mapped = method(phantom)
            except ImportError as error:
                print(f"{name}: not run ({error})")
                continue
            seconds = time.process_time() - begin
            rows.setdefault(name, []).append({"CPU s": seconds, **figures(phantom, mapped)})
    names = list(next(iter(rows.values()))[0])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; mean over phantoms (n)")
    print(f"| method | n | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}")
    for name, found in rows.items():
        means = [np.mean([f[n] for f in found]) for n in names]
        print(f"| {name} | {len(found)} | {' | '.join(f'{m:.3f}' for m in means)} |")
    for name, found in rows.items():
        print(f"{name}: TRE of each {[round(float(f['TRE mm']), 2) for f in found]}")


if __name__ == "__main__":
    main()
