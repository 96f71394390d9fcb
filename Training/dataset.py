"""The people of a training folder, held in memory as sagittal slices in one orientation, and their folds."""

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.discs import BACKGROUND, CANAL, DISC, DISC_L5S1, VERTEBRA
from DiscRelaxometryLib.labels import BY_VALUE
from DiscRelaxometryLib.tables import read_tsv, to_number

FOLDS_FILE = Path(__file__).with_name("folds.json")


@dataclass(frozen=True)
class Person:
    """One person's volume and reference labels."""

    #: ``sub-XXX``.
    name: str
    #: Shape (slices, rows, columns). Normalized signal; slices along left-right, rows superior to inferior, columns
    #: anterior to posterior.
    image: np.ndarray
    #: Class of each voxel, see ``network.CLASSES``.
    labels: np.ndarray
    #: mm along slices, rows, columns.
    spacing: tuple[float, float, float]
    #: Shape (slices, rows, 2). Center and half length, in columns, of bodies and discs in each row; used to synthesize
    #: lateral slices.
    column: np.ndarray


def add_data(parser: argparse.ArgumentParser, folder: str) -> None:
    """Add the option ``--data``: by default a folder in the one that ``DISC_SHARED_DATA`` names."""
    shared = os.environ.get("DISC_SHARED_DATA")
    parser.add_argument("--data", type=Path, default=Path(shared, folder) if shared else None, required=not shared,
                        help=f"folder of the data [{folder or '.'} in DISC_SHARED_DATA]")


def class_labels(dseg: np.ndarray) -> np.ndarray:
    """Turn the project's label values (1 vertebra, 2 canal, 3 disc fragment, 11 L5-S1, 12.. discs) into classes."""
    class_of = np.full(256, BACKGROUND, np.uint8)
    kinds = {"vertebra": VERTEBRA, "canal": CANAL, "disc": DISC}
    for value, structure in BY_VALUE.items():
        class_of[value] = kinds.get(structure.kind, VERTEBRA)
    class_of[[3, 11]] = DISC, DISC_L5S1
    return class_of[dseg]


def read_packed(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return normalized signal (float32), classes (uint8) and spacing of a packed person."""
    from PIL import Image

    facts = json.loads((folder / f"{name}.json").read_text())
    image, labels = (np.asarray(Image.open(folder / f"{name}.{suffix}")).reshape(facts["shape"])
                     for suffix in ("jp2", "png"))
    signal = np.clip(image.astype(np.float32), facts["low"], facts["high"])
    return (signal - facts["mean"]) / max(facts["sd"], 1e-6), labels.copy(), tuple(facts["spacing"])


def load_person(folder: Path, name: str) -> Person:
    """Read a series of :func:`people`; a folder written by ``Training.pack`` needs no SimpleITK."""
    if (folder / f"{name}.json").exists():
        image, labels, spacing = read_packed(folder, name)
    else:
        from DiscRelaxometryLib.discs import normalize_signal

        image, labels, spacing = read_upright(folder, name)
        image = normalize_signal(image)
    return Person(name, image, labels, spacing, spine_column(labels))


def read_upright(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return signal as stored and classes (slices, rows downward, columns backward), and spacing in that order."""
    import SimpleITK as sitk

    if is_study(folder):
        from DiscStudyLib.folder import imported_series

        image, dseg = (sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS") for path in imported_series(folder)[name])
    else:  # stored as x = left-right, y = to anterior, z = to superior, whatever the header says
        image, dseg = (sitk.ReadImage(str(folder / f"{name}_{kind}.nii.gz")) for kind in ("T2w", "dseg"))
    x, y, z = image.GetSpacing()
    signal, labels = (upright(sitk.GetArrayFromImage(v)) for v in (image, dseg))
    return signal, class_labels(labels), (x, z, y)


def upright(array: np.ndarray) -> np.ndarray:
    """Turn an array (z, y, x), stored toward superior and anterior, to (x, z downward, y backward)."""
    return np.ascontiguousarray(array.transpose(2, 0, 1)[:, ::-1, ::-1])


def spine_column(labels: np.ndarray) -> np.ndarray:
    """Return center and half length (in columns) of bodies and discs in each row of each slice.

    Posterior elements carry the label of the bodies, so that only voxels in front of the canal count; rows
    without any take the values of the nearest row that has some.
    """
    result = np.zeros(labels.shape[:2] + (2,), np.float32)
    columns = np.arange(labels.shape[2])
    # Lateral slices cut the canal at the pedicles; the canal of the whole volume bounds the bodies there.
    canal_front = np.where((labels == CANAL).any(0), columns, 10**6).min(1)
    rows_with_canal = np.flatnonzero(canal_front < 10**6)
    front = np.interp(np.arange(labels.shape[1]), rows_with_canal, canal_front[rows_with_canal])
    for k, plane in enumerate(labels):
        mask = ((plane == VERTEBRA) | (plane >= DISC)) & (columns < front[:, None])
        rows = np.flatnonzero(mask.sum(1) > 8)
        if not len(rows):
            result[k] = labels.shape[2] / 2, 30
            continue
        first, last = mask.argmax(1)[rows], labels.shape[2] - 1 - mask[:, ::-1].argmax(1)[rows]
        every = np.arange(labels.shape[1])
        smooth = np.hanning(31) / np.hanning(31).sum()
        for axis, values in enumerate(((first + last) / 2, (last - first) / 2)):
            line = np.interp(every, rows, values)
            result[k, :, axis] = np.convolve(np.pad(line, 15, mode="edge"), smooth, "valid")
    return result


def people(folder: Path) -> list[str]:
    """Return the people in a folder; the series (``sub-001_T2w``) in a study of ``import-spider`` and where packed."""
    if is_study(folder):
        from DiscStudyLib.folder import imported_series

        return sorted(imported_series(folder))
    return sorted({p.name.removesuffix(ending) for ending in ("_T2w.nii.gz", ".json")
                   for p in folder.glob(f"sub-*{ending}")})


def is_study(folder: Path) -> bool:
    """Return whether a folder is a study as ``disc-relaxometry import-spider`` writes it."""
    return (folder / "dataset_description.json").exists()


def person_of(name: str) -> str:
    """Return the person of a series."""
    return name.split("_")[0]


def make_folds(folder: Path, count: int = 4, seed: int = 20261123, sample: str = "sub-078") -> dict:
    """Split people in folds, alike in degeneration: people sorted by mean Pfirrmann grade, dealt out at random.

    The person embedded in the extension as sample data goes to fold 0, by changing places with the person of fold 0
    from the same block.
    """
    grade = {}
    for row in read_tsv(folder / "participants.tsv").rows:
        read = [v for k, cell in row.items() if k.startswith("pfirrmann") and (v := to_number(cell)) is not None]
        grade[row["participant_id"]] = np.mean(read or [3.0])
    names = sorted({person_of(n) for n in people(folder)}, key=lambda n: (grade.get(n, 3.0), n))
    random = np.random.default_rng(seed)
    folds: list[list[str]] = [[] for _ in range(count)]
    for start in range(0, len(names), count):
        block = names[start:start + count]
        for fold, index in zip(random.permutation(count), range(len(block))):
            folds[fold].append(block[index])
        if sample in block and sample not in folds[0]:
            other = next((f for f in folds if sample in f), folds[0])
            other[-1], folds[0][-1] = folds[0][-1], other[-1]
    return {"seed": seed, "rule": make_folds.__doc__.split("\n")[0], "folds": [sorted(f) for f in folds]}


def read_folds() -> dict:
    """Return the folds kept in the repository."""
    return json.loads(FOLDS_FILE.read_text(encoding="utf-8"))


def fold_numbers() -> list[int]:
    """Return the numbers of all folds."""
    return list(range(len(read_folds()["folds"])))


def split(folder: Path, fold: int) -> tuple[list[list[str]], list[str]]:
    """Return the people to train on, a list for each of the other folds, and the people to test on.

    An imported study has folds of its own, in which all series of a person are together. People of another folder that
    are in no fold (another data set, made-up people) count as one more training fold. The number after the last fold
    holds nobody out.
    """
    folds, here = [*(make_folds(folder) if is_study(folder) else read_folds())["folds"], []], people(folder)
    rest = [n for n in here if not any(person_of(n) in f for f in folds)]
    groups = [[n for n in here if person_of(n) in f] for k, f in enumerate(folds) if k != fold] + [rest]
    return [g for g in groups if g], [n for n in here if person_of(n) in folds[fold]]
