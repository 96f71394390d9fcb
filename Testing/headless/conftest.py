import pytest

from DiscRelaxometryLib.headless import start_headless


@pytest.fixture
def slicer():
    """The headless runtime with an empty scene."""
    runtime = start_headless()
    runtime.mrmlScene.Clear(0)
    yield runtime
    runtime.mrmlScene.Clear(0)
