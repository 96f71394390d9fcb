"""The shipped weights, and the two ways to run them: onnxruntime (light) and torch (CPU, CUDA, MPS)."""

import hashlib
import importlib.util
import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DiscRelaxometryError, SegmentationError
from ..resources import resource_path
from .network import NetworkConfig, build_network

MANIFEST = "Weights/lumbar-discs.json"
ENGINES = ("auto", "onnx", "torch")


@dataclass(frozen=True)
class Model:
    """What the manifest says of the shipped weights."""

    #: Where manifest and weight files lie.
    folder: Path
    #: The manifest as read.
    manifest: dict
    config: Any
    #: Logits are divided by it; chosen on people whose gradients were not used.
    temperature: float
    #: Returns the network of a configuration as a ``torch.nn.Module``.
    build: Callable = build_network

    @property
    def name(self) -> str:
        """Name and version, for provenance."""
        return f"{self.manifest['name']} {self.manifest['version']}"

    def file(self, kind: str) -> Path:
        """Return the path of the ``onnx`` or ``safetensors`` file after checking its SHA-256.

        Raises
        ------
        DiscRelaxometryError
            If the file is missing or its content is not what was released.
        """
        entry = self.manifest["files"][kind]
        path = self.folder / entry["name"]
        if not path.is_file():
            raise DiscRelaxometryError(f"The network's weights '{path.name}' are missing: reinstall the extension.",
                                       anchor="weights")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise DiscRelaxometryError(f"The network's weights '{path.name}' are damaged or were changed (SHA-256 "
                                       "differs from the manifest): reinstall the extension.", anchor="weights")
        return path


def load_model(manifest: Path | str | None = None, config: Any = NetworkConfig,
               build: Callable = build_network) -> Model:
    """Read the manifest of the shipped (or another) network, whose architecture is a `config` that `build` understands.

    Raises
    ------
    DiscRelaxometryError
        If the manifest is missing or unreadable.
    """
    path = Path(manifest) if manifest else resource_path(MANIFEST)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Model(path.parent, values, config.of(values["architecture"]), float(values["temperature"]), build)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DiscRelaxometryError(f"The network's description '{path.name}' is missing or damaged: reinstall the "
                                   "extension.", anchor="weights") from error


class OnnxEngine:
    """Runs the ONNX file with onnxruntime on the CPU."""

    name = "onnx"
    device = "cpu"

    def __init__(self, model: Model, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        # The graph's weights are the bytes of the safetensors file beside it.
        model.file("safetensors")
        self.session = onnxruntime.InferenceSession(str(model.file("onnx")), options,
                                                    providers=["CPUExecutionProvider"])

    def run(self, *batches: np.ndarray) -> np.ndarray:
        """Map a batch (n, ...) per input to the network's output (n, ...), float32; stacks of slices to logits."""
        inputs = (given.name for given in self.session.get_inputs())
        return self.session.run(None, {k: np.ascontiguousarray(v, np.float32) for k, v in zip(inputs, batches)})[0]


class TorchEngine:
    """Runs the safetensors file with torch; falls back to the CPU when the accelerator's memory runs out."""

    name = "torch"

    def __init__(self, model: Model, device: str | None = None, threads: int | None = None):
        import torch
        from safetensors.torch import load_file

        if threads:
            torch.set_num_threads(threads)
        network = model.build(model.config)
        weights = {k: v.float() if v.is_floating_point() else v for k, v in
                   load_file(model.file("safetensors")).items()}
        network.load_state_dict(weights)
        self.device = device or best_torch_device()
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)

    def run(self, *batches: np.ndarray) -> np.ndarray:
        """Map a batch (n, ...) per input to the network's output (n, ...), float32; stacks of slices to logits."""
        try:
            return self._run(batches)
        except RuntimeError as error:
            if self.device == "cpu" or "out of memory" not in str(error).lower():
                raise
            warnings.warn(f"The memory of the graphics processor ({self.device}) ran out; the network continues on the "
                          "CPU, which takes longer.", RuntimeWarning, stacklevel=2)
            self.device = "cpu"
            self.network = self.network.to("cpu")
            return self._run(batches)

    def _run(self, batches: tuple[np.ndarray, ...]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            tensors = [torch.from_numpy(np.ascontiguousarray(batch, np.float32)) for batch in batches]
            layouts = [torch.channels_last if t.ndim == 4 else torch.contiguous_format for t in tensors]
            return self.network(*(t.to(self.device, memory_format=layout) for t, layout in zip(tensors, layouts))
                                ).float().cpu().numpy()


def may_accelerate() -> bool:
    """Say whether the installed torch could use an accelerator, without importing it (2 to 3 s, 170 MB).

    Builds for the CPU alone say so in ``torch/version.py``; macOS builds have no such line for MPS.
    """
    found = importlib.util.find_spec("torch")
    version = Path(found.origin).with_name("version.py") if found and found.origin else None
    if sys.platform == "darwin" or version is None or not version.exists():
        return True
    build = re.findall(r"^(?:cuda|hip|xpu)\b[^=]*= *(.*)$", version.read_text(encoding="utf-8"), re.MULTILINE)
    return not build or any(value.strip() != "None" for value in build)


def best_torch_device() -> str:
    """Return ``cuda``, ``mps`` or ``cpu``, the first that works here."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_engine(model: Model, engine: str = "auto", device: str | None = None, threads: int | None = None):
    """Return an engine with ``run(batch) -> output``.

    Parameters
    ----------
    model : Model
    engine : str
        ``onnx``, ``torch``, or ``auto``: torch where it has an accelerator (or a device was asked for), else
        onnxruntime, else torch on the CPU.
    device : str, optional
        torch device such as ``cuda:1``; ``auto`` is the best one.
    threads : int, optional
        CPU threads; by default the engine's own choice.

    Raises
    ------
    SegmentationError
        If the engine's name is unknown or no engine is installed.
    """
    device = None if device == "auto" else device
    if engine not in ENGINES:
        raise SegmentationError(f"Unknown engine '{engine}': use one of {', '.join(ENGINES)}.")
    installed = {name for name, package in (("onnx", "onnxruntime"), ("torch", "torch"))
                 if importlib.util.find_spec(package)}
    if engine == "torch" and importlib.util.find_spec("safetensors") is None:
        installed.discard("torch")
    if engine == "auto":
        if "torch" in installed and importlib.util.find_spec("safetensors") \
                and ("onnx" not in installed or device or may_accelerate() and best_torch_device() != "cpu"):
            engine = "torch"
        else:
            engine = "onnx"
    if engine not in installed:
        package = {"onnx": "onnxruntime", "torch": "torch and safetensors"}[engine]
        raise SegmentationError(f"The engine '{engine}' needs the Python package {package}, which is not installed: "
                                "install it, or choose another engine.", anchor="no-inference-engine")
    return OnnxEngine(model, threads) if engine == "onnx" else TorchEngine(model, device, threads)
