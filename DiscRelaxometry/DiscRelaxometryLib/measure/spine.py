"""Measures of discs beside their neighbors, and of vertebral bodies; what cannot be had is empty, with the reason."""

import functools
from collections.abc import Callable, Mapping

import numpy as np

from ..errors import SegmentationError
from ..image import Image
from ..labels import BY_NAME, BY_VALUE, DISCS, SACRUM, VERTEBRAE
from ..tables import Column
from .axes import crop, disc_frame, local_mask, present_values, spine_axes
from .regions import disc_outline
from .sections import (
    Body,
    DiscShape,
    Endplate,
    Missing,
    angle_between,
    at_border,
    body_of,
    canal_diameter,
    lateral_axis,
    slip_of,
)

_HEIGHTS = ("height_anterior", "height_middle", "height_posterior")
#: Columns of a disc's row that come from :meth:`Spine.disc_row`.
DISC_COLUMNS = [
    Column("height_anterior", "mm", "Mean height 1/12 to 3/12 of the AP diameter behind the anterior border"),
    Column("height_middle", "mm", "Mean height in the middle sixth of the AP diameter"),
    Column("height_posterior", "mm", "Mean height 1/12 to 3/12 of the AP diameter before the posterior border"),
    Column("ap_diameter", "mm", "Anterior-posterior diameter in the mid-sagittal strip"),
    Column("width", "mm", "Extent from right to left; a part of it where the disc is cut laterally"),
    Column("height_index", "1", "Disc height index: mean of the three heights over the AP diameter"),
    Column("height_index_vertebral", "1", "Disc height index: mean of the three heights over that of the six of the "
                                          "vertebral bodies above and below"),
    Column("angle", "deg", "Angle of the disc's surfaces in the mid-sagittal plane; positive is open to the front"),
    Column("segment_angle", "deg", "Angle between the upper endplates of the vertebrae above and below"),
    Column("lordosis", "deg", "Angle between the upper endplates of L1 and S1; the person's, the same in each row"),
    Column("slip", "mm", "Distance of the upper vertebra's posterior lower corner in front of the lower one's "
                         "posterior upper corner, along the lower one's upper endplate; negative is backward"),
    Column("slip_percent", "%", "Slip over the length of the lower vertebra's upper endplate"),
    Column("canal_diameter", "mm", "AP diameter of the spinal canal at the height of the disc, at right angles to it"),
]
VERTEBRA_COLUMNS = [
    Column("level", "", "Vertebra"), Column("label", "", "Value in the label image"),
    *(Column(name, "mm", f"{text} of the vertebral body in the mid-sagittal plane") for name, text in (
        ("height_anterior", "Mean height 1/12 to 3/12 of the AP diameter behind the anterior wall"),
        ("height_middle", "Mean height in the middle sixth of the AP diameter"),
        ("height_posterior", "Mean height 1/12 to 3/12 of the AP diameter before the posterior wall"),
        ("ap_diameter", "Anterior-posterior diameter"))),
    Column("wedge", "deg", "Angle of the endplates; positive is higher in front"),
    Column("statement", "", "Why measures are empty")]


def collect(row: dict, wanted: Mapping[str | tuple[str, ...], Callable], reasons: dict[str, list[str]]) -> None:
    """Add measures to a row; one that raises Missing, or is not a number, is left out and its name kept by the reason.

    `wanted` maps a column, or columns, to a function that returns its value or theirs.
    """
    for names, measure in wanted.items():
        names = (names,) if isinstance(names, str) else names
        try:
            values = measure()
        except Missing as missing:
            reasons.setdefault(str(missing), []).extend(names)
            continue
        for name, value in zip(names, values if len(names) > 1 else (values,)):
            if np.isfinite(value):
                row[name] = float(value)
            else:
                reasons.setdefault("the section is too small", []).append(name)


def statement(reasons: Mapping[str, list[str]]) -> str:
    """Return why columns are empty, such as ``S1 is not segmented: slip, slip_percent``."""
    return "; ".join(f"{reason}: {', '.join(names)}" for reason, names in reasons.items())


def disc_shape(labels: Image, value: int) -> DiscShape:
    """Return a disc in its own axes; SegmentationError if it is too small, or its orientation cannot be known."""
    mask = labels.array == value
    frame = disc_frame(mask, labels.geometry, spine_axes(labels, value))
    local = local_mask(*crop(mask, labels.geometry), frame)
    return DiscShape(frame, local, disc_outline(local), bool(at_border(mask, labels.geometry).any()))


class Spine:
    """The discs and bodies of a label image, each measured once."""

    def __init__(self, labels: Image):
        self.labels = labels
        self.one_slice = labels.array.shape[lateral_axis(labels.geometry)] == 1

    @functools.cached_property
    def present(self) -> set[int]:
        """Label values in the image."""
        return present_values(self.labels)

    @functools.cached_property
    def shapes(self) -> dict[int, DiscShape | SegmentationError]:
        """Shape of each disc, or why it has none."""
        found: dict[int, DiscShape | SegmentationError] = {}
        for value in {d.value for d in DISCS} & self.present:
            try:
                found[value] = disc_shape(self.labels, value)
            except SegmentationError as error:
                found[value] = error
        return found

    @functools.cached_property
    def _whole(self) -> dict[int, DiscShape]:
        return {v: s for v, s in self.shapes.items() if isinstance(s, DiscShape) and not s.cut}

    @functools.cached_property
    def _bodies(self) -> dict[int, Body | Missing]:
        found: dict[int, Body | Missing] = {}
        for vertebra in VERTEBRAE:
            try:
                found[vertebra.value] = body_of(self.labels, vertebra.value, self._whole)
            except Missing as reason:
                found[vertebra.value] = reason
        return found

    def body(self, value: int) -> Body:
        """Return a vertebra's body, or raise Missing."""
        found = self._bodies[value]
        if isinstance(found, Missing):
            raise Missing(str(found))
        return found

    def upper_endplate(self, value: int) -> Endplate:
        """Return a vertebra's upper endplate; that of an unlabelled S1 is the caudal surface of L5-S1."""
        lowest = self._whole.get(DISCS[0].value)
        if value == SACRUM.value and SACRUM.value not in self.present and lowest:
            return lowest.section.endplate(lowest.section.bottom)
        return self.body(value).upper

    def disc_row(self, value: int, reasons: dict[str, list[str]]) -> dict[str, float]:
        """Return the measures of :data:`DISC_COLUMNS` that a disc has; columns without are added to the reasons."""
        row: dict[str, float] = {}
        shape = self._whole.get(value)
        if shape is None:
            why = "the disc is cut by the edge of the image" if isinstance(self.shapes[value], DiscShape) else (
                self._problem(value))
            reasons[why] = [c.name for c in DISC_COLUMNS if c.name != "lordosis"]
            collect(row, {"lordosis": self._lordosis}, reasons)
            return row
        section, left = shape.section, shape.frame.axes[0]
        # Vertebra values count like the discs': L5 (31) lies above L5-S1 (11).
        upper, lower = value + 20, value + 19

        def mean_height() -> float:
            return float(np.mean(list(section.heights.values())))

        def vertebral_height() -> float:
            return float(np.mean([list(self.body(v).heights.values()) for v in (upper, lower)]))

        collect(row, {
            _HEIGHTS: lambda: tuple(section.heights.values()),
            "ap_diameter": lambda: section.ap_diameter,
            "width": self._width(shape),
            "height_index": lambda: mean_height() / section.ap_diameter,
            "height_index_vertebral": lambda: mean_height() / vertebral_height(),
            "angle": lambda: angle_between(section.endplate(section.top), section.endplate(section.bottom), left),
            "segment_angle": lambda: angle_between(self.upper_endplate(upper), self.upper_endplate(lower), left),
            "lordosis": self._lordosis,
            ("slip", "slip_percent"): lambda: slip_of(self.body(upper), self.body(lower)),
            "canal_diameter": lambda: canal_diameter(self.labels, shape),
        }, reasons)
        return row

    def _problem(self, value: int) -> str:
        small = getattr(self.shapes[value], "anchor", "") == "disc-too-small"
        return "the disc is too small" if small else "the disc's orientation is not known"

    def _width(self, shape: DiscShape) -> Callable[[], float]:
        def width() -> float:
            if self.one_slice:
                raise Missing("the image has one slice")
            return shape.outline.measured_width
        return width

    def _lordosis(self) -> float:
        upper, lower = self.upper_endplate(BY_NAME["L1"].value), self.upper_endplate(SACRUM.value)
        return angle_between(upper, lower, self._left)

    @functools.cached_property
    def _left(self) -> np.ndarray:
        left = np.sum([s.frame.axes[0] for s in self._whole.values()], axis=0)
        return left / np.linalg.norm(left)

    def vertebra_rows(self) -> list[dict]:
        """Return a row of :data:`VERTEBRA_COLUMNS` for each vertebra that is labelled, cranial first; S1 has none."""
        return [self._vertebra_row(v.value) for v in reversed(VERTEBRAE[1:]) if v.value in self.present]

    def _vertebra_row(self, value: int) -> dict:
        row, reasons = {"level": BY_VALUE[value].name, "label": value}, {}

        def wedge() -> float:
            body = self.body(value)
            return angle_between(body.upper, body.lower, body.section.frame.axes[0])

        def diameter() -> float:
            body = self.body(value)
            _ = body.heights
            return body.section.ap_diameter

        collect(row, {_HEIGHTS: lambda: tuple(self.body(value).heights.values()), "ap_diameter": diameter,
                      "wedge": wedge}, reasons)
        return row | {"statement": statement(reasons)}
