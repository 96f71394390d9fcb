"""Draw the README's overview picture from a demonstration's results: ``python Docs/make_overview.py demo-output``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

PARTS = (("segmentation.png", "1  Labelled discs of the 33 people (network)"),
         ("mean_nT2w.png", "2  Mean normalized T2w signal on the atlas"),
         ("parametric_nT2w_pfirrmann.png", "3  Voxel by voxel: signal and Pfirrmann grade, adjusted for age and sex"))


def main(output: Path) -> None:
    """Stack the three figures of the study in `output`."""
    folder = next(output.rglob("derivatives/disc-relaxometry/figures"))
    pictures = [plt.imread(folder / name) for name, _ in PARTS]
    width = 12.0
    heights = [width * p.shape[0] / p.shape[1] for p in pictures]
    figure, axes = plt.subplots(3, 1, figsize=(width, sum(heights) + 1.2), height_ratios=heights, layout="constrained")
    for axis, picture, (_, title) in zip(axes, pictures, PARTS):
        axis.imshow(picture, interpolation="lanczos")
        axis.set_title(title, loc="left", fontsize=15, fontweight="bold")
        axis.axis("off")
    figure.savefig(Path(__file__).parent / "screenshots" / "overview.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
