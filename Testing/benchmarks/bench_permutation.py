"""Freedman-Lane max-T permutation against nilearn and PyPI `tfce`, each in a process of its own.

    python Testing/benchmarks/bench_permutation.py --peer-python PYTHON_WITH_NILEARN_AND_TFCE

n = 31, 60 000 voxels, 4 regressors with covariates in natural units, 2 threads. Wall time depends on what else the
machine does; CPU time (user and system, with children) does not, so both are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
THREADS = 2


def make_data(path: Path, n: int = 31, voxels: int = 60000, seed: int = 0) -> None:
    """Write maps of a plausible size (ms) with an effect in some voxels, and age, sex and grade."""
    rng = np.random.default_rng(seed)
    grade, age, sex = rng.integers(1, 6, n), rng.uniform(20, 80, n), rng.integers(0, 2, n)
    y = 90 + 12 * rng.normal(size=(n, voxels))
    y[:, :200] -= 6 * grade[:, None]
    np.savez(path, y=y, design=np.column_stack([np.ones(n), grade, age, sex]).astype(float))


def run_ours(data, permutations):
    """Time our GLM and permutation."""
    from DiscStatsLib.permutation.glm import fit, partition
    from DiscStatsLib.permutation.max_statistic import fwe_p, make_stratum, max_statistics
    from DiscStatsLib.permutation.schemes import make_scheme
    y, design = data["y"], data["design"]
    start = clock()
    part = partition(design, [[0, 1, 0, 0]])
    result = fit(part, y)
    scheme = make_scheme(len(y), permutations, 1)
    stratum = make_stratum(part, y, "t", columns=np.arange(y.shape[1]), rows=np.arange(len(y)))
    null = max_statistics([stratum], scheme, y.shape[1], workers=THREADS)
    p = fwe_p(np.abs(result.stat), null.maxima[0])
    return start, {"t": result.stat, "p": p, "null": null.maxima[0], "order": scheme.order}


def run_nilearn(data, permutations):
    """Time nilearn.permuted_ols, with the intercept left to it (in the confounds it would turn to sign flipping)."""
    from nilearn.mass_univariate import permuted_ols
    y, design = data["y"], data["design"]
    start = clock()
    out = permuted_ols(design[:, [1]], y, design[:, 2:], n_perm=permutations, random_state=1, n_jobs=THREADS, verbose=0,
                       output_type="dict")
    return start, {"t": out["t"][0], "p": 10 ** -out["logp_max_t"][0], "null": out["h0_max_t"][0]}


def run_tfce_package(data, permutations):
    """Time tfce.glm.PermutedGLM on residuals of the reduced model (it permutes what it is given)."""
    from tfce.glm import PermutedGLM
    y, design = data["y"], data["design"]
    start = clock()
    observed = PermutedGLM(y.T, design, [0, 1, 0, 0]).fit()
    reduced = np.delete(design, 1, axis=1)
    rest = y - reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    model = PermutedGLM(np.ascontiguousarray(rest.T), design, [0, 1, 0, 0])
    rng = np.random.default_rng(1)
    null = np.array([np.abs(model.fit(rng.permutation(len(y)))).max() for _ in range(permutations)])
    p = (1 + (null[None] >= np.abs(observed[:2000])[:, None]).sum(axis=1)) / (permutations + 1)
    return start, {"t": observed, "p": p, "null": null}


def run_gemm(data, permutations):
    """Time the bare float64 matrix product of all permutations with all regressors: the limit of any exact method."""
    y, design = data["y"], data["design"]
    small = np.random.default_rng(0).normal(size=(permutations * design.shape[1], len(y)))
    out = np.empty((2000, y.shape[1]))
    start = clock()
    for a in range(0, len(small), 2000):
        part = small[a:a + 2000]
        np.matmul(part, y, out=out[:len(part)])
    return start, {"t": np.zeros(1), "p": np.zeros(1), "null": np.zeros(1)}


CONTESTANTS = {"ours": run_ours, "nilearn": run_nilearn, "tfce_package": run_tfce_package, "gemm": run_gemm}


def clock() -> tuple[float, float]:
    """Return wall and CPU seconds (with finished children)."""
    cpu = sum(getattr(resource.getrusage(who), field) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
              for field in ("ru_utime", "ru_stime"))
    return time.perf_counter(), cpu


def child(functions, name: str, source: str, target: str, permutations: int) -> None:
    """Run one contestant and write its result and cost."""
    with np.load(source) as data:
        loaded = dict(data)
    start, result = functions[name](loaded, permutations)
    if "joblib" in sys.modules:
        # The CPU time of worker processes is known only when they have ended.
        from joblib.externals.loky import get_reusable_executor
        get_reusable_executor().shutdown(wait=True)
    stop = clock()
    peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6
    np.savez(target, **result)
    Path(target + ".json").write_text(json.dumps({"wall": stop[0] - start[0], "cpu": stop[1] - start[1], "peak": peak}))


def contest(script: str, name: str, python: str, source: Path, folder: Path, permutations: int) -> dict:
    """Run one contestant in a new process; return its result with ``wall``, ``cpu`` (s) and ``peak`` (GB)."""
    target = str(folder / f"{name}.npz")
    path = os.pathsep.join(str(ROOT / m) for m in ("DiscStats", "DiscRelaxometry"))
    threads = {} if name in ("ours", "nilearn") else {"OPENBLAS_NUM_THREADS": str(THREADS)}
    if name == "nilearn":
        threads = {"OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([python, script, "--child", name, str(source), target, str(permutations)], check=True,
                   env=os.environ | {"PYTHONPATH": path} | threads, stderr=subprocess.DEVNULL)
    with np.load(target) as data:
        return dict(data) | json.loads(Path(target + ".json").read_text())


def load() -> str:
    """Return the machine's load averages."""
    return ", ".join(f"{x:.1f}" for x in os.getloadavg())


def reference_maxima(data: Path, order: np.ndarray, count: int) -> np.ndarray:
    """Return max |t| of the first permutations by an ordinary least-squares refit of each, column-scaled, float64."""
    with np.load(data) as loaded:
        y, design = loaded["y"], loaded["design"]
    reduced = np.delete(design, 1, axis=1)
    rest = y - reduced @ np.linalg.lstsq(reduced, y, rcond=None)[0]
    best = []
    for permutation in order[:count]:
        b, sse, *_ = np.linalg.lstsq(design, rest[permutation], rcond=None)
        variance = np.linalg.inv(design.T @ design)[1, 1] * sse / (len(y) - design.shape[1])
        best.append(np.abs(b[1] / np.sqrt(variance)).max())
    return np.array(best)


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--without", nargs="*", default=[], help="contestants to leave out, such as tfce_package")
    options = parser.parse_args()
    if options.child:
        child(CONTESTANTS, *options.child[:3], int(options.child[3]))
        return
    with tempfile.TemporaryDirectory() as folder:
        folder, source = Path(folder), Path(folder) / "data.npz"
        make_data(source)
        print(f"load before: {load()}")
        peers = {"nilearn", "tfce_package"}
        results = {name: contest(__file__, name, options.peer_python if name in peers else sys.executable, source,
                                 folder, options.permutations) for name in CONTESTANTS if name not in options.without}
        reference = reference_maxima(source, results["ours"]["order"], 40)
    ours, limit = results["ours"], results["gemm"]
    print(f"load after: {load()}\n")
    print(f"{options.permutations} permutations, 31 x 60 000, 4 regressors, {THREADS} threads\n")
    print("| | wall s | CPU s | wall / ours | CPU / ours | share of GEMM limit (wall, CPU) | peak GB |")
    print("|---" * 7 + "|")
    for name, r in results.items():
        print(f"| {name} | {r['wall']:.2f} | {r['cpu']:.2f} | {r['wall'] / ours['wall']:.1f} "
              f"| {r['cpu'] / ours['cpu']:.1f} "
              f"| {limit['wall'] / r['wall']:.0%}, {limit['cpu'] / r['cpu']:.0%} | {r['peak']:.2f} |")
    error = np.abs(ours["null"][:40] / reference - 1).max()
    print(f"\nmax T against a refit of each of 40 permutations: relative {error:.1e}")
    print(f"t against nilearn: relative {np.abs(ours['t'] / results['nilearn']['t'] - 1).max():.1e}")
    sys.path[:0] = [str(ROOT / m) for m in ("DiscStats", "DiscRelaxometry")]
    from DiscStatsLib.permutation.max_statistic import fwe_p
    peer = results["nilearn"]
    error = np.abs(fwe_p(np.abs(peer["t"]), peer["null"].ravel()) - peer["p"]).max()
    print(f"our p formula on nilearn's null maxima against nilearn's p: {error:.1e}")
    error = np.abs(ours["p"] - results["nilearn"]["p"]).max()
    print(f"FWE p against nilearn (other random permutations): largest difference {error:.3f}")
    quantiles = [np.quantile(r["null"], 0.95) for k, r in results.items() if k != "gemm"]
    print("95 % quantile of max T: " + ", ".join(f"{q:.3f}" for q in quantiles))


if __name__ == "__main__":
    main()
