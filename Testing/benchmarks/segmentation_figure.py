"""Draw ``Docs/validation/segmentation-lateral.png``: python Testing/benchmarks/segmentation_figure.py."""

import argparse

import numpy as np
from common import ROOT
from scipy import ndimage

from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.discs import segment
from DiscRelaxometryLib.image import read_image
from Training.dataset import add_data
from Training.evaluate import is_disc, is_vertebra

PICTURE = ROOT / "Docs/validation/segmentation-lateral.png"
SCALE = 3
GREEN, RED, YELLOW = (0.0, 1.0, 0.0), (1.0, 0.25, 0.2), (1.0, 0.8, 0.2)


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the outline of an enlarged mask."""
    large = np.kron(mask, np.ones((SCALE, SCALE), bool))
    return large & ~ndimage.binary_erosion(large)


def tile(signal: np.ndarray, overlays: list[tuple[np.ndarray, tuple]], top: float) -> np.ndarray:
    """Return a sagittal slice (k, j) as seen from the right: superior up, anterior to the right."""
    gray = np.kron(np.clip(signal / top, 0, 1), np.ones((SCALE, SCALE)))
    picture = np.repeat(gray[..., None], 3, 2)
    for mask, color in overlays:
        picture[outline(mask)] = color
    return picture[::-1]


def main() -> None:
    """Segment one person of the second center and draw slices from one side to the other."""
    from matplotlib import image as writer

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data(parser, "")
    parser.add_argument("--person", default="sub-20")
    options = parser.parse_args()
    image = read_image(options.data / f"ivd_t2w/{options.person}_T2w.nii.gz")
    truth = read_image(options.data / f"ivd_t2w/{options.person}_dseg.nii.gz").array > 0
    labels = segment(image).labels.array
    first, last = np.flatnonzero(truth.any((0, 1)))[[0, -1]]
    rows, columns = (np.flatnonzero(truth.any(axes)) for axes in ((1, 2), (0, 2)))
    window = np.s_[max(0, rows[0] - 15):rows[-1] + 15, max(0, columns[0] - 40):columns[-1] + 20]
    top = float(np.percentile(image.array, 99.5))
    tiles = [tile(image.array[..., x][window], [(truth[..., x][window], GREEN), (is_disc(labels[..., x][window]), RED),
                                                (is_vertebra(labels[..., x][window]), YELLOW)], top)
             for x in np.linspace(first - 1, last + 1, 8).round().astype(int)]
    with atomic_path(PICTURE) as temporary:
        writer.imsave(temporary, np.concatenate([np.concatenate(tiles[:4], 1), np.concatenate(tiles[4:], 1)]))
    print(PICTURE)


if __name__ == "__main__":
    main()
