"""Cost of a study: per step, per number of processes, resume, and kills.

``python Testing/benchmarks/bench_study.py STUDY [--people 8] [--kills 20] [--part scale,resume,kill]`` runs a study
(its first people) in a temporary folder and prints markdown tables. Run it on a quiet machine; the load is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / module) for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats")]

_CODE = """
import sys, time, json, resource
sys.path[:0] = {paths!r}
from DiscStatsLib.runner import run_study
start = time.perf_counter()
run = run_study({study!r}, {formula!r}, processes={processes}, permutations=500, segmentation={segmentation!r})
print("RESULT" + json.dumps({{"seconds": time.perf_counter() - start, "failed": [o.message for o in run.failed],
      "missing": run.missing, "timings": run.timings().to_tsv(),
      "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
      "workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}}))
"""


def command(study: Path, processes: int, options) -> list[str]:
    """Return the command that runs the study in a process of its own."""
    code = _CODE.format(paths=sys.path[:3], study=str(study), formula=options.formula, processes=processes,
                        segmentation=options.segmentation)
    return [sys.executable, "-c", code]


def run(study: Path, processes: int, options) -> dict:
    """Run the study and return its result."""
    import json

    done = subprocess.run(command(study, processes, options), capture_output=True, text=True, env=environment())
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        sys.exit(done.stderr)
    return json.loads(lines[0][len("RESULT"):])


def environment() -> dict:
    """Return the environment: one thread a process, so that processes are compared and not libraries."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


def results(study: Path) -> dict[str, str]:
    """Return the hash of every result; provenance and timings hold times of day and are left out."""
    base = study / "derivatives" / "disc-relaxometry"
    return {p.relative_to(base).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(base.rglob("*"))
            if p.is_file() and "prov" not in p.parts and not p.name.startswith(("timings", ".lock"))}


def fresh(options, folder: Path) -> Path:
    """Copy the first people of the study."""
    target = folder / "study"
    shutil.rmtree(target, ignore_errors=True)
    people = sorted(p.name for p in options.study.glob("sub-*"))[: options.people]
    shutil.copytree(options.study, target, ignore=lambda directory, names: [
        n for n in names if (n.startswith("sub-") and Path(directory) == options.study and n not in people)
        or n == "disc-relaxometry"])
    return target


def scale(options, folder: Path) -> dict[str, str]:
    """Compare numbers of processes; return the results' hashes."""
    print("| processes | s | times faster | largest process MB | identical |\n|---|---|---|---|---|")
    first = expected = None
    for processes in options.processes:
        study = fresh(options, folder)
        outcome = run(study, processes, options)
        found = results(study)
        first, expected = first or outcome["seconds"], expected or found
        memory = max(outcome["memory"], outcome["workers"])
        print(f"| {processes} | {outcome['seconds']:.1f} | {first / outcome['seconds']:.2f} | {memory:.0f} | "
              f"{'yes' if found == expected else 'NO'} |", flush=True)
        if processes == options.processes[0]:
            timings = outcome["timings"]
        for message in outcome["failed"]:
            print(f"  failed: {message}")
    size = sum(p.stat().st_size for p in (study / "derivatives" / "disc-relaxometry").rglob("*") if p.is_file())
    print(f"\nResults on disk: {size / options.people / 1e6:.2f} MB a person.")
    print(f"\nPer step, {options.processes[0]} process(es):\n\n```\n{timings}```")
    return expected


def resume(options, folder: Path) -> None:
    """Time a run with nothing changed."""
    study = folder / "study"
    if not (study / "derivatives" / "disc-relaxometry").exists():
        run(fresh(options, folder), 1, options)
    again = run(study, 1, options)
    print(f"\nNothing changed, {options.people} people: {again['seconds']:.1f} s")


def kill(options, folder: Path, expected: dict[str, str] | None) -> None:
    """Kill runs at random moments, resume, and compare with an uninterrupted run."""
    if expected is None:
        study = fresh(options, folder)
        run(study, 1, options)
        expected = results(study)
    rng = random.Random(options.seed)
    start = time.perf_counter()
    study = fresh(options, folder)
    run(study, 1, options)
    whole = time.perf_counter() - start
    same = caught = 0
    for _ in range(options.kills):
        study = fresh(options, folder)
        process = subprocess.Popen(command(study, 1, options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=environment())
        time.sleep(rng.uniform(0.05, 0.95) * whole)
        caught += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        run(study, 1, options)
        same += results(study) == expected
    print(f"\nKilled (SIGKILL) {options.kills} times, {caught} while running: {same} resumes identical to an "
          "uninterrupted run.")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formula", default="nT2w ~ pfirrmann")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--part", default="scale,resume")
    options = parser.parse_args()
    parts = options.part.split(",")
    print(f"{options.people} people, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = scale(options, folder) if "scale" in parts else None
        if "resume" in parts:
            resume(options, folder)
        if "kill" in parts:
            kill(options, folder, expected)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
