"""Choices of the panel: what is kept in the parameter node, and the words that the user sees."""

from DiscRelaxometryWidgets.choices import Choice
from slicer.i18n import tr as _


class Template(Choice):
    """Which atlas people are registered to."""

    shipped = "shipped", _("Shipped with the extension")
    build = "build", _("Built from these people")
    folder = "folder", _("Atlas folder")


class Backend(Choice):
    """What finds the correspondence."""

    coordinates = "coordinates", _("Disc coordinates (fast)")
    elastix = "elastix", "Elastix"
    brainsfit = "brainsfit", "BRAINSFit"
