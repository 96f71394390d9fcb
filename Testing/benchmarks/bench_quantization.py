"""Dice, calibration and time of the network in fewer bits, on the people that it was not trained on.

    DISC_SHARED_DATA=DATA python Testing/benchmarks/bench_quantization.py [--threads 1]

Needs ``onnx`` beside onnxruntime. Static quantization (a scale per channel) takes its ranges from training people.
Networks that are not faster than the shipped one segment nobody. onnxruntime has no half-precision convolution on CPUs;
torch has bfloat16 where the processor knows it (import of torch is not counted).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from bench_segmentation import volume
from common import Aim, Results, clock, held_out, shared_data

from DiscRelaxometryLib.discs import calibration
from DiscRelaxometryLib.discs.engine import OnnxEngine, TorchEngine
from DiscRelaxometryLib.discs.inference import predict
from DiscRelaxometryLib.discs.segment import assemble
from DiscRelaxometryLib.image import read_image
from Training.dataset import read_folds
from Training.evaluate import calibration_samples, is_disc
from Training.metrics import dice
from Training.train import has_bfloat16

#: Training people whose images give the ranges, and batches taken of each.
PEOPLE, BATCHES = 2, 4


class Recorder(OnnxEngine):
    """Runs the network as it is and keeps what it is given."""

    def __init__(self, *options):
        super().__init__(*options)
        self.batches: list[np.ndarray] = []

    def run(self, batch):
        self.batches.append(np.array(batch, np.float32))
        return super().run(batch)


class Short(TorchEngine):
    """Convolutions in bfloat16."""

    def _run(self, batch):
        import torch

        with torch.autocast("cpu", torch.bfloat16):
            return super()._run(batch)


def engines(model, images, folder: Path, threads: int) -> dict[str, OnnxEngine | TorchEngine]:
    """Return the network as it is, in integers, and in bfloat16 where there are instructions for it."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    plain, recorder, folded = folder / "plain.onnx", Recorder(model, threads), onnxruntime.SessionOptions()
    folded.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded.optimized_model_filepath = str(plain)  # weights as float32 initializers
    onnxruntime.InferenceSession(str(model.file("onnx")), folded)
    for image in images:
        predict(image, model, recorder)
    chosen = recorder.batches[::max(len(recorder.batches) // (PEOPLE * BATCHES), 1)]
    name = recorder.session.get_inputs()[0].name

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter(chosen)

        def get_next(self):
            return next(({name: batch[:4]} for batch in self.left), None)

    quantize_static(plain, folder / "static.onnx", Reader(), per_channel=True)
    quantize_dynamic(plain, folder / "dynamic.onnx", per_channel=True)
    found: dict[str, OnnxEngine | TorchEngine] = {"float32 (as shipped)": OnnxEngine(model, threads)}
    for kind in ("static", "dynamic"):
        engine = OnnxEngine(model, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        engine.session = onnxruntime.InferenceSession(str(folder / f"{kind}.onnx"), options)
        found[f"int8, {kind}"] = engine
    if has_bfloat16():
        found["bfloat16, torch (not shipped)"] = Short(model, "cpu", threads)
    return found


def segmented(image, model, engine):
    """Return a segmentation and the CPU seconds of it."""
    start = clock()[1]
    prediction, flags = predict(image, model, engine)
    return assemble(image, prediction, flags, model, engine.name), clock()[1] - start


def main() -> None:
    """Make the networks, segment everyone by each, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--manifest", type=Path, help="a fold's network; the shipped one by default")
    options = parser.parse_args()
    data, (model, out) = shared_data() / "spider_t2space", held_out(options.manifest)
    trained = sorted(n for fold in read_folds()["folds"] for n in fold if n not in out)[:PEOPLE]
    clinical, rows = volume(20, 501, 0.9), []
    with tempfile.TemporaryDirectory() as folder:
        images = [read_image(data / f"{name}_T2w.nii.gz") for name in trained]
        for name, engine in engines(model, images, Path(folder), options.threads).items():
            cpu, overlap, sure, right = segmented(clinical, model, engine)[1], [], [], []
            if rows and cpu > rows[0][4]:
                rows.append((name, None, None, None, cpu))
                continue
            for seed, person in enumerate(out):
                truth = read_image(data / f"{person}_dseg.nii.gz")
                found, _ = segmented(read_image(data / f"{person}_T2w.nii.gz"), model, engine)
                overlap.append(dice(is_disc(found.labels.array), is_disc(truth.array)))
                confidence, correct = calibration_samples(found, truth, seed=seed)
                sure.append(confidence)
                right.append(correct)
            first = rows[0][1] if rows else np.array(overlap)
            rows.append((name, np.array(overlap), np.abs(np.array(overlap) - first).max(),
                         calibration(np.concatenate(sure), np.concatenate(right))[0], cpu))
            print(rows[-1], flush=True)
    results = Results("bench_quantization")
    results.table("int8", ["network", ("disc Dice", ".4f"), ("largest change of a person", ".4f"),
                           ("calibration error", ".4f"), ("20 slices, CPU s", ".1f")],
                  [(n, None if o is None else o.mean(), *rest) for n, o, *rest in rows], people=len(out),
                  threads=options.threads)
    results.aims(Aim("the same, CPU, Dice kept", rows[0][4], at_most=1.5, form=".1f", unit="s"))


if __name__ == "__main__":
    main()
