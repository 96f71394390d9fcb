"""What the pipeline recovers from the simulated cohort, whose truth is known (SIMULATED data).

    python Testing/benchmarks/bench_virtual_cohort.py --work FOLDER [--people 31] [--auto 6] [--figure FILE.png]

Stages, each kept in FOLDER so that an interrupted run goes on: people are scanned in the embedded real anatomies
(grades, age and sex real; relaxation, disability and muscle simulated; two sites), their maps fitted and measured;
L4-L5 is registered to the atlas; error rates and power come from maps simulated in atlas space. ``--auto N``: segment N
people with the shipped network and compare its means with those of the reference masks.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import Aim, Results
from support.virtual_maps import atlas_coordinates, simulate_maps

from DiscAtlasLib.atlas import load_atlas
from DiscAtlasLib.registration import register_person
from DiscAtlasLib.warping import warp_to_atlas
from DiscRelaxometryLib.errors import RegistrationError
from DiscRelaxometryLib.fit import fit_arrays
from DiscRelaxometryLib.image import Image, resample
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.measure import PARTITION, measure_regions
from DiscStatsLib.analysis import analyze
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib.virtual.signal import ECHO_MS, SITES, SPIN_LOCK_MS
from DiscStudyLib.virtual.study import PlantedEffect, draw_people, embedded_people, scan_person

LEVEL = "L4-L5"
#: Corrections for many voxels, and their names in the tables.
METHODS = {"fwe": "max-T", "tfce": "TFCE"}
VOLUMES = {"T1rho": ([0, 1, 2, 3], SPIN_LOCK_MS), "T2": ([0, 4, 5, 6], ECHO_MS)}
EFFECT = PlantedEffect("odi", "T1rho", "L3-L4", center=(0.0, -0.45, 0.0), radius=(0.5, 0.25, 0.7), slope=-0.6)


# ---- scanning, fitting, measuring ----------------------------------------------------------------------------------

def cohort(count, seed):
    real = embedded_people(count)
    return draw_people(count, seed, sites=2, real=[r.given for r in real]), real


def scanned(person, real, work, auto, register):
    """Return the person's region rows and atlas maps, from the cache where they are there."""
    file = work / f"{person.id}.pkl"
    kept = pd.read_pickle(file) if file.exists() else {}
    wanted = {"rows"} | ({"auto"} if auto else set()) | ({"atlas"} if register else set())
    if wanted - set(kept):
        # What is left of the motion between the scans after the labels were carried over.
        scanner = scan_person(person, SITES[person.site], real=real, series_motion_mm=0.3)
        maps, labels, truth = fitted(scanner)
        kept.setdefault("rows", region_rows(person, labels, maps, truth))
        if auto and "auto" not in kept:
            kept["auto"] = auto_rows(person, scanner, maps, labels)
        if register and "atlas" not in kept:
            kept["atlas"] = in_atlas(scanner.labels("t2w"), maps, truth)
        pd.to_pickle(kept, file)
    return kept


def fitted(scanner):
    volumes, geometry = scanner.mapss()
    labels, truth = scanner.labels("mapss"), scanner.truth_maps()
    discs = np.isin(labels.array, [disc_value(level) for level in LUMBAR_LEVELS])
    # A margin, so that any segmentation finds values around the true discs.
    from scipy import ndimage

    mask = ndimage.binary_dilation(discs, np.ones((3, 5, 5)))
    maps = {}
    for kind, (rows, times) in VOLUMES.items():
        fit = fit_arrays(volumes[rows].reshape(4, -1), times, mask=mask.ravel())
        maps[kind] = Image(fit.value.reshape(mask.shape), geometry, {"quantity": kind})
    return maps, labels, truth


def region_rows(person, labels, maps, truth):
    clean = Image(np.where((labels.array > 10) & (labels.array < 16) | (labels.array == 2), labels.array, 0),
                  labels.geometry)
    both = {**maps, **{f"true_{k}": truth[k] for k in maps}}
    rows = measure_regions(clean, both).rows
    return [{"participant_id": person.id, "level": r["level"], "region": r["region"], "map": r["map"],
             "mean": r["mean"], "n": r["n"]} for r in rows if r["region"] in ("whole", "nucleus", "annulus")]


def auto_rows(person, scanner, maps, reference):
    from DiscRelaxometryLib.discs import segment

    t2w = scanner.t2w()
    found = segment(t2w).labels
    on_maps = resample(found, reference.geometry, 1)
    truth = scanner.labels("t2w")
    rows = []
    for level in LUMBAR_LEVELS:
        value = disc_value(level)
        a, b = found.array == value, truth.array == value
        if not b.any():
            continue
        dice = 2 * np.count_nonzero(a & b) / (a.sum() + b.sum())
        row = {"participant_id": person.id, "level": level, "dice": dice}
        for kind, image in maps.items():
            row[f"auto_{kind}"] = np.nanmean(image.array[on_maps.array == value]) if a.any() else np.nan
            row[f"reference_{kind}"] = np.nanmean(image.array[reference.array == value])
        rows.append(row)
    return rows


def in_atlas(labels, maps, truth):
    """Return the maps at the atlas's voxels of the level, or None where the disc cannot be registered."""
    try:
        registration = register_person(labels, load_atlas(), levels=[LEVEL])
    except RegistrationError as error:
        print(f"Left out: {error}", file=sys.stderr)
        return None
    inside = load_atlas().labels.array == disc_value(LEVEL)
    maps = {**maps, **{f"true_{k}": truth[k] for k in maps}}
    return {name: warp_to_atlas(image, registration).array[inside] for name, image in maps.items()}


# ---- claims --------------------------------------------------------------------------------------------------------

def agreement_rows(pairs):
    rows = []
    for name, measured, reference in pairs:
        gap = (measured - reference).dropna()
        half = 1.96 * gap.std()
        rows.append((name, gap.size, f"{reference.mean():.1f}", f"{gap.mean():+.2f}",
                     f"{gap.mean() - half:.2f} to {gap.mean() + half:.2f}",
                     f"{np.corrcoef(measured[gap.index], reference[gap.index])[0, 1]:.4f}"))
    return rows


def claims(results, people, kept):
    rows = pd.DataFrame([r for k in kept for r in k["rows"]])
    wide = rows.pivot_table("mean", ["participant_id", "level", "region"], "map").reset_index()
    info = pd.DataFrame([{"participant_id": p.id, "age": p.age, "odi": p.odi, "level": level, "grade": p.grade(level)}
                         for p in people for level in LUMBAR_LEVELS])
    wide = wide.merge(info)
    head = ["map", "discs", "mean, ms", "bias, ms", "95 % limits of agreement, ms", "r"]
    results.table("fitted", head, agreement_rows(
        (kind, w[kind], w[f"true_{kind}"]) for kind in VOLUMES for w in [wide[wide.region == "whole"]]))
    auto = pd.DataFrame([r for k in kept for r in k.get("auto", [])])
    if len(auto):
        pairs = [(kind, auto[f"auto_{kind}"], auto[f"reference_{kind}"]) for kind in VOLUMES]
        results.table("automatic", head, agreement_rows(pairs), people=auto.participant_id.nunique(),
                      median_dice=round(auto.dice.median(), 3), lowest_dice=round(auto.dice.min(), 3))
    grade_table(results, wide)
    odi_table(results, wide)


def grade_table(results, wide):
    rows = []
    for kind in VOLUMES:
        for region in ("nucleus", "annulus", "whole"):
            part = wide[wide.region == region].dropna(subset=[kind])
            within = [np.corrcoef(p.grade, p[kind])[0, 1] for _, p in part.groupby("level") if p.grade.nunique() > 1]
            true = [np.corrcoef(p.grade, p[f"true_{kind}"])[0, 1] for _, p in part.groupby("level")
                    if p.grade.nunique() > 1]
            slope = np.polyfit(part.grade, part[kind], 1)[0]
            rows.append((kind, region, f"{np.mean(within):+.2f}", f"{min(within):+.2f} to {max(within):+.2f}",
                         f"{np.mean(true):+.2f}", f"{slope:+.1f}"))
    results.table("grade", ["map", "region", "r, mean of the levels", "range over levels", "r of the truth",
                            "ms per grade"], rows)


def odi_table(results, wide):
    rows = []
    for name, part in (("minimal or moderate (<= 40)", wide[wide.odi <= 40]), ("severe (> 40)", wide[wide.odi > 40])):
        mean = part.groupby("region")[["T1rho", "T2", "true_T1rho"]].mean()
        contrast = mean.loc["nucleus"] / mean.loc["annulus"]
        rows.append((name, part.participant_id.nunique(), f"{mean.loc['nucleus', 'T1rho']:.0f}",
                     f"{mean.loc['annulus', 'T1rho']:.0f}", f"{contrast['T1rho']:.2f}", f"{contrast['true_T1rho']:.2f}",
                     f"{contrast['T2']:.2f}"))
    results.table("disability", ["ODI", "people", "T1rho nucleus, ms", "T1rho annulus, ms", "nucleus / annulus, T1rho",
                                 "of the truth", "nucleus / annulus, T2"], rows)


def voxelwise(results, people, kept, permutations):
    atlas = load_atlas()
    inside = atlas.labels.array == disc_value(LEVEL)
    region = atlas.regions.array[inside]
    labels = Image(np.where(inside, disc_value(LEVEL), 0).astype(np.uint8), atlas.geometry)
    used = [(p, k["atlas"]) for p, k in zip(people, kept) if k.get("atlas")]
    frame = participants([p for p, _ in used])
    rows, maps = [], {}
    for kind in VOLUMES:
        effect = {}
        for source in (kind, f"true_{kind}"):
            stack = np.array([m[source] for _, m in used])
            result = analyze(stack, labels, frame, "map ~ pfirrmann_L4L5 + age + C(sex)", "pfirrmann_L4L5",
                             AnalysisSettings(tuple(METHODS), permutations, min_count=20))
            effect[source] = {key.rsplit("_", 1)[1]: image.array[inside] for key, image in result.maps.items()}
        measured, true = effect[kind], effect[f"true_{kind}"]
        maps[kind] = measured["effect"], true["effect"], measured["pfwe"]
        for name in ("nucleus", "annulus"):
            here = (region == 1) if name == "nucleus" else np.isin(region, [PARTITION[n] for n in PARTITION
                                                                            if n.endswith("annulus")])
            a, b = measured["effect"][here], true["effect"][here]
            ok = np.isfinite(a) & np.isfinite(b)
            rows.append((kind, name, int(ok.sum()), f"{np.median(a[ok]):+.1f}", f"{np.median(b[ok]):+.1f}",
                         f"{np.corrcoef(a[ok], b[ok])[0, 1]:.3f}", f"{np.sqrt(np.mean((a - b)[ok] ** 2)):.2f}",
                         f"{np.median(measured['r'][here][ok]):+.2f}",
                         f"{100 * np.mean(measured['pfwe'][here][ok] < 0.05):.0f}",
                         f"{100 * np.mean(measured['ptfce'][here][ok] < 0.05):.0f}"))
    # The true maps went through the same registration: the difference is that of noise, motion and fitting.
    results.table("voxelwise", ["map", "region", "voxels", "effect, ms per grade", "of the true maps",
                                "r of effect map with the true one", "RMS difference, ms per grade", "partial r",
                                "p (FWE) < 0.05, %", "p (TFCE) < 0.05, %"], rows, level=LEVEL, people=len(used))
    return maps, region, inside


def participants(people):
    return pd.DataFrame([{"participant_id": p.id, "age": p.age, "sex": p.sex, **p.variables} for p in people])


# ---- error rates and power in atlas space --------------------------------------------------------------------------

def rates(results, cohorts, planted, permutations):
    """Count null cohorts with a finding, and cohorts with a planted effect that find it."""
    atlas = load_atlas()
    level = EFFECT.level
    inside = atlas.labels.array == disc_value(level)
    labels = Image(np.where(inside, disc_value(level), 0).astype(np.uint8), atlas.geometry)

    def significant(maps, people, formula, term):
        result = analyze(maps, labels, participants(people), formula, term,
                         AnalysisSettings(tuple(METHODS), permutations))
        found = {method: result.maps[f"map_{term}_p{method}"].array[inside] < 0.05 for method in METHODS}
        return found, result.maps[f"map_{term}_effect"].array[inside]

    if planted:
        power(results, atlas, level, significant, planted)
    if not cohorts:
        return
    terms = (f"pfirrmann_{level.replace('-', '')}", "odi", "fat_fraction")
    count, tests = {(term, method): 0 for term in terms for method in METHODS}, 0
    for seed in range(-(-cohorts // 10)):
        people = draw_people(31, 1000 + seed)
        maps, _ = simulate_maps(atlas.labels, people, levels=[level], seed=seed)
        rng = np.random.default_rng(seed)
        for _ in range(10):
            shuffled = [replace(p, listed=people[o].variables) for p, o in zip(people, rng.permutation(31))]
            for term in terms:
                found, _ = significant(maps, shuffled, f"map ~ {term} + age + C(sex)", term)
                for method, sign in found.items():
                    count[term, method] += sign.any()
            tests += 1
        print(f"null: {tests} cohorts", file=sys.stderr, flush=True)
    low, high = (np.array([-1.96, 1.96]) * np.sqrt(0.05 * 0.95 / tests) + 0.05) * 100
    rows = [(term, tests, *(f"{100 * count[term, method] / tests:.1f} %" for method in METHODS),
             f"{max(low, 0):.1f} to {high:.1f} %") for term in terms]
    results.table("null", ["variable", "null cohorts", *(f"any voxel at p < 0.05, {name}" for name in METHODS.values()),
                           "expected for 5 %"], rows, level=level, permutations=permutations)
    shares = [100 * n / tests for n in count.values()]
    results.aims(Aim("simulated null cohorts of 31 people, any voxel at p < .05, lowest row", min(shares),
                     at_least=round(low, 1), form=".1f", unit="%"),
                 Aim("the same, highest row", max(shares), at_most=round(high, 1), form=".1f", unit="%"))


def power(results, atlas, level, significant, cohorts):
    """Plant a focal effect of ODI in cohorts whose listed ODI has otherwise nothing to do with the images."""
    rows = []
    xyz = atlas_coordinates(atlas.labels, level)
    for count in (16, 31, 62):
        for slope in (-0.4, -0.8):
            effect = replace(EFFECT, slope=slope)
            planted = effect.at(xyz, effect.reference + 1)
            core = planted < 0.5 * planted.min()
            tests = {method: {"found": [], "core": [], "outside": []} for method in METHODS}
            sizes = []
            for seed in range(cohorts):
                people = draw_people(count, 5000 + seed, null=True)
                maps, _ = simulate_maps(atlas.labels, people, levels=[level], effects=[effect], seed=seed)
                found, estimate = significant(maps, people, "map ~ odi + age + C(sex)", "odi")
                sizes.append(estimate[core].mean() / planted[core].mean())
                for method, sign in found.items():
                    tests[method]["found"].append(sign[core].any())
                    tests[method]["core"].append(sign[core].mean())
                    tests[method]["outside"].append(sign[planted > 0.05 * planted.min()].any())
            shares = [f"{100 * np.mean(test[what]):.0f} %" for what in ("found", "core", "outside")
                      for test in tests.values()]
            rows.append((count, f"{slope:+.1f}", *shares, f"{np.mean(sizes):.2f} (SD {np.std(sizes, ddof=1):.2f})"))
            print(f"power: {rows[-1]}", file=sys.stderr, flush=True)
    results.table("power", ["people", "planted, ms per point of ODI", *(f"{what}, {name}" for what in (
        "cohorts that find it", "share of its core found", "cohorts with a voxel outside it")
        for name in METHODS.values()), "estimated / planted"], rows, level=level, cohorts=cohorts)


def figure(path, maps, region, inside, people, kept):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    used = [(p, k["atlas"]) for p, k in zip(people, kept) if k.get("atlas")]
    box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(inside))

    def middle(values):
        volume = np.full(inside.shape, np.nan)
        volume[inside] = values
        part = volume[box]
        # Sagittal, the patient's front to the left, head up.
        return part[::-1, :, part.shape[2] // 2]

    panels = []
    for title, low in (("ODI <= 40", True), ("ODI > 40", False)):
        stack = np.array([m["T1rho"] for p, m in used if (p.odi <= 40) == low])
        seen = np.isfinite(stack).sum(axis=0)
        mean = middle(np.where(seen > 0, np.nansum(stack, axis=0) / np.maximum(seen, 1), np.nan))
        panels.append((f"mean T1rho, {title} (n = {len(stack)})", mean, "viridis", 40, 130))
    for kind in VOLUMES:
        measured, true, p = maps[kind]
        low = np.nanmin(true)
        panels += [(f"{kind}: recovered effect, ms per grade", middle(measured), "cividis", low, 0),
                   (f"{kind}: true effect, ms per grade", middle(true), "cividis", low, 0)]
    fig, axes = plt.subplots(3, 2, figsize=(9, 7))
    for ax, (title, image, colors, low, high) in zip(axes.ravel(), panels):
        shown = ax.imshow(image, cmap=colors, vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(title, fontsize=9)
        ax.axis("off")
        fig.colorbar(shown, ax=ax, shrink=0.7)
    fig.suptitle(f"SIMULATED relaxation in real discs, {LEVEL}, mid-sagittal (front to the left)", fontsize=10)
    fig.savefig(path, dpi=110, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--people", type=int, default=31)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--auto", type=int, default=0)
    parser.add_argument("--no-atlas", action="store_true")
    parser.add_argument("--cohorts", type=int, default=200, help="null cohorts; 0 leaves out error rates")
    parser.add_argument("--power", type=int, default=50, help="cohorts per row of the power table; 0 leaves it out")
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    results = Results("bench_virtual_cohort")
    if args.people:
        people, real = cohort(args.people, args.seed)
        kept = [scanned(p, r, args.work, n < args.auto, not args.no_atlas)
                for n, (p, r) in enumerate(zip(people, real))]
        claims(results, people, kept)
        if not args.no_atlas:
            maps, region, inside = voxelwise(results, people, kept, args.permutations)
            if args.figure:
                figure(args.figure, maps, region, inside, people, kept)
    if args.cohorts or args.power:
        rates(results, args.cohorts, args.power, min(args.permutations, 199))


if __name__ == "__main__":
    main()
