"""The table of discs: level with its color, volume, height, estimated grade, confidence and flags."""

from slicer.i18n import tr as _

from DiscRelaxometryLib import labels as structures
from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError

from .qt_helpers import fill_table, number

#: Column of the estimated grades.
GRADE_COLUMN = 3


def fill_disc_table(widget, segmentationNode):
    """Show the discs of a segmentation, cranial first, and return their segment IDs in the order of the rows."""
    headers = [_("Disc"), _("Volume\n(cm3)"), _("Height\n(mm)"), _("Pfirrmann\n(estimated)"), _("Confidence"),
               _("Flags")]
    found = discs_of(segmentationNode) if segmentationNode is not None else []
    sizes = _sizes(segmentationNode) if found else {}
    grades = mrml.kept_grades(segmentationNode) if found else {}
    rows, colors = [], []
    for value, segmentId, segment in found:
        size = sizes.get(structures.BY_VALUE[value].name, {})
        measured = [f.strip().replace("_", " ") for f in (size.get("flags") or "").split(";")]
        flags = [t for t in (mrml.segment_tag(segment, mrml.ATTRIBUTE + "Review"), *measured) if t]
        rows.append([segment.GetName(), number(size.get("volume"), 2), number(size.get("height_middle")),
                     grades.get(segmentId, ("",))[0], mrml.segment_tag(segment, mrml.ATTRIBUTE + "Confidence"),
                     ", ".join(flags)])
        colors.append([round(255 * c) for c in segment.GetColor()])
    fill_table(widget, headers, rows, colors=colors)
    for row, (_value, segmentId, segment) in enumerate(found):
        widget.item(row, 0).setToolTip(mrml.segment_tag(segment, mrml.LEVEL_REASON) or segment.GetName())
        why = grades.get(segmentId, ("",))[-1] or _("Not estimated: choose the T2-weighted volume, and estimate.")
        widget.item(row, GRADE_COLUMN).setToolTip(why)
    return [segmentId for _value, segmentId, _segment in found]


def discs_of(node):
    """Return (label value, segment ID, segment) of the discs, cranial first."""
    segmentation = node.GetSegmentation()
    found = []
    for index in range(segmentation.GetNumberOfSegments()):
        segmentId = segmentation.GetNthSegmentID(index)
        segment = segmentation.GetSegment(segmentId)
        value = mrml.segment_value(segment, segmentId)
        if value is not None and structures.BY_VALUE[value].kind == "disc":
            found.append((value, segmentId, segment))
    return sorted(found, key=lambda entry: -entry[0])


def _sizes(node):
    """Return the measured sizes by level; kept until the segmentation changes, because measuring takes a second."""
    stamp = (node.GetID(), node.GetMTime(), node.GetSegmentation().GetMTime())
    if _cache.get("stamp") != stamp:
        from DiscRelaxometryLib.measure import measure_discs

        try:
            table = measure_discs(mrml.labels_from_segmentation(node))
            _cache.update(stamp=stamp, sizes={row["level"]: row for row in table.rows})
        except DiscRelaxometryError:
            _cache.update(stamp=stamp, sizes={})
    return _cache["sizes"]


_cache = {}
