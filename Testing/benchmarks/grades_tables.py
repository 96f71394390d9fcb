"""Train the grading network, and make the tables of ``Docs/validation/grades.md`` from its cross-validation.

Run: python Testing/benchmarks/grades_tables.py, with the options of ``Training.grades``   (``make train-grades`` does)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from common import Aim, Results

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.grades import FINDINGS, GRADES, ROMAN, median_grade
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.tables import read_tsv
from DiscStatsLib.tables import roc, weighted_kappa
from Training import grades

RESAMPLES, SEED = 2000, 20261128
BINS = 10
FIGURES = ("weighted kappa", "exact", "within one", "mean error", "calibration error", "recall of grade I")


def figures(read: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return agreement of read grades (n,) with probabilities (n, 5), whose median is the estimate."""
    found = median_grade(p)
    first = read == 1
    try:
        kappa = weighted_kappa(found, read)
    except DesignError:
        kappa = float("nan")
    return {"weighted kappa": kappa, "exact": float(np.mean(found == read)),
            "within one": float(np.mean(np.abs(found - read) <= 1)), "mean error": float(np.abs(found - read).mean()),
            "calibration error": calibration_error(p.max(axis=1), p.argmax(axis=1) + 1 == read),
            "recall of grade I": float(np.mean(found[first] == 1)) if first.any() else float("nan")}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error of the likeliest grade: ten bins of equal width (Guo et al. 2017)."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(sum(abs(right[bins == n].mean() - confidence[bins == n].mean()) * np.mean(bins == n)
                     for n in np.unique(bins)))


def intervals(people: Sequence[str], read: np.ndarray, p: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of :func:`figures`, with people drawn with replacement."""
    drawn = [list(figures(read[chosen], p[chosen]).values()) for chosen in resamples(people)]
    low, high = np.nanquantile(np.array(drawn), (0.025, 0.975), axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(FIGURES, low, high)}


def resamples(people: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield rows of as many people as there are, drawn with replacement."""
    rows, rng = [np.flatnonzero(np.array(people) == name) for name in sorted(set(people))], np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield np.concatenate([rows[n] for n in rng.integers(0, len(rows), len(rows))])


def write_differences(discs, first: np.ndarray, second: np.ndarray) -> None:
    """Keep the figures of the regressions alone and of all members, on the same discs, and the paired difference."""
    read, (a, b) = discs.grade, (p[:, :GRADES] for p in (first, second))
    drawn = [[figures(read[chosen], p[chosen]) for p in (a, b)] for chosen in resamples(discs.people)]
    rows = []
    for name in FIGURES[:-1]:
        low, high = np.nanquantile([two[name] - one[name] for one, two in drawn], (0.025, 0.975))
        rows.append([name, figures(read, a)[name], figures(read, b)[name], f"{low:.3f}\N{EN DASH}{high:.3f}"])
    Results("grades").table("members", ["figure", ("regressions alone", ".3f"), ("all members", ".3f"),
                                        "95 % of difference"], rows)


def row_of(name: str, people: Sequence[str], read: np.ndarray, p: np.ndarray) -> list:
    """Return a row: group, discs, people, and each figure with its interval."""
    found, limits = figures(read, p), intervals(people, read, p)
    cells = [f"{found[f]:.3f} ({limits[f][0]:.3f}\N{EN DASH}{limits[f][1]:.3f})" if np.isfinite(found[f]) else ""
             for f in FIGURES]
    return [name, len(read), len(set(people)), *cells]


def write_tables(participants: Path, first: tuple, second: tuple, t1w) -> None:
    """Keep all tables of T2w slices and T2 SPACE (``Training.grades.Discs`` and probabilities), and refusals of T1w."""
    (clinical, outputs), (space, space_outputs) = first, second
    kept, p = Results("grades"), outputs[:, :GRADES]
    read, people = clinical.grade, np.array(clinical.people)
    found = figures(read, p)
    kept.aims(Aim("weighted kappa with the reader", found["weighted kappa"], at_least=0.84, form=".3f"),
              Aim("same grade", found["exact"], at_least=0.65, form=".3f"),
              Aim("within one grade", found["within one"], at_least=0.97, form=".3f"),
              Aim("mean error, grades", found["mean error"], at_most=0.38, form=".3f"),
              Aim("calibration error", found["calibration error"], at_most=0.05, form=".3f"))
    columns = ["discs of", "discs", "people", *FIGURES]
    rows = [row_of("everyone", people, read, p)]
    scanners = {r["participant_id"]: r for r in read_tsv(participants).rows}
    # An imported study has one set of facts, of the T2w series; the slices have one per contrast.
    vendor, field = (name if name in next(iter(scanners.values())) else f"T2w_{name}"
                     for name in ("manufacturer", "field_T"))
    by = {"level": np.array([disc_name(v) for v in clinical.values]),
          "vendor": np.array([scanners[n][vendor] for n in people]),
          "field": np.array([f"{scanners[n][field]} T" for n in people])}
    for groups in by.values():
        for name in sorted(set(groups) - {"n/a", "n/a T"}):
            some = groups == name
            if some.sum() >= 30:
                rows.append(row_of(name, people[some], read[some], p[some]))
    if space.people:
        rows.append(row_of("T2 SPACE, same people", space.people, space.grade, space_outputs[:, :GRADES]))
    kept.table("agreement", columns, rows)
    confusion(kept, read, median_grade(p))
    findings(kept, clinical, outputs[:, GRADES:])
    refusals(kept, {"T2w slices": clinical, "T2 SPACE": space, "T1w slices": t1w})


def confusion(kept: Results, read: np.ndarray, found: np.ndarray) -> None:
    """Keep counts of estimated grades by the grade read."""
    kept.table("confusion", ["read", *(f"estimated {name}" for name in ROMAN), ("same", ".2f")],
               [[name, *(int(np.sum((read == n) & (found == m))) for m in range(1, GRADES + 1)),
                 float(np.mean(found[read == n] == n))] for n, name in enumerate(ROMAN, 1)])


def findings(kept: Results, discs, p: np.ndarray) -> None:
    """Keep the area under the ROC curve of each finding that some discs have and others lack."""
    rows = []
    for n, text in enumerate(FINDINGS.values()):
        present = discs.targets[:, GRADES - 1 + n]
        if not 2 <= present.sum() <= len(present) - 2:
            continue
        area = roc(p[:, n], present)
        rows.append([text, int(present.sum()), f"{area.area:.3f} ({area.low:.3f}\N{EN DASH}{area.high:.3f})",
                     calibration_error(np.maximum(p[:, n], 1 - p[:, n]), (p[:, n] > 0.5) == present)])
    kept.table("findings", ["finding", "discs with it", "area under the ROC curve", ("calibration error", ".3f")], rows)


def refusals(kept: Results, sets: dict) -> None:
    """Keep how many series and discs were not graded, and why."""
    rows = []
    for name, discs in sets.items():
        series = len(set(discs.series)) + len(discs.refused)
        whole = [text.split(":")[0].split("(")[0].rstrip(". ") for text in discs.refused.values()]
        for of, given, reasons in ((name, series, whole), (f"{name}, discs", len(discs.people) + len(discs.withheld),
                                                          list(discs.withheld.values()))):
            rows += [[of, given, reasons.count(reason), reason.rstrip(".")] for reason in sorted(set(reasons))]
    kept.table("refusals", ["images", "given", "not graded", "why"], rows)


def main() -> None:
    """Train as ``Training.grades`` does, and keep the tables; of a quick run print the figures alone."""
    options, validated, t1w, alone = grades.main()
    if options.quick:
        print(figures(validated[0][0].grade, validated[0][1][:, :GRADES]))
    else:
        write_tables(options.data / "participants.tsv", *validated, t1w)
        write_differences(validated[0][0], alone, validated[0][1])


if __name__ == "__main__":
    main()
