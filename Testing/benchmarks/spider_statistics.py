"""The embedded real cohort through the statistics: normalized T2w signal by Pfirrmann grade, age and sex, into MRML.

    python Testing/benchmarks/spider_statistics.py OUTPUT_FOLDER [--people 33] [--permutations 5000]
    python Testing/benchmarks/spider_statistics.py OUTPUT_FOLDER --study demo-output/spider-cohort

The discs are the cohort's reference masks (SPIDER, CC BY 4.0), so that only atlas, statistics and MRML are exercised
here; maps in atlas space are kept in the output folder and used again. With --study the maps are those of the study
runner's demonstration (the network's masks), for the people it analyzed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / m) for m in ("DiscStats", "DiscAtlas", "DiscRelaxometry")]
COHORT = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort"


def atlas_maps(people: list[str], atlas, folder: Path):
    """Return each person's normalized T2w signal in atlas space."""
    from DiscAtlasLib.registration import register_person
    from DiscAtlasLib.warping import warp_to_atlas
    from DiscRelaxometryLib.image import Image, read_image, write_image
    from DiscRelaxometryLib.measure.normalize import normalized_t2w
    maps = []
    for person in people:
        path = folder / f"{person}_nT2w.nii.gz"
        if not path.exists():
            volume = read_image(COHORT / person / "anat" / f"{person}_T2w.nii.gz")
            labels = read_image(COHORT / "derivatives" / "reference" / person / "anat" / f"{person}_dseg.nii.gz")
            labels = Image(labels.array.astype("uint8"), volume.geometry)
            registration = register_person(labels, atlas, person=person)
            write_image(warp_to_atlas(normalized_t2w(volume, labels), registration), path)
        maps.append(read_image(path))
    return maps


def picture(result, path: Path) -> None:
    """Draw mean, effect, t and corrected p in the mid-sagittal slice."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    keys = [("nT2w_mean", "viridis"), ("nT2w_pfirrmann_effect", "RdBu_r"), ("nT2w_pfirrmann_t", "RdBu_r"),
            ("nT2w_pfirrmann_r", "RdBu_r"), ("nT2w_pfirrmann_pfwe", "viridis_r"), ("nT2w_pfirrmann_ptfce", "viridis_r")]
    count = np.isfinite(result.maps["nT2w_pfirrmann_t"].array)
    middle = int(np.argmax(count.sum(axis=(0, 1))))
    figure, axes = plt.subplots(1, len(keys), figsize=(3 * len(keys), 6))
    for axis, (key, colors) in zip(axes, keys):
        image = result.maps[key]
        low, high = image.meta["window"]
        shown = axis.imshow(image.array[:, :, middle], cmap=colors, vmin=low, vmax=high, origin="lower",
                            interpolation="nearest")
        axis.set_title(image.meta["title"].replace("nT2w pfirrmann ", ""), fontsize=10)
        axis.axis("off")
        figure.colorbar(shown, ax=axis, fraction=0.046)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=33)
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--study", type=Path, help="folder of a finished demonstration, for its maps")
    parser.add_argument("--errors", default="auto", help="auto, exchangeable or symmetric")
    options = parser.parse_args()
    from DiscRelaxometryLib.headless import start_headless
    slicer = start_headless()
    from DiscAtlasLib.atlas import load_atlas
    from DiscRelaxometryLib import mrml as base
    from DiscRelaxometryLib.measure.regions import PARTITION
    from DiscStats import DiscStatsLogic
    options.folder.mkdir(parents=True, exist_ok=True)
    logic, atlas = DiscStatsLogic(), load_atlas()
    table = logic.participants(COHORT / "participants.tsv").iloc[: options.people]
    start = time.perf_counter(), time.process_time()
    if options.study:
        found = sorted(options.study.glob("derivatives/*/sub-*/anat/*_space-DiscAtlas_nT2w.nii.gz"))
        by_person = {path.name.split("_")[0]: path for path in found}
        table = table[table.participant_id.isin(by_person)]
        maps = [by_person[person] for person in table.participant_id]
    else:
        maps = atlas_maps(list(table.participant_id), atlas, options.folder / "maps")
    print(f"{len(maps)} maps in atlas space: {time.perf_counter() - start[0]:.0f} s wall, "
          f"{time.process_time() - start[1]:.0f} s CPU, load {os.getloadavg()[0]:.1f}")
    start = time.perf_counter(), time.process_time()
    result = logic.analyze({"nT2w": maps}, atlas.labels, table, "nT2w ~ pfirrmann + age + C(sex)", "pfirrmann",
                           atlas.regions, n_permutations=options.permutations, seed=1, missing="available",
                           missing_covariates="drop", errors=options.errors, workers=2,
                           region_names={v: k for k, v in PARTITION.items()}, levels=list(atlas.levels))
    print(f"analysis of {result.data.n_voxels} voxels: {time.perf_counter() - start[0]:.0f} s wall, "
          f"{time.process_time() - start[1]:.0f} s CPU")
    nodes = logic.showResult(result, "Pfirrmann")
    chart = logic.plotAt(result, cluster=1, contrast="pfirrmann")
    logic.saveResult(result, options.folder / "statistics", scene=True)
    picture(result, options.folder / "maps.png")
    table = base.table_from_node(nodes.clusters)
    print(f"\n{len(nodes.maps)} volumes, {len(table)} clusters, chart '{chart.GetTitle()}': {chart.GetDescription()}; "
          f"{slicer.mrmlScene.GetNumberOfNodes()} nodes in the scene")
    for warning in result.warnings:
        print("-", warning)
    names = ("sign", "voxels", "p_extent", "p_mass", "peak", "peak_p_fwe", "peak_p_tfce", "effect_mean", "level",
             "region", "regions")
    print("\n| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in result.clusters.rows[:10]:
        print("| " + " | ".join(f"{row[n]:.4g}" if isinstance(row[n], float) else str(row[n]) for n in names) + " |")
    shares = {k: (result.maps[f"nT2w_pfirrmann_{k}"].array <= 0.05).sum() / result.data.n_voxels
              for k in ("p", "pfwe", "ptfce", "qfdr")}
    print("\nshare of voxels at or under .05: " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items()))


if __name__ == "__main__":
    main()
