"""Processor time that the three modules add to Slicer's start: import and instantiation, median of several processes.

python Testing/benchmarks/bench_start.py

What Slicer itself loads is loaded before the clock starts. The first start after an installation compiles the files;
later ones find the bytecode.
"""

import os
import subprocess
import sys
import tempfile
from statistics import median

from common import ROOT, Aim, Results

MODULES = ("DiscRelaxometry", "DiscAtlas", "DiscStats")
CODE = """
import sys, time, types
from DiscRelaxometryLib.headless import start_headless
slicer = start_headless()
import slicer.i18n, slicer.parameterNodeWrapper, slicer.ScriptedLoadableModule, slicer.util
before = time.process_time()
for name in {modules}:
    getattr(__import__(name), name)(types.SimpleNamespace(path=name))
print(1000 * (time.process_time() - before))
"""


def started(cache: str) -> float:
    """Return processor time (ms) of a start whose bytecode is kept in the folder `cache`."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": "",
                   "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in MODULES)}
    done = subprocess.run([sys.executable, "-c", CODE.format(modules=MODULES)], env=environment, capture_output=True,
                          text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure first and later starts, and keep the figures."""
    first, later = [], []
    for _ in range(7):
        with tempfile.TemporaryDirectory() as cache:
            first.append(started(cache))
            later.append(started(cache))
    results = Results("bench_start")
    results.table("start", ["start", ("CPU ms", ".0f"), ("longest ms", ".0f")],
                  [("first after installation", median(first), max(first)), ("later", median(later), max(later))])
    results.aims(Aim("Processor time that the modules add to Slicer's start", median(later), at_most=50, form=".0f",
                     unit="ms"))


if __name__ == "__main__":
    main()
