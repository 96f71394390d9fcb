"""Pack a data folder for another machine, without loss: ``python -m Training.pack OUT``.

Signal becomes JPEG 2000 (lossless), labels PNG, both with a person's slices below each other. The signal's
normalization is that of the whole volume, stored beside, because the far front and the lowest rows, which hold no
spine, may be cut off to save space. Reading needs numpy and Pillow alone.
"""

import argparse
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import atomic_path, write_json
from Training.dataset import add_data, people, read_upright


def pack_person(source: Path, name: str, target: Path, rows: int, columns: int) -> None:
    """Write ``NAME.jp2``, ``NAME.png`` and ``NAME.json`` of a series of a data folder; see :func:`pack_arrays`."""
    pack_arrays(*read_upright(source, name), name, target, rows, columns)


def pack_arrays(image: np.ndarray, labels: np.ndarray, spacing, name: str, target: Path, rows: int = 0,
                columns: int = 0) -> None:
    """Write ``NAME.jp2``, ``NAME.png`` and ``NAME.json``; the name is ``sub-XXX`` or ``sub-XXX_T1w``.

    Signal (8-bit) and classes are (slices, rows downward, columns backward), the spacing in mm in that order; `rows`
    are cut off below and `columns` in front. ValueError if the signal is not 8-bit, or if a label would be cut off.
    """
    from PIL import Image

    if image.dtype != np.uint8:
        raise ValueError(f"{name}: only 8-bit signal is packed without loss, this one is {image.dtype}.")
    window = np.s_[:, :image.shape[1] - rows, columns:]
    if np.count_nonzero(labels[window]) != np.count_nonzero(labels):
        raise ValueError(f"{name}: {rows} rows and {columns} columns would cut off labelled voxels.")
    low, high = np.percentile(image.astype(np.float32), (0.5, 99.5))
    clipped = np.clip(image.astype(np.float32), float(low), float(high))
    facts = {"shape": labels[window].shape, "spacing": spacing, "low": float(low), "high": float(high),
             "mean": float(clipped.mean(dtype=float)), "sd": float(clipped.std(dtype=float))}
    for array, suffix, kind, extra in ((image, "jp2", "JPEG2000", {"irreversible": False}), (labels, "png", "PNG", {})):
        tall = np.ascontiguousarray(array[window]).reshape(-1, facts["shape"][2])
        with atomic_path(target / f"{name}.{suffix}") as temporary:
            Image.fromarray(tall).save(temporary, kind, **extra)
    write_json(target / f"{name}.json", facts)


def main() -> None:
    """Parse arguments and pack every person."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    add_data(parser, "spider_t2space")
    parser.add_argument("--rows", type=int, default=0, help="rows to cut off below")
    parser.add_argument("--columns", type=int, default=0, help="columns to cut off in front")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in people(options.data):
        pack_person(options.data, name, options.output, options.rows, options.columns)
        print(name, flush=True)


if __name__ == "__main__":
    main()
