"""Choices of the panel: what is kept in the parameter node, and the words that the user sees."""

import enum

from slicer.i18n import tr as _


class Errors(enum.Enum):
    """What permutation assumes of people's deviations from the model."""

    auto = "auto"
    exchangeable = "exchangeable"
    symmetric = "symmetric"

    def label(self):
        """Return the text shown in the panel."""
        return {"auto": _("Choose by a fixed rule"), "exchangeable": _("Shuffle people"),
                "symmetric": _("Flip signs")}[self.value]


class StandardErrors(enum.Enum):
    """How standard errors are computed."""

    classical = "classical"
    hc3 = "hc3"

    def label(self):
        """Return the text shown in the panel."""
        return {"classical": _("Equal scatter in all people"), "hc3": _("Scatter may differ (HC3)")}[self.value]


class Alternative(enum.Enum):
    """Which effects a t contrast tests for."""

    both = "two-sided"
    greater = "greater"
    less = "less"

    def label(self):
        """Return the text shown in the panel."""
        return {"both": _("Both signs"), "greater": _("Above 0 only"), "less": _("Below 0 only")}[self.name]


class Change(enum.Enum):
    """What of a participant's visits is explained."""

    none = ""
    absolute = "absolute"
    rate = "per-year"
    percent = "percent"

    def label(self):
        """Return the text shown in the panel."""
        return {"none": _("Explain each visit"), "absolute": _("First to last visit"), "rate": _("Per year"),
                "percent": _("In percent of the first")}[self.name]
