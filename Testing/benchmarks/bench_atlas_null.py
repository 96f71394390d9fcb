"""Null cohort: smooth noise on real people, warped to the atlas by their discs' shapes, against the shapes themselves.

    python Testing/benchmarks/bench_atlas_null.py --level L4-L5 --sets 300 --permutations 199

The signal (simulated: Gaussian noise of a fixed smoothness in each person's space) has nothing to do with shape; the
tested variables are measures of shape, the disc's height and depth, and a random one. Associations of signal and shape
can then only come from registration and warping. Every set has new noise; the registrations are made once. Needs the
embedded SPIDER cohort only.
"""

import argparse
import time

import numpy as np
from common import ROOT, Aim, Results
from scipy import ndimage, stats

from DiscAtlasLib.atlas import load_atlas
from DiscAtlasLib.registration import register_person
from DiscAtlasLib.warping import sample
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import disc_value
from DiscStatsLib.permutation import fit, fwe_p, make_scheme, make_stratum, max_statistics, partition

COHORT = ROOT / "DiscStats" / "Resources" / "SampleData" / "spider-cohort" / "derivatives" / "reference"
#: SD (mm) of the noise's smoothing, and (voxels) of the margin kept around a disc.
SMOOTH, MARGIN = 2.0, 3


def cohort(level: str, people: int, backend: str):
    """Return, for each person, the disc's crop, where the atlas's points lie, which are seen, and the disc's size."""
    atlas, value = load_atlas(), disc_value(level)
    inside = atlas.geometry.index_to_world(np.argwhere(atlas.labels.array == value)[:, ::-1])
    found = []
    for folder in sorted(COHORT.glob("sub-*"))[:people]:
        labels = read_image(folder / "anat" / f"{folder.name}_dseg.nii.gz")
        labels = labels.like(labels.array.astype(np.uint8))
        try:
            result = register_person(labels, atlas, [level], backend, person=folder.name)
        except RegistrationError as error:
            print(error)
            continue
        there, shape = result.levels[value].to_person(inside), result.shapes[value]
        seen = shape.seen_at(there)
        box = tuple(slice(max(s.start - MARGIN, 0), s.stop + MARGIN)
                    for s in ndimage.find_objects(labels.array == value, max_label=1)[0])
        grid = labels.geometry
        corner = grid.index_to_world([b.start for b in box][::-1])
        array = (labels.array == value)[box]
        crop = Image(array, type(grid)(array.shape[::-1], grid.spacing, corner, grid.direction))
        found.append({"person": folder.name, "crop": crop, "there": there, "seen": seen, "half": shape.half})
    return found


def noise_maps(found, rng) -> np.ndarray:
    """Return (people, voxels): each person's noise, smooth in mm, sampled where the atlas's points lie."""
    rows = []
    for person in found:
        geometry = person["crop"].geometry
        sigma = SMOOTH / np.array(geometry.spacing[::-1])
        noise = ndimage.gaussian_filter(rng.standard_normal(geometry.shape), sigma, mode="wrap")
        noise = Image((noise / noise.std()).astype(np.float32), geometry)
        row = sample(noise, person["there"])
        row[~person["seen"]] = np.nan
        rows.append(row)
    return np.array(rows)


def main():
    """Warp noise, test it against measures of shape, and count findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--level", default="L4-L5")
    parser.add_argument("--people", type=int, default=33)
    parser.add_argument("--sets", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--backend", default="coordinates")
    options = parser.parse_args()
    begin, found = time.process_time(), cohort(options.level, options.people, options.backend)
    rng = np.random.default_rng(4)
    half = np.array([f["half"] for f in found])
    variables = {"height": half[:, 2], "depth": half[:, 1], "random": rng.standard_normal(len(found))}
    everyone = np.isfinite(noise_maps(found, rng)).all(0)
    share = {k: [] for k in variables}
    hits = dict.fromkeys(variables, 0)
    for number in range(options.sets):
        y = noise_maps(found, rng)[:, everyone].astype(float)
        for name, variable in variables.items():
            part = partition(np.column_stack([np.ones(len(y)), variable]), [[0, 1]])
            fitted = fit(part, y)
            stat = fitted.stat
            share[name].append(float((fitted.p < 0.05).mean()))
            stratum = make_stratum(part, y, "t", columns=np.arange(y.shape[1]), rows=np.arange(len(y)))
            null = max_statistics([stratum], make_scheme(len(y), options.permutations, number), y.shape[1]).maxima[0]
            hits[name] += bool(fwe_p(np.abs(stat), null).min() <= 0.05)
    low, high = np.round(100 * np.array(stats.binom.interval(0.95, options.sets, 0.05)) / options.sets, 1)
    results = Results("bench_atlas_null")
    results.table("null", ["variable", ("voxels with p < 0.05, mean of sets, %", ".2f"), ("SE, %", ".2f"),
                           ("sets with FWE p <= 0.05, %", ".1f"), "limits of 5 %"],
                  [(name, 100 * np.mean(values), 100 * np.std(values) / np.sqrt(len(values)),
                    100 * hits[name] / options.sets, f"{low} to {high}")
                   for name, values in share.items()],
                  people=len(found), level=options.level, voxels=int(everyone.sum()), sets=options.sets,
                  permutations=options.permutations, cpu_seconds=round(time.process_time() - begin))
    results.aims(Aim(f"null cohort of {len(found)} people: voxels with p < 0.05, highest of three variables",
                     100 * max(map(np.mean, share.values())), at_most=5.5, form=".1f", unit="%"),
                 Aim("the same, sets with any FWE p <= 0.05", 100 * max(hits.values()) / options.sets, at_most=high,
                     form=".1f", unit="%"))


if __name__ == "__main__":
    main()
