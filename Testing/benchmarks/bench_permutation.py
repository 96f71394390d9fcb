"""Freedman-Lane max-T permutation against nilearn and PyPI `tfce`, each in a process of its own.

    python Testing/benchmarks/bench_permutation.py --peer-python PYTHON_WITH_NILEARN_AND_TFCE

n = 31, 60 000 voxels, 4 regressors with covariates in natural units, 2 threads. Wall time depends on what else the
machine does; CPU time (user and system, with children) does not, so both are printed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import THREADS, Aim, Results, child, clock, contest, versions


def make_data(path: Path, n: int = 31, voxels: int = 60000, seed: int = 0) -> None:
    """Write maps of a plausible size (ms) with an effect in some voxels, and age, sex and grade."""
    rng = np.random.default_rng(seed)
    grade, age, sex = rng.integers(1, 6, n), rng.uniform(20, 80, n), rng.integers(0, 2, n)
    y = 90 + 12 * rng.normal(size=(n, voxels))
    y[:, :200] -= 6 * grade[:, None]
    np.savez(path, y=y, design=np.column_stack([np.ones(n), grade, age, sex]).astype(float))


def run_ours(data, permutations):
    """Time our GLM and permutation."""
    from DiscStatsLib.permutation import fit, fwe_p, make_scheme, make_stratum, max_statistics, partition
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


NAMES = {"ours": "this project", "nilearn": "nilearn `permuted_ols`", "tfce_package": "PyPI `tfce` `PermutedGLM`",
         "gemm": "bare float64 product of all permutations and regressors"}


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
        child(CONTESTANTS, *options.child)
        return
    names = [name for name in CONTESTANTS if name not in options.without]
    results = Results("bench_permutation", peers=versions("nilearn", "tfce", python=options.peer_python))
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), Path(name) / "data.npz"
        make_data(source)
        python = dict.fromkeys(("nilearn", "tfce_package"), options.peer_python)
        runs = {n: contest(__file__, n, python.get(n, sys.executable), source, folder, options.permutations)
                for n in names}
        reference = reference_maxima(source, runs["ours"]["order"], 40)
    ours, limit, theirs = runs["ours"], runs["gemm"], runs["nilearn"]
    results.table("speed", ["program", ("wall, s", ".2f"), ("CPU, s", ".2f"), ("wall / ours", ".1f"),
                            ("CPU / ours", ".1f"), ("share of the GEMM limit, CPU", ".0%"), ("peak, GB", ".2f")],
                  [(NAMES[n], r["wall"], r["cpu"], r["wall"] / ours["wall"], r["cpu"] / ours["cpu"],
                    limit["cpu"] / r["cpu"], r["peak"]) for n, r in runs.items()],
                  permutations=options.permutations, people=31, voxels=60000, regressors=4, threads=THREADS)
    from DiscStatsLib.permutation import fwe_p
    refit = np.abs(ours["null"][:40] / reference - 1).max()
    same = np.abs(ours["t"] / theirs["t"] - 1).max()
    formula = np.abs(fwe_p(np.abs(theirs["t"]), theirs["null"].ravel()) - theirs["p"]).max()
    results.table("agreement", ["what", ("largest difference", ".0e")], [
        ("maxima against a refit of each of 40 permutations, relative", refit),
        ("t against nilearn, relative", same),
        ("our p formula on nilearn's null maxima against nilearn's p", formula),
        ("p (FWE) against nilearn, other random permutations", np.abs(ours["p"] - theirs["p"]).max())])
    results.aims(
        Aim(f"{options.permutations} Freedman-Lane permutations against nilearn, CPU time", theirs["cpu"] / ours["cpu"],
            at_least=8, form=".1f", unit="times"),
        Aim("the same, wall time", theirs["wall"] / ours["wall"], at_least=8, form=".1f", unit="times"),
        Aim("share of the float64 GEMM limit (screened in float32), CPU", 100 * limit["cpu"] / ours["cpu"], at_least=15,
            form=".0f", unit="%"),
        Aim("t against nilearn, relative", same, at_most=1e-8, form=".0e"))


if __name__ == "__main__":
    main()
