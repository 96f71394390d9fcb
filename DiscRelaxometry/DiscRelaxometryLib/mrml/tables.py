"""Tables, and echo series as Slicer sequences."""

import math
from collections.abc import Sequence

import numpy as np

from ..echo import EchoSeries
from ..errors import EchoSeriesError, GeometryError
from ..headless import start_headless
from ..tables import Column, Table
from .volumes import ATTRIBUTE, add_node, scalars, volume_from_image, volume_geometry

_INDEX_NAMES = {"T1rho": "SpinLockTime", "T2": "EchoTime"}
_TO_MS = {"ms": 1.0, "msec": 1.0, "millisecond": 1.0, "milliseconds": 1.0, "s": 1000.0, "sec": 1000.0,
          "second": 1000.0, "seconds": 1000.0}


#: Headings that are not their column's name in words.
_HEADINGS = {"participant_id": "Person", "level": "Disc", "dice": "Overlap (Dice)", "backend": "Method", "n": "Voxels",
             "ap_diameter": "AP diameter", "sd": "SD", "surface_mean": "Surface distance, mean",
             "surface_95": "Surface distance, 95 %", "folding": "Share folded", "failed": "Share failed",
             "jacobian_min": "Volume change, least", "jacobian_max": "Volume change, most", "seen": "Share seen"}


def heading(column: Column) -> str:
    """Return a column's name in words, with its unit."""
    words = _HEADINGS.get(column.name) or column.name.replace("_", " ")
    unit = "" if column.unit in ("", "1", "[arb'U]") else f" ({column.unit})"
    return words[:1].upper() + words[1:] + unit


def table_node(table: Table, name: str | None = None, node=None):
    """Put a Table into a new vtkMRMLTableNode, or `node`, with units and descriptions; no value is NaN or no text."""
    import vtk

    node = node or add_node("vtkMRMLTableNode", name or table.name)
    was = node.StartModify()
    node.RemoveAllColumns()
    for column in table.columns:
        values = table[column.name]
        numeric = _numeric(values)
        whole = numeric and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values)
        array = vtk.vtkIntArray() if whole else vtk.vtkDoubleArray() if numeric else vtk.vtkStringArray()
        array.SetName(column.name)
        for value in values:
            array.InsertNextValue(int(value) if whole else _cell(value, numeric))
        node.AddColumn(array)
        node.SetColumnTitle(column.name, heading(column))
        if column.unit:
            node.SetColumnUnitLabel(column.name, column.unit)
        if column.description:
            node.SetColumnDescription(column.name, column.description)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    node.EndModify(was)
    return node


def _numeric(values: Sequence) -> bool:
    present = [v for v in values if v is not None]
    return bool(present) and all(isinstance(v, (int, float, np.number, np.bool_)) for v in present)


def _cell(value, numeric: bool):
    if numeric:
        return float("nan") if value is None else float(value)
    return "" if value is None else str(value)


def table_from_node(node) -> Table:
    """Return a vtkMRMLTableNode as a Table."""
    data = node.GetTable()
    names = [node.GetColumnName(n) for n in range(data.GetNumberOfColumns())]
    columns = [Column(n, node.GetColumnUnitLabel(n) or "", node.GetColumnDescription(n) or "") for n in names]
    rows = []
    for index in range(data.GetNumberOfRows()):
        cells = [data.GetValue(index, c) for c in range(len(names))]
        rows.append({n: (c.ToString() if c.IsString() else c.ToDouble()) for n, c in zip(names, cells)})
    return Table(node.GetName(), columns, rows)


def sequence_from_series(series: EchoSeries, name: str, browser: bool = True):
    """Put an echo series into a sequence node, its times as index values in ms.

    Parameters
    ----------
    series : EchoSeries
    name : str
        Node name, made unique.
    browser : bool, optional
        Add a browser, so that Slicer shows the series as a volume with a time slider.

    Returns
    -------
    vtkMRMLSequenceNode
    """
    slicer = start_headless()
    node = add_node("vtkMRMLSequenceNode", name)
    node.SetIndexName(_INDEX_NAMES[series.kind])
    node.SetIndexUnit("ms")
    node.SetIndexTypeFromString("numeric")
    node.SetAttribute(ATTRIBUTE + "Kind", series.kind)
    node.SetDescription("; ".join(series.notes))
    for index, time in enumerate(series.times_ms):
        volume = volume_from_image(series.echo(index), f"{name} {time:g} ms")
        node.SetDataNodeAtValue(volume, f"{time:.6g}")
        slicer.mrmlScene.RemoveNode(volume.GetDisplayNode())
        slicer.mrmlScene.RemoveNode(volume)
    if browser:
        shown = add_node("vtkMRMLSequenceBrowserNode", f"{name} browser")
        shown.AddSynchronizedSequenceNode(node)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(shown)
    return node


def shown_volume(sequence):
    """Return the volume in which a browser shows a sequence, or None where none does."""
    browser = start_headless().modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(sequence)
    return browser.GetProxyNode(sequence) if browser else None


def sequence_of(node):
    """Return the sequence of a sequence node or of the volume that a browser shows for it, or None."""
    slicer = start_headless()
    if node.IsA("vtkMRMLSequenceNode"):
        return node
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(node)
    return browser.GetSequenceNode(node) if browser else None


def echo_volume(node):
    """Return the first echo of a sequence (or of the volume that a browser shows for it), or the volume itself."""
    sequence = sequence_of(node)
    return node if sequence is None else sequence.GetNthDataNode(0)


def sequence_times(node) -> list[float]:
    """Return a sequence's times in ms, or NaN where an index value says none."""
    unit = _TO_MS.get((node.GetIndexUnit() or "").strip().lower())
    labels = node.GetAttribute("MultiVolume.FrameLabels")
    count = node.GetNumberOfDataNodes()
    texts = labels.split(",") if labels else [node.GetNthIndexValue(n) for n in range(count)]
    times = [_float(t) for t in texts] + [math.nan] * max(0, count - len(texts))
    # An index without a unit of time counts frames, it says nothing about echoes.
    return [t * unit for t in times[:count]] if unit else [math.nan] * count


def _float(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def series_from_nodes(nodes, times: Sequence[float] | None = None, kind: str | None = None) -> EchoSeries:
    """Return an echo series from a sequence, its shown volume, or a list of volumes.

    Parameters
    ----------
    nodes : vtkMRMLSequenceNode, vtkMRMLScalarVolumeNode or list of vtkMRMLScalarVolumeNode
    times : sequence of float, optional
        ms, one per echo, in the order of the nodes; by default those that the sequence holds.
    kind : str, optional
        ``T1rho`` or ``T2``; by default what the sequence says.

    Raises
    ------
    EchoSeriesError
        If times or kind are not known, or the volumes differ in grid.
    """
    volumes, known, guess = _volumes_of(nodes)
    times = list(known if times is None else times)
    if any(t is None or not math.isfinite(t) for t in times):
        raise EchoSeriesError("The echo times of this series are not recorded in the scene: type them into the table "
                              "of times (ms), one for each echo.", anchor="times")
    kind = kind or guess
    if kind is None:
        raise EchoSeriesError("Choose whether this is a T1rho or a T2 series: the scene does not say.", anchor="kind")
    grids, echoes = zip(*((volume_geometry(v), scalars(v)) for v in volumes))
    for volume, grid in zip(volumes, grids):
        difference = grids[0].difference(grid)
        if difference:
            raise GeometryError(f"Echo '{volume.GetName()}' lies on another grid than '{volumes[0].GetName()}' "
                                f"({difference}): choose the echoes of one series.", anchor="different-grids")
    stacked = np.stack(echoes, dtype=np.float32, casting="same_kind")
    return EchoSeries(stacked, np.array(times), kind, grids[0], {"source": "scene"})


def _volumes_of(nodes) -> tuple[list, list[float], str | None]:
    """Return the echo volumes, the times the scene knows, and the kind it knows."""
    if isinstance(nodes, (list, tuple)):
        if len(nodes) > 1:
            return list(nodes), [_float(v.GetAttribute(ATTRIBUTE + "Time")) for v in nodes], None
        nodes = next(iter(nodes), None)
    sequence = sequence_of(nodes) if nodes is not None else None
    if sequence is None or not sequence.GetNumberOfDataNodes():
        raise EchoSeriesError("Choose an echo series: a sequence, or at least two volumes.", anchor="too-few-echoes")
    volumes = [sequence.GetNthDataNode(n) for n in range(sequence.GetNumberOfDataNodes())]
    by_index = {name: kind for kind, name in _INDEX_NAMES.items()}
    kind = sequence.GetAttribute(ATTRIBUTE + "Kind") or by_index.get(sequence.GetIndexName())
    return volumes, sequence_times(sequence), kind


