"""Segment Editor effect "Lumbar discs": the network's discs in the segmentation that is edited.

Slicer imports this file by its path, so that the class bears the file's name and imports are absolute.
"""

import slicer
from DiscRelaxometryWidgets import requirements
from DiscRelaxometryWidgets.qt_helpers import current_data
from DiscRelaxometryWidgets.work import Work
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from DiscRelaxometryLib import labels as structures
from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.jobs import Job
from DiscRelaxometryLib.resources import resource_path


class LumbarDiscsEffect(AbstractScriptedSegmentEditorEffect):
    """Segments all discs, one disc at a click, or names a disc; undo, editable area and masking are the editor's."""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Lumbar discs"
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.work = None

    def clone(self):
        """Return a copy, which each editor gets."""
        from qSlicerSegmentationsEditorEffectsPythonQt import qSlicerSegmentEditorScriptedEffect

        clonedEffect = qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(__file__.replace("\\", "/"))
        return clonedEffect

    def icon(self):
        """Return the picture on the effect's button."""
        import qt

        return qt.QIcon(str(resource_path("Icons/DiscRelaxometry.png")))

    def helpText(self):
        """Return what the effect does."""
        return _("Segment and name the lumbar discs of the source volume. Then click on a disc in a slice view to "
                 "segment it again there, or to add one that was missed; or choose a level and click on the disc that "
                 "bears it. Discs that you have edited are not changed unless you agree.")

    # ------------------------------------------------------------ options

    def setupOptionsFrame(self):
        """Add button, choice of what a click does, progress and messages."""
        import qt

        self.allButton = qt.QPushButton(_("Segment all discs"))
        self.allButton.setToolTip(_("Segment and name the discs of the source volume"))
        self.allButton.clicked.connect(self.onAll)
        self.clickCombo = qt.QComboBox()
        self.clickCombo.setToolTip(_("What a click on a disc in a slice view does"))
        self.clickCombo.addItem(_("A click segments the disc there"), 0)
        for structure in structures.DISCS[:8]:
            self.clickCombo.addItem(_("A click names the disc {level}").format(level=structure.name), structure.value)
        footer = slicer.util.loadUI(str(resource_path("UI/Footer.ui")))
        for widget in (self.allButton, self.clickCombo, footer):
            self.scriptedEffect.addOptionsWidget(widget)
        self.work = Work(slicer.util.childWidgetVariables(footer), "DiscRelaxometry", self._onWorkChanged)

    def deactivate(self):
        """Stop the running work: another effect is chosen."""
        if self.work is not None:
            self.work.stop(_("Stopped: another effect was chosen."))

    def createCursor(self, widget):
        """Return the cursor over slice views."""
        import qt

        return qt.QCursor(qt.Qt.PointingHandCursor)

    def _onWorkChanged(self):
        for widget in (self.allButton, self.clickCombo):
            widget.setEnabled(not self.work.busy)

    # ------------------------------------------------------------ actions

    def onAll(self):
        """Segment all discs of the source volume in a child process."""
        self._run("DiscRelaxometryLib.discs:segment", {}, _("Segmenting discs"), self._showAll)

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        """Take a click in a slice view; return whether it was one."""
        import vtk

        if eventId != vtk.vtkCommand.LeftButtonPressEvent or viewWidget.className() != "qMRMLSliceWidget":
            return False
        self.onClick(self.xyToRas(callerInteractor.GetEventPosition(), viewWidget))
        return True

    def onClick(self, ras):
        """Segment the disc at a point, or give it the level that is chosen."""
        if self.work.busy:
            return
        lps, level = mrml.position_from_ras(ras), current_data(self.clickCombo)
        if level:
            self.work.attempt(_("The disc could not be named."), lambda: self._name(lps, level))
            return
        self._run("DiscRelaxometryLib.discs:disc_at", {"lps": lps.tolist()}, _("Segmenting the disc"),
                  lambda result, node: self._showOne(result, node, lps))

    def _nodes(self):
        """Return segmentation and source volume of the editor."""
        settings = self.scriptedEffect.parameterSetNode()
        return settings.GetSegmentationNode(), settings.GetSourceVolumeNode()

    def _run(self, function, arguments, title, show):
        segmentation, volume = self._nodes()
        if segmentation is None or volume is None:
            self.work.say(_("Choose a segmentation and a source volume."))
            return
        if not self.work.ensurePackages(requirements.SEGMENTATION, _(
                "Segmentation needs the package onnxruntime (about 80 MB). Install it into Slicer's Python?")):
            return
        image = self.work.attempt(_("The volume cannot be used."), lambda: mrml.image_from_volume(volume))
        if image is not None:
            self.work.run(Job(function, {"image": image, **arguments}, title),
                          lambda result: show(result, segmentation))

    def _showAll(self, result, node):
        discs = {d.value: result.labels.like(result.labels.array == d.value) for d in result.discs}
        kept = self._write(node, discs)
        words = [result.reason] if result.reason else [_("{n} discs.").format(n=len(discs)), *result.flags]
        if kept:
            words.insert(1, _("Kept as edited: {names}.").format(names=", ".join(kept)))
        self.work.say(" ".join(words))

    def _showOne(self, mask, node, lps):
        level = mrml.disc_under(node, lps) or mrml.disc_under(node, self._middle(mask)) or mrml.free_level(node, mask)
        kept = self._write(node, {level: mask})
        name = structures.BY_VALUE[level].name
        self.work.say(_("{name} is as it was.").format(name=name) if kept else _("{name}.").format(name=name))

    @staticmethod
    def _middle(mask):
        import numpy as np

        where = np.argwhere(mask.array)[:, ::-1]
        return mask.geometry.index_to_world(where[np.abs(where - where.mean(0)).sum(1).argmin()])

    def _write(self, node, discs):
        """Write masks by label value as the editor's masking allows; return the names of discs that were left alone."""
        kept = mrml.edited_discs(node, discs)
        if kept and slicer.util.confirmOkCancelDisplay(_(
                "You have edited {names}. Replace with the network's result? Cancel keeps your discs.").format(
                    names=", ".join(kept)), _("Edited discs")):
            kept = []
        self.scriptedEffect.saveStateForUndo()
        mode = slicer.qSlicerSegmentEditorAbstractEffect.ModificationModeSet
        segmentation, grid = node.GetSegmentation(), self.scriptedEffect.referenceGeometryImage()
        for value_, mask in discs.items():
            segment = mrml.ensure_disc_segment(node, value_)
            if segmentation.GetSegment(segment).GetName() not in kept:
                mask = mrml.outside(node, mask, kept)
                image = mrml.mask_image(mask, node, grid)
                self.scriptedEffect.modifySegmentByLabelmap(node, segment, image, mode)
                mrml.mark_written(node, segment)
        return kept

    def _name(self, lps, level):
        """Move all levels so that the disc at a point gets this one."""
        node, _volume = self._nodes()
        present = None if node is None else mrml.disc_under(node, lps)
        if present is None:
            self.work.say(_("There is no named disc at this point."))
            return
        if present != level:
            self.scriptedEffect.saveStateForUndo()
            mrml.shift_segment_levels(node, level - present)
        self.work.say(_("This disc is {name}; the others were named after it.").format(
            name=structures.BY_VALUE[level].name))
