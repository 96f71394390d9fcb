"""Choices of the panel: what is kept in the parameter node, and the words that the user sees."""

import enum

from slicer.i18n import tr as _


class Template(enum.Enum):
    """Which atlas people are registered to."""

    shipped = "shipped"
    build = "build"
    folder = "folder"

    def label(self):
        """Return the text shown in the panel."""
        return {"shipped": _("Shipped with the extension"), "build": _("Built from these people"),
                "folder": _("Atlas folder")}[self.value]


class Backend(enum.Enum):
    """What finds the correspondence."""

    coordinates = "coordinates"
    elastix = "elastix"
    brainsfit = "brainsfit"

    def label(self):
        """Return the text shown in the panel."""
        return {"coordinates": _("Disc coordinates (fast)"), "elastix": "Elastix", "brainsfit": "BRAINSFit"}[self.value]
