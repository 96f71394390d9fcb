"""Figures of the demonstration as a page of the validation documents, from its own results.

    make demo
    python Testing/benchmarks/demo_figures.py demo-output --wall "4 min 9 s" --load 2 > Docs/validation/demo.md

Nothing is computed anew: tables, maps and provenance of the run are read. Durations are those of the steps that the
last run did; run the demonstration from nothing first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / name) for name in ("DiscRelaxometry", "DiscAtlas", "DiscStats")]

from DiscRelaxometryLib.image import read_image  # noqa: E402
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value  # noqa: E402
from DiscStatsLib.tables.agreement import bland_altman, icc  # noqa: E402
from DiscStudyLib.demo import FORMULA  # noqa: E402
from DiscStudyLib.folder.study import Study  # noqa: E402
from DiscStudyLib.folder.training import trained_on  # noqa: E402

STEP = "analysis-pfirrmann"


def table(head, rows) -> None:
    """Print a Markdown table."""
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(c) for c in row)} |")


def read(path: Path) -> pd.DataFrame:
    """Read a group table."""
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


def costs(output: Path) -> None:
    """Print processor time and memory of each step, from its provenance: what ran, whichever run it was."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("**/prov/*_prov.json")]
    rows = []
    for step in dict.fromkeys(r["step"] for r in sorted(records, key=lambda r: r["finished"])):
        own = [r for r in records if r["step"] == step and r["status"] == "done"]
        if own:
            cpu, wall = (np.array([r[k] for r in own]) for k in ("cpu_seconds", "seconds"))
            rows.append((step, len(own), f"{cpu.mean():.1f}", f"{wall.mean():.1f} ({wall.max():.1f})",
                         f"{max(r['peak_memory_mb'] for r in own):.0f}"))
    table(("step", "times", "processor time s, mean", "wall s, mean (max)",
           "peak memory of a process so far, MB"), rows)


def network(study: Study, group: Path) -> None:
    """Print agreement with the reference masks, people of the training set apart."""
    frame = read(group / "agreement.tsv")
    frame = frame[frame.level.isin(LUMBAR_LEVELS)]
    known = trained_on(study)
    rows = []
    for name, inside in (("in the training set (or used to choose the network)", True), ("held out", False)):
        some = frame[frame.participant_id.isin(known) == inside]
        if some.empty:
            continue
        worst = some.groupby("participant_id").dice.mean().min()
        both = some.dropna(subset=["nT2w", "nT2w_reference"])
        limits = bland_altman(both.nT2w, both.nT2w_reference)
        single = next(r for r in icc(both[["nT2w", "nT2w_reference"]].to_numpy()).rows if r["form"] == "ICC(2,1)")
        share = 100 / both.nT2w_reference.mean()
        rows.append((name, some.participant_id.nunique(), len(some), f"{some.dice.mean():.3f}", f"{worst:.3f}",
                     f"{single['value']:.3f}", f"{share * limits.bias:+.1f} %",
                     f"{share * limits.lower:.0f} to {share * limits.upper:+.0f} %"))
    table(("people", "n", "discs", "mean Dice", "worst person", "mean signal: ICC(2,1)", "bias", "limits of agreement"),
          rows)


def registration(group: Path) -> None:
    """Print the overlap with the atlas."""
    frame = read(group / "registration.tsv")
    table(("level", "discs", "Dice, median", "worst", "folding, worst"),
          [(level, len(part), f"{part.dice.median():.3f}", f"{part.dice.min():.3f}", f"{part.folding.max():g}")
           for level in LUMBAR_LEVELS for part in [frame[frame.level == level]] if len(part)])


def analyses(group: Path) -> None:
    """Print the analysis of everyone, and beside it that of one field strength."""
    atlas = None
    rows = []
    for step in (STEP, f"{STEP}-sensitivity"):
        record = json.loads((group / "prov" / f"step-{step}_prov.json").read_text(encoding="utf-8"))
        rule = record["parameters"].get("rule")
        who = f"`{rule}`" if rule else "**everyone**"
        facts = next(iter(record["facts"].values()))
        maps = {stat: read_image(group / step / f"space-DiscAtlas_stat-nT2w_pfirrmann_{stat}.nii.gz").array
                for stat in ("r", "pfwe", "ptfce")}
        atlas = atlas_labels() if atlas is None else atlas
        clusters = read(group / step / facts["clusters"])
        for level in LUMBAR_LEVELS:
            inside = atlas == disc_value(level)
            some = clusters[clusters.level == level]
            best = some.loc[some.p_extent.idxmin()] if len(some) else None
            rows.append((who, facts["n"], level, f"{np.nanmedian(maps['r'][inside]):+.2f}",
                         *(f"{np.nanmin(maps[s][inside]):.3f}" for s in ("pfwe", "ptfce")),
                         "none" if best is None else f"{best.voxels:.0f} voxels, {best.region}: {best.p_extent:.3f}, "
                                                     f"{best.p_mass:.3f}"))
    table(("analysis", "people", "level", "median r", "smallest p (FWE)", "smallest p (TFCE)",
           "cluster of smallest p: extent, mass"), rows)


def atlas_labels() -> np.ndarray:
    """Return the shipped atlas's labels."""
    from DiscAtlasLib.atlas import load_atlas

    return load_atlas().labels.array


def models(group: Path) -> None:
    """Print the mixed models' effect of the grade."""
    frame = read(group / "mixed_models.tsv")
    frame = frame[frame.term == "pfirrmann"]
    table(("region", "change of nT2w a grade (95 %)", "p, of this test alone", "discs", "people"),
          [(r.region.replace("_", " "), f"{r.estimate:+.4f} ({r.low:+.4f} to {r.high:+.4f})", f"{r.p:.2g}", r.discs,
            r.people) for r in frame.itertuples()])


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the demonstration's output folder")
    parser.add_argument("--wall", default="not noted", help="time by the clock of the cold run")
    parser.add_argument("--load", default="not noted", help="load average during it")
    options = parser.parse_args()
    study = Study(options.output / "spider-cohort")
    group = study.output / "group"
    record = json.loads((group / "prov" / f"step-{STEP}_prov.json").read_text(encoding="utf-8"))
    print("# The demonstration on the real cohort: figures\n\nWritten by `python Testing/benchmarks/demo_figures.py "
          f"demo-output` on {time.strftime('%Y-%m-%d')} from the results of `make demo` ({len(study.people)} people, "
          f"{FORMULA}, {record['parameters']['permutations']} permutations, seed {record['parameters']['seed']}). From "
          f"nothing: {options.wall} by the clock; load {options.load}.\n\n## Cost")
    costs(group.parent)
    print("\n## Network against the reference masks (used for this alone), lumbar levels")
    network(study, group)
    print("\n## Registration to the atlas")
    registration(group)
    print("\n## Voxel-wise regression on the Pfirrmann grade, adjusted for age and sex\n\nThe analysis of everyone is "
          "the planned one. The other leaves out the person scanned at 3 T (sub-141, 14 years); that rule was made\n"
          "after the first result had been seen, so it is a sensitivity analysis only. A covariate for the field "
          "strength would fit that one person exactly, which is the same as leaving them out.")
    analyses(group)
    print("\n## Mixed models of the regions (level and random person)")
    models(group)


if __name__ == "__main__":
    main()
