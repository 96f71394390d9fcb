"""Time and memory of the group analysis of thousands of people, with the missing voxels of real ones.

    python Testing/benchmarks/bench_group.py RESULTS [--people 1000 3000] [--corrections fwe fwe,tfce,cluster]

RESULTS is the demonstration's results folder: each simulated person lacks the voxels that a real one lacks, moved by up
to 3 mm from side to side and 1 mm in the other directions. Maps lie on disk, as in a study; complete data have the
same maps without holes. Each analysis runs in a process of its own, after a small one that compiles.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import THREADS, Aim, Results, clock, peak_gb


def real_presence(results: Path, labels) -> list[np.ndarray]:
    """Return for each real person a volume that says where the map has a value, outside the discs as near them."""
    from scipy import ndimage

    from DiscRelaxometryLib.image import read_image

    inside = labels.array > 0
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    files = sorted(results.glob("sub-*/**/*_space-DiscAtlas_nT2w.nii.gz"))
    return [np.isfinite(read_image(file).array)[tuple(nearest)] for file in files]


def make(results: Path, folder: Path, people: int, maps: int) -> None:
    """Write maps of simulated people, with and without holes, and their table."""
    import pandas

    from DiscAtlasLib import load_atlas

    labels = load_atlas().labels
    inside, rng = labels.array > 0, np.random.default_rng(0)
    order = np.argsort(np.argwhere(inside)[:, 2], kind="stable")
    real, shape = real_presence(results, labels), (people, len(order))
    table = pandas.DataFrame({"participant_id": [f"s{n:05}" for n in range(people)], "age": rng.uniform(20, 80, people),
                              "grade": rng.integers(1, 6, people), "sex": rng.choice(["F", "M"], people)})
    table.to_csv(folder / "participants.tsv", sep="\t", index=False)
    arrays = [[np.lib.format.open_memmap(folder / f"{kind}{m}.npy", "w+", np.float32, shape) for m in range(maps)]
              for kind in ("complete", "available")]
    for n, grade in enumerate(table["grade"]):
        shift = rng.integers((-1, -1, -3), (2, 2, 4))
        there = np.roll(real[rng.integers(len(real))], shift, axis=(0, 1, 2))[inside][order]
        for whole, holes in zip(*arrays):
            whole[n] = 80 - 0.2 * grade + 8 * rng.standard_normal(shape[1], np.float32)
            holes[n] = np.where(there, whole[n], np.nan)


def analyze_one(folder: Path, kind: str, corrections: str, permutations: int) -> dict:
    """Return the cost of one analysis."""
    import pandas

    from DiscAtlasLib import load_atlas
    from DiscStatsLib.analysis import Values, analyze
    from DiscStatsLib.settings import AnalysisSettings

    labels = load_atlas().labels
    table = pandas.read_csv(folder / "participants.tsv", sep="\t")
    place = np.argsort(np.argsort(np.argwhere(labels.array > 0)[:, 2], kind="stable"))
    maps = {f"map{m}": Values(np.load(file, mmap_mode="r"), np.arange(len(table)), place)
            for m, file in enumerate(sorted(folder.glob(f"{kind}*.npy")))}
    settings = AnalysisSettings(correction=tuple(corrections.split(",")), n_permutations=permutations,
                                workers=THREADS)
    few, first = dataclasses.replace(settings, n_permutations=20), np.arange(30)
    analyze({k: v.of(first) for k, v in maps.items()}, labels, table[:30], "map ~ grade + age + C(sex)", "grade", few)
    start = clock()
    result = analyze(maps, labels, table, "map ~ grade + age + C(sex)", "grade", settings)
    stop = clock()
    return {"wall": stop[0] - start[0], "cpu": stop[1] - start[1], "peak": peak_gb(),
            "disc_voxels": result.provenance["voxels"], "tested": result.provenance["tested_voxels"]}


def main() -> None:
    """Run all sizes and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--people", type=int, nargs="+", default=[1000, 3000])
    parser.add_argument("--maps", type=int, default=1)
    parser.add_argument("--corrections", nargs="+", default=["fwe"])
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--child", nargs=3)
    options = parser.parse_args()
    if options.child:
        folder, kind, corrections = options.child
        print(json.dumps(analyze_one(Path(folder), kind, corrections, options.permutations)))
        return
    rows, results = [], Results("bench_group")
    for people in options.people:
        with tempfile.TemporaryDirectory() as folder:
            make(options.results, Path(folder), people, options.maps)
            for corrections in options.corrections:
                for kind in ("complete", "available"):
                    command = [sys.executable, __file__, str(options.results), "--child", folder, kind, corrections,
                               "--permutations", str(options.permutations)]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    cost = json.loads(done.stdout.splitlines()[-1])
                    rows.append((people, options.maps, corrections, kind, cost["tested"], cost["cpu"], cost["wall"],
                                 1e6 * cost["cpu"] / cost["tested"] / options.permutations, cost["peak"]))
                    print(rows[-1], flush=True)
    few = [] if options.permutations == 1000 else [f"{options.permutations}permutations"]
    key = "-".join([*options.corrections, f"{options.maps}maps", *few]).replace(",", "-")
    results.table(key, [("people", ",d"), "maps", "corrections", "voxels", ("tested voxels", ",d"), ("CPU, s", ".0f"),
                        ("wall, s", ".0f"), ("us per tested voxel and permutation, CPU", ".2f"), ("peak, GB", ".2f")],
                  rows, permutations=options.permutations, disc_voxels=cost["disc_voxels"], threads=THREADS)
    results.aims(*_aims(rows, options))


def _aims(rows: list[tuple], options) -> list[Aim]:
    """Return what the rows say of the figures to reach."""
    whole, holes = rows[-2], rows[-1]
    if "tfce" in options.corrections[-1]:
        return [Aim("33 people, all corrections, CPU time", holes[5],
                    at_most=4, form=".1f", unit="s")] if holes[0] == 33 else []
    if options.maps == 3 and (holes[0] == 10_000 or len(rows) > 2):
        before = rows[-3] if len(rows) > 2 else holes
        slope = (holes[8] - before[8]) / max(holes[0] - before[0], 1)
        words = "" if holes[0] == 10_000 else f", extrapolated from {before[0]} and {holes[0]}"
        return [Aim(f"10 000 people, three maps{words}: peak memory",
                    holes[8] + slope * (10_000 - holes[0]), at_most=8, form=".1f", unit="GB")]
    return [Aim("3 000 people, missing over complete voxels, CPU time", holes[5] / whole[5], at_most=2,
                form=".1f", unit="times"),
            Aim("the same, peak memory", holes[8], at_most=4, form=".1f", unit="GB")] if holes[0] == 3000 else []


if __name__ == "__main__":
    main()
