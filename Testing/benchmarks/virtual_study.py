"""The virtual cohort through the command line: simulate, validate, run, report, compare with the truth (SIMULATED).

    python Testing/benchmarks/virtual_study.py --work FOLDER [--people 31] [--processes 2] [--figure FILE.png]

Every step is the program ``disc-relaxometry`` as a user would call it; wall time, processor time and peak memory of all
its processes are kept with it. What is kept in FOLDER is not done again. Then the study's own tables are compared
with the simulation's ground truth. Nothing here is a measurement of tissue.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from bench_study import Tree
from common import Aim, Results, load

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.labels import LUMBAR_LEVELS, disc_value
from DiscStatsLib.tables import bland_altman
from DiscStudyLib.engine import read_rows
from DiscStudyLib.report import save_figure
from DiscStudyLib.report.figures import COLORS, new_figure

KINDS = ("T1rho", "T2")
GRADE = "pfirrmann + age + C(sex)"
SEVERE = 40  # Oswestry index above which disability is called severe


def cli(*arguments) -> Tree:
    """Run a verb of ``disc-relaxometry`` in a program of its own."""
    words = ["disc-relaxometry", *map(str, arguments)]
    code = f"import sys; sys.argv = {words!r}; from DiscStudyLib.cli.main import main; main()"
    return Tree([sys.executable, "-c", code])


def run_verbs(results: Results, options) -> Path:
    """Call the verbs one after the other and list what each costs."""
    study, n = options.work / "study", options.people
    people = [first_person(n, k) for k in range(1, options.only + 1)]
    common = ("--n-procs", options.processes, "--permutations", options.permutations,
              *(word for person in people for word in ("--participant-label", person)))
    verbs = [("run", study, "--formula", "odi + age + C(sex)", "--analysis", "odi", *common),
             ("run", study, "--formula", GRADE, "--analysis", "grade", *common),
             ("run", study, "--formula", GRADE, "--analysis", "grade", *common),
             ("status", study), ("validate", study, "--formula", GRADE),
             ("mixed", study, f"mean ~ {GRADE} + C(level)", "--map", "T1rho", "--region", "nucleus"),
             ("export-dicom", options.work / "dicom", "--study", study, "--participant-label", first_person(n))]
    if not (study / "README").exists():  # written last
        shutil.rmtree(study, ignore_errors=True)
        verbs.insert(0, ("simulate", study, "--participants", n, "--sites", 2, "--seed", options.seed))
    rows = []
    for verb in verbs:
        before, tree = load(), cli(*verb)
        shown = [str(v) for v in verb if v not in (study, "--participant-label") and not str(v).startswith("sub-")]
        words = " ".join(shown).replace(str(options.work), "FOLDER")
        rows.append((f"`{words}`", f"{tree.wall:.0f}", f"{tree.cpu:.0f}", f"{tree.peak_mb / 1000:.2f}", before))
        print(f"{words}: {tree.wall:.0f} s", file=sys.stderr, flush=True)
    results.table("verbs", ["verb", "s by the clock", "s of processor time", "peak memory of all processes, GB",
                            "load at the start"], rows, people=options.only or n)
    runs = [row for row in rows if row[0].startswith("`run")]
    results.aims(Aim(f"{options.only or n} virtual people through the whole command line",
                     sum(float(row[1]) for row in runs) / 60, at_most=25, form=".1f", unit="minutes"),
                 Aim("the same, memory of all processes", max(float(row[3]) for row in rows), at_most=8, form=".2f",
                     unit="GB"))
    return study


def first_person(count: int, number: int = 1) -> str:
    """Return the id of a person of a simulated study of so many."""
    return f"sub-{number:0{max(2, len(str(count)))}d}"


def check_labels(study: Path) -> None:
    """Say whether every table, sidecar and page of the results says that it is simulated."""
    folder = study / "derivatives" / "disc-relaxometry"
    tables, images = list(folder.rglob("*.tsv")), list(folder.rglob("*.nii.gz"))
    bare = [p.name for p in tables if not all(line.endswith("SIMULATED") for line in p.read_text().splitlines()[1:])]
    for path in images:
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        if not sidecar.exists() or not json.loads(sidecar.read_text())["Simulated"]:
            bare.append(path.name)
    page = (folder / "report.html").read_text(encoding="utf-8")
    if "SIMULATED DATA" not in page or page.count('class="tag">simulated') != page.count("<h2>"):
        bare.append("report.html")
    print(f"\nLabelled SIMULATED: {len(tables)} tables, {len(images)} images by their sidecars, each section of the "
          f"report; not labelled: {', '.join(bare) or 'none'}.")


def check_dicom(folder: Path) -> None:
    """Say what dciodvfy finds in the exported files."""
    files = sorted(folder.rglob("*.dcm"))
    if not shutil.which("dciodvfy"):
        print("dciodvfy is not installed.")
        return
    errors = 0
    for file in files:
        found = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        errors += sum(line.startswith("Error") for line in (found.stdout + found.stderr).splitlines())
    print(f"\nDICOM files of the first person: {len(files)}; dciodvfy finds {errors} errors.")


def truth_rows(study: Path) -> pd.DataFrame:
    """Return the true mean of each disc on the MAPSS grid, inside the true disc."""
    rows = []
    for folder in sorted((study / "derivatives" / "ground-truth").glob("sub-*")):
        name = f"{folder.name}_space-mapss_desc-truth"
        labels = read_image(folder / "anat" / f"{name}_labels.nii.gz").array
        maps = {k: read_image(folder / "anat" / f"{name}_{k}map.nii.gz").array for k in KINDS}
        rows += [{"participant_id": folder.name, "level": level,
                  **{f"true_{k}": float(np.nanmean(maps[k][labels == disc_value(level)])) for k in KINDS}}
                 for level in LUMBAR_LEVELS if np.any(labels == disc_value(level))]
    return pd.DataFrame(rows)


def results(study: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return region means of the study (wide by map) with participants and truth, and its agreement table."""
    group = study / "derivatives" / "disc-relaxometry" / "group"
    rows = pd.DataFrame(read_rows(group / "regions.tsv").rows)
    wide = rows.pivot_table("mean", ["participant_id", "level", "region"], "map").reset_index()
    people = pd.read_csv(study / "participants.tsv", sep="\t")
    wide = wide.merge(people, on="participant_id").merge(truth_rows(study), on=["participant_id", "level"])
    wide["grade"] = [row[f"pfirrmann_{row['level'].replace('-', '')}"] for _, row in wide.iterrows()]
    return wide, pd.DataFrame(read_rows(group / "agreement.tsv").rows)


def limits(pairs) -> list[tuple]:
    """Return rows of bias and limits of agreement with their intervals."""
    rows = []
    for name, first, second in pairs:
        keep = np.isfinite(first) & np.isfinite(second)
        found = bland_altman(first[keep], second[keep])
        rows.append((name, found.n, f"{second[keep].mean():.1f}",
                     f"{found.bias:+.2f} ({found.bias_ci[0]:+.2f} to {found.bias_ci[1]:+.2f})",
                     f"{found.lower:.1f} to {found.upper:.1f}", f"{np.corrcoef(first[keep], second[keep])[0, 1]:.3f}"))
    return rows


def claims(kept: Results, wide: pd.DataFrame, agreement: pd.DataFrame) -> None:
    """List what the study recovers of what was planted."""
    head = ["means of discs", "map", "discs", "mean, ms", "bias, ms (95 % interval)", "95 % limits of agreement, ms",
            "r"]
    whole = wide[wide.region == "whole"]
    lumbar = agreement[agreement.level.isin(LUMBAR_LEVELS)]
    kept.table("discs", head, [
        *(("network against reference discs, both carried by the study", *row)
          for row in limits((k, lumbar[k], lumbar[f"{k}_reference"]) for k in KINDS)),
        *(("whole pipeline against the truth", *row)
          for row in limits((k, whole[k], whole[f"true_{k}"]) for k in KINDS))],
        median_dice=round(lumbar.dice.median(), 3), lowest_dice=round(lumbar.dice.min(), 3),
        not_found=int((lumbar.dice == 0).sum()))
    rows = []
    for kind in KINDS:
        for region in ("nucleus", "anterior_annulus", "posterior_annulus", "whole"):
            part = wide[wide.region == region].dropna(subset=[kind])
            within = [np.corrcoef(p.grade, p[kind])[0, 1] for _, p in part.groupby("level") if p.grade.nunique() > 1]
            slope = np.polyfit(part.grade, part[kind], 1)[0]
            rows.append((kind, region.replace("_", " "), f"{np.mean(within):+.2f}",
                         f"{min(within):+.2f} to {max(within):+.2f}", f"{slope:+.1f}"))
    kept.table("grade", ["map", "region", "r, mean of the levels", "range over levels", "ms per grade"], rows)
    rows = []
    for name, part in (("minimal or moderate", wide[wide.odi <= SEVERE]), ("severe", wide[wide.odi > SEVERE])):
        people = contrast(part)
        rows.append((name, len(people), *(f"{people[c].mean():.0f}" for c in ("nucleus", "annulus")),
                     f"{people.ratio.mean():.2f} ({people.ratio.std():.2f})"))
    kept.table("disability", ["ODI", "people", "nucleus, ms", "annulus, ms", "nucleus / annulus (SD)"], rows)


def contrast(wide: pd.DataFrame) -> pd.DataFrame:
    """Return each person's T1rho of nucleus and annulus, over the lumbar discs, and their ratio."""
    place = wide.region.map({"nucleus": "nucleus", "anterior_annulus": "annulus", "posterior_annulus": "annulus"})
    people = wide.assign(place=place).dropna(subset=["place"]).pivot_table("T1rho", ["participant_id", "odi"], "place")
    return people.assign(ratio=people.nucleus / people.annulus).reset_index()


def figure(path: Path, wide: pd.DataFrame, agreement: pd.DataFrame) -> None:
    """Draw the contrast of nucleus and annulus by disability, and automatic against reference means."""
    people = contrast(wide)
    severe = people.odi > SEVERE
    fig, ((left, middle, right),) = new_figure(12.5, 3.9, 1, 3)
    rng = np.random.default_rng(0)
    for n, (place, marker) in enumerate((("nucleus", "o"), ("annulus", "s"))):
        for m, some in enumerate((~severe, severe)):
            values = people[place][some]
            x = m + 0.36 * (n - 0.5)
            left.scatter(x + rng.uniform(-0.09, 0.09, len(values)), values, s=15, marker=marker, color=COLORS[n],
                         alpha=0.6, linewidths=0, label=place if m == 0 else None)
            left.plot([x - 0.14, x + 0.14], [values.median()] * 2, color="#1b2733", lw=2)
    left.set_xticks([0, 1], [f"{name}\n(n = {int(some.sum())})" for name, some in (("minimal or moderate", ~severe),
                                                                                  ("severe", severe))])
    left.set(ylabel="T1rho [ms]", title="Nucleus and annulus", ylim=(0, None))
    left.legend(fontsize=8)
    middle.scatter(people.odi, people.ratio, s=18, color=COLORS[0], linewidths=0)
    middle.axhline(1, color="#5b6b7a", lw=1, ls=":")
    middle.axvline(SEVERE + 1, color="#5b6b7a", lw=1, ls="--")
    middle.set(xlabel="Oswestry disability index [%]", ylabel="T1rho of nucleus over annulus", title="Contrast")
    lumbar = agreement[agreement.level.isin(LUMBAR_LEVELS)].dropna(subset=["T1rho", "T1rho_reference"])
    first, second = lumbar.T1rho.to_numpy(), lumbar.T1rho_reference.to_numpy()
    found = bland_altman(first, second)
    right.scatter((first + second) / 2, first - second, s=14, color=COLORS[0], alpha=0.6, linewidths=0)
    for value, style in ((found.bias, "-"), (found.lower, "--"), (found.upper, "--")):
        right.axhline(value, color="#1b2733", lw=1, ls=style)
        right.text(1.0, value, f" {value:.1f}", transform=right.get_yaxis_transform(), va="center", fontsize=8)
    right.set(xlabel="Mean of both [ms]", ylabel="Automatic \u2212 reference [ms]", title="T1rho of discs")
    save_figure(fig, path, True, 120)


def main() -> None:
    """Run the verbs and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--people", type=int, default=31)
    parser.add_argument("--only", type=int, default=0, help="run these first people of them; 0 for all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    kept = Results("virtual_study")
    study = run_verbs(kept, options)
    check_labels(study)
    check_dicom(options.work / "dicom")
    wide, agreement = results(study)
    claims(kept, wide, agreement)
    if options.figure:
        figure(options.figure, wide, agreement)


if __name__ == "__main__":
    main()
