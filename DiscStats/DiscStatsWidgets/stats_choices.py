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
