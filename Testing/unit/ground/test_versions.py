"""Versions are those in memory; what is not installed has none."""

import platform

import numpy as np

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.versions import versions_of


def test_versions_are_of_what_is_installed_and_each_call_is_another_dictionary():
    found = versions_of(("numpy", "no-such-library"))
    assert found == {"disc-relaxometry": __version__, "python": platform.python_version(), "numpy": np.__version__}
    found.clear()
    assert versions_of(("numpy",))["numpy"] == np.__version__
