"""The voxels of one disc: its piece, where the image or the observer ended, and a margin around it."""

import numpy as np
from scipy import ndimage

from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Geometry, bounding_box

#: Fewest voxels a disc needs: fewer hold no orientation.
MIN_VOXELS = 30
#: A mask whose last slice has at least this share of the largest cross-section ends where the image (or the observer)
#: did, not where the disc does ...
CUT_SHARE = 0.5
#: Masks narrower than this share of the AP depth are no whole discs, even if their outer slices taper (whole: 1.0-1.6).
TRIM_WIDTH = 0.9


def crop(mask: np.ndarray, who: str):
    """Return the largest piece of the mask in its bounding box, the box, and notes."""
    count = int(mask.sum())
    if count == 0:
        raise RegistrationError(f"{who}: the segmentation has no such disc. Label it, or leave the level out.",
                                anchor="missing-level")
    if count < MIN_VOXELS:
        raise RegistrationError(f"{who}: only {count} voxels are labelled, too few to tell the disc's orientation "
                                f"(at least {MIN_VOXELS}). Check the segmentation.", anchor="tiny-disc")
    box = bounding_box(mask)
    pieces, number = ndimage.label(mask[box], np.ones((3, 3, 3)))
    notes = []
    if number > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        if np.sort(sizes)[-2] > 0.25 * sizes.max():
            raise RegistrationError(
                f"{who}: the label has {number} separate pieces of {', '.join(map(str, np.sort(sizes)[::-1][:4]))} "
                "voxels. Two discs may share one label: correct the segmentation.", anchor="two-components")
        notes.append(f"{number - 1} small piece(s) left out ({count - sizes.max()} voxels)")
        pieces = pieces == 1 + int(sizes.argmax())
        inner = bounding_box(pieces)
        box = tuple(slice(b.start + s.start, b.start + s.stop) for b, s in zip(box, inner))
        return pieces[inner], box, notes
    return pieces > 0, box, notes


def _lateral_areas(mask, geometry):
    """Return the array axis nearest to left-right, its sign toward the left, and the mask's areas along it."""
    columns = geometry.matrix3 / np.array(geometry.spacing)
    axis = int(np.argmax(np.abs(columns[0])))  # Image axis (i, j, k).
    array_axis = 2 - axis
    return array_axis, columns[0, axis], mask.sum(axis=tuple(a for a in range(3) if a != array_axis))


def trimmed(mask, box, geometry, notes):
    """Leave out the tapering outer slices of a mask that is too narrow to be a whole disc.

    They are where the observer stopped, not where the disc ends.
    """
    array_axis, _, areas = _lateral_areas(mask, geometry)
    other = [a for a in range(3) if a != array_axis]
    spacing = geometry.spacing[::-1]
    largest = np.argwhere(mask.take(int(areas.argmax()), axis=array_axis))
    depth = np.hypot(*[np.ptp(largest[:, n]) * spacing[a] for n, a in enumerate(other)])
    if len(areas) * spacing[array_axis] >= TRIM_WIDTH * depth:
        return mask, box
    keep = np.nonzero(areas >= CUT_SHARE * areas.max())[0]
    left_out = len(areas) - (keep[-1] - keep[0] + 1)
    if left_out:
        notes.append(f"{left_out} tapering outer slice(s) left out")
    inner, outer = [slice(None)] * 3, list(box)
    inner[array_axis] = slice(keep[0], keep[-1] + 1)
    start = box[array_axis].start
    outer[array_axis] = slice(start + keep[0], start + keep[-1] + 1)
    return mask[tuple(inner)], tuple(outer)


def lateral_edges(mask, geometry):
    """Return, for the sides right and left, whether the mask (in its box) ends with a large cross-section."""
    array_axis, sign, areas = _lateral_areas(mask, geometry)
    # Whether the volume's edge is met does not matter: masks are often left out on the last slices.
    first = bool(areas[0] >= CUT_SHARE * areas.max())
    last = bool(areas[-1] >= CUT_SHARE * areas.max())
    sides = ("right", "left") if sign > 0 else ("left", "right")
    return {sides[0]: {"axis": array_axis, "end": 0, "large": first},
            sides[1]: {"axis": array_axis, "end": 1, "large": last}}


def pad(mask, box, geometry, edges, margin: float = 12.0):
    """Pad the cropped mask by `margin` mm of background, and by itself where it may be cut.

    The self-padding keeps the distance near a cut edge free of a surface that is not there.
    """
    width = [int(np.ceil(margin / s)) for s in geometry.spacing[::-1]]
    padded = np.pad(mask, [(w, w) for w in width])
    at_cut = np.zeros(padded.shape, bool)
    for edge in edges.values():
        if edge["large"]:
            axis, w = edge["axis"], width[edge["axis"]]
            region = [slice(None)] * 3
            source = [slice(None)] * 3
            region[axis] = slice(0, w) if edge["end"] == 0 else slice(padded.shape[axis] - w, None)
            source[axis] = slice(w, w + 1) if edge["end"] == 0 else slice(-w - 1, -w)
            padded[tuple(region)] = padded[tuple(source)]
            at_cut[tuple(region)] = True
    start = np.array([b.start - w for b, w in zip(box, width)])[::-1]
    return padded, Geometry(padded.shape[::-1], geometry.spacing, geometry.index_to_world(start),
                            geometry.direction), at_cut


def far(at_cut, edges, cut, shape):
    """Return the self-padding of the sides that turned out not to be cut."""
    far = np.zeros(shape, bool)
    for side, is_cut in zip(("right", "left"), cut):
        edge = edges[side]
        if edge["large"] and not is_cut:
            half = [slice(None)] * 3
            n = shape[edge["axis"]]
            half[edge["axis"]] = slice(0, n // 2) if edge["end"] == 0 else slice(n // 2, None)
            far[tuple(half)] = at_cut[tuple(half)]
    return far
