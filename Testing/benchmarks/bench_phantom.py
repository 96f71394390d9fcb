"""Registration of a phantom with a known smooth deformation: disc coordinates against greedy and itk-elastix.

Run it with a Python that has picsl-greedy and itk-elastix besides numpy, scipy and SimpleITK::

    python Testing/benchmarks/bench_phantom.py --phantoms 5 --elastix 1

Disc coordinates see the labels only (disc and canal); the peers see the T2-weighted images, with the whole contrast.
CPU seconds are of this process; one thread each. The phantom is described in ``Testing/support/atlas_phantom.py``.
"""

import argparse
import time

import numpy as np
from common import Aim, Results, versions
from peers import VERSIONS, elastix, greedy, points_through
from support.atlas_phantom import GRID, L45, make_phantom

from DiscAtlasLib.coordinates import match
from DiscAtlasLib.shape import disc_shape
from DiscAtlasLib.transforms import DisplacementField, grid_points
from DiscAtlasLib.warping import sample
from DiscRelaxometryLib.image import Image


def coordinates(phantom):
    """Register the labels by disc coordinates."""
    found = match(disc_shape(phantom.fixed["labels"], L45), disc_shape(phantom.moving["labels"], L45))
    return found.forward(grid_points(GRID))


def by_greedy(phantom):
    """Register the T2-weighted images with greedy."""
    images = (p["signal"].to_sitk() for p in (phantom.fixed, phantom.moving))
    return points_through(greedy(*images, "NCC 4x4x2"), grid_points(GRID), GRID)


def by_elastix(phantom):
    """Register the T2-weighted images with itk-elastix."""
    return points_through(elastix(phantom.fixed["signal"], phantom.moving["signal"]), grid_points(GRID), GRID)


def figures(phantom, mapped) -> dict:
    """Return Dice, target registration error, map error and folding inside the fixed disc."""
    points = grid_points(GRID)
    disc = phantom.fixed["labels"].array == L45
    moving = Image((phantom.moving["labels"].array == L45).astype(np.float32), GRID)
    warped = np.nan_to_num(sample(moving, mapped)) > 0.5
    error = np.linalg.norm(mapped[disc] - phantom.truth(points[disc]), axis=-1)
    t2 = np.abs(sample(phantom.moving["t2"], mapped[disc]) - phantom.fixed["t2"].array[disc])
    jacobian = DisplacementField(mapped - points, GRID).jacobian()[disc]
    return {"Dice": 2 * (warped & disc).sum() / (warped.sum() + disc.sum()), "TRE mm": error.mean(),
            "TRE 95 mm": np.percentile(error, 95), "map ms": np.nanmean(t2), "folding": (jacobian <= 0).mean()}


def main():
    """Register each phantom with each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=5)
    parser.add_argument("--elastix", type=int, default=1, help="phantoms on which itk-elastix's default maps run")
    options = parser.parse_args()
    results = Results("bench_phantom", peers=versions(*VERSIONS))
    found: dict[str, list[dict]] = {}
    for seed in range(options.phantoms):
        phantom = make_phantom(seed)
        methods = {"start": lambda p: grid_points(GRID), "true mapping": lambda p: p.truth(grid_points(GRID)),
                   "disc coordinates": coordinates, "greedy, affine + local NCC": by_greedy}
        if seed < options.elastix:
            methods["itk-elastix, default maps"] = by_elastix
        for name, method in methods.items():
            begin = time.process_time()
            mapped = method(phantom)
            seconds = time.process_time() - begin
            found.setdefault(name, []).append({"CPU s": seconds, **figures(phantom, mapped)})
    names = {"CPU s": ".2f", "Dice": ".3f", "TRE mm": ".2f", "TRE 95 mm": ".2f", "map ms": ".2f", "folding": "g"}
    mean = {name: {k: float(np.mean([f[k] for f in rows])) for k in names} for name, rows in found.items()}
    results.table("methods", ["method", "n", *names.items()],
                  [(name, len(found[name]), *row.values()) for name, row in mean.items()])
    ours, peer = mean["disc coordinates"], mean["greedy, affine + local NCC"]
    results.aims(Aim("phantom, target registration error", ours["TRE mm"], at_most=0.6, form=".2f", unit="mm"),
                 Aim("phantom, map error", ours["map ms"], at_most=2.0, form=".2f", unit="ms"),
                 Aim("phantom, CPU time over that of greedy", ours["CPU s"] / peer["CPU s"], at_most=1, form=".2f"),
                 Aim("phantom, folding", ours["folding"], at_most=0))


if __name__ == "__main__":
    main()
