"""What each map of an analysis is: name, unit, window, color table and one-sentence description."""

from dataclasses import dataclass

import numpy as np

DIVERGING, SEQUENTIAL, LABELS = "diverging", "sequential", "labels"


@dataclass(frozen=True)
class MapKind:
    """A kind of statistical map."""

    #: Last part of the map's name.
    key: str
    title: str
    #: One of ``diverging``, ``sequential``, ``labels``.
    colors: str
    #: Fixed display range; None is symmetric about 0 (diverging) or from 0, to the largest size in the map.
    window: tuple[float, float] | None
    #: Format string with {contrast}, {quantity}, {how}.
    description: str
    #: ``map`` stands for the unit of the quantity per unit of the contrast, ``quantity`` for that of the quantity.
    unit: str = "1"


MAP_KINDS = {k.key: k for k in (
    MapKind("effect", "effect", DIVERGING, None,
            "Effect of {contrast} on {quantity}, in the map's unit per unit of the contrast", "map"),
    MapKind("se", "standard error", SEQUENTIAL, None, "Standard error of the effect of {contrast} on {quantity}",
            "map"),
    MapKind("cilow", "lower confidence limit", DIVERGING, None,
            "Lower 95 % confidence limit of the effect of {contrast}", "map"),
    MapKind("cihigh", "upper confidence limit", DIVERGING, None,
            "Upper 95 % confidence limit of the effect of {contrast}", "map"),
    MapKind("t", "t", DIVERGING, (-6, 6), "Student's t of {contrast} on {quantity}"),
    MapKind("F", "F", SEQUENTIAL, (0, 20), "F of {contrast} on {quantity}"),
    MapKind("r", "partial r", DIVERGING, (-1, 1),
            "Partial correlation of {quantity} with {contrast}, t / sqrt(t^2 + df)"),
    MapKind("d", "standardized effect", DIVERGING, (-2, 2),
            "Effect of {contrast} over the residual SD (Cohen's d for a difference of two groups)"),
    MapKind("eta2", "partial eta squared", SEQUENTIAL, (0, 1), "Share of the variance explained by {contrast}"),
    MapKind("df", "degrees of freedom", SEQUENTIAL, None, "Residual degrees of freedom"),
    MapKind("p", "p (uncorrected)", SEQUENTIAL, (0, 0.05), "Uncorrected parametric p ({how}) of {contrast}"),
    MapKind("pperm", "p (uncorrected, permutation)", SEQUENTIAL, (0, 0.05),
            "Uncorrected permutation p, (b + 1) / (m + 1), of {contrast}"),
    MapKind("pfwe", "p (FWE)", SEQUENTIAL, (0, 0.05),
            "Family-wise error corrected p of {contrast}, maximum statistic over all voxels tested together"),
    MapKind("qfdr", "q (FDR)", SEQUENTIAL, (0, 0.05), "Benjamini-Hochberg adjusted parametric p of {contrast}"),
    MapKind("qbky", "q (FDR, two-stage)", SEQUENTIAL, (0, 0.05),
            "Benjamini-Krieger-Yekutieli adjusted parametric p of {contrast}"),
    MapKind("tfce", "TFCE", DIVERGING, None, "Threshold-free cluster enhancement of the statistic of {contrast}"),
    MapKind("ptfce", "p (TFCE)", SEQUENTIAL, (0, 0.05),
            "Family-wise error corrected p of the TFCE value of {contrast}"),
    MapKind("cluster", "clusters", LABELS, None, "Cluster numbers of {contrast}, as in the cluster table"),
    MapKind("pextent", "p (cluster extent)", SEQUENTIAL, (0, 0.05),
            "Family-wise error corrected p of the cluster's extent, at each of its voxels"),
    MapKind("pmass", "p (cluster mass)", SEQUENTIAL, (0, 0.05),
            "Family-wise error corrected p of the cluster's mass, at each of its voxels"),
    MapKind("n", "count", SEQUENTIAL, None, "Observations with a value of {quantity}"),
    MapKind("mean", "mean", SEQUENTIAL, None, "Mean of {quantity} over the observations", "quantity"),
    MapKind("sd", "SD", SEQUENTIAL, None, "Standard deviation of {quantity} over the observations", "quantity"),
)}


def map_meta(key: str, quantity: str, contrast: str = "", values: np.ndarray | None = None,
             how: str = "two-sided", change_unit: str = "") -> dict:
    """Return the metadata of a map: title, description, unit, window, colors, and a threshold for p and q.

    A change between visits is signed, and its unit is given.
    """
    from DiscRelaxometryLib.quantities import QUANTITIES

    kind = MAP_KINDS[key]
    own = change_unit or (QUANTITIES[quantity].unit if quantity in QUANTITIES else "1")
    measured = f"the change of {quantity}" if change_unit else quantity
    # UCUM puts what it has no unit for, such as a grade, in braces; a mean is per nothing.
    slope = own if contrast in ("", "Intercept") else f"{own}/{{{contrast}}}"
    unit = {"1": "1", "quantity": own, "map": slope}[kind.unit]
    window, colors = kind.window, DIVERGING if change_unit and key == "mean" else kind.colors
    if key == "mean" and quantity in QUANTITIES and not change_unit:
        window = QUANTITIES[quantity].window
    if window is None and values is not None:
        finite = np.abs(values[np.isfinite(values)]) if values.dtype.kind == "f" else np.abs(values)
        top = float(np.percentile(finite, 99.5)) if finite.size else 1.0
        top = float(f"{top:.2g}") or 1.0
        window = (-top, top) if colors == DIVERGING else (0.0, top)
    title = f"{quantity} {contrast} {kind.title}" if contrast else f"{quantity} {kind.title}"
    meta = {"quantity": quantity, "contrast": contrast, "statistic": key, "title": title, "unit": unit,
            "colors": colors, "window": tuple(window) if window else (0.0, 1.0),
            "description": kind.description.format(contrast=contrast, how=how, quantity=measured)}
    if kind.title.startswith(("p ", "q ")):
        meta["threshold"] = (0.0, 0.05)
    return meta
