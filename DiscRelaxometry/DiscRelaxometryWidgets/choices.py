"""Settings of the panel that are kept in the parameter node, and the words that the user sees of choices."""

import enum
from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Choice(enum.Enum):
    """A choice of a panel: what is kept of it, and the text that the user sees."""

    def __new__(cls, kept, text):
        """Make a member whose value is what is kept."""
        member = object.__new__(cls)
        member._value_, member._text = kept, text
        return member

    def label(self):
        """Return the text shown in the panel."""
        return self._text


class Engine(Choice):
    """What runs the network."""

    auto = "auto", _("Automatic")
    torch = "torch", "PyTorch"
    onnx = "onnx", "ONNX Runtime (CPU)"


class Alignment(Choice):
    """Whether echoes are aligned to the first one."""

    auto = "auto", _("If motion is detected")
    on = "on", _("Always")
    off = "off", _("Never")


class Model(Choice):
    """Model and estimator of the fit."""

    mono2 = "mono2/nlls", _("Exponential, least squares")
    rician = "mono2/rician", _("Exponential, Rician noise")
    loglinear = "mono2/loglinear", _("Exponential, log-linear (fast)")
    mono3 = "mono3/nlls", _("Exponential with offset")
    epg = "epg/nlls", _("Stimulated echoes (EPG), multi-echo spin echo")


class Kind(Choice):
    """What an echo series measures."""

    auto = "auto", _("As recorded")
    T1rho = "T1rho", "T1rho"
    T2 = "T2", "T2"


@parameterNodeWrapper
class DiscRelaxometryParameterNode:
    """Settings of the panel, saved with the scene."""

    inputVolume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    engine: Engine = Engine.auto
    useGpu: bool = True
    convention: str = "auto"
    seriesFolder: Path
    series: vtkMRMLSequenceNode
    times: list[float]
    kind: Kind = Kind.auto
    alignment: Alignment = Alignment.auto
    model: Model = Model.mono2
    lowerBound: Annotated[float, WithinRange(0.1, 5000)] = 1.0
    upperBound: Annotated[float, WithinRange(1, 5000)] = 1000.0
    onlyDiscs: bool = False
    inspect: bool = False
    relaxationMap: vtkMRMLScalarVolumeNode
    m0Map: vtkMRMLScalarVolumeNode
    offsetMap: vtkMRMLScalarVolumeNode
    exportFolder: Path
