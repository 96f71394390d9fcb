"""Build the shipped atlas from the embedded SPIDER cohort (CC BY 4.0), and print how it converged.

    python Testing/benchmarks/build_shipped_atlas.py [--output DiscAtlas/Resources/Atlas] [--workers 2]

The eight people are those whose series show the most of the discs' width, without hardware or artefacts.
"""

import argparse
import time
from pathlib import Path

from common import ROOT, Aim, Results

from DiscAtlasLib.atlas import save_atlas
from DiscAtlasLib.template import build_template
from DiscRelaxometryLib.image import read_image

COHORT = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort" / "derivatives" / "reference"
PEOPLE = ("sub-209", "sub-118", "sub-146", "sub-166", "sub-241", "sub-065", "sub-110", "sub-185")
PROVENANCE = {
    "name": "Lumbar discs of SPIDER",
    "source": "SPIDER, lumbar spine MRI with masks (van der Graaf et al., Sci Data 2024;11:264, Zenodo 10159290), T2 "
              "SPACE series by way of public repositories",
    "license": "CC BY 4.0",
    "lateral_completion": "SPIDER's discs are cut laterally; the unseen sides follow a superellipse of width 1.4 x AP "
                          "depth (an assumption), which moves with what is seen beside it and is made symmetric: the "
                          "lateral third on each side is not measured",
    "laterality": "symmetric, because the slice axis's direction is not verified in the source",
}


def main():
    """Build, save, and list the movements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "DiscAtlas" / "Resources" / "Atlas")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    people = []
    for person in PEOPLE:
        labels = read_image(COHORT / person / "anat" / f"{person}_dseg.nii.gz")
        people.append((person, labels.like(labels.array.astype("uint8"))))
    begin = time.time()
    atlas = build_template(people, iterations=options.iterations, symmetric=True, provenance=PROVENANCE,
                           workers=options.workers)
    save_atlas(atlas, options.output)
    moves = atlas.provenance["convergence_mm"]
    count = max(map(len, moves.values()))
    results = Results("build_shipped_atlas")
    results.table(
        "movement", ["level", "iteration 1", *map(str, range(2, count + 1))],
        [(level, *(f"{m:.2f}" for m in own), *[""] * (count - len(own))) for level, own in moves.items()],
        seconds=round(time.time() - begin), half_sizes_mm={atlas.shape(v).name: atlas.shape(v).half.round(1).tolist()
                                                           for v in atlas.values})
    results.aims(Aim("template's surface moves in the last iteration, largest level",
                     max(own[-1] for own in moves.values()), at_most=0.1, form=".3f", unit="mm"))


if __name__ == "__main__":
    main()
