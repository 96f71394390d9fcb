"""Digital lumbar phantoms as a study on disk: three discs, vertebrae and canal, with known relaxation and signal.

Not anatomy: ellipsoids with a bright core. It checks that the pipeline carries numbers through, not that it segments.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value

LEVELS = ("L5-S1", "L4-L5", "L3-L4")
#: Relaxation (ms) of the nucleus by grade I to V at L5-S1, and of the annulus.
NUCLEUS = {"T1rho": (200.0, 145.0, 100.0, 70.0, 62.0), "T2": (130.0, 110.0, 85.0, 60.0, 45.0)}
ANNULUS = {"T1rho": 65.0, "T2": 40.0}
#: Levels differ whatever the grade.
LEVEL_FACTOR = {"L5-S1": 1.0, "L4-L5": 1.15, "L3-L4": 1.3}
TIMES = {"T1rho": ("SpinLockTime", (0.0, 0.01, 0.04, 0.08)), "T2": ("EchoTime", (0.01, 0.03, 0.06))}
#: How people moved between the anatomical image and each echo series: 6 mm and 5 degrees, of flexion and to the side.
MOTION = {"T1rho": sitk.Euler3DTransform(), "T2": sitk.Euler3DTransform()}
MOTION["T1rho"].SetParameters((np.radians(5.0), 0.0, 0.0, 1.0, 4.0, 4.4))
MOTION["T2"].SetParameters((np.radians(-3.0), 0.0, np.radians(4.0), -2.0, 3.5, -4.4))
#: Sagittal slices: i runs from posterior to anterior, j from foot to head, k from left to right.
_DIRECTION = (0, 0, 1, -1, 0, 0, 0, 1, 0)
FINE = Geometry((54, 100, 14), (1.4, 1.5, 3.6), (-23.4, 40.0, -100.0), _DIRECTION)
COARSE = Geometry((54, 75, 10), (1.4, 2.0, 5.0), (-22.5, 40.0, -100.0), _DIRECTION)


def true_nucleus(kind: str, grade: int, level: str) -> float:
    """Return the relaxation time of a nucleus in ms."""
    return NUCLEUS[kind][grade - 1] * LEVEL_FACTOR[level]


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
    labels[(np.abs(x) < 20) & (np.abs(y) < 17) & (np.abs(z + 33) < 62)] = 1
    labels[((x / 9) ** 2 + ((y - 27) / 7) ** 2 < 1)] = 2
    nucleus = np.zeros(geometry.shape, bool)
    for n, level in enumerate(LEVELS):
        height = z - (-66 + 33 * n)
        disc = (np.abs(height) < 5.5) & ((x / 24) ** 2 + (y / 17) ** 2 < 1)
        labels[disc] = disc_value(level)
        nucleus |= disc & (np.abs(height) < 4) & ((x / 15) ** 2 + (y / 10) ** 2 < 1)
    return labels, nucleus


def make_spine_study(root: Path, grades: Sequence, series: Sequence[str] = (), simulated: bool = True,
                     moved: bool = True) -> Path:
    """Write a study of one person per entry of `grades`; return its folder.

    Parameters
    ----------
    root : Path
    grades : sequence
        Pfirrmann grade of all discs of a person, or of L5-S1, L4-L5 and L3-L4; 0 for a disc without label and grade.
    series : sequence of {"T1rho", "T2"}
        Echo series that people have.
    simulated : bool
    moved : bool
        Whether people moved before the echo series.
    """
    columns = [f"pfirrmann_{level.replace('-', '')}" for level in LEVELS]
    lines, rows = ["\t".join(["participant_id", "age", "sex", *columns])], []
    for n, given in enumerate(grades, start=1):
        person, own = f"sub-{n:02d}", (given,) * 3 if isinstance(given, int) else tuple(given)
        rows.append("\t".join([person, str(30 + 7 * n % 23), "MF"[n % 2], *(str(g or "n/a") for g in own)]))
        rng, folder = np.random.default_rng(n), root / person / "anat"
        _write_anatomy(folder, person, dict(zip(LEVELS, own)), rng)
        for kind in series:
            _write_series(folder, person, kind, dict(zip(LEVELS, own)), rng, MOTION[kind] if moved else None)
    # The rows are in an order that is neither that of the ids nor its reverse: people are found by id.
    lines += [rows[n] for n in np.random.default_rng(5).permutation(len(rows))]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    description = {"Name": "Digital phantoms", "BIDSVersion": "1.10.0", "Simulated": simulated}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    return root


def add_reference(root: Path, person: str, wider: str) -> None:
    """Write a reference mask: the true discs, one of them reaching one voxel further to the front."""
    labels, _ = anatomy(FINE)
    value = disc_value(wider)
    labels[..., 1:][(labels[..., :-1] == value) & (labels[..., 1:] == 0)] = value
    write_image(Image(np.where(labels >= 11, labels, 0), FINE),
                root / "derivatives" / "rater" / person / "anat" / f"{person}_dseg.nii.gz")


def _of_nucleus(values: dict[str, float], labels: np.ndarray) -> np.ndarray:
    """Return the value of each voxel's own disc."""
    table = np.zeros(256)
    for level, value in values.items():
        table[disc_value(level)] = value
    return table[labels]


def _write_anatomy(folder: Path, person: str, grades: dict[str, int], rng) -> None:
    labels, nucleus = anatomy(FINE)
    bright = _of_nucleus({level: 250.0 - 40 * (grade or 3) for level, grade in grades.items()}, labels)
    signal = np.select([nucleus, labels >= 11, labels == 2, labels == 1], [bright, 45.0, 300.0, 90.0], 15.0)
    signal[..., :4] = 180.0  # fat behind the canal
    image = Image((signal + rng.normal(0, 4, signal.shape)).clip(0).astype(np.float32), FINE)
    write_image(image, folder / f"{person}_T2w.nii.gz")
    lost = [disc_value(level) for level, grade in grades.items() if not grade]
    write_image(Image(np.where(np.isin(labels, lost), 0, labels), FINE), folder / f"{person}_dseg.nii.gz")


def _write_series(folder: Path, person: str, kind: str, grades: dict[str, int], rng,
                  motion: sitk.Transform | None) -> None:
    labels, nucleus = anatomy(COARSE, motion)
    bright = _of_nucleus({level: true_nucleus(kind, grade or 3, level) for level, grade in grades.items()}, labels)
    ms = np.select([nucleus, labels >= 11, labels == 2], [bright, ANNULUS[kind], 400.0], 50.0)
    density = np.select([labels >= 11, labels == 2, labels == 1], [800.0, 900.0, 500.0], 60.0)
    field, times = TIMES[kind]
    echoes = [Image((density * np.exp(-1000 * t / ms) + rng.normal(0, 3, ms.shape)).astype(np.float32), COARSE)
              for t in times]
    name = "MESE" if kind == "T2" else kind
    sitk.WriteImage(sitk.JoinSeries([e.to_sitk() for e in echoes]), str(folder / f"{person}_{name}.nii.gz"))
    (folder / f"{person}_{name}.json").write_text(json.dumps({field: times}), encoding="utf-8")
