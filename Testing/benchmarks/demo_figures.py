"""Tables of the demonstration, from its own results.

    make demo
    python Testing/benchmarks/demo_figures.py demo-output --minutes 4.2

Nothing is computed anew: tables, maps and provenance of the run are read. Durations are those of the steps that the
last run did; run the demonstration from nothing first.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from common import Aim, Results

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscStatsLib.tables import bland_altman, icc
from DiscStudyLib.demo import FORMULA
from DiscStudyLib.folder import Study, trained_on

STEP = "analysis-pfirrmann"


def read(path: Path) -> pd.DataFrame:
    """Read a group table."""
    return pd.read_csv(path, sep="\t", na_values=["n/a"])


def costs(results: Results, output: Path) -> None:
    """List processor time and memory of each step, from its provenance: what ran, whichever run it was."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("**/prov/*_prov.json")]
    rows = []
    for step in dict.fromkeys(r["step"] for r in sorted(records, key=lambda r: r["finished"])):
        own = [r for r in records if r["step"] == step and r["status"] == "done"]
        if own:
            cpu, wall = (np.array([r[k] for r in own]) for k in ("cpu_seconds", "seconds"))
            rows.append((step, len(own), cpu.mean(), f"{wall.mean():.1f} ({wall.max():.1f})",
                         max(r["peak_memory_mb"] for r in own)))
    results.table("cost", ["step", "times", ("processor time s, mean", ".1f"), "wall s, mean (max)",
                           ("peak memory of a process so far, MB", ".0f")], rows)


def network(results: Results, study: Study, group: Path) -> None:
    """List agreement with the reference masks, people of the training set apart."""
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
    results.table("network", ["people", "n", "discs", "mean Dice", "worst person", "mean signal: ICC(2,1)", "bias",
                              "limits of agreement"], rows)


def registration(results: Results, group: Path) -> None:
    """List the overlap with the atlas."""
    frame = read(group / "registration.tsv")
    frame = frame[frame.level.isin(LUMBAR_LEVELS)]
    results.table("registration", ["level", "discs", ("Dice, median", ".3f"), ("worst", ".3f"),
                                   ("folding, worst", "g")],
                  [(level, len(part), part.dice.median(), part.dice.min(), part.folding.max())
                   for level in LUMBAR_LEVELS for part in [frame[frame.level == level]] if len(part)])
    results.aims(Aim(f"{len(frame)} discs, network's outlines, to the atlas: worst Dice", frame.dice.min(),
                     at_least=0.88, form=".3f"),
                 Aim("the same, folding", frame.folding.max(), at_most=0))


def analyses(results: Results, group: Path) -> None:
    """List the analysis of everyone, and beside it that of one field strength."""
    atlas = None
    rows = []
    for step in (STEP, f"{STEP}-sensitivity"):
        record = json.loads((group / "prov" / f"step-{step}_prov.json").read_text(encoding="utf-8"))
        rule = record["parameters"].get("rule")
        who = f"`{rule}`" if rule else "everyone"
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
    results.table("analyses", ["analysis", "people", "level", "median r", "smallest p (FWE)", "smallest p (TFCE)",
                               "cluster of smallest p: extent, mass"], rows)


def atlas_labels() -> np.ndarray:
    """Return the shipped atlas's labels."""
    from DiscAtlasLib import load_atlas

    return load_atlas().labels.array


def models(results: Results, group: Path) -> None:
    """List the mixed models' effect of the grade."""
    frame = read(group / "mixed_models.tsv")
    frame = frame[frame.term == "pfirrmann"]
    results.table("models", ["region", "change of nT2w per grade (95 %)", ("p, of this test alone", ".2g"), "discs",
                             "people"],
                  [(r.region.replace("_", " "), f"{r.estimate:+.4f} ({r.low:+.4f} to {r.high:+.4f})", r.p, r.discs,
                    r.people) for r in frame.itertuples()], formula=FORMULA)


def main() -> None:
    """List what the demonstration found and cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the demonstration's output folder")
    parser.add_argument("--minutes", type=float, help="wall time of the run from nothing")
    options = parser.parse_args()
    study, results = Study(options.output / "spider-cohort"), Results("demo_figures")
    group = study.output / "group"
    costs(results, group.parent)
    network(results, study, group)
    registration(results, group)
    analyses(results, group)
    models(results, group)
    if options.minutes is not None:
        results.aims(Aim(f"`make demo`, {len(study.people)} people, pixels to report, after installation",
                         options.minutes, at_most=10, form=".1f", unit="minutes"))


if __name__ == "__main__":
    main()
