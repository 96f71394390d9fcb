"""Stand-in for qMRMLPlotView: draws the chart of a plot view node from the real nodes.

After qMRMLPlotView.cxx of Slicer (Libs/MRML/Widgets): ``onPlotChartNodeChanged`` (which chart is observed),
``updatePlotFromPlotSeriesNode`` (a series without table or column, or with words in one, is not drawn; line style)
and ``RecalculateBounds`` (axes follow the data).
"""

import math

from PySide6 import QtCore, QtGui, QtWidgets


class qMRMLPlotView(QtWidgets.QWidget):
    """Draws the chart of a plot view node: series of points and lines from the real table nodes."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._view, self._observed = None, None, None

    def setMRMLScene(self, scene):
        self._scene = scene

    def setMRMLPlotViewNode(self, view):
        import vtk

        if self._observed is not None:
            self._observed[0].RemoveObserver(self._observed[1])
            self._observed = None
        self._view = view
        chart = self.chart()
        if chart is not None:
            self._observed = (chart, chart.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self.update()))
        self.update()

    def chart(self):
        return self._view.GetPlotChartNode() if self._view is not None else None

    def points(self):
        """Return [(name, [(x, y)], color, is line)] of what is drawn."""
        import vtk

        chart, drawn = self.chart(), []
        for index in range(chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0):
            series = chart.GetNthPlotSeriesNode(index)
            table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
            x, y = (table.GetColumnByName(n) if table else None
                    for n in (series.GetXColumnName(), series.GetYColumnName()))
            if not all(isinstance(column, vtk.vtkDataArray) for column in (x, y)):
                continue
            pairs = [(x.GetTuple1(r), y.GetTuple1(r)) for r in range(table.GetNumberOfRows())]
            drawn.append((series.GetName(), [p for p in pairs if all(map(math.isfinite, p))],
                          series.GetColor(), series.GetLineStyle() != series.LineStyleNone))
        return drawn

    def paintEvent(self, event):
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.Antialiasing)
        painter.fillRect(self.rect(), QtGui.QColor("white"))
        drawn = self.points()
        everything = [p for _, pairs, _, _ in drawn for p in pairs]
        box = QtCore.QRectF(self.rect()).adjusted(52, 10, -10, -34)
        painter.setPen(QtGui.QColor("#404040"))
        painter.drawRect(box)
        chart = self.chart()
        if chart is not None:
            painter.drawText(QtCore.QRectF(box.left(), box.bottom() + 14, box.width(), 18), QtCore.Qt.AlignCenter,
                             chart.GetXAxisTitle() or "")
            painter.save()
            painter.translate(12, box.center().y())
            painter.rotate(-90)
            painter.drawText(QtCore.QRectF(-80, -9, 160, 18), QtCore.Qt.AlignCenter, chart.GetYAxisTitle() or "")
            painter.restore()
        if not everything:
            return
        x0, x1 = min(p[0] for p in everything), max(p[0] for p in everything) or 1
        y0, y1 = min(p[1] for p in everything), max(p[1] for p in everything)
        margin = 0.05 * (y1 - y0)
        y0, y1 = y0 - margin, y1 + margin
        x1, y1 = x1 if x1 > x0 else x0 + 1, y1 if y1 > y0 else y0 + 1

        def place(p):
            return QtCore.QPointF(box.left() + (p[0] - x0) / (x1 - x0) * box.width(),
                                  box.bottom() - (p[1] - y0) / (y1 - y0) * box.height())

        for value, at in ((x0, box.left()), (x1, box.right())):
            painter.drawText(QtCore.QRectF(at - 30, box.bottom() + 1, 60, 14), QtCore.Qt.AlignCenter, _tick(value))
        for value, at in ((y0, box.bottom()), (y1, box.top() + 8)):
            painter.drawText(QtCore.QRectF(14, at - 9, 34, 18), QtCore.Qt.AlignRight, _tick(value))
        for _name, pairs, color, line in drawn:
            pen = QtGui.QPen(QtGui.QColor.fromRgbF(*color), 2)
            painter.setPen(pen)
            placed = [place(p) for p in pairs]
            if line:
                painter.drawPolyline(placed)
            else:
                painter.setBrush(QtGui.QColor.fromRgbF(*color))
                for point in placed:
                    painter.drawEllipse(point, 3.5, 3.5)
                painter.setBrush(QtCore.Qt.NoBrush)


def _tick(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"
