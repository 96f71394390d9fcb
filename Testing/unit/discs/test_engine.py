"""The shipped weights: hash, clear errors, and the same answer from both engines."""

import json
import shutil
import sys

import numpy as np
import pytest

from DiscRelaxometryLib.discs.engine import OnnxEngine, load_engine, load_model, may_accelerate
from DiscRelaxometryLib.discs.inference import normalize_signal, softmax, stack_indices
from DiscRelaxometryLib.discs.network import CLASSES
from DiscRelaxometryLib.discs.sagittal import plan_sagittal
from DiscRelaxometryLib.errors import DiscRelaxometryError, SegmentationError
from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.resources import resource_path


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture
def copy(tmp_path, model):
    """Return a copy of the shipped weights that a test may damage."""
    shutil.copytree(model.folder, tmp_path / "Weights")
    return tmp_path / "Weights"


def test_manifest_says_what_the_weights_are(model):
    manifest = model.manifest
    assert tuple(manifest["classes"]) == CLASSES
    assert "CC BY 4.0" in manifest["data"]
    people = manifest["training"]["people"]
    # Everyone at hand but every fifth clinical person: figures and temperature are of a network that held eight out.
    assert len(people["train"]) == 100 and people["test"] == []
    assert len(manifest["calibration"]["people"]) == 8 and set(manifest["calibration"]["people"]) < set(people["train"])
    assert sum(entry["bytes"] for entry in manifest["files"].values()) <= 20_000_000


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_files_are_what_was_released(model, kind):
    assert model.file(kind).stat().st_size == model.manifest["files"][kind]["bytes"]


def test_damaged_weights_are_named(copy):
    model = load_model(copy / "lumbar-discs.json")
    path = copy / model.manifest["files"]["onnx"]["name"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DiscRelaxometryError, match="damaged"):
        load_engine(model, "onnx")
    path.unlink()
    with pytest.raises(DiscRelaxometryError, match="missing"):
        load_engine(model, "onnx")


def test_the_graph_reads_the_bytes_of_the_safetensors_file(copy):
    model = load_model(copy / "lumbar-discs.json")
    path = model.file("safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DiscRelaxometryError, match="safetensors' are damaged"):
        load_engine(model, "onnx")
    graph = model.file("onnx").read_bytes()
    assert path.name.encode() in graph and len(graph) < 200_000
    # The exporter writes the stack of its own machine into each node.
    assert b".py" not in graph and b"site-packages" not in graph


def test_damaged_or_missing_manifest_is_named(copy):
    manifest = copy / "lumbar-discs.json"
    manifest.write_text(manifest.read_text()[:200])
    with pytest.raises(DiscRelaxometryError, match="missing or damaged"):
        load_model(manifest)
    values = {"name": "x"}
    manifest.write_text(json.dumps(values))
    with pytest.raises(DiscRelaxometryError, match="missing or damaged"):
        load_model(manifest)


def test_unknown_engine_and_missing_package(model, monkeypatch):
    with pytest.raises(SegmentationError, match="auto, onnx, torch"):
        load_engine(model, "tensorflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SegmentationError, match="onnxruntime"):
        load_engine(model, "auto")
    with pytest.raises(SegmentationError, match="torch and safetensors"):
        load_engine(model, "torch")


def test_light_engine_needs_no_torch(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    engine = OnnxEngine(model, threads=1)
    assert engine.run(np.zeros((1, 5, 32, 64), np.float32)).shape == (1, len(CLASSES), 32, 64)


def real_stacks(model):
    """Return three stacks of the embedded person, cut to a multiple of the network's."""
    image = read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))
    plan = plan_sagittal(image.geometry, model.config.spacing_mm)
    slices = plan.upright(normalize_signal(image.array))
    rows, columns = (n // 32 * 32 for n in slices.shape[1:])
    indices = stack_indices(len(slices), plan.slice_mm, model.config.slices)[[3, 10, 16]]
    return slices[indices, :rows, :columns]


def test_torch_and_onnxruntime_agree_on_real_slices(model):
    pytest.importorskip("torch")
    stacks = real_stacks(model)
    first, second = (softmax(load_engine(model, name, threads=1).run(stacks), 1.0) for name in ("torch", "onnx"))
    assert np.abs(first - second).max() < 1e-3
    # Labels differ nowhere but where two classes are equally probable to rounding.
    ordered = np.sort(first, 1)
    decided = ordered[:, -1] - ordered[:, -2] > 1e-4
    assert np.array_equal(first.argmax(1)[decided], second.argmax(1)[decided]) and decided.mean() > 0.9999


def test_out_of_memory_goes_on_on_the_cpu(model):
    pytest.importorskip("torch")
    engine = load_engine(model, "torch", device="cpu", threads=1)
    engine.device, network = "cuda", engine.network

    class Full:
        def to(self, device):
            assert device == "cpu"
            return network

    engine.network = Full()
    run, calls = engine._run, []

    def first_fails(stacks):
        calls.append(engine.device)
        if engine.device == "cuda":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return run(stacks)

    engine._run = first_fails
    with pytest.warns(RuntimeWarning, match="continues on the CPU"):
        logits = engine.run(np.zeros((1, 5, 32, 32), np.float32))
    assert calls == ["cuda", "cpu"] and logits.shape == (1, len(CLASSES), 32, 32)


@pytest.mark.parametrize("build, expected", [
    ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = None\n", False),
    ("cuda = '12.8'\nhip = None\n", True), ("hip: Optional[str] = '6.4'\ncuda: Optional[str] = None\n", True),
    ("nothing = 'known'\n", True)])
def test_builds_for_the_cpu_alone_are_known_without_importing_torch(tmp_path, monkeypatch, build, expected):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('torch was imported')")
    (tmp_path / "torch" / "version.py").write_text(build)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert may_accelerate() is expected
