"""The embedded real cohort through the statistics: normalized T2w signal by Pfirrmann grade, age and sex, into MRML.

    python Testing/benchmarks/spider_statistics.py OUTPUT_FOLDER [--people 33] [--permutations 5000]
    python Testing/benchmarks/spider_statistics.py OUTPUT_FOLDER --study demo-output/spider-cohort

The discs are the cohort's reference masks (SPIDER, CC BY 4.0), so that only atlas, statistics and MRML are exercised
here; maps in atlas space are kept in the output folder and used again. With --study the maps are those of the study
runner's demonstration (the network's masks), for the people it analyzed.
"""

import argparse
import time
from pathlib import Path

from common import ROOT, Results

COHORT = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort"


def atlas_maps(people: list[str], atlas, folder: Path):
    """Return each person's normalized T2w signal in atlas space."""
    from DiscAtlasLib import register_person, warp_to_atlas
    from DiscRelaxometryLib.image import Image, read_image, write_image
    from DiscRelaxometryLib.measure import normalized_t2w
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
    from DiscAtlasLib import load_atlas
    from DiscRelaxometryLib import mrml as base
    from DiscRelaxometryLib.measure import PARTITION
    from DiscStats import DiscStatsLogic
    options.folder.mkdir(parents=True, exist_ok=True)
    logic, atlas = DiscStatsLogic(), load_atlas()
    table = logic.participants(COHORT / "participants.tsv").iloc[: options.people]
    if options.study:
        found = sorted(options.study.glob("derivatives/*/sub-*/anat/*_space-DiscAtlas_nT2w.nii.gz"))
        by_person = {path.name.split("_")[0]: path for path in found}
        table = table[table.participant_id.isin(by_person)]
        maps = [by_person[person] for person in table.participant_id]
    else:
        maps = atlas_maps(list(table.participant_id), atlas, options.folder / "maps")
    start = time.process_time()
    result = logic.analyze({"nT2w": maps}, atlas.labels, table, "nT2w ~ pfirrmann + age + C(sex)", "pfirrmann",
                           atlas.regions, n_permutations=options.permutations, seed=1, missing="available",
                           missing_covariates="drop", errors=options.errors, workers=2,
                           region_names={v: k for k, v in PARTITION.items()}, levels=list(atlas.levels))
    seconds = time.process_time() - start
    nodes = logic.showResult(result, "Pfirrmann")
    chart = logic.plotAt(result, cluster=1, contrast="pfirrmann")
    logic.saveResult(result, options.folder / "statistics", scene=True)
    picture(result, options.folder / "maps.png")
    assert len(base.table_from_node(nodes.clusters)) == len(result.clusters.rows) and chart and slicer.mrmlScene
    shares = {k: (result.maps[f"nT2w_pfirrmann_{k}"].array <= 0.05).sum() / result.data.n_voxels
              for k in ("p", "pfwe", "ptfce", "qfdr")}
    names = ("sign", "level", "voxels", "p_extent", "peak", "peak_p_fwe", "peak_p_tfce", "regions")
    Results("spider_statistics").table(
        "clusters", ["sign", "level", "voxels", "p extent", ("peak t", ".2f"), "peak p (FWE)", "peak p (TFCE)",
                     "regions"],
        [[row[n] for n in names] for row in result.clusters.rows[:10]], people=len(maps), voxels=result.data.n_voxels,
        cpu_seconds=round(seconds), warnings=list(result.warnings), volumes=len(nodes.maps),
        share_at_or_under_05={k: f"{v:.1%}" for k, v in shares.items()})


if __name__ == "__main__":
    main()
