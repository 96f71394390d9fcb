"""Clinical slices without masks as training data, labelled by a teacher: ``python -m Training.pseudo OUT``.

The teacher's labels of a slice are kept where it is sure of every disc, finds as many as the volume has, and names and
outlines agree with the person's other contrast in the same view. OUT holds the kept slices and the volumes with masks,
packed, for ``Training.train --data OUT``. People with a mask are left out of the slices, so that who is held out of a
fold is in it by no slice; every slice's verdict is in ``pseudo.tsv``.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.discs import Segmentation, load_model, segment
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.tables import Column, Table, read_tsv
from Training.dataset import add_data, class_labels, people, person_of, read_folds, upright
from Training.metrics import dice
from Training.pack import pack_arrays, pack_person

SAME_PLACE = 10.0  # mm between the centers of a disc in two contrasts
AGREE = 0.85  # least median Dice of the discs of two contrasts


def same_view(first: Segmentation, second: Segmentation) -> bool:
    """Tell whether two slices show the same field of view (the files' origins are arbitrary)."""
    sizes = [np.multiply(s.labels.geometry.size, s.labels.geometry.spacing)[1:] for s in (first, second)]
    return bool(np.allclose(*sizes, atol=2.0))


def names_alike(first: Segmentation, second: Segmentation) -> bool:
    """Tell whether discs at one place have one name, and both contrasts show some."""
    pairs = [(a.value, b.value) for a in first.discs for b in second.discs
             if np.linalg.norm(np.subtract(a.centroid, b.centroid)[1:]) < SAME_PLACE]
    return bool(pairs) and all(a == b for a, b in pairs)


def overlaps(first: Segmentation, second: Segmentation) -> list[float]:
    """Return the Dice of each disc of the first; empty where the grids differ."""
    one, two = first.labels.array, second.labels.array
    return [dice(one == d.value, two == d.value) for d in first.discs] if one.shape == two.shape else []


def verdict(found: Segmentation, number: int, other: Segmentation | None) -> str:
    """Return why a slice's labels are not kept; empty where they are.

    `number` of discs has the volume; `other` is of the same person's other contrast, where there is one in that view.
    """
    if not found.found:
        return "no spine found"
    if not found.certain:
        return "level names are an assumption"
    if len(found.discs) != number:
        return "another number of discs"
    if found.review:
        return "a disc is flagged"
    if other is not None and not (names_alike(found, other) and np.median(overlaps(found, other) or [1.0]) >= AGREE):
        return "the contrasts disagree"
    return ""


def label(slices: Path, every: int, model=None) -> tuple[dict[str, Segmentation], dict[str, str]]:
    """Return the teacher's segmentations of the slices by name, and the verdict on each.

    The folder holds ``sub-XXX_T1w.nii.gz``, ``sub-XXX_T2w.nii.gz`` and ``participants.tsv`` (``number_of_discs``).
    Every so many people are left out, for figures; 0 for none. The teacher is the shipped network by default.
    """
    masked = {n for fold in read_folds()["folds"] for n in fold}
    rows = read_tsv(slices / "participants.tsv").rows
    kept_out = masked | ({r["participant_id"] for r in rows[::every]} if every else set())
    found, verdicts = {}, {}
    for row in rows:
        if row["participant_id"] in kept_out:
            continue
        own = {}
        for path in sorted(slices.glob(f"{row['participant_id']}_T?w.nii.gz")):
            name = path.name.removesuffix(".nii.gz")
            try:
                own[name] = segment(read_image(path), model=model)
            except DiscRelaxometryError as error:
                verdicts[name] = str(error)
        for name, result in own.items():
            other = next((o for n, o in own.items() if n != name and o.found and same_view(result, o)), None)
            verdicts[name] = verdict(result, int(row["number_of_discs"]), other)
        found |= own
    return found, verdicts


def main() -> None:
    """Parse arguments, label the slices, and pack what is kept beside the volumes with masks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    add_data(parser, "")
    parser.add_argument("--manifest", type=Path, help="the teacher's weights; the shipped ones by default")
    parser.add_argument("--every", type=int, default=0, help="leave every Nth person out, for figures")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    slices, volumes = options.data / "spider_midsagittal", options.data / "spider_t2space"
    found, verdicts = label(slices, options.every, load_model(options.manifest))
    for name in (n for n, why in verdicts.items() if not why):
        image, labels = read_image(slices / f"{name}.nii.gz"), found[name].labels
        x, y, z = image.geometry.spacing
        pack_arrays(upright(image.array), class_labels(upright(labels.array)), (x, z, y), name, options.output)
    for name in people(volumes):
        pack_person(volumes, name, options.output, 0, 0)
    Table("pseudo", [Column("slice"), Column("participant_id"), Column("kept"), Column("why", "", "Why not")],
          [{"slice": n, "participant_id": person_of(n), "kept": not why, "why": why} for n, why in verdicts.items()]
          ).write(options.output / "pseudo.tsv")
    print(Counter(why or "kept" for why in verdicts.values()))


if __name__ == "__main__":
    main()
