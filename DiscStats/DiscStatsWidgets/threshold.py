"""Thresholds of statistical maps, on the display alone: p and q below, F above, t and r beyond on both sides."""

import slicer

from DiscRelaxometryLib import mrml

#: Reference of a display node to the color table that it had before; the limit is kept as an attribute.
PLAIN_COLORS = "DiscRelaxometry.PlainColors"
LIMIT = "DiscRelaxometry.Threshold"


def is_p(node):
    """Return whether a map holds p or q values."""
    return (node.GetAttribute(mrml.ATTRIBUTE + "Statistic") or "").startswith(("p", "q"))


def is_signed(node):
    """Return whether a map's window has two sides, as that of t, r and effects."""
    return node.GetDisplayNode().GetWindowLevelMin() < 0 < node.GetDisplayNode().GetWindowLevelMax()


def threshold_of(node):
    """Return the threshold that a map is shown with; 0 where nothing is hidden."""
    text = node.GetAttribute(LIMIT)
    if text:
        return float(text)
    return node.GetDisplayNode().GetUpperThreshold() if is_p(node) else 0.0


def show_beyond(node, limit):
    """Show p and q up to `limit`, one-sided maps from `limit` up, and signed ones beyond it on both sides.

    A display node of Slicer shows one band of values. Signed maps therefore get a color table of their own, whose
    middle is transparent; its 256 colors make the step 1/128 of the window's half.
    """
    display = node.GetDisplayNode()
    low, high = node.GetImageData().GetScalarRange()
    # A scene file rounds limits: without a margin, the extreme voxels would be hidden after loading.
    margin = 1e-3 * max(abs(low), abs(high))
    low, high = low - margin, high + margin
    node.SetAttribute(LIMIT, repr(float(limit)))
    display.ApplyThresholdOn()
    if is_p(node):
        display.SetThreshold(0.0, limit)
    elif is_signed(node):
        display.SetThreshold(low, high)
        _hide_middle(node, limit)
    else:
        display.SetThreshold(limit if limit > 0 else low, max(high, limit))


def _hide_middle(node, limit):
    """Make the colors of values smaller than `limit` in size transparent."""
    display = node.GetDisplayNode()
    colors = display.GetColorNode()
    plain = display.GetNodeReference(PLAIN_COLORS)
    if plain is None:
        plain = colors
        colors = slicer.modules.colors.logic().CopyNode(plain, f"{node.GetName()} colors")
        colors.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(colors)
        display.SetNodeReferenceID(PLAIN_COLORS, plain.GetID())
        display.SetAndObserveColorNodeID(colors.GetID())
    bottom, top = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    count = colors.GetNumberOfColors()
    was = colors.StartModify()
    for index in range(count):
        middle = bottom + (top - bottom) * (index + 0.5) / count
        colors.SetOpacity(index, 0.0 if abs(middle) < limit else 1.0)
    colors.EndModify(was)
