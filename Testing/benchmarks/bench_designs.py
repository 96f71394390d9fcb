"""Error rates and power of repeated measures, pooled levels and variance groups, by `analyze` as a study calls it.

    python Testing/benchmarks/bench_designs.py --sets 1000
    python Testing/benchmarks/bench_designs.py --power --sets 100
    python Testing/benchmarks/bench_designs.py --cohort demo-output/spider-cohort
    python Testing/benchmarks/bench_designs.py --neutral --sets 300

Each null data set: 216 voxels of smooth noise, 59 permutations, the smallest corrected p of max-T and TFCE.
"""

import argparse
from collections.abc import Callable

import numpy as np
from common import Aim, Results

SHAPE = (6, 6, 6)
LEVELS = ("L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
#: Share of the variance that is the person's.
ICC = 0.8
#: Share of the pooled disc that must lie within a person's slices for the disc to take part in the neutrality row.
LEAST_SEEN = 0.25


def noise(rng, n: int) -> np.ndarray:
    """Return smooth noise of unit variance, shape (n, voxels)."""
    from scipy.ndimage import gaussian_filter
    y = gaussian_filter(rng.normal(size=(n, *SHAPE)), (0, 1.2, 1.2, 1.2), mode="wrap").reshape(n, -1)
    return y / y.std()


def people(rng, count: int, places, missing: float):
    """Return (table, maps) of people with `places` (levels or visits) each, some of them missing at random."""
    import pandas as pd
    name = "level" if places is LEVELS else "session"
    age, ids = rng.uniform(20, 80, count), [f"s{i:02}" for i in range(count)]
    m = len(places)
    table = pd.DataFrame({"participant_id": np.repeat(ids, m), name: list(places) * count,
                          "age": np.repeat(age, m), "treated": np.repeat(np.arange(count) % 2, m),
                          "grade": rng.integers(1, 6, m * count), "years": np.tile(np.arange(m) * 1.0, count)})
    y = np.sqrt(ICC) * np.repeat(noise(rng, count), m, axis=0) + np.sqrt(1 - ICC) * noise(rng, m * count)
    y += np.tile(np.arange(m) * (places is LEVELS), count)[:, None]
    kept = rng.uniform(size=len(y)) >= missing
    return table[kept].reset_index(drop=True), y[kept]


def pooled(tested: str):
    """Return a maker of people with five discs, a tenth of them missing, and the model."""
    return (lambda rng: people(rng, 20, LEVELS, 0.1)), "map ~ grade + age + C(level)", tested, {"blocks": True}


def visits(count: int, missing: float, formula: str, tested: str, number: int = 2):
    """Return a maker of people with some visits, and the model."""
    places = tuple(f"ses-{i + 1}" for i in range(number))
    return (lambda rng: people(rng, count, places, missing)), formula, tested, {"blocks": True}


def groups(sizes, sds, formula: str = "map ~ group", tested: str = "group"):
    """Return a maker of unequal groups (scanners) with SDs of their own, and the model."""
    def make(rng):
        import pandas as pd
        n, group = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
        table = pd.DataFrame({"participant_id": [f"s{i:02}" for i in range(n)], "group": group,
                              "grade": rng.integers(1, 6, n), "age": rng.uniform(20, 80, n)})
        return table, noise(rng, n) * np.array(sds)[group][:, None] + 0.7 * group[:, None] * ("C(" in formula)
    return make, formula, tested, {"variance_groups": "group"}


def scanners(count: int, sds, formula: str, tested: str):
    """Return a maker of people with two visits on one of two scanners with SDs of their own, and the model."""
    def make(rng):
        table, y = people(rng, count, ("ses-1", "ses-2"), 0.0)
        table["scanner"] = np.repeat(np.arange(count) % 3 == 0, 2).astype(int)
        return table, y * np.array(sds)[table.scanner][:, None]
    return make, formula, tested, {"blocks": True, "variance_groups": "scanner"}


ROWS: dict[str, tuple[Callable, str, str, dict]] = {
    "pooled levels, ICC 0.8: grade (within persons)": pooled("grade"),
    "pooled levels, ICC 0.8: age (whole persons)": pooled("age"),
    "two visits of 16: paired": visits(16, 0.0, "map ~ C(session)", "session"),
    "three visits of 24, a fifth missing: years": visits(24, 0.2, "map ~ years", "years", 3),
    "the same: years by treatment": visits(24, 0.2, "map ~ years * treated", "years:treated", 3),
    "the same: treatment (whole persons)": visits(24, 0.2, "map ~ years + treated", "treated", 3),
    "groups of 25 and 6, small one with twice the SD": groups((25, 6), (1, 2)),
    "groups of 25 and 6, small one with half the SD": groups((25, 6), (1, 0.5)),
    "groups of 25 and 6, same SD": groups((25, 6), (1, 1)),
    "groups of 25 and 6, small one with 1.25 times the SD": groups((25, 6), (1, 1.25)),
    "groups of 25 and 6, small one with 1.5 times the SD": groups((25, 6), (1, 1.5)),
    "groups of 16 and 15, 3-fold SD": groups((16, 15), (1, 3)),
    "two vendors at two fields, scanner as nuisance: grade": groups(
        (14, 10, 9, 7), (1, 1.5, 2, 0.7), "map ~ grade + C(group) + age", "grade"),
    "two visits of 24, a third on a scanner with twice the SD: paired": scanners(
        24, (1, 2), "map ~ C(session)", "session"),
    "the same: age (whole persons)": scanners(24, (1, 2), "map ~ C(session) + age + C(scanner)", "age"),
}


def smallest(table, y, formula: str, tested: str, options: dict, seed: int) -> tuple[float, float]:
    """Return the smallest corrected p of max-T and TFCE."""
    from DiscRelaxometryLib.image import Geometry, Image
    from DiscStatsLib.analysis import analyze
    from DiscStatsLib.settings import AnalysisSettings
    labels = Image(np.full(SHAPE, 11, np.uint8), Geometry(SHAPE))
    settings = AnalysisSettings(("fwe", "tfce"), 59, seed, variance_groups=options.get("variance_groups", ""))
    found = analyze(y, labels, table, formula, tested, settings,
                    blocks="participant_id" if options.get("blocks") else None)
    name = found.contrasts[0].name
    return tuple(float(np.nanmin(found.maps[f"map_{name}_{k}"].array)) for k in ("pfwe", "ptfce"))


def power(sets: int) -> list[tuple]:
    """Return how often the pooled analysis, and that by level, find an effect of grade in 48 of the 216 voxels."""
    import pandas as pd

    from DiscRelaxometryLib.image import Geometry, Image
    from DiscRelaxometryLib.labels import disc_value
    from DiscStatsLib.analysis import analyze
    from DiscStatsLib.settings import AnalysisSettings
    true, settings = np.zeros(SHAPE, bool), AnalysisSettings(("fwe", "tfce"), 99)
    true[1:5, 1:5, 1:4] = True
    labels = Image(np.repeat([disc_value(v) for v in LEVELS], 6)[:, None, None] * np.ones((1, 6, 6), int),
                   Geometry((6, 6, 30)))
    rows = []
    for effect in (0.0, 0.1, 0.15, 0.2, 0.3):
        hits = []
        for number in range(sets):
            table, y = people(np.random.default_rng([9, number]), 30, LEVELS, 0.0)
            y = y - effect * true.ravel() * table.grade.to_numpy()[:, None]
            found = smallest(table, y, "map ~ grade + age + C(level)", "grade", {"blocks": True}, number)
            wide = pd.DataFrame({"participant_id": table.participant_id[::5].array, "age": table.age[::5].array,
                                 **{f"grade_{v.replace('-', '')}": table.grade[k::5].array
                                    for k, v in enumerate(LEVELS)}})
            single = analyze(y.reshape(30, 30, 6, 6), labels, wide, "map ~ grade + age", "grade", settings)
            own = [float(np.nanmin(single.maps[f"map_grade_{k}"].array)) for k in ("pfwe", "ptfce")]
            hits.append([p <= 0.05 + 1e-6 for p in (*found, *own)])
        rows.append((f"{effect:g}", *np.mean(hits, axis=0)))
        print(rows[-1], flush=True)
    return rows


def pooled_cohort(folder: str, permutations: int, names):
    """Return the pooled analysis of a study's maps of nT2w, the pooled disc, the maps by person, and the study."""
    import pandas as pd

    from DiscAtlasLib import load_atlas, pooled_disc
    from DiscRelaxometryLib.image import read_image
    from DiscStatsLib.analysis import analyze
    from DiscStatsLib.settings import AnalysisSettings
    from DiscStudyLib.folder import Study, long_frame
    study = Study(folder)
    files = {f.name.split("_")[0]: f for f in sorted(study.output.glob("sub-*/anat/*_space-DiscAtlas_nT2w.nii.gz"))}
    disc = pooled_disc(load_atlas(), LEVELS)
    table = long_frame([{"participant_id": p, "level": v} for p in files for v in LEVELS], study.participants,
                       ("pfirrmann", "age", "sex"))
    images, labels = {p: read_image(f) for p, f in files.items()}, disc.atlas.labels
    inside = labels.array > 0
    y = np.array([disc.pool(images[r.participant_id], r.level).array[inside] for r in table.itertuples()], float)
    there = np.isfinite(y).any(axis=1) & table[["pfirrmann", "age", "sex"]].notna().all(axis=1).to_numpy()
    found = analyze(y[there], labels.like(inside.astype(np.uint8)), pd.DataFrame(table[there]),
                    "map ~ pfirrmann + C(level) + age + C(sex)", list(names),
                    AnalysisSettings(("fwe", "tfce"), permutations), blocks="participant_id")
    return found, disc, images, study


def cohort(folder: str, permutations: int) -> list[tuple]:
    """Return what the pooled analysis finds in a study's maps of nT2w, and the analysis by level beside it."""
    from DiscAtlasLib import load_atlas
    from DiscStatsLib.analysis import analyze
    from DiscStatsLib.design import rows_of, to_frame
    from DiscStatsLib.settings import AnalysisSettings
    names = ("pfirrmann", "age", "C(sex)")
    found, _, images, study = pooled_cohort(folder, permutations, names)
    single = analyze(list(images.values()), load_atlas().labels, rows_of(to_frame(study.participants), list(images)),
                     "map ~ pfirrmann + age + C(sex)", list(names), AnalysisSettings(("fwe", "tfce"), permutations))
    rows = []
    for how, result in (("pooled", found), ("by level", single)):
        for described in result.provenance["contrasts"]:
            maps = {k: result.maps[f"map_{described['name']}_{k}"].array for k in ("t", "pfwe", "ptfce")}
            tested = np.isfinite(maps["t"])
            rows.append((how, described["name"], described["exchange"] or "freely", result.provenance["observations"],
                         int(tested.sum()), float(np.nanmax(np.abs(maps["t"]))), *(float(np.nanmin(maps[k]))
                                                                                for k in ("pfwe", "ptfce")),
                         *(float(np.mean(maps[k][tested] <= 0.05)) for k in ("pfwe", "ptfce"))))
            print(rows[-1], flush=True)
    return rows


def draw(folder: str, permutations: int, path: str) -> None:
    """Draw the effect of the grade and its corrected p in the pooled disc."""
    from DiscRelaxometryLib.labels import disc_value
    from DiscStudyLib.report import Look
    from DiscStudyLib.report.figures_maps import atlas_figure
    found, disc, *_ = pooled_cohort(folder, permutations, ["pfirrmann"])
    maps = {k: found.maps[f"map_pfirrmann_{k}"] for k in ("effect", "ptfce")}
    logs = maps["ptfce"].like(-np.log10(maps["ptfce"].array))
    high = float(np.nanpercentile(np.abs(maps["effect"].array), 98))
    labels = disc.atlas.labels.like(np.where(disc.atlas.labels.array > 0, disc_value("L4-L5"), 0))
    significant = logs.like((np.nan_to_num(maps["ptfce"].array, nan=1.0) <= 0.05).astype(np.uint8))
    columns = {"Change of nT2w per grade": (maps["effect"], Look("PuOr_r", -high, high, "")),
               "\u2212log10 p (TFCE, family-wise)": (logs, Look("cividis", 0, float(np.nanmax(logs.array)), ""))}
    figure = atlas_figure(columns, labels, ["L4-L5"], dict.fromkeys(columns, significant))
    figure.axes[0].set_ylabel("")
    figure.savefig(path, dpi=75)


def linear(disc, level: str, atlas):
    """Return the matrix, (voxels of the pooled disc, voxels of the level), by which `disc.pool` interpolates."""
    from scipy.sparse import coo_array

    from DiscRelaxometryLib.labels import disc_value
    own, at = disc.levels[level], np.argwhere(disc.atlas.labels.array > 0)
    points = disc.atlas.geometry.index_to_world(at[:, ::-1])
    index = atlas.geometry.world_to_index(next(iter(own.levels.values())).to_person(points))[:, ::-1]
    low = np.floor(index).astype(int)
    number = np.full(atlas.labels.array.shape, -1)
    number[atlas.labels.array == disc_value(level)] = np.arange((atlas.labels.array == disc_value(level)).sum())
    entries = []
    for corner in np.ndindex(2, 2, 2):
        column = number[tuple((low + corner).T)]
        weight = np.prod(np.where(corner, index - low, 1 - (index - low)), axis=1)
        there = np.flatnonzero(column >= 0)
        entries.append((weight[there], there, column[there]))
    weight, row, column = map(np.concatenate, zip(*entries))
    return coo_array((weight, (row, column)), (len(at), number.max() + 1)).tocsr()


def neutral(sets: int, permutations: int) -> tuple[list[tuple], dict]:
    """Return how often noise in people's space is associated with disc shape in the pooled disc, within persons."""
    from bench_atlas_null import cohort as discs_of
    from bench_atlas_null import noise_maps

    from DiscAtlasLib import load_atlas, pooled_disc
    from DiscStatsLib.permutation import permutation_test
    atlas = load_atlas()
    disc, found, person, level, seen = pooled_disc(atlas, LEVELS), {}, [], [], []
    matrices = {name: linear(disc, name, atlas) for name in LEVELS}
    for name in LEVELS:
        found[name] = discs_of(name, 33, "coordinates")
        person += [f["person"] for f in found[name]]
        level += [name] * len(found[name])
        seen += [matrices[name] @ f["seen"].astype(float) for f in found[name]]
    seen = np.array(seen) >= 0.5
    kept = seen.mean(axis=1) >= LEAST_SEEN
    everyone, rng = seen[kept].all(axis=0), np.random.default_rng(6)
    half = np.array([f["half"] for name in LEVELS for f in found[name]])[kept]
    blocks = np.column_stack([np.array(person)[kept], np.array(level)[kept]])
    factor = (blocks[:, 1][:, None] == np.array(LEVELS)).astype(float)
    share, hits = {}, {}
    for number in range(sets):
        rows = []
        for name in LEVELS:
            y = noise_maps(found[name], rng)
            there = np.isfinite(y)
            with np.errstate(invalid="ignore", divide="ignore"):
                rows.append((matrices[name] @ np.where(there, y, 0).T / (matrices[name] @ there.T.astype(float))).T)
        y = np.concatenate(rows)[kept][:, everyone]
        for variable, values in (("height", half[:, 2]), ("depth", half[:, 1]), ("random", rng.normal(size=len(y)))):
            test = permutation_test(y, np.column_stack([values, factor]), [1, 0, 0, 0, 0, 0], blocks=blocks,
                                    exchange="within", n_permutations=permutations + 1, seed=number + 1)
            share.setdefault(variable, []).append(float(np.mean(test.p[np.isfinite(test.p)] <= 0.05 + 1e-9)))
            hits[variable] = hits.get(variable, 0) + bool(np.nanmin(test.p_fwe) <= 0.05 + 1e-9)
        if number % 20 == 19:
            print(number + 1, {v: (round(np.mean(s), 4), hits[v]) for v, s in share.items()}, flush=True)
    facts = {"people": len(set(person)), "discs": int(kept.sum()), "voxels": int(everyone.sum())}
    return [(v, float(np.mean(s)), float(np.std(s) / np.sqrt(sets)), hits[v] / sets) for v, s in share.items()], facts


def keep_aims(results: Results) -> None:
    """Keep the lowest and the highest share of the null rows."""
    shares = [round(100 * share, 2) for row in results.content["tables"]["null"]["rows"] for share in row[2:]]
    results.aims(Aim("designs, family-wise error, lowest row", min(shares), at_least=3.7, form=".1f", unit="%"),
                 Aim("the same, highest row", max(shares), at_most=6.4, form=".1f", unit="%"))


def main() -> None:
    """Make the rows asked for and keep them."""
    from calibration import limits
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first set, for fresh ones")
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of the rows to make (default: all)")
    parser.add_argument("--power", action="store_true", help="power of pooled levels beside the analysis by level")
    parser.add_argument("--cohort", help="a study that was run: its maps, pooled and by level")
    parser.add_argument("--figure", default="", help="with --cohort: draw the pooled map into this file alone")
    parser.add_argument("--neutral", action="store_true", help="noise against disc shape in the pooled disc")
    parser.add_argument("--permutations", type=int, default=5000)
    options = parser.parse_args()
    results = Results("designs")
    if options.figure:
        draw(options.cohort, options.permutations, options.figure)
        return
    if options.cohort:
        results.table("cohort", ["analysis", "term", "exchange", "observations", "voxels", ("largest t", ".2f"),
                                 ("p max T", ".4f"), ("p TFCE", ".4f"), ("voxels, max T", ".1%"),
                                 ("voxels, TFCE", ".1%")], cohort(options.cohort, options.permutations),
                      permutations=options.permutations)
        return
    if options.neutral:
        rows, facts = neutral(options.sets, 199)
        low, high = limits(options.sets)
        results.table("neutral", ["variable", ("voxels with p <= .05", ".2%"), ("SE", ".2%"), ("max T", ".1%")], rows,
                      sets=options.sets, permutations=199, limits=f"{low:.1%} to {high:.1%}", **facts)
        return
    if options.power:
        results.table("power", ["effect, SD per grade", *((n, ".0%") for n in (
            "pooled, max T", "pooled, TFCE", "by level, max T", "by level, TFCE"))], power(options.sets),
            sets=options.sets, people=30, icc=ICC)
        return
    names = list(ROWS)
    rows = {row[0]: row for row in results.content["tables"].get("null", {"rows": []})["rows"]}
    for number in options.rows or range(len(names)):
        make, formula, tested, more = ROWS[names[number]]
        p = [smallest(*make(np.random.default_rng([3, k])), formula, tested, more, k)
             for k in range(options.first, options.first + options.sets)]
        rows[names[number]] = [names[number], options.sets, *np.mean(np.array(p) <= 0.05 + 1e-6, axis=0).tolist()]
        print(rows[names[number]], flush=True)
        results.table("null", ["null data", "sets", ("max T", ".1%"), ("TFCE", ".1%")],
                      [rows[name] for name in names if name in rows], voxels=int(np.prod(SHAPE)), permutations=59,
                      limits=", ".join("{:.1%} to {:.1%} of {:,d}".format(*limits(n), n) for n in (1000, 5000)))
    keep_aims(results)


if __name__ == "__main__":
    main()
