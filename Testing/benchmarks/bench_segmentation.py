"""Time and peak memory of segmenting one volume, by engine.

    python Testing/benchmarks/bench_segmentation.py [--threads 2] [--rounds 3]

Each run is a process of its own, started anew, so that peak memory and the loading of weights count. Wall time is the
best of the rounds; CPU time beside it tells how much the rest of the machine was in the way. The same network runs in
onnxruntime and in torch; TotalSegmentator, SPINEPS and TotalSpineSeg need weights of several hundred megabytes that
were not at hand, so that only their published figures are quoted in Docs/validation/segmentation.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from common import Aim, Results


def volume(slices: int, size: int, slice_mm: float):
    """Return the embedded person resampled to a clinical matrix."""
    import numpy as np

    from DiscRelaxometryLib.image import Geometry, read_image, resample
    from DiscRelaxometryLib.resources import resource_path

    image = read_image(resource_path("SampleData/spider-sub-078_T2w.nii.gz"))
    center = image.geometry.index_to_world((np.array(image.geometry.size) - 1) / 2)
    extent = [n * mm for n, mm in zip(image.geometry.size, image.geometry.spacing)]
    spacing = (slice_mm, extent[2] / size, extent[2] / size)
    count = (slices, round(extent[1] / spacing[1]), size)
    direction = np.array(image.geometry.direction).reshape(3, 3)
    origin = center - direction @ ((np.array(count) - 1) / 2 * spacing)
    return resample(image, Geometry(count, spacing, origin, direction.ravel()))


def run_once(options: argparse.Namespace) -> None:
    """Segment once in this process and print the figures as JSON."""
    from DiscRelaxometryLib.discs import segment

    image = volume(options.slices, options.size, options.slice_mm)
    wall, cpu = time.perf_counter(), time.process_time()
    result = segment(image, options.engine, device="cpu" if options.engine == "torch" else None,
                     flip=options.flip, threads=options.threads)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "discs": len(result.discs),
                      "shape": image.geometry.size, "labels": int((result.labels.array > 0).sum())}))


def main() -> None:
    """Run every case in turn, several rounds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="onnx", help=argparse.SUPPRESS)
    parser.add_argument("--flip", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--slices", type=int, default=20, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=501, help=argparse.SUPPRESS)
    parser.add_argument("--slice-mm", type=float, default=0.9, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        run_once(options)
        return
    cases = [("onnx", 0, 20, 501, 0.9), ("onnx", 1, 20, 501, 0.9), ("torch", 0, 20, 501, 0.9),
             ("onnx", 0, 15, 512, 4.0), ("onnx", 0, 64, 320, 0.94)]
    runs = {case: [] for case in cases}
    for _ in range(options.rounds):
        for case in cases:
            engine, flip, slices, size, slice_mm = case
            command = [sys.executable, __file__, "--once", "--threads", options.threads, "--engine", engine,
                       "--flip", flip, "--slices", slices, "--size", size, "--slice-mm", slice_mm]
            output = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
            runs[case].append(json.loads(output.splitlines()[-1]))
    rows, first = [], min(r["wall"] for r in runs[cases[0]])
    for case, found in runs.items():
        best = min(found, key=lambda r: r["wall"])
        rows.append((case[0], bool(case[1]), " x ".join(map(str, best["shape"])), best["wall"],
                     min(r["cpu"] for r in found), max(r["peak"] for r in found), best["discs"], best["wall"] / first))
    results = Results("bench_segmentation")
    results.table("engines", ["engine", "mirror image", "volume", ("wall, s", ".1f"), ("CPU, s", ".1f"),
                              ("peak memory, MiB", ".0f"), "discs", ("wall, ratio", ".2f")], rows,
                  threads=options.threads, rounds=options.rounds)
    results.aims(Aim("20 slices on 2 cores", rows[0][3], at_most=10, form=".1f", unit="s"),
                 Aim("the same, peak memory", rows[0][5] / 1024, at_most=2, form=".2f", unit="GB"))


if __name__ == "__main__":
    main()
