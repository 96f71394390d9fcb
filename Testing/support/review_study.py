"""A study that looks as if it had been run: small volumes with boxes as discs, and the records a review reads."""

import json
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import Record, fingerprints, write_record
from DiscStudyLib.folder import DERIVATIVES, Settings, Study

LEVELS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
#: Sagittal slices: i runs from posterior to anterior, j from foot to head, k from left to right.
GRID = Geometry((20, 50, 6), (1.5, 2.0, 4.0), (-12.0, 15.0, -50.0), np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]],
                                                                          float).ravel())


def outlines() -> Image:
    """Return boxes of five levels, one above the other, and a canal behind them."""
    array = np.zeros(GRID.shape, np.uint8)
    array[1:5, :, 2:4] = 2
    for n, level in enumerate(LEVELS):
        array[1:5, 4 + 9 * n: 8 + 9 * n, 5:16] = disc_value(level)
    return Image(array, GRID)


def make_reviewable(root: Path, people: int = 3, flags: dict | None = None) -> Path:
    """Write the study; `flags` is person -> (notes of the segmentation, {level: flag of the registration})."""
    output = root / DERIVATIVES
    for n in range(1, people + 1):
        person = f"sub-{n:02d}"
        labels = outlines()
        noise = np.random.default_rng(n).normal(0, 5, GRID.shape)
        image = Image((80 + 4 * labels.array + noise).astype(np.float32), GRID)
        source = write_image(image, root / person / "anat" / f"{person}_T2w.nii.gz")
        write_image(image.like(image.array / 200), output / person / "anat" / f"{person}_desc-csfnorm_nT2w.nii.gz")
        write_image(labels, output / person / "anat" / f"{person}_desc-discs_dseg.nii.gz")
        notes, quality = (flags or {}).get(person, ([], {}))
        record_run(Study(root), person, source, notes, quality)
    (output / "settings.json").write_text(json.dumps({k: v for k, v in Settings().to_dict().items() if k != "threads"}))
    return root


def record_run(study: Study, person: str, source: Path, notes=(), quality=None) -> None:
    """Write what a run would say about a person: segmentation, normalized signal, registration."""
    anat, prov = study.output / person / "anat", study.output / person / "prov"
    for step, name, facts in (("segment", "desc-discs_dseg.nii.gz", {"levels": list(LEVELS)}),
                              ("normalize", "desc-csfnorm_nT2w.nii.gz", {}),
                              ("atlas", "", {"quality": [{"level": v, "flags": (quality or {}).get(v, "")}
                                                         for v in LEVELS]})):
        outputs = fingerprints([anat / f"{person}_{name}"], study.relative) if name else {}
        write_record(Record(step, person, "key", inputs=fingerprints([source], study.relative), outputs=outputs,
                            facts=facts, notes=list(notes) if step == "segment" else []),
                     prov / f"{person}_step-{step}_prov.json")


def upright_index(labels, place) -> int:
    """Return the number of the sagittal slice, from 1, of a voxel, with slices counted toward the left."""
    mark = np.zeros(labels.array.shape, np.uint8)
    mark[tuple(place)] = 1
    return int(np.argwhere(labels.like(mark).upright().array)[0][2]) + 1
