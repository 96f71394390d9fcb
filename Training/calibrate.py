"""Temperature and review threshold from the people kept from the gradient: ``python -m Training.calibrate``.

They are chosen on the two "inner" people of the fold, as acquired and degraded, never on test people.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.confidence import calibration, fit_temperature
from DiscRelaxometryLib.engine import Model, load_engine, load_model
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.inference import normalize_signal, softmax, stack_indices
from DiscRelaxometryLib.sagittal import plan_sagittal
from DiscRelaxometryLib.segment import segment
from Training.dataset import class_labels, split
from Training.degrade import DEGRADATIONS
from Training.evaluate import disc_rows
from Training.train import RUNS

BAD = 0.85


def logit_samples(image: Image, dseg: Image, model: Model, engine, count: int, seed: int):
    """Return logits (2 passes, n, classes) and true classes (n,) of random voxels within 4 mm of a structure."""
    plan = plan_sagittal(image.geometry, model.config.spacing_mm)
    slices = plan.upright(normalize_signal(image.array))
    classes = class_labels(dseg.array)
    votes = np.stack([plan.upright((classes == c).astype(np.float32)) for c in range(len(model.manifest["classes"]))])
    truth = votes.argmax(0)
    multiple = model.config.multiple
    rows, columns = slices.shape[1:]
    padded = np.pad(slices, [(0, 0), (0, -rows % multiple), (0, -columns % multiple)],
                    constant_values=float(slices.min()))
    random, logits, labels = np.random.default_rng(seed), [], []
    for index, members in enumerate(stack_indices(len(slices), plan.slice_mm, model.config.slices)):
        near = ndimage.binary_dilation(truth[index] > 0, iterations=5)
        picked = random.choice(np.flatnonzero(near), min(count, int(near.sum())), replace=False)
        passes = [engine.run(padded[None, order])[0, :, :rows, :columns].reshape(len(votes), -1)[:, picked].T
                  for order in (members, members[::-1])]
        logits.append(np.stack(passes))
        labels.append(truth[index].ravel()[picked])
    return np.concatenate(logits, 1), np.concatenate(labels)


def choose_threshold(scores: np.ndarray, bad: np.ndarray) -> float:
    """Return the threshold with the largest recall minus false-alarm rate; the lowest of equals."""
    candidates = np.unique(scores)
    edges = np.concatenate([candidates[:1] - 1e-3, (candidates[1:] + candidates[:-1]) / 2, candidates[-1:] + 1e-3])
    gain = [np.mean(scores[bad] < e) - np.mean(scores[~bad] < e) for e in edges]
    return float(edges[int(np.argmax(gain))])


def main() -> None:
    """Calibrate a fold and write ``calibration.json`` beside its checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/spider_t2space"))
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--manifest", type=Path, help="weights; the shipped ones by default")
    options = parser.parse_args()
    model = load_model(options.manifest)
    engine = load_engine(model, "onnx")
    inner = split(options.data, options.fold)[1]
    pairs = [(read_image(options.data / f"{n}_T2w.nii.gz"), read_image(options.data / f"{n}_dseg.nii.gz"))
             for n in inner]
    samples = [logit_samples(image, dseg, model, engine, 2000, seed) for seed, (image, dseg) in enumerate(pairs)]
    logits, truth = np.concatenate([s[0] for s in samples], 1), np.concatenate([s[1] for s in samples])
    temperature = fit_temperature(logits, truth)
    result = {"inner": inner, "temperature": temperature, "samples": len(truth)}
    for name, value in (("before", 1.0), ("after", temperature)):
        probability = softmax(np.array(logits, float), value, axis=2).mean(0)
        result[f"ece_{name}"] = calibration(probability.max(1), probability.argmax(1) == truth)[0]
    model, rows = replace(model, temperature=temperature), []
    for image, dseg in pairs:
        for seed, (name, change) in enumerate(DEGRADATIONS.items()):
            rows += [r | {"degradation": name} for r in
                     disc_rows(segment(change(image, seed), "onnx", model=model), dseg)]
    scores = np.array([r["expected_dice"] for r in rows])
    bad = np.array([r["dice"] < BAD for r in rows])
    if bad.any() and not bad.all():
        result["review_threshold"] = choose_threshold(scores, bad)
        result["inner_recall"] = float(np.mean(scores[bad] < result["review_threshold"]))
        result["inner_false_alarms"] = float(np.mean(scores[~bad] < result["review_threshold"]))
    result |= {"discs": len(rows), "bad": int(bad.sum()), "rows": rows}
    print(write_json(options.runs / f"fold{options.fold}" / "calibration.json", result))
    print({k: v for k, v in result.items() if k != "rows"})


if __name__ == "__main__":
    main()
