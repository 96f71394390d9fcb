"""Write weights, ONNX and manifest of trained folds: ``python -m Training.export --folds 0 1 2 3`` and ``--ship 0``.

Each fold's files go to ``runs/foldN/weights``; those of the fold to ship go to the extension as well.

Weights are rounded to half precision. The ONNX file holds the graph alone: its weights are external data, read from the
safetensors file beside it, so that both engines read the same bytes and the release has the size of one.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from DiscRelaxometryLib.atomic import atomic_path, write_json
from DiscRelaxometryLib.discs import CLASSES, NetworkConfig, build_network
from Training.dataset import person_of
from Training.train import RUNS

WEIGHTS = Path(__file__).resolve().parent.parent / "DiscRelaxometry/Resources/Weights"
NAME = "lumbar-discs"
VERSION = "3.0.0"


def averaged_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the moving average of a run, floating values rounded to half precision."""
    from safetensors.torch import load_file

    return {k: v.long() if k.endswith("num_batches_tracked") else v.half() for k, v in load_file(path).items()}


def export_onnx(network: torch.nn.Module, examples: dict[str, torch.Tensor], sizes: tuple, path: Path, weights: Path,
                output: str = "probabilities") -> None:
    """Write a network as ONNX, from inputs in order by name, and the free dimensions of each.

    The graph refers to the bytes of the safetensors file that will lie beside it.
    """
    from onnxscript import optimizer

    # Without the whole optimizer, which would fold the normalization into new weights; onnxruntime does so on loading.
    program = torch.onnx.export(network, tuple(examples.values()), input_names=list(examples), output_names=[output],
                                dynamo=True, opset_version=18, dynamic_shapes=sizes, external_data=False, verbose=False,
                                optimize=False)
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    model = refer_to_safetensors(program.model_proto, weights)
    path.write_bytes(model.SerializeToString())


def refer_to_safetensors(model, weights: Path):
    """Replace an ONNX model's weights by references to a safetensors file's bytes, cast on loading where half."""
    import onnx

    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.name not in entries:
            continue
        (begin, end), half = entries[tensor.name]["data_offsets"], entries[tensor.name]["dtype"] == "F16"
        kept = onnx.TensorProto(name=f"{tensor.name}.half" if half else tensor.name, dims=tensor.dims,
                                data_type=onnx.TensorProto.FLOAT16 if half else tensor.data_type,
                                data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", weights.name), ("offset", 8 + length + begin), ("length", end - begin)):
            kept.external_data.add(key=key, value=str(value))
        if half:
            casts.append(onnx.helper.make_node("Cast", [kept.name], [tensor.name], to=onnx.TensorProto.FLOAT))
        tensor.CopyFrom(kept)
    nodes = [*casts, *model.graph.node]
    for node in nodes:
        # The exporter's stack traces name its machine's paths.
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    return model


def identity(path: Path) -> dict:
    """Return what a manifest says of a file of weights: name, SHA-256, bytes."""
    content = path.read_bytes()
    return {"name": path.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def export(run: Path, folder: Path) -> Path:
    """Write ``lumbar-discs.safetensors``, ``.onnx`` and ``.json`` from a run's average; return the manifest.

    Temperature and review threshold come from the run's ``calibration.json``, once there is one.
    """
    from safetensors.torch import save

    description = json.loads((run / "run.json").read_text())
    config = NetworkConfig.of(description["config"])
    weights = averaged_weights(run / "average.safetensors")
    network = build_network(config).eval()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for kind in ("safetensors", "onnx"):
        path = folder / f"{NAME}.{kind}"
        with atomic_path(path) as temporary:
            if kind == "onnx":
                rows, columns = (config.multiple * torch.export.Dim(name, min=1) for name in ("rows", "columns"))
                stack = torch.zeros(2, config.slices, 2 * config.multiple, 3 * config.multiple)
                export_onnx(network, {"stack": stack}, ({0: torch.export.Dim("n", min=1), 2: rows, 3: columns},),
                            temporary, folder / f"{NAME}.safetensors", "logits")
            else:
                temporary.write_bytes(save({k: v.contiguous() for k, v in weights.items()}, {"name": NAME}))
        files[kind] = identity(path)
    calibration = json.loads((run / "calibration.json").read_text()) if (run / "calibration.json").exists() else {}
    progress = (run / "done").read_text().strip() if (run / "done").exists() else "training not finished"
    manifest = {
        "name": NAME, "version": VERSION, "license": "Apache-2.0",
        "data": "SPIDER (van der Graaf et al., Sci Data 2024;11:264), CC BY 4.0: volumes with masks, "
                "clinical slices by self-training, and synthesis from them",
        "architecture": config.to_dict(), "classes": list(CLASSES), "temperature": calibration.get("temperature", 1.0),
        "review_threshold": calibration.get("review_threshold", 0.9),
        "normalization": "clip to the 0.5 and 99.5 percentile of the volume, then mean 0 and standard deviation 1",
        "input": "stack: n x slices x rows (superior to inferior) x columns (anterior to posterior)",
        "parameters": int(sum(np.prod(p.shape) for p in network.parameters())),
        "training": {**{k: description[k] for k in ("fold", "seed", "batch", "start", "gpu")}, "length": progress,
                     "series": len(description["train"]),
                     "people": {k: sorted({person_of(n) for n in description[k]}) for k in ("train", "test")}},
        "calibration": {k: v for k, v in calibration.items() if k not in ("rows", "temperature", "review_threshold")},
        "files": files}
    return write_json(folder / f"{NAME}.json", manifest)


def main() -> None:
    """Parse arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folds", type=int, nargs="*", default=[])
    parser.add_argument("--ship", type=int, help="fold whose weights go to the extension")
    parser.add_argument("--runs", type=Path, default=RUNS)
    options = parser.parse_args()
    for fold in options.folds:
        print(export(options.runs / f"fold{fold}", options.runs / f"fold{fold}" / "weights"))
    if options.ship is not None:
        print(export(options.runs / f"fold{options.ship}", WEIGHTS))


if __name__ == "__main__":
    main()
