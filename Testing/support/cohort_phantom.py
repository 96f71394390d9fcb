"""Digital lumbar phantoms as a study on disk: geometric discs, vertebrae and canal, with known T1rho and signal.

Not anatomy: ellipsoids with a bright core. It checks that the pipeline carries numbers through, not that it segments.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value

LEVELS = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2")
#: T1rho (ms) and T2w signal of the nucleus by grade I to V; annulus after it.
NUCLEUS_T1RHO = {1: 200.0, 2: 145.0, 3: 100.0, 4: 70.0, 5: 62.0}
ANNULUS_T1RHO = 65.0
SPIN_LOCK = (0.0, 0.01, 0.04, 0.08)
#: How people moved between the anatomical image and the echo series: 6 mm, and 5 degrees of flexion.
MOTION = sitk.Euler3DTransform()
MOTION.SetParameters((np.radians(5.0), 0.0, 0.0, 1.0, 4.0, 4.4))


def anatomy(geometry: Geometry, motion: sitk.Transform | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and the share of nucleus (0 or 1) of a lumbar phantom on a grid, moved by `motion`."""
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)[..., ::-1]
    points = geometry.index_to_world(index)
    if motion is not None:
        inverse = motion.GetInverse()
        matrix = np.array(inverse.GetMatrix()).reshape(3, 3)
        points = points @ matrix.T + np.array(inverse.TransformPoint((0.0, 0.0, 0.0)))
    x, y, z = np.moveaxis(points, -1, 0)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[(np.abs(x) < 20) & (np.abs(y) < 17) & (np.abs(z) < 95)] = 1
    labels[((x / 9) ** 2 + ((y - 27) / 7) ** 2 < 1)] = 2
    nucleus = np.zeros(geometry.shape, bool)
    for n, level in enumerate(LEVELS):
        height = z - (-66 + 33 * n)
        disc = (np.abs(height) < 5.5) & ((x / 24) ** 2 + (y / 17) ** 2 < 1)
        labels[disc] = disc_value(level)
        nucleus |= disc & (np.abs(height) < 4) & ((x / 15) ** 2 + (y / 10) ** 2 < 1)
    return labels, nucleus


def make_spine_study(root: Path, grades, series: bool = True, simulated: bool = True) -> Path:
    """Write a study with one person per entry of `grades` (Pfirrmann grade of all discs); return its folder."""
    lines = ["participant_id\tage\tsex\tpfirrmann_L4L5\tpfirrmann_L5S1"]
    rows = []
    for n, grade in enumerate(grades, start=1):
        person = f"sub-{n:02d}"
        rows.append(f"{person}\t{30 + 7 * n % 23}\t{'MF'[n % 2]}\t{grade}\t{grade}")
        _write_person(root / person / "anat", person, grade, np.random.default_rng(n), series)
    # The rows are in an order that is neither that of the ids nor its reverse: people are found by id.
    lines += [rows[n] for n in np.random.default_rng(5).permutation(len(rows))]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    description = {"Name": "Digital phantoms", "BIDSVersion": "1.10.0", "Simulated": simulated}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    return root


def _write_person(folder: Path, person: str, grade: int, rng, series: bool) -> None:
    # Sagittal slices: i runs from posterior to anterior, j from foot to head, k from left to right.
    direction = np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]], float).ravel()
    fine = Geometry((60, 134, 16), (1.4, 1.5, 3.2), (-24.0, 42.0, -100.0), direction)
    labels, nucleus = anatomy(fine)
    signal = np.select([nucleus, labels >= 11, labels == 2, labels == 1], [250.0 - 40 * grade, 45.0, 300.0, 90.0], 15.0)
    image = Image((signal + rng.normal(0, 4, signal.shape)).clip(0).astype(np.float32), fine)
    write_image(image, folder / f"{person}_T2w.nii.gz")
    write_image(Image(labels, fine), folder / f"{person}_dseg.nii.gz")
    if not series:
        return
    coarse = Geometry((60, 100, 10), (1.4, 2.0, 5.0), (-24.0, 42.0, -100.0), direction)
    labels, nucleus = anatomy(coarse, MOTION)
    times = np.select([nucleus, labels >= 11, labels == 2], [NUCLEUS_T1RHO[grade], ANNULUS_T1RHO, 400.0], 50.0)
    density = np.select([labels >= 11, labels == 2, labels == 1], [800.0, 900.0, 500.0], 60.0)
    echoes = [Image((density * np.exp(-1000 * t / times) + rng.normal(0, 3, times.shape)).astype(np.float32), coarse)
              for t in SPIN_LOCK]
    sitk.WriteImage(sitk.JoinSeries([e.to_sitk() for e in echoes]), str(folder / f"{person}_T1rho.nii.gz"))
    (folder / f"{person}_T1rho.json").write_text(json.dumps({"SpinLockTime": SPIN_LOCK}), encoding="utf-8")
