"""Evaluate on people not used for training: ``python -m Training.evaluate`` (``make evaluate``).

SPIDER's people are each segmented by the network of the fold that holds them out, other data by the shipped network.
Parts can be run one by one (``--parts spider ivd``, ``--folds 2``); results are kept in ``runs/evaluation.json``, one
entry per part and fold; ``make evaluate`` makes the tables of ``Docs/validation/segmentation.md`` from them.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from SimpleITK import sitkNearestNeighbor

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.discs import Model, Segmentation, calibration, load_model, segment
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Geometry, Image, read_image, resample
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.measure import normalized_t2w
from DiscRelaxometryLib.tables import is_missing, read_tsv
from Training.dataset import add_data, fold_numbers, read_folds
from Training.degrade import DEGRADATIONS, low_resolution
from Training.metrics import dice, surface_dice, surface_distance
from Training.train import RUNS

CROSS_VALIDATED = ("spider", "degraded", "echo")
PARTS = (*CROSS_VALIDATED, "ivd", "bodies", "reject")
CENTRAL_MM = 10.0
#: mm within which a surface counts as right.
TOLERANCES = (0.6, 1.0)
#: Voxels this far from any structure are left out of the calibration, which they would make look perfect.
NEAR_MM = 4.0
#: Sets whose lowest reference body is S1 (seen in all their images).
WITH_S1 = ("vertebrae_mixed_contrast",)


def is_disc(array: np.ndarray) -> np.ndarray:
    """Return where a label image holds a disc, with or without level."""
    return (array == 3) | ((array >= 11) & (array < 30))


def is_vertebra(array: np.ndarray) -> np.ndarray:
    """Return where a label image holds vertebra or sacrum."""
    return (array == 1) | (array >= 30)


def grades(data: Path) -> dict[tuple[str, int], int]:
    """Return the Pfirrmann grade by person and disc label value (SPIDER's IVD label 1 is the lowest disc)."""
    return {(f"sub-{int(r['Patient']):03d}", 10 + int(r["IVD label"])): int(float(r["Pfirrmann grade"]))
            for r in read_tsv(data / "spider_t2space/gradings.tsv").rows if not is_missing(r["Pfirrmann grade"])}


def disc_rows(result: Segmentation, reference: Image, image: Image | None = None) -> list[dict]:
    """Return one row a reference disc and one a predicted disc that no reference disc meets.

    A predicted disc is matched to the reference disc that it overlaps most, whatever its name, so that overlap and
    naming are judged apart.
    """
    labels, spacing, voxel = result.labels.array, reference.geometry.spacing[::-1], reference.geometry.voxel_volume
    quality = {q.value: q for q in result.quality}
    values = [int(v) for v in np.unique(reference.array) if 11 <= v < 30]
    rows, matched = [], set()
    signals = [signal_of(image, v) for v in (result.labels, reference)] if image is not None else []
    for value in values:
        truth = reference.array == value
        inside = labels[truth]
        counts = np.bincount(inside[is_disc(inside)], minlength=1)
        found = int(counts.argmax()) if counts.sum() else 0
        mask = (labels == found) if found else np.zeros_like(truth)
        if found in matched:
            mask, found = np.zeros_like(truth), 0
        matched.add(found)
        own = quality.get(found)
        row = {"level": value, "named": found, "dice": dice(mask, truth),
               "distance": surface_distance(mask, truth, spacing), "volume": mask.sum() * voxel / 1000,
               "reference_volume": truth.sum() * voxel / 1000,
               "touches_edge": bool(truth[:1].any() or truth[-1:].any()),  # cut above or below
               "expected_dice": own.expected_dice if own else 0.0, "confidence": own.confidence if own else 0.0,
               "review": own.review if own else None}
        row |= {f"nsd_{mm}": surface_dice(mask, truth, spacing, mm) for mm in TOLERANCES}
        if image is not None:
            row["signal"] = float(signals[0][mask].mean()) if found else float("nan")
            row["reference_signal"] = float(signals[1][truth].mean())
        rows.append(row)
    for value in set(quality) - matched:
        own = quality[value]
        rows.append({"level": 0, "named": value, "dice": 0.0, "distance": float("nan"), "reference_volume": 0.0,
                     "volume": np.count_nonzero(labels == value) * voxel / 1000, "touches_edge": False,
                     "expected_dice": own.expected_dice, "confidence": own.confidence, "review": own.review})
    return rows


def signal_of(image: Image, labels: Image) -> np.ndarray:
    """Return T2w signal over the CSF reference of a label image; NaN where there is no usable CSF."""
    try:
        return normalized_t2w(image, labels).array
    except DiscRelaxometryError:
        return np.full(image.array.shape, np.nan)


def calibration_samples(result: Segmentation, reference: Image, count: int = 20000, seed: int = 0):
    """Return confidence and correctness of random voxels within NEAR_MM of a reference structure."""
    truth = np.where(is_disc(reference.array), 3, np.where(is_vertebra(reference.array), 1, reference.array))
    given = np.where(is_disc(result.labels.array), 3,
                     np.where(is_vertebra(result.labels.array), 1, result.labels.array))
    distance = ndimage.distance_transform_edt(truth == 0, sampling=reference.geometry.spacing[::-1])
    near = np.flatnonzero(distance <= NEAR_MM)
    picked = np.random.default_rng(seed).choice(near, min(count, len(near)), replace=False)
    return result.confidence.array.ravel()[picked], (given == truth).ravel()[picked]


def evaluate_spider(data: Path, names: list[str], **options) -> dict:
    """Evaluate people of SPIDER: overlap, surfaces, volumes, signal, names, calibration, review score."""
    people, rows, sure, right = [], [], [], []
    grade = grades(data)
    for seed, name in enumerate(names):
        image = read_image(data / f"spider_t2space/{name}_T2w.nii.gz")
        truth = read_image(data / f"spider_t2space/{name}_dseg.nii.gz")
        started = time.perf_counter()
        result = segment(image, **options)
        seconds = time.perf_counter() - started
        own = [r | {"person": name, "grade": grade.get((name, r["level"]))} for r in disc_rows(result, truth, image)]
        given, spacing = result.labels.array, truth.geometry.spacing[::-1]
        confidence, correct = calibration_samples(result, truth, seed=seed)
        sure.append(confidence)
        right.append(correct)
        distances = [r["distance"] for r in own if np.isfinite(r["distance"])]
        person = {"person": name, "reason": result.reason, "flags": result.flags, "seconds": seconds,
                  "disc": dice(is_disc(given), is_disc(truth.array)),
                  "vertebra": dice(is_vertebra(given), is_vertebra(truth.array)),
                  "canal": dice(given == 2, truth.array == 2),
                  "distance": float(np.mean(distances)) if distances else float("nan"),
                  "canal_distance": surface_distance(given == 2, truth.array == 2, spacing),
                  "names_right": all(r["level"] == r["named"] for r in own if r["level"] and not r["touches_edge"]),
                  "discs": sum(r["level"] > 0 for r in own), "extra": sum(r["level"] == 0 for r in own),
                  "missed": sum(r["named"] == 0 for r in own)}
        print({k: v for k, v in person.items() if k != "flags"}, flush=True)
        people.append(person)
        rows += own
    return {"people": people, "rows": rows, "bins": calibration(np.concatenate(sure), np.concatenate(right))[1]}


def evaluate_degraded(data: Path, names: list[str], **options) -> dict:
    """Evaluate the review flag where discs go wrong: the test people's volumes made worse on purpose.

    Each person gets one kind of degradation, in turn over the names of all folds.
    """
    rows, kinds = [], [k for k in DEGRADATIONS if k != "as acquired"]
    order = sorted(n for fold in read_folds()["folds"] for n in fold)
    for name in names:
        image = read_image(data / f"spider_t2space/{name}_T2w.nii.gz")
        truth = read_image(data / f"spider_t2space/{name}_dseg.nii.gz")
        index = order.index(name)
        kind = kinds[index % len(kinds)]
        result = segment(DEGRADATIONS[kind](image, 100 + index), **options)
        rows += [r | {"person": name, "degradation": kind, "reason": result.reason} for r in disc_rows(result, truth)]
        print(name, kind, [round(r["dice"], 2) for r in rows if r["person"] == name], flush=True)
    return {"rows": rows}


def central_slices(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Return which slices (the last axis) lie within CENTRAL_MM of the middle of a mask."""
    x = np.arange(mask.shape[2]) * geometry.spacing[0]
    return np.abs(x - np.average(x, weights=mask.sum((0, 1)))) <= CENTRAL_MM


def evaluate_ivd(data: Path, **options) -> dict:
    """Evaluate the two people of another center, full width; central slices lie within CENTRAL_MM of the middle."""
    rows = []
    for name in ("sub-20", "sub-42"):
        image = read_image(data / f"ivd_t2w/{name}_T2w.nii.gz")
        stored = read_image(data / f"ivd_t2w/{name}_dseg.nii.gz")
        truth = stored.like(np.where(stored.array > 0, stored.array + 10, 0))
        result = segment(image, **options)
        for row in disc_rows(result, truth):
            if not row["level"]:
                continue
            reference = truth.array == row["level"]
            given = result.labels.array == row["named"] if row["named"] else np.zeros_like(reference)
            central = central_slices(reference, truth.geometry)
            row |= {"person": name, "central": dice(given[..., central], reference[..., central]),
                    "lateral": dice(given[..., ~central], reference[..., ~central]), "reason": result.reason}
            rows.append(row)
        print(name, [(r["named"], round(r["dice"], 3), round(r["central"], 3), round(r["lateral"], 3)) for r in rows],
              flush=True)
    return {"rows": rows}


def front_of_canal(labels: np.ndarray) -> np.ndarray:
    """Return voxels (k, j, i; j to anterior) in front of the canal: bodies without the arch behind them."""
    canal = labels == 2
    if not canal.any():
        return np.ones(labels.shape, bool)
    # The middle of the canal bounds the bodies; its lateral recesses reach farther forward.
    middle = int(np.median(np.nonzero(canal)[2]))
    canal = canal[..., max(0, middle - 5):middle + 6].any(2)
    rows = np.flatnonzero(canal.any(1))
    front = labels.shape[1] - 1 - canal[rows, ::-1].argmax(1)
    line = np.interp(np.arange(labels.shape[0]), rows, front)
    return np.broadcast_to((np.arange(labels.shape[1]) > line[:, None])[..., None], labels.shape)


def reference_bodies(truth: np.ndarray, with_s1: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference's bodies (k, j, i; k to superior) that the network knows, and the voxels to compare.

    Left out are the rows above and below these bodies and, if the lowest one is S1, that body.
    """
    bodies, window = truth > 0, np.ones(truth.shape, bool)
    if with_s1:
        lowest = min(np.unique(truth[bodies]), key=lambda v: ndimage.center_of_mass(truth == v)[0])
        window = truth != lowest
        bodies &= window
    levels = np.flatnonzero(bodies.any((1, 2)))
    window[:levels[0]] = window[levels[-1] + 1:] = False
    return bodies, window


def evaluate_bodies(data: Path, **options) -> dict:
    """Evaluate vertebral bodies on other contrasts (T1w, T2w, TIRM), and the discs' number and order between them.

    The references hold bodies only, and not those at the ends: arches (behind the canal's front) and vertebrae above
    and below the labelled ones are left out of the comparison, and so is the body of S1 where a reference has it: the
    network knows no sacrum. Central slices lie within CENTRAL_MM of the middle.
    """
    rows = []
    for folder in ("vertebrae_t2w", "vertebrae_t1w", "vertebrae_mixed_contrast"):
        for path in sorted((data / folder).glob("*_vertebrae.nii.gz")):
            image = read_image(str(path).replace("_vertebrae", ""))
            truth = read_image(path)
            result = segment(image, **options)
            labels, values = result.labels.array, [int(v) for v in np.unique(truth.array) if v]
            bodies, window = reference_bodies(truth.array, folder in WITH_S1)
            given = is_vertebra(labels) & front_of_canal(labels) & window
            central = central_slices(bodies, truth.geometry)
            between = discs_between(truth.array, labels, values)
            rows.append({"set": folder, "person": path.name.split("_")[0], "reason": result.reason,
                         "dice": dice(given, bodies), "central": dice(given[..., central], bodies[..., central]),
                         "lateral": dice(given[..., ~central], bodies[..., ~central]),
                         "volume_ratio": given.sum() / bodies.sum(), "gaps": len(between),
                         "right": sum(len(b) == 1 for b in between), "between": between,
                         "ordered": bool(np.all(np.diff([b[0] for b in between if len(b) == 1]) == 1))})
            print(rows[-1], flush=True)
    return {"rows": rows}


def discs_between(truth: np.ndarray, labels: np.ndarray, values: list[int]) -> list[list[int]]:
    """Return, for each pair of neighboring reference bodies, the predicted discs whose center lies between them."""
    centers = sorted((np.array(ndimage.center_of_mass(truth == v)) for v in values), key=lambda c: c[0])
    discs = {int(v): np.array(ndimage.center_of_mass(labels == v)) for v in np.unique(labels[is_disc(labels)])}
    result = []
    for low, high in zip(centers, centers[1:]):
        axis = high - low
        inside = [v for v, c in discs.items() if 0.1 < (c - low) @ axis / (axis @ axis) < 0.9]
        result.append(inside)
    return result


def evaluate_echo(data: Path, names: list[str], **options) -> dict:
    """Evaluate simulated echo images: 4.5 mm slices, 1.25 mm in-plane, Rician noise of 4 % of the signal."""
    rows = []
    for seed, name in enumerate(names):
        image = read_image(data / f"spider_t2space/{name}_T2w.nii.gz")
        truth = read_image(data / f"spider_t2space/{name}_dseg.nii.gz")
        coarse = low_resolution(image, 1.25, 4.5, 0.04, seed)
        result = segment(coarse, **options)
        reference = resample(truth, coarse.geometry, sitkNearestNeighbor)
        own = [r for r in disc_rows(result, reference) if not r["touches_edge"] or not r["level"]]
        rows.append({"person": name, "reason": result.reason, "slices": coarse.geometry.size[0],
                     "disc": dice(is_disc(result.labels.array), is_disc(reference.array)),
                     "vertebra": dice(is_vertebra(result.labels.array), is_vertebra(reference.array)),
                     "right": all(r["level"] == r["named"] for r in own if r["level"]),
                     "missed": sum(r["named"] == 0 for r in own), "extra": sum(r["level"] == 0 for r in own)})
        print(rows[-1], flush=True)
    return {"rows": rows}


def no_spine_images(data: Path, test: str):
    """Yield (name, image) of images without a spine, and of a spine whose axes are mislabelled."""
    from DiscRelaxometryLib.echo import read_echo_series

    for name, part in (("brain, one slice", "brain_se_qmrlab/echoes.nii.gz"), ("knee, 8 slices", "knee_mese_ge_dicom"),
                       ("kidneys, 5 slices", "kidney_t2_philips/echoes.nii.gz")):
        series = read_echo_series(data / "relaxometry" / part, kind="T2")
        image = Image(series.echoes[0], series.geometry)
        yield name, image
        # As if acquired sagittally: whatever the header says, the network sees these pixels.
        grid = Geometry(image.geometry.size, image.geometry.spacing, (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
        yield f"{name}, declared sagittal", Image(image.array, grid)
    spine = read_image(data / f"spider_t2space/{test}_T2w.nii.gz")
    size, spacing = spine.geometry.size, spine.geometry.spacing
    yield "spine upside down", Image(spine.array, Geometry(size, spacing, (0, 0, 0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)))
    yield "spine, up and front exchanged", Image(spine.array, Geometry(size, spacing, (0, 0, 0),
                                                                      (-1, 0, 0, 0, 0, -1, 0, 1, 0)))
    random = np.random.default_rng(0)
    yield "noise", spine.like(random.rayleigh(50, spine.array.shape).astype(np.float32))
    abdomen = spine.array[:, -int(0.35 * spine.array.shape[1]):]
    yield "abdomen in front of the spine", Image(abdomen, Geometry(abdomen.shape[::-1], spacing, (0, 0, 0),
                                                                   spine.geometry.direction))


def evaluate_reject(data: Path, test: str, **options) -> dict:
    """Evaluate what the network makes of images that show no spine."""
    rows = []
    for name, image in no_spine_images(data, test):
        row = {"image": name, "size": list(image.geometry.size), "spacing": [float(v) for v in image.geometry.spacing]}
        try:
            result = segment(image, **options)
            row |= {"discs": [disc_name(d.value) if d.value > 3 else "?" for d in result.discs],
                    "review": result.review, "statement": result.reason or "; ".join(result.flags),
                    "best": max((q.expected_dice for q in result.quality), default=0.0), "refused": not result.found}
        except DiscRelaxometryError as error:
            row |= {"discs": [], "review": [], "statement": str(error), "best": 0.0, "refused": True}
        print(row, flush=True)
        rows.append(row)
    return {"rows": rows}


def fold_model(runs: Path, fold: int) -> Model:
    """Return a fold's network, with the temperature and threshold chosen on the other folds' people."""
    model = load_model(runs / f"fold{fold}" / "weights" / "lumbar-discs.json")
    calibrated = json.loads((runs / f"fold{fold}" / "calibration.json").read_text())
    manifest = model.manifest | {k: calibrated[k] for k in ("temperature", "review_threshold") if k in calibrated}
    return replace(model, manifest=manifest, temperature=manifest["temperature"])


def main() -> None:
    """Run the parts asked for, and keep their results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data(parser, "")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--folds", type=int, nargs="+", default=fold_numbers())
    parser.add_argument("--manifest", type=Path, help="weights for other data; the shipped ones by default")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--results", type=Path, help="runs/evaluation.json by default")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    path = options.results or options.runs / "evaluation.json"
    run = {"engine": "onnx", "threads": options.threads}
    people = read_folds()["folds"]
    for part in options.parts:
        if part in CROSS_VALIDATED:
            evaluate = {"spider": evaluate_spider, "degraded": evaluate_degraded, "echo": evaluate_echo}[part]
            for fold in options.folds:
                model = fold_model(options.runs, fold)
                keep(path, part, fold, evaluate(options.data, people[fold], model=model, **run))
        else:
            model = load_model(options.manifest)
            evaluate = {"ivd": evaluate_ivd, "bodies": evaluate_bodies,
                        "reject": lambda data, **o: evaluate_reject(data, people[0][0], **o)}[part]
            keep(path, part, "shipped", evaluate(options.data, model=model, **run))


def keep(path: Path, part: str, fold: int | str, result: dict) -> None:
    """Add a result to the file of results."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results.setdefault(part, {})[str(fold)] = result
    write_json(path, results)


if __name__ == "__main__":
    main()
