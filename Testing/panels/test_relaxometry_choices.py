"""Choices of the DiscRelaxometry panel reach the work: engine, device, model, alignment; a real person is segmented."""

import logging
import sys
import types

import numpy as np
import pytest

from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.resources import resource_path
from panels.host import click, panel_session, process, wait_until

TIMES = np.array([1.0, 20.0, 40.0, 60.0, 80.0])
GRID = Geometry((40, 32, 8), (1.0, 1.0, 4.0), (-16, -16, 20), (0, 0, 1, 1, 0, 0, 0, -1, 0))


@pytest.fixture
def panel(slicer):
    from DiscRelaxometry import DiscRelaxometryWidget

    yield from panel_session(DiscRelaxometryWidget)


def started(panel, monkeypatch) -> list:
    """Record jobs in place of running them."""
    found = []
    monkeypatch.setattr(panel.work, "run", lambda job, *more, **named: found.append(job))
    return found


@pytest.mark.parametrize("engine, gpu, expected", [
    ("auto", True, ("auto", None)), ("auto", False, ("onnx", None)), ("onnx", True, ("onnx", None)),
    ("torch", True, ("torch", None)), ("torch", False, ("torch", "cpu"))])
def test_engine_and_device_reach_the_job(panel, monkeypatch, engine, gpu, expected):
    monkeypatch.setattr(panel.work, "ensurePackages", lambda *a: True)
    monkeypatch.setattr("DiscRelaxometryWidgets.relaxometry_panel.ensure_torch", lambda p: True)
    found = started(panel, monkeypatch)
    p = panel._parameterNode
    p.inputVolume = mrml.volume_from_image(Image(np.zeros((3, 3, 3), np.float32), Geometry((3, 3, 3))), "T2w")
    panel.ui.engineCombo.setCurrentIndex([e.value for e in type(p.engine)].index(engine))
    panel.ui.gpuCheck.setChecked(gpu)
    click(panel.ui.segmentButton)
    assert [(j.arguments["engine"], j.arguments["device"]) for j in found] == [expected]


def choose_torch(panel, slicer, monkeypatch, installed=()):
    """Choose PyTorch in a Slicer that has only these packages."""
    import slicer.packaging as packaging

    monkeypatch.setattr(packaging, "pip_check", lambda r: str(r).split(">")[0] in installed)
    asked = []
    monkeypatch.setattr(packaging, "pip_ensure", lambda r, **k: asked.append(r))
    p = panel._parameterNode
    p.engine = type(p.engine).torch
    p.inputVolume = mrml.volume_from_image(Image(np.zeros((3, 3, 3), np.float32), Geometry((3, 3, 3))), "T2w")
    return asked


def test_torch_is_never_installed_by_a_plain_pip(panel, slicer, monkeypatch, caplog):
    asked = choose_torch(panel, slicer, monkeypatch)
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with caplog.at_level(logging.ERROR):
        click(panel.ui.segmentButton)
    assert "PyTorch extension" in caplog.text and "ONNX Runtime" in caplog.text and not panel.work.busy
    assert asked == []


def test_torch_comes_through_the_pytorch_extension(panel, slicer, monkeypatch):
    installed = ["safetensors"]
    asked = choose_torch(panel, slicer, monkeypatch, installed)
    calls = []

    def install(**options):
        calls.append(options)
        installed.append("torch")
        return types.ModuleType("torch")

    extension = types.SimpleNamespace(PyTorchUtilsLogic=lambda: types.SimpleNamespace(installTorch=install))
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    texts = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, title=None: texts.append(text) or True)
    found = started(panel, monkeypatch)
    click(panel.ui.segmentButton)
    assert len(found) == 1 and asked == [] and "GB" in texts[0]
    assert calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.6"}]


def test_the_sample_person_is_segmented_on_few_slices(panel, slicer):
    """The network itself, in the child process, on the middle slices of the embedded real person."""
    pytest.importorskip("onnxruntime")
    image = read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))
    size = image.geometry.size
    middle = size[0] // 2
    keep = slice(middle - 3, middle + 4)
    geometry = Geometry((7, *size[1:]), image.geometry.spacing,
                        image.geometry.index_to_world([keep.start, 0, 0]), image.geometry.direction)
    volume = mrml.volume_from_image(Image(image.array[..., keep], geometry), "seven slices")
    panel._parameterNode.inputVolume = volume
    click(panel.ui.segmentButton)
    texts = []
    wait_until(lambda: texts.append(panel.ui.statusLabel.text()) or not panel.work.busy, 300)
    table = panel.ui.discTable
    names = [table.item(r, 0).text() for r in range(table.rowCount())]
    assert {"L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"} <= set(names), panel.ui.statusLabel.text()
    assert all(0.5 < float(table.item(r, 4).text()) <= 1 for r in range(table.rowCount()))
    assert len(set(texts)) > 2, "progress is told while the network works"
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    # Segmenting again refills the node; once edited, it is kept and a new one is made.
    first = panel._parameterNode.segmentation
    assert first.GetSegmentation().GetSegment("L4L5") is not None
    assert slicer.util.getNode("seven slices confidence") is not None


def decay(value, offset=0.0, shift=0):
    """Return a series whose later echoes are shifted by whole voxels."""
    index = np.indices(GRID.shape)
    base = 400 + 300 * np.sin(index[1] / 3.0) * np.cos(index[2] / 4.0) + 100 * (index[0] % 3)
    echoes = []
    for n, time in enumerate(TIMES):
        frame = base * np.exp(-time / value) + offset
        echoes.append(np.roll(frame, shift if n else 0, axis=2))
    return EchoSeries(np.stack(echoes).astype(np.float32), TIMES, "T2", GRID)


def compute(panel, series, **choices):
    p = panel._parameterNode
    p.series = mrml.sequence_from_series(series, "echoes")
    p.alignment = type(p.alignment).off
    for name, value in choices.items():
        setattr(p, name, type(getattr(p, name))[value])
    process()
    click(panel.ui.computeButton)
    wait_until(lambda: not panel.work.busy, 300)
    return p.relaxationMap


@pytest.mark.parametrize("model", ["mono2", "loglinear", "rician"])
def test_each_two_parameter_model_is_computed(panel, slicer, model):
    series = decay(60.0)
    if model == "rician":
        # The level of noise is estimated from the images: without any, the model refuses, as it should.
        rng = np.random.default_rng(0)
        clean = np.where(np.indices(GRID.shape)[2] < 10, 0, series.echoes)
        noisy = np.abs(clean + rng.normal(0, 4, clean.shape) + 1j * rng.normal(0, 4, clean.shape))
        series = EchoSeries(noisy.astype(np.float32), TIMES, "T2", GRID)
    node = compute(panel, series, model=model)
    assert np.nanmedian(slicer.util.arrayFromVolume(node)) == pytest.approx(60, rel=0.02), panel.ui.statusLabel.text()
    assert panel._parameterNode.offsetMap is None


def test_the_offset_model_gives_an_offset_map_to_the_inspector(panel, slicer):
    node = compute(panel, decay(40.0, offset=80.0), model="mono3")
    assert np.nanmedian(slicer.util.arrayFromVolume(node)) == pytest.approx(40, rel=0.02)
    offset = panel._parameterNode.offsetMap
    assert np.nanmedian(slicer.util.arrayFromVolume(offset)) == pytest.approx(80, rel=0.05)
    panel.ui.inspectCheck.setChecked(True)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCursorPositionRAS((GRID.index_to_world([20, 16, 4]) * [-1, -1, 1]).tolist())
    fit = np.array({name: pairs for name, pairs, _, _ in panel._inspector.plot.points()}["Fit"])
    assert fit[-1, 1] > 80, "the curve levels off at the offset"


def test_moved_echoes_are_aligned_or_left_alone(panel, slicer):
    moved = decay(60.0, shift=2)
    apart = slicer.util.arrayFromVolume(compute(panel, moved, alignment="off")).copy()
    node = compute(panel, moved, alignment="on")
    together = slicer.util.arrayFromVolume(node)
    inner = (slice(1, -1), slice(6, -6), slice(6, -6))

    def error(values):
        return np.nanmedian(np.abs(values[inner] - 60))

    assert error(together) < 0.5 * error(apart), panel.ui.statusLabel.text()
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLTableNode")]
    assert any("motion" in n for n in names), "the motion is in a table"
    assert node.GetNodeReference(mrml.FITTED_SERIES) is not None, "the inspector shows the aligned echoes"


def test_only_inside_the_discs(panel, slicer):
    labels = np.zeros(GRID.shape, np.uint8)
    labels[2:6, 8:14, 8:30] = 11
    panel._parameterNode.segmentation = mrml.segmentation_from_labels(Image(labels, GRID), "Discs")
    panel.ui.onlyDiscsCheck.setChecked(True)
    node = compute(panel, decay(60.0))
    np.testing.assert_array_equal(np.isfinite(slicer.util.arrayFromVolume(node)), labels > 0)


def test_bounds_are_kept(panel, slicer):
    panel.ui.upperBoundSpin.setValue(50)
    node = compute(panel, decay(60.0))
    assert not np.isfinite(slicer.util.arrayFromVolume(node)).any()
    panel.ui.lowerBoundSpin.setValue(70)
    assert not panel.ui.computeButton.isEnabled() and "longest time" in panel.ui.computeButton.toolTip()
