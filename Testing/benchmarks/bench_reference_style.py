"""How much of the disc Dice is the references' style: an oracle that is told each reference's disc volume.

    DISC_SHARED_DATA=... python Testing/benchmarks/bench_reference_style.py

The people held out of a fold's network (``--manifest``) are segmented by it; then the threshold on
the disc's probability is chosen so that the discs have the volume of the reference. **The second Dice is no result**:
it uses the reference. What it gains no network can know, where references disagree on how far a disc reaches.
"""

import argparse
from pathlib import Path

import numpy as np
from common import Results, held_out, shared_data

from DiscRelaxometryLib.discs import segment
from DiscRelaxometryLib.image import read_image
from Training.evaluate import is_disc
from Training.metrics import dice


def one(name: str, model) -> dict:
    """Return Dice and volume ratio of a person, and Dice with the reference's volume."""
    image = read_image(shared_data() / f"spider_t2space/{name}_T2w.nii.gz")
    reference = is_disc(read_image(shared_data() / f"spider_t2space/{name}_dseg.nii.gz").array)
    result = segment(image, model=model, threads=1)
    own, probability = is_disc(result.labels.array), result.disc_probability.array
    order = np.sort(probability.ravel())
    threshold = float(order[-int(reference.sum())])
    told = probability >= max(threshold, 1e-6)
    return {"person": name, "dice": dice(own, reference), "told": dice(told, reference),
            "volume": own.sum() / reference.sum(), "threshold": threshold}


def main():
    """Segment everyone and list both Dice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, help="a fold's network; the shipped one by default")
    model, people = held_out(parser.parse_args().manifest)
    rows = [one(name, model) for name in people]
    column = {k: np.array([r[k] for r in rows]) for k in rows[0] if k != "person"}
    near = np.abs(np.log(column["volume"])) < np.log(1.05)
    results = Results("bench_reference_style")
    results.table("oracle", [f"{len(rows)} people", ("mean Dice", ".3f"), ("worst", ".3f"), "people >= 0.92"],
                  [(words, column[key].mean(), column[key].min(), int((column[key] >= 0.92).sum())) for words, key in
                   (("network", "dice"), ("told the reference's volume (oracle)", "told"))],
                  mean_dice_of_volumes_within_5_percent=round(float(column["dice"][near].mean()), 3),
                  mean_dice_of_the_others=round(float(column["dice"][~near].mean()), 3))
    results.table("people", ["person", ("Dice", ".3f"), ("told the volume", ".3f"), ("volume / reference", ".2f"),
                             ("threshold", ".2f")], [list(r.values()) for r in sorted(rows, key=lambda r: r["person"])])


if __name__ == "__main__":
    main()
