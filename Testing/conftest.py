"""Settings of all tests: generated examples repeat in `make test`, and are fresh where the slow tests run too."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("repeated", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None)


def pytest_configure(config):
    """Choose the profile by what runs."""
    settings.load_profile("repeated" if "not slow" in (config.getoption("markexpr") or "") else "fresh")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let one worker run the tests of a file, which share its fixtures, or those of a group of files."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))
