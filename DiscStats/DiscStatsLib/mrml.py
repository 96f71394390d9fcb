"""Statistical maps, cluster tables and plots as MRML nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from DiscRelaxometryLib import mrml as base
from DiscRelaxometryLib.atomic import _jsonable
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.quantities import PRIVATE_SCHEME, Quantity
from DiscRelaxometryLib.tables import Column, Table

from .sources import is_file

if TYPE_CHECKING:
    from .analysis import AnalysisResult, PlotData
    from .tables import MixedFit, Roc

_COLOR_NODES = {"diverging": "DivergingBlueRed", "sequential": "Viridis", "labels": "RandomIntegers"}
#: Maps that users look at first; the others are added only when asked for.
MAIN_MAPS = ("mean", "n", "effect", "t", "F", "r", "d", "eta2", "pfwe", "qfdr", "ptfce", "cluster")


def image_of(source) -> Image:
    """Return a volume node, path or Image as Image."""
    if isinstance(source, Image):
        return source
    return read_image(source) if is_file(source) else base.image_from_volume(source)


def for_child(source):
    """Return what a child process can use: a path as it is, a volume node as Image."""
    return source if is_file(source) else image_of(source)


@dataclass
class ResultNodes:
    """Nodes of an analysis."""

    #: By map name; ``cluster`` maps are label maps.
    maps: dict = field(default_factory=dict)
    clusters: Any = None
    provenance: Any = None
    #: Subject-hierarchy item.
    folder: int = 0


def map_quantity(meta: dict) -> Quantity:
    """Return the display quantity of a statistical map from its metadata."""
    key = meta["statistic"]
    code = (f"STAT_{key.upper()}", PRIVATE_SCHEME, meta["title"])
    return Quantity(key, meta["title"], meta["unit"], code, tuple(meta["window"]), _COLOR_NODES[meta["colors"]],
                    meta["description"])


def volume_of_map(image: Image, name: str):
    """Put a statistical map into a volume node with its window, color table, threshold, legend and description.

    p and q maps show only what is at most 0.05; the threshold is on the display and changes no value.
    """
    meta = image.meta
    if meta.get("colors") == "labels":
        node = base.volume_from_image(image, name, class_name="vtkMRMLLabelMapVolumeNode")
        colors = base.color_node(_COLOR_NODES["labels"])
        if colors is not None:
            node.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
        node.SetDescription(meta["description"])
    else:
        node = base.volume_from_image(image, name, map_quantity(meta))
        if "threshold" in meta:
            display = node.GetDisplayNode()
            display.SetThreshold(*map(float, meta["threshold"]))
            display.ApplyThresholdOn()
    for key in ("quantity", "contrast", "statistic"):
        node.SetAttribute(f"{base.ATTRIBUTE}{key.capitalize()}", meta[key])
    return node


def add_result(result: AnalysisResult, name: str = "Analysis", maps=MAIN_MAPS) -> ResultNodes:
    """Add maps, cluster table and provenance to the scene, in a folder; all of it or nothing.

    Parameters
    ----------
    result : AnalysisResult
    name : str
    maps : collection of str, or None
        Kinds of map (last part of their names); None adds all.
    """
    nodes = ResultNodes()
    with base.all_or_nothing():
        nodes.folder = base.create_folder(name)
        for key, image in result.maps.items():
            if maps is None or image.meta["statistic"] in maps:
                nodes.maps[key] = volume_of_map(image, key)
        nodes.clusters = base.table_node(result.clusters, f"{name} clusters")
        nodes.provenance = base.add_node("vtkMRMLTextNode", f"{name} provenance")
        nodes.provenance.SetText(json.dumps(_jsonable(result.provenance), indent=2, ensure_ascii=False))
        base.put_in_folder(nodes.folder, *nodes.maps.values(), nodes.clusters, nodes.provenance)
    return nodes


def plot_nodes(data: PlotData, adjusted: bool = True, chart=None):
    """Put a scatter or box plot into plot nodes.

    Slicer draws lines and points only: a box is drawn as a closed line from the quartiles, with a line at the median
    and whiskers to the extremes; people are points, spread sideways in a fixed pattern.

    Parameters
    ----------
    data : PlotData
    adjusted : bool
        Plot values adjusted for the other columns of the model, or as measured.
    chart : vtkMRMLPlotChartNode, optional
        Chart to refill; its former series and tables are removed.

    Returns
    -------
    vtkMRMLPlotChartNode
    """
    y = data.adjusted if adjusted else data.y
    data = data if adjusted else replace(data, adjusted=data.y)
    with base.all_or_nothing():
        chart = _empty_chart(chart, data.title)
        spread: Any = np.zeros(len(data.x))
        if data.kind == "box":
            spread = ((np.arange(len(data.x)) * 0.618) % 1 - 0.5) * 0.3
        points = Table(f"{data.title} points", [Column("participant_id"), Column("x", "", data.x_title),
                                                Column("y", "", data.y_title), Column("measured", "", data.y_title)],
                       [{"participant_id": i, "x": float(a), "y": float(b), "measured": float(c)}
                        for i, a, b, c in zip(data.ids, data.x + spread, y, data.y)])
        _add_series(chart, points, "people", scatter=True)
        if data.line is not None:
            _add_series(chart, _line_table(f"{data.title} fit", data.line), "fit", scatter=False)
        if data.kind == "box":
            for number, (group, five) in enumerate(zip(data.groups, data.quartiles())):
                _add_series(chart, _line_table(f"{data.title} {group}", _box(number, five)), group, scatter=False)
        chart.SetTitle(data.title)
        groups = ", ".join(f"{i} = {g}" for i, g in enumerate(data.groups))
        chart.SetXAxisTitle(f"{data.x_title} ({groups})" if groups else data.x_title)
        chart.SetYAxisTitle(f"{data.y_title}, adjusted" if adjusted else data.y_title)
        chart.SetDescription(data.text)
    return chart


def _box(number: int, five) -> np.ndarray:
    """Return the outline of a box plot as one line: whisker, box, median, box, whisker."""
    low, q1, median, q3, high = five
    left, right = number - 0.25, number + 0.25
    return np.array([(number, low), (number, q1), (left, q1), (left, median), (right, median), (left, median),
                     (left, q3), (number, q3), (number, high), (number, q3), (right, q3), (right, q1), (number, q1)])


def _line_table(name: str, points: np.ndarray) -> Table:
    return Table(name, [Column("x"), Column("y")], [{"x": float(a), "y": float(b)} for a, b in points])


def _empty_chart(chart, title: str):
    scene = start_headless().mrmlScene
    if chart is None:
        return base.add_node("vtkMRMLPlotChartNode", title)
    # Listed first: removing a series shifts those that follow.
    for series in [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]:
        if series is not None:
            scene.RemoveNode(series.GetTableNode())
            scene.RemoveNode(series)
    chart.RemoveAllPlotSeriesNodeIDs()
    return chart


def _add_series(chart, table: Table, name: str, scatter: bool) -> None:
    slicer = start_headless()
    node = base.table_node(table)
    # The legend shows the node's name: two charts may both have people and a fit.
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(node.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    if scatter:
        series.SetLabelColumnName("participant_id")
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
        series.SetColor(0.0, 0.45, 0.70)
    else:
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
        series.SetColor(0.84, 0.37, 0.0)
    chart.AddAndObservePlotSeriesNodeID(series.GetID())


def mixed_nodes(fitted: MixedFit, formula: str, name: str) -> tuple:
    """Put a mixed model into two table nodes: fixed effects (described in full), and standard deviations."""
    with base.all_or_nothing():
        fixed = base.table_node(fitted.fixed, f"{name} fixed effects")
        variances = base.table_node(fitted.variances, f"{name} standard deviations")
        fixed.SetDescription(" ".join([
            f"{formula}, random person: {fitted.n} rows of {fitted.people} people, ICC {fitted.icc:.2f}, restricted "
            f"log-likelihood {fitted.log_likelihood:.2f}; p by the normal approximation.", *fitted.notes]))
    return fixed, variances


def roc_nodes(curve: Roc, score: str, name: str):
    """Put a ROC curve into plot nodes; the chart's description holds the area and its interval."""
    with base.all_or_nothing():
        chart = _empty_chart(None, name)
        points = np.column_stack([curve.false_positive, curve.true_positive])
        _add_series(chart, _line_table(f"{name} curve", points), score, scatter=False)
        _add_series(chart, _line_table(f"{name} chance", np.array([(0, 0), (1, 1)])), "chance", scatter=False)
        chart.SetTitle(name)
        chart.SetXAxisTitle("False positives (1 - specificity)")
        chart.SetYAxisTitle("True positives (sensitivity)")
        chart.SetDescription(f"Area of '{score}' {curve.area:.3f} ({curve.low:.3f} to {curve.high:.3f}, "
                             f"{curve.method}), {curve.positives} positives and {curve.negatives} negatives.")
    return chart
