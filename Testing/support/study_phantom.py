"""A small study on disk and a pipeline of quick steps, for tests of the runner: nothing here is medical."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiscRelaxometryLib.atomic import write_json
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscRelaxometryLib.parallel import ordered
from DiscStudyLib.engine import Stage, Step

# Slices along x (left-right), 0.9 mm; 160 mm from head to foot.
GEOMETRY = Geometry((6, 40, 80), (0.9, 2.0, 2.0))


def make_study(root: Path, people: int = 3, series: bool = False, seed: int = 0) -> Path:
    """Write a study of `people` noise volumes (and echo series) with a participants table; return its folder."""
    rng = np.random.default_rng(seed)
    lines = ["participant_id\tage\tsex\tpfirrmann_L4L5\tpfirrmann_L5S1"]
    for n in range(1, people + 1):
        person = f"sub-{n:02d}"
        lines.append(f"{person}\t{30 + n}\t{'MF'[n % 2]}\t{1 + n % 5}\t{1 + (n + 1) % 5}")
        volume = Image(rng.integers(0, 255, GEOMETRY.shape).astype(np.uint8), GEOMETRY)
        write_image(volume, root / person / "anat" / f"{person}_T2w.nii.gz")
        if series:
            write_series(root / person / "anat" / f"{person}_T1rho.nii.gz", rng)
    (root / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_series(path: Path, rng, times=(0.0, 0.01, 0.04, 0.08), field: str = "SpinLockTime") -> None:
    """Write a 4-D series with its sidecar (seconds, as BIDS has it)."""
    echoes = [Image((rng.random(GEOMETRY.shape) * 10 + 100 * np.exp(-t / 0.06)).astype(np.float32), GEOMETRY).to_sitk()
              for t in times]
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.JoinSeries(echoes), str(path))
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({field: list(times)}))


def _smooth(context):
    image = read_image(context.person.anatomical[0])
    if image.array.max() == 0:
        raise SegmentationError("The image holds zeros only: export it again.")
    _pause()
    out = sitk.SmoothingRecursiveGaussian(image.to_sitk(), 2.0)
    context.facts["mean"] = float(sitk.GetArrayFromImage(out).mean())
    write_image(Image.from_sitk(out), context.path("desc-smooth_T2w.nii.gz"))
    _pause()
    write_image(image, context.path("desc-copy_T2w.nii.gz"))


def _halve(context):
    image = read_image(context.output_of("smooth", "desc-smooth_T2w.nii.gz"))
    _pause()
    write_image(image.like(image.array * 0.5), context.path("desc-half_T2w.nii.gz"))


def _mean(context):
    _pause()
    values = {p: r["smooth"].facts["mean"] for p, r in context.everyone.items() if "smooth" in r}
    write_json(context.path("means.json"), {"means": values, "missing": dict(context.missing)})
    context.facts["elsewhere"] = os.getpid() not in (context.distribute or ordered)(_process, [0, 1])


def _process(_) -> int:
    return os.getpid()


def _pause():
    """Lengthen a step, so that a test can kill it in the middle; and count how often steps run."""
    time.sleep(float(os.environ.get("PHANTOM_PAUSE", 0)))
    if "PHANTOM_COUNT" in os.environ:
        with open(os.environ["PHANTOM_COUNT"], "a") as stream:
            stream.write("x")


def stages(settings):
    """Return the pipeline: two steps a person, one for the group."""
    smooth = Step("smooth", "1", _smooth, lambda c: c.person.anatomical, ("align",))
    halve = Step("halve", "1", _halve, needs=("smooth",))
    mean = Step("mean", "1", _mean, optional=("smooth",), parameters=("seed",),
                extra=lambda c: {"missing": sorted(c.missing)})
    return [Stage("person", (smooth, halve)), Stage("group", (mean,))]


def _smooth_or_die(context):
    if context.person.id == "sub-02":
        os._exit(1)
    _smooth(context)


def deadly_stages(settings):
    """Return the pipeline with a first step that ends the process of one person, as the system does for memory."""
    people, group = stages(settings)
    smooth, halve = people.steps
    return [Stage("person", (replace(smooth, run=_smooth_or_die), halve)), group]
