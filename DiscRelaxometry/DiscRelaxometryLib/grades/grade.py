"""Estimated Pfirrmann grades of the discs of a T2-weighted image, or a statement why there is none."""

from collections.abc import Sequence

import numpy as np
import scipy

from ..discs import Model, load_engine, load_model
from ..errors import SegmentationError
from ..image import Image
from ..labels import disc_value
from ..progress import ProgressCallback, silent
from ..resources import resource_path
from ..tables import Column, Table
from .features import disc_features, largest_piece
from .network import FINDINGS, GRADES, ROMAN, GradeConfig, build_grader
from .views import BACKGROUND, SPACING, THIS_DISC, VERTEBRA, DiscView, disc_pictures, disc_views

MANIFEST = "Weights/disc-grades.json"
ESTIMATED, EXPECTED = "pfirrmann_estimated", "pfirrmann_expected"
MIN_DISCS = 3
#: Median signal of canal over vertebral bodies at L2-L3 and below, where the canal holds no cord: of 300 clinical
#: slices, T1w reach 0.62, and T2w begin at 0.82.
T2_CONTRAST, BELOW_CORD = 0.72, disc_value("L2-L3")
#: L1-L2, T12-L1: where the canal is not seen here, the slice leaves it in a curved spine and cuts the discs obliquely.
UPPER = (disc_value("L1-L2"), disc_value("T12-L1"))
#: Signal of vertebral bodies over muscle and over fat, and of fat less muscle over CSF, below which fat is suppressed:
#: the lowest of 179 T2w series are 0.79, 0.28, 0.18. Of other tissue, muscle is the median, fat the 0.95 quantile (less
#: muscle: 0.9).
MARROW_TO_MUSCLE, MARROW_TO_FAT, FAT_ABOVE_MUSCLE = 0.75, 0.27, 0.17
#: Distance from zero of the darkest thousandth of an image (what is not exactly 0, a mask) over CSF. In half of 151 T2w
#: slices and 33 cropped T2 SPACE volumes 0.06 is the largest; more is an offset, whose grades are 0.2 too low or more.
DARKEST = 0.07
#: Share of a disc and the bone within 12 mm that is darker than 4 % of CSF; more is a signal void (0.20 was seen).
VOID_SIGNAL, VOID_SHARE, VOID_REACH = 0.04, 0.25, 12.0
UNLIKE = "The disc looks unlike those that the grades were learned from."
MIN_AREA = 15.0  # mm2; a smaller piece is not measured
_ANCHOR = "grades"

COLUMNS = [
    Column("level", "", "Disc level"), Column("label", "", "Value in the label image"),
    Column(ESTIMATED, "", "Estimated Pfirrmann grade, 1 to 5: the median of the probabilities. Not a reader's"),
    Column(EXPECTED, "", "Expectation of the estimated Pfirrmann grade"),
    *(Column(f"pfirrmann_p{n}", "1", f"Estimated probability of Pfirrmann grade {n}") for n in range(1, GRADES + 1)),
    *(Column(f"{name}_estimated", "1", f"Estimated probability of {text}") for name, text in FINDINGS.items()),
    Column("statement", "", "Why the disc has no estimate")]


def load_grader(manifest=None) -> Model:
    """Read the manifest of the shipped (or another) grading network.

    Raises
    ------
    DiscRelaxometryError
        If the manifest is missing or unreadable.
    """
    return load_model(manifest or resource_path(MANIFEST), GradeConfig, build_grader)


def grade_discs(image: Image, labels: Image, engine: str = "auto", device: str | None = None,
                threads: int | None = None, model: Model | None = None,
                progressCallback: ProgressCallback = silent) -> Table:
    """Estimate the Pfirrmann grade and findings of each disc.

    Parameters
    ----------
    image : Image
        Sagittal T2-weighted volume or single slice.
    labels : Image
        Project labels on the same grid: discs, canal and vertebrae.
    engine, device, threads
        See :func:`discs.load_engine`.
    model : Model, optional
        Other weights than the shipped ones; see :func:`load_grader`.
    progressCallback : callable, optional
        Called with (fraction, text).

    Returns
    -------
    Table
        One row per disc, cranial to caudal: :data:`COLUMNS`. A disc that cannot be judged has a statement instead.

    Raises
    ------
    SegmentationError
        If no disc of the image can be graded: no T2 weighting, fat suppression, no canal beside the discs, fewer than
        three discs that can be judged, or labels that do not run up from L5-S1.
    GeometryError
        If the grids differ.
    """
    progressCallback(0.0, "Describing the discs")
    views, statements, names, values = describe_discs(image, labels)
    model = model or load_grader()
    if tuple(names) != model.config.features:
        raise SegmentationError("The grading network was trained on other features: reinstall the extension.",
                                anchor="weights")
    outputs = load_engine(model, engine, device, threads).run(values, disc_pictures(views))
    rows = []
    for view, statement, output in zip(views, statements, outputs):
        if not statement and not output[-1] <= model.config.farthest:
            statement = UNLIKE
        row = {"level": view.name, "label": view.value, "statement": statement or None}
        rows.append(row if statement else row | _estimate(output, model.config.findings))
    return Table("grades", COLUMNS, rows[::-1])


def grade_summary(table: Table) -> Table:
    """Return the few columns of a table of :func:`grade_discs` that fit a terminal or panel; the grade is marked."""
    rows = []
    for row in table.rows:
        p = [row.get(f"pfirrmann_p{n}") for n in range(1, GRADES + 1)]
        rows.append({"level": row["level"], "estimated grade": row.get(ESTIMATED), "expected": row.get(EXPECTED),
                     "probability of I to V": None if None in p else " ".join(f"{v:.2f}" for v in p),
                     "statement": row["statement"]})
    return Table("Pfirrmann grades, estimated", list(map(Column, rows[0])), rows)


def estimate_in_words(row: dict) -> tuple[str, str]:
    """Return the estimated grade of a row of :func:`grade_discs` as a Roman numeral, and its probabilities.

    A disc without an estimate has an empty numeral, and the statement why.
    """
    if row["statement"]:
        return "", f"No estimate. {row['statement']}"
    shares = ", ".join(f"{name} {row[f'pfirrmann_p{n}']:.2f}" for n, name in enumerate(ROMAN, 1))
    return ROMAN[row[ESTIMATED] - 1], f"Estimated by a network, not read. Probabilities: {shares}."


def describe_discs(image: Image, labels: Image) -> tuple[list[DiscView], list[str], list[str], np.ndarray]:
    """Return what the discs of an image are graded by, and which are not graded.

    Parameters
    ----------
    image, labels : Image
        As for :func:`grade_discs`.

    Returns
    -------
    views : list of DiscView
        Caudal first.
    statements : list of str
        Why a disc is not graded; empty for the others.
    names : list of str
        Of the features.
    values : ndarray (discs, features)
        NaN where a feature, or a disc too small, cannot be measured.

    Raises
    ------
    SegmentationError, GeometryError
        As for :func:`grade_discs`.
    """
    views = disc_views(image, labels)
    _require_gradable(views, image.array)
    measured = [_area(v) >= MIN_AREA for v in views]
    names, found = disc_features([v for v, large in zip(views, measured) if large])
    values = np.full((len(views), len(names)), np.nan)
    values[measured] = found
    csf = float(np.nanmedian([v.csf for v in views]))
    statements = [_doubt(view, csf) for view in views]
    if statements.count("") < MIN_DISCS:
        raise SegmentationError(f"Fewer than {MIN_DISCS} discs of the image can be judged: "
                                f"{' '.join(dict.fromkeys(filter(None, statements)))}", anchor=_ANCHOR)
    return views, statements, names, values


def median_grade(probabilities: np.ndarray) -> np.ndarray:
    """Return the median grade (1 to 5) of probabilities (..., 5)."""
    return 1 + (np.cumsum(probabilities[..., :-1], axis=-1) < 0.5).sum(axis=-1)


def _estimate(output: np.ndarray, findings: Sequence[str]) -> dict:
    p = output[:GRADES].astype(float)
    return {ESTIMATED: int(median_grade(p)), EXPECTED: float(p @ np.arange(1, GRADES + 1)),
            **{f"pfirrmann_p{n}": float(v) for n, v in enumerate(p, 1)},
            **{f"{name}_estimated": float(v) for name, v in zip(findings, output[GRADES:])}}


def _require_gradable(views: list[DiscView], signal: np.ndarray) -> None:
    """Raise where no disc of an image may be graded."""
    seen = sum(_area(v) >= MIN_AREA for v in views)
    if seen < MIN_DISCS:
        raise SegmentationError(f"The segmentation has {seen} named disc(s) of at least {MIN_AREA:g} mm2: grades need "
                                f"{MIN_DISCS}, because each disc is judged beside the others.", anchor=_ANCHOR)
    values = [v.value for v in views]
    if values != list(range(11, 11 + len(values))):
        raise SegmentationError("The disc labels do not run up from L5-S1 without a gap "
                                f"({', '.join(v.name for v in views)}): grades could be given to the wrong levels. "
                                "Correct the levels first.", anchor=_ANCHOR)
    referred = np.isfinite([v.csf + v.marrow for v in views])
    known, without = [v for v, r in zip(views, referred) if r], [v for v, r in zip(views, referred) if not r]
    if len(without) > len(views) / 2 or any(v.value in UPPER for v in without):
        raise SegmentationError(f"The spinal canal is not seen beside {', '.join(v.name for v in without)}, or no "
                                "vertebral body: the slice passes beside it, or it is not segmented, or it has no "
                                "signal. Choose a mid-sagittal slice.", anchor=_ANCHOR)
    contrast = float(np.median([v.canal / v.marrow for v in known if v.value <= BELOW_CORD] or [np.nan]))
    if not contrast > T2_CONTRAST:
        raise SegmentationError(f"This is no T2-weighted image (the canal has {contrast:.2f} of the vertebrae's "
                                f"signal, less than {T2_CONTRAST:g}): grades need T2w.", anchor=_ANCHOR)
    csf, marrow = (float(np.median([getattr(v, name) for v in known])) for name in ("csf", "marrow"))
    darkest = float(np.quantile(signal[np.isfinite(signal) & (signal != 0)], 0.001)) / csf
    if abs(darkest) > DARKEST:
        raise SegmentationError(f"The darkest parts of the image have {darkest:.2f} of the cerebrospinal fluid's "
                                f"signal, farther from 0 than {DARKEST:g}: it has an offset, or shows no spine. Grades "
                                "need T2w whose signal begins at 0.", anchor=_ANCHOR)
    _require_fat(views, csf, marrow)


def _require_fat(views: list[DiscView], csf: float, marrow: float) -> None:
    """Raise where fat is suppressed; `csf` and `marrow` are the image's signal of both."""
    tissue = np.concatenate([v.signal[(v.classes == BACKGROUND) & np.isfinite(v.signal)] for v in views]) / csf
    muscle, bright, fat = np.quantile(tissue, (0.5, 0.9, 0.95)) if len(tissue) else (0.0, 1.0, 1.0)
    marrow /= csf
    if not (marrow > max(MARROW_TO_MUSCLE * muscle, MARROW_TO_FAT * fat) and bright - muscle > FAT_ABOVE_MUSCLE):
        raise SegmentationError("Fat is suppressed in this image (over the cerebrospinal fluid, the vertebrae's "
                                f"signal is {marrow:.2f}, muscle's {muscle:.2f}, fat's {fat:.2f}): grades need T2w "
                                "without.", anchor=_ANCHOR)


def _area(view: DiscView) -> float:
    return float(np.count_nonzero(view.classes == THIS_DISC) * SPACING**2)


def _doubt(view: DiscView, csf: float) -> str:
    """Return why a disc is not graded, or an empty string."""
    if _area(view) < MIN_AREA:
        return "The disc is too small."
    if view.cut:
        return "The disc is cut by the edge of the image."
    if not np.isfinite(view.csf):
        return "The slice passes beside the spinal canal here."
    if not np.isfinite(view.marrow):
        return "No vertebral body is seen beside the disc."
    disc = largest_piece(view.classes == THIS_DISC)
    near = scipy.ndimage.distance_transform_edt(~disc, sampling=SPACING) < VOID_REACH
    tissue = view.signal[(disc | (view.classes == VERTEBRA)) & near]
    void = np.mean(~(tissue > VOID_SIGNAL * csf))
    return "There is a signal void, such as an implant's, at the disc." if void > VOID_SHARE else ""
