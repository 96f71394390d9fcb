"""The table of discs: level with its color, volume, height, estimated grade, confidence and flags."""

import logging

from slicer.i18n import tr as _

from DiscRelaxometryLib import labels as structures
from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.jobs import ChildProcess, Job

from .qt_helpers import fill_table, number

#: Column of the estimated grades.
GRADE_COLUMN = 3
#: Milliseconds without a change after which a segmentation is measured, and between looks at the measuring.
SETTLED_MS = 200


def fill_disc_table(widget, segmentationNode, discSizes):
    """Show a segmentation's discs with their DiscSizes, cranial first; return segment IDs in the order of the rows."""
    headers = [_("Disc"), _("Volume\n(cm3)"), _("Height\n(mm)"), _("Pfirrmann\n(estimated)"), _("Confidence"),
               _("Flags")]
    found = mrml.discs_of(segmentationNode) if segmentationNode is not None else []
    sizes = discSizes.of(segmentationNode) if found else {}
    waiting, sizes = "" if sizes is not None else "...", sizes or {}
    grades = mrml.kept_grades(segmentationNode) if found else {}
    rows, colors = [], []
    for value, segmentId, segment in found:
        size = sizes.get(structures.BY_VALUE[value].name, {})
        measured = [f.strip().replace("_", " ") for f in (size.get("flags") or "").split(";")]
        flags = [t for t in (mrml.segment_tag(segment, mrml.ATTRIBUTE + "Review"), *measured) if t]
        rows.append([segment.GetName(), number(size.get("volume"), 2, waiting),
                     number(size.get("height_middle"), 1, waiting), grades.get(segmentId, ("",))[0],
                     mrml.segment_tag(segment, mrml.ATTRIBUTE + "Confidence"), ", ".join(flags)])
        colors.append([round(255 * c) for c in segment.GetColor()])
    fill_table(widget, headers, rows, colors=colors)
    for row, (_value, segmentId, segment) in enumerate(found):
        widget.item(row, 0).setToolTip(mrml.segment_tag(segment, mrml.LEVEL_REASON) or segment.GetName())
        why = grades.get(segmentId, ("",))[-1] or _("Not estimated: choose the T2-weighted volume, and estimate.")
        widget.item(row, GRADE_COLUMN).setToolTip(why)
    return [segmentId for _value, segmentId, _segment in found]


class DiscSizes:
    """Measures a segmentation's discs in a child process once they have not changed for a while; calls `changed`."""

    def __init__(self, changed):
        import qt

        self._changed = changed
        self._stamp = self._node = self._child = self._sizes = None
        self._timer = qt.QTimer()
        self._timer.setInterval(SETTLED_MS)
        self._timer.timeout.connect(self._poll)

    def of(self, node):
        """Return the measured sizes by level, or None while they are measured."""
        # Painting changes labelmaps, but not the segmentation's own time.
        parts = [segment for _value, _segmentId, segment in mrml.discs_of(node)]
        images = [segment.GetRepresentation("Binary labelmap") for segment in parts]
        stamp = (node.GetID(), *(o.GetMTime() for o in (node, node.GetSegmentation(), *parts, *images) if o))
        if stamp != self._stamp:
            self.close()
            self._stamp, self._node = stamp, node
            self._timer.start()
        return self._sizes

    def close(self):
        """Forget the sizes, and end their measuring."""
        self._timer.stop()
        if self._child is not None:
            self._child.close()
        self._stamp = self._node = self._child = self._sizes = None

    def _poll(self):
        try:
            if self._child is None:
                labels = mrml.labels_from_segmentation(self._node)
                self._child = ChildProcess(Job("DiscRelaxometryLib.measure:measure_discs", {"labels": labels}))
            if not self._child.poll():
                return
            child, self._child, self._sizes = self._child, None, {}
            self._sizes = {row["level"]: row for row in child.result().rows}
        except Exception as error:  # the table then names the discs without sizes
            logging.debug("The discs were not measured: %s", error)
            self._sizes = {}
        self._timer.stop()
        self._changed()
