"""Temperature and review threshold of each fold: ``python -m Training.calibrate temperature``, then ``threshold``.

Both come from other people than the fold's: the test people of the other folds, each seen by the network that held
them out. No fold's figures rest on anything chosen on its own people. The threshold needs the results of
``Training.evaluate --parts spider degraded``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.discs import (
    Model,
    calibration,
    fit_temperature,
    load_engine,
    load_model,
    normalize_signal,
    padded_slices,
    plan_sagittal,
    softmax,
    stack_indices,
)
from DiscRelaxometryLib.image import Image, read_image
from Training.dataset import add_data, class_labels, fold_numbers, read_folds
from Training.train import RUNS

BAD = 0.85
#: Every so many slices give samples for the temperature.
EVERY = 4


def logit_samples(image: Image, dseg: Image, model: Model, engine, count: int, seed: int):
    """Return logits (n, classes) and true classes (n,) of random voxels near a structure, in every few slices."""
    plan = plan_sagittal(image.geometry, model.config.spacing_mm)
    slices = plan.upright(normalize_signal(image.array))
    classes = class_labels(dseg.array)
    votes = np.stack([plan.upright((classes == c).astype(np.float32)) for c in range(len(model.manifest["classes"]))])
    truth = votes.argmax(0)
    rows, columns = slices.shape[1:]
    padded = padded_slices(slices, model.config.multiple)
    random, logits, labels = np.random.default_rng(seed), [], []
    stacks = stack_indices(len(slices), plan.slice_mm, model.config.slices)
    for index in range(len(slices) % EVERY // 2, len(slices), EVERY):
        near = ndimage.binary_dilation(truth[index] > 0, iterations=5)
        picked = random.choice(np.flatnonzero(near), min(count, int(near.sum())), replace=False)
        whole = engine.run(padded[None, stacks[index]])[0, :, :rows, :columns]
        logits.append(whole.reshape(len(votes), -1)[:, picked].T)
        labels.append(truth[index].ravel()[picked])
    return np.concatenate(logits), np.concatenate(labels)


def choose_threshold(scores: np.ndarray, bad: np.ndarray) -> float:
    """Return the threshold with the largest recall minus false-alarm rate; the lowest of equals."""
    candidates = np.unique(scores)
    edges = np.concatenate([candidates[:1] - 1e-3, (candidates[1:] + candidates[:-1]) / 2, candidates[-1:] + 1e-3])
    gain = [np.mean(scores[bad] < e) - np.mean(scores[~bad] < e) for e in edges]
    return float(edges[int(np.argmax(gain))])


def sample_fold(data: Path, runs: Path, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and true classes of a fold's held-out people; kept in ``samples.npz``."""
    path = runs / f"fold{fold}" / "samples.npz"
    if path.exists():
        kept = np.load(path)
        return kept["logits"], kept["truth"]
    model = load_model(runs / f"fold{fold}" / "weights" / "lumbar-discs.json")
    engine = load_engine(model, "onnx")
    parts = [logit_samples(read_image(data / f"{n}_T2w.nii.gz"), read_image(data / f"{n}_dseg.nii.gz"), model, engine,
                           2000, seed) for seed, n in enumerate(read_folds()["folds"][fold])]
    logits, truth = (np.concatenate(v) for v in zip(*parts))
    np.savez(path, logits=logits.astype(np.float32), truth=truth.astype(np.uint8))
    return logits, truth


def choose_temperature(data: Path, runs: Path, fold: int, folds: list[int]) -> dict:
    """Return the temperature from the other folds' people, and the calibration error on them before and after."""
    logits, truth = (np.concatenate(v) for v in zip(*(sample_fold(data, runs, k) for k in folds if k != fold)))
    temperature = fit_temperature(logits[None], truth)
    result = {"temperature": temperature, "samples": len(truth),
              "people": sorted(n for k in folds if k != fold for n in read_folds()["folds"][k])}
    for name, value in (("before", 1.0), ("after", temperature)):
        probability = softmax(np.array(logits, float), value)
        result[f"ece_{name}"] = calibration(probability.max(1), probability.argmax(1) == truth)[0]
    return result


def choose_review(results: dict, fold: int, folds: list[int]) -> dict:
    """Return the review threshold from the discs of the other folds' people, as acquired and degraded."""
    rows = [r for part in ("spider", "degraded") for k in folds if k != fold for r in results[part][str(k)]["rows"]
            if r["review"] is not None]
    scores, bad = (np.array([r[key] for r in rows]) for key in ("expected_dice", "dice"))
    bad = bad < BAD
    threshold = choose_threshold(scores, bad)
    return {"review_threshold": threshold, "discs": len(rows), "bad": int(bad.sum()),
            "recall": float(np.mean(scores[bad] < threshold)), "false_alarms": float(np.mean(scores[~bad] < threshold))}


def main() -> None:
    """Write ``calibration.json`` beside each fold's weights."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("temperature", "threshold"))
    add_data(parser, "spider_t2space")
    parser.add_argument("--folds", type=int, nargs="+", default=fold_numbers())
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    trained = [k for k in fold_numbers() if (options.runs / f"fold{k}" / "weights").exists()]
    for fold in options.folds:
        if not set(trained) - {fold}:
            parser.error(f"No weights of another fold than {fold} in {options.runs}: its people would calibrate it.")
        path = options.runs / f"fold{fold}" / "calibration.json"
        if options.what == "temperature":
            result = choose_temperature(options.data, options.runs, fold, trained)
        else:
            results = json.loads((options.runs / "evaluation.json").read_text())
            result = json.loads(path.read_text()) | choose_review(results, fold, trained)
        print(write_json(path, result), {k: v for k, v in result.items() if k != "people"})


if __name__ == "__main__":
    main()
