"""Alignment of echoes: drift on still series, and recovery of known motion.

Run: DISC_SHARED_DATA=<data> python Testing/benchmarks/bench_alignment.py [--motions 6]

The comparison registers intensities instead of edge strength, with the same metric, optimizer and sampling.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "DiscRelaxometry"), str(ROOT / "Testing"), str(ROOT / "Testing")]

from unit.echo import test_align  # noqa: E402

from DiscRelaxometryLib.echo import align  # noqa: E402
from DiscRelaxometryLib.echo.read import read_echo_series  # noqa: E402
from DiscRelaxometryLib.image import Image  # noqa: E402


def intensities(image: Image, sigma: float) -> sitk.Image:
    """Stand in for edge strength: the image itself, smoothed alike in the plane."""
    from scipy import ndimage

    array = np.nan_to_num(image.array).astype(np.float64)
    array = np.minimum(array, np.quantile(array, 0.999))
    scale = [0 if s > 3 else max(sigma / s, 0.5) for s in image.geometry.spacing[::-1]]
    return image.like(ndimage.gaussian_filter(array, scale).astype(np.float32)).to_sitk()


@contextmanager
def registering(what: str):
    """Register edge strength (the method) or intensities (the comparison)."""
    if what == "edges":
        yield
    else:
        with mock.patch.object(align, "_edges", intensities):
            yield


def still(folder: Path) -> None:
    """Print the motion estimated where nothing moved: all echoes of one excitation."""
    print("\n### Motion estimated in series acquired in one excitation (true motion 0)\n")
    print("| series | voxel, mm | registered | RMS displacement, mm, of the last echo | largest, voxels | s an echo |")
    print("|---|---|---|---|---|---|")
    for name, path in (("knee, GE, 8 echoes", "knee_mese_ge_dicom"),
                       ("kidney, Philips, 10 echoes", "kidney_t2_philips/echoes.nii.gz")):
        series = read_echo_series(folder / "relaxometry" / path)
        voxel = " x ".join(f"{s:.3g}" for s in series.geometry.spacing)
        for what in ("intensities", "edges"):
            start = time.process_time()
            with registering(what):
                rows = align.align_echoes(series, threshold_voxels=np.inf).motion.rows
            seconds = (time.process_time() - start) / (len(series) - 1)
            print(f"| {name} | {voxel} | {what} | {rows[-1]['displacement']:.2f} | "
                  f"{max(r['displacement_voxels'] for r in rows):.2f} | {seconds:.1f} |", flush=True)


def known(count: int) -> None:
    """Print what remains of known random motion of the third echo of a simulated spine."""
    print("\n### Known rigid motion of one echo, simulated spine 1.5 x 1.5 x 4 mm, T1rho 0/10/40/80 ms, SNR about 50\n")
    print("| motion before, mm (mean over 60 mm) | remaining, edges | remaining, intensities |")
    print("|---|---|---|")
    rng = np.random.default_rng(7)
    for _ in range(count):
        true = sitk.Euler3DTransform((0.0, 0.0, 0.0), *rng.uniform(-0.05, 0.05, 3), rng.uniform(-4, 4, 3))
        with mock.patch.object(test_align, "TRUE", true):
            series = test_align.phantom(moved=(2,))
            cells = [test_align.remaining(sitk.Euler3DTransform())]
            for what in ("edges", "intensities"):
                with registering(what):
                    cells.append(test_align.remaining(align.align_echoes(series.select([0, 2])).transforms[1]))
        print("| " + " | ".join(f"{c:.2f}" for c in cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motions", type=int, default=6)
    options = parser.parse_args()
    print(f"Load average {os.getloadavg()[0]:.1f} at the start; CPU seconds, one thread.")
    known(options.motions)
    still(Path(os.environ.get("DISC_SHARED_DATA", ROOT.parent / "shared" / "data")))
