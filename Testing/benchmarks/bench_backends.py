"""Quality of the registration backends on one disc each of 25 people who were not used to choose their parameters.

Whole discs (native shapes of the shared data) and discs that the slab cuts (sample cohort), all levels in turn, to the
shipped atlas. Each disc's row is kept in ``--rows`` as it comes; a second run takes up where the first was stopped::

    DISC_SHARED_DATA=... python Testing/benchmarks/bench_backends.py coordinates elastix brainsfit --rows rows.jsonl

BRAINSFit must be on the PATH; one process with one thread runs at a time.
"""

import argparse
import json
import time
from os import times
from pathlib import Path

import numpy as np
from bench_atlas import people
from common import ROOT, Aim, Results

from DiscAtlasLib import load_atlas, register_person
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS

COHORT = ROOT / "DiscStats/Resources/SampleData/spider-cohort/derivatives/reference"
#: People on whom the parameters of Elastix or BRAINSFit were tried.
USED = {"sub-005", "sub-045", "sub-110", "sub-01", "sub-20", "sub-42"}


def discs(count: int) -> list[tuple]:
    """Return (name, kind, labels, level) of one disc each of `count` people, whole and cut ones in turn."""
    whole = [(name, "whole", labels) for name, labels in people().items() if name[:6] not in USED]
    cut = [(path.name[:7], "cut", path) for path in sorted(COHORT.rglob("*_dseg.nii.gz")) if path.name[:7] not in USED]
    half = count // 2
    chosen = [None] * count
    chosen[::2] = [whole[n] for n in np.linspace(0, len(whole) - 1, count - half).astype(int)]
    chosen[1::2] = [cut[n] for n in np.linspace(0, len(cut) - 1, half).astype(int)]
    return [(*one, LUMBAR_LEVELS[n % len(LUMBAR_LEVELS)]) for n, one in enumerate(chosen)]


def measured(backend: str, name: str, kind: str, labels, level: str, atlas) -> dict:
    """Register one disc; return its row."""
    labels = read_image(labels) if isinstance(labels, Path) else labels
    before = times()
    found = register_person(labels, atlas, [level], backend, person=name, workers=1).quality.rows[0]
    seconds = sum(times()[:4]) - sum(before[:4])
    keys = ("dice", "surface_mean", "folding", "flags")
    return {"backend": backend, "name": name, "kind": kind, "level": level, "seconds": seconds,
            **{key: found.get(key) for key in keys}}


def summary(backend: str, rows: list[dict]) -> tuple:
    """Return a backend's row."""
    dice = np.array([row["dice"] or 0.0 for row in rows])
    worst = rows[int(dice.argmin())]
    cut = np.array([row["kind"] == "cut" for row in rows])
    return (backend, len(rows), dice.mean(), dice[~cut].mean(), dice[cut].mean(),
            f"{dice.min():.3f} ({worst['name']} {worst['level']}, {worst['kind']})",
            np.mean([row["surface_mean"] for row in rows if row["dice"]]),
            max(row["folding"] for row in rows if row["dice"]), np.mean([row["seconds"] for row in rows]))


def main() -> None:
    """Measure what is not kept yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backends", nargs="+", choices=("coordinates", "elastix", "brainsfit"))
    parser.add_argument("--discs", type=int, default=25)
    parser.add_argument("--rows", type=Path, required=True, help="file that keeps each disc's row")
    parser.add_argument("--minutes", type=float, default=1e9, help="no disc is begun later than this")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    kept, atlas, end = Results("bench_backends"), load_atlas(), time.monotonic() + 60 * options.minutes
    for backend in options.backends:
        for name, kind, labels, level in discs(options.discs):
            known = any((r["backend"], r["name"], r["level"]) == (backend, name, level) for r in rows)
            if not known and time.monotonic() < end:
                rows.append(measured(backend, name, kind, labels, level, atlas))
                with options.rows.open("a") as file:
                    print(json.dumps(rows[-1]), file=file, flush=True)
    measured_of = {b: [r for r in rows if r["backend"] == b] for b in options.backends}
    table = [summary(backend, found) for backend, found in measured_of.items() if found]
    kept.table("quality", ["backend", "discs", ("mean Dice", ".3f"), ("whole discs", ".3f"), ("cut discs", ".3f"),
                           "worst", ("surface mm", ".2f"), ("folding", "g"), ("CPU s per disc", ".1f")], table)
    kept.aims(*(aim for row in table if row[1] == options.discs for aim in (
        Aim(f"{row[0]}: mean Dice", row[2], at_least=0.94, form=".3f"),
        Aim(f"{row[0]}: worst Dice", float(row[5].split()[0]), at_least=0.85, form=".3f"),
        Aim(f"{row[0]}: folding", row[7], at_most=0))))


if __name__ == "__main__":
    main()
