"""Choices of the panel: what is kept in the parameter node, and the words that the user sees."""

from DiscRelaxometryWidgets.choices import Choice
from slicer.i18n import tr as _


class Errors(Choice):
    """What permutation assumes of people's deviations from the model."""

    auto = "auto", _("Choose by a fixed rule")
    exchangeable = "exchangeable", _("Shuffle people")
    symmetric = "symmetric", _("Flip signs")


class StandardErrors(Choice):
    """How standard errors are computed."""

    classical = "classical", _("Equal scatter in all people")
    hc3 = "hc3", _("Scatter may differ (HC3)")


class Alternative(Choice):
    """Which effects a t contrast tests for."""

    both = "two-sided", _("Both signs")
    greater = "greater", _("Above 0 only")
    less = "less", _("Below 0 only")


class Change(Choice):
    """What of a participant's visits is explained."""

    none = "", _("Explain each visit")
    absolute = "absolute", _("First to last visit")
    rate = "per-year", _("Per year")
    percent = "percent", _("In percent of the first")
