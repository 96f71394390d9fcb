"""Level names on the reference masks of real people under faults that segmentations have.

    python Testing/benchmarks/bench_levels.py [--every N]

Counts people in whom every disc has its right level, and in whom a flag was raised. In-plane voxels are thinned by two
for speed. A naive peer runs beside it: connected components numbered from below.
"""

import argparse
import time

import numpy as np
from common import Results, shared_data
from scipy import ndimage

from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Geometry, Image, read_image

PLANE = np.ones((3, 3, 1), bool)


def main() -> None:
    """Run all faults on all people."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every Nth person")
    options = parser.parse_args()
    files = sorted((shared_data() / "spider_t2space").glob("*_dseg.nii.gz"))[::options.every]
    score: dict[str, list] = {}
    seconds = []
    for file in files:
        truth = thinned(read_image(file))
        for name, case in faults(truth).items():
            start = time.perf_counter()
            outcome = run(*case)
            seconds.append(time.perf_counter() - start)
            score.setdefault(name, []).append((file.name[:7], *outcome))
    share = lambda rows, n: f"{sum(r[n] for r in rows)}/{len(rows)}"  # noqa: E731
    Results("bench_levels").table(
        "faults", ["fault", "levels right", "flagged", "components numbered from below"],
        [(name, *(share(rows, n) for n in (1, 2, 3))) for name, rows in score.items()], people=len(files),
        median_seconds_per_case=round(float(np.median(seconds)), 2))
    for name, rows in score.items():
        for row in rows:
            if not row[1]:
                print(f"\nwrong: {name}, {row[0]}: {row[4]}")


def thinned(image: Image) -> Image:
    """Return every second voxel in-plane."""
    g = image.geometry
    array = np.ascontiguousarray(image.array[::2, ::2])
    return Image(array, Geometry(array.shape[::-1], (g.spacing[0], 2 * g.spacing[1], 2 * g.spacing[2]), g.origin,
                                 g.direction))


def run(classes: Image, truth: np.ndarray, shift: int, probability) -> tuple[bool, bool, bool, str]:
    """Return whether all discs are right, whether a flag was raised, the same for the naive peer, and the flags."""
    levels = [v for v in range(11, 30) if np.any(truth == v)]
    naive, count = ndimage.label(classes.array == 3)
    sizes = np.bincount(naive.ravel())[1:]
    centers = ndimage.center_of_mass(naive > 0, naive, range(1, count + 1))
    order = [n for n in np.argsort([c[0] for c in centers]) if sizes[n] > 20]
    rank = {n + 1: 11 + m for m, n in enumerate(order)}
    naive_right = all(rank.get(majority(naive, truth == v)) == v + shift for v in levels)
    try:
        result = label_instances(classes.array, classes.geometry, probability)
    except DiscRelaxometryError as error:
        return False, True, naive_right, str(error)
    right = all(majority(result.labels.array, truth == v) == v + shift for v in levels)
    return right, bool(result.flags), naive_right, "; ".join(result.flags)


def majority(array: np.ndarray, mask: np.ndarray) -> int:
    """Return the most frequent value inside a mask."""
    return int(np.bincount(array[mask]).argmax())


def faults(truth: Image) -> dict[str, tuple]:
    """Return name -> (classes, truth, expected shift of the level values, network probability of L5-S1)."""
    t, g = truth.array, truth.geometry
    classes = np.where(t >= 11, 3, t).astype(np.uint8)
    rng = np.random.default_rng(int(t.sum()))
    cases = {"none": (classes, t, 0, None)}
    kept = ndimage.binary_erosion(classes == 3, PLANE)
    eroded, left = np.where((classes == 3) & ~kept, 0, classes), np.where((t >= 11) & ~kept, 0, t)
    small = [v for v in range(11, 30) if np.count_nonzero(left == v) * g.voxel_volume < 100]
    cases["discs eroded by 1.2 mm"] = (eroded, np.where(np.isin(left, small), 0, left), 0, None)
    grown = ndimage.binary_dilation(classes == 3, PLANE) & (classes != 2)
    cases["discs dilated by 1.2 mm"] = (np.where(grown, 3, classes), t, 0, None)
    for pair in ((12, 13), (14, 15)):
        cases[f"discs {pair[0]} and {pair[1]} bridged in front"] = (bridged(classes, t, *pair), t, 0, None)
    for value, name in ((11, "L5-S1"), (13, "L3-L4")):
        without = np.where(t == value, 0, t)
        cases[f"{name} missed"] = (np.where(t == value, 0, classes), without, 0, None)
        cases[f"{name} missed, taken for bone"] = (np.where(t == value, 1, classes), without, 0, None)
    top = int(np.argwhere(t == 15)[:, 0].mean())
    cases["image ends in L1-L2 above"] = (classes[:top], t[:top], 0, None)
    middle = lambda a, b: int((np.argwhere(t == a)[:, 0].mean() + np.argwhere(t == b)[:, 0].mean()) / 2)  # noqa: E731
    low = middle(11, 12)
    cases["image ends in L5 below"] = (np.where(t == 11, 0, classes)[low:], np.where(t == 11, 0, t)[low:], 0, None)
    islands = classes.copy()
    for _ in range(8):
        k, j, i = (rng.integers(5, s - 5) for s in t.shape)
        block = islands[k - 3:k + 3, j - 3:j + 3, i - 2:i + 3]
        block[block == 0] = 3
    cases["8 islands"] = (islands, t, 0, None)
    noisy = np.where((classes == 3) & (rng.random(t.shape) < 0.25), 0, classes)
    noisy = np.where((classes == 0) & (rng.random(t.shape) < 0.001), 3, noisy)
    cases["a quarter of the disc voxels lost, specks"] = (noisy, np.where(noisy == 3, t, 0), 0, None)
    cases["no vertebrae, no canal"] = (np.where(classes == 3, 3, 0), t, 0, None)
    cases["network names L5-S1"] = (classes, t, 0, 0.8 * (t == 11))
    cases["network names the second disc L5-S1"] = (classes, np.where(t == 11, 0, t), -1, 0.8 * (t == 12))
    start = {"image ends in L5 below": low}
    return {name: (cut(c.astype(np.uint8), g, start.get(name, 0)), tr, shift, p)
            for name, (c, tr, shift, p) in cases.items()}


def cut(array: np.ndarray, geometry: Geometry, low: int) -> Image:
    """Return an image whose first slice was slice `low` of the geometry."""
    return Image(np.ascontiguousarray(array), Geometry(array.shape[::-1], geometry.spacing,
                                                       geometry.index_to_world((0, 0, low)), geometry.direction))


def bridged(classes: np.ndarray, truth: np.ndarray, first: int, second: int) -> np.ndarray:
    """Return the classes with a bar of disc in front of a body, from one disc to the next."""
    result = classes.copy()
    ends = []
    for value in (first, second):
        where = np.argwhere(truth == value)
        ends.append(where[where[:, 1] > np.percentile(where[:, 1], 85)].mean(0))
    for share in np.linspace(0, 1, 80):
        k, j, i = np.round(ends[0] + share * (ends[1] - ends[0])).astype(int)
        result[k - 1:k + 2, j - 3:j + 4, max(0, i - 3):i + 4] = 3
    return result


if __name__ == "__main__":
    main()
