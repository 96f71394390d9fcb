"""Cost of a study: the machine's own ceiling, number of processes, memory, resume, and kills.

``python Testing/benchmarks/bench_study.py STUDY [--people 8] [--part ceiling,scale,resume,kill]`` runs a study (its
first people) in a temporary folder and prints markdown tables. Runs with different numbers of processes take turns
(1, 4, 1, 4, ...), each in a program of its own. The reference, one process, has one thread; several have one each, but
for the last people, who share the cores. The ceiling is what two programs that know nothing of each other reach on the
same machine, in the same minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / module) for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats")]

_CODE = """
import sys, time, json
sys.path[:0] = {paths!r}
from DiscStatsLib.runner import run_study
start = time.perf_counter()
run = run_study({study!r}, {formula!r}, processes={processes}, permutations=500, segmentation={segmentation!r},
                **{threads!r})
print("RESULT" + json.dumps({{"seconds": time.perf_counter() - start, "failed": [o.message for o in run.failed],
      "missing": run.missing, "timings": run.timings().to_tsv()}}))
"""
# Arithmetic that stays in the processor's cache: neither memory nor disk limits it.
_ARITHMETIC = """
import numpy as np
x = np.linspace(0.1, 1.0, 4096)
for _ in range({rounds}):
    x = np.sqrt(x * x + 0.5) - 0.2
"""


class Tree:
    """Wall and processor time and peak memory of a program and all it starts."""

    def __init__(self, command: list[str]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environment())
        self.peak_mb = 0.0
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self.output, self.error = self.process.communicate()
        self.wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def _watch(self) -> None:
        top = psutil.Process(self.process.pid)
        while self.process.poll() is None:
            try:
                self.peak_mb = max(self.peak_mb, sum(map(_memory_mb, [top, *top.children(recursive=True)])))
            except psutil.Error:
                return
            time.sleep(2.0)  # to read a process's pages takes time of the cores that are measured

    @property
    def result(self) -> dict:
        """What the program reported."""
        lines = [line for line in self.output.splitlines() if line.startswith("RESULT")]
        if not lines:
            sys.exit(self.error)
        return json.loads(lines[0][len("RESULT"):])


def _memory_mb(process: psutil.Process) -> float:
    """Return a process's proportional memory: pages that several processes share are counted once."""
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.Error:  # ended meanwhile
        return 0.0


def command(study: Path, processes: int, options) -> list[str]:
    """Return the command that runs the study in a process of its own."""
    # One process is one thread, so that processes are compared and not libraries.
    code = _CODE.format(paths=sys.path[:3], study=str(study), formula=options.formula, processes=processes,
                        segmentation=options.segmentation, threads={"threads": 1} if processes == 1 else {})
    return [sys.executable, "-c", code]


def run(study: Path, processes: int, options) -> dict:
    """Run the study and return its result."""
    return Tree(command(study, processes, options)).result


def environment() -> dict:
    """Return the environment: one thread a process, so that processes are compared and not libraries."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


def results(study: Path) -> dict[str, str]:
    """Return the hash of every result; provenance and timings hold times of day and are left out."""
    base = study / "derivatives" / "disc-relaxometry"
    return {p.relative_to(base).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(base.rglob("*"))
            if p.is_file() and "prov" not in p.parts and not p.name.startswith(("timings", ".lock"))}


def people_of(options) -> list[str]:
    """Return the people that take part."""
    return sorted(p.name for p in options.study.glob("sub-*"))[: options.people]


def fresh(options, folder: Path, people: list[str] | None = None, name: str = "study") -> Path:
    """Copy people of the study."""
    target, people = folder / name, people or people_of(options)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(options.study, target, ignore=lambda directory, names: [
        n for n in names if (n.startswith("sub-") and Path(directory) == options.study and n not in people)
        or n == "disc-relaxometry"])
    return target


def side_by_side(commands: list[list[str]]) -> float:
    """Run programs at the same time and return the wall time until the last ends."""
    start = time.perf_counter()
    running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
               for c in commands]
    for process in running:
        process.wait()
    return time.perf_counter() - start


def ceiling(options, folder: Path) -> None:
    """Measure what two independent programs gain over one after the other: arithmetic, and this very work."""
    arithmetic = [sys.executable, "-c", _ARITHMETIC.format(rounds=400_000)]
    gains = [2 * side_by_side([arithmetic]) / side_by_side([arithmetic] * 2) for _ in range(options.turns)]
    print(f"Two independent programs over one, arithmetic in cache: {_listed(gains)} times the work a second.",
          flush=True)
    people = people_of(options)[:4]
    halves = [people[:len(people) // 2], people[len(people) // 2:]]
    gains = []
    for _ in range(options.turns):
        studies = [fresh(options, folder, half, f"half-{n}") for n, half in enumerate(halves)]
        apart = sum(side_by_side([command(study, 1, options)]) for study in studies)
        studies = [fresh(options, folder, half, f"half-{n}") for n, half in enumerate(halves)]
        gains.append(apart / side_by_side([command(study, 1, options) for study in studies]))
    print(f"The same with this study's own work, {len(people)} people in two studies run by two programs: "
          f"{_listed(gains)} times.\n", flush=True)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


def scale(options, folder: Path) -> dict[str, str]:
    """Compare numbers of processes, in turns; return the results' hashes."""
    print("| turn | processes | s | processor s | memory of all processes, peak MB | identical | load |\n"
          "|---|---|---|---|---|---|---|")
    run(fresh(options, folder, people_of(options)[:2]), 2, options)  # programs and libraries come from the disk once
    expected, timings, seconds = None, "", {}
    for turn in range(1, options.turns + 1):
        for processes in options.processes:
            study = fresh(options, folder)
            tree = Tree(command(study, processes, options))
            outcome, found = tree.result, results(study)
            expected = expected or found
            seconds.setdefault(processes, []).append(tree.wall)
            print(f"| {turn} | {processes} | {tree.wall:.1f} | {tree.cpu:.1f} | {tree.peak_mb:.0f} | "
                  f"{'yes' if found == expected else 'NO'} | {os.getloadavg()[0]:.1f} |", flush=True)
            timings = timings or outcome["timings"]
            for message in outcome["failed"]:
                print(f"  failed: {message}")
    first = options.processes[0]
    for processes in options.processes[1:]:
        ratios = [a / b for a, b in zip(seconds[first], seconds[processes])]
        print(f"\n{processes} processes over {first}: {_listed(ratios)} times faster by turn, median "
              f"{statistics.median(ratios):.2f}.")
    size = sum(p.stat().st_size for p in (study / "derivatives" / "disc-relaxometry").rglob("*") if p.is_file())
    print(f"\nResults on disk: {size / options.people / 1e6:.2f} MB a person.")
    print(f"\nPer step, {options.processes[0]} process(es):\n\n```\n{timings}```")
    return expected


def resume(options, folder: Path) -> None:
    """Time a run with nothing changed."""
    study = folder / "study"
    if not (study / "derivatives" / "disc-relaxometry").exists():
        run(fresh(options, folder), 1, options)
    tree = Tree(command(study, 1, options))
    print(f"\nNothing changed, {options.people} people: {tree.wall:.1f} s with the start of Python "
          f"({tree.cpu:.1f} s of processor time)")


def kill(options, folder: Path, expected: dict[str, str] | None) -> None:
    """Kill runs at random moments, resume, and compare with an uninterrupted run."""
    processes = options.processes[-1]
    study = fresh(options, folder)
    start = time.perf_counter()
    run(study, processes, options)
    whole = time.perf_counter() - start
    expected = expected or results(study)
    rng = random.Random(options.seed)
    same = caught = orphans = 0
    print("\n| killed after s | running | its programs | left after the resume | identical, no temporary file |\n"
          "|---|---|---|---|---|", flush=True)
    for _ in range(options.kills):
        study = fresh(options, folder)
        process = subprocess.Popen(command(study, processes, options), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=environment())
        delay = rng.uniform(0.05, 0.95) * whole
        time.sleep(delay)
        running = process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True) if running else []
        process.send_signal(signal.SIGKILL)
        process.wait()
        run(study, processes, options)
        left = psutil.wait_procs(family, 2)[1]
        clean = results(study) == expected and not list(study.rglob("*.partial*"))
        caught, same, orphans = caught + running, same + clean, orphans + len(left)
        print(f"| {delay:.1f} | {'yes' if running else 'no'} | {len(family)} | {len(left)} | "
              f"{'yes' if clean else 'NO'} |", flush=True)
    print(f"\nKilled (SIGKILL, {processes} process(es), {options.people} people, all real steps) {options.kills} "
          f"times, {caught} while running: {same} resumes identical to an uninterrupted run with no temporary file "
          f"left; {orphans} programs of killed runs left.")


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formula", default="nT2w ~ pfirrmann")
    parser.add_argument("--segmentation", default="auto")
    parser.add_argument("--part", default="ceiling,scale,resume")
    options = parser.parse_args()
    parts = options.part.split(",")
    print(f"{options.people} people, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "ceiling" in parts:
            ceiling(options, folder)
        expected = scale(options, folder) if "scale" in parts else None
        if "resume" in parts:
            resume(options, folder)
        if "kill" in parts:
            kill(options, folder, expected)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
