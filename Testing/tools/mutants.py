"""Deliberate mistakes, one at a time: ``make mutants`` says which of them the tests notice.

``Testing/mutants.toml`` lists each mistake: a file, a text that stands there once, what replaces it, the tests nearest
to it, and the harm it would do. Each is put into a copy of the checkout; the tests must fail. Results are printed and
kept in ``Testing/benchmarks/results/mutants.json`` as they come.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

from Testing.benchmarks.common import Aim, Results, commit

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "Testing" / "mutants.toml"
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


def key_of(mutant: dict) -> str:
    """Return what tells whether an entry has changed since it was tried."""
    return hashlib.sha256(json.dumps(mutant, sort_keys=True).encode()).hexdigest()[:12]


def main() -> None:
    """Try mistakes, and keep each result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only mistakes whose file or harm holds one of these words")
    parser.add_argument("--rest", action="store_true", help="only those that are not yet known to be noticed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    listed, results = read_mutants(), Results("mutants")
    known = results.content.setdefault("mistakes", {})
    results.content["mistakes"] = known = {key: known[key] for key in map(key_of, listed) if key in known}
    chosen = [m for m in listed if (not options.words or any(w in m["file"] + m["harm"] for w in options.words))
              and not (options.rest and known.get(key_of(m), {}).get("noticed"))]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: Queue[Path] = Queue()
        for n in range(options.jobs):
            copies.put(copy_checkout(Path(folder) / str(n)))

        def attempt(mutant: dict) -> tuple[dict, bool, float]:
            copy, start = copies.get(), time.perf_counter()
            try:
                return mutant, noticed(mutant, copy), time.perf_counter() - start
            finally:
                copies.put(copy)

        for n, done in enumerate(as_completed([pool.submit(attempt, m) for m in chosen]), start=1):
            if done.exception():
                print(f"{n}/{len(chosen)} {done.exception()}", flush=True)
                continue
            mutant, seen, seconds = done.result()
            print(f"{n}/{len(chosen)} {'noticed  ' if seen else 'UNNOTICED'} {seconds:4.0f} s {mutant['file']} - "
                  f"{mutant['harm']}", flush=True)
            known[key_of(mutant)] = {"file": mutant["file"], "harm": mutant["harm"], "noticed": seen,
                                     "seconds": round(seconds), "commit": commit()}
            results.save()
    found = [row["noticed"] for row in known.values()]
    results.aims(Aim("deliberate mistakes that tests notice", 100 * sum(found) / max(len(found), 1), at_least=90,
                     form=".0f", unit=f"% of {len(found)}"))
    sys.exit(0 if all(known.get(key_of(m), {}).get("noticed") for m in chosen) else 1)


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
