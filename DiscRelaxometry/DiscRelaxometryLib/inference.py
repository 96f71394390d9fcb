"""From a volume to class probabilities on the volume's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .engine import Model
from .image import Image
from .network import BACKGROUND, CLASSES, DISC, DISC_L5S1
from .progress import ProgressCallback, silent
from .sagittal import SagittalPlan, check_volume, plan_sagittal

#: Distance in mm of neighboring slices in a stack, as far as the volume's slice spacing allows.
NEIGHBOR_MM = 1.8
#: Pixels of upright slices in one call of the engine (bounds memory).
PIXELS_PER_CALL = 600_000


@dataclass(frozen=True)
class Prediction:
    """What the network says of each voxel of the input's grid.

    Attributes
    ----------
    classes : ndarray of uint8 (k, j, i)
        0 background, 1 vertebra, 2 canal, 3 disc.
    confidence : ndarray of float32
        Calibrated probability of the class given.
    disc : ndarray of float16
        Calibrated probability of any disc.
    l5s1 : ndarray of float16
        Calibrated probability of the L5-S1 disc.
    entropy : ndarray of float16
        Entropy of the class probabilities, in units of its maximum (0 certain, 1 all classes alike).
    disagreement : ndarray of float16
        Difference of the disc probability between the stack and its mirror image; zero without the flip.
    """

    classes: np.ndarray
    confidence: np.ndarray
    disc: np.ndarray
    l5s1: np.ndarray
    entropy: np.ndarray
    disagreement: np.ndarray


def normalize_signal(array: np.ndarray) -> np.ndarray:
    """Clip a volume to its 0.5 and 99.5 percentiles and scale it to mean 0 and standard deviation 1 (float32)."""
    array = np.asarray(array, np.float32)
    low, high = np.percentile(array, (0.5, 99.5))
    clipped = np.clip(array, float(low), float(high))
    return (clipped - float(clipped.mean(dtype=float))) / max(float(clipped.std(dtype=float)), 1e-6)


def softmax(logits: np.ndarray, temperature: float, axis: int = 1) -> np.ndarray:
    """Return calibrated probabilities of logits."""
    scaled = logits / temperature
    scaled -= scaled.max(axis, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis, keepdims=True)
    return scaled


def stack_indices(count: int, slice_mm: float, size: int, neighbor_mm: float = NEIGHBOR_MM) -> np.ndarray:
    """Return (count, size) slice indices: each slice and its neighbors, `neighbor_mm` or one slice apart.

    The network was trained on neighbors at 0.9 to 4.5 mm; beyond the ends the last slice is repeated.
    """
    step = max(1, round(neighbor_mm / slice_mm))
    offsets = step * (np.arange(size) - size // 2)
    return np.clip(np.arange(count)[:, None] + offsets, 0, count - 1)


def upright_probabilities(slices: np.ndarray, slice_mm: float, model: Model, engine, flip: bool = True,
                          progressCallback: ProgressCallback | None = None):
    """Run the network on upright, normalized slices (n, rows, columns), a few slices at a time.

    Yields
    ------
    index : int
        Slice.
    probabilities : ndarray (classes, rows, columns)
        Mean over the stack and (with `flip`) its left-right mirror image.
    disagreement : ndarray (rows, columns)
        Absolute difference of the two disc probabilities.
    """
    report = progressCallback or silent
    count, rows, columns = slices.shape
    multiple = model.config.multiple
    padding = [(0, 0)] + [(0, -size % multiple) for size in (rows, columns)]
    padded = np.pad(slices, padding, constant_values=float(slices.min()))
    indices = stack_indices(count, slice_mm, model.config.slices)
    batch = max(1, PIXELS_PER_CALL // (padded.shape[1] * padded.shape[2]))
    for start in range(0, count, batch):
        report(start / count, f"Network: slice {start + 1} of {count}")
        stacks = padded[indices[start:start + batch]]
        passes = [softmax(engine.run(stack)[..., :rows, :columns], model.temperature)
                  for stack in ([stacks, stacks[:, ::-1]] if flip else [stacks])]
        discs = [p[:, DISC] + p[:, DISC_L5S1] for p in passes]
        mean = passes[0] if not flip else (passes[0] + passes[1]) / 2
        for n in range(len(stacks)):
            yield start + n, mean[n], np.abs(discs[0][n] - discs[-1][n])


def predict(image: Image, model: Model, engine, flip: bool = True,
            progressCallback: ProgressCallback | None = None) -> tuple[Prediction, list[str]]:
    """Return class, confidence and disc probabilities of each voxel, and warnings about the input.

    Parameters
    ----------
    image : Image
        Sagittal volume of any orientation, anisotropy and signal scale.
    model, engine
        See ``engine.load_model`` and ``engine.load_engine``.
    flip : bool
        Average with the left-right mirror image (test-time augmentation); doubles the time.
    progressCallback : callable, optional

    Raises
    ------
    SegmentationError
        If the volume is not sagittal, constant, or not made of numbers.
    """
    flags = check_volume(image)
    plan = plan_sagittal(image.geometry, model.config.spacing_mm)
    array = image.array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        array = np.where(np.isfinite(array), array, np.nanmin(np.where(np.isfinite(array), array, np.nan)))
    slices = plan.upright(normalize_signal(array))
    if len(slices) < 3:
        flags.append(f"The volume has only {len(slices)} sagittal slice(s): volumes and levels are unreliable.")
    result = _empty(image.array.shape)
    runs = upright_probabilities(slices, plan.slice_mm, model, engine, flip, progressCallback)
    for index, probabilities, disagreement in runs:
        _store(result, plan, index, probabilities, disagreement)
    return result, flags


def _empty(shape: tuple[int, ...]) -> Prediction:
    half = [np.zeros(shape, np.float16) for _ in range(4)]
    return Prediction(np.zeros(shape, np.uint8), np.zeros(shape, np.float32), *half)


def _store(result: Prediction, plan: SagittalPlan, index: int, probabilities: np.ndarray,
           disagreement: np.ndarray) -> None:
    """Write one upright slice's probabilities to the volume's grid: resampled linearly first, then decided."""
    views = {name: getattr(result, name).transpose(plan.axes)[index] for name in result.__dataclass_fields__}
    shape = views["classes"].shape
    native = np.stack([plan.restore(p, shape) for p in probabilities])
    # Voxels outside the upright slice (none, but for rounding) are background.
    native[BACKGROUND] += np.clip(1 - native.sum(0), 0, 1)
    native /= native.sum(0)
    entropy = -(native * np.log(np.maximum(native, 1e-9))).sum(0) / np.log(len(CLASSES))
    merged = native[:DISC + 1].copy()
    merged[DISC] += native[DISC_L5S1]
    views["classes"][...] = merged.argmax(0)
    views["confidence"][...] = merged.max(0)
    views["disc"][...] = merged[DISC]
    views["l5s1"][...] = native[DISC_L5S1]
    views["entropy"][...] = entropy
    views["disagreement"][...] = plan.restore(disagreement, shape)
