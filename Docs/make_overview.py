"""Draw the README's overview picture from a demonstration's results: ``python Docs/make_overview.py demo-output``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

PARTS = (("segmentation.png", "1  Labelled discs (first 16 of 33 people; orange: to be reviewed)"),
         ("mean_nT2w.png", "2  Mean and SD of the maps on the atlas"),
         ("parametric_nT2w_pfirrmann.png", "3  Signal against Pfirrmann grade, voxel by voxel"))


def main(output: Path) -> None:
    """Arrange the three figures of the study in `output`."""
    folder = next(output.rglob("derivatives/disc-relaxometry/figures"))
    pictures = [plt.imread(folder / name) for name, _ in PARTS]
    pictures[0] = pictures[0][:int(0.37 * len(pictures[0]))]
    figure = plt.figure(figsize=(16, 12), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 0.85))
    axes = [top.subplots(), *bottom.subplots(1, 2)]
    for axis, picture, (_, title) in zip(axes, pictures, PARTS):
        axis.imshow(picture, interpolation="lanczos")
        axis.set_title(title, loc="left", fontsize=15, fontweight="bold")
        axis.axis("off")
    figure.savefig(Path(__file__).parent / "screenshots" / "overview.png", dpi=75)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
