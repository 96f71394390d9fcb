"""Settings of the panel that are kept in the parameter node, and the words that the user sees of choices."""

import enum
from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Engine(enum.Enum):
    """What runs the network."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"

    def label(self):
        """Return the text shown in the panel."""
        return {"auto": _("Automatic"), "torch": "PyTorch", "onnx": "ONNX Runtime (CPU)"}[self.value]


class Alignment(enum.Enum):
    """Whether echoes are aligned to the first one."""

    auto = "auto"
    on = "on"
    off = "off"

    def label(self):
        """Return the text shown in the panel."""
        return {"auto": _("If motion is detected"), "on": _("Always"), "off": _("Never")}[self.value]


class Model(enum.Enum):
    """Model and estimator of the fit."""

    mono2 = "mono2/nlls"
    rician = "mono2/rician"
    loglinear = "mono2/loglinear"
    mono3 = "mono3/nlls"
    epg = "epg/nlls"

    def label(self):
        """Return the text shown in the panel."""
        return {"mono2": _("Exponential, least squares"), "rician": _("Exponential, Rician noise"),
                "loglinear": _("Exponential, log-linear (fast)"), "mono3": _("Exponential with offset"),
                "epg": _("Stimulated echoes (EPG), multi-echo spin echo")}[self.name]


class Kind(enum.Enum):
    """What an echo series measures."""

    auto = "auto"
    T1rho = "T1rho"
    T2 = "T2"

    def label(self):
        """Return the text shown in the panel."""
        return _("As recorded") if self is Kind.auto else self.value


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
