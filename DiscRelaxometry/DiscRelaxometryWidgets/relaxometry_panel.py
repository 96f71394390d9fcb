"""Panel of DiscRelaxometry: discs, maps, fit inspector, measures."""

import math

import slicer
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError

from . import requirements
from .panel import DiscPanel
from .qt_helpers import (
    cell,
    choose_data,
    chosen_path,
    fill_from_node,
    fill_table,
    number,
    on_row,
    open_in_editor,
    value,
)
from .torch_install import ensure_torch

#: Milliseconds of quiet after which a segmentation that changed is measured again.
SETTLED_MS = 300


class RelaxometryPanel(DiscPanel):
    """Widgets to Logic calls; holds no computation."""

    def connectWidgets(self):
        """Connect buttons and tables."""
        import qt

        from .disc_table import DiscSizes
        from .fit_inspector import FitInspector

        ui = self.ui
        self._discIds, self._shownSeries, self._tables, self._followed = [], None, {}, None
        self._settled = qt.QTimer()
        self._settled.setSingleShot(True)
        self._settled.setInterval(SETTLED_MS)
        self._settled.timeout.connect(self._onDiscsSettled)
        self._sizes = DiscSizes(self._onDiscsSettled)
        self._inspector, self._inspected = FitInspector(ui.plotContainer, ui.inspectorLabel), None
        ui.plotContainer.setVisible(False)
        for button, slot in (
                (ui.segmentButton, self.onSegment), (ui.shiftUpButton, lambda: self.onShift(1)),
                (ui.shiftDownButton, lambda: self.onShift(-1)), (ui.editButton, self.onEdit),
                (ui.gradeButton, self.onGrade), (ui.loadSeriesButton, self.onLoadSeries),
                (ui.computeButton, self.onCompute), (ui.measureButton, self.onMeasure),
                (ui.exportButton, self.onExport), (ui.importButton, self.onImport), (ui.carryButton, self.onCarry)):
            button.clicked.connect(slot)
        on_row(ui.discTable, self.onDiscClicked)
        ui.timesTable.itemChanged.connect(self.onTimeChanged)
        ui.importSelector.currentNodeChanged.connect(lambda node: self._checkCanApply())
        self.offerConventions("auto")

    def cleanup(self):
        """Release the crosshair and the plot's nodes."""
        if self.logic is not None:
            self._settled.stop()
            self._inspector.close()
        super().cleanup()

    def onSceneStartClose(self, caller, event):
        """Release the scene's nodes."""
        self._inspector.close()
        self._shownSeries, self._tables = None, {}
        fill_from_node(self.ui.measuresTable, None)
        super().onSceneStartClose(caller, event)

    # ------------------------------------------------------------ state

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node; with none, no segmentation is followed either."""
        super().setParameterNode(parameterNode)
        if parameterNode is None and self.logic is not None:
            self._followDiscs(None)

    def chooseInputs(self):
        """Choose the volume that the slice views show, or else the first one, and the only echo series of the scene."""
        p = self._parameterNode
        if p.inputVolume is None:
            shown = [n.GetBackgroundVolumeID() for n in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")]
            volumes = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if self._isAnatomical(n)]
            volumes.sort(key=lambda n: n.GetID() not in shown)
            p.inputVolume = next(iter(volumes), None)
        series = [n for n in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if not n.GetHideFromEditors()]
        if p.series is None and len(series) == 1:
            p.series = series[0]

    def useSeries(self, node):
        """Choose an echo series, which the DICOM browser has loaded."""
        self._parameterNode.series = node

    @staticmethod
    def _isAnatomical(node):
        """Return whether a volume may be anatomical: no label map, no map of this extension, and not hidden."""
        return not (node.IsA("vtkMRMLLabelMapVolumeNode") or node.GetAttribute(mrml.ATTRIBUTE + "Quantity")
                    or node.GetHideFromEditors() or node.GetImageData() is None)

    def onParametersChanged(self):
        """Show discs and times of the chosen nodes, and start or stop the inspector."""
        self._followDiscs(self._parameterNode.segmentation)
        choose_data(self.ui.conventionCombo, self._parameterNode.convention)
        self._showDiscs()
        self._showTimes()
        self._updateInspector()

    def _checkCanApply(self, caller=None, event=None):
        p, ui = self._parameterNode, self.ui
        if p is None:
            return
        volume = [] if p.inputVolume else [_("Choose the volume.")]
        discs = [] if self._discIds else [_("Segment the discs, or choose a segmentation.")]
        series = [] if p.series else [_("Choose or load an echo series.")]
        times = [] if not p.series or all(math.isfinite(t) for t in p.times) else [
            _("Type the missing times into the table.")]
        kind = [_("Choose whether the series is T1rho or T2.")] if self._kindMissing() else []
        bounds = [] if p.lowerBound < p.upperBound else [_("The longest time must exceed the shortest.")]
        if p.onlyDiscs:
            bounds += discs
        self.work.allow(ui.segmentButton, volume, _("Segment and name the discs of the volume"))
        self.work.allow(ui.editButton, discs, _("Correct the discs by hand"))
        self.work.allow(ui.gradeButton, volume + discs,
                        _("Estimate the Pfirrmann grades from the volume, which must be T2-weighted"))
        for button, n in ((ui.shiftUpButton, 1), (ui.shiftDownButton, -1)):
            impossible, effect = self._renaming(n)
            self.work.allow(button, discs or impossible, effect)
        folder = [] if chosen_path(p.seriesFolder) else [_("Choose the folder of an echo series.")]
        self.work.allow(ui.loadSeriesButton, folder, _("Load this echo series"))
        self.work.allow(ui.computeButton, series + times + kind + bounds,
                        _("Compute the relaxation map and its quality"))
        self.work.allow(ui.measureButton, discs, _("Measure the discs, and the map in their regions"))
        tables = [] if self._tables else [_("Measure first.")]
        target = [] if chosen_path(p.exportFolder) else [_("Choose a folder.")]
        self.work.allow(ui.exportButton, tables + target, _("Write the tables to this folder"))
        labels = [] if ui.importSelector.currentNode() else [_("Choose the label volume of the other tool.")]
        self.work.allow(ui.importButton, labels, _("Make a disc segmentation of the label volume"))
        self.work.allow(ui.carryButton, volume + discs + series,
                   _("Register the volume to the first echo, and make a segmentation on its grid"))

    def _kindMissing(self):
        p = self._parameterNode
        if p.series is None or p.kind.value != "auto":
            return False
        return not p.series.GetAttribute(mrml.ATTRIBUTE + "Kind") and \
            p.series.GetIndexName() not in ("SpinLockTime", "EchoTime")

    # ------------------------------------------------------------ discs

    def _showDiscs(self):
        from .disc_table import fill_disc_table

        node = self._parameterNode.segmentation
        self._discIds = fill_disc_table(self.ui.discTable, node, self._sizes)
        self.ui.flagsLabel.setText((node.GetDescription() or "") if node else "")

    def _followDiscs(self, node):
        """Watch a segmentation, so that the table follows edits, renaming and undo."""
        import vtk

        if node is self._followed:
            return
        self._followed = node
        self._settled.stop()
        self._sizes.close()
        self.removeObservers(self._onDiscsChanged)
        if node is not None:
            events = slicer.vtkSegmentation
            for event in (vtk.vtkCommand.ModifiedEvent, events.SegmentAdded, events.SegmentRemoved,
                          events.SegmentModified, events.SourceRepresentationModified):
                self.addObserver(node, event, self._onDiscsChanged)

    def _onDiscsChanged(self, caller, event):
        self._settled.start()

    def _onDiscsSettled(self):
        if self._parameterNode is not None:
            self._showDiscs()
            self._checkCanApply()

    def onDiscClicked(self, row, column):
        """Show the clicked disc in all slice views."""
        center = self._parameterNode.segmentation.GetSegmentCenterRAS(self._discIds[row])
        if center is not None:
            slicer.modules.markups.logic().JumpSlicesToLocation(*center, True)

    def onSegment(self):
        """Segment the volume in a child process."""
        p = self._parameterNode
        engine, device = p.engine.value, None
        if not p.useGpu:
            engine, device = ("torch", "cpu") if engine == "torch" else ("onnx", None)
        if not self._hasEngine(engine):
            return
        volume, node = p.inputVolume, p.segmentation

        def show(result):
            discs = self.logic.showSegmentation(result, volume, node)
            yield
            p.segmentation = discs.segmentation
            slicer.util.setSliceViewerLayers(background=volume, foreground=None, label=None)
            mrml.show_legend(None)
            mrml.show_alone(discs.segmentation)
            self.work.say(" ".join([_("{n} discs.").format(n=len(discs.discs)), *discs.flags]))

        self.work.start(_("The discs could not be segmented."),
                        lambda: self.logic.segmentJob(volume, engine, device), show)

    def _hasEngine(self, engine):
        """Return whether the network can run; what it needs is installed, if the user agrees."""
        if engine == "torch":
            return ensure_torch(self.work)
        return self.work.ensurePackages(requirements.SEGMENTATION, _(
            "The network needs the package onnxruntime (about 80 MB). Install it into Slicer's Python?"))

    def onGrade(self):
        """Estimate the grades of the discs in a child process."""
        volume, node, engine = (self._parameterNode.inputVolume, self._parameterNode.segmentation,
                                self._parameterNode.engine.value)
        if not self._hasEngine(engine):
            return

        def show(result):
            self.logic.showGrades(result, volume, node)
            self._onDiscsSettled()
            self.work.say(_("Pfirrmann grades were estimated from {volume}; they are not read grades.").format(
                volume=volume.GetName()))

        self.work.start(_("The grades could not be estimated."),
                        lambda: self.logic.gradeJob(volume, node, engine), show)

    def _renaming(self, n):
        """Return why the levels cannot be renamed, as a list, and what the renaming would do."""
        try:
            moves = mrml.level_moves(self._parameterNode.segmentation, n) if self._discIds else []
        except DiscRelaxometryError as error:
            return [error.message], ""
        names = [f"{old.name} → {new.name}" for _segment, old, new in reversed(moves) if old.kind == "disc"]
        return [], _("Rename: {names}").format(names=", ".join(names))

    def onShift(self, n):
        """Rename the levels."""
        node = self._parameterNode.segmentation
        self.work.attempt(_("The levels could not be renamed."), lambda: self.logic.shiftLevels(node, n), undo=True)
        self._onDiscsSettled()

    def onEdit(self):
        """Open the segmentation in the Segment Editor."""
        open_in_editor(self._parameterNode.segmentation, self._parameterNode.inputVolume)

    def onImport(self):
        """Import another tool's labels."""
        p, source = self._parameterNode, self.ui.importSelector.currentNode()
        reference = p.inputVolume

        def show(result):
            imported = self.logic.showImported(result, source, reference)
            imported.segmentation.SetDescription(" ".join(imported.flags))
            p.segmentation = imported.segmentation
            mrml.show_alone(imported.segmentation)

        self.work.start(_("The labels could not be imported."),
                        lambda: self.logic.importJob(source, p.convention), show)

    def onCarry(self):
        """Carry the discs to the grid of the echo series, in a child process."""
        p = self._parameterNode
        segmentation, series = p.segmentation, p.series
        def show(result):
            p.segmentation = self.logic.showCarried(result, segmentation, series)
            mrml.show_alone(p.segmentation)
            self.work.say(p.segmentation.GetDescription())

        self.work.start(_("The discs could not be carried to the echo series."),
                        lambda: self.logic.carryJob(segmentation, p.inputVolume, series), show)

    # ------------------------------------------------------------ echo series and maps

    def _showTimes(self):
        """Fill the table of times when another series was chosen."""
        p = self._parameterNode
        if p.series is self._shownSeries:
            return
        previous, self._shownSeries = self._shownSeries, p.series
        recorded = mrml.sequence_times(p.series) if p.series else []
        # A scene that was loaded brings the times that the user had typed.
        if previous is not None or len(p.times) != len(recorded):
            p.times = recorded
        fill_table(self.ui.timesTable, [_("Echo"), _("Time (ms)")],
                   [[str(n + 1), number(t, 3)] for n, t in enumerate(p.times)], editable=(1,))

    def onTimeChanged(self, item):
        """Take over a time that the user typed; anything but a number counts as missing."""
        times = []
        for row in range(value(self.ui.timesTable, "rowCount")):
            try:
                times.append(float(cell(self.ui.timesTable, row, 1).replace(",", ".")))
            except ValueError:
                times.append(math.nan)
        self._parameterNode.times = times

    def onLoadSeries(self):
        """Load an echo series from its folder; the kind chosen in the panel helps where the files do not say."""
        p = self._parameterNode
        kind = None if p.kind.value == "auto" else p.kind.value
        folder = str(p.seriesFolder)

        def show(series):
            p.series = self.logic.showSeries(series, folder)

        self.work.start(_("The echo series could not be loaded."), lambda: self.logic.loadJob(folder, kind), show)

    def onCompute(self):
        """Compute the maps in a child process."""
        from DiscRelaxometryLib.fit import FitOptions

        p = self._parameterNode
        series, segmentation = p.series, p.segmentation
        model, estimator = p.model.value.split("/")

        def show(result):
            nodes = self.logic.showMaps(result, series)
            yield
            relaxation = nodes.get("T1rho") or nodes["T2"]
            with slicer.util.NodeModify(p):
                p.relaxationMap, p.m0Map, p.offsetMap = relaxation, nodes["M0"], nodes.get("offset")
            yield
            mrml.show_map(relaxation, segmentation)
            self.work.say(" ".join(result.notes) or _("Done."))

        self.work.start(_("The maps could not be computed."), lambda: self.logic.mapsJob(
            series, p.times, None if p.kind.value == "auto" else p.kind.value, p.alignment.value,
            FitOptions(model=model, estimator=estimator, bounds=(p.lowerBound, p.upperBound)),
            p.segmentation if p.onlyDiscs else None), show)

    def _updateInspector(self):
        """Follow the crosshair while the box is checked and series and map are there."""
        p = self._parameterNode
        wanted = bool(p.inspect and p.series and p.relaxationMap and all(math.isfinite(t) for t in p.times))
        state = (p.series, p.relaxationMap, p.m0Map, tuple(p.times)) if wanted else None
        if not wanted:
            self.ui.inspectorLabel.setText(_("Choose an echo series and its map.") if p.inspect else "")
        if state == self._inspected:
            return
        self._inspected = state
        self.ui.plotContainer.setVisible(wanted)
        if not wanted:
            self._inspector.stop()
            return
        kind = p.relaxationMap.GetAttribute(mrml.ATTRIBUTE + "Quantity") or "T2"
        series = p.relaxationMap.GetNodeReference(mrml.FITTED_SERIES) or p.series
        maps = {kind: p.relaxationMap, "M0": p.m0Map, "offset": p.offsetMap}
        self.work.attempt(_("The fit cannot be shown."), lambda: self._inspector.start(
            series, maps, p.times if series is p.series else None, kind))

    # ------------------------------------------------------------ measures

    def onMeasure(self):
        """Measure discs, and the map if there is one."""
        p = self._parameterNode
        maps = [p.relaxationMap] if p.relaxationMap else None
        segmentation = p.segmentation

        def show(result):
            self._tables = self.logic.showMeasures(result, segmentation)
            fill_from_node(self.ui.measuresTable, self._tables.get("regions") or self._tables["discs"])

        self.work.start(_("The discs could not be measured."), lambda: self.logic.measureJob(segmentation, maps), show)

    def onExport(self):
        """Write the tables."""
        folder = self._parameterNode.exportFolder
        paths = self.work.attempt(_("The tables could not be written."),
                             lambda: self.logic.exportTables(self._tables, folder))
        if paths:
            self.work.say(_("Wrote {n} tables to {folder}.").format(n=len(paths), folder=folder))
