"""From a volume to class probabilities on the volume's own grid."""

from dataclasses import dataclass

import numpy as np

from ..image import Image
from ..progress import ProgressCallback, silent
from .engine import Model
from .network import BACKGROUND, CLASSES, DISC, DISC_L5S1
from .sagittal import SagittalPlan, check_volume, plan_sagittal

#: Distance in mm of neighboring slices in a stack, as far as the volume's slice spacing allows.
NEIGHBOR_MM = 1.8
#: Slices this far apart (mm) are looked at first, to find where the spine is; a spine is at least 40 mm wide.
PROBE_MM = 8.0
#: mm kept in front of and behind what the first look saw of the spine.
MARGIN_MM = 25.0
#: A voxel is disc from this probability on: half of the expected Dice maximizes it (Lipton et al., ECML 2014).
DISC_FROM = 0.43
#: Pixels of upright slices in one call of the engine (bounds memory).
PIXELS_PER_CALL = 600_000


@dataclass(frozen=True)
class Prediction:
    """What the network says of each voxel of the input's grid."""

    #: uint8, shape (k, j, i). 0 background, 1 vertebra, 2 canal, 3 disc.
    classes: np.ndarray
    #: float32. Calibrated probability of the class given.
    confidence: np.ndarray
    #: float16. Calibrated probability of any disc.
    disc: np.ndarray
    #: float16. Calibrated probability of the L5-S1 disc.
    l5s1: np.ndarray
    #: float16. Entropy of the class probabilities, in units of its maximum (0 certain, 1 all classes alike).
    entropy: np.ndarray
    #: float16. Difference of the disc probability between the stack and its mirror image; zero without the flip.
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


def padded_slices(slices: np.ndarray, multiple: int) -> np.ndarray:
    """Return slices (n, rows, columns) with rows and columns extended to multiples, by the darkest signal."""
    padding = [(0, 0)] + [(0, -size % multiple) for size in slices.shape[1:]]
    return np.pad(slices, padding, constant_values=float(slices.min()))


def upright_probabilities(slices: np.ndarray, slice_mm: float, model: Model, engine, flip: bool = True,
                          selected=None, progressCallback: ProgressCallback | None = None):
    """Run the network on upright, normalized slices (n, rows, columns) `slice_mm` apart, a few slices at a time.

    Only the `selected` slices are labelled, by default all; the others still serve as neighbors. Yields the slice's
    index, probabilities (classes, rows, columns), the mean over the stack and (with `flip`) its left-right mirror
    image, and the absolute difference of the two disc probabilities (rows, columns).
    """
    report = progressCallback or silent
    count, rows, columns = slices.shape
    selected = np.arange(count) if selected is None else np.asarray(selected)
    padded = padded_slices(slices, model.config.multiple)
    indices = stack_indices(count, slice_mm, model.config.slices)[selected]
    batch = max(1, PIXELS_PER_CALL // (padded.shape[1] * padded.shape[2]))
    for start in range(0, len(selected), batch):
        report(start / len(selected), f"Network: slice {start + 1} of {len(selected)}")
        stacks = padded[indices[start:start + batch]]
        passes = [softmax(engine.run(stack)[..., :rows, :columns], model.temperature)
                  for stack in ([stacks, stacks[:, ::-1]] if flip else [stacks])]
        discs = [p[:, DISC] + p[:, DISC_L5S1] for p in passes]
        mean = passes[0] if not flip else (passes[0] + passes[1]) / 2
        for n in range(len(stacks)):
            yield int(selected[start + n]), mean[n], np.abs(discs[0][n] - discs[-1][n])


def locate_spine(slices: np.ndarray, plan: SagittalPlan, model: Model, engine) -> tuple[np.ndarray, slice]:
    """Return the slices and the columns that can hold spine, from a look at slices `PROBE_MM` apart.

    The slices (ndarray of int) are those between the outermost ones that show spine, one probing distance wider; none
    without any spine. All rows are kept, because the network names L5-S1 by what lies above and below it.
    """
    count, _, width = slices.shape
    step = max(1, int(PROBE_MM / plan.slice_mm))
    probes = np.unique(np.r_[np.arange(count // 2 % step, count, step), 0, count - 1])
    seen = []
    for index, probabilities, _ in upright_probabilities(slices, plan.slice_mm, model, engine, False, probes):
        spine = probabilities[BACKGROUND] < 0.5
        # A few pixels (1 cm2 and less) are no spine.
        if np.count_nonzero(spine) * plan.spacing**2 > 100:
            columns = np.flatnonzero(spine.any(0))
            seen.append((index, columns[0], columns[-1]))
    if not seen:
        return np.arange(0), slice(0, width)
    margin = int(np.ceil(MARGIN_MM / plan.spacing))
    found = np.array(seen)
    selected = np.arange(max(0, found[:, 0].min() - step), min(count, found[:, 0].max() + step + 1))
    return selected, slice(max(0, int(found[:, 1].min()) - margin), min(width, int(found[:, 2].max()) + margin + 1))


def predict(image: Image, model: Model, engine, flip: bool = False,
            progressCallback: ProgressCallback | None = None) -> tuple[Prediction, list[str]]:
    """Return class, confidence and disc probabilities of each voxel, and warnings about the input.

    The volume has any orientation, anisotropy and signal scale. `flip` averages with the left-right mirror image
    (test-time augmentation) in twice the time. SegmentationError if constant, not sagittal, or not made of numbers.
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
    selected, columns = locate_spine(slices, plan, model, engine)
    whole = np.zeros((len(CLASSES), *plan.shape), np.float32)
    uneven = np.zeros(plan.shape, np.float32)
    for index, probabilities, disagreement in upright_probabilities(
            slices[..., columns], plan.slice_mm, model, engine, flip, selected, progressCallback):
        whole[BACKGROUND] = 1
        whole[..., columns], uneven[:, columns] = probabilities, disagreement
        _store(result, plan, index, whole, uneven)
    return result, flags


def _empty(shape: tuple[int, ...]) -> Prediction:
    half = [np.zeros(shape, np.float16) for _ in range(4)]
    # Slices that the first look leaves out are background, surely.
    return Prediction(np.zeros(shape, np.uint8), np.ones(shape, np.float32), *half)


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
    classes = np.where(merged[DISC] >= DISC_FROM, DISC, merged[:DISC].argmax(0))
    views["classes"][...] = classes
    views["confidence"][...] = np.take_along_axis(merged, classes[None], 0)[0]
    views["disc"][...] = merged[DISC]
    views["l5s1"][...] = native[DISC_L5S1]
    views["entropy"][...] = entropy
    views["disagreement"][...] = plan.restore(disagreement, shape)
