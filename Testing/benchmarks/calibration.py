"""Family-wise error and false discovery rate on null data sets: the table of the validation page.

    python Testing/benchmarks/calibration.py --sets 1000

Each data set: n = 31, a block of smooth noise, grade-like variable of interest, age and sex as covariates. A row
holds when its rate lies within the 95 % binomial limits of 5 % (or below them for FDR).
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np
from common import Aim, Results

N = 31
SHAPE = (6, 6, 6)


@dataclass(frozen=True)
class Scenario:
    """How a null data set is made.

    Attributes
    ----------
    title : str
    design : {"plain", "collinear", "groups"}
        Collinear: the covariate correlates by about 0.9 with the variable of interest. Groups: two, no covariate.
    errors : {"normal", "skewed", "heavy"}
        Lognormal, or Student's t with 3 degrees of freedom.
    spread : {"", "covariate", "interest", "voxel"}
        What the errors' standard deviation depends on: it runs from 0.5 to 2 over the range.
    nuisance : float
        Effect of the covariate, uniform in space, in SD of the errors for one SD of the covariate.
    method : {"auto", "permute", "flip", "hc3", "hc3-flip", "naive"}
        Residuals permuted, their signs flipped, or flipped where the spread test says so (the default of `analyze`);
        classical or HC3 statistic; naive permutes the maps themselves.
    missing : float
        Share of values taken out at random places along the rim of each person's block.
    sizes : tuple of int
        Of the two groups.
    ratio : float
        Largest SD over the smallest, where it depends on something.
    """

    title: str
    design: str = "plain"
    errors: str = "normal"
    spread: str = ""
    nuisance: float = 1.0
    method: str = "auto"
    missing: float = 0.0
    sizes: tuple[int, int] = (16, 15)
    ratio: float = 4.0


NULLS = (
    Scenario("smooth normal noise"),
    Scenario("collinear covariate (r about 0.9) with a strong effect", "collinear", nuisance=3.0),
    Scenario("skewed errors (lognormal)", errors="skewed"),
    Scenario("heavy tails (t with 3 df)", errors="heavy"),
    Scenario("SD differs 4-fold between people, with the covariate", spread="covariate"),
    Scenario("SD differs 4-fold between voxels", spread="voxel"),
    Scenario("missing values, per-voxel degrees of freedom", missing=0.15),
    Scenario("SD differs 4-fold with the variable of interest", spread="interest"),
    Scenario("SD differs 2-fold with the variable of interest", spread="interest", ratio=2.0),
    Scenario("SD differs 1.5-fold with the variable of interest", spread="interest", ratio=1.5),
    Scenario("two groups of 16 and 15", "groups"),
    Scenario("two groups of 5, all divisions", "groups", sizes=(5, 5)),
    Scenario("two groups of 16 and 15, SD differs 3-fold", "groups", spread="interest", ratio=3.0),
)
#: Max-T and TFCE hold 5 % in all of these by the default method.
HOLDING = len(NULLS)
OTHERS = (
    Scenario("two groups of 25 and 6, SD twice as large in the small one", "groups", spread="interest", ratio=2.0,
             sizes=(25, 6)),
    Scenario("the same, HC3 statistic, signs flipped", "groups", spread="interest", ratio=2.0, sizes=(25, 6),
             method="hc3-flip"),
    Scenario("the 4-fold row, HC3 statistic, signs flipped", spread="interest", method="hc3-flip"),
    Scenario("the 4-fold row, HC3 statistic, permuted", spread="interest", method="hc3"),
    Scenario("for comparison: naive permutation of the maps, collinear covariate", "collinear", nuisance=3.0,
             method="naive"),
)
SCENARIOS = NULLS + OTHERS
TABLES = {"auto": NULLS, "others": OTHERS, "permute": tuple(
    replace(s, method="permute") for s in (NULLS[7], NULLS[8], NULLS[12], OTHERS[0], NULLS[0]))}


def make_set(scenario: Scenario, rng: np.random.Generator):
    """Return (y, design) of one null data set: shapes (n, voxels) and (n, 4)."""
    from scipy.ndimage import gaussian_filter
    n, grade, age, sex = _people(scenario, rng)
    noise = gaussian_filter(rng.normal(size=(n, *SHAPE)), (0, 1.2, 1.2, 1.2), mode="wrap").reshape(n, -1)
    noise /= noise.std()
    if scenario.errors == "skewed":
        noise = np.exp(noise)
    elif scenario.errors == "heavy":
        noise = noise / np.sqrt(rng.chisquare(3, size=(n, 1)) / 3)
    if scenario.spread:
        by = {"covariate": age, "interest": grade}.get(scenario.spread)
        if by is None:
            noise = noise * rng.uniform(0.5, 2.0, noise.shape[1])
        else:
            noise = noise * (1 + (scenario.ratio - 1) * (by - by.min()) / np.ptp(by))[:, None]
    y = 80 + noise
    if scenario.design != "groups":
        y += scenario.nuisance * ((age - age.mean()) / age.std())[:, None]
    if scenario.missing:
        rim = np.zeros(SHAPE, bool)
        rim[:, :, :2] = True
        y[(rng.uniform(size=y.shape) < scenario.missing) & rim.ravel()] = np.nan
    return y, np.column_stack([np.ones(n), grade] if scenario.design == "groups" else [np.ones(n), grade, age, sex])


def _people(scenario: Scenario, rng):
    """Return (n, variable of interest, age, sex)."""
    if scenario.design == "groups":
        n = sum(scenario.sizes)
        return n, (np.arange(n) >= scenario.sizes[0]).astype(float), rng.uniform(20, 80, n), None
    grade, sex = rng.integers(1, 6, N).astype(float), rng.integers(0, 2, N).astype(float)
    while np.ptp(sex) == 0 or np.ptp(grade) == 0:
        grade, sex = rng.integers(1, 6, N).astype(float), rng.integers(0, 2, N).astype(float)
    age = rng.uniform(20, 80, N)
    if scenario.design == "collinear":
        age = 50 + 12 * ((grade - grade.mean()) / grade.std() + 0.48 * rng.normal(size=N))
    return N, grade, age, sex


def depends(y, design) -> bool:
    """Tell whether the rule of ``errors="auto"`` flips signs."""
    from DiscStatsLib.analysis import DEPENDS
    from DiscStatsLib.analysis.spread import dependence, relative_squares
    from DiscStatsLib.permutation import partition

    size, count = np.zeros(len(y)), np.zeros(len(y))
    for rows, voxels in patterns_of(y):
        squares = relative_squares(partition(design[rows], np.eye(design.shape[1])[[1]]), y[np.ix_(rows, voxels)])
        size[rows] += np.nansum(squares, axis=1)
        count[rows] += np.isfinite(squares).sum(axis=1)
    return dependence(design[:, [1]], np.log(size / count))[1] <= DEPENDS


def patterns_of(y) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (people, voxels) of each pattern of presence."""
    patterns, member = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    return [(np.flatnonzero(patterns[:, k]), np.flatnonzero(member.ravel() == k)) for k in range(patterns.shape[1])]


def neighbors():
    """Return the neighbor table of the block."""
    from DiscStatsLib.permutation import neighbors_of
    return neighbors_of(np.ones(SHAPE, int))


def smallest_p(y, design, permutations: int, seed: int, method: str, table) -> dict[str, float]:
    """Return the smallest corrected p of a data set by max-T, TFCE, cluster extent and mass, and by BH and BKY."""
    from scipy.stats import t as student

    from DiscStatsLib.permutation import (
        MapLayout,
        TfceSettings,
        adjust_bh,
        adjust_bky,
        fit,
        fwe_p,
        make_scheme,
        make_stratum,
        map_null,
        max_statistics,
        partition,
        stat_to_z,
        tfce_values,
    )
    flip, robust = "flip" in method or (method == "auto" and depends(y, design)), "hc3" in method
    tested = [0, 1] + [0] * (design.shape[1] - 2)
    # Without a covariate people of one group are alike, and few people are divided in all ways.
    types = design[:, 1].astype(int) if design.shape[1] == 2 else None
    scheme = make_scheme(len(y), 251 if len(y) == 10 else permutations, seed, flip=flip, row_types=types)
    patterns = patterns_of(y)
    as_z = len(patterns) > 1
    stat, p, strata = np.full(y.shape[1], np.nan), np.full(y.shape[1], np.nan), []
    for rows, voxels in patterns:
        part, values = partition(design[rows], [tested]), y[np.ix_(rows, voxels)]
        fitted = fit(part, values, robust=robust)
        stat[voxels], p[voxels] = stat_to_z(fitted.stat, fitted.df) if as_z else fitted.stat, fitted.p
        if method == "naive":
            # Only the mean is taken out before permuting; the statistic is that of the full model.
            strata.append(_naive(part, values - values.mean(axis=0), voxels, rows))
        else:
            strata.append(make_stratum(part, values, "t", columns=voxels, rows=rows, flip=flip, robust=robust))
    maximum = max_statistics(strata, scheme, y.shape[1], as_z=as_z).maxima[0]
    # Two-sided p = .001.
    height = np.full(y.shape[1], 3.29 if as_z else -student.ppf(0.0005, strata[0].df))
    layout = MapLayout(1, table, [np.arange(y.shape[1])])
    null = map_null(strata, scheme, layout, settings=TfceSettings(), height=height,
                    as_z=as_z)
    from DiscStatsLib.permutation import cluster_sizes, find_clusters
    labels = find_clusters(stat, height, table)
    extent, mass = cluster_sizes(stat, labels, height) if labels.any() else (np.zeros(1), np.zeros(1))
    found = {"max T": fwe_p(np.abs(stat), maximum).min(),
             "TFCE": fwe_p(np.abs(tfce_values(stat, table)), null.tfce[0]).min(),
             "cluster extent": fwe_p(extent.astype(float), null.extent[0]).min() if labels.any() else 1.0,
             "cluster mass": fwe_p(mass, null.mass[0]).min() if labels.any() else 1.0,
             "BH": np.nanmin(adjust_bh(p)), "BKY": np.nanmin(adjust_bky(p))}
    return found | {"voxel": float(np.mean(p <= 0.05))}


def _naive(part, values, voxels, rows):
    """Return a stratum in which the raw (centered) maps are permuted and the full model refitted."""
    from DiscStatsLib.permutation import Stratum
    unit = values / np.linalg.norm(values, axis=0)
    return Stratum(0, voxels, rows, None, unit, np.hstack([part.qx, part.qz]), 1, part.df, "t")


def rates(scenario: Scenario, sets: int, permutations: int, seed: int = 0) -> dict[str, float]:
    """Return the share of data sets with any p <= 0.05, by method, and the mean share of voxels with p <= 0.05."""
    table = neighbors()
    found = []
    for number in range(sets):
        rng = np.random.default_rng([seed, number])
        y, design = make_set(scenario, rng)
        found.append(smallest_p(y, design, permutations, number, scenario.method, table))
    share = {k: float(np.mean([f[k] <= 0.05 + 1e-12 for f in found])) for k in found[0] if k != "voxel"}
    return share | {"voxel": float(np.mean([f["voxel"] for f in found]))}


def discovery_rate(sets: int, seed: int = 1) -> dict[str, float]:
    """Return the mean share of false discoveries at q = 0.05 where 48 of the 216 voxels hold a true effect."""
    from DiscStatsLib.permutation import adjust_bh, adjust_bky, fit, partition
    true = np.zeros(SHAPE, bool)
    true[1:5, 1:5, 1:4] = True
    shares = {"BH": [], "BKY": []}
    for number in range(sets):
        y, design = make_set(SCENARIOS[0], np.random.default_rng([seed, number]))
        y = y + 0.5 * true.ravel() * (design[:, 1] - 3)[:, None]
        p = fit(partition(design, [[0, 1, 0, 0]]), y).p
        for name, adjust in (("BH", adjust_bh), ("BKY", adjust_bky)):
            rejected = adjust(p) <= 0.05
            shares[name].append((rejected & ~true.ravel()).sum() / max(rejected.sum(), 1))
    return {k: float(np.mean(v)) for k, v in shares.items()}


#: Effects planted for :func:`power`, in SD of the errors for a step of the variable of interest.
PLANTED = ((NULLS[0], 0.25), (NULLS[0], 0.4), (NULLS[10], 1.0), (replace(OTHERS[0], spread="", title="25 and 6"), 1.3),
           (NULLS[7], 0.7))


def power(sets: int, permutations: int, seed: int = 5) -> list[tuple]:
    """Return how often max-T and TFCE find an effect in 48 of the 216 voxels, by permuting, flipping, and the rule."""
    true, table, rows = np.zeros(SHAPE, bool), neighbors(), []
    true[1:5, 1:5, 1:4] = True
    for scenario, effect in PLANTED:
        found = {"permute": [], "flip": [], "auto": []}
        for number in range(sets):
            y, design = make_set(scenario, np.random.default_rng([seed, number]))
            y = y + effect * true.ravel() * (design[:, 1] - design[:, 1].mean())[:, None]
            for method in ("permute", "flip"):
                p = smallest_p(y, design, permutations, number, method, table)
                found[method].append([p["max T"] <= 0.05 + 1e-12, p["TFCE"] <= 0.05 + 1e-12])
            found["auto"].append(found["flip" if depends(y, design) else "permute"][-1])
        rows.append((scenario.title, f"{effect:g}", *("{:.1%} / {:.1%}".format(*np.mean(f, axis=0))
                                                      for f in found.values())))
        print(rows[-1], flush=True)
    return rows


def limits(sets: int) -> tuple[float, float]:
    """Return the 95 % binomial limits of a rate of 5 %."""
    from scipy.stats import binom
    return tuple(binom.ppf([0.025, 0.975], sets, 0.05) / sets)


def main() -> None:
    """Make the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--permutations", type=int, default=59)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=[*TABLES], help="tables to make")
    parser.add_argument("--power", action="store_true", help="power of permuting, flipping and the rule instead")
    options = parser.parse_args()
    results = Results("calibration")
    if options.power:
        results.table("power", ["data", "effect", "permute", "flip", "rule"],
                      power(options.sets, options.permutations), sets=options.sets)
        return
    names, (low, high) = ("max T", "TFCE", "cluster extent", "cluster mass", "BH", "BKY"), limits(options.sets)
    for key in options.tables:
        rows, start = [], time.process_time()
        for scenario in TABLES[key]:
            found = rates(scenario, options.sets, options.permutations)
            rows.append((scenario.title, *(found[n] for n in names), found["voxel"]))
            print(rows[-1], flush=True)
        results.table(key, ["null data", *((n, ".1%") for n in names), ("voxels", ".2%")], rows,
                      sets=options.sets, people=N, voxels=int(np.prod(SHAPE)), permutations=options.permutations,
                      limits=f"{low:.1%} to {high:.1%}", cpu_seconds=round(time.process_time() - start))
        if key == "auto":
            shares = [100 * share for row in rows for share in row[1:3]]
            results.aims(Aim("family-wise error, max-T and TFCE, default, lowest row", min(shares),
                             at_least=round(100 * low, 1), form=".1f", unit="%"),
                         Aim("the same, highest row", max(shares), at_most=round(100 * high, 1), form=".1f", unit="%"))
        if key == "others":
            results.aims(Aim("the same, groups of 25 and 6, the small one with twice the SD, no variance groups",
                             100 * max(rows[0][1:3]), at_most=round(100 * high, 1), form=".1f", unit="%"))
    print(f"False discoveries at q = 0.05: {discovery_rate(options.sets)}")


if __name__ == "__main__":
    main()
