"""Flags of discs on people not trained on, on clinical slices, and level names of T1w against T2w of a person.

Run: DISC_SHARED_DATA=<data> python Testing/benchmarks/bench_flags.py CACHE [--every N] [--manifest WEIGHTS]

Held out: the people that the network of a fold (``--manifest``) was not trained on, as acquired and
degraded. Clinical slices are of people that neither it nor its self-training used. CACHE keeps the
network's predictions.
"""

import argparse
from pathlib import Path

import numpy as np
from common import Aim, Results, held_out, shared_data

from DiscRelaxometryLib.discs import Model, Segmentation, load_engine
from DiscRelaxometryLib.discs.inference import Prediction, predict
from DiscRelaxometryLib.discs.segment import assemble
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscRelaxometryLib.tables import read_tsv
from Training.dataset import person_of, read_folds
from Training.degrade import DEGRADATIONS
from Training.evaluate import TOLERANCES, disc_rows
from Training.metrics import dice
from Training.pseudo import names_alike, same_view

LUMBAR = {disc_value(name) for name in LUMBAR_LEVELS}
BAD_DICE, BAD_DISTANCE = 0.75, 1.0
#: Slices that the data's description names: beside the canal, or with a signal void.
NO_CANAL = {("sub-133", "T2w"), ("sub-253", "T1w"), ("sub-253", "T2w"), ("sub-035", "T2w")}


def segmented(name: str, image: Image, cache: Path, model: Model) -> Segmentation:
    """Return the network's segmentation, its prediction from the cache where it is there."""
    folder, fields = cache / model.manifest["files"]["safetensors"]["sha256"][:8], Prediction.__dataclass_fields__
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    if not path.exists():
        prediction, _ = predict(image, model, load_engine(model, "onnx", None, 1))
        np.savez_compressed(path, **{k: getattr(prediction, k) for k in fields})
    with np.load(path) as kept:
        found = Prediction(**{k: kept[k].astype(np.float32) if k == "confidence" else kept[k] for k in fields})
    return assemble(image, found, [], model, "onnx (cpu)")


def volumes(results: Results, cache: Path, kinds: list[str], model: Model, names: list[str]) -> None:
    """Count bad discs that are flagged, and good ones, of people held out."""
    folder = shared_data() / "spider_t2space"
    order = sorted(n for fold in read_folds()["folds"] for n in fold)
    table, missed, everything, scores, outlines = [], [], [], [], []
    for kind in kinds:
        rows = []
        for name in names:
            image = DEGRADATIONS[kind](read_image(folder / f"{name}_T2w.nii.gz"), 100 + order.index(name))
            found = segmented(f"{name}_{kind.replace(' ', '')}", image, cache, model)
            matched = disc_rows(found, read_image(folder / f"{name}_dseg.nii.gz"))
            if kind == "as acquired":
                outlines += [r | {"person": name} for r in matched]
            for row in matched:
                if row["level"] in LUMBAR:
                    bad = not (row["dice"] >= BAD_DICE and row["distance"] <= BAD_DISTANCE and
                               row["named"] == row["level"])
                    rows.append((bad, row["review"] is not False, row["dice"] < BAD_DICE))
                    scores.append((name, bad, row["expected_dice"]))
                    if bad and row["review"] is False:
                        missed.append((name, kind, row["level"] - 10, row["dice"], row["distance"]))
        table.append(counted(kind, rows))
        everything += rows
    table.append(counted("all", everything))
    results.table("held_out", ["images", "discs", "bad", ("caught", ".2f"), ("caught of Dice < 0.75", ".2f"),
                               ("good ones flagged", ".3f")], table, people=len(names))
    if outlines:
        outline_figures(results, outlines)
    results.table("ranking", ["expected Dice alone", "value"], ranking(scores), people=len(names))
    results.table("missed", ["person", "image", "disc from below", ("Dice", ".2f"), ("distance, mm", ".2f")], missed)
    results.aims(Aim("bad discs caught", table[-1][3], at_least=0.9, form=".2f"),
                 Aim("good discs flagged", table[-1][5], at_most=0.08, form=".3f"))


def outline_figures(results: Results, rows: list[dict]) -> None:
    """List overlap and surfaces of all discs of the people held out; a disc that was not found has a Dice of 0."""
    rows = [r for r in rows if r["level"]]
    mean = lambda key, some=rows: float(np.nanmean([r[key] for r in some]))  # noqa: E731
    worst = min(mean("dice", [r for r in rows if r["person"] == p]) for p in {r["person"] for r in rows})
    volumes = np.array([(r["volume"], r["reference_volume"]) for r in rows if r["named"]])
    gap = 100 * float((volumes[:, 0] - volumes[:, 1]).mean() / volumes[:, 1].mean())
    found = 100 * sum(not r["named"] for r in rows) / len(rows)
    results.table("outlines", ["people held out, as acquired", "value"], [
        ("mean Dice by disc", mean("dice")), ("surface distance, mm", mean("distance")),
        ("worst person's mean Dice", worst), ("volume bias, %", gap), ("discs missed, %", found),
        *((f"surface within {mm} mm of the reference's", mean(f"nsd_{mm}")) for mm in TOLERANCES)], discs=len(rows))
    results.aims(Aim("Dice by disc", mean("dice"), at_least=0.9, form=".3f"),
                 Aim("surface distance", mean("distance"), at_most=0.45, form=".2f", unit="mm"),
                 Aim("worst person's Dice", worst, at_least=0.83, form=".3f"),
                 Aim("volume bias", abs(gap), at_most=3, form=".1f", unit="%"),
                 Aim("discs missed", found, at_most=0.5, form=".1f", unit="%"))


def ranking(scores: list[tuple[str, bool, float]]) -> list[tuple[str, float]]:
    """Return how well a score tells bad discs: AUC, and what is caught at 8 % by thresholds of the other people."""
    people, bad, score = (np.array(v) for v in zip(*scores))
    higher = score[bad][:, None] < score[~bad]
    auc = float((higher + 0.5 * (score[bad][:, None] == score[~bad])).mean())
    limit = np.array([np.quantile(score[~bad & (people != p)], 0.08) for p in people])
    return [("area under the ROC curve", auc), ("bad discs caught", float((score < limit)[bad].mean())),
            ("good discs flagged", float((score < limit)[~bad].mean()))]


def counted(name: str, rows: list[tuple[bool, bool, bool]]) -> tuple:
    """Return a row of the table from (bad, flagged, Dice below the limit) of each disc."""
    bad, flagged, low = np.array(rows, bool).T
    share = lambda some: float(flagged[some].mean()) if some.any() else float("nan")  # noqa: E731
    return name, len(rows), int(bad.sum()), share(bad), share(low), share(~bad)


def clinical(results: Results, cache: Path, every: int, model: Model) -> None:
    """Count flagged slices and right numbers of discs, and compare the two contrasts of a person."""
    folder = shared_data() / "spider_midsagittal"
    seen = {person_of(n) for n in model.manifest["training"]["people"]["train"]}
    people = [r for r in read_tsv(folder / "participants.tsv").rows[::every] if r["participant_id"] not in seen]
    found, number = {}, {r["participant_id"]: int(r["number_of_discs"]) for r in people}
    for person in number:
        for path in sorted(folder.glob(f"{person}_T?w.nii.gz")):
            found[person, path.name[-10:-7]] = segmented(path.name[:-7], read_image(path), cache, model)
    discs = [q for s in found.values() for q in s.quality if q.value in LUMBAR]
    flagged = {k: not s.found or not s.certain or any(q.review for q in s.quality if q.value in LUMBAR)
               for k, s in found.items()}
    reasons = [("no spine found", sum(not s.found for s in found.values())),
               ("level names an assumption", sum(s.found and not s.certain for s in found.values())),
               ("a lumbar disc flagged", sum(any(q.review and q.value in LUMBAR for q in s.quality)
                                             for s in found.values())),
               ("any of these", sum(flagged.values())),
               ("as many discs as the volume has", sum(len(s.discs) == number[p] for (p, _), s in found.items()))]
    # A person has five lumbar discs, as far as is known; slices beside the canal or with a void show none.
    showing = {k: s for k, s in found.items() if k not in NO_CANAL}
    five = [sum(d.value in LUMBAR for d in s.discs) == len(LUMBAR) for s in showing.values()]
    reasons.append(("five lumbar discs, of slices that show the canal", sum(five)))
    results.table("clinical", ["", "slices"], reasons, slices=len(found), people=len(number), discs=len(discs))
    pairs = [(found[p, "T1w"], found[p, "T2w"]) for p in number
             if {(p, "T1w"), (p, "T2w")} <= set(found) and found[p, "T1w"].found and found[p, "T2w"].found
             and same_view(found[p, "T1w"], found[p, "T2w"])]
    same = [names_alike(a, b) for a, b in pairs]
    overlap = [dice(a.labels.array == v, b.labels.array == v) for a, b in pairs
               if a.labels.array.shape == b.labels.array.shape for v in LUMBAR if np.any(a.labels.array == v)]
    results.table("contrasts", ["", "value"], [
        ("T1w and T2w of one person in one view", len(pairs)), ("the same names", sum(same)),
        ("the same names, or a doubt stated",
         sum(s or not (a.certain and b.certain) for s, (a, b) in zip(same, pairs))),
        ("median Dice of a lumbar disc, same grid", float(np.median(overlap)))])
    overlap_mean = float(np.mean(overlap))
    results.aims(Aim("lumbar discs counted right", float(np.mean(five)), at_least=0.98,
                     form=".3f"),
                 Aim("T1w against T2w, disc Dice", overlap_mean, at_least=0.93, form=".3f"),
                 Aim("clinical slices with a flag", sum(flagged.values()) / len(found), at_most=0.25, form=".2f"),
                 Aim("T1w and T2w with the same names", sum(same) / len(pairs), at_least=0.99, form=".3f"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take every Nth person of the clinical slices")
    parser.add_argument("--manifest", type=Path, help="a fold's network; the shipped one by default")
    parser.add_argument("--kinds", nargs="+", choices=DEGRADATIONS, default=list(DEGRADATIONS))
    options = parser.parse_args()
    network, people = held_out(options.manifest)
    kept = Results("bench_flags")
    clinical(kept, options.cache, options.every, network)
    volumes(kept, options.cache, options.kinds, network, people)
