"""Exact TFCE permutation against PyPI `tfce` (exact) and nilearn (steps), each in a process of its own.

    python Testing/benchmarks/bench_tfce.py --peer-python PYTHON_WITH_NILEARN_AND_TFCE

n = 31, 60 000 voxels (an ellipsoid) of smooth noise, 4 regressors, two-sided, 6 neighbors, E = 0.5, H = 2. nilearn is
run with few permutations and its time is scaled: marked as such.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_permutation import THREADS, child, clock, contest, load


def make_data(path: Path, n: int = 31, seed: int = 0) -> int:
    """Write smooth maps in an ellipsoid of about 60 000 voxels."""
    from scipy.ndimage import gaussian_filter
    rng = np.random.default_rng(seed)
    shape = (40, 50, 60)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, s) for s in shape), indexing="ij")
    inside = k ** 2 + j ** 2 + i ** 2 <= 0.975
    grade, age, sex = rng.integers(1, 6, n), rng.uniform(20, 80, n), rng.integers(0, 2, n)
    y = np.array([gaussian_filter(rng.normal(size=shape), 1.5)[inside] for _ in range(n)])
    np.savez(path, y=90 + 12 * y / y.std(), inside=inside,
             design=np.column_stack([np.ones(n), grade, age, sex]).astype(float))
    return int(inside.sum())


def run_ours(data, permutations):
    """Time our permutation TFCE."""
    from DiscStatsLib.permutation.cluster_null import MapLayout, map_null
    from DiscStatsLib.permutation.glm import fit, partition
    from DiscStatsLib.permutation.max_statistic import make_stratum
    from DiscStatsLib.permutation.schemes import make_scheme
    from DiscStatsLib.permutation.tfce import TfceSettings, neighbors_of, tfce
    y, design = data["y"], data["design"]
    # Compiled code is kept on disk; the first use after an installation takes some seconds more.
    tfce(np.ones(8), neighbors_of(np.ones((2, 2, 2), int)))
    start = clock()
    part = partition(design, [[0, 1, 0, 0]])
    stat = fit(part, y).stat
    stratum = make_stratum(part, y, "t", columns=np.arange(y.shape[1]), rows=np.arange(len(y)))
    neighbors = neighbors_of(data["inside"].astype(int))
    observed = tfce(stat, neighbors)
    null = map_null([stratum], make_scheme(len(y), permutations, 1),
                    MapLayout(1, neighbors, [np.arange(y.shape[1])]), settings=TfceSettings(), height=None,
                    workers=THREADS)
    return start, {"t": stat, "tfce": observed, "null": null.tfce[0]}


def run_tfce_package(data, permutations):
    """Time the exact `tfce` package with its own GLM on residuals, in batches on two threads."""
    from tfce import tfce
    from tfce.glm import PermutedGLM
    y, design, inside = data["y"], data["design"], data["inside"]
    start = clock()
    stat = PermutedGLM(y.T, design, [0, 1, 0, 0]).fit()
    reduced = np.delete(design, 1, axis=1)
    rest = y - reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    model = PermutedGLM(np.ascontiguousarray(rest.T), design, [0, 1, 0, 0])
    rng = np.random.default_rng(1)
    volume = np.zeros((*inside.shape, 1), np.float32)
    volume[inside, 0] = stat
    observed = tfce(volume, connectivity=6)[inside, 0]
    null = []
    batch = np.zeros((*inside.shape, 20), np.float32)
    for a in range(0, permutations, 20):
        count = min(20, permutations - a)
        for b in range(count):
            batch[inside, b] = model.fit(rng.permutation(len(y)))
        null.append(np.abs(tfce(batch[..., :count], connectivity=6, n_jobs=THREADS)).max(axis=(0, 1, 2)))
    return start, {"t": stat, "tfce": observed, "null": np.concatenate(null)}


def run_nilearn(data, permutations):
    """Time nilearn.permuted_ols with TFCE."""
    import nibabel
    from nilearn.maskers import NiftiMasker
    from nilearn.mass_univariate import permuted_ols
    y, design, inside = data["y"], data["design"], data["inside"]
    masker = NiftiMasker(nibabel.Nifti1Image(inside.astype(np.uint8), np.eye(4))).fit()
    start = clock()
    out = permuted_ols(design[:, [1]], y, design[:, 2:], n_perm=permutations, random_state=1, n_jobs=THREADS, verbose=0,
                       output_type="dict", tfce=True, masker=masker)
    return start, {"t": out["t"][0], "tfce": out["tfce"][0], "null": out["h0_max_tfce"][0]}


CONTESTANTS = {"ours": run_ours, "tfce_package": run_tfce_package, "nilearn": run_nilearn}


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--nilearn-permutations", type=int, default=10)
    options = parser.parse_args()
    if options.child:
        child(CONTESTANTS, *options.child[:3], int(options.child[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder, source = Path(folder), Path(folder) / "data.npz"
        voxels = make_data(source)
        print(f"load before: {load()}")
        results = {}
        for name in CONTESTANTS:
            count = options.nilearn_permutations if name == "nilearn" else options.permutations
            python = sys.executable if name == "ours" else options.peer_python
            results[name] = contest(__file__, name, python, source, folder, count)
    print(f"load after: {load()}\n\n{options.permutations} permutations, 31 x {voxels}, {THREADS} threads\n")
    ours = results["ours"]
    print("| | wall s | CPU s | wall / ours | CPU / ours | peak GB |\n|---|---|---|---|---|---|")
    for name, r in results.items():
        factor = options.permutations / options.nilearn_permutations if name == "nilearn" else 1
        note = f" (scaled from {options.nilearn_permutations} permutations)" if factor != 1 else ""
        wall, cpu = r["wall"] * factor, r["cpu"] * factor
        print(f"| {name}{note} | {wall:.1f} | {cpu:.1f} | {wall / ours['wall']:.1f} | {cpu / ours['cpu']:.1f} "
              f"| {r['peak']:.2f} |")
    theirs = results["tfce_package"]
    error = np.abs(ours["tfce"] - theirs["tfce"]).max() / theirs["tfce"].max()
    print(f"\nTFCE against the exact package (float32): {error:.1e} of the maximum")
    print(f"95 % quantile of the null maximum: ours {np.quantile(ours['null'], .95):.1f}, "
          f"tfce package {np.quantile(theirs['null'], .95):.1f}")


if __name__ == "__main__":
    main()
