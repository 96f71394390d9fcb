"""Write ``Docs/validation/segmentation.md`` from the results of ``Training.evaluate``."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.atomic import write_text
from DiscRelaxometryLib.labels import disc_name
from Training.metrics import icc21, summary

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
        ["person", "disc Dice", "vertebra Dice", "canal Dice", "disc ASD, mm", "discs", "missed", "extra",
         "names right"],
        [[p["person"], *(float(v) for v in numbers([p], "disc")), *numbers([p], "vertebra").tolist(),
          *numbers([p], "canal").tolist(), *numbers([p], "distance").tolist(), p["discs"], p["missed"], p["extra"],
          "yes" if p["names_right"] else "no"] for p in people])
    text += "\n" + table(DISTRIBUTION, [
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


def agreement(rows: list[dict]) -> str:
    """Return bias, limits of agreement and ICC(2,1) of disc volume and of normalized T2w signal."""
    result = []
    for name, own, other in (("disc volume, cm3", "volume", "reference_volume"),
                             ("mean signal / CSF median", "signal", "reference_signal")):
        pairs = np.stack([numbers(rows, own), numbers(rows, other)], 1)
        pairs = pairs[np.isfinite(pairs).all(1) & (pairs[:, 0] > 0)]
        if len(pairs) < 3:
            continue
        difference = pairs[:, 0] - pairs[:, 1]
        result.append([name, len(pairs), float(difference.mean()), float(100 * difference.mean() / pairs[:, 1].mean()),
                       float(difference.mean() - 1.96 * difference.std(ddof=1)),
                       float(difference.mean() + 1.96 * difference.std(ddof=1)), icc21(pairs)])
    return table(["", "discs", "bias", "bias, %", "lower limit", "upper limit", "ICC(2,1)"], result)


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
    return table(["person", "level", "named", "Dice", "central slices", "lateral slices", "ASD, mm", "volume, cm3",
                  "reference, cm3"],
                 [[r["person"], disc_name(r["level"]), disc_name(r["named"]) if r["named"] > 3 else "-",
                   *[float(v) for k in ("dice", "central", "lateral", "distance", "volume", "reference_volume")
                     for v in numbers([r], k)]] for r in part["rows"]])


def bodies(part: dict) -> str:
    """Return the section on other contrasts."""
    return table(["set", "person", "body Dice", "gaps between bodies", "gaps with one disc", "levels in order", "note"],
                 [[r["set"], r["person"], *numbers([r], "dice").tolist(), r["gaps"], r["right"],
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


SECTIONS = (
    ("spider", "SPIDER, people not used for training", spider),
    ("spider", "Calibration", calibration_text),
    ("ivd", "Second center, full width (`ivd_t2w`, never trained on)", ivd),
    ("bodies", "Other contrasts and pathology (bodies only)", bodies),
    ("echo", "Simulated echo images (4.5 mm slices, 1.25 mm pixels, Rician noise)", echo),
    ("reject", "Images that show no spine", reject))


def write_tables(results: dict, path: Path = PAGE) -> Path:
    """Write the page from what has been evaluated."""
    manifest = results["manifest"]
    training = manifest["training"]
    text = f"""# Segmentation: figures

Command: `make evaluate` (`python -m Training.evaluate`), {date.today().isoformat()}; weights
{manifest['name']} {manifest['version']} (fold {training['fold']}, {training['length']}), engine onnxruntime.

The network was trained on {len(training['people']['train'])} people of SPIDER. Temperature and review threshold were
chosen on {', '.join(training['people']['inner'])}; the figures below are from {len(training['people']['test'])} other
people ({', '.join(training['people']['test'])}), who took no part in training or in any choice. This is **one fold of
a four-fold split by person**, not a full cross-validation: the folds are fixed in `Training/folds.json`, and
`Training/README.md` says how to train the others.

Definitions: Dice over the whole volume (all discs together by person; each disc by level and grade, matched by
overlap); ASD is the average symmetric surface distance, mean over a person's discs; a name counts as right if every
disc not cut by the upper or lower end of the volume has the level of the reference.

"""
    for key, title, write in SECTIONS:
        if key in results:
            text += f"## {title}\n\n{write(results[key])}\n"
        if write is calibration_text and key in results:
            text += "## Review flag\n\n" + FLAG_NOTE.format(manifest.get("review_threshold", float("nan")))
            text += flags(results) + "\n"
    notes = path.with_name("segmentation-notes.md")
    if notes.exists():
        text += notes.read_text(encoding="utf-8")
    return write_text(path, text)


FLAG_NOTE = """A disc is flagged when the Dice expected from its calibrated probabilities is below {:.3f}. The degraded
images are the test people's own, made worse on purpose (`Training/degrade.py`), because few discs are bad as acquired.
Recall: share of bad discs flagged; false alarms: share of good discs flagged. A disc that was not found can not be
flagged; the last column counts them.

"""
