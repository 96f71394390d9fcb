"""Demonstration on real people: from pixels to the report of a voxel-wise study.

``python -m DiscStudyLib.demo --output demo-output`` copies the embedded SPIDER cohort (33 people, CC BY 4.0) and runs
segmentation, normalized signal, atlas, and the voxel-wise regression on the Pfirrmann grade adjusted for age and sex.
Everyone is analyzed; the 32 people scanned at 1.5 T are analyzed again beside that. The masks that came with the data
are used only to score the network. Where real multi-echo data are at hand (DISC_SHARED_DATA), one series is fitted too.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.atomic import atomic_path
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.resources import resource_path

from .engine import Record, fingerprints, outputs_intact, read_record, step_key, write_record

FORMULA = "nT2w ~ pfirrmann + age + C(sex)"
#: T2-weighted signal is not quite comparable across field strengths; one person, 14 years old, was scanned at 3 T.
SENSITIVITY = "field_T == 1.5"
#: Real multi-echo series that the demonstration fits where present, relative to the shared data: path, kind, times.
SERIES = "relaxometry/kidney_t2_philips"


def copy_cohort(target: Path) -> Path:
    """Copy the embedded cohort to a folder that can be written; files already there are kept."""
    source = resource_path("SampleData/spider-cohort", "DiscStatsLib")
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_file() and not place.exists():
            with atomic_path(place) as part:
                shutil.copyfile(file, part)
    return target


def remembered(output: Path, name: str, inputs: Sequence[Path], work: Callable[[], tuple[str, list[Path]]]) -> str:
    """Return what `work` says; it is done again only if its inputs, its results or the program's version changed.

    It returns a text and the files it wrote into `output`, whose ``prov`` receives the record.
    """
    def relative(path: Path) -> str:
        return path.relative_to(output).as_posix() if path.is_relative_to(output) else path.name

    path = output / "prov" / f"{name}_prov.json"
    earlier = read_record(path)
    read = fingerprints(inputs, relative, earlier.inputs if earlier else None)
    key = step_key(name, "1", {"version": __version__}, read)
    if earlier and earlier.key == key and outputs_intact(earlier, output.joinpath):
        return earlier.message
    message, written = work()
    write_record(Record(name, "", key, inputs=read, outputs=fingerprints(written, relative), message=message), path)
    return message


def show(fraction: float, text: str, state={"shown": -1.0}) -> None:  # noqa: B006 (remembers what was printed)
    """Print progress in steps of 2 %."""
    if fraction >= 1 or fraction - state["shown"] >= 0.02:
        state["shown"] = fraction
        print(f"  {100 * fraction:3.0f} %  {text}", flush=True)


def run_cohort(output: Path, processes: int, people: list[str], permutations: int):
    """Run the study of the embedded cohort and return the StudyRun."""
    from .steps import run_study

    study = copy_cohort(output / "spider-cohort")
    return run_study(study, FORMULA, processes=processes, people=people, permutations=permutations,
                     segmentation="cnn", analysis="pfirrmann", sensitivity=SENSITIVITY, progressCallback=show)


def fit_shared_series(output: Path) -> str:
    """Fit a real multi-echo series of the shared data; return a sentence on what was done."""
    folder = Path(os.environ.get("DISC_SHARED_DATA", "")) / SERIES
    if not folder.exists():
        return "No shared data (DISC_SHARED_DATA): the real multi-echo series was not fitted."
    files = sorted(f for f in folder.iterdir() if "reference" not in f.name and f.name.endswith(".nii.gz"))
    times = _times(folder)

    def work() -> tuple[str, list[Path]]:
        import numpy as np

        from DiscRelaxometryLib.echo import read_echo_series
        from DiscRelaxometryLib.fit import fit_relaxation
        from DiscRelaxometryLib.image import write_image

        series = read_echo_series(files, kind="T2", times_ms=times)
        fit = fit_relaxation(series)
        written = [write_image(image, output / "multi-echo" / f"{key}.nii.gz") for key, image in fit.images().items()]
        good = fit.value[np.isfinite(fit.value)]
        return (f"Real multi-echo series ({SERIES}, {len(series)} echoes): T2 of {good.size} voxels, median "
                f"{np.median(good):.1f} ms; maps in the folder 'multi-echo'."), written
    return remembered(output, "multi-echo", [*files, *folder.glob("echoes.json")], work)


def _times(folder: Path) -> list[float] | None:
    import json

    path = folder / "echoes.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    values = data if isinstance(data, list) else next(v for v in data.values() if isinstance(v, list))
    return [float(v) for v in values]


def summary(run) -> list[str]:
    """Return the main results as lines of text."""
    lines = [f"People: {len({o.person for o in run.outcomes if o.person})}, incomplete: {len(run.missing)}"]
    lines += [f"  {person}: {why}" for person, why in sorted(run.missing.items())]
    lines += [f"  group step {o.step} failed: {o.message}" for o in run.failed if not o.person]
    return lines


def grades(study_folder: Path) -> str:
    """Return each person's read and estimated grades as text; people that the estimates were trained on are marked."""
    from .engine import read_rows
    from .folder import Study, trained_on
    from .report import NETWORK, grades_beside

    study = Study(study_folder)
    path = study.output / "group" / "grades.tsv"
    if not path.exists():
        return "No Pfirrmann grade was estimated."
    table = grades_beside(read_rows(path).rows, study.participants, trained_on(study, NETWORK))
    lines = ["Pfirrmann grades, read / estimated (* in the estimates' training set; see Docs/validation/grades.md):",
             "  " + "".join(f"{name:13s}" for name in table.names)]
    return "\n".join(lines + ["  " + "".join(f"{row.get(name, ''):13s}" for name in table.names) for row in table.rows])


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--person", action="append", default=[], help="only this person; may be repeated")
    parser.add_argument("--permutations", type=int, default=1000)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    print("33 people with low back pain (SPIDER, CC BY 4.0; doi:10.1038/s41597-024-03090-w), T2-weighted MRI.")
    print("T2-weighted signal is not T2: it is compared here after division by that of cerebrospinal fluid.")
    try:
        run = run_cohort(options.output, options.processes, options.person, options.permutations)
        print(fit_shared_series(options.output))
    except DiscRelaxometryError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(grades(options.output / "spider-cohort"))
    print("\n".join(summary(run)))
    print(f"Finished in {(time.perf_counter() - started) / 60:.1f} minutes.")
    if run.report is None:
        print("No report was made; see the messages above.", file=sys.stderr)
        return 1
    print(f"Report: {run.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
