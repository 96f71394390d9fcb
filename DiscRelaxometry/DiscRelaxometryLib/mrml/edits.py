"""Discs written into a segmentation that is being edited: their segments, and which of them a hand has changed."""

import zlib

import numpy as np

from .. import labels as structures
from ..errors import SegmentationError
from ..headless import start_headless
from ..image import Image, voxel_points
from .segmentations import (
    discs_of,
    labels_from_segmentation,
    oriented_image,
    segment_mask,
    segment_tag,
    terminology_entry,
)
from .volumes import ATTRIBUTE, position_from_ras

_WRITTEN = ATTRIBUTE + "Written"
_GRADE, _GRADE_TEXT, _GRADED = (ATTRIBUTE + name for name in ("Pfirrmann", "PfirrmannText", "PfirrmannOf"))


def disc_segments(node) -> dict[int, str]:
    """Return segment ID by label value of the discs that a segmentation names."""
    found: dict[int, str] = {}
    for value, segment_id, _ in discs_of(node):
        found.setdefault(value, segment_id)
    return found


def ensure_disc_segment(node, value: int) -> str:
    """Return the segment ID of a disc; an empty segment with name, color and terminology is added where none is."""
    present = disc_segments(node)
    if value in present:
        return present[value]
    structure, segmentation = structures.BY_VALUE[value], node.GetSegmentation()
    # A renamed segment may hold the usual ID already.
    segment_id = segmentation.AddEmptySegment(segmentation.GenerateUniqueSegmentID(structure.key), structure.name,
                                              [c / 255 for c in structure.color])
    segment = segmentation.GetSegment(segment_id)
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(structure))
    segment.SetTag("Segmentation.Status", "inprogress")
    return segment_id


def mask_image(mask: Image, node, grid):
    """Return a mask as the vtkOrientedImageData that Segment Editor effects write with.

    The editor takes voxels for those of `grid` (its reference geometry, in the coordinates of the segmentation `node`)
    without a look at where they lie.
    """
    import vtk

    slicer = start_headless()
    image, result = oriented_image((mask.array != 0).astype(np.uint8), mask.geometry), slicer.vtkOrientedImageData()
    from_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, node.GetParentTransformNode(), from_world)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, grid, result, False, False, from_world)
    return result


def mark_written(node, *segment_ids: str) -> None:
    """Remember the voxels of segments (of all discs, if none is named) as written by the network."""
    for segment_id in segment_ids or disc_segments(node).values():
        node.GetSegmentation().GetSegment(segment_id).SetTag(_WRITTEN, _voxels(node, segment_id))


def keep_grades(node, grades: dict[int, tuple[str, str]]) -> None:
    """Keep estimated grades (label value -> numeral, explanation) with the discs of a segmentation as they are now."""
    for value, segment_id in disc_segments(node).items():
        segment = node.GetSegmentation().GetSegment(segment_id)
        for tag, text in zip((_GRADE, _GRADE_TEXT), grades.get(value, ("", ""))):
            segment.SetTag(tag, text)
    node.SetAttribute(_GRADED, _outlines(node))


def kept_grades(node) -> dict[str, tuple[str, str]]:
    """Return numeral and explanation by segment ID; no numeral if a disc was changed or renamed since."""
    found = {}
    for segment_id in disc_segments(node).values():
        segment = node.GetSegmentation().GetSegment(segment_id)
        found[segment_id] = segment_tag(segment, _GRADE), segment_tag(segment, _GRADE_TEXT)
    if any(text for _, text in found.values()) and node.GetAttribute(_GRADED) != _outlines(node):
        stale = "The discs were changed after the grades had been estimated: estimate them again."
        found = dict.fromkeys(found, ("", stale))
    return found


def _outlines(node) -> str:
    return " ".join(f"{value}:{_voxels(node, segment_id)}" for value, segment_id in sorted(disc_segments(node).items()))


def edited_discs(node, values=None) -> list[str]:
    """Return the names of discs whose voxels are not those that the network wrote; of `values` only, if given."""
    names = []
    for value, segment_id in disc_segments(node).items():
        segment = node.GetSegmentation().GetSegment(segment_id)
        now = _voxels(node, segment_id)
        if (values is None or value in values) and now and segment_tag(segment, _WRITTEN) != now:
            names.append(segment.GetName())
    return names


def outside(node, mask: Image, names) -> Image:
    """Return a mask without the voxels of the discs of these names."""
    result = mask.array != 0
    for segment_id in disc_segments(node).values():
        if node.GetSegmentation().GetSegment(segment_id).GetName() in names:
            result &= ~segment_mask(node, segment_id, mask.geometry)
    return mask.like(result)


def disc_under(node, lps) -> int | None:
    """Return the label value of the disc that holds a point (LPS mm), or None."""
    if not disc_segments(node):
        return None
    labels = labels_from_segmentation(node)
    index = labels.geometry.voxel_at(lps)
    value = 0 if index is None else int(labels.array[index])
    return value if value and structures.BY_VALUE[value].kind == "disc" else None


def free_level(node, mask: Image) -> int:
    """Return the label value of a new disc from its place among the named ones; the lowest level where none is.

    Between two discs that lie apart it takes a level that is missing there; beyond the outermost it continues the
    count. SegmentationError if no level is free at this place.
    """
    height = voxel_points(mask.array, mask.geometry).mean(0)[2]
    centers = {value: node.GetSegmentCenterRAS(segment_id) for value, segment_id in disc_segments(node).items()}
    heights = {value: position_from_ras(center)[2] for value, center in centers.items() if center is not None}
    if not heights:
        return structures.disc_value("L5-S1")
    below = [v for v, h in heights.items() if h < height]
    level = max(below) + 1 if below else min(heights) - 1
    structure = structures.BY_VALUE.get(level)
    if level in heights or structure is None or structure.kind != "disc":
        raise SegmentationError("No level is free at this place: name the discs there first (choose a level and click "
                                "on a disc), then add this one.")
    return level


def _voxels(node, segment_id: str) -> str:
    """Return a checksum of where a segment has voxels, whatever grid they are kept on; empty if it has none."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    image = start_headless().vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    scalars = image.GetPointData().GetScalars()
    if scalars is None:
        return ""
    low, high = np.array(image.GetExtent()).reshape(3, 2).T
    shape = (high - low + 1)[::-1]
    # Several times as fast as argwhere of the whole grid.
    where = np.stack(np.unravel_index(np.flatnonzero(vtk_to_numpy(scalars)), shape), axis=1)
    if not len(where):
        return ""
    return f"{zlib.crc32((where + low[::-1]).astype(np.int32).tobytes()):08x}"
