"""Deliberate mistakes, one at a time: ``make mutants`` says which of them the tests notice.

``Testing/mutants.toml`` lists each mistake: a file, a text that stands there once, what replaces it, the tests nearest
to it, and the harm it would do. Each is put into a copy of the checkout; the tests must fail. The result is written to
``Testing/benchmarks/results/mutants.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "Testing" / "mutants.toml"
RESULT = ROOT / "Testing" / "benchmarks" / "results" / "mutants.json"
MODULES = ("DiscAtlas", "DiscRelaxometry", "DiscStats")


def read_mutants(path: Path = MUTANTS) -> list[dict]:
    """Return the mistakes; each must still fit its file, exactly once.

    Raises
    ------
    ValueError
        If a text no longer stands in its file, or stands there twice.
    """
    mutants = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    for mutant in mutants:
        count = (ROOT / mutant["file"]).read_text(encoding="utf-8").count(mutant["text"])
        if count != 1:
            raise ValueError(f"{mutant['file']}: the text of '{mutant['harm']}' stands there {count} times, not once")
    return mutants


def noticed(mutant: dict, copy: Path) -> bool:
    """Put a mistake into a copy, run the nearest tests, take it back; return whether a test failed."""
    file = copy / mutant["file"]
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace(mutant["text"], mutant["instead"]), encoding="utf-8")
    paths = os.pathsep.join(str(copy / module) for module in MODULES)
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
                   "OPENBLAS_NUM_THREADS": "1", "QT_QPA_PLATFORM": "offscreen"}
    environment.setdefault("DISC_SHARED_DATA", str(ROOT.parent / "shared" / "data"))
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow",
                               *mutant["tests"]], cwd=copy, env=environment, capture_output=True, text=True)
    finally:
        file.write_text(original, encoding="utf-8")
    if done.returncode not in (0, 1):  # 1: tests failed; anything else: they did not run
        raise RuntimeError(f"{mutant['harm']}: pytest ended with {done.returncode}\n{done.stdout[-800:]}")
    return done.returncode == 1


def main() -> None:
    """Try every mistake (or those whose file or harm holds a word), and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("word", nargs="?", default="", help="only mistakes whose file or harm holds this word")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    mutants = [m for m in read_mutants() if options.word in m["file"] + m["harm"]]
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for n in range(options.jobs):
            copies.put(copy_checkout(Path(folder) / str(n)))

        def attempt(mutant: dict) -> bool:
            copy = copies.get()
            try:
                return noticed(mutant, copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(options.jobs) as pool:
            found = list(pool.map(attempt, mutants))
    for mutant, seen in zip(mutants, found):
        print("noticed  " if seen else "UNNOTICED", mutant["file"], "-", mutant["harm"])
    print(f"{sum(found)} of {len(found)} noticed")
    if not options.word:
        rows = [{"file": m["file"], "harm": m["harm"], "noticed": seen} for m, seen in zip(mutants, found)]
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"noticed": sum(found), "mutants": len(found), "rows": rows}, indent=1) + "\n",
                          encoding="utf-8")
    sys.exit(0 if all(found) else 1)


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git tracks or would track."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


if __name__ == "__main__":
    main()
