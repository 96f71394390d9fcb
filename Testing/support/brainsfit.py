"""Stand-in for the program BRAINSFit, a script that refuses what the program refuses.

Names and choices of options are those of the program's XML (BRAINSTools, 2026-06). Words, streams and exit codes are
those of BRAINSFit.cxx (lines 170 to 390) and of its command line parser, compared with a real BRAINSFit 5.2.1: a usage
error, no stage, no output, masks without a mode, and a warning that every B-spline writes on its standard error.
"""

import json
import sys
from pathlib import Path

import SimpleITK as sitk

IMAGES = ("fixedVolume", "movingVolume", "fixedBinaryVolume", "movingBinaryVolume")
FLAGS = ("useRigid", "useScaleVersor3D", "useScaleSkewVersor3D", "useAffine", "useBSpline", "useSyN", "useComposite",
         "useROIBSpline", "histogramMatch", "removeIntensityOutliers", "scaleOutputValues", "printVersionInfo",
         "initializeRegistrationByCurrentGenericTransform", "writeOutputTransformInFloat", "writeTransformOnFailure",
         "UseDebugImageViewer", "PromptAfterImageSend")
OUTPUTS = ("outputVolume", "linearTransform", "bsplineTransform", "strippedOutputTransform", "outputTransform")
VALUES = ("samplingPercentage", "splineGridSize", "initializeTransformMode", "maskProcessingMode", "medianFilterSize",
          "outputVolumePixelType", "backgroundFillValue", "interpolationMode", "numberOfIterations",
          "maximumStepLength", "minimumStepLength", "relaxationFactor", "translationScale", "reproportionScale",
          "skewScale", "maxBSplineDisplacement", "fixedVolumeTimeIndex", "movingVolumeTimeIndex",
          "numberOfHistogramBins", "numberOfMatchPoints", "costMetric", "maskInferiorCutOffFromCenter",
          "ROIAutoDilateSize", "ROIAutoClosingSize", "numberOfSamples", "transformType", "failureExitCode",
          "numberOfThreads", "debugLevel", "costFunctionConvergenceFactor", "projectedGradientTolerance",
          "maximumNumberOfEvaluations", "maximumNumberOfCorrections", "metricSamplingStrategy", "logFileReport",
          "initialTransform", "outputFixedVolumeROI", "outputMovingVolumeROI", "fixedVolume2", "movingVolume2")
NUMBERS = ("samplingPercentage", "costFunctionConvergenceFactor", "maxBSplineDisplacement", "numberOfThreads")
STAGES = FLAGS[:8]
CHOICES = {"costMetric": ("MMI", "MSE", "NC", "MIH"), "maskProcessingMode": ("NOMASK", "ROIAUTO", "ROI"),
           "metricSamplingStrategy": ("Random",), "interpolationMode": ("Linear", "NearestNeighbor", "BSpline"),
           "initializeTransformMode": ("Off", "useMomentsAlign", "useCenterOfHeadAlign", "useGeometryAlign",
                                       "useCenterOfROIAlign")}


def program(folder: Path, transform: sitk.Transform, ends: str = "completed", words: str = "") -> Path:
    """Write the program and return its path; each call of it adds a line to ``calls.txt`` beside it.

    Parameters
    ----------
    transform : SimpleITK.Transform
        What it finds.
    ends : {'completed', 'errors', 'silent', 'never'}
        How it ends; ``silent`` writes nothing and reports success.
    words : str
        What it says on its standard error where it ends with errors.
    """
    sitk.WriteTransform(transform, str(folder / "transform.h5"))
    path = folder / "BRAINSFit"
    path.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
                    f"from support.brainsfit import main\nmain({str(folder)!r}, {ends!r}, {words!r})\n")
    path.chmod(0o755)
    return path


def calls(folder: Path) -> list[dict]:
    """Return the options of each call of a program."""
    return [json.loads(line) for line in (folder / "calls.txt").read_text().splitlines()]


def main(folder: str, ends: str, words: str) -> None:
    """Be the program."""
    options, arguments = {}, sys.argv[1:]
    while arguments:
        name = arguments.pop(0).removeprefix("--")
        if name not in (*IMAGES, *FLAGS, *OUTPUTS, *VALUES):
            _usage(f"--{name}", "Couldn't find match for argument")
        options[name] = True if name in FLAGS else arguments.pop(0)
        if options[name] not in CHOICES.get(name, (options[name],)):
            _usage(f"(--{name})", f"Value '{options[name]}' does not meet constraint: {'|'.join(CHOICES[name])}")
        if name in NUMBERS and not options[name].replace(".", "").replace("e+", "").isdigit():
            _usage(f"(--{name})", f"Couldn't read argument value from string '{options[name]}'")
    with (Path(folder) / "calls.txt").open("a") as file:
        print(json.dumps(options), file=file)
    if not set(STAGES) & set(options):
        sys.exit("ERROR: No registration phases specified to perform!")
    if not set(OUTPUTS) & set(options):
        print("Error:  user requested neither localOutputTransform, nor strippedOutputTransform, nor outputVolume.")
        sys.exit(2)
    masks = set(IMAGES[2:]) & set(options)
    if masks and options.get("maskProcessingMode", "NOMASK") == "NOMASK":
        print("ERROR:  Can", "not specify mask file names when the default of NOMASK is used for the "
              "maskProcessingMode")
        sys.exit(1)
    for name in IMAGES:
        assert sitk.ReadImage(options[name]).GetSize() == sitk.ReadImage(options["fixedVolume"]).GetSize()
    print("WARNING: In itkLBFGSBOptimizerv4.cxx, line 99\nLBFGSBOptimizerv4: optimizer does not support scaling. "
          "All scales are set to one.", file=sys.stderr)
    if ends == "never":
        import time
        while True:
            time.sleep(0.1)
    if ends == "errors":
        sys.exit(words or 1)
    if ends == "completed":
        sitk.WriteTransform(sitk.ReadTransform(str(Path(folder) / "transform.h5")), options["outputTransform"])


def _usage(argument: str, problem: str):
    """End as the parser does, with the usage after the reason."""
    sys.exit(f"PARSE ERROR: Argument: {argument}\n             {problem}\n\nBrief USAGE: \n  BRAINSFit\n"
             "     [--costMetric <MMI|MSE|NC|MIH>]\n     [--version]\n     [-h]\n\n"
             "For complete USAGE and HELP type: \n   BRAINSFit --help\n")
