"""Between MRML nodes and the project's arrays; the one place where RAS (MRML) meets LPS (everything else)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from . import labels as structures
from .errors import EchoSeriesError, GeometryError, SegmentationError
from .headless import start_headless
from .image import Geometry, Image
from .quantities import QUANTITIES, Quantity
from .tables import Column, Table

ATTRIBUTE = "DiscRelaxometry."
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CATEGORY = "Segmentation category and type - Lumbar discs"
_INDEX_NAMES = {"T1rho": "SpinLockTime", "T2": "EchoTime"}
_UNIT_MEANINGS = {"ms": "millisecond", "1": "no units", "%": "percent", "[arb'U]": "arbitrary unit", "mm": "millimeter"}


# ---------------------------------------------------------------- scene

@contextmanager
def all_or_nothing() -> Iterator[None]:
    """Save the scene for undo; when the block raises, remove the nodes that it added."""
    scene = start_headless().mrmlScene
    scene.SaveStateForUndo()
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    try:
        yield
    except BaseException:
        nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in reversed([n for n in nodes if n.GetID() not in before]):
            if scene.IsNodePresent(node):
                scene.RemoveNode(node)
        raise


def add_node(class_name: str, name: str):
    """Add a node under a unique name."""
    scene = start_headless().mrmlScene
    return scene.AddNewNodeByClass(class_name, scene.GenerateUniqueName(name))


def create_folder(name: str, parent: int | None = None) -> int:
    """Add a folder with a unique name to the subject hierarchy and return its item."""
    scene = start_headless().mrmlScene
    hierarchy = scene.GetSubjectHierarchyNode()
    parent = parent or hierarchy.GetSceneItemID()
    return hierarchy.CreateFolderItem(parent, hierarchy.GenerateUniqueItemName(name))


def put_in_folder(folder: int, *nodes) -> None:
    """Move nodes into a subject-hierarchy folder."""
    hierarchy = start_headless().mrmlScene.GetSubjectHierarchyNode()
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
        else:
            # Without the application no plugin has made an item for the node yet.
            hierarchy.CreateItem(folder, node)


# ---------------------------------------------------------------- geometry

def ras_matrix(geometry: Geometry) -> np.ndarray:
    """Return the 4 x 4 matrix from indices i, j, k to RAS mm."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = geometry.matrix3, geometry.origin
    return _LPS_TO_RAS @ matrix


def geometry_from_ras(matrix: np.ndarray, size: Sequence[int]) -> Geometry:
    """Return the LPS geometry of a 4 x 4 IJK-to-RAS matrix.

    Raises
    ------
    GeometryError
        If the axes are sheared, which no image format of this project can hold.
    """
    lps = _LPS_TO_RAS @ np.asarray(matrix, float)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    if not np.all(spacing > 0):
        raise GeometryError("The volume has a direction of zero length: check its header.", anchor="unusable-geometry")
    direction = lps[:3, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3:
        raise GeometryError("The volume's axes are not at right angles (a transform with shear, or a tilted gantry): "
                            "resample it to a regular grid first.", anchor="unusable-geometry")
    return Geometry(size, spacing, lps[:3, 3], direction.ravel())


def position_from_ras(point: Sequence[float]) -> np.ndarray:
    """Return an LPS point in mm from a RAS point (or the other way round)."""
    return np.asarray(point, float) * [-1, -1, 1]


def volume_geometry(node) -> Geometry:
    """Return a volume node's grid in world LPS, its linear parent transform included.

    Raises
    ------
    GeometryError
        If the node is empty or lies under a non-linear transform.
    """
    slicer = start_headless()
    import vtk

    if node is None or node.GetImageData() is None:
        name = node.GetName() if node is not None else "none"
        raise GeometryError(f"The volume '{name}' is empty: choose a volume that holds an image.")
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    world = slicer.util.arrayFromVTKMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None:
        if not parent.IsTransformToWorldLinear():
            raise GeometryError(f"'{node.GetName()}' lies under a non-linear transform: harden it first "
                                "(Data module, right-click the transform).")
        parent.GetMatrixTransformToWorld(matrix)
        world = slicer.util.arrayFromVTKMatrix(matrix) @ world
    return geometry_from_ras(world, node.GetImageData().GetDimensions())


# ---------------------------------------------------------------- volumes

def image_from_volume(node) -> Image:
    """Return a copy of a scalar or labelmap volume as an Image in world LPS.

    Raises
    ------
    GeometryError
        If the volume is empty, has several components, or its grid can not be used.
    """
    geometry = volume_geometry(node)
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise GeometryError(f"'{node.GetName()}' has several values a voxel: choose a scalar volume.",
                            anchor="not-a-3d-volume")
    array = np.array(start_headless().util.arrayFromVolume(node))
    return Image(array, geometry, {"name": node.GetName(), "node_id": node.GetID()})


def volume_from_image(image: Image, name: str, quantity: Quantity | str | None = None, node=None,
                      description: str = "", class_name: str = "vtkMRMLScalarVolumeNode", legend: bool = True):
    """Put an Image into a volume node.

    Parameters
    ----------
    image : Image
        Values; NaN stays NaN and is shown transparent.
    name : str
        Node name, made unique; ignored when `node` is given.
    quantity : Quantity or str, optional
        What the values are: sets unit, quantity code, window, color table, threshold and legend.
    node : vtkMRMLScalarVolumeNode, optional
        Node to fill instead of a new one.
    description : str, optional
        Sentence kept on the node; the quantity's own by default.
    legend : bool, optional
        Add a color legend.

    Returns
    -------
    vtkMRMLScalarVolumeNode
    """
    slicer = start_headless()
    array = image.array
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    elif array.dtype.itemsize == 8:
        array = array.astype(np.int32)
    if node is None:
        node = add_node(class_name, name)
    was = node.StartModify()
    node.SetAndObserveTransformNodeID(None)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ras_matrix(image.geometry)))
    slicer.util.updateVolumeFromArray(node, array)
    node.EndModify(was)
    node.CreateDefaultDisplayNodes()
    if quantity is not None:
        quantity = QUANTITIES[quantity] if isinstance(quantity, str) else quantity
        _describe(node, quantity, array, legend)
    if description or quantity:
        node.SetDescription(description or quantity.description)
    return node


def _describe(node, quantity: Quantity, array: np.ndarray, legend: bool) -> None:
    """Write unit, code and display settings of a quantity to a volume node."""
    slicer = start_headless()
    node.SetAttribute(ATTRIBUTE + "Quantity", quantity.key)
    code, unit = slicer.vtkCodedEntry(), slicer.vtkCodedEntry()
    code.SetValueSchemeMeaning(*quantity.code)
    unit.SetValueSchemeMeaning(quantity.unit, "UCUM", _UNIT_MEANINGS.get(quantity.unit, quantity.unit))
    node.SetVoxelValueQuantity(code)
    node.SetVoxelValueUnits(unit)
    display = node.GetDisplayNode()
    finite = array[np.isfinite(array)]
    low, high = quantity.window
    if quantity.unit == "[arb'U]" and finite.size:
        # Arbitrary units have no physical window.
        low, high = np.percentile(finite, [1, 99])
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(float(low), float(max(high, low + 1e-6)))
    # A threshold over all finite values leaves NaN transparent.
    display.AutoThresholdOff()
    display.SetThreshold(*(map(float, (finite.min(), finite.max())) if finite.size else (low, high)))
    display.ApplyThresholdOn()
    colors = color_node(quantity.colors)
    if colors is not None:
        display.SetAndObserveColorNodeID(colors.GetID())
    if legend:
        shown = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
        unit_text = "" if quantity.unit in ("1", "[arb'U]") else f" ({quantity.unit})"
        shown.SetTitleText(quantity.name + unit_text)


def color_node(name: str):
    """Return a color table of the scene by name, or None."""
    nodes = start_headless().util.getNodesByClass("vtkMRMLColorNode")
    return next((n for n in nodes if n.GetName() == name), None)


# ---------------------------------------------------------------- segmentations

def terminology_entry(structure: structures.Structure) -> str:
    """Return the serialized terminology entry of a structure."""
    code, meaning = structure.snomed
    return f"{_CATEGORY}~SCT^123037004^Anatomical Structure~SCT^{code}^{meaning}~^^~~^^~^^"


def segmentation_from_labels(labels: Image, name: str, reference=None, confidence: dict[int, float] | None = None,
                             node=None):
    """Put a label image into a segmentation node.

    Parameters
    ----------
    labels : Image
        Integer labels of ``labels.py``.
    name : str
        Node name, made unique.
    reference : vtkMRMLScalarVolumeNode, optional
        Volume that was segmented; its grid becomes the reference geometry.
    confidence : dict, optional
        Mean probability a label value, kept as a tag of the segment.
    node : vtkMRMLSegmentationNode, optional
        Node to refill. If its voxels were changed since this module wrote them, it is kept and a new node is returned.

    Returns
    -------
    vtkMRMLSegmentationNode

    Raises
    ------
    SegmentationError
        If the image holds no label, or a value that is not in the table.
    """
    values = [int(v) for v in np.unique(labels.array) if v]
    unknown = [v for v in values if v not in structures.BY_VALUE]
    if not values or unknown:
        raise SegmentationError(f"The label image '{name}' holds " + (
            f"the unknown label value(s) {unknown}: import it with the table of the tool that made it."
            if unknown else "no label at all."), anchor="unknown-labels")
    if node is None or was_edited(node):
        node = add_node("vtkMRMLSegmentationNode", name)
    else:
        node.GetSegmentation().RemoveAllSegments()
    node.CreateDefaultDisplayNodes()
    if reference is not None:
        slicer = start_headless()
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        node.SetNodeReferenceID(role, reference.GetID())
    _add_segments(node, labels, values, confidence or {})
    node.SetAttribute(ATTRIBUTE + "Checksum", _checksum(node))
    return node


def _add_segments(node, labels: Image, values: list[int], confidence: dict[int, float]) -> None:
    """Add one segment a value, all sharing one labelmap whose voxel values are the project's."""
    slicer = start_headless()
    shared = _oriented_image(labels.array.astype(np.uint8), labels.geometry)
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    node.GetSegmentation().SetSourceRepresentationName(representation)
    # Caudal to cranial values read cranial to caudal in the list, as reports have it.
    for value in sorted(values, key=lambda v: (structures.BY_VALUE[v].kind != "disc", -v)):
        structure = structures.BY_VALUE[value]
        segment = slicer.vtkSegment()
        segment.SetName(structure.name)
        segment.SetColor(*(c / 255 for c in structure.color))
        segment.SetLabelValue(value)
        segment.AddRepresentation(representation, shared)
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_entry(structure))
        segment.SetTag("Segmentation.Status", "inprogress")
        if value in confidence and math.isfinite(confidence[value]):
            segment.SetTag(ATTRIBUTE + "Confidence", f"{confidence[value]:.3f}")
        node.GetSegmentation().AddSegment(segment, structure.key)


def _oriented_image(array: np.ndarray, geometry: Geometry):
    slicer = start_headless()
    from vtkmodules.util.numpy_support import get_vtk_array_type, numpy_to_vtk

    result = slicer.vtkOrientedImageData()
    result.SetDimensions(*geometry.size)
    result.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True,
                                                  array_type=get_vtk_array_type(array.dtype)))
    result.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ras_matrix(geometry)))
    return result


def _checksum(node) -> str:
    """Return a checksum of the segments' voxels, order and names left out."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    slicer = start_headless()
    total = 0
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        segment = node.GetSegmentation().GetNthSegment(index)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(node.GetSegmentation().GetNthSegmentID(index), image)
        scalars = image.GetPointData().GetScalars()
        mask = np.packbits(vtk_to_numpy(scalars) != 0) if scalars else np.zeros(0, np.uint8)
        total ^= zlib.crc32(mask.tobytes() + repr((image.GetExtent(), segment.GetName())).encode())
    return f"{total:08x}"


def was_edited(node) -> bool:
    """Return whether a segmentation holds anything else than what this module wrote into it."""
    return node.GetSegmentation().GetNumberOfSegments() > 0 and \
        node.GetAttribute(ATTRIBUTE + "Checksum") != _checksum(node)


def segment_value(segment, segment_id: str = "") -> int | None:
    """Return the label value that a segment's terminology, name or ID stands for, or None."""
    by_code = {s.snomed[0]: s.value for s in structures.STRUCTURES
               if sum(o.snomed[0] == s.snomed[0] for o in structures.STRUCTURES) == 1}
    for text in (segment.GetName(), segment_id):
        key = text.strip().replace("/", "-").replace("_", "-")
        if key in structures.BY_NAME:
            return structures.BY_NAME[key].value
    start_headless()
    entry = segment_tag(segment, segment.GetTerminologyEntryTagName())
    parts = entry.split("~")[2].split("^") if entry.count("~") >= 2 else []
    return by_code.get(parts[1]) if len(parts) > 1 and parts[0] == "SCT" else None


def segment_tag(segment, name: str) -> str:
    """Return a tag's text, or an empty string."""
    import vtk

    value = vtk.mutable("")
    return str(value) if segment.GetTag(name, value) else ""


def labels_from_segmentation(node, reference=None) -> Image:
    """Return the segments of known structures as one label image.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode
    reference : vtkMRMLVolumeNode or Geometry, optional
        Grid to sample on (nearest neighbor); the segmentation's reference volume by default.

    Returns
    -------
    Image
        uint8; ``meta`` holds ``ignored`` (names of segments of unknown structures) and ``overlap`` (voxels claimed by
        two segments; the segment higher in the list keeps them).

    Raises
    ------
    SegmentationError
        If no grid is known or no segment names a known structure.
    """
    slicer = start_headless()
    if reference is None:
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    if reference is None:
        raise SegmentationError(f"The segmentation '{node.GetName()}' has no reference volume: choose the volume on "
                                "whose grid it is to be read.", anchor="no-reference-volume")
    geometry = reference if isinstance(reference, Geometry) else volume_geometry(reference)
    grid = _oriented_image(np.zeros(geometry.shape, np.uint8), geometry)
    result, overlap, ignored = np.zeros(geometry.shape, np.uint8), 0, []
    segmentation = node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(index)
        value = segment_value(segmentation.GetSegment(segment_id), segment_id)
        if value is None:
            ignored.append(segmentation.GetSegment(segment_id).GetName())
            continue
        mask = _segment_mask(slicer, node, segment_id, grid, geometry)
        overlap += int(np.count_nonzero(mask & (result != 0)))
        result[mask & (result == 0)] = value
    if not result.any():
        raise SegmentationError(f"'{node.GetName()}' has no segment that names a disc (such as L4-L5) inside the "
                                "reference volume: rename the segments or import them with their tool's table.",
                                anchor="unknown-labels")
    return Image(result, geometry, {"ignored": ignored, "overlap": overlap, "name": node.GetName()})


def _segment_mask(slicer, node, segment_id: str, grid, geometry: Geometry) -> np.ndarray:
    """Return one segment on a grid, its parent transform applied."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    image, sampled = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    if image.GetPointData().GetScalars() is None:
        return np.zeros(geometry.shape, bool)
    slicer.vtkSlicerSegmentationsModuleLogic.ApplyParentTransformToOrientedImageData(node, image, False)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, grid, sampled, False)
    return vtk_to_numpy(sampled.GetPointData().GetScalars()).reshape(geometry.shape) != 0
