"""Normalized T2w signal per disc: reference masks against disturbed and automatic masks; effect of clipped CSF.

Usage: ``python Testing/benchmarks/bench_normalized.py [--data FOLDER] [--every N] [--network]``; FOLDER holds
``spider_t2space``. ``--network`` segments the people of the shipped network's test fold from pixels.
Prints markdown tables: bias of the mean signal per disc, its limits of agreement and ICC(2,1).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "DiscRelaxometry"))

from DiscRelaxometryLib.image import Image, read_image  # noqa: E402
from DiscRelaxometryLib.measure.normalize import csf_reference, normalized_t2w  # noqa: E402
from DiscRelaxometryLib.resources import resource_path  # noqa: E402

PLANE = np.ones((3, 3, 1), bool)


def main() -> None:
    """Compare masks and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--every", type=int, default=1, help="take every Nth person")
    parser.add_argument("--network", action="store_true", help="segment the network's test people")
    options = parser.parse_args()
    folder = options.data / "spider_t2space"
    people = [f.name[:7] for f in sorted(folder.glob("*_dseg.nii.gz"))][::options.every]
    if options.network:
        card = json.loads(resource_path("Weights/lumbar-discs.json").read_text())
        people = card["training"]["people"]["test"]
    pairs: dict[str, list] = {}
    clip: dict[float, list] = {}
    for person in people:
        image = read_image(folder / f"{person}_T2w.nii.gz")
        reference = read_image(folder / f"{person}_dseg.nii.gz")
        masks = automatic(image) if options.network else disturbed(reference)
        truth = disc_means(image, reference)
        for name, labels in masks.items():
            found = disc_means(image, labels)
            pairs.setdefault(name, []).extend((truth[v], found[v]) for v in truth if v in found)
        if not options.network:
            clipped(image, reference, clip)
    print(f"{len(people)} people\n\n| masks | discs | bias, % | 95 % limits, % | ICC(2,1) |\n|---|---|---|---|---|")
    for name, rows in pairs.items():
        a, b = np.array(rows).T
        relative = 100 * (b - a) / a
        print(f"| {name} | {len(a)} | {relative.mean():+.2f} | {relative.mean() - 1.96 * relative.std(ddof=1):+.1f} to "
              f"{relative.mean() + 1.96 * relative.std(ddof=1):+.1f} | {icc(a, b):.4f} |")
    if clip:
        print("\n| share of CSF clipped | people | CSF median against unclipped |\n|---|---|---|")
        for share, values in clip.items():
            print(f"| {share:.0%} | {len(values)} | {100 * (np.mean(values) - 1):+.1f} % "
                  f"(worst {100 * (min(values) - 1):+.1f} %) |")


def disc_means(image: Image, labels: Image) -> dict[int, float]:
    """Return disc value -> mean normalized signal."""
    signal = normalized_t2w(image, labels).array
    return {int(v): float(signal[labels.array == v].mean()) for v in np.unique(labels.array) if 11 <= v < 30}


def disturbed(reference: Image) -> dict[str, Image]:
    """Return the reference with its surfaces moved by one voxel in-plane (0.6 mm), and shifted."""
    result = {}
    for name, change in (("eroded by 0.6 mm", ndimage.binary_erosion), ("dilated by 0.6 mm", ndimage.binary_dilation)):
        array = np.where(reference.array == 1, 1, 0).astype(reference.array.dtype)
        for value in (int(v) for v in np.unique(reference.array) if v > 1):
            array[change(reference.array == value, PLANE)] = value
        result[name] = reference.like(array)
    result["shifted by 0.6 mm"] = reference.like(np.roll(reference.array, 1, axis=1))
    return result


def automatic(image: Image) -> dict[str, Image]:
    """Return the network's labels."""
    from DiscRelaxometryLib.discs.segment import segment

    return {"network, people not trained on": segment(image).labels}


def clipped(image: Image, labels: Image, result: dict[float, list]) -> None:
    """Clip an unclipped image so that a share of its CSF saturates, and compare the CSF medians."""
    reference, mask = csf_reference(image, labels)
    if reference.clipped > 0.05:
        return
    for share in (0.3, 0.45, 0.55, 0.65):
        limit = np.floor(np.quantile(image.array[mask], 1 - share))
        low, _ = csf_reference(image.like(np.minimum(image.array, limit)), labels)
        result.setdefault(share, []).append(low.median / reference.median)


def icc(a: np.ndarray, b: np.ndarray) -> float:
    """Return ICC(2,1): two-way random effects, absolute agreement, single measure (Shrout and Fleiss 1979)."""
    x = np.stack([a, b], axis=1)
    n, k = x.shape
    rows = k * np.sum((x.mean(1) - x.mean()) ** 2) / (n - 1)
    columns = n * np.sum((x.mean(0) - x.mean()) ** 2) / (k - 1)
    rest = np.sum((x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()) ** 2) / ((n - 1) * (k - 1))
    return float((rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n))


if __name__ == "__main__":
    main()
