"""Choices of the panel: what is kept in the parameter node, and the words that the user sees."""

import enum

from slicer.i18n import tr as _


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
