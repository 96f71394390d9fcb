"""Results of an analysis: list of maps, threshold, legend, clusters with jump, plot of a place."""

import slicer
from DiscRelaxometryWidgets.qt_helpers import add_plot, assign, chosen_path, fill_table, number, on_row, silent, value
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml

from .threshold import show_beyond, threshold_of


def cluster_columns():
    """Return column of the cluster table -> heading and digits, in the order of what users look at first."""
    return {"level": (_("Level"), 0), "region": (_("Region"), 0), "effect": (_("Effect"), 2),
            "p_extent": (_("p (extent)"), 4), "peak_p_fwe": (_("p (peak, FWE)"), 4),
            "peak_p_tfce": (_("p (peak, TFCE)"), 4), "peak": (_("Peak t or F"), 2),
            "volume_mm3": (_("Volume (mm3)"), 0), "contrast": (_("Contrast"), 0), "quantity": (_("Map"), 0),
            "cluster": (_("Number"), 0)}


class ResultsView:
    """Holds the result of the last analysis and the widgets that show it."""

    def __init__(self, ui, logic, work):
        self.ui, self.logic, self.work, self.settings, self.result = ui, logic, work, None, None
        self.chart = self.view = None
        self.plot = add_plot(ui.plotContainer, _("Map against the tested variable"))
        ui.plotContainer.setVisible(False)
        on_row(ui.resultTable, self.onMapClicked)
        on_row(ui.clusterTable, self.onClusterClicked)
        ui.thresholdSlider.valueChanged.connect(self.onThreshold)
        ui.legendCheck.toggled.connect(self.onLegend)
        ui.plotButton.clicked.connect(self.onPlotHere)

    # ------------------------------------------------------------ state

    def show(self, result, p):
        """Add the result to the scene and list it in the settings `p`."""
        made = self.logic.showResult(result, _("Disc statistics"))
        self.result = result
        maps = list(made.maps.values())
        first = next((n for k, n in made.maps.items() if k.endswith(("_t", "_F"))), maps[0])
        with slicer.util.NodeModify(p):
            p.clusters, p.resultMaps, p.shownMap = made.clusters, maps, first
        words = [_("{n} maps, {c} clusters.").format(n=len(maps), c=len(result.clusters.rows)), *result.warnings]
        self.work.say("\n".join(words))
        self._showMap(p, first)

    def close(self):
        """Forget result and plot."""
        self.plot.setMRMLPlotViewNode(None)
        mrml.remove_nodes(self.view, self.chart)
        self.result = self.chart = self.view = None
        self.ui.plotContainer.setVisible(False)

    @staticmethod
    def _maps(p):
        return [n for n in p.resultMaps if n is not None]

    def onParametersChanged(self):
        """List maps and clusters of the settings; a loaded scene brings both back."""
        ui, p, rows = self.ui, self.settings, []
        for node in self._maps(p):
            display = node.GetDisplayNode()
            window = "" if display is None or not hasattr(display, "GetWindowLevelMin") else \
                f"{display.GetWindowLevelMin():.3g} ... {display.GetWindowLevelMax():.3g}"
            rows.append([node.GetName(), window])
        fill_table(ui.resultTable, [_("Map"), _("Colors from ... to")], rows)
        table = p.clusters.GetTable() if p.clusters is not None else None
        columns = cluster_columns()
        names = [n for n in columns if table is not None and table.GetColumnByName(n) is not None]
        rows = range(0 if table is None else table.GetNumberOfRows())
        fill_table(ui.clusterTable, [columns[n][0] for n in names],
                   [[self._text(table.GetValueByName(r, n), columns[n][1], n) for n in names] for r in rows])

    @staticmethod
    def _text(variant, digits, name):
        if not variant.IsString():
            return number(variant.ToDouble(), digits)
        return variant.ToString().replace("_", " ") if name == "region" else variant.ToString()

    def checkCanApply(self):
        """Enable what can be done with the present result."""
        ui, p = self.ui, self.settings
        scalar = p.shownMap is not None and p.shownMap.IsA("vtkMRMLScalarVolumeNode") and not p.shownMap.IsA(
            "vtkMRMLLabelMapVolumeNode")
        ui.thresholdSlider.setEnabled(scalar)
        ui.legendCheck.setEnabled(scalar)
        missing = [] if self.result is not None else [_("Run the analysis first; plots need its data.")]
        self.work.allow(ui.plotButton, missing, _("Plot the place under the crosshair"))
        folder = [] if chosen_path(p.resultsFolder) else [_("Choose a folder.")]
        self.work.allow(ui.saveButton, missing + folder, _("Write maps, tables and provenance to this folder"))

    # ------------------------------------------------------------ maps

    def onMapClicked(self, row, column):
        """Show a map in the slice views, over the mean map."""
        p = self.settings
        self._showMap(p, self._maps(p)[row])

    def _showMap(self, p, node):
        p.shownMap = node
        maps = self._maps(p)
        self.ui.resultTable.selectRow(maps.index(node))
        mean = next((n for n in maps if n.GetName().endswith("_mean")), "keep-current")
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            slicer.util.setSliceViewerLayers(background=mean, label=node, labelOpacity=0.6)
        else:
            slicer.util.setSliceViewerLayers(background=mean, foreground=node, foregroundOpacity=1.0, label=None)
        self._followDisplay(node)

    def _followDisplay(self, node):
        """Set the slider to what a map's display hides, and show its legend alone."""
        ui, display = self.ui, node.GetDisplayNode()
        mrml.show_legend(node if value(ui.legendCheck, "isChecked") else None)
        if node.GetImageData() is None or not hasattr(display, "GetLowerThreshold"):
            return
        top = max(abs(display.GetWindowLevelMin()), abs(display.GetWindowLevelMax()), 1e-6)
        slider = ui.thresholdSlider
        with silent(slider):
            assign(slider, minimum=0.0, maximum=top, singleStep=top / 100, value=min(threshold_of(node), top))

    def onThreshold(self, limit):
        """Hide what is not beyond the threshold, without a change of values."""
        node = self.settings.shownMap
        if node is not None and hasattr(node.GetDisplayNode(), "SetThreshold"):
            show_beyond(node, limit)

    def onLegend(self, shown):
        """Show the color legend of the map, or none."""
        if self.settings is not None:
            mrml.show_legend(self.settings.shownMap if shown else None)

    # ------------------------------------------------------------ places

    def onClusterClicked(self, row, column):
        """Jump to a cluster's peak and plot it."""
        table = self.settings.clusters.GetTable()
        peak = [table.GetValueByName(row, n).ToDouble() for n in ("peak_r", "peak_a", "peak_s")]
        slicer.modules.markups.logic().JumpSlicesToLocation(*peak, True)
        if self.result is not None:
            cluster = int(table.GetValueByName(row, "cluster").ToDouble())
            self._plotPlace(cluster=cluster, quantity=table.GetValueByName(row, "quantity").ToString(),
                            contrast=table.GetValueByName(row, "contrast").ToString())

    def onPlotHere(self):
        """Plot the voxel under the crosshair."""
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._plotPlace(ras=list(crosshair.GetCrosshairRAS()) if crosshair is not None else [0.0, 0.0, 0.0])

    def _plotPlace(self, **place):
        """Plot the map against the tested variable at a place."""
        chart = self.work.attempt(_("This place cannot be plotted."), lambda: self.logic.plotAt(
            self.result, chartNode=self.chart, **place))
        if chart is None:
            return
        self.chart = chart
        if self.view is None:
            self.view = mrml.add_hidden_node("vtkMRMLPlotViewNode", "DiscStats")
        self.view.SetPlotChartNodeID(chart.GetID())
        self.plot.setMRMLPlotViewNode(self.view)
        self.ui.plotContainer.setVisible(True)
        self.ui.plotLabel.setText(chart.GetDescription() or "")
