"""Between label images and segmentation nodes: names, terminology, colors, status, and what a user edited."""

import functools
import math
import zlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from .. import labels as structures
from ..errors import SegmentationError
from ..headless import start_headless
from ..image import Geometry, Image
from .volumes import ATTRIBUTE, add_node, oriented_geometry, ras_matrix, volume_geometry

#: Tag of a segment: why it bears its level.
LEVEL_REASON = ATTRIBUTE + "Level"
_CATEGORY = "Segmentation category and type - Lumbar discs"


def terminology_entry(structure: structures.Structure) -> str:
    """Return the serialized terminology entry of a structure."""
    code, meaning = structure.snomed
    return f"{_CATEGORY}~SCT^123037004^Anatomical Structure~SCT^{code}^{meaning}~^^~~^^~^^"


def load_terminology() -> None:
    """Make Slicer know the shipped disc terminology, which its own lists lack; done once a session."""
    import vtk

    from ..resources import resource_path

    logic = start_headless().modules.terminologies.logic()
    loaded = vtk.vtkStringArray()
    logic.GetLoadedTerminologyNames(loaded)
    if _CATEGORY not in [loaded.GetValue(n) for n in range(loaded.GetNumberOfValues())]:
        logic.LoadTerminologyFromFile(str(resource_path("Terminologies/LumbarDiscs.term.json")))


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
        Mean probability by label value, kept as a tag of the segment.
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
    load_terminology()
    node.CreateDefaultDisplayNodes()
    if reference is not None:
        slicer = start_headless()
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        node.SetNodeReferenceID(role, reference.GetID())
    else:
        converter = start_headless().vtkSegmentationConverter
        node.GetSegmentation().SetConversionParameter(
            converter.GetReferenceImageGeometryParameterName(),
            converter.SerializeImageGeometry(oriented_image(labels.array.astype(np.uint8), labels.geometry)))
    _add_segments(node, labels, values, confidence or {})
    node.SetAttribute(ATTRIBUTE + "Checksum", _checksum(node))
    return node


def _add_segments(node, labels: Image, values: list[int], confidence: dict[int, float]) -> None:
    """Add one segment per value, all sharing one labelmap whose voxel values are the project's."""
    slicer = start_headless()
    shared = oriented_image(labels.array.astype(np.uint8), labels.geometry)
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


def oriented_image(array: np.ndarray, geometry: Geometry):
    """Return an array on a grid as vtkOrientedImageData."""
    slicer = start_headless()
    from vtkmodules.util.numpy_support import get_vtk_array_type, numpy_to_vtk

    result = slicer.vtkOrientedImageData()
    result.SetDimensions(*geometry.size)
    result.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True,
                                                  array_type=get_vtk_array_type(array.dtype)))
    result.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ras_matrix(geometry)))
    return result


def segments_of(node) -> Iterator[tuple]:
    """Yield the ID and the vtkSegment of each segment of a node, in their order."""
    segmentation = node.GetSegmentation()
    for segment_id in [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]:
        yield segment_id, segmentation.GetSegment(segment_id)


def discs_of(node) -> list[tuple]:
    """Return (label value, segment ID, vtkSegment) of the discs that a segmentation names, cranial first."""
    found = [(segment_value(segment, segment_id), segment_id, segment) for segment_id, segment in segments_of(node)]
    discs = [disc for disc in found if disc[0] is not None and structures.BY_VALUE[disc[0]].kind == "disc"]
    return sorted(discs, key=lambda disc: -disc[0])


def _checksum(node) -> str:
    """Return a checksum of the segments' voxels, order and names left out."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    slicer = start_headless()
    total = 0
    for segment_id, segment in segments_of(node):
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segment_id, image)
        scalars = image.GetPointData().GetScalars()
        mask = np.packbits(vtk_to_numpy(scalars) != 0) if scalars else np.zeros(0, np.uint8)
        total ^= zlib.crc32(mask.tobytes() + repr((image.GetExtent(), segment.GetName())).encode())
    return f"{total:08x}"


def was_edited(node) -> bool:
    """Return whether a segmentation holds anything else than what this module wrote into it."""
    return node.GetSegmentation().GetNumberOfSegments() > 0 and \
        node.GetAttribute(ATTRIBUTE + "Checksum") != _checksum(node)


def own_geometry(node) -> Geometry | None:
    """Return the grid that a segmentation remembers having been made on, or None.

    Slicer keeps it as a conversion parameter, in the scene and in .seg.nrrd files, also when the volume is gone.
    """
    slicer = start_headless()
    converter = slicer.vtkSegmentationConverter
    text = node.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        return None
    return oriented_geometry(image)


def level_moves(node, n: int) -> list[tuple]:
    """Return (segment, structure now, structure then) of discs and vertebrae that move `n` levels, the lowest first.

    SegmentationError if a disc or vertebra would move beyond the named levels, or nothing has a level.
    """
    moves = []
    for segment_id, segment in segments_of(node):
        old = structures.BY_VALUE.get(segment_value(segment, segment_id) or 0)
        if old is None or old.kind not in ("disc", "vertebra"):
            continue
        new = structures.BY_VALUE.get(old.value + n)
        if new is None or new.kind != old.kind:
            raise SegmentationError(f"'{old.name}' cannot be moved by {n:+d} level(s): there is no name there.")
        moves.append((segment, old, new))
    if not moves:
        raise SegmentationError(f"'{node.GetName()}' has no named disc to move.", anchor="unknown-labels")
    return sorted(moves, key=lambda move: move[1].value)


def shift_segment_levels(node, n: int) -> None:
    """Rename disc and vertebra segments `n` levels up (cranial, positive) or down; voxels stay as they are.

    Where :func:`level_moves` raises, nothing is renamed.
    """
    moves = level_moves(node, n)
    untouched = not was_edited(node)
    was = node.StartModify()
    for segment, old, new in moves:
        segment.SetName(new.name)
        segment.SetColor(*(c / 255 for c in new.color))
        segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(new))
        segment.SetTag(LEVEL_REASON, f"Renamed by the user, from {old.name}.")
    node.EndModify(was)
    if untouched:
        node.SetAttribute(ATTRIBUTE + "Checksum", _checksum(node))


def segment_centers(node) -> dict[str, tuple[float, float, float]]:
    """Return the RAS center (mm) of each segment with voxels, by segment ID; SegmentationError if none has any."""
    centers = {segment_id: node.GetSegmentCenterRAS(segment_id) for segment_id, _ in segments_of(node)}
    found = {segment_id: tuple(center) for segment_id, center in centers.items() if center is not None}
    if not found:
        raise SegmentationError("The segmentation is empty.", anchor="unknown-labels")
    return found


def segment_value(segment, segment_id: str = "") -> int | None:
    """Return the label value that a segment's name, ID or terminology stands for, or None.

    Names of other tools (``disc_L4_L5``, ``L4/5``, ``vertebrae_L3``) are understood, too.
    """
    from ..discs import structure_for_name

    for text in (segment.GetName(), segment_id):
        key = text.strip().replace("/", "-").replace("_", "-")
        if key in structures.BY_NAME:
            return structures.BY_NAME[key].value
    meant = structure_for_name(segment.GetName())
    if meant is not None:
        return meant.value
    start_headless()
    entry = segment_tag(segment, segment.GetTerminologyEntryTagName())
    parts = entry.split("~")[2].split("^") if entry.count("~") >= 2 else []
    return _by_code().get(parts[1]) if len(parts) > 1 and parts[0] == "SCT" else None


@functools.cache
def _by_code() -> dict[str, int]:
    """Return label value by SNOMED code, of the codes that stand for one structure alone."""
    codes = Counter(s.snomed[0] for s in structures.STRUCTURES)
    return {s.snomed[0]: s.value for s in structures.STRUCTURES if codes[s.snomed[0]] == 1}


def segment_tag(segment, name: str) -> str:
    """Return a tag's text, or an empty string."""
    import vtk

    value = vtk.mutable("")
    return str(value) if segment.GetTag(name, value) else ""


def set_segment_tag(node, value: int, name: str, text: str) -> None:
    """Keep a text with the segment of a label value, under this project's prefix."""
    segment = node.GetSegmentation().GetSegment(structures.BY_VALUE[value].key)
    if segment is not None:
        segment.SetTag(ATTRIBUTE + name, text)


def labels_from_segmentation(node, reference=None) -> Image:
    """Return the segments of known structures as one label image.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode
    reference : vtkMRMLVolumeNode or Geometry, optional
        Grid to sample on (nearest neighbor); by default the segmentation's reference volume, or the grid that it
        remembers.

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
    if reference is None:
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) or own_geometry(node)
    if reference is None:
        raise SegmentationError(f"The segmentation '{node.GetName()}' has no reference volume: choose the volume on "
                                "whose grid it is to be read.", anchor="no-reference-volume")
    geometry = reference if isinstance(reference, Geometry) else volume_geometry(reference)
    values, layers, ignored = _values_and_layers(node)
    # Places in the list: where two segments claim a voxel, the smaller one keeps it.
    place, overlap = np.zeros(geometry.shape, np.uint16), 0
    for image, places in layers:
        lookup = np.zeros(int(image.GetScalarRange()[1]) + 1, np.uint16)
        for label, at in places.items():
            lookup[label:label + 1] = at
        mine = lookup[_sampled(node, image, geometry)]
        overlap += int(np.count_nonzero((mine > 0) & (place > 0)))
        np.copyto(place, mine, where=(mine > 0) & ((place == 0) | (mine < place)))
    result = np.array([0, *values], np.uint8)[place]
    if not result.any():
        raise SegmentationError(f"'{node.GetName()}' has no segment that names a disc (such as L4-L5) inside the "
                                "reference volume: rename the segments or import them with their tool's table.",
                                anchor="unknown-labels")
    return Image(result, geometry, {"ignored": ignored, "overlap": overlap, "name": node.GetName()})


def _values_and_layers(node) -> tuple[list[int], list[tuple], list[str]]:
    """Return label values of known segments in their order, labelmaps with place by voxel value, and unknown names."""
    slicer = start_headless()
    values, layers, ignored = [], {}, []
    for segment_id, segment in segments_of(node):
        value = segment_value(segment, segment_id)
        if value is None:
            ignored.append(segment.GetName())
            continue
        values.append(value)
        image = segment.GetRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName())
        if image is not None and not image.IsEmpty():
            # Segments that do not overlap share one labelmap.
            layers.setdefault(image, {})[segment.GetLabelValue()] = len(values)
    return values, list(layers.items()), ignored


def _sampled(node, image, geometry: Geometry) -> np.ndarray:
    """Return the values of a labelmap of a segmentation on a grid, the node's parent transform applied."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    slicer = start_headless()
    grid = oriented_image(np.zeros(geometry.shape, np.uint8), geometry)
    copy, sampled = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
    copy.DeepCopy(image)
    slicer.vtkSlicerSegmentationsModuleLogic.ApplyParentTransformToOrientedImageData(node, copy, False)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(copy, grid, sampled, False)
    return vtk_to_numpy(sampled.GetPointData().GetScalars()).reshape(geometry.shape)


def segment_mask(node, segment_id: str, geometry: Geometry) -> np.ndarray:
    """Return one segment on a grid, its parent transform applied."""
    image = start_headless().vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    if image.GetPointData().GetScalars() is None:
        return np.zeros(geometry.shape, bool)
    return _sampled(node, image, geometry) != 0
