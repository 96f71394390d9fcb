"""Sensitivity on simulated maps: power of voxel-wise max-T, TFCE, cluster, FDR and region means at planted effects.

    python Testing/benchmarks/power.py --sets 100 --figure power.png

Simulated: n = 31, a disc of 1 mm voxels, smooth noise (FWHM about 3 mm) of SD 12 ms, an effect of the grade in an
ellipsoid (nucleus) or a slab (posterior annulus) of known size. Power of a method: share of data sets with a
corrected p <= .05 inside the effect; the region analysis tests the mean over the whole disc, and
over the region that holds the effect.
"""

import argparse
from pathlib import Path

import numpy as np
from common import Results

N = 31
SHAPE = (10, 24, 30)
METHODS = ("voxel max T", "TFCE", "cluster mass", "FDR (BH)", "mean of the region", "mean of the disc")


def disc() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the disc's mask and the places of the effects."""
    k, j, i = np.meshgrid(*(np.arange(s) - (s - 1) / 2 for s in SHAPE), indexing="ij")
    inside = (k / 5) ** 2 + (j / 12) ** 2 + (i / 15) ** 2 <= 1
    center = (k / 3.5) ** 2 + (j / 6) ** 2 + (i / 7.5) ** 2 <= 1
    rim = inside & (j > 7) & (np.abs(i) < 5)
    return inside, {"nucleus": center & inside, "posterior annulus": rim}


def simulate(inside, place, effect: float, rng):
    """Return (y, design): maps in ms whose mean falls by `effect` ms per grade inside the place."""
    from scipy.ndimage import gaussian_filter
    grade, age, sex = rng.integers(1, 6, N).astype(float), rng.uniform(20, 80, N), rng.integers(0, 2, N).astype(float)
    noise = gaussian_filter(rng.normal(size=(N, *SHAPE)), (0, 1.3, 1.3, 1.3))[:, inside]
    y = 90 + 12 * noise / noise.std() + 4 * rng.normal(size=(N, 1)) - effect * grade[:, None] * place[inside]
    return y, np.column_stack([np.ones(N), grade, age, sex])


def detections(y, design, inside, place, permutations: int, seed: int, table) -> list[bool]:
    """Return for each of METHODS whether the effect was found."""
    from DiscStatsLib.permutation import (
        MapLayout,
        TfceSettings,
        adjust_bh,
        cluster_sizes,
        find_clusters,
        fit,
        fwe_p,
        make_scheme,
        make_stratum,
        map_null,
        max_statistics,
        partition,
        tfce_values,
    )
    part, scheme = partition(design, [[0, 1, 0, 0]]), make_scheme(N, permutations, seed)
    voxels = np.arange(y.shape[1])
    fitted, where = fit(part, y), place[inside]
    stratum = make_stratum(part, y, "t", columns=voxels, rows=np.arange(N))
    null = max_statistics([stratum], scheme, len(voxels))
    height = np.full(len(voxels), 3.69)  # two-sided p = .001 with 27 degrees of freedom
    maps = map_null([stratum], scheme, MapLayout(1, table, [voxels]), settings=TfceSettings(), height=height)
    labels = find_clusters(fitted.stat, height, table)
    mass = np.ones(len(voxels))
    if labels.any():
        p = fwe_p(cluster_sizes(fitted.stat, labels, height)[1], maps.mass[0])
        mass = np.where(labels > 0, p[np.maximum(labels, 1) - 1], 1.0)
    corrected = (fwe_p(np.abs(fitted.stat), null.maxima[0]), fwe_p(np.abs(tfce_values(fitted.stat, table)),
                 maps.tfce[0]), mass, adjust_bh(fitted.p))
    means = fit(part, np.column_stack([y[:, where].mean(axis=1), y.mean(axis=1)]))
    return [bool((p[where] <= 0.05).any()) for p in corrected] + list(means.p <= 0.05)


def main() -> None:
    """Run, print the table and draw the figure."""
    from DiscStatsLib.permutation import neighbors_of
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=50)
    parser.add_argument("--permutations", type=int, default=39)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    inside, places = disc()
    table, effects = neighbors_of(inside.astype(int)), (0.0, 2.0, 3.0, 4.0, 6.0)
    power, rows = {}, []
    for name, place in places.items():
        for effect in effects:
            sets = (simulate(inside, place, effect, np.random.default_rng([int(10 * effect), s]))
                    for s in range(options.sets))
            found = [detections(y, design, inside, place, options.permutations, s, table)
                     for s, (y, design) in enumerate(sets)]
            power[name, effect] = np.mean(found, axis=0)
            rows.append((f"{name} ({place.sum()} voxels)", effect, *power[name, effect]))
    columns = ["place", ("effect, ms per grade", "g"), *((m, ".0%") for m in METHODS)]
    Results("power").table("sensitivity", columns, rows,
                           sets=options.sets, people=N, voxels=int(inside.sum()), permutations=options.permutations)
    if options.figure:
        draw(power, places, effects, options.figure)


def draw(power, places, effects, path: Path) -> None:
    """Draw power against effect, one panel a place; line styles differ as well as colors."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, len(places), figsize=(10, 4), sharey=True)
    styles = ["-", "--", "-.", ":", "-", "--"]
    colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#999999"]
    for axis, (name, place) in zip(axes, places.items()):
        for m, method in enumerate(METHODS):
            axis.plot(effects, [power[name, e][m] for e in effects], styles[m], color=colors[m], marker="o",
                      label=method)
        axis.set_title(f"effect in the {name} ({place.sum()} voxels)")
        axis.set_xlabel("effect, ms per grade (noise SD 12 ms)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("power (simulated, n = 31)")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="lower center", ncol=len(METHODS))
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
