"""What the module offers to other parts of Slicer, after the start and without loading network or packages."""

import importlib.util
from pathlib import Path

import slicer


def effect():
    """Offer the effect "Lumbar discs" in the Segment Editor."""
    from qSlicerSegmentationsEditorEffectsPythonQt import qSlicerSegmentEditorScriptedEffect

    scripted = qSlicerSegmentEditorScriptedEffect(None)
    # Slicer puts the file into sys.modules under the name of its folder, which must therefore be no package.
    scripted.setPythonSource((Path(__file__).parent / "LumbarDiscsEditor" / "LumbarDiscsEffect.py").as_posix())
    scripted.self().register()


def dicom_plugin():
    """Offer echo series in the DICOM browser; a Slicer that was built without DICOM has none."""
    if importlib.util.find_spec("DICOMLib") is None:
        return
    from .echo_plugin import EchoSeriesPlugin

    if not hasattr(slicer.modules, "dicomPlugins"):
        slicer.modules.dicomPlugins = {}
    slicer.modules.dicomPlugins["DICOMEchoSeriesPlugin"] = EchoSeriesPlugin
