"""Write ``Docs/validation/segmentation.md`` from the results of ``Training.evaluate``."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import write_text
from DiscRelaxometryLib.labels import disc_name
from DiscStatsLib.tables import bland_altman, icc
from Training.dataset import fold_numbers
from Training.metrics import summary

PAGE = Path(__file__).resolve().parent.parent / "Docs/validation/segmentation.md"
BAD = 0.85


def table(header: list[str], rows: list[list]) -> str:
    """Return a Markdown table; floats with three digits, missing as a dash."""
    def cell(value) -> str:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return "-"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows]) + "\n"


def numbers(rows: list[dict], key: str) -> np.ndarray:
    """Return one column as floats; missing is NaN."""
    return np.array([np.nan if r.get(key) is None else r[key] for r in rows], float)


def distribution(name: str, values) -> list:
    """Return a row: n, mean, SD, minimum, quartiles, maximum."""
    s = summary(values)
    return [name, s["n"]] + [float(s.get(k, np.nan)) for k in ("mean", "sd", "min", "q1", "median", "q3", "max")]


DISTRIBUTION = ["", "n", "mean", "SD", "min", "Q1", "median", "Q3", "max"]


def spider(part: dict) -> str:
    """Return the section on SPIDER's held-out people."""
    people, rows = part["people"], [r for r in part["rows"] if r["level"]]
    text = "### By person\n\n" + table(
        ["person", "disc Dice", "vertebra Dice", "canal Dice", "disc ASD, mm", "disc volume / reference", "discs",
         "missed", "extra", "names right"],
        [[p["person"], *(float(numbers([p], key)[0]) for key in ("disc", "vertebra", "canal", "distance")),
          volume_ratio(rows, p["person"]), p["discs"], p["missed"], p["extra"], "yes" if p["names_right"] else "no"]
         for p in people])
    text += "\n" + READING + table(DISTRIBUTION, [
        distribution("disc Dice by person", numbers(people, "disc")),
        distribution("vertebra Dice by person", numbers(people, "vertebra")),
        distribution("canal Dice by person", numbers(people, "canal")),
        distribution("disc ASD by person, mm", numbers(people, "distance")),
        distribution("Dice by disc", numbers(rows, "dice"))])
    text += "\n### By level\n\n" + table(DISTRIBUTION, [
        distribution(disc_name(v), numbers([r for r in rows if r["level"] == v], "dice"))
        for v in sorted({r["level"] for r in rows})])
    graded = sorted({r["grade"] for r in rows if r.get("grade")})
    text += "\n### By Pfirrmann grade\n\n" + table(DISTRIBUTION, [
        distribution(f"grade {g}", numbers([r for r in rows if r.get("grade") == g], "dice")) for g in graded])
    return text + "\n### Volume and normalized signal, automatic against reference\n\n" + agreement(rows)


def volume_ratio(rows: list[dict], person: str) -> float:
    """Return the total volume of a person's discs over that of the reference."""
    own = [r for r in rows if r["person"] == person]
    return float(numbers(own, "volume").sum() / numbers(own, "reference_volume").sum())


def agreement(rows: list[dict]) -> str:
    """Return bias, limits of agreement and ICC(2,1) of disc volume and of normalized T2w signal."""
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
    return table(["", "discs", "bias", "bias, %", "lower limit", "upper limit", "ICC(2,1)", "95 % interval"], result)


def calibration_text(part: dict) -> str:
    """Return the reliability table."""
    return (f"Expected calibration error (15 bins, voxels within 4 mm of a structure): **{part['ece']:.4f}**.\n\n"
            + table(["confidence from", "to", "voxels", "mean confidence", "accuracy"],
                    [[float(b["low"]), float(b["high"]), b["count"], float(b["confidence"]), float(b["accuracy"])]
                     for b in part["bins"]]))


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


def flags(results: dict) -> str:
    """Return the section on the review flag."""
    rows = [flag_text("as acquired", results["spider"]["rows"])]
    worse = results.get("degraded", {}).get("rows", [])
    for kind in sorted({r["degradation"] for r in worse}):
        rows.append(flag_text(kind, [r for r in worse if r["degradation"] == kind]))
    if worse:
        rows.append(flag_text("all", results["spider"]["rows"] + worse))
    return table(["images", "discs found", f"bad (Dice < {BAD})", "recall", "false alarms", "rank correlation",
                  "reference discs not found"], rows)


def ivd(part: dict) -> str:
    """Return the section on the second center."""
    return IVD_NOTE + table(
        ["person", "level", "named", "Dice", "central slices", "lateral slices", "ASD, mm", "volume, cm3",
         "reference, cm3"],
        [[r["person"], disc_name(r["level"]), disc_name(r["named"]) if r["named"] > 3 else "-",
                   *[float(v) for k in ("dice", "central", "lateral", "distance", "volume", "reference_volume")
                     for v in numbers([r], k)]] for r in part["rows"]])


BODIES = """Bodies alone are compared: what lies behind the canal's front, above and below the bodies of the
reference, and S1, which `vertebrae_mixed_contrast` has and the network does not know, are left out. Seen by eye, what
is lost is lost in lateral slices: the references of `vertebrae_t1w` go on for a slice of 4 mm in which no bone is seen,
those of `vertebrae_mixed_contrast` shrink before the body does. Central slices lie within 10 mm of the middle.

"""


def bodies(part: dict) -> str:
    """Return the section on other contrasts."""
    return BODIES + table(
        ["set", "person", "body Dice", "central slices", "lateral slices", "volume / reference", "gaps between bodies",
         "gaps with one disc", "levels in order", "note"],
        [[r["set"], r["person"], *(v for k in ("dice", "central", "lateral", "volume_ratio")
                                   for v in numbers([r], k)), r["gaps"], r["right"],
          "yes" if r["ordered"] else "no", r["reason"]] for r in part["rows"]])


def echo(part: dict) -> str:
    """Return the section on simulated echo images."""
    return table(["person", "slices", "disc Dice", "vertebra Dice", "names right", "missed", "extra"],
                 [[r["person"], r["slices"], *numbers([r], "disc").tolist(), *numbers([r], "vertebra").tolist(),
                   "yes" if r["right"] else "no", r["missed"], r["extra"]] for r in part["rows"]])


def reject(part: dict) -> str:
    """Return the section on images without a spine."""
    return table(["image", "discs named", "statement"],
                 [[r["image"], ", ".join(r["discs"]) or "none", r["statement"]] for r in part["rows"]])


def targets(results: dict) -> str:
    """Return what was aimed at and what was reached."""
    rows = []

    def row(name: str, goal: str, value: float, reached: bool) -> None:
        rows.append([name, goal, f"{value:.3f}", "yes" if reached else "**no**"])

    if "spider" in results:
        people, discs = results["spider"]["people"], [r for r in results["spider"]["rows"] if r["level"]]
        for name, key, goal in (("disc", "disc", 0.92), ("vertebra", "vertebra", 0.94), ("canal", "canal", 0.93)):
            value = np.nanmean(numbers(people, key))
            row(f"SPIDER, mean {name} Dice", f">= {goal}", value, value >= goal)
        worst, distance = np.nanmin(numbers(people, "disc")), np.nanmean(numbers(people, "distance"))
        row("SPIDER, worst person's disc Dice", ">= 0.82", worst, worst >= 0.82)
        row("SPIDER, average surface distance of discs, mm", "<= 0.5", distance, distance <= 0.5)
        right = np.mean([p["names_right"] for p in people])
        row("SPIDER, share of people with all levels right", "1", right, right == 1)
        pairs = np.stack([numbers(discs, "signal"), numbers(discs, "reference_signal")], 1)
        pairs = pairs[np.isfinite(pairs).all(1)]
        bias = 100 * abs(pairs[:, 0].mean() / pairs[:, 1].mean() - 1)
        row("normalized signal a disc, bias, %", "< 2", bias, bias < 2)
        single = next(r["value"] for r in icc(pairs).rows if r["form"] == "ICC(2,1)")
        row("normalized signal a disc, ICC(2,1)", ">= 0.95", single, single >= 0.95)
    if "ivd" in results:
        levels = sorted({r["level"] for r in results["ivd"]["rows"]})
        for key, name in (("dice", "whole discs"), ("central", "central slices"), ("lateral", "lateral slices")):
            worst = min(np.mean(numbers([r for r in results["ivd"]["rows"] if r["level"] == v], key)) for v in levels)
            row(f"second center, lowest level's mean Dice, {name}", ">= 0.88", worst, worst >= 0.88)
    if "bodies" in results:
        for part in sorted({r["set"] for r in results["bodies"]["rows"]}):
            value = np.nanmean([r["dice"] for r in results["bodies"]["rows"] if r["set"] == part])
            row(f"{part}, mean body Dice", ">= 0.85", value, value >= 0.85)
    if "echo" in results:
        right = np.mean([r["right"] and not r["missed"] for r in results["echo"]["rows"]])
        row("simulated echo images, share of people with number and order right", "1", right, right == 1)
    return table(["", "aim", "reached", "met"], rows) + "\nTime and memory are at the end of this page.\n"


def speed() -> str:
    """Return where time and memory are, and what others published."""
    return """Aim: 20 slices in under 10 s on two cores, peak memory under 2 GB: see
[time and memory](segmentation-speed.md).

## Figures of other tools, as published (own data each; not run here, their weights were not at hand)

| tool | disc figure | licence |
|---|---|---|
| SPINEPS (T2w) | Dice 0.960; 0.967 with SPIDER training | Apache-2.0 |
| TotalSegmentator total_mr | Dice 0.871, one class without levels | Apache-2.0 |
| TotalSpineSeg | levels; Dice not found | LGPL-3.0 |
| 2-D U-Nets on discs | Dice 0.89-0.94 | - |
"""


SECTIONS = (
    ("spider", "SPIDER, people not used for training", spider),
    ("spider", "Calibration", calibration_text),
    ("ivd", "Second center, full width (`ivd_t2w`, never trained on)", ivd),
    ("bodies", "Other contrasts and pathology (bodies only)", bodies),
    ("echo", "Simulated echo images (4.5 mm slices, 1.25 mm pixels, Rician noise)", echo),
    ("reject", "Images that show no spine", reject))


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


def by_fold(results: dict, calibrations: dict[str, dict]) -> str:
    """Return each fold's size, temperature, threshold and mean figures."""
    rows = []
    for fold, part in sorted(results.get("spider", {}).items()):
        own = calibrations[fold]
        rows.append([fold, len(part["people"]), float(own["temperature"]), float(own.get("review_threshold", np.nan)),
                     *(float(np.mean(numbers(part["people"], k))) for k in ("disc", "vertebra", "canal", "distance"))])
    return table(["fold", "people held out", "temperature", "review threshold", "disc Dice", "vertebra Dice",
                  "canal Dice", "disc ASD, mm"], rows)


def write_tables(results: dict, manifest: dict, runs: Path, path: Path = PAGE) -> Path:
    """Write the page from what has been evaluated.

    Parameters
    ----------
    results : dict
        By part, then by fold or ``shipped``; see ``Training.evaluate``.
    manifest : dict
        Of the shipped weights.
    runs : Path
        Folder with each fold's ``calibration.json``.
    path : Path
        Page to write.
    """
    calibrations = {str(k): json.loads((runs / f"fold{k}" / "calibration.json").read_text()) for k in fold_numbers()}
    thresholds = {k: c.get("review_threshold", np.nan) for k, c in calibrations.items()}
    joined = {part: pooled(value, thresholds) if "shipped" not in value else value["shipped"]
              for part, value in results.items()}
    training = manifest["training"]
    text = HEAD.format(date=date.today().isoformat(), name=manifest["name"], version=manifest["version"],
                       fold=training["fold"], folds=len(calibrations), length=training["length"],
                       people=len(training["people"]["train"]))
    text += f"## Aims\n\n{targets(joined)}\n## Folds\n\n{by_fold(results, calibrations)}\n"
    for key, title, write in SECTIONS:
        if key in joined:
            text += f"## {title}\n\n{write(joined[key])}\n"
        if write is calibration_text and key in joined:
            text += "## Review flag\n\n" + FLAG_NOTE + flags(joined) + "\n"
    return write_text(path, text + f"## Time and memory\n\n{speed()}")


HEAD = """# Segmentation: figures

Command: `make evaluate` (`python -m Training.evaluate --tables`), {date}; engine onnxruntime, one pass (no
mirror image).

**{folds}-fold cross-validation by person** (`Training/folds.json`): each of the 33 people of SPIDER is segmented
by the network that never saw them. Temperature and review threshold of a fold come from the people of the other
folds, each seen by the network that held *them* out; nothing is chosen on a fold's own people. The shipped
weights ({name} {version}) are those of fold {fold}, trained on {people} people ({length} on one GPU, {folds}
networks at once); other data are segmented by them.

Definitions: Dice over the whole volume (all discs together by person; each disc by level and grade, matched by
overlap); ASD is the average symmetric surface distance, mean over a person's discs; a name counts as right if
every disc not cut by the upper or lower end of the volume has the level of the reference.

"""

READING = """\
Seen by eye, the references are not of one style: in some people (sub-022, sub-136 and sub-161) the disc reaches
the signal of the marrow, in others the dark endplate is left out (the mean gap between disc and vertebra labels
is 0.06 mm in sub-136 and 2.4 mm in sub-055). The network learned a mean style and can not know the reference's
from the image; it shows in the ratio of volumes. Discs are 10 to 20 voxels high: half a voxel (0.3 mm) along
the whole outline costs about 0.05 of Dice. sub-050 has hardware or artefacts; the reference of its L4-L5 disc
is a fragment.

"""

FLAG_NOTE = """\
A disc is flagged when the Dice expected from its calibrated probabilities is below its fold's threshold (table
of folds). The degraded images are the same people's own, made worse on purpose (`Training/degrade.py`; one kind
a person, in turn), because few discs are bad as acquired. Recall: share of bad discs flagged; false alarms:
share of good discs flagged. A disc that was not found can not be flagged; the last column counts them.

"""

IVD_NOTE = """\
Seen by eye (`segmentation-lateral.png`; `python -m Training.figures`), the reference of this set leaves out the
outer annulus and ends one to two slices of 4.4 mm before the disc does; the network marks the disc out to its
rim, which costs Dice in lateral slices. Nothing was tuned on these people.

![Reference (green), network (red: disc, yellow: vertebra), side to side, sub-20](segmentation-lateral.png)

"""
