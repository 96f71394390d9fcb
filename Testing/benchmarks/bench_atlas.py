"""Registration of 46 native disc shapes and two whole-width people to templates built from other people.

The people are split in two halves; each half is registered to the template of some of the other half, so nobody is
registered to a template that holds him or her. With ``--output`` each person's rows are kept in a file as they come,
and a second run takes up where the first was stopped. Run it with a Python that has itk-elastix and picsl-greedy
besides numpy, scipy and SimpleITK, for the peers in the same run::

    DISC_SHARED_DATA=... python Testing/benchmarks/bench_atlas.py --template-people 8 --elastix 2 --peers 1

Everybody gets shapes only: the peers register the same signed distance maps, aligned by centroid. For all methods Dice
is of the person's own voxels, on the person's own grid, against the warped smooth surface of the atlas's disc.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / p) for p in ("DiscRelaxometry", "DiscAtlas", "Testing")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402

from DiscAtlasLib.atlas import load_atlas, save_atlas  # noqa: E402
from DiscAtlasLib.registration import register_person  # noqa: E402
from DiscAtlasLib.shape import disc_shape  # noqa: E402
from DiscAtlasLib.template import build_template  # noqa: E402
from DiscAtlasLib.transforms import grid_points, surrounding_grid  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image, read_image  # noqa: E402
from DiscRelaxometryLib.labels import disc_name  # noqa: E402

DATA = Path(os.environ.get("DISC_SHARED_DATA", ROOT.parent / "shared" / "data"))


def people() -> dict[str, Image]:
    """Return label images of the 46 native shapes (as stored: rows to caudal, columns to posterior) and the two."""
    found = {}
    for path in sorted((DATA / "ivd_t2w" / "native_labels").glob("*_dseg.nii.gz")):
        image = read_image(path)
        geometry = Geometry(image.geometry.size, image.geometry.spacing, (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
        found[path.name[:6]] = Image(_named(image.array), geometry)
    for path in sorted((DATA / "ivd_t2w").glob("*_dseg.nii.gz")):
        image = read_image(path)
        found[path.name[:6] + " (1 mm)"] = image.like(_named(image.array))
    return found


def _named(array):
    return np.where(array > 0, array + 10, 0).astype(np.uint8)


def one(task):
    """Register one person; return rows, CPU seconds of shapes, match and dense fields, and peak memory in MB."""
    name, labels, atlas, backend, levels = task
    begin = time.process_time()
    result = register_person(labels, atlas, levels, _elastix if backend == "elastix" else backend, person=name)
    seconds = time.process_time() - begin
    return name, result.quality.rows, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peer(task):
    """Return name, Dice and CPU seconds of a peer on one disc; the error if it does not run."""
    kind, name, labels, atlas, value = task
    try:
        return kind, f"{name} {disc_name(value)}", *peer_dice(kind, labels, atlas, value)
    except (ImportError, RuntimeError) as error:
        words = str(error).strip().splitlines()[-1][:80]
        return kind, f"{name} {disc_name(value)}: {words}", float("nan"), float("nan")


def _elastix(pairs, progress):
    from DiscAtlasLib.elastix import match_elastix

    return match_elastix(pairs, progress, workers=1)


def peer_dice(kind: str, labels: Image, atlas, value: int) -> tuple[float, float]:
    """Return Dice and CPU seconds of a peer on one disc: person fixed, atlas moving, centroids aligned."""
    fixed, moving = disc_shape(labels, value), atlas.shape(value)
    g = fixed.geometry
    images = []
    for shape, origin in ((fixed, g.origin), (moving, moving.geometry.origin - moving.center + fixed.center)):
        geometry = Geometry(shape.geometry.size, shape.geometry.spacing, origin, shape.geometry.direction)
        distance = shape.distance if shape is fixed else shape.surface
        images.append(Image(np.clip(distance, -8, 8).astype(np.float32), geometry))
    if kind == "greedy, 1 mm":
        # Thick slices are against greedy's smoothing in voxels: the person's map on 1 mm voxels helps it.
        grid = surrounding_grid(g.index_to_world(np.argwhere(fixed.distance < 0)[:, ::-1]), margin=12.0)
        images[0] = Image(np.clip(fixed.distance_at(grid_points(grid)), -8, 8).astype(np.float32), grid)
    begin = time.process_time()
    transform = (_elastix_default if kind == "elastix default" else _greedy)(*images)
    seconds = time.process_time() - begin
    warped = sitk.GetArrayFromImage(sitk.Resample(images[1].to_sitk(), g.to_sitk(), transform, sitk.sitkLinear, 8.0))
    a, b = fixed.distance < 0, warped < 0
    return 2 * (a & b).sum() / (a.sum() + b.sum()), seconds


def _greedy(fixed, moving):
    from picsl_greedy import Greedy3D

    images = {"fx": fixed.to_sitk(), "mv": moving.to_sitk()}
    with tempfile.TemporaryDirectory() as folder:
        run, file = Greedy3D(), f"{folder}/affine.mat"
        run.execute("-d 3 -threads 1 -V 0 -a -dof 12 -ia-identity -i fx mv -o aff -n 50x20 -m SSD", aff=None, **images)
        affine = np.array(run["aff"])
        np.savetxt(file, affine)
        run.execute(f"-d 3 -threads 1 -V 0 -i fx mv -it {file} -o warp -n 100x50 -m SSD -s 1.732vox 0.707vox",
                    warp=None, **images)
        field = sitk.DisplacementFieldTransform(sitk.Cast(run["warp"], sitk.sitkVectorFloat64))
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ np.diag([-1.0, -1.0, 1.0, 1.0])
    linear = sitk.AffineTransform(3)
    linear.SetMatrix(matrix[:3, :3].ravel())
    linear.SetTranslation(matrix[:3, 3])
    return sitk.CompositeTransform([linear, field])


def _elastix_default(fixed, moving):
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


def together(name: str, labels: Image, atlas, backend: str, workers: int) -> None:
    """Print wall and CPU seconds of all levels of one person at once, as a user waits for them."""
    begin, before = time.perf_counter(), _processor()
    result = register_person(labels, atlas, None, backend, person=name, workers=workers)
    wall, cpu = time.perf_counter() - begin, _processor() - before
    dice = [r["dice"] for r in result.quality.rows if "dice" in r]
    print(f"| {backend}, {len(dice)} discs of {name}, {workers} at a time | {wall:.1f} | {cpu:.1f} "
          f"| {np.mean(dice):.3f} | {np.min(dice):.3f} |", flush=True)


def _processor() -> float:
    """Return CPU seconds of this process and of its children that have ended."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF,
                                                                          resource.RUSAGE_CHILDREN)))


def summary(name, results):
    rows = [r for _, found, _, _ in results for r in found]
    good = [r for r in rows if "dice" in r]
    column = {k: np.array([r[k] for r in good]) for k in ("dice", "surface_mean", "folding", "jacobian_min",
                                                         "jacobian_max", "inverse_error")}
    worst = good[int(column["dice"].argmin())]
    print(f"| {name} | {len(good)} of {len(rows)} | {column['dice'].mean():.3f} | {column['dice'].min():.3f} "
          f"({worst['participant_id']} {worst['level']}) | {column['surface_mean'].mean():.2f} "
          f"| {column['folding'].max():.4f} | {column['jacobian_min'].min():.2f} to {column['jacobian_max'].max():.1f} "
          f"| {column['inverse_error'].mean():.3f} | {sum(s for _, _, s, _ in results) / len(good):.2f} "
          f"| {max(m for *_, m in results):.0f} |", flush=True)


def _atlas(options, everyone, others, number):
    """Return the atlas that half `number` is registered to: the shipped one, or a template of some of the others."""
    if not options.template_people:
        return load_atlas()
    folder = options.output.with_suffix(f".half{number}") if options.output else None
    if folder is not None and folder.exists():
        return load_atlas(folder)
    chosen = [p for p in others if "1 mm" not in p][:options.template_people]
    atlas = build_template([(p, everyone[p]) for p in chosen], iterations=options.iterations, workers=options.workers)
    print(f"half {number}: template of {', '.join(chosen)}; movement of the template's discs (mm) by iteration "
          f"{atlas.provenance['convergence_mm']}", flush=True)
    if folder is not None:
        save_atlas(atlas, folder)
    return atlas


def _kept(pool, tasks, output):
    """Run the tasks; with an output file, keep each result there, and do not run those that it has."""
    done = []
    if output is not None and output.exists():
        done = [json.loads(line) for line in output.read_text().splitlines()]
    futures = [pool.submit(one, t) for t in tasks if t[0] not in [d[0] for d in done]]
    for future in as_completed(futures):
        done.append(future.result())
        if output is not None:
            with output.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template-people", type=int, default=8, help="0: the shipped atlas, of other people")
    parser.add_argument("--people", type=int, default=48, help="people, evenly chosen, the two at 1 mm too")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--elastix", type=int, default=1, help="people registered by the backend elastix")
    parser.add_argument("--peers", type=int, default=1, help="people registered by the peers")
    parser.add_argument("--elastix-levels", type=int, default=5, help="levels that itk-elastix's default maps get")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--together", nargs="*", default=[], choices=("coordinates", "elastix"),
                        help="backends timed on all levels of the two 1 mm people at once")
    parser.add_argument("--output", type=Path, help="file that keeps each person's rows")
    options = parser.parse_args()
    everyone = people()
    native = [p for p in everyone if "1 mm" not in p]
    keep = [native[n] for n in np.unique(np.linspace(0, len(native) - 1, max(options.people - 2, 4)).astype(int))]
    names = [*[p for p in everyone if p not in native], *keep]
    # The two at 1 mm are in the cohort, too: a person is in one half, whatever the resolution.
    ids = sorted({p[:6] for p in names})
    if options.together:
        print("| all levels of a person at once | wall s | CPU s | mean Dice | worst |\n|---|---|---|---|---|")
        for p in names[:2]:
            for backend in options.together:
                together(p, everyone[p], load_atlas(), backend, options.workers)
    halves = [[p for p in names if ids.index(p[:6]) % 2 == n] for n in (0, 1)]
    atlases = [_atlas(options, everyone, halves[1 - n], n) for n in (0, 1)]
    tasks = [(p, everyone[p], atlases[n], "coordinates", None) for n in (0, 1) for p in halves[n]]
    few = [*[t for t in tasks if "1 mm" in t[0]], *tasks[2:]]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        fast = [pool.submit(peer, (kind, *t[:3], v)) for t in few[:options.peers] for v in t[2].values
                for kind in ("greedy", "greedy, 1 mm")]
        results = _kept(pool, sorted(tasks, key=lambda t: names.index(t[0]) * 7 % len(names)), options.output)
        ours = [pool.submit(one, (*t[:3], "elastix", [level])) for t in few[:options.elastix] for level in t[2].levels]
        slow = [pool.submit(peer, ("elastix default", *t[:3], v)) for t in few[:options.peers]
                for v in t[2].values[:options.elastix_levels]]
        elastix, peers = [f.result() for f in ours], [f.result() for f in [*fast, *slow]]
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| method | discs | mean Dice | worst Dice | surface mm | folding | Jacobian | inverse mm | CPU s a disc "
          "| peak MB |\n|---|---|---|---|---|---|---|---|---|---|")
    summary("disc coordinates", results)
    same = [r for r in results if r[0] in [t[0] for t in few[:max(options.peers, options.elastix)]]]
    if same:
        summary("disc coordinates, the peers' people", same)
    if elastix:
        summary("Elastix, shipped files", elastix)
    for kind in ("greedy", "greedy, 1 mm", "elastix default"):
        found = [f for f in peers if f[0] == kind]
        if not found:
            continue
        dice, seconds = np.array([f[2] for f in found]), np.array([f[3] for f in found])
        print(f"| {kind} | {np.isfinite(dice).sum()} of {len(found)} | {np.nanmean(dice):.3f} | {np.nanmin(dice):.3f} "
              f"| | | | | {np.nanmean(seconds):.1f} | |")
    print("peers:", [(f[0], f[1], round(float(f[2]), 3), round(float(f[3]), 1)) for f in peers])
    for level in atlases[0].levels:
        dice = [r["dice"] for _, rows, _, _ in results for r in rows if r["level"] == level and "dice" in r]
        print(f"{level}: mean Dice {np.mean(dice):.3f}, worst {np.min(dice):.3f}")


if __name__ == "__main__":
    main()
