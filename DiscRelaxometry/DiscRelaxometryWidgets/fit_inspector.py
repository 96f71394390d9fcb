"""Signal and fitted curve of the voxel under the crosshair, live, as a Slicer plot."""

import numpy as np
import slicer
from slicer.i18n import tr as _

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.fit import sample_signal

from .qt_helpers import add_plot


class FitInspector:
    """Follows the crosshair of the slice views, plots into `container`, writes into `label`; holds the series."""

    def __init__(self, container, label):
        self.label = label
        self.series = None
        self.maps = {}
        self.table = self.chart = self.view = None
        self._observation = None
        self.plot = add_plot(container, _("Signal against time at the crosshair"))

    def start(self, sequence, maps, times=None, kind=None):
        """Follow the crosshair on a sequence and its maps (dict of nodes by quantity)."""
        self.stop()
        self.series = mrml.series_from_nodes(sequence, times, kind)
        self.maps = {key: (mrml.volume_geometry(node), node) for key, node in maps.items() if node is not None}
        self._createNodes()
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is None:
            raise DiscRelaxometryError(_("There is no crosshair in this scene: open a slice view first."))
        tag = crosshair.AddObserver(slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onCursor)
        self._observation = (crosshair, tag)
        self.label.setText(_("Move the mouse over the maps in a slice view."))

    def stop(self):
        """Stop following, and release the arrays."""
        if self._observation is not None:
            crosshair, tag = self._observation
            crosshair.RemoveObserver(tag)
        self._observation = None
        self.series, self.maps = None, {}

    def close(self):
        """Stop, and remove the nodes."""
        self.stop()
        self.plot.setMRMLPlotViewNode(None)
        mrml.remove_nodes(self.chart, self.table, self.view)
        self.table = self.chart = self.view = None

    def _createNodes(self):
        """Add table, series, chart and view; hidden, and not saved with the scene."""
        if self.chart is not None and slicer.mrmlScene.IsNodePresent(self.chart):
            return
        self.table, self.chart, self.view = (mrml.add_hidden_node(f"vtkMRML{kind}Node", "FitInspector")
                                             for kind in ("Table", "PlotChart", "PlotView"))
        seriesNode = slicer.vtkMRMLPlotSeriesNode
        for name, x, y, line, marker in (
                (_("Signal"), "time", "signal", seriesNode.LineStyleNone, seriesNode.MarkerStyleCircle),
                (_("Fit"), "time", "fit", seriesNode.LineStyleSolid, seriesNode.MarkerStyleNone)):
            node = mrml.add_hidden_node("vtkMRMLPlotSeriesNode", name)
            node.SetPlotType(seriesNode.PlotTypeScatter)
            node.SetAndObserveTableNodeID(self.table.GetID())
            node.SetXColumnName(x)
            node.SetYColumnName(y)
            node.SetLineStyle(line)
            node.SetMarkerStyle(marker)
            # Mid-gray blue and orange read on light and dark backgrounds.
            node.SetColor(*((0.0, 0.45, 0.70) if y == "signal" else (0.90, 0.40, 0.0)))
            self.chart.AddAndObservePlotSeriesNodeID(node.GetID())
        self.chart.SetXAxisTitle(_("Time (ms)"))
        self.chart.SetYAxisTitle(_("Signal"))
        self.view.SetPlotChartNodeID(self.chart.GetID())
        self.plot.setMRMLPlotViewNode(self.view)

    def _onCursor(self, crosshair, event):
        ras = [0.0, 0.0, 0.0]
        if crosshair.GetCursorPositionRAS(ras):
            self.show(ras)

    def show(self, ras):
        """Show the voxel at a RAS position."""
        lps = mrml.position_from_ras(ras)
        values = {key: self._valueAt(key, lps) for key in self.maps}
        name = next((k for k in ("T1rho", "T2") if k in values), "")
        relaxation = values.get(name)
        sampled = sample_signal(self.series, lps, relaxation, values.get("M0"), values.get("offset", 0.0))
        if sampled is None:
            self.label.setText(_("Outside the echo series."))
            return
        signal, times, curve = sampled
        self._fill(signal, times, curve)
        if relaxation is None or not np.isfinite(relaxation):
            self.label.setText(_("No good fit in this voxel."))
        else:
            self.label.setText(_("{name} {value} ms").format(name=name, value=f"{relaxation:.1f}"))

    def _valueAt(self, key, lps):
        """Return a map's value in the voxel at an LPS position; NaN outside."""
        geometry, node = self.maps[key]
        voxel = geometry.voxel_at(lps)
        return float("nan") if voxel is None else float(slicer.util.arrayFromVolume(node)[voxel])

    def _fill(self, signal, times, curve):
        """Write time, signal and fit to the table: echoes first, then the curve, NaN where there is none."""
        columns = {"time": np.concatenate([self.series.times_ms, times]),
                   "signal": np.concatenate([signal, np.full(len(times), np.nan)]),
                   "fit": np.concatenate([np.full(len(signal), np.nan), curve])}
        slicer.util.updateTableFromArray(self.table, list(columns.values()), list(columns))
        self.chart.Modified()
