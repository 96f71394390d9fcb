"""Settings of all tests: generated examples repeat in `make test`, and are fresh where the slow tests run too."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repeated", derandomize=True, deadline=None)
settings.register_profile("fresh", deadline=None)


def pytest_configure(config):
    """Choose the profile by what runs."""
    settings.load_profile("repeated" if "not slow" in (config.getoption("markexpr") or "") else "fresh")
