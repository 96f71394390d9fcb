"""How long Cancel takes for the panels' long work, and what is left of it: real jobs, cancelled while they work.

python Testing/benchmarks/bench_cancel.py --repeats 5
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import Aim, Results
from support.cohort_phantom import LEVELS, anatomy, make_spine_study

from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.jobs import ChildProcess, Job
from DiscRelaxometryLib.resources import resource_path

POLL = 0.1


def jobs(folder: Path) -> dict[str, Job]:
    """Return the long work of the three panels on small data."""
    image = read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))
    grid = Geometry((60, 134, 16), (1.4, 1.5, 3.2), (-24, 42, -100), (0, 0, 1, -1, 0, 0, 0, 1, 0))
    labels = Image(anatomy(grid)[0], grid)
    times = np.array([1.0, 20.0, 40.0, 80.0])
    noise = np.random.default_rng(0).normal(500, 20, (4, *grid.shape)).astype(np.float32)
    study = make_spine_study(folder / "study", (1, 2, 4, 5, 3))
    cohort = {"people": {"a": labels, "b": labels}, "levels": LEVELS}
    return {
        "segment discs": Job("DiscRelaxometryLib.discs:segment",
                             {"image": image, "engine": "onnx", "device": None}),
        "compute maps (alignment on)": Job("DiscRelaxometryLib.fit:map_series", {
            "series": EchoSeries(noise, times, "T2", grid), "align": "on"}),
        "register people": Job("DiscAtlasLib.cohort:register_cohort", cohort),
        "build a template": Job("DiscAtlasLib.cohort:register_cohort", cohort | {"template": "build"}),
        "whole study, 1 process": Job("DiscStudyLib:run_study", {
            "path": str(study), "formula": "pfirrmann"}),
        "whole study, 2 processes": Job("DiscStudyLib:run_study", {
            "path": str(study), "formula": "pfirrmann", "processes": 2}),
    }


def left(group: int) -> int:
    """Return how many processes of a group are alive."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, pgid = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        count += int(pgid) == group and state != "Z"
    return count


def cancel_once(job: Job, after: float) -> tuple[float, int]:
    """Cancel a job some seconds after its first progress; return seconds to its end and processes left."""
    child = ChildProcess(job)
    group = os.getpgid(child.process.pid)
    while child.progress()[1] == job.title and child.process.poll() is None:
        time.sleep(POLL)
    time.sleep(after)
    if child.process.poll() is not None:
        child.result()  # raises what it failed with
        raise RuntimeError(f"{job.function} ended before it could be cancelled")
    start = time.monotonic()
    child.cancel()
    while not child.poll():
        time.sleep(POLL)
    seconds = time.monotonic() - start
    child.close()
    return seconds, left(group)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, job in jobs(Path(folder)).items():
            runs = [cancel_once(job, 0.3 + 0.4 * n) for n in range(repeats)]
            seconds = [s for s, _ in runs]
            rows.append((name, statistics.median(seconds), max(seconds), max(n for _, n in runs)))
    results = Results("bench_cancel")
    results.table("cancel", ["work", ("median s", ".2f"), ("longest s", ".2f"), "processes left"], rows)
    results.aims(Aim("Cancel to the end of the process and its children", max(r[2] for r in rows), at_most=2,
                     form=".2f", unit="s"))


if __name__ == "__main__":
    main()
