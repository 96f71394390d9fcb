"""Cost of a study: the machine's own ceiling, number of processes, memory, resume, and kills.

``python Testing/benchmarks/bench_study.py STUDY [--people 8] [--part ceiling,scale,resume,kill]`` runs a study (its
first people) in a temporary folder. Runs with different numbers of processes take turns
(1, 4, 1, 4, ...), each in a program of its own. The reference, one process, has one thread; several have one each, but
for the last people, who share the cores. The ceiling is what two programs that know nothing of each other reach on the
same machine, in the same minutes.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from common import Aim, Results, load

_CODE = """
import time, json
from DiscStudyLib import run_study
start = time.perf_counter()
run = run_study({study!r}, {formula!r}, processes={processes}, permutations=500, segmentation={segmentation!r},
                **{threads!r})
print("RESULT" + json.dumps({{"seconds": time.perf_counter() - start, "failed": [o.message for o in run.failed],
      "missing": run.missing, "timings": run.timings().rows}}))
"""
# Arithmetic that stays in the processor's cache: neither memory nor disk limits it.
_ARITHMETIC = """
import numpy as np
x = np.linspace(0.1, 1.0, 4096)
for _ in range({rounds}):
    x = np.sqrt(x * x + 0.5) - 0.2
"""

#: People of a small study: fewer cannot estimate the formula.
FEW = 4


class Tree:
    """Wall and processor time and peak memory of a program and all it starts; ends where the program fails."""

    def __init__(self, command: list[str]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=environment())
        self.peak_mb = 0.0
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        self.output, self.error = self.process.communicate()
        if self.process.returncode:
            sys.exit(f"A program failed:\n{self.output}\n{self.error}")
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
        return next(json.loads(line[6:]) for line in self.output.splitlines() if line.startswith("RESULT"))


def _memory_mb(process: psutil.Process) -> float:
    """Return a process's proportional memory: pages that several processes share are counted once."""
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.Error:  # ended meanwhile
        return 0.0


def command(study: Path, processes: int, options) -> list[str]:
    """Return the command that runs the study in a process of its own."""
    # One process is one thread, so that processes are compared and not libraries.
    code = _CODE.format(study=str(study), formula=options.formula, processes=processes,
                        segmentation=options.segmentation, threads={"threads": 1} if processes == 1 else {})
    return [sys.executable, "-c", code]


def run(study: Path, processes: int, options) -> dict:
    """Run the study and return its result."""
    return Tree(command(study, processes, options)).result


def environment() -> dict:
    """Return the environment: one thread per process, so that processes are compared and not libraries."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}


def hashes(study: Path) -> dict[str, str]:
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
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit("A program of the ceiling failed.")
    return time.perf_counter() - start


def ceiling(results: Results, options, folder: Path) -> None:
    """Measure what two independent programs gain over one after the other: arithmetic, and this very work."""
    arithmetic = [sys.executable, "-c", _ARITHMETIC.format(rounds=400_000)]
    gains = [2 * side_by_side([arithmetic]) / side_by_side([arithmetic] * 2) for _ in range(options.turns)]
    rows = [("arithmetic in cache", _listed(gains))]
    people = people_of(options)[:2 * FEW]
    halves = [people[:len(people) // 2], people[len(people) // 2:]]
    gains = []
    for _ in range(options.turns):
        studies = [fresh(options, folder, half, f"half-{n}") for n, half in enumerate(halves)]
        apart = sum(side_by_side([command(study, 1, options)]) for study in studies)
        studies = [fresh(options, folder, half, f"half-{n}") for n, half in enumerate(halves)]
        gains.append(apart / side_by_side([command(study, 1, options) for study in studies]))
    rows.append((f"this study's own work, {len(people)} people in two studies", _listed(gains)))
    results.table("ceiling", ["two independent programs over one", "times the work per second, by turn"], rows)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


def scale(results: Results, options, folder: Path) -> dict[str, str]:
    """Compare numbers of processes, in turns; return the results' hashes."""
    run(fresh(options, folder, people_of(options)[:FEW]), 2, options)  # programs and libraries come from the disk once
    expected, timings, seconds, rows = None, [], {}, []
    for _turn in range(options.turns):
        for processes in options.processes:
            study, before = fresh(options, folder), load()
            tree = Tree(command(study, processes, options))
            outcome, found = tree.result, hashes(study)
            expected = expected or found
            seconds.setdefault(processes, []).append(tree.wall)
            rows.append((options.people, processes, tree.wall, tree.cpu, tree.peak_mb, found == expected,
                         f"{before}, {load()}"))
            timings = timings or outcome["timings"]
            for message in outcome["failed"]:
                print(f"  failed: {message}")
    size = sum(p.stat().st_size for p in (study / "derivatives" / "disc-relaxometry").rglob("*") if p.is_file())
    results.table("scale", ["people", "processes", ("wall s", ".1f"), ("processor s", ".1f"),
                            ("memory of all processes, peak MB", ".0f"), "identical", "load before, after"], rows,
                  megabytes_of_results_per_person=round(size / options.people / 1e6, 2))
    results.table("steps", ["step", "n", ("CPU s, mean", ".2f"), ("s by the clock, longest", ".1f"),
                            ("memory MB, peak so far", ".0f")],
                  [[r[k] for k in ("step", "n", "mean_cpu_s", "max_s", "peak_memory")] for r in timings])
    first = options.processes[0]
    results.aims(Aim("one person, pixels to atlas, CPU", sum(r["mean_cpu_s"] for r in timings
                                                             if r["n"] == options.people), at_most=90, form=".1f",
                     unit="s"),
                 *(Aim(f"{n} processes over {first}, {options.people} people, turn {turn + 1}", a / b, at_least=1.7,
                       form=".2f", unit="times")
                   for n in options.processes[1:] for turn, (a, b) in enumerate(zip(seconds[first], seconds[n]))))
    return expected


def resume(results: Results, options, folder: Path) -> None:
    """Time a run with nothing changed."""
    study = folder / "study"
    if not (study / "derivatives" / "disc-relaxometry").exists():
        run(fresh(options, folder), 1, options)
    tree = Tree(command(study, 1, options))
    results.aims(Aim(f"nothing changed, {options.people} people, with the start of Python", tree.wall, at_most=10,
                     form=".1f", unit="s"))


def kill(results: Results, options, folder: Path, expected: dict[str, str] | None) -> None:
    """Kill runs at random moments, resume, and compare with an uninterrupted run."""
    processes = options.processes[-1]
    study = fresh(options, folder)
    start = time.perf_counter()
    run(study, processes, options)
    whole = time.perf_counter() - start
    expected = expected or hashes(study)
    rng = random.Random(options.seed)
    rows, same, orphans = [], 0, 0
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
        clean = hashes(study) == expected and not list(study.rglob("*.partial*"))
        same, orphans = same + clean, orphans + len(left)
        rows.append((delay, running, len(family), len(left), clean))
    results.table("kill", [("killed after s", ".1f"), "running", "its programs", "left after the resume",
                           "identical, no temporary file"], rows, people=options.people, processes=processes,
                  seed=options.seed)
    results.aims(Aim(f"killed at random moments, all real steps, {processes} processes, identical resumes", same,
                     at_least=options.kills),
                 Aim("the same, programs of killed runs left", orphans, at_most=0))


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
    results = Results("bench_study")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "ceiling" in parts:
            ceiling(results, options, folder)
        expected = scale(results, options, folder) if "scale" in parts else None
        if "resume" in parts:
            resume(results, options, folder)
        if "kill" in parts:
            kill(results, options, folder, expected)


if __name__ == "__main__":
    main()
