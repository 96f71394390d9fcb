"""What the slice views show after a step: one segmentation, one map with one legend, and nothing of earlier runs."""

import numpy as np

from .. import labels as structures
from ..errors import SegmentationError
from ..headless import start_headless
from ..image import Image
from .segmentations import labels_from_segmentation
from .volumes import ATTRIBUTE, image_from_volume, put_beside, volume_from_image

#: Node reference from a map to its copy that holds the discs alone, for the eyes only.
IN_DISCS = ATTRIBUTE + "InDiscs"
LIGHT = 0.15


def show_alone(*nodes, fill: float = LIGHT) -> None:
    """Show these segmentations as outlines with a light fill, and hide all others of the scene.

    Parameters
    ----------
    *nodes : vtkMRMLSegmentationNode
    fill : float, optional
        Opacity inside the outlines; 0 shows outlines only.
    """
    slicer = start_headless()
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        wanted = node in nodes
        if wanted:
            node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        if display is None:
            continue
        display.SetVisibility(wanted)
        if wanted:
            display.SetVisibility2DFill(fill > 0)
            display.SetVisibility2DOutline(True)
            display.SetOpacity2DFill(fill)


def show_in_views(volumes: dict, segmentations: dict) -> None:
    """Show a volume and the outlines of a segmentation in each slice view that is named, in sagittal slices.

    Parameters
    ----------
    volumes, segmentations : dict
        Name of a slice view (``Red``) -> node.
    """
    slicer = start_headless()
    views = {n.GetLayoutName(): n for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in volumes:
            composite.SetBackgroundVolumeID(volumes[composite.GetLayoutName()].GetID())
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
    for name in volumes:
        if name in views and views[name].HasSliceOrientationPreset("Sagittal"):
            views[name].SetOrientation("Sagittal")
    for node in dict.fromkeys(segmentations.values()):
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetVisibility2DFill(False)
        display.SetVisibility2DOutline(True)
        display.SetViewNodeIDs([views[n].GetID() for n, some in segmentations.items() if some is node and n in views])
    if slicer.app.layoutManager() is not None:
        slicer.util.resetSliceViews()


def show_legend(volume=None) -> None:
    """Show the color legend of a volume, which is made where there is none, and hide all other legends."""
    slicer = start_headless()
    logic = slicer.modules.colors.logic()
    wanted = None
    if volume is not None and volume.GetDisplayNode() is not None:
        wanted = logic.GetColorLegendDisplayNode(volume) or logic.AddDefaultColorLegendDisplayNode(volume)
    for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
        legend.SetVisibility(legend is wanted)


def show_map(volume, segmentation=None):
    """Show a map inside the discs with its legend, under their outlines; without a disc on its grid, all of it.

    Parameters
    ----------
    volume : vtkMRMLScalarVolumeNode
    segmentation : vtkMRMLSegmentationNode, optional

    Returns
    -------
    vtkMRMLScalarVolumeNode
        What is shown: the map, or a copy of it that is missing (NaN) outside the discs.
    """
    shown = volume
    if segmentation is not None:
        try:
            shown = _in_discs(volume, labels_from_segmentation(segmentation, volume))
        except SegmentationError:
            segmentation = None
    if segmentation is not None:
        show_alone(segmentation, fill=0.0)
    start_headless().util.setSliceViewerLayers(foreground=shown, foregroundOpacity=1.0, label=None)
    show_legend(shown)
    return shown


def _in_discs(volume, labels: Image):
    """Return the copy of a map that is NaN outside the discs, made anew."""
    discs = [s.value for s in structures.STRUCTURES if s.kind == "disc"]
    image = image_from_volume(volume)
    inside = np.where(np.isin(labels.array, discs), image.array, np.nan).astype(np.float32)
    copy = volume_from_image(Image(inside, image.geometry), f"{volume.GetName()} in the discs",
                             volume.GetAttribute(ATTRIBUTE + "Quantity"), volume.GetNodeReference(IN_DISCS))
    volume.SetNodeReferenceID(IN_DISCS, copy.GetID())
    put_beside(volume, copy)
    return copy
