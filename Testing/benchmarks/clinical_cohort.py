"""The clinical cohort through the whole pipeline: normalized T2w signal by read Pfirrmann grade, voxel by voxel.

    python Testing/benchmarks/clinical_cohort.py FOLDER [--processes 1] [--permutations 5000] [--figure FILE.png]

One mid-sagittal T2w slice of each person of SPIDER's clinical series (shared data ``spider_midsagittal``; Siemens and
Philips, 1.5 and 3 T): network, atlas, and Freedman-Lane permutation, adjusted for sex, vendor and field. As sensitivity
analysis the same is done for each vendor and field by itself. The people's own results are kept in FOLDER, and what is
there is not done again. A slice is thin in the atlas: voxels that fewer than half of the people have are left out.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from common import Results, shared_data

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import Column, Table, read_tsv
from DiscStatsLib.analysis import analyze
from DiscStatsLib.settings import AnalysisSettings

GRADE = "pfirrmann"
ADJUSTED = {"sex": "C(sex)", "vendor": "C(vendor)", "field_T": "C(field_T)"}
#: Name of a group of people, and the column and value that makes it.
GROUPS = {"everyone": ("", ""), "Philips": ("vendor", "Philips"), "Siemens": ("vendor", "Siemens"),
          "1.5 T": ("field_T", "1.5"), "3 T": ("field_T", "3")}


def make_study(source: Path, study: Path) -> Path:
    """Write the people with a T2w slice as a study: images, and their grades by level."""
    people = [r for r in read_tsv(source / "participants.tsv").rows if r["has_T2w"] == "1"]
    read = {(r["participant_id"], int(r["disc_from_below"])): r["pfirrmann"]
            for r in read_tsv(source / "gradings.tsv").rows}
    rows = []
    for person in people:
        name = person["participant_id"]
        target = study / name / "anat" / f"{name}_T2w.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(source / target.name, target)
        rows.append({"participant_id": name, "sex": person["sex"], "vendor": person["T2w_manufacturer"],
                     "field_T": person["T2w_field_T"],
                     **{f"{GRADE}_{level.replace('-', '')}": read.get((name, n), "n/a")
                        for n, level in enumerate(reversed(LUMBAR_LEVELS), 1)}})
    Table("participants", [Column(n) for n in rows[0]], rows).write(study / "participants.tsv")
    write_json(study / "dataset_description.json",
               {"Name": "SPIDER, clinical T2w", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC-BY-4.0"})
    return study


def own_rows(table: pd.DataFrame, group: str) -> np.ndarray:
    """Return which people of the table belong to a group."""
    column, value = GROUPS[group]
    return (table[column] == value).to_numpy() if column else np.ones(len(table), bool)


def formula_of(table: pd.DataFrame) -> str:
    """Return the model: the grade, adjusted for what differs between these people."""
    return " + ".join([f"nT2w ~ {GRADE}", *(term for name, term in ADJUSTED.items() if table[name].nunique() > 1)])


def row_of(group: str, formula: str, result) -> list:
    """Return people, voxels, share of voxels with a corrected p, and the effect of one grade where the mean is."""
    maps = {k.removeprefix(f"nT2w_{GRADE}_"): v.array for k, v in result.maps.items()}
    tested = np.isfinite(maps["t"])
    share = [f"{np.mean(maps[k][tested] <= 0.05):.0%}" for k in ("pfwe", "ptfce")]
    return [group, formula.split("~ ")[1], result.data.n, int(tested.sum()), *share, float(np.nanmedian(maps["r"])),
            float(np.nanmedian(maps["effect"])), float(np.nanmin(maps["pfwe"]))]


def level_rows(result, labels: np.ndarray) -> list:
    """Return one row per level: observations, median partial r and effect, share of voxels with p (FWE) <= .05."""
    maps = {k: result.maps[f"nT2w_{GRADE}_{k}"].array for k in ("r", "effect", "pfwe")}
    counts = result.provenance["observations_by_level"]
    return [[level, counts[level], float(np.nanmedian(maps["r"][labels == disc_value(level)])),
             float(np.nanmedian(maps["effect"][labels == disc_value(level)])),
             f"{np.mean(own[np.isfinite(own)] <= 0.05):.0%}"]
            for level in LUMBAR_LEVELS for own in [maps["pfwe"][labels == disc_value(level)]]]


def picture(results: dict, labels, path: Path) -> None:
    """Draw the partial correlation of each group; voxels with a corrected p are outlined."""
    from DiscStudyLib.report import Look, save_figure
    from DiscStudyLib.report.figures_maps import atlas_figure

    look = Look("RdBu_r", -1, 1, "partial correlation with the grade")
    shown = {name: (r.maps[f"nT2w_{GRADE}_r"], look) for name, r in results.items()}
    corrected = {name: r.maps[f"nT2w_{GRADE}_pfwe"] for name, r in results.items()}
    outline = {name: image.like((image.array <= 0.05).astype(np.uint8)) for name, image in corrected.items()}
    save_figure(atlas_figure(shown, labels, LUMBAR_LEVELS, outline), path, dpi=80)


def main() -> None:
    """Run the people, analyze each group, and keep tables and picture."""
    from DiscAtlasLib import load_atlas
    from DiscStudyLib import run_study

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    study = make_study(shared_data() / "spider_midsagittal", options.folder / "study")
    run = run_study(study, level="participant", processes=options.processes, segmentation="cnn")
    atlas, kept = load_atlas(), Results("clinical_cohort")
    files = {p.name.split("_")[0]: p for p in study.glob("derivatives/*/sub-*/anat/*_space-DiscAtlas_nT2w.nii.gz")}
    table = pd.read_csv(study / "participants.tsv", sep="\t", na_values=["n/a"], dtype={"field_T": str})
    table = table[table.participant_id.isin(files)].reset_index(drop=True)
    maps, found, rows = [read_image(files[p]) for p in table.participant_id], {}, []
    for group in GROUPS:
        own = own_rows(table, group)
        formula = formula_of(table[own])
        found[group] = analyze({"nT2w": [m for m, some in zip(maps, own) if some]}, atlas.labels,
                               table[own].reset_index(drop=True), formula, GRADE,
                               AnalysisSettings(n_permutations=options.permutations), levels=list(LUMBAR_LEVELS))
        rows.append(row_of(group, formula, found[group]))
    kept.table("groups", ["people", "model", "n", "voxels", "p (FWE) <= .05", "p (TFCE) <= .05",
                          ("median partial r", ".2f"), ("median change per grade", ".3f"), ("smallest p", ".4f")], rows,
               given=len(run.missing) + len(table), left_out=sorted(run.missing))
    kept.table("levels", ["level", "discs", ("median partial r", ".2f"), ("median change per grade", ".3f"),
                          "p (FWE) <= .05"], level_rows(found["everyone"], atlas.labels.array))
    if options.figure:
        picture({name: found[name] for name in ("everyone", "Philips", "Siemens")}, atlas.labels, options.figure)


if __name__ == "__main__":
    main()
