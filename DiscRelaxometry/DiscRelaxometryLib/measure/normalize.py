"""T2-weighted signal normalized by cerebrospinal fluid. This is not T2: no relaxation time is measured.

CSF is the bright part of the spinal canal beside the labelled discs: nerve roots, cord, flow voids and the dural border
are darker and are left out by an Otsu threshold, after the canal's outermost millimeter was taken off.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
from scipy import ndimage

from ..errors import SegmentationError
from ..image import Image, require_same_geometry
from ..labels import BY_VALUE, CANAL, DISC, whole_labels

BORDER = 1.0  # mm taken off the canal's surface
LEAST_VOXELS = 50
CLIPPED = 0.05  # share of CSF voxels at the image's maximum above which the signal counts as clipped


@dataclass
class CsfReference:
    """The CSF signal that normalizes an image."""

    #: Median signal of the CSF voxels; the divisor.
    median: float
    #: Number of CSF voxels.
    n: int
    #: Robust standard deviation (1.4826 MAD) of the CSF voxels over their median.
    spread: float
    #: Otsu threshold between CSF and the darker content of the canal.
    threshold: float
    #: Median of the CSF voxels over the median of the other canal voxels.
    contrast: float
    #: Share of the CSF voxels at the image's maximum.
    clipped: float
    flags: list[str] = field(default_factory=list)


def csf_reference(image: Image, labels: Image) -> tuple[CsfReference, np.ndarray]:
    """Measure the CSF in the canal of a T2-weighted volume beside the discs; also return the mask of its voxels.

    GeometryError if the grids differ; SegmentationError if there is no canal, too little of it, or CSF that is not
    bright (no T2 weighting).
    """
    labels = whole_labels(labels)
    require_same_geometry(image, labels, "The T2-weighted image and its labels")
    canal = canal_beside_discs(labels)
    inner = _without_border(canal, labels)
    signal = image.array.astype(np.float32)
    inner &= np.isfinite(signal)
    if np.count_nonzero(inner) < LEAST_VOXELS:
        raise SegmentationError(f"Only {np.count_nonzero(inner)} voxels of the spinal canal lie beside the discs: too "
                                "few for a CSF reference. Check the canal's segmentation.", anchor="csf-reference")
    values = signal[inner]
    threshold = otsu(values)
    mask = inner & (signal > threshold)
    csf, rest = signal[mask], signal[inner & ~mask]
    if len(csf) < LEAST_VOXELS or len(rest) == 0:
        raise SegmentationError("The spinal canal has no bright part to serve as CSF: the signal in it is uniform.",
                                anchor="csf-reference")
    median = float(np.median(csf))
    _require_t2_weighting(signal, labels, median)
    spread = 1.4826 * float(np.median(np.abs(csf - median))) / median
    clipped = float(np.mean(csf >= np.nanmax(signal)))
    reference = CsfReference(median, len(csf), spread, float(threshold), median / max(float(np.median(rest)), 1e-12),
                             clipped)
    if clipped > CLIPPED:
        reference.flags.append(f"{100 * clipped:.0f} % of the CSF voxels have the image's highest value: the signal is "
                               "clipped there, and the normalized signal is too high. Use unclipped data if there are.")
    if spread > 0.25:
        reference.flags.append(f"The CSF signal varies by {100 * spread:.0f} % (robust SD): flow, a coil's sensitivity "
                               "or narrow canal; the reference is uncertain.")
    if reference.contrast < 1.3:
        reference.flags.append("CSF is hardly brighter than the rest of the canal: the reference is uncertain.")
    return reference, mask


def canal_beside_discs(labels: Image) -> np.ndarray:
    """Return the canal from the lowest to the highest disc, all of it without discs; SegmentationError if none."""
    array = labels.array
    canal = array == CANAL.value
    if not canal.any():
        raise SegmentationError("The labels hold no spinal canal (value 2), which the normalized T2w signal needs as "
                                "CSF reference: segment the canal, or import labels that have one.",
                                anchor="csf-reference")
    named = [BY_VALUE[int(v)] for v in np.unique(array) if int(v) in BY_VALUE]
    kinds = [s.value for s in named if s.kind == "disc" or s == DISC]
    discs = np.argwhere(np.isin(array, kinds))
    if not len(discs):
        return canal
    heights = labels.geometry.index_to_world(discs[:, ::-1])[:, 2]
    low, high = np.percentile(heights, [2, 98])
    where = np.argwhere(canal)
    height = labels.geometry.index_to_world(where[:, ::-1])[:, 2]
    beside = np.zeros_like(canal)
    beside[tuple(where[(height >= low) & (height <= high)].T)] = True
    return beside


def _without_border(mask: np.ndarray, labels: Image) -> np.ndarray:
    """Return the voxels deeper than BORDER inside a mask; the image's border is no surface."""
    if not mask.any():
        return mask
    where = np.argwhere(mask)
    box = tuple(slice(max(0, a - 2), b + 3) for a, b in zip(where.min(0), where.max(0)))
    part = np.pad(mask[box], 1, mode="edge")
    depth = ndimage.distance_transform_edt(part, sampling=labels.geometry.spacing[::-1])[1:-1, 1:-1, 1:-1]
    result = np.zeros_like(mask)
    result[box] = depth > BORDER
    return result


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """Return the threshold that maximizes the variance between two classes (Otsu 1979)."""
    low, high = np.percentile(values, [0.5, 99.5])
    if high <= low:
        return float(high)
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    centers = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = np.nanmax(between[:-1])
    # Between separate populations the criterion is flat: the middle of the plateau.
    return float(np.mean(edges[1:-1][between[:-1] >= best * (1 - 1e-9)]))


def _require_t2_weighting(signal: np.ndarray, labels: Image, csf: float) -> None:
    """Raise if CSF is not brighter than the vertebrae (or, without them, the discs)."""
    named = {int(v): BY_VALUE.get(int(v)) for v in np.unique(labels.array) if v}
    for kinds in (("vertebra", "unnamed"), ("disc",)):
        values = [v for v, s in named.items() if s and s.kind in kinds and v != DISC.value]
        tissue = signal[np.isin(labels.array, values)]
        tissue = tissue[np.isfinite(tissue)]
        if len(tissue) >= LEAST_VOXELS:
            if csf <= 1.1 * np.median(tissue):
                raise SegmentationError("The spinal canal is not brighter than the vertebrae or discs: this is no T2-"
                                        "weighted image, or the labels do not belong to it.", anchor="csf-reference")
            return


def normalized_t2w(image: Image, labels: Image) -> Image:
    """Return T2-weighted signal over the median signal of CSF (dimensionless; not T2).

    Parameters
    ----------
    image : Image
        T2-weighted volume.
    labels : Image
        Project labels on the same grid, with the spinal canal.

    Returns
    -------
    Image of float32
        ``meta["quantity"]`` is ``nT2w``; ``meta["csf"]`` holds the fields of :class:`CsfReference`.

    Raises
    ------
    GeometryError, SegmentationError
        As :func:`csf_reference`.
    """
    reference, _ = csf_reference(image, labels)
    signal = image.array.astype(np.float32) / np.float32(reference.median)
    signal[~np.isfinite(signal)] = np.nan
    return Image(signal, image.geometry, {**image.meta, "quantity": "nT2w", "csf": asdict(reference),
                                          "flags": list(reference.flags)})
