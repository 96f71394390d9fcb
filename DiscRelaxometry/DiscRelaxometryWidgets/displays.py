"""Displays of this extension's maps after a scene was loaded."""

import slicer


def renew_thresholds():
    """Make the thresholds of maps take effect again, so that NaN and hidden values are transparent.

    Slicer (5.13) reads "apply threshold" from a scene without passing it on to the pipeline that draws; only a change
    of the setting does.
    """
    for display in slicer.util.getNodesByClass("vtkMRMLScalarVolumeDisplayNode"):
        volume = display.GetDisplayableNode()
        if volume is not None and volume.GetAttribute("DiscRelaxometry.Quantity") and display.GetApplyThreshold():
            display.ApplyThresholdOff()
            display.ApplyThresholdOn()
