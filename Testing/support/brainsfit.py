"""Stand-in for ``slicer.cli.run`` with BRAINSFit: no kinder than Slicer.

It imitates what Slicer 5.13 does with the program (``vtkSlicerCLIModuleLogic``). The node and its states are Slicer's
own. A parameter that the program's XML (BRAINSTools, 2026-06) does not name is left out by Slicer, and refused here.
Images and transforms are passed on as nodes alone: a path given as an output never reaches the program, which then says
on its output that it has nothing to write.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.headless import start_headless

NODES = {"fixedVolume", "movingVolume", "outputVolume", "fixedBinaryVolume", "movingBinaryVolume", "linearTransform",
         "bsplineTransform", "initialTransform", "outputFixedVolumeROI", "outputMovingVolumeROI", "fixedVolume2",
         "movingVolume2", "strippedOutputTransform", "outputTransform"}
OUTPUTS = {"outputVolume", "linearTransform", "bsplineTransform", "strippedOutputTransform", "outputTransform"}
VALUES = {"samplingPercentage", "splineGridSize", "initializeTransformMode", "useRigid", "useScaleVersor3D",
          "useScaleSkewVersor3D", "useAffine", "useBSpline", "useSyN", "useComposite", "maskProcessingMode",
          "useROIBSpline", "histogramMatch", "medianFilterSize", "removeIntensityOutliers", "outputVolumePixelType",
          "backgroundFillValue", "scaleOutputValues", "interpolationMode", "numberOfIterations", "maximumStepLength",
          "minimumStepLength", "relaxationFactor", "translationScale", "reproportionScale", "skewScale",
          "maxBSplineDisplacement", "fixedVolumeTimeIndex", "movingVolumeTimeIndex", "numberOfHistogramBins",
          "numberOfMatchPoints", "costMetric", "maskInferiorCutOffFromCenter", "ROIAutoDilateSize",
          "ROIAutoClosingSize", "numberOfSamples", "transformType", "initializeRegistrationByCurrentGenericTransform",
          "writeOutputTransformInFloat", "failureExitCode", "writeTransformOnFailure", "numberOfThreads", "debugLevel",
          "costFunctionConvergenceFactor", "projectedGradientTolerance", "maximumNumberOfEvaluations",
          "maximumNumberOfCorrections", "UseDebugImageViewer", "PromptAfterImageSend", "metricSamplingStrategy",
          "logFileReport", "printVersionInfo"}
MODES = {"costMetric": ("MMI", "MSE", "NC", "MIH"), "maskProcessingMode": ("NOMASK", "ROIAUTO", "ROI"),
         "metricSamplingStrategy": ("Random",), "initializeTransformMode": (
             "Off", "useMomentsAlign", "useCenterOfHeadAlign", "useGeometryAlign", "useCenterOfROIAlign")}


class BrainsfitProgram:
    """The program, which finds `transform` after `polls` looks at its state.

    Parameters
    ----------
    transform : SimpleITK.Transform
    ends : {'completed', 'errors', 'cancelled', 'silent'}
        How it ends; ``silent`` writes nothing and reports success.
    """

    def __init__(self, transform: sitk.Transform, ends: str = "completed", polls: int = 3, errors: str = ""):
        self.transform, self.ends, self.polls, self.errors = transform, ends, polls, errors
        self.calls: list[tuple[dict, dict]] = []
        self.cancelled = 0

    def run(self, module, node, parameters, wait_for_completion=False, delete_temporary_files=True,
            update_display=True):
        """Stand for ``slicer.cli.run``."""
        assert module == "BRAINSFit" and node is None
        assert not wait_for_completion, "the window would not answer"
        scene = start_headless().mrmlScene
        unknown = set(parameters) - NODES - VALUES
        assert not unknown, f"not in BRAINSFit's XML: {unknown}"
        for key, allowed in MODES.items():
            assert parameters.get(key, allowed[0]) in allowed, f"{key}: {parameters[key]}"
        passed = {k: scene.GetNodeByID(str(parameters[k])) for k in NODES & set(parameters)}
        passed = {k: n for k, n in passed.items() if n is not None}
        self.calls.append((dict(parameters), {
            k: np.array(start_headless().util.arrayFromVolume(n)) for k, n in passed.items()
            if n.IsA("vtkMRMLVolumeNode")}))
        cli = _running(self, passed)
        scene.AddNode(cli)
        return cli


def _running(program: BrainsfitProgram, passed: dict):
    """Return Slicer's node of a command line module, which each look at its state brings nearer to its end."""

    class Running(start_headless().vtkMRMLCommandLineModuleNode):
        left = program.polls

        def IsBusy(self):
            if super().IsBusy():
                self.left -= 1
                self.SetStatus(self.Running, False)
                if self.left <= 0:
                    self.end()
            return super().IsBusy()

        def Cancel(self):
            program.cancelled += 1
            program.ends, self.left = "cancelled", 1

        def end(self):
            ends = program.ends
            if not OUTPUTS & set(passed):
                self.SetOutputText("Reading images\nError: at least one output has to be specified.\n", False)
                ends = "errors"
            if ends == "cancelled":
                self.SetStatus(self.Cancelled, False)
            elif ends == "errors":
                self.SetErrorText(program.errors, False)
                self.SetStatus(self.CompletedWithErrors, False)
            else:
                if ends == "completed":
                    _load(program.transform, passed["outputTransform"])
                self.SetStatus(self.Completed, False)

    node = Running()
    node.SetStatus(node.Scheduled, False)
    return node


def _load(transform: sitk.Transform, node) -> None:
    """Load a transform into the node, as Slicer loads what a program wrote."""
    scene = start_headless().mrmlScene
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "written.h5")
        sitk.WriteTransform(transform, path)
        storage.SetFileName(path)
        assert storage.ReadData(node)
    scene.RemoveNode(storage)
