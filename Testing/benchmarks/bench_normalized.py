"""Normalized T2w signal per disc: reference masks against disturbed and automatic masks; effect of clipped CSF.

    python Testing/benchmarks/bench_normalized.py [--every N] [--manifest WEIGHTS]

``--manifest`` segments the people held out of a fold's network from pixels.
"""

import argparse
from pathlib import Path

import numpy as np
from common import Results, held_out, shared_data
from scipy import ndimage

from DiscRelaxometryLib.discs import Model, segment
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.measure import normalized_t2w
from DiscRelaxometryLib.measure.normalize import csf_reference
from DiscStatsLib.tables import icc

PLANE = np.ones((3, 3, 1), bool)


def main() -> None:
    """Compare masks and list the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every Nth person")
    parser.add_argument("--manifest", type=Path, help="segment the people held out of this network")
    options = parser.parse_args()
    folder = shared_data() / "spider_t2space"
    people = [f.name[:7] for f in sorted(folder.glob("*_dseg.nii.gz"))][::options.every]
    if options.manifest:
        model, people = held_out(options.manifest)
    pairs: dict[str, list] = {}
    clip: dict[float, list] = {}
    for person in people:
        image = read_image(folder / f"{person}_T2w.nii.gz")
        reference = read_image(folder / f"{person}_dseg.nii.gz")
        masks = automatic(image, model) if options.manifest else disturbed(reference)
        truth = disc_means(image, reference)
        for name, labels in masks.items():
            found = disc_means(image, labels)
            pairs.setdefault(name, []).extend((truth[v], found[v]) for v in truth if v in found)
        if not options.manifest:
            clipped(image, reference, clip)
    results, rows = Results("bench_normalized"), []
    for name, found in pairs.items():
        a, b = np.array(found).T
        relative = 100 * (b - a) / a
        half = 1.96 * relative.std(ddof=1)
        single = next(r["value"] for r in icc(np.stack([a, b], axis=1)).rows if r["form"] == "ICC(2,1)")
        rows.append((name, len(a), relative.mean(), f"{relative.mean() - half:+.1f} to {relative.mean() + half:+.1f}",
                     single))
    results.table("network" if options.manifest else "masks", [
        "masks", "discs", ("bias, %", "+.2f"), "95 % limits, %", ("ICC(2,1)", ".4f")], rows, people=len(people))
    if clip:
        results.table("clipped", [("share of the CSF clipped", ".0%"), "people", ("CSF median, mean change, %", "+.1f"),
                                  ("worst, %", "+.1f")],
                      [(share, len(values), 100 * (np.mean(values) - 1), 100 * (min(values) - 1))
                       for share, values in clip.items()])


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


def automatic(image: Image, model: Model) -> dict[str, Image]:
    """Return the network's labels."""
    return {"network, people not trained on": segment(image, model=model).labels}


def clipped(image: Image, labels: Image, result: dict[float, list]) -> None:
    """Clip an unclipped image so that a share of its CSF saturates, and compare the CSF medians."""
    reference, mask = csf_reference(image, labels)
    if reference.clipped > 0.05:
        return
    for share in (0.3, 0.45, 0.55, 0.65):
        limit = np.floor(np.quantile(image.array[mask], 1 - share))
        low, _ = csf_reference(image.like(np.minimum(image.array, limit)), labels)
        result.setdefault(share, []).append(low.median / reference.median)


if __name__ == "__main__":
    main()
