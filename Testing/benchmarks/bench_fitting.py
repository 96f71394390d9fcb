"""Speed, memory and accuracy of relaxation fitting beside scipy, lumafit, DOSMA and ukat.

    python Testing/benchmarks/bench_fitting.py [--peers-python PYTHON] [--quick] [--part accuracy speed ...]

The others live in an environment of their own: name its Python with ``--peers-python`` or ``PEERS_PYTHON``; those that
it lacks are left out. Speed is the best of several rounds in which all programs take turns, so that other
work on the machine hits all of them; ours on the whole volume, the others on as many of its voxels as a round allows.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import THREADS, Aim, Results, child, clock, contest, shared_data, versions

SHAPE = (20, 256, 256)
TIMES = {4: [0.0, 10, 40, 80], 8: [0.0, 2, 4, 8, 12, 20, 40, 80]}


def make(times, voxels, seed=0, snr=50.0):
    """Return truth (voxels,) and Rician signals (n, voxels), float32."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(20, 200, voxels).astype(np.float32)
    signal = 1000 * np.exp(-np.asarray(times, np.float32)[:, None] / t)
    for echo in signal:
        noise = rng.standard_normal((2, voxels), dtype=np.float32) * np.float32(1000 / snr)
        np.hypot(echo + noise[0], noise[1], out=echo)
    return t, signal


# ---- the programs --------------------------------------------------------------------------------------------------

def timed(function):
    """Return a function's value, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def ours(times, y, **options):
    """Fit with this project."""
    from DiscRelaxometryLib.fit import FitOptions, fit_arrays

    return timed(lambda: fit_arrays(y, times, FitOptions(**options), workers=THREADS).value)


def run_scipy(times, y):
    """Fit voxel by voxel with scipy."""
    from scipy.optimize import curve_fit

    times = np.asarray(times)

    def fit():
        out = np.full(y.shape[1], np.nan)
        for v in range(y.shape[1]):
            with contextlib.suppress(RuntimeError):
                out[v] = curve_fit(lambda t, m, tau: m * np.exp(-t / tau), times, y[:, v], (1000.0, 60.0))[0][1]
        return out
    return timed(fit)


def run_dosma(data, _count):
    """Fit with DOSMA, in its own environment."""
    from dosma.core.fitting import CurveFitter, monoexponential
    from dosma.core.med_volume import MedicalVolume

    volumes = [MedicalVolume(echo[:, None, None].astype(float), np.eye(4)) for echo in data["y"]]
    fitter = CurveFitter(monoexponential, p0=(1000.0, -1 / 60))
    start = clock()
    return start, {"value": -1 / np.asarray(fitter.fit(np.asarray(data["times"]), volumes)[0].volume)[..., 1].ravel()}


def run_ukat(data, _count):
    """Fit with ukat, in its own environment."""
    import types

    # ukat imports its kidney segmentation, which T2 mapping does not use.
    sys.modules["segment"] = types.ModuleType("segment")
    sys.modules["segment"].Tkv = object
    from ukat.mapping.t2 import T2

    y = data["y"]
    stack = y.T.reshape(-1, 1, 1, y.shape[0]).astype(float)
    start = clock()
    return start, {"value": T2(stack, np.asarray(data["times"]), np.eye(4), multithread=False).t2_map.ravel()}


def run_lumafit(data, _count):
    """Fit with lumafit (compiled Levenberg-Marquardt, analytic Jacobian, threads), in its own environment."""
    import numba
    from lumafit import levenberg_marquardt_pixelwise

    @numba.njit
    def model(p, t):
        return p[0] * np.exp(-t / p[1])

    @numba.njit
    def jacobian(p, t):
        slopes = np.empty((t.size, 2))
        slopes[:, 0] = np.exp(-t / p[1])
        slopes[:, 1] = p[0] * slopes[:, 0] * t / p[1] ** 2
        return slopes

    def fit(y):
        stack = np.ascontiguousarray(y.T.reshape(-1, 1, y.shape[0]), float)
        return levenberg_marquardt_pixelwise(model, np.array([1000.0, 60.0]), stack, jac_func=jacobian,
                                             args_for_each_pixel=(np.asarray(data["times"], float),))[0]

    fit(data["y"][:, :10])  # compiled
    start = clock()
    return start, {"value": fit(data["y"])[:, 0, 1]}


PEERS = {"lumafit": run_lumafit, "DOSMA": run_dosma, "ukat": run_ukat}
#: Voxels that a peer fits in a round.
PEER_VOXELS = {"lumafit": 100_000, "DOSMA": 3000, "ukat": 400}


def peer(name, python, times, y):
    """Run a peer in its own environment; return (values, seconds, CPU seconds)."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.npz")
        np.savez(source, times=times, y=y)
        out = contest(__file__, name, python, source, Path(folder), 0)
    return out["value"], out["wall"], out["cpu"]


def memory_probe(count):
    """Print the peak memory of a fit beyond the loaded input, and the input's size, in KiB (in a fresh process)."""
    _, y = make(TIMES[count], int(np.prod(SHAPE)))
    ours(TIMES[count], y[:, :5000])
    # Linux: 5 resets the peak to the present use, so that making the data does not count.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    ours(TIMES[count], y)
    print(json.dumps({"extra": _status("VmHWM") - before, "input": y.nbytes / 1024}))


def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


# ---- the tables ----------------------------------------------------------------------------------------------------

def speed(results, python, rounds):
    """Compare programs in turns, and measure the memory of ours."""
    goals, there = {4: 4e6, 8: 1e6}, versions(*map(str.lower, PEERS), python=python) if python else {}
    results.run["peers"] |= there
    for count, times in TIMES.items():
        _, y = make(times, int(np.prod(SHAPE)))
        best = {}
        ours(times, y[:, :5000])  # compiled
        for _ in range(rounds):
            runs = {"this project": (ours(times, y), y.shape[1]),
                    "scipy curve_fit": (run_scipy(times, y[:, :2000]), 2000)}
            for name, size in PEER_VOXELS.items():
                if name.lower() not in there:
                    continue
                runs[name] = (peer(name, python, times, y[:, :size]), size)
            for name, (run, size) in runs.items():
                if name not in best or size / run[1] > best[name][0]:
                    reference = ours(times, y[:, :size].astype(float))[0]
                    best[name] = (size / run[1], size / run[2], np.nanmedian(np.abs(run[0][:size] - reference)))
        mine = best["this project"]
        results.table(f"speed{count}", ["program", ("voxels/s", ",.0f"), ("voxels per CPU second", ",.0f"),
                                        ("ours is faster by, wall", ",.0f"), ("CPU", ",.0f"),
                                        ("median difference, ms", ".1e")],
                      [(name, b[0], b[1], mine[0] / b[0], mine[1] / b[1], b[2]) for name, b in best.items()],
                      title=f"two parameters, least squares, {count} times, 256 x 256 x 20 float32")
        others = [best[name][1] for name in PEER_VOXELS if name in best]
        if others and count == 4:
            results.aims(Aim("the same against the fastest peer, CPU", mine[1] / max(others),
                             at_least=25, form=".0f", unit="times"))
        probe = subprocess.run([sys.executable, __file__, "--memory", str(count)], capture_output=True, text=True)
        used = json.loads(probe.stdout)
        results.aims(
            Aim(f"2-parameter fit, {count} times: speed", mine[0] / 1e6, at_least=goals[count] / 1e6,
                form=".2f", unit="million voxels/s"),
            Aim(f"2-parameter fit, {count} times: against scipy `curve_fit`", mine[0] / best["scipy curve_fit"][0],
                at_least=300, form=".0f", unit="times"),
            Aim(f"2-parameter fit, {count} times: memory beyond the input", used["extra"] / used["input"], at_most=6,
                form=".2f", unit="times the input"))


def other_estimators(results):
    """Time the other models and estimators."""
    rows = []
    for name, times, size, options in (
            ("two parameters, log-linear", TIMES[4], 1_000_000, {"estimator": "loglinear"}),
            ("three parameters", TIMES[8], 1_000_000, {"model": "mono3"}),
            ("two parameters, Rician", TIMES[4], 100_000, {"estimator": "rician", "noise": 20.0}),
            ("EPG (T2, B1, M0), 8 echoes", [10.0 * k for k in range(1, 9)], 50_000, {"model": "epg"})):
        _, y = make(times, size)
        runs = [ours(times, y, **options) for _ in range(2)]
        rows.append((name, size / min(r[1] for r in runs), size / min(r[2] for r in runs)))
    results.table("estimators", ["fit", ("voxels/s", ",.0f"), ("voxels per CPU second", ",.0f")], rows)


def accuracy(results):
    """Compare errors with the Cramer-Rao bound."""
    from support.precision import cramer_rao_sd

    rows = []
    protocols = {"T1rho 0/10/40/80": TIMES[4], "T1rho 8 times": TIMES[8], "T2 0/13.7/27.3/54.7": [0, 13.7, 27.3, 54.7],
                 "T2 10..80": [10.0 * k for k in range(1, 9)]}
    for name, times in protocols.items():
        for snr in (50, 100):
            rng = np.random.default_rng(snr)
            t = np.repeat(np.arange(20.0, 201.0, 10.0), 10_000)
            y = 1000 * np.exp(-np.multiply.outer(times, 1 / t))
            y = np.hypot(y + rng.standard_normal(y.shape) * 1000 / snr, rng.standard_normal(y.shape) * 1000 / snr)
            bound = cramer_rao_sd(t, times, snr)
            row = [name, snr]
            for estimator in ("nlls", "rician", "loglinear", "loglinear-unweighted"):
                known = {"noise": 1000 / snr} if estimator == "rician" else {}
                value = ours(times, y, estimator=estimator, **known)[0]
                row.append(np.sqrt(np.nanmean(((value - t) / bound) ** 2)))
                if estimator == "nlls":
                    row.append(np.nanmax(ratio_by_t(value, t, bound)))
            rows.append(row)
    names = ("least squares, pooled", "least squares, worst T", "Rician", "log-linear, weighted",
             "log-linear, unweighted")
    results.table("crb", ["protocol", "SNR of M0", *((name, ".3f") for name in names)], rows)
    results.aims(*(Aim(f"RMSE over the Cramer-Rao bound, SNR {snr}, worst of four protocols",
                       max(row[2] for row in rows if row[1] == snr), at_most=1.02, form=".3f") for snr in (100, 50)))


def ratio_by_t(value, t, bound):
    """Return the error over the bound at each T."""
    return [np.sqrt(np.nanmean(((value - t) / bound)[t == one] ** 2)) for one in np.unique(t)]


def bias(results):
    """Compare the bias of estimators at low signal."""
    rows = []
    for t in (20.0, 30.0, 40.0, 50.0, 60.0):
        rng = np.random.default_rng(int(t))
        y = np.repeat(1000 * np.exp(-np.asarray(TIMES[4]) / t)[:, None], 50_000, axis=1)
        y = np.hypot(y + rng.standard_normal(y.shape) * 50, rng.standard_normal(y.shape) * 50)
        row = [f"{t:g}"]
        for options in ({}, {"estimator": "rician", "noise": 50.0}, {"estimator": "rician"},
                        {"estimator": "loglinear"}):
            row.append(100 * (np.nanmean(ours(TIMES[4], y, **options)[0]) / t - 1))
        rows.append(row)
    names = ("least squares, %", "Rician, sigma known, %", "Rician, sigma estimated, %", "log-linear, weighted, %")
    results.table("bias", ["T, ms", *((name, "+.2f") for name in names)], rows)
    mean = np.mean([[abs(v) for v in row[1:3]] for row in rows], axis=0)
    results.aims(Aim("Rician bias over that of least squares, SNR 20, T 20-60 ms, mean", mean[1] / mean[0],
                     at_most=1 / 3, form=".2f"))


def agreement(results, data):
    """Compare with maps that other programs made of real data."""
    import SimpleITK as sitk

    def read(name):
        return sitk.GetArrayFromImage(sitk.ReadImage(str(data / name)))

    rows = []
    ukat = [(model, f"reference_{number}_param_fit_t2_map", f"reference_{number}_param_fit_mask", 0, 1e3)
            for model, number in (("mono2", "two"), ("mono3", "three"))]
    qmrlab = [("mono2", "reference_T2", "mask", 10, 300)]
    for folder, references in {"kidney_t2_philips": ukat, "brain_se_qmrlab": qmrlab}.items():
        echoes = read(f"{folder}/echoes.nii.gz")
        times = json.loads((data / folder / "echoes.json").read_text())["EchoTime_ms"]
        for model, name, mask, low, high in references:
            reference, mask = read(f"{folder}/{name}.nii.gz").ravel(), read(f"{folder}/{mask}.nii.gz").ravel() > 0
            value = ours(times, echoes.reshape(len(times), -1), model=model, mask=mask)[0]
            compared = mask & (reference > low) & (reference < high)
            gap = np.abs(value - reference)[compared]
            found = gap[np.isfinite(gap)]
            rows.append((f"{folder}, {model}", int(compared.sum()), found.size, np.median(found),
                         np.quantile(found, 0.95), 100 * np.mean(gap < 0.05)))
    results.table("agreement", ["data, model", "reference voxels", "fitted by both", ("median difference, ms", ".1e"),
                                ("95 % below, ms", ".1e"), ("within 0.05 ms (NaN counts against), %", ".2f")], rows)
    results.aims(Aim("ukat's T2, median difference", rows[0][3], at_most=1e-3, form=".0e", unit="ms"),
                 Aim("ukat's T2, 95 % of the voxels within", rows[0][4], at_most=1e-2, form=".0e", unit="ms"),
                 Aim("qMRLab's T2, voxels within 0.05 ms", rows[2][5], at_least=99, form=".1f", unit="%"))


PARTS = {"accuracy": lambda results, options: accuracy(results), "bias": lambda results, options: bias(results),
         "agreement": lambda results, options: agreement(results, shared_data() / "relaxometry"),
         "estimators": lambda results, options: other_estimators(results),
         "speed": lambda results, options: speed(results, options.peers_python, 2 if options.quick else 5)}


def main():
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", default=os.environ.get("PEERS_PYTHON"))
    parser.add_argument("--quick", action="store_true", help="two rounds instead of five")
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(PEERS, *args.child)
        return
    if args.memory:
        memory_probe(args.memory)
        return
    results = Results("bench_fitting", peers=versions("scipy", "numpy"))
    for part in args.part:
        PARTS[part](results, args)


if __name__ == "__main__":
    main()
