"""Tables per disc and region: size of the discs and statistics of maps in them.

Definitions and their sources are in ``Docs/method/measures.md``. Volumes are voxel counts times the voxel volume;
lengths are measured in the disc's own axes on a mask resampled along them, so that they do not depend on the grid.
"""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from ..errors import SegmentationError
from ..image import Image, bounding_box, require_same_geometry
from ..labels import DISCS, Structure, whole_labels
from ..progress import ProgressCallback, silent, subrange
from ..quantities import QUANTITIES
from ..tables import Column, Table
from .axes import disc_frame, present_values, spine_axes
from .regions import NUCLEUS, REGIONS, disc_coordinates, members_at, region_members
from .sections import DiscShape
from .signals import signal_columns, signal_measures
from .spine import DISC_COLUMNS, VERTEBRA_COLUMNS, Spine, collect, statement

#: A disc whose outermost sagittal section has this share of its largest section is cut there.
CUT_SECTION_SHARE = 0.85
QUANTILES = (0.05, 0.25, 0.75, 0.95)

_SIZES = [
    Column("level", "", "Disc level"),
    Column("label", "", "Value in the label image"),
    Column("voxels", "1", "Voxels of the disc"),
    Column("volume", "cm3", "Voxel count times voxel volume"),
    *DISC_COLUMNS,
    Column("flags", "", "What limits the row: cut_laterally, touches_volume_edge, several_pieces, too_small, "
                        "no_orientation"),
    Column("statement", "", "Why measures are empty"),
]


def measure_spine(labels: Image, maps: Mapping[str, Image] | None = None,
                  progressCallback: ProgressCallback = silent) -> tuple[Table, Table]:
    """Measure discs and vertebral bodies, and maps over the whole disc.

    Parameters
    ----------
    labels : Image
        Label image with the project's values (``labels.py``).
    maps : dict of Image, optional
        Maps on the same grid, keyed by quantity (``T1rho``, ``T2``); NaN is a failed voxel.
    progressCallback : callable, optional

    Returns
    -------
    discs : Table
        One row per disc, cranial to caudal. What cannot be measured is empty, and the row's statement says why: a disc
        too small to have axes, or whose orientation cannot be known, keeps its volume.
    vertebrae : Table
        One row per vertebra, cranial to caudal, by the same rule; S1 has none.

    Raises
    ------
    SegmentationError
        If the image holds no disc.
    GeometryError
        If a map lies on another grid.
    """
    labels, maps = _checked(labels, maps)
    spine, columns = Spine(labels), list(_SIZES)
    for key, image in maps.items():
        columns += [Column(f"{key}_{c.name}", c.unit, c.description) for c in _statistic_columns(key, image)]
        columns += signal_columns(key, _unit(key, image))
    rows = []
    for disc, share in _present(labels):
        progressCallback(share, f"Measuring {disc.name}")
        rows.append(_disc_row(spine, disc, maps))
    return Table("discs", columns, rows), Table("vertebrae", VERTEBRA_COLUMNS, spine.vertebra_rows())


def measure_discs(labels: Image, maps: Mapping[str, Image] | None = None,
                  progressCallback: ProgressCallback = silent) -> Table:
    """Return the table of discs of :func:`measure_spine`."""
    return measure_spine(labels, maps, progressCallback)[0]


def measure_regions(labels: Image, maps: Mapping[str, Image], progressCallback: ProgressCallback = silent) -> Table:
    """Summarize maps in each region of each disc.

    Parameters
    ----------
    labels : Image
        Label image with the project's values.
    maps : dict of Image
        Maps on the same grid, keyed by quantity; NaN is a failed voxel.
    progressCallback : callable, optional

    Returns
    -------
    Table
        One row per disc, region and map. A disc whose axes cannot be found has the row ``whole`` only.

    Raises
    ------
    SegmentationError, GeometryError
        As for :func:`measure_spine`.
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
        members = _members(labels, disc, mask)
        for key, image in maps.items():
            values = image.array[mask]
            rows += [{"level": disc.name, "label": disc.value, "region": region, "map": key,
                      "unit": _unit(key, image), **statistics(values[inside])} for region, inside in members.items()]
    return Table("regions", columns, rows)


def measure_all(labels: Image, maps: dict[str, Image], progressCallback: ProgressCallback = silent
                ) -> dict[str, Table]:
    """Measure discs and vertebrae, and each map in each region of each disc.

    Returns
    -------
    dict of Table
        ``discs``, with labelled vertebrae ``vertebrae``, and with maps ``regions`` (a row per disc, region and map).
    """
    discs, vertebrae = measure_spine(labels, maps, subrange(progressCallback, 0.0, 0.5))
    tables = {"discs": discs} | ({"vertebrae": vertebrae} if vertebrae.rows else {})
    if maps:
        tables["regions"] = measure_regions(labels, maps, progressCallback=subrange(progressCallback, 0.5, 1.0))
    progressCallback(1.0, "Measures are ready")
    return tables


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


def _disc_row(spine: Spine, disc: Structure, maps: Mapping[str, Image]) -> dict:
    geometry, mask = spine.labels.geometry, spine.labels.array == disc.value
    reasons: dict[str, list[str]] = {}
    voxels, flags = int(np.count_nonzero(mask)), _shape_flags(mask)
    row = {"level": disc.name, "label": disc.value, "voxels": voxels}
    if spine.one_slice:
        reasons["the image has one slice"] = ["volume"]
    else:
        row["volume"] = voxels * geometry.voxel_volume / 1000
    row |= spine.disc_row(disc.value, reasons)
    shape = spine.shapes[disc.value]
    if isinstance(shape, SegmentationError):
        flags.append("too_small" if shape.anchor == "disc-too-small" else "no_orientation")
    elif shape.outline.cut_laterally or _has_flat_end(shape, np.abs(shape.frame.axes[0] @ geometry.matrix3).max()):
        flags.insert(0, "cut_laterally")
    for key, image in maps.items():
        values = image.array[mask]
        row |= {f"{key}_{name}": value for name, value in statistics(values).items()}
        collect(row, _signal_measures(key, values, spine, disc.value, mask), reasons)
    return row | {"flags": ";".join(flags), "statement": statement(reasons)}


def _signal_measures(key: str, values: np.ndarray, spine: Spine, value: int, mask: np.ndarray) -> dict:
    """Return how to measure the spread of a map's signal in a disc; nothing where the disc has no axes."""
    shape = spine.shapes[value]
    if isinstance(shape, SegmentationError):
        return {}
    coordinates, outline = disc_coordinates(mask, spine.labels.geometry, shape.frame)
    found = signal_measures(values, members_at(coordinates, outline, NUCLEUS.get(value)), coordinates[:, 2])
    return {f"{key}_{name}": measure for name, measure in found.items()}


def _shape_flags(mask: np.ndarray) -> list[str]:
    flags = []
    if any(np.take(mask, (0, -1), axis=axis).any() for axis in range(3)):
        flags.append("touches_volume_edge")
    pieces = np.bincount(ndimage.label(mask[bounding_box(mask)], np.ones((3, 3, 3)))[0].ravel())[1:]
    if pieces.max() < 0.95 * pieces.sum():
        flags.append("several_pieces")
    return flags


def _has_flat_end(shape: DiscShape, thickness: float) -> bool:
    """Tell whether the outermost sagittal section is so large that the disc must go on beyond it."""
    local = shape.local
    areas = np.count_nonzero(local.inside, axis=(1, 2)).astype(float)
    areas = areas[np.nonzero(areas)[0][0]:np.nonzero(areas)[0][-1] + 1]
    depth = int(np.clip(round(thickness / local.step), 1, len(areas)))
    return bool(max(areas[:depth].max(), areas[-depth:].max()) > CUT_SECTION_SHARE * areas.max())


def _members(labels: Image, disc: Structure, mask: np.ndarray) -> dict[str, np.ndarray]:
    try:
        frame = disc_frame(mask, labels.geometry, spine_axes(labels, disc.value))
    except SegmentationError:
        return {"whole": np.ones(np.count_nonzero(mask), bool)}
    members = region_members(mask, labels.geometry, frame, NUCLEUS.get(disc.value))
    return {name: members[name] for name in REGIONS}
