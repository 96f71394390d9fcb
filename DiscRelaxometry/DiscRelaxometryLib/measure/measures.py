"""Tables per disc and region: size of the discs and statistics of maps in them.

Definitions and their sources are in ``Docs/method/measures.md``. Volumes are voxel counts times the voxel volume;
lengths are measured in the disc's own axes on a mask resampled along them, so that they do not depend on the grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..errors import SegmentationError
from ..image import Geometry, Image, require_same_geometry
from ..labels import DISCS, Structure, whole_labels
from ..progress import ProgressCallback, silent, subrange
from ..quantities import QUANTITIES
from ..tables import Column, Table
from .axes import DiscFrame, LocalMask, column_surfaces, crop, disc_frame, local_mask, present_values, spine_axes
from .regions import NUCLEUS, REGIONS, disc_outline, midsagittal, region_members

#: AP bands of the heights as shares of the AP diameter from the anterior border.
HEIGHT_BANDS = {"anterior": (1 / 12, 3 / 12), "middle": (5 / 12, 7 / 12), "posterior": (9 / 12, 11 / 12)}
#: A disc whose outermost sagittal section has this share of its largest section is cut there.
CUT_SECTION_SHARE = 0.85
QUANTILES = (0.05, 0.25, 0.75, 0.95)

_SIZES = [
    Column("level", "", "Disc level"),
    Column("label", "", "Value in the label image"),
    Column("voxels", "1", "Voxels of the disc"),
    Column("volume", "cm3", "Voxel count times voxel volume"),
    Column("height_anterior", "mm", "Mean height 1/12 to 3/12 of the AP diameter behind the anterior border"),
    Column("height_middle", "mm", "Mean height in the middle sixth of the AP diameter"),
    Column("height_posterior", "mm", "Mean height 1/12 to 3/12 of the AP diameter before the posterior border"),
    Column("ap_diameter", "mm", "Anterior-posterior diameter in the mid-sagittal strip"),
    Column("width", "mm", "Extent from right to left; a part of it where the disc is cut laterally"),
    Column("flags", "", "What limits the row: cut_laterally, touches_volume_edge, several_pieces, too_small, "
                        "no_orientation"),
]


def measure_discs(labels: Image, maps: Mapping[str, Image] | None = None,
                  progressCallback: ProgressCallback = silent) -> Table:
    """Measure each disc's size, and maps over the whole disc.

    Parameters
    ----------
    labels : Image
        Label image with the project's values (``labels.py``).
    maps : dict of Image, optional
        Maps on the same grid, keyed by quantity (``T1rho``, ``T2``); NaN is a failed voxel.
    progressCallback : callable, optional

    Returns
    -------
    Table
        One row per disc, cranial to caudal. A disc too small to have axes, or one whose orientation cannot be known,
        keeps its volume; its lengths are empty and its flag says why.

    Raises
    ------
    SegmentationError
        If the image holds no disc.
    GeometryError
        If a map lies on another grid.
    """
    labels, maps = _checked(labels, maps)
    columns = list(_SIZES)
    for key, image in maps.items():
        columns += [Column(f"{key}_{c.name}", c.unit, c.description) for c in _statistic_columns(key, image)]
    rows = []
    for disc, share in _present(labels):
        progressCallback(share, f"Measuring {disc.name}")
        mask = labels.array == disc.value
        row = _size_row(labels, disc, mask)
        for key, image in maps.items():
            row |= {f"{key}_{name}": value for name, value in statistics(image.array[mask]).items()}
        rows.append(row)
    return Table("discs", columns, rows)


def measure_regions(labels: Image, maps: Mapping[str, Image], frames: Mapping[int, DiscFrame] | None = None,
                    progressCallback: ProgressCallback = silent) -> Table:
    """Summarize maps in each region of each disc.

    Parameters
    ----------
    labels : Image
        Label image with the project's values.
    maps : dict of Image
        Maps on the same grid, keyed by quantity; NaN is a failed voxel.
    frames : dict of DiscFrame, optional
        Frames keyed by label value; by default found from the labels.
    progressCallback : callable, optional

    Returns
    -------
    Table
        One row per disc, region and map. A disc whose axes cannot be found has the row ``whole`` only.

    Raises
    ------
    SegmentationError, GeometryError
        As for :func:`measure_discs`.
    """
    labels, maps = _checked(labels, maps)
    columns = [Column("level", "", "Disc level"), Column("label", "", "Value in the label image"),
               Column("region", "", "Region in disc-intrinsic axes (Docs/method/measures.md)"),
               Column("map", "", "Quantity"), Column("unit", "", "UCUM unit of the statistics"),
               *_statistic_columns("", None)]
    rows = []
    for disc, share in _present(labels):
        progressCallback(share, f"Measuring the regions of {disc.name}")
        mask = labels.array == disc.value
        members = _members(labels, disc, mask, frames)
        for key, image in maps.items():
            values = image.array[mask]
            rows += [{"level": disc.name, "label": disc.value, "region": region, "map": key,
                      "unit": _unit(key, image), **statistics(values[inside])} for region, inside in members.items()]
    return Table("regions", columns, rows)


def measure_all(labels: Image, maps: dict[str, Image], progressCallback: ProgressCallback = silent
                ) -> tuple[Table, Table | None]:
    """Measure the discs, and each map in each region of each disc.

    Returns
    -------
    discs : Table
        One row per disc.
    regions : Table or None
        One row per disc, region and map; None without maps.
    """
    discs = measure_discs(labels, maps, subrange(progressCallback, 0.0, 0.5))
    regions = measure_regions(labels, maps, progressCallback=subrange(progressCallback, 0.5, 1.0)) if maps else None
    progressCallback(1.0, "Measures are ready")
    return discs, regions


def statistics(values: np.ndarray) -> dict[str, float]:
    """Return n, share of failed voxels, mean, SD (n - 1), median and quantiles of the finite values."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    n = len(finite)
    nan = float("nan")
    low, q1, median, q3, high = np.quantile(finite, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist() if n else [nan] * 5
    return {"n": n, "failed": 1 - n / len(values) if len(values) else nan,
            "mean": float(finite.mean()) if n else nan, "sd": float(finite.std(ddof=1)) if n > 1 else nan,
            "median": median, "q05": low, "q25": q1, "q75": q3, "q95": high}


def _statistic_columns(key: str, image: Image | None) -> list[Column]:
    unit = _unit(key, image) if image is not None else ""
    return [Column("n", "1", "Voxels with a value"), Column("failed", "1", "Share of voxels without a value"),
            Column("mean", unit, "Mean"), Column("sd", unit, "Standard deviation between voxels"),
            Column("median", unit, "Median"),
            *[Column(f"q{round(100 * q):02d}", unit, f"{100 * q:g} % quantile") for q in QUANTILES]]


def _unit(key: str, image: Image) -> str:
    return QUANTITIES[key].unit if key in QUANTITIES else str(image.meta.get("unit", ""))


def _checked(labels: Image, maps: Mapping[str, Image] | None) -> tuple[Image, dict[str, Image]]:
    """Return whole-numbered labels and the maps as a dictionary; raise where the grids differ."""
    labels, maps = whole_labels(labels), dict(maps or {})
    for key, image in maps.items():
        require_same_geometry(labels, image, f"The segmentation and the {key} map")
    return labels, maps


def _present(labels: Image) -> list[tuple[Structure, float]]:
    """Return the discs of a label image, cranial to caudal, with the share of work done before each."""
    values = present_values(labels)
    discs = [d for d in reversed(DISCS) if d.value in values]
    if not discs:
        raise SegmentationError("The segmentation holds no named disc (label values 11 for L5-S1, 12 for L4-L5, ...): "
                                "name its levels first.", anchor="no-disc")
    return [(disc, step / len(discs)) for step, disc in enumerate(discs)]


def _size_row(labels: Image, disc: Structure, mask: np.ndarray) -> dict:
    voxels = int(np.count_nonzero(mask))
    row = {"level": disc.name, "label": disc.value, "voxels": voxels,
           "volume": voxels * labels.geometry.voxel_volume / 1000}
    flags = _shape_flags(mask)
    try:
        lengths, cut = _lengths(mask, labels.geometry, disc_frame(mask, labels.geometry,
                                                                  spine_axes(labels, disc.value)))
        row |= lengths
        flags = ["cut_laterally"] * cut + flags
    except SegmentationError as error:
        flags.append("too_small" if error.anchor == "disc-too-small" else "no_orientation")
    return row | {"flags": ";".join(flags)}


def _shape_flags(mask: np.ndarray) -> list[str]:
    flags = []
    if any(np.take(mask, (0, -1), axis=axis).any() for axis in range(3)):
        flags.append("touches_volume_edge")
    mask = mask[ndimage.find_objects(mask.astype(np.uint8))[0]]
    pieces = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
    if pieces.max() < 0.95 * pieces.sum():
        flags.append("several_pieces")
    return flags


def _lengths(mask: np.ndarray, geometry: Geometry, frame: DiscFrame) -> tuple[dict[str, float], bool]:
    """Return heights, AP diameter and width (mm), and whether the disc is cut laterally."""
    local = local_mask(*crop(mask, geometry), frame)
    outline = disc_outline(local)
    bottom, top = column_surfaces(local)
    strip = (top - bottom)[midsagittal(local, outline.right, outline.left)]
    v = local.start[1] + local.step * np.arange(strip.shape[1])
    behind = (outline.anterior - v) / outline.ap_diameter
    row = {}
    for name, (start, stop) in HEIGHT_BANDS.items():
        band = strip[:, (behind >= start) & (behind <= stop)]
        row[f"height_{name}"] = float(np.nanmean(band)) if np.isfinite(band).any() else float("nan")
    row |= {"ap_diameter": float(outline.ap_diameter), "width": float(outline.measured_width)}
    thickness = np.abs(frame.axes[0] @ geometry.matrix3).max()
    return row, outline.cut_laterally or _has_flat_end(local, thickness)


def _has_flat_end(local: LocalMask, thickness: float) -> bool:
    """Tell whether the outermost sagittal section is so large that the disc must go on beyond it."""
    areas = np.count_nonzero(local.inside, axis=(1, 2)).astype(float)
    areas = areas[np.nonzero(areas)[0][0]:np.nonzero(areas)[0][-1] + 1]
    depth = int(np.clip(round(thickness / local.step), 1, len(areas)))
    return bool(max(areas[:depth].max(), areas[-depth:].max()) > CUT_SECTION_SHARE * areas.max())


def _members(labels: Image, disc: Structure, mask: np.ndarray,
             frames: Mapping[int, DiscFrame] | None) -> dict[str, np.ndarray]:
    try:
        frame = frames[disc.value] if frames else disc_frame(mask, labels.geometry, spine_axes(labels, disc.value))
    except SegmentationError:
        return {"whole": np.ones(np.count_nonzero(mask), bool)}
    members = region_members(mask, labels.geometry, frame, NUCLEUS.get(disc.value))
    return {name: members[name] for name in REGIONS}
