"""Alignment of echoes: drift on still series, and recovery of known motion.

Run: DISC_SHARED_DATA=<data> python Testing/benchmarks/bench_alignment.py [--motions 6]

The comparison registers intensities instead of edge strength, with the same metric, optimizer and sampling.
"""

import argparse
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from common import Aim, Results, shared_data
from unit.echo import test_align

from DiscRelaxometryLib.echo import align, read_echo_series
from DiscRelaxometryLib.image import Image


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


def still(results: Results, folder: Path) -> None:
    """List the motion estimated where nothing moved: all echoes of one excitation."""
    rows = []
    for name, path in (("knee, GE, 8 echoes", "knee_mese_ge_dicom"),
                       ("kidney, Philips, 10 echoes", "kidney_t2_philips/echoes.nii.gz")):
        series = read_echo_series(folder / "relaxometry" / path)
        voxel = " x ".join(f"{s:.3g}" for s in series.geometry.spacing)
        for what in ("intensities", "edges"):
            start = time.process_time()
            with registering(what):
                motion = align.align_echoes(series, threshold_voxels=np.inf).motion.rows
            rows.append((name, voxel, what, motion[-1]["displacement"], max(r["displacement_voxels"] for r in motion),
                         (time.process_time() - start) / (len(series) - 1)))
    results.table("still", ["series", "voxel, mm", "registered", ("RMS displacement, mm, of the last echo", ".2f"),
                            ("largest, voxels", ".2f"), ("CPU s per echo", ".1f")], rows)
    results.aims(Aim("motion estimated in two real series acquired in one excitation",
                     max(r[4] for r in rows if r[2] == "edges"), at_most=0.3, form=".2f", unit="voxel"))


def known(results: Results, count: int) -> None:
    """List what remains of known random motion of the third echo of a simulated spine."""
    rng, rows = np.random.default_rng(7), []
    for _ in range(count):
        true = sitk.Euler3DTransform((0.0, 0.0, 0.0), *rng.uniform(-0.05, 0.05, 3), rng.uniform(-4, 4, 3))
        with mock.patch.object(test_align, "TRUE", true):
            series = test_align.phantom(moved=(2,))
            rows.append([test_align.remaining(sitk.Euler3DTransform())])
            for what in ("edges", "intensities"):
                with registering(what):
                    rows[-1].append(test_align.remaining(align.align_echoes(series.select([0, 2])).transforms[1]))
    results.table("known", [(name, ".2f") for name in ("motion before, mm", "remaining, edges",
                                                       "remaining, intensities")], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motions", type=int, default=6)
    options = parser.parse_args()
    kept = Results("bench_alignment")
    known(kept, options.motions)
    still(kept, shared_data())
