"""Speed, memory and accuracy of relaxation fitting beside scipy, DOSMA and ukat; prints Markdown.

    python Testing/benchmarks/bench_fitting.py [--peers-python PYTHON] [--quick]

DOSMA and ukat live in an environment of their own: name its Python with ``--peers-python`` or ``PEERS_PYTHON``;
without it their rows say so. Speed is the best of several rounds in which all programs take turns, so that other work
on the machine hits all of them; ours on the whole volume, the others on as many of its voxels as a round allows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "DiscRelaxometry"))

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


# ---- the programs: each returns (relaxation times, seconds, CPU seconds) -------------------------------------------

def timed(function):
    wall, cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def ours(times, y, **options):
    from DiscRelaxometryLib.fit.maps import fit_arrays

    return timed(lambda: fit_arrays(y, times, **options).value)


def run_scipy(times, y):
    from scipy.optimize import curve_fit

    times = np.asarray(times)

    def fit():
        out = np.full(y.shape[1], np.nan)
        for v in range(y.shape[1]):
            with contextlib.suppress(RuntimeError):
                out[v] = curve_fit(lambda t, m, tau: m * np.exp(-t / tau), times, y[:, v], (1000.0, 60.0))[0][1]
        return out
    return timed(fit)


def run_dosma(times, y):
    from dosma.core.fitting import CurveFitter, monoexponential
    from dosma.core.med_volume import MedicalVolume

    volumes = [MedicalVolume(echo[:, None, None].astype(float), np.eye(4)) for echo in y]
    fitter = CurveFitter(monoexponential, p0=(1000.0, -1 / 60))
    return timed(lambda: -1 / np.asarray(fitter.fit(np.asarray(times), volumes)[0].volume)[..., 1].ravel())


def run_ukat(times, y):
    import types

    # ukat imports its kidney segmentation, which T2 mapping does not use.
    sys.modules["segment"] = types.ModuleType("segment")
    sys.modules["segment"].Tkv = object
    from ukat.mapping.t2 import T2

    stack = y.T.reshape(-1, 1, 1, y.shape[0]).astype(float)
    return timed(lambda: T2(stack, np.asarray(times), np.eye(4), multithread=False).t2_map.ravel())


PEERS = {"DOSMA": (run_dosma, "dosma", 3000), "ukat": (run_ukat, "ukat", 400)}


def peer(name, python, times, y):
    """Run a peer in its own environment; return (values, seconds, CPU seconds) or a sentence."""
    if not python:
        return "skipped: no peer environment (PEERS_PYTHON)"
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, times=times, y=y)
        command = [python, str(Path(__file__).resolve()), "--peer", name, str(source), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            return f"skipped: {done.stderr.strip().splitlines()[-1]}"
        with np.load(result) as out:
            return out["value"], float(out["wall"]), float(out["cpu"])


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

def table(title, head, rows):
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(c) for c in row)} |")
    sys.stdout.flush()


def speed(python, rounds):
    for count, times in TIMES.items():
        _, y = make(times, int(np.prod(SHAPE)))
        best = {}
        for _ in range(rounds):
            runs = {"this project": (ours(times, y), y.shape[1]),
                    "scipy curve_fit": (run_scipy(times, y[:, :2000]), 2000)}
            for name, (_, _, size) in PEERS.items():
                runs[name] = (peer(name, python, times, y[:, :size]), size)
            for name, (run, size) in runs.items():
                if isinstance(run, str):
                    best[name] = run
                elif name not in best or size / run[1] > best[name][0]:
                    reference = ours(times, y[:, :size].astype(float))[0]
                    gap = np.nanmedian(np.abs(run[0][:size] - reference))
                    best[name] = (size / run[1], size / run[2], gap)
        mine = best["this project"][0]
        rows = [(name, b, "", "", "") if isinstance(b, str) else
                (name, f"{b[0]:,.0f}", f"{b[1]:,.0f}", f"{mine / b[0]:,.0f}", f"{b[2]:.1e}")
                for name, b in best.items()]
        probe = subprocess.run([sys.executable, __file__, "--memory", str(count)], capture_output=True, text=True)
        used = json.loads(probe.stdout)
        table(f"Two parameters, least squares, {count} times, {SHAPE[2]}x{SHAPE[1]}x{SHAPE[0]} float32",
              ("program", "voxels/s", "voxels a CPU second", "we are faster by", "median difference to ours, ms"), rows)
        print(f"\nPeak memory of the fit beyond the input: {used['extra'] / used['input']:.2f} x the input.")


def other_estimators():
    rows = []
    for name, times, size, options in (
            ("two parameters, log-linear", TIMES[4], 1_000_000, {"estimator": "loglinear"}),
            ("three parameters", TIMES[8], 1_000_000, {"model": "mono3"}),
            ("two parameters, Rician", TIMES[4], 100_000, {"estimator": "rician", "noise": 20.0}),
            ("EPG (T2, B1, M0), 8 echoes", [10.0 * k for k in range(1, 9)], 50_000, {"model": "epg"})):
        _, y = make(times, size)
        runs = [ours(times, y, **options) for _ in range(2)]
        rows.append((name, f"{size / min(r[1] for r in runs):,.0f}", f"{size / min(r[2] for r in runs):,.0f}"))
    table("Other models and estimators", ("fit", "voxels/s", "voxels a CPU second"), rows)


def accuracy():
    from DiscRelaxometryLib.fit.precision import cramer_rao_sd

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
                row.append(f"{np.sqrt(np.nanmean(((value - t) / bound) ** 2)):.3f}")
                if estimator == "nlls":
                    row.append(f"{np.nanmax(ratio_by_t(value, t, bound)):.3f}")
            rows.append(row)
    table("RMSE over the Cramer-Rao bound, T = 20..200 ms, Rician noise", (
        "protocol", "SNR of M0", "least squares, pooled", "least squares, worst T", "Rician", "log-linear, weighted",
        "log-linear, unweighted"), rows)


def ratio_by_t(value, t, bound):
    return [np.sqrt(np.nanmean(((value - t) / bound)[t == one] ** 2)) for one in np.unique(t)]


def bias():
    rows = []
    for t in (20.0, 30.0, 40.0, 50.0, 60.0):
        rng = np.random.default_rng(int(t))
        y = np.repeat(1000 * np.exp(-np.asarray(TIMES[4]) / t)[:, None], 50_000, axis=1)
        y = np.hypot(y + rng.standard_normal(y.shape) * 50, rng.standard_normal(y.shape) * 50)
        row = [f"{t:g}"]
        for options in ({}, {"estimator": "rician", "noise": 50.0}, {"estimator": "rician"},
                        {"estimator": "loglinear"}):
            row.append(f"{100 * (np.nanmean(ours(TIMES[4], y, **options)[0]) / t - 1):+.2f} %")
        rows.append(row)
    table("Bias at SNR 20, spin-lock times 0/10/40/80 ms", (
        "T, ms", "least squares", "Rician, sigma known", "Rician, sigma estimated", "log-linear, weighted"), rows)


def agreement(data):
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
            rows.append((f"{folder}, {model}", compared.sum(), found.size, f"{np.median(found):.1e}",
                         f"{np.quantile(found, 0.95):.1e}", f"{100 * np.mean(gap < 0.05):.2f} %"))
    table("Agreement with ukat's and qMRLab's own maps", (
        "data, model", "reference voxels", "fitted by both", "median difference, ms", "95 % below, ms",
        "within 0.05 ms (NaN counts against)"), rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", default=os.environ.get("PEERS_PYTHON"))
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--peer", nargs=3, metavar=("NAME", "IN", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        with np.load(args.peer[1]) as given:
            value, wall, cpu = PEERS[args.peer[0]][0](given["times"], given["y"])
        np.savez(args.peer[2], value=value, wall=wall, cpu=cpu)
        return
    if args.memory:
        memory_probe(args.memory)
        return
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {len(os.sched_getaffinity(0))} cores, "
          f"{time.strftime('%Y-%m-%d')}, load average {load} at the start.")
    accuracy()
    bias()
    data = Path(os.environ.get("DISC_SHARED_DATA", ROOT.parent / "shared" / "data")) / "relaxometry"
    if data.exists():
        agreement(data)
    else:
        print("\nAgreement with other software: skipped, DISC_SHARED_DATA is not set.")
    other_estimators()
    speed(args.peers_python, 1 if args.quick else 5)
    print(f"\nLoad average at the end: {', '.join(f'{x:.1f}' for x in os.getloadavg())}.")


if __name__ == "__main__":
    main()
