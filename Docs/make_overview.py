"""Draw the README's overview picture from a demonstration's results: ``python Docs/make_overview.py demo-output``."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

PARTS = (("segmentation.png", "1  Labelled discs (8 of the people; orange frame: to be reviewed)"),
         ("mean_nT2w.png", "2  Mean of the maps on the atlas"),
         ("parametric_nT2w_pfirrmann.png", "3  Correlation with the Pfirrmann grade"))


def main(output: Path) -> None:
    """Arrange the three figures of the study in `output`."""
    folder = next(output.rglob("derivatives/disc-relaxometry/figures"))
    people, mean, statistics = (plt.imread(folder / name) for name, _ in PARTS)
    # The first row of people, the mean without its SD, the correlation without effect and p.
    pictures = [people[:int(0.2 * len(people))], mean[:, :int(0.5 * mean.shape[1])],
                statistics[:, :int(0.345 * statistics.shape[1])]]
    figure = plt.figure(figsize=(12, 9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(0.62, 1))
    axes = [top.subplots(), *bottom.subplots(1, 2)]
    for axis, picture, (_, title) in zip(axes, pictures, PARTS):
        axis.imshow(picture, interpolation="lanczos")
        axis.set_title(title, loc="left", fontsize=13, fontweight="bold")
        axis.axis("off")
    figure.savefig(Path(__file__).parent / "screenshots" / "overview.png", dpi=75)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
