"""How sure the network is: calibrated probabilities, a score for each disc, and the flag that asks for a look.

The score of a disc is the Dice coefficient that its own calibrated probabilities lead one to expect. If each voxel
is disc with probability p, independently, and a mask M was cut from these probabilities, the expected overlap is
about ``2 sum_M(p) / (sum(p) + |M|)``; see Docs/method/segmentation-network.md for its derivation and its limits.
"""

from dataclasses import dataclass

import numpy as np
import scipy

from ..image import Image
from ..labels import DISCS, disc_name
from ..tables import Column, Table
from .inference import Prediction, softmax
from .instances import CUT, Disc

#: Probability within this distance (mm) of a disc, and nearer to it than to any other, counts for that disc.
REACH = 6.0
#: Length and height of a disc over the median of the others, and distance to the next one over the median distance:
#: outside of these a disc's outline is doubted. Of SPIDER's reference discs 2 % are.
LENGTHS, HIGHEST, NEAREST = (0.65, 1.5), 2.0, 0.62
MIN_OTHERS = 3
_DISC_VALUES = {s.value for s in DISCS}


@dataclass(frozen=True)
class DiscQuality:
    """How sure the network is of one disc."""

    #: Label value of the disc.
    value: int
    #: Mean calibrated probability of the label over the disc's voxels.
    confidence: float
    #: Mean entropy over the disc's voxels; 0 certain, 1 every class alike.
    entropy: float
    #: Dice coefficient expected from the calibrated probabilities.
    expected_dice: float
    #: Mean difference of the disc probability between the volume and its mirror image, over the disc's voxels.
    disagreement: float
    #: True if a person should look at this disc before its numbers are used.
    review: bool
    #: Why; empty without review.
    why: str = ""

    @property
    def name(self) -> str:
        """Level name, such as ``L4-L5``."""
        return disc_name(self.value) if self.value in _DISC_VALUES else "Disc (no level)"


def expected_dice(probability: np.ndarray, mask: np.ndarray) -> float:
    """Return ``2 sum_M(p) / (sum(p) + |M|)``; NaN for an empty mask."""
    size = np.count_nonzero(mask)
    if not size:
        return float("nan")
    probability = np.asarray(probability, float)
    return float(2 * probability[mask].sum() / (probability.sum() + size))


def disc_quality(labels: Image, prediction: Prediction, threshold: float) -> list[DiscQuality]:
    """Return the quality of each disc, caudal first; an expected Dice below `threshold` is flagged for review."""
    spacing = labels.geometry.spacing[::-1]
    margin = [int(np.ceil(REACH / mm)) for mm in spacing]
    array = labels.array
    is_disc = np.isin(array, list(_DISC_VALUES))
    result = []
    for value in sorted(int(v) for v in np.unique(array[is_disc])):
        where = np.nonzero(array == value)
        box = tuple(slice(max(0, w.min() - m), w.max() + m + 1) for w, m in zip(where, margin))
        mask, others = array[box] == value, is_disc[box] & (array[box] != value)
        distance = scipy.ndimage.distance_transform_edt(~mask, sampling=spacing)
        own = distance <= REACH
        if others.any():
            own &= distance <= scipy.ndimage.distance_transform_edt(~others, sampling=spacing)
        score = expected_dice(np.where(own, prediction.disc[box], 0), mask)
        result.append(DiscQuality(value, float(prediction.confidence[box][mask].mean()),
                                  float(prediction.entropy[box][mask].mean(dtype=float)), score,
                                  float(prediction.disagreement[box][mask].mean(dtype=float)),
                                  bool(score < threshold)))
    return result


def doubts(discs: list[Disc]) -> dict[int, list[str]]:
    """Return by label value what is odd about each disc, caudal first; the shape of cut discs is not judged."""
    found: dict[int, list[str]] = {d.value: [n for n in d.flags if n != CUT] for d in discs}
    whole = [d for d in discs if CUT not in d.flags]
    for disc in whole:
        others = [d for d in whole if d is not disc]
        if len(others) >= MIN_OTHERS:
            length = disc.length / np.median([d.length for d in others])
            height = disc.height / np.median([d.height for d in others])
            if not LENGTHS[0] <= length <= LENGTHS[1]:
                found[disc.value].append(f"it is {100 * length:.0f} % as long from front to back as the others")
            if height > HIGHEST:
                found[disc.value].append(f"it is {100 * height:.0f} % as high as the others")
    steps = [float(np.linalg.norm(np.subtract(b.centroid, a.centroid))) for a, b in zip(discs, discs[1:])]
    for low, high, step in zip(discs, discs[1:], steps):
        near = len(steps) >= MIN_OTHERS and step < NEAREST * np.median(steps)
        gap = min(low.value, high.value) >= DISCS[0].value and high.value - low.value > 1
        text = "it lies too near to the next one" if near else "no disc was found next to it" if gap else ""
        for disc in (low, high):
            found[disc.value] += [text] * bool(text)
    return found


def quality_table(quality: list[DiscQuality]) -> Table:
    """Return one row per disc."""
    columns = [Column("disc", "", "Level of the disc"),
               Column("confidence", "1", "Mean calibrated probability of the label over the disc"),
               Column("entropy", "1", "Mean entropy of the class probabilities, 1 is the maximum"),
               Column("expected_dice", "1", "Dice coefficient expected from the calibrated probabilities"),
               Column("disagreement", "1", "Mean difference of disc probability to the mirrored volume"),
               Column("review", "", "Whether a person should look at this disc before its numbers are used"),
               Column("why", "", "Why")]
    rows = [{"disc": q.name, "confidence": q.confidence, "entropy": q.entropy, "expected_dice": q.expected_dice,
             "disagreement": q.disagreement, "review": q.review, "why": q.why} for q in quality]
    return Table("Segmentation confidence", columns, rows)


def fit_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """Return the temperature that minimizes the negative log likelihood (Guo et al., ICML 2017).

    Parameters
    ----------
    logits : ndarray (passes, n, classes)
        Probabilities are averaged over passes (test-time augmentation).
    classes : ndarray of int (n,)
        True class of each sample.
    """
    index = np.arange(len(classes))

    def loss(log_temperature: float) -> float:
        probability = softmax(np.array(logits, float), np.exp(log_temperature), axis=-1).mean(0)
        return float(-np.log(np.maximum(probability[index, classes], 1e-12)).mean())

    return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=(-1.5, 1.5), method="bounded").x))


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> tuple[float, list[dict]]:
    """Return the expected calibration error and the reliability table, equal-width bins.

    Parameters
    ----------
    confidence : ndarray (n,)
        Probability of the class chosen, 0..1.
    correct : ndarray of bool (n,)
    bins : int

    Returns
    -------
    error : float
        Mean over samples of ``|accuracy - confidence|`` of their bin (Naeini et al., AAAI 2015).
    table : list of dict
        ``low``, ``high``, ``count``, ``confidence``, ``accuracy`` of each bin that has samples.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, bool)
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    table = []
    for n in range(bins):
        inside = which == n
        if inside.any():
            table.append({"low": n / bins, "high": (n + 1) / bins, "count": int(inside.sum()),
                          "confidence": float(confidence[inside].mean()), "accuracy": float(correct[inside].mean())})
    total = max(1, len(confidence))
    return float(sum(r["count"] * abs(r["accuracy"] - r["confidence"]) for r in table) / total), table
