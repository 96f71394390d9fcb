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
import resource
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from common import Aim, Results, clock, shared_data, versions
from peers import VERSIONS, elastix, greedy

from DiscAtlasLib import build_template, load_atlas, register_person, save_atlas
from DiscAtlasLib.shape import disc_shape
from DiscAtlasLib.transforms import grid_points, surrounding_grid
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.labels import disc_name


def people() -> dict[str, Image]:
    """Return label images of the 46 native shapes (as stored: rows to caudal, columns to posterior) and the two."""
    found = {}
    for path in sorted((shared_data() / "ivd_t2w" / "native_labels").glob("*_dseg.nii.gz")):
        image = read_image(path)
        geometry = Geometry(image.geometry.size, image.geometry.spacing, (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
        found[path.name[:6]] = Image(_named(image.array), geometry)
    for path in sorted((shared_data() / "ivd_t2w").glob("*_dseg.nii.gz")):
        image = read_image(path)
        found[path.name[:6] + " (1 mm)"] = image.like(_named(image.array))
    return found


def _named(array):
    return np.where(array > 0, array + 10, 0).astype(np.uint8)


def one(task):
    """Register one person; return rows, CPU seconds of shapes, match and dense fields, and peak memory in MB."""
    name, labels, atlas, backend, levels = task
    begin = time.process_time()
    result = register_person(labels, atlas, levels, backend, person=name, workers=1)
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
    transform = (elastix(*images) if kind == "elastix default"
                 else greedy(*(i.to_sitk() for i in images), "SSD"))
    seconds = time.process_time() - begin
    warped = sitk.GetArrayFromImage(sitk.Resample(images[1].to_sitk(), g.to_sitk(), transform, sitk.sitkLinear, 8.0))
    a, b = fixed.distance < 0, warped < 0
    return 2 * (a & b).sum() / (a.sum() + b.sum()), seconds


def together(name: str, labels: Image, atlas, backend: str, workers: int) -> tuple:
    """Return a row: wall and CPU seconds of all levels of one person at once, as a user waits for them, and Dice."""
    begin = clock()
    result = register_person(labels, atlas, None, backend, person=name, workers=workers)
    wall, cpu = (after - before for before, after in zip(begin, clock()))
    dice = [r["dice"] for r in result.quality.rows if "dice" in r]
    return f"{backend}, {name}", wall, cpu, np.mean(dice), np.min(dice)


METHOD_COLUMNS = ["method", "discs", ("mean Dice", ".3f"), "worst Dice", ("surface mm", ".2f"), ("folding", "g"),
                  "Jacobian", ("inverse mm", ".3f"), ("CPU s per disc", ".2f")]


def summary(name: str, results: list) -> tuple:
    """Return a method's row from the results of its people."""
    rows = [r for _, found, _, _ in results for r in found]
    good = [r for r in rows if "dice" in r]
    column = {k: np.array([r[k] for r in good]) for k in ("dice", "surface_mean", "folding", "jacobian_min",
                                                         "jacobian_max", "inverse_error")}
    worst = good[int(column["dice"].argmin())]
    return (name, f"{len(good)} of {len(rows)}", column["dice"].mean(),
            f"{column['dice'].min():.3f} ({worst['participant_id']} {worst['level']})", column["surface_mean"].mean(),
            column["folding"].max(), f"{column['jacobian_min'].min():.2f} to {column['jacobian_max'].max():.1f}",
            column["inverse_error"].mean(), sum(s for _, _, s, _ in results) / len(good))


def peer_row(kind: str, peers: list) -> tuple:
    """Return a peer's row."""
    found = [f for f in peers if f[0] == kind]
    dice, seconds = np.array([f[2] for f in found]), np.array([f[3] for f in found])
    return (kind, f"{np.isfinite(dice).sum()} of {len(found)}", np.nanmean(dice), f"{np.nanmin(dice):.3f}", None, None,
            None, None, np.nanmean(seconds))


def left_out(kept: Results, levels: list, results: list, folding: float) -> None:
    """Keep the Dice of each level of people registered to templates without them."""
    dice = {level: [r["dice"] for _, rows, _, _ in results for r in rows if r["level"] == level and "dice" in r]
            for level in levels}
    kept.table("levels", ["level", "discs", ("mean", ".3f"), ("worst", ".3f")],
               [(level, len(d), np.mean(d), np.min(d)) for level, d in dice.items()])
    every = np.concatenate(list(dice.values()))
    kept.aims(Aim(f"leave-one-out, {len(results)} people, {len(every)} discs: mean Dice", every.mean(), at_least=0.95,
                  form=".3f"), Aim("the same, worst Dice", every.min(), at_least=0.88, form=".3f"),
              Aim("the same, folding", folding, at_most=0))


def beside(kept: Results, same: list, peers: list) -> None:
    """Keep how disc coordinates do beside each peer; one that is slow has some of the discs alone."""
    ours, fine = summary("", same), summary("", [r for r in same if "1 mm" in r[0]])
    for kind in ("greedy", "elastix default"):
        _, discs, dice, *_, seconds = peer_row(kind, peers)
        at_1_mm = peer_row(kind, [f for f in peers if "(1 mm)" in f[1]])[2]
        kept.aims(Aim(f"Dice over {kind}'s, {discs} discs", ours[2] / dice, at_least=1, form=".3f"),
                  Aim(f"Dice over {kind}'s, two people at 1 mm", fine[2] / at_1_mm, at_least=1, form=".3f"),
                  Aim(f"CPU over {kind}'s", ours[-1] / seconds, at_most=1, form=".2f"))


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
    """Register everyone, and the peers' people by the peers."""
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
    parser.add_argument("--cost", type=int, default=0, help="time so many people on one thread, and nothing else")
    parser.add_argument("--output", type=Path, help="file that keeps each person's rows")
    options = parser.parse_args()
    kept = Results("bench_atlas", peers=versions(*VERSIONS))
    everyone = people()
    native = [p for p in everyone if "1 mm" not in p]
    if options.cost:
        # The better of three rounds: what else runs slows the processor down.
        cpu = np.min([[together(p, everyone[p], load_atlas(), "coordinates", 1)[2] for p in native[:options.cost]]
                      for _ in range(3)], axis=0)
        kept.aims(Aim(f"registration, CPU per person, mean of {len(cpu)}", float(cpu.mean()), at_most=3, form=".1f",
                      unit="s"))
        return
    keep = [native[n] for n in np.unique(np.linspace(0, len(native) - 1, max(options.people - 2, 4)).astype(int))]
    names = [*[p for p in everyone if p not in native], *keep]
    # The two at 1 mm are in the cohort, too: a person is in one half, whatever the resolution.
    ids = sorted({p[:6] for p in names})
    if options.together:
        waits = [together(p, everyone[p], load_atlas(), backend, options.workers)
                 for backend in options.together for p in names[:2]]
        kept.table("together", ["backend, person", ("s by the clock", ".1f"), ("CPU s", ".1f"), ("mean Dice", ".3f"),
                                ("worst", ".3f")], waits)
        # 10 s and 60 s on two cores, whatever else they do.
        kept.aims(*(Aim(f"five discs by {backend}, CPU", max(w[2] for w in waits if w[0].startswith(backend)),
                        at_most=most, form=".1f", unit="s")
                    for backend, most in (("coordinates", 20), ("elastix", 120)) if backend in options.together))
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
        elastix_rows, peers = [f.result() for f in ours], [f.result() for f in [*fast, *slow]]
    listed = [summary("disc coordinates", results)]
    same = [r for r in results if r[0] in [t[0] for t in few[:max(options.peers, options.elastix)]]]
    if same:
        listed.append(summary("disc coordinates, the peers' people", same))
    if elastix_rows:
        listed.append(summary("Elastix, shipped files", elastix_rows))
    listed += [peer_row(kind, peers) for kind in dict.fromkeys(f[0] for f in peers)]
    kept.table("methods" if options.template_people else "peers", METHOD_COLUMNS, listed, people=len(names),
               template_people=options.template_people)
    if options.template_people:
        left_out(kept, atlases[0].levels, results, listed[0][5])
    elif peers:
        beside(kept, same, peers)


if __name__ == "__main__":
    main()
