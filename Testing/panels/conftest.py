import os
import sys

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtWidgets", reason="the panel tests need PySide6")


@pytest.fixture(scope="session")
def nursery():
    from panels.nursery import Nursery

    made = Nursery()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def children(request, monkeypatch):
    """Fork the children of panels, but where Qt forbids it; a file with a fixture of this name has real ones."""
    from DiscRelaxometryLib.jobs import ChildProcess

    if sys.platform == "linux":
        monkeypatch.setattr(ChildProcess, "_start",
                            lambda self, executable: request.getfixturevalue("nursery").start(self, executable))


@pytest.fixture
def slicer():
    """The host with an empty scene that has slice views' nodes and a crosshair."""
    from panels.host import start_host

    runtime = start_host()
    runtime.mrmlScene.Clear(0)
    for name in ("Red", "Yellow", "Green"):
        node = runtime.vtkMRMLSliceNode()
        node.SetLayoutName(name)
        node.SetName(name)
        runtime.mrmlScene.AddNode(node)
        composite = runtime.vtkMRMLSliceCompositeNode()
        composite.SetLayoutName(name)
        runtime.mrmlScene.AddNode(composite)
    runtime.mrmlScene.AddNewNodeByClass("vtkMRMLCrosshairNode", "Crosshair")
    yield runtime
    runtime.mrmlScene.Clear(0)
