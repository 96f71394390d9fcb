"""Exact TFCE permutation against PyPI `tfce` (exact) and nilearn (steps), each in a process of its own.

    python Testing/benchmarks/bench_tfce.py --peer-python PYTHON_WITH_NILEARN_AND_TFCE

n = 31, 57 000 voxels (an ellipsoid) of smooth noise, 4 regressors, two-sided, 6 neighbors, E = 0.5, H = 2. Every
program runs twice, with few permutations and with more; the difference is the cost of a permutation. The start of a
program (imports, the first compilation, the observed map) is in both runs and cancels.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import THREADS, Aim, Results, child, clock, contest, versions


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
    from DiscStatsLib.permutation import (
        MapLayout,
        TfceSettings,
        fit,
        make_scheme,
        make_stratum,
        map_null,
        neighbors_of,
        partition,
        tfce_values,
    )
    y, design = data["y"], data["design"]
    # Compiled code is kept on disk; the first use after an installation takes some seconds more.
    tfce_values(np.ones(8), neighbors_of(np.ones((2, 2, 2), int)))
    start = clock()
    part = partition(design, [[0, 1, 0, 0]])
    stat = fit(part, y).stat
    stratum = make_stratum(part, y, "t", columns=np.arange(y.shape[1]), rows=np.arange(len(y)))
    neighbors = neighbors_of(data["inside"].astype(int))
    observed = tfce_values(stat, neighbors)
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


NAMES = {"ours": "this project", "tfce_package": "PyPI `tfce` (exact, float32)", "nilearn": "nilearn (100 steps)"}


def main() -> None:
    """Run each program twice and print what a permutation costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--permutations", type=int, nargs=2, default=(100, 1100))
    parser.add_argument("--nilearn-permutations", type=int, nargs=2, default=(2, 22))
    options = parser.parse_args()
    if options.child:
        child(CONTESTANTS, *options.child)
        return
    results = Results("bench_tfce", peers=versions("nilearn", "tfce", python=options.peer_python))
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), Path(name) / "data.npz"
        voxels = make_data(source)
        last, costs = {}, {}
        for program in CONTESTANTS:
            few, many = options.nilearn_permutations if program == "nilearn" else options.permutations
            python = sys.executable if program == "ours" else options.peer_python
            start, last[program] = (contest(__file__, program, python, source, folder, n) for n in (few, many))
            costs[program] = [1000 * (last[program][k] - start[k]) / (many - few) for k in ("wall", "cpu")]
    ours, exact = last["ours"], last["tfce_package"]
    results.table("speed", ["program", ("wall, ms per permutation", ".1f"), ("CPU, ms per permutation", ".1f"),
                            ("wall / ours", ".1f"), ("CPU / ours", ".1f"), ("peak, GB", ".2f")],
                  [(NAMES[p], *cost, *(a / b for a, b in zip(cost, costs["ours"])), last[p]["peak"])
                   for p, cost in costs.items()],
                  permutations=list(options.permutations), nilearn=list(options.nilearn_permutations), people=31,
                  voxels=voxels, threads=THREADS)
    results.table("agreement", ["what", ("value", ".2g")], [
        ("map against the exact package (float32), of the maximum",
         np.abs(ours["tfce"] - exact["tfce"]).max() / exact["tfce"].max()),
        ("95 % quantile of the null maximum over that of the exact package",
         np.quantile(ours["null"], 0.95) / np.quantile(exact["null"], 0.95))])
    results.aims(*(Aim(f"exact TFCE, a permutation against {words}, CPU time", costs[p][1] / costs["ours"][1],
                       at_least=least, form=".1f", unit="times")
                   for p, words, least in (("tfce_package", "PyPI `tfce`", 2), ("nilearn", "nilearn's", 20))))


if __name__ == "__main__":
    main()
