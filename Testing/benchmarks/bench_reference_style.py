"""How much of the disc Dice is the references' style: an oracle that is told each reference's disc volume.

    DISC_SHARED_DATA=... python Testing/benchmarks/bench_reference_style.py

Each person of SPIDER is segmented by the network that never saw him or her (``Training/runs``); then the threshold on
the disc's probability is chosen so that the discs have the volume of the reference. **The second Dice is no result**:
it uses the reference. What it gains no network can know, where references disagree on how far a disc reaches.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "DiscRelaxometry")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402

from DiscRelaxometryLib.discs.segment import segment  # noqa: E402
from DiscRelaxometryLib.image import read_image  # noqa: E402
from Training.dataset import read_folds  # noqa: E402
from Training.evaluate import fold_model, is_disc  # noqa: E402
from Training.metrics import dice, surface_distance  # noqa: E402
from Training.train import RUNS  # noqa: E402

DATA = Path(os.environ.get("DISC_SHARED_DATA", ROOT.parent / "shared" / "data"))


def one(name: str, model) -> dict:
    """Return Dice, surface distance (mm) and volume ratio of a person, and the same with the reference's volume."""
    image = read_image(DATA / f"spider_t2space/{name}_T2w.nii.gz")
    reference = is_disc(read_image(DATA / f"spider_t2space/{name}_dseg.nii.gz").array)
    result = segment(image, model=model, threads=1)
    own, probability = is_disc(result.labels.array), result.disc_probability.array
    order = np.sort(probability.ravel())
    threshold = float(order[-int(reference.sum())])
    told = probability >= max(threshold, 1e-6)
    spacing = image.geometry.spacing[::-1]
    return {"person": name, "dice": dice(own, reference), "told": dice(told, reference), "threshold": threshold,
            "volume": own.sum() / reference.sum(), "distance": surface_distance(own, reference, spacing),
            "told_distance": surface_distance(told, reference, spacing)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    rows = []
    for fold, people in enumerate(read_folds()["folds"]):
        model = fold_model(options.runs, fold)
        for name in people:
            rows.append(one(name, model))
            print({k: v if isinstance(v, str) else round(float(v), 3) for k, v in rows[-1].items()}, flush=True)
    column = {k: np.array([r[k] for r in rows]) for k in rows[0] if k != "person"}
    print(f"\nload {os.getloadavg()[0]:.1f}\n| {len(rows)} people | mean Dice | worst | >= 0.92 | surface mm |")
    print("|---|---|---|---|---|")
    for words, key, distance in (("network", "dice", "distance"),
                                 ("told the volume (oracle)", "told", "told_distance")):
        print(f"| {words} | {column[key].mean():.3f} | {column[key].min():.3f} | {(column[key] >= 0.92).sum()} "
              f"| {column[distance].mean():.2f} |")
    near = np.abs(np.log(column["volume"])) < np.log(1.05)
    print(f"volume within 5 % of the reference's: {near.sum()} people, mean Dice {column['dice'][near].mean():.3f}; "
          f"the others {column['dice'][~near].mean():.3f}")


if __name__ == "__main__":
    main()
