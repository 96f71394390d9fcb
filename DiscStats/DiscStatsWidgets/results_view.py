"""Results of an analysis: list of maps, threshold, legend, clusters with jump, plot of a place."""

import slicer
from DiscRelaxometryWidgets.qt_helpers import assign, fill_table, number
from slicer.i18n import tr as _

CLUSTER_COLUMNS = ("quantity", "contrast", "cluster", "level", "region", "volume_mm3", "peak", "p_extent",
                   "peak_p_fwe", "peak_p_tfce", "effect")


class ResultsView:
    """Holds the result of the last analysis and the widgets that show it.

    :param panel: the StatsPanel.
    """

    def __init__(self, panel):
        self.panel, self.result, self.nodes = panel, None, {}
        self.chart = self.view = None
        ui = panel.ui
        self.plot = slicer.qMRMLPlotView()
        self.plot.setMRMLScene(slicer.mrmlScene)
        self.plot.setMinimumHeight(240)
        self.plot.setAccessibleName(_("Map against the tested variable"))
        ui.plotContainer.layout().addWidget(self.plot)
        ui.plotContainer.setVisible(False)
        ui.resultTable.cellClicked.connect(self.onMapClicked)
        ui.clusterTable.cellClicked.connect(self.onClusterClicked)
        ui.thresholdSlider.valueChanged.connect(self.onThreshold)
        ui.legendCheck.toggled.connect(self.onLegend)
        ui.plotButton.clicked.connect(self.onPlotHere)

    # ------------------------------------------------------------ state

    def show(self, result):
        """Add the result to the scene and list it."""
        panel = self.panel
        made = panel.logic.showResult(result, _("Disc statistics"))
        self.result, self.nodes = result, made.maps
        p = panel._parameterNode
        with slicer.util.NodeModify(p):
            p.clusters = made.clusters
            p.resultMaps = list(made.maps.values())
            first = next((n for k, n in made.maps.items() if k.endswith("_t") or k.endswith("_F")), None)
            p.shownMap = first or next(iter(made.maps.values()))
        words = [_("{n} maps, {c} clusters.").format(n=len(made.maps), c=len(result.clusters.rows)), *result.warnings]
        panel.ui.statusLabel.setText(" ".join(words))
        self.onParametersChanged()
        self.onMapClicked(self._maps().index(p.shownMap), 0)

    def close(self):
        """Forget result and plot."""
        self.plot.setMRMLPlotViewNode(None)
        for node in (self.view, self.chart):
            if node is not None and slicer.mrmlScene.IsNodePresent(node):
                slicer.mrmlScene.RemoveNode(node)
        self.result, self.nodes, self.chart, self.view = None, {}, None, None
        self.panel.ui.plotContainer.setVisible(False)

    def _maps(self):
        return [n for n in self.panel._parameterNode.resultMaps if n is not None]

    def onParametersChanged(self):
        """List maps and clusters of the settings; a loaded scene brings both back."""
        ui, rows = self.panel.ui, []
        for node in self._maps():
            display = node.GetDisplayNode()
            window = "" if display is None or not hasattr(display, "GetWindowLevelMin") else \
                f"{display.GetWindowLevelMin():.3g} ... {display.GetWindowLevelMax():.3g}"
            rows.append([node.GetName(), window])
        fill_table(ui.resultTable, [_("Map"), _("Window")], rows)
        node = self.panel._parameterNode.clusters
        table = node.GetTable() if node is not None else None
        names = [] if table is None else [n for n in CLUSTER_COLUMNS if table.GetColumnByName(n) is not None]
        count = 0 if table is None else table.GetNumberOfRows()
        fill_table(ui.clusterTable, names, [[self._text(table, r, n) for n in names] for r in range(count)])

    @staticmethod
    def _text(table, row, name):
        variant = table.GetValueByName(row, name)
        if variant.IsString():
            return variant.ToString()
        return number(variant.ToDouble(), 3).rstrip("0").rstrip(".")

    def checkCanApply(self):
        """Enable what can be done with the present result."""
        ui, panel = self.panel.ui, self.panel
        shown = panel._parameterNode.shownMap
        scalar = shown is not None and shown.IsA("vtkMRMLScalarVolumeNode") and not shown.IsA(
            "vtkMRMLLabelMapVolumeNode")
        ui.thresholdSlider.setEnabled(scalar)
        ui.legendCheck.setEnabled(scalar)
        missing = [] if self.result is not None else [_("Run the analysis first; plots need its data.")]
        panel.allow(ui.plotButton, missing, _("Plot the place under the crosshair"))
        folder = [] if str(panel._parameterNode.resultsFolder) not in ("", ".") else [_("Choose a folder.")]
        panel.allow(ui.saveButton, missing + folder, _("Write maps, tables and provenance to this folder"))

    # ------------------------------------------------------------ maps

    def onMapClicked(self, row, column):
        """Show a map in the slice views, over the mean map."""
        maps = self._maps()
        node = maps[row]
        self.panel._parameterNode.shownMap = node
        mean = next((n for n in maps if n.GetName().endswith("_mean")), "keep-current")
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            slicer.util.setSliceViewerLayers(background=mean, label=node, labelOpacity=0.6)
        else:
            slicer.util.setSliceViewerLayers(background=mean, foreground=node, foregroundOpacity=1.0, label=None)
        self._followThreshold(node)
        self.panel._checkCanApply()

    def _followThreshold(self, node):
        """Set the slider's range and value to those of a map."""
        slider, display = self.panel.ui.thresholdSlider, node.GetDisplayNode()
        if node.GetImageData() is None or not hasattr(display, "GetLowerThreshold"):
            return
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
        blocked = slider.blockSignals(True)
        top = max(abs(low), abs(high), 1e-6)
        assign(slider, minimum=0.0, maximum=top, singleStep=top / 100,
               value=min(display.GetUpperThreshold(), high) if self._isP(node) else 0.0)
        slider.blockSignals(blocked)

    @staticmethod
    def _isP(node):
        kind = node.GetAttribute("DiscRelaxometry.Statistic") or ""
        return kind.startswith(("p", "q"))

    def onThreshold(self, limit):
        """Hide what is not beyond the threshold: above it for p and q, below it in size for the others."""
        node = self.panel._parameterNode.shownMap
        if node is None or not hasattr(node.GetDisplayNode(), "SetThreshold"):
            return
        display = node.GetDisplayNode()
        low, high = node.GetImageData().GetScalarRange()
        display.ApplyThresholdOn()
        if self._isP(node):
            display.SetThreshold(0.0, limit)
        else:
            # One band can be shown: the positive side, or all for a threshold of 0.
            display.SetThreshold(limit if limit > 0 else low, max(high, limit))

    def onLegend(self, shown):
        """Show or hide the color legend of the map."""
        node = self.panel._parameterNode.shownMap
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node) if node is not None else None
        if legend is not None:
            legend.SetVisibility(shown)

    # ------------------------------------------------------------ places

    def onClusterClicked(self, row, column):
        """Jump to a cluster's peak and plot it."""
        table = self.panel._parameterNode.clusters.GetTable()
        peak = [table.GetValueByName(row, n).ToDouble() for n in ("peak_r", "peak_a", "peak_s")]
        slicer.modules.markups.logic().JumpSlicesToLocation(*peak, True)
        if self.result is not None:
            cluster = int(table.GetValueByName(row, "cluster").ToDouble())
            self.plotPlace(cluster=cluster, quantity=table.GetValueByName(row, "quantity").ToString(),
                           contrast=table.GetValueByName(row, "contrast").ToString())

    def onPlotHere(self):
        """Plot the voxel under the crosshair."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self.plotPlace(ras=list(crosshair.GetCrosshairRAS()) if crosshair is not None else [0.0, 0.0, 0.0])

    def plotPlace(self, **place):
        """Plot the map against the tested variable at a place."""
        chart = self.panel.attempt(_("This place can not be plotted."), lambda: self.panel.logic.plotAt(
            self.result, chartNode=self.chart, **place))
        if chart is None:
            return
        self.chart = chart
        if self.view is None:
            self.view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode", "DiscStats")
            self.view.SetHideFromEditors(True)
            self.view.SetSaveWithScene(False)
        self.view.SetPlotChartNodeID(chart.GetID())
        self.plot.setMRMLPlotViewNode(self.view)
        ui = self.panel.ui
        ui.plotContainer.setVisible(True)
        ui.plotLabel.setText(chart.GetDescription() or "")

