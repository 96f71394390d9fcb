"""From a volume to class probabilities on the volume's own grid."""

from __future__ import annotations

import numpy as np


def normalize_signal(array: np.ndarray) -> np.ndarray:
    """Clip a volume to its 0.5 and 99.5 percentiles and scale it to mean 0 and standard deviation 1 (float32)."""
    array = np.asarray(array, np.float32)
    low, high = np.percentile(array, (0.5, 99.5))
    clipped = np.clip(array, float(low), float(high))
    return (clipped - float(clipped.mean(dtype=float))) / max(float(clipped.std(dtype=float)), 1e-6)
