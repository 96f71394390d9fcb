"""Made studies: noise for images, quick steps in place of segmentation and registration, the true statistics."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import run_study
from DiscStudyLib.engine import Stage, Step, context_atlas
from DiscStudyLib.folder.settings import make_settings
from DiscStudyLib.folder.study import Study
from DiscStudyLib.folder.validate import validate
from DiscStudyLib.steps.analysis import analysis_step
from DiscStudyLib.steps.person import SEGMENT_STEP

PEOPLE = 12
#: What the analyses of these tests have in common.
SETTINGS = {"levels": ("L4-L5",), "permutations": 100}


def _map(context):
    """Write a person's T1rho in atlas space: noise in two discs."""
    atlas = context_atlas(context)
    rng = np.random.default_rng(int(context.person.id[-2:]))
    discs = np.isin(atlas.labels.array, [disc_value("L1-L2"), disc_value("L4-L5")])
    values = np.where(discs, rng.normal(80, 10, discs.shape), np.nan).astype(np.float32)
    write_image(atlas.labels.like(values), context.path("space-DiscAtlas_T1rho.nii.gz"))


def map_stages(settings):
    """Return a pipeline that gives each person a map."""
    return [Stage("person", (Step("atlas", "1", _map, lambda c: c.person.anatomical),))]


def analysis_stages(settings):
    """Return a pipeline of quick maps and the product's own analysis."""
    return [*map_stages(settings), Stage("group", (analysis_step(settings.analysis),))]


def segment_stages(settings):
    """Return the product's own first step alone."""
    return [Stage("person", (SEGMENT_STEP,))]


def write_people(root: Path, people: int = PEOPLE) -> Path:
    """Write a volume per person; return the study folder."""
    grid = Geometry((6, 40, 80), (0.9, 2.0, 2.0))
    for number in range(1, people + 1):
        noise = np.random.default_rng(number).integers(0, 255, grid.shape).astype(np.uint8)
        write_image(Image(noise, grid), root / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_T2w.nii.gz")
    return root


def table(people: int = PEOPLE, **columns) -> str:
    """Return a participants table with age, sex and further columns."""
    columns = {"age": [30 + 3 * n for n in range(people)], "sex": ["M", "F"] * (people // 2), **columns}
    rows = [["participant_id", *columns]]
    rows += [[f"sub-{n + 1:02d}", *(str(values[n]) for values in columns.values())] for n in range(people)]
    return "\n".join("\t".join(row) for row in rows) + "\n"


def write_table(root: Path, text: str) -> None:
    """Write the participants table as it is, line ends included."""
    (root / "participants.tsv").write_bytes(text.encode())


def found_errors(root: Path, formula: str, **settings) -> list[str]:
    """Return what validation calls an error."""
    found = validate(Study(root), make_settings(formula=formula, **{**SETTINGS, **settings}), read_images=False)
    return [str(f) for f in found if f.severity == "error"]


def atlas_and_maps():
    """Return two discs of four voxels, and noise in them for each person."""
    array = np.zeros((2, 2, 3), np.uint8)
    array[..., 0], array[..., 2] = disc_value("L4-L5"), disc_value("L5-S1")
    labels = Image(array, Geometry((3, 2, 2), (1.0, 1.0, 1.0)))
    noise = np.random.default_rng(0).normal(80, 10, (PEOPLE, *array.shape))
    return labels, [labels.like(n) for n in noise]


@dataclass
class Analysis:
    """What became of an analysis.

    Attributes
    ----------
    found : list of str
        What was said before anything ran.
    failed : list of str
        Messages of failed steps.
    facts : dict
        Facts of the one family of maps; empty where there is no analysis.
    notes : list of str
        Notes in the record of the step.
    """

    found: list[str]
    failed: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Columns of the design."""
        return self.facts["provenance"]["columns"]


def analyze(root: Path, formula: str, **settings) -> Analysis:
    """Validate a study and run its analysis, as the command line does."""
    settings = {**SETTINGS, **settings}
    record = root / "derivatives/disc-relaxometry/group/prov/step-analysis-main_prov.json"
    record.unlink(missing_ok=True)
    found = [str(f) for f in validate(Study(root), make_settings(formula=formula, **settings), read_images=False)]
    try:
        done = run_study(root, formula, pipeline=analysis_stages, **settings)
    except DiscRelaxometryError as error:
        return Analysis([*found, str(error)])
    broken = [o.message for o in done.failed if o.person]
    if broken:
        raise RuntimeError(f"The quick maps of this test failed: {broken[0]}")
    if done.failed:
        return Analysis(found, [o.message for o in done.failed])
    written = json.loads(record.read_text(encoding="utf-8"))
    (facts,) = written["facts"].values()
    return Analysis(found, [], facts, written["notes"])


def segmented(root: Path, labels: np.ndarray, edit=lambda folder: None) -> tuple[list[str], dict[int, int]]:
    """Give a study of one person this segmentation; return what was said, and how many voxels have each value.

    `edit(folder)` changes the person's two images before the run.
    """
    grid = Geometry(labels.shape[::-1], (4.0, 1.5, 1.5))
    noise = np.random.default_rng(0).integers(0, 255, labels.shape).astype(np.uint8)
    write_image(Image(noise, grid), root / "sub-01/anat/sub-01_T2w.nii.gz")
    write_image(Image(labels, grid), root / "sub-01/anat/sub-01_dseg.nii.gz")
    edit(root / "sub-01/anat")
    write_table(root, "participant_id\tage\nsub-01\t40\n")
    try:
        done = run_study(root, segmentation="existing", pipeline=segment_stages)
    except DiscRelaxometryError as error:
        return [str(error)], {}
    said = [*map(str, done.findings), *(o.message for o in done.outcomes if o.message), *done.missing.values()]
    for record in root.glob("derivatives/**/*step-segment_prov.json"):
        said += json.loads(record.read_text(encoding="utf-8"))["notes"]
    used = list(root.glob("derivatives/**/*desc-discs_dseg.nii.gz"))
    values, counts = np.unique(read_image(used[0]).array, return_counts=True) if used else ((), ())
    return said, dict(zip(map(int, values), map(int, counts)))
