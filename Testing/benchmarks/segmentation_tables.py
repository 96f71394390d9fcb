"""Make the tables of ``Docs/validation/segmentation.md`` from the results of ``Training.evaluate``.

Run: python Testing/benchmarks/segmentation_tables.py [--runs FOLDER]   (``make evaluate`` does)
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas
from common import ROOT, Aim, Results

from DiscRelaxometryLib.labels import disc_name
from DiscStatsLib.tables import bland_altman, icc

BAD = 0.85


def numbers(rows: list[dict], key: str) -> np.ndarray:
    """Return one column as floats; missing is NaN."""
    return np.array([np.nan if r.get(key) is None else r[key] for r in rows], float)


def distribution(name: str, values) -> list:
    """Return a row of the finite values: n, mean, SD, minimum, quartiles, maximum."""
    count, *found = pandas.Series([v for v in values if np.isfinite(v)], dtype=float).describe()
    return [name, int(count), *map(float, found)]


def shown(*names: str) -> list[tuple[str, str]]:
    """Return columns of numbers with three digits."""
    return [(name, ".3f") for name in names]


DISTRIBUTION = ["", "n", *shown("mean", "SD", "min", "Q1", "median", "Q3", "max")]


def spider(results: Results, part: dict) -> None:
    """Keep the tables on SPIDER's held-out people."""
    people, rows = part["people"], [r for r in part["rows"] if r["level"]]
    results.table("people", [
        "person", *shown("disc Dice", "vertebra Dice", "canal Dice", "disc ASD, mm", "disc volume / reference"),
        "discs", "missed", "extra", "names right"],
        [[p["person"], *(float(numbers([p], key)[0]) for key in ("disc", "vertebra", "canal", "distance")),
          volume_ratio(rows, p["person"]), p["discs"], p["missed"], p["extra"], bool(p["names_right"])]
         for p in people])
    results.table("distributions", DISTRIBUTION, [
        distribution("disc Dice by person", numbers(people, "disc")),
        distribution("vertebra Dice by person", numbers(people, "vertebra")),
        distribution("canal Dice by person", numbers(people, "canal")),
        distribution("disc ASD by person, mm", numbers(people, "distance")),
        distribution("Dice by disc", numbers(rows, "dice"))])
    results.table("levels", DISTRIBUTION, [
        distribution(disc_name(v), numbers([r for r in rows if r["level"] == v], "dice"))
        for v in sorted({r["level"] for r in rows})])
    graded = sorted({r["grade"] for r in rows if r.get("grade")})
    results.table("grades", DISTRIBUTION, [
        distribution(f"grade {g}", numbers([r for r in rows if r.get("grade") == g], "dice")) for g in graded])
    agreement(results, rows)
    results.table("calibration", [*shown("confidence from", "to"), "voxels", *shown("mean confidence", "accuracy")],
                  [[float(b["low"]), float(b["high"]), b["count"], float(b["confidence"]), float(b["accuracy"])]
                   for b in part["bins"]], expected_calibration_error=round(part["ece"], 4))


def volume_ratio(rows: list[dict], person: str) -> float:
    """Return the total volume of a person's discs over that of the reference."""
    own = [r for r in rows if r["person"] == person]
    return float(numbers(own, "volume").sum() / numbers(own, "reference_volume").sum())


def agreement(results: Results, rows: list[dict]) -> None:
    """Keep bias, limits of agreement and ICC(2,1) of disc volume and of normalized T2w signal."""
    result = []
    for name, own, other in (("disc volume, cm3", "volume", "reference_volume"),
                             ("mean signal / CSF median", "signal", "reference_signal")):
        pairs = np.stack([numbers(rows, own), numbers(rows, other)], 1)
        pairs = pairs[np.isfinite(pairs).all(1) & (pairs[:, 0] > 0)]
        if len(pairs) < 3:
            continue
        limits = bland_altman(pairs[:, 0], pairs[:, 1])
        single = next(r for r in icc(pairs).rows if r["form"] == "ICC(2,1)")
        result.append([name, len(pairs), float(limits.bias), float(100 * limits.bias / pairs[:, 1].mean()),
                       float(limits.lower), float(limits.upper), float(single["value"]),
                       f"{single['low']:.3f} to {single['high']:.3f}"])
    results.table("agreement", ["", "discs", *shown("bias", "bias, %", "lower limit", "upper limit", "ICC(2,1)"),
                                "95 % interval"], result)


def flag_text(name: str, rows: list[dict]) -> list:
    """Return a row: discs, bad ones, recall and false-alarm rate of the review flag, rank correlation."""
    given = [r for r in rows if r["review"] is not None]
    bad = numbers(given, "dice") < BAD
    flagged = np.array([bool(r["review"]) for r in given])
    score, truth = numbers(given, "expected_dice"), numbers(given, "dice")
    rank = np.corrcoef(np.argsort(np.argsort(score)), np.argsort(np.argsort(truth)))[0, 1] if len(given) > 2 else np.nan
    return [name, len(given), int(bad.sum()), float(flagged[bad].mean()) if bad.any() else np.nan,
            float(flagged[~bad].mean()) if (~bad).any() else np.nan, float(rank),
            sum(1 for r in rows if r["review"] is None)]


def flags(results: Results, parts: dict) -> None:
    """Keep the table on the review flag."""
    rows = [flag_text("as acquired", parts["spider"]["rows"])]
    worse = parts.get("degraded", {}).get("rows", [])
    for kind in sorted({r["degradation"] for r in worse}):
        rows.append(flag_text(kind, [r for r in worse if r["degradation"] == kind]))
    if worse:
        rows.append(flag_text("all", parts["spider"]["rows"] + worse))
    results.table("flag", ["images", "discs found", f"bad (Dice < {BAD})",
                           *shown("recall", "false alarms", "rank correlation"), "reference discs not found"], rows)


def ivd(results: Results, part: dict) -> None:
    """Keep the table on the second center."""
    results.table("second_center", ["person", "level", "named", *shown(
        "Dice", "central slices", "lateral slices", "ASD, mm", "volume, cm3", "reference, cm3")],
        [[r["person"], disc_name(r["level"]), disc_name(r["named"]) if r["named"] > 3 else "-",
          *(float(v) for k in ("dice", "central", "lateral", "distance", "volume", "reference_volume")
            for v in numbers([r], k))] for r in part["rows"]])


def bodies(results: Results, part: dict) -> None:
    """Keep the table on other contrasts."""
    results.table("bodies", ["set", "person", *shown("body Dice", "central slices", "lateral slices",
                                                    "volume / reference"), "gaps between bodies", "gaps with one disc",
                             "levels in order", "note"],
                  [[r["set"], r["person"], *(v for k in ("dice", "central", "lateral", "volume_ratio")
                                             for v in numbers([r], k)), r["gaps"], r["right"], bool(r["ordered"]),
                    r["reason"]] for r in part["rows"]])


def echo(results: Results, part: dict) -> None:
    """Keep the table on simulated echo images."""
    results.table("echo", ["person", "slices", *shown("disc Dice", "vertebra Dice"), "names right", "missed", "extra"],
                  [[r["person"], r["slices"], *numbers([r], "disc").tolist(), *numbers([r], "vertebra").tolist(),
                    bool(r["right"]), r["missed"], r["extra"]] for r in part["rows"]])


def reject(results: Results, part: dict) -> None:
    """Keep the table on images without a spine."""
    results.table("no_spine", ["image", "discs named", "statement"],
                  [[r["image"], ", ".join(r["discs"]) or "none", r["statement"]] for r in part["rows"]])


def targets(results: dict) -> list[Aim]:
    """Return what was aimed at and what was reached."""
    found = []
    if "spider" in results:
        people, discs = results["spider"]["people"], [r for r in results["spider"]["rows"] if r["level"]]
        pairs = np.stack([numbers(discs, "signal"), numbers(discs, "reference_signal")], 1)
        pairs = pairs[np.isfinite(pairs).all(1)]
        single = next(r["value"] for r in icc(pairs).rows if r["form"] == "ICC(2,1)")
        found += [
            *(Aim(f"SPIDER, mean {name} Dice", np.nanmean(numbers(people, name)), at_least=goal, form=".3f")
              for name, goal in (("disc", 0.92), ("vertebra", 0.94), ("canal", 0.93))),
            Aim("SPIDER, worst person's disc Dice", np.nanmin(numbers(people, "disc")), at_least=0.82, form=".3f"),
            Aim("SPIDER, average surface distance of discs", np.nanmean(numbers(people, "distance")), at_most=0.5,
                form=".2f", unit="mm"),
            Aim("SPIDER, share of people with all levels right", np.mean([p["names_right"] for p in people]),
                at_least=1, form=".3f"),
            Aim("normalized signal per disc, bias", 100 * abs(pairs[:, 0].mean() / pairs[:, 1].mean() - 1), at_most=2,
                form=".1f", unit="%"),
            Aim("normalized signal per disc, ICC(2,1)", single, at_least=0.95, form=".3f")]
    if "ivd" in results:
        # Weights 2.0.0 reached 0.867.
        found.append(Aim("second center, Dice", np.mean(numbers(results["ivd"]["rows"], "dice")), at_least=0.867,
                         form=".3f"))
        levels = sorted({r["level"] for r in results["ivd"]["rows"]})
        for key, name in (("dice", "whole discs"), ("central", "central slices"), ("lateral", "lateral slices")):
            worst = min(np.mean(numbers([r for r in results["ivd"]["rows"] if r["level"] == v], key)) for v in levels)
            found.append(Aim(f"second center, lowest level's mean Dice, {name}", worst, at_least=0.88, form=".3f"))
    if "bodies" in results:
        for part in sorted({r["set"] for r in results["bodies"]["rows"]}):
            value = np.nanmean([r["dice"] for r in results["bodies"]["rows"] if r["set"] == part])
            found.append(Aim(f"{part}, mean body Dice", value, at_least=0.85, form=".3f"))
    if "echo" in results:
        right = np.mean([r["right"] and not r["missed"] for r in results["echo"]["rows"]])
        found.append(Aim("simulated echo images, share of people with number and order right", right, at_least=1,
                         form=".3f"))
    return found


PARTS = {"spider": spider, "ivd": ivd, "bodies": bodies, "echo": echo, "reject": reject}


def pooled(parts: dict[str, dict], thresholds: dict[str, float]) -> dict:
    """Join the folds of a cross-validated part; discs are flagged by their own fold's threshold.

    Returns
    -------
    dict
        ``people`` (sorted by name) and ``rows`` of all folds; reliability ``bins`` weighted by their counts, and
        the expected calibration error ``ece`` that follows from them.
    """
    joined = {"people": [], "rows": []}
    for fold, part in parts.items():
        joined["people"] += part.get("people", [])
        joined["rows"] += [r if r.get("review") is None else r | {"review": r["expected_dice"] < thresholds[fold]}
                           for r in part["rows"]]
    joined["people"].sort(key=lambda p: p["person"])
    every = [b for part in parts.values() for b in part.get("bins", [])]
    joined["bins"] = []
    for low in sorted({b["low"] for b in every}):
        same = [b for b in every if b["low"] == low]
        count = sum(b["count"] for b in same)
        joined["bins"].append({"low": low, "high": same[0]["high"], "count": count} | {
            k: sum(b["count"] * b[k] for b in same) / count for k in ("confidence", "accuracy")})
    total = sum(b["count"] for b in every)
    joined["ece"] = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in joined["bins"]) / max(1, total)
    return joined


def by_fold(kept: Results, results: dict, calibrations: dict[str, dict]) -> None:
    """Keep each fold's size, temperature, threshold and mean figures."""
    rows = []
    for fold, part in sorted(results.get("spider", {}).items()):
        own = calibrations[fold]
        rows.append([fold, len(part["people"]), float(own["temperature"]), float(own.get("review_threshold", np.nan)),
                     *(float(np.mean(numbers(part["people"], k))) for k in ("disc", "vertebra", "canal", "distance"))])
    kept.table("folds", ["fold", "people held out", *shown("temperature", "review threshold", "disc Dice",
                                                           "vertebra Dice", "canal Dice", "disc ASD, mm")], rows)


def write_tables(results: dict, runs: Path) -> Path:
    """Keep the tables of what has been evaluated.

    Parameters
    ----------
    results : dict
        By part, then by fold or ``shipped``; see ``Training.evaluate``.
    runs : Path
        Folder with ``calibration.json`` of each fold that was evaluated.

    Returns
    -------
    Path
        The file that was written.
    """
    folds = {fold for value in results.values() for fold in value} - {"shipped"}
    calibrations = {k: json.loads((runs / f"fold{k}" / "calibration.json").read_text()) for k in folds}
    thresholds = {k: c.get("review_threshold", np.nan) for k, c in calibrations.items()}
    joined = {part: pooled(value, thresholds) if "shipped" not in value else value["shipped"]
              for part, value in results.items()}
    kept = Results("segmentation")
    kept.aims(*targets(joined))
    by_fold(kept, results, calibrations)
    for part, write in PARTS.items():
        if part in joined:
            write(kept, joined[part])
    if "spider" in joined:
        flags(kept, joined)
    return kept.path


def main() -> None:
    """Parse arguments and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "Training" / "runs", help="folder of the folds' runs")
    options = parser.parse_args()
    results = json.loads((options.runs / "evaluation.json").read_text(encoding="utf-8"))
    print(write_tables(results, options.runs))


if __name__ == "__main__":
    main()
