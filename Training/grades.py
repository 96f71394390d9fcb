"""Train and validate the grading network: ``make train-grades``.

Outlines are those of the shipped segmentation network, kept in ``Training/runs/grades``. Figures come from five-fold
cross-validation by person; the network that is written to the extension is trained on everyone.
"""

import argparse
import hashlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from scipy.optimize import minimize

from DiscRelaxometryLib.atomic import atomic_path, write_json
from DiscRelaxometryLib.discs import load_model, segment
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.grades import (
    FINDINGS,
    GRADES,
    PICTURE,
    UNLIKE,
    GradeConfig,
    build_grader,
    describe_discs,
    disc_pictures,
)
from DiscRelaxometryLib.image import Image, read_image, write_image
from DiscRelaxometryLib.labels import DISCS
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import cell_value, read_tsv
from Training.dataset import add_data, is_study, person_of
from Training.export import WEIGHTS, export_onnx, identity
from Training.grades_networks import MARGIN, middle, temperatures, train_members
from Training.train import RUNS

NAME, VERSION = "disc-grades", "2.0.0"
FOLDS, SEED = 5, 20261128
#: Of held-out discs, 1 of 981 T2w and none of T2 SPACE is farther; noise and constant images are beyond 2.6.
FARTHEST = 2.0
#: Share of the variance that is added to each standardized feature before distances are measured.
RIDGE = 0.1
#: Weight of the squared coefficients (of standardized features), for losses summed over discs.
PENALTY = 20.0
#: Perceptrons, and convolutional networks.
MEMBERS = GradeConfig.members


@dataclass
class Discs:
    """Discs with features and gradings, of many people."""

    #: Of the features.
    names: list[str] = field(default_factory=list)
    #: Person and file of each disc.
    people: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    #: Label value of each disc.
    values: list[int] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    #: As large as augmentation needs, see :data:`Training.grades_networks.MARGIN`.
    pictures: list[np.ndarray] = field(default_factory=list)
    #: Columns of the table of gradings as numbers.
    gradings: list[dict] = field(default_factory=list)
    #: Series -> why none of its discs is graded.
    refused: dict[str, str] = field(default_factory=dict)
    #: (series, label value) -> why that disc is not graded.
    withheld: dict[tuple[str, int], str] = field(default_factory=dict)

    @property
    def x(self) -> np.ndarray:
        """Features (discs, features)."""
        return np.array(self.features)

    def some(self, rows: np.ndarray) -> Self:
        """Return the discs of a boolean array."""
        return replace(self, **{name: [v for v, keep in zip(getattr(self, name), rows) if keep] for name in
                                ("people", "series", "values", "features", "pictures", "gradings")})

    @property
    def grade(self) -> np.ndarray:
        """Grades read, 1 to 5."""
        return np.array([g["pfirrmann"] for g in self.gradings], int)

    @property
    def targets(self) -> np.ndarray:
        """What the regressions learn (discs, thresholds and findings), bool."""
        found = [{**g, "endplates": g["upper_endplate"] + g["lower_endplate"]} for g in self.gradings]
        return np.column_stack([self.grade[:, None] > np.arange(1, GRADES),
                                [[g[name] > 0 for name in FINDINGS] for g in found]])


def outlines_of(runs: Path) -> Path:
    """Return the folder of a run's outlines, which is another one for other weights or code of the discs."""
    of = hashlib.sha256(load_model().file("safetensors").read_bytes())
    for path in sorted(Path(inspect.getfile(segment)).parent.glob("*.py")):
        of.update(path.read_bytes())
    return runs / f"outlines-{of.hexdigest()[:12]}"


def outlines(path: Path, cache: Path) -> Image | None:
    """Return the shipped network's labels of an image, kept in `cache`; None where it finds no spine."""
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / path.name.replace(".nii", "_dseg.nii")
    if not kept.exists():
        write_image(segment(read_image(path), threads=1).labels, kept)
    labels = read_image(kept)
    return labels if labels.array.any() else None


def load_discs(files: list[Path], gradings: dict[tuple[str, int], dict], cache: Path) -> Discs:
    """Return the graded discs of images named ``PERSON_...``."""
    found = Discs()
    for path in files:
        series, person = path.name.removesuffix(".nii.gz"), person_of(path.name)
        labels = outlines(path, cache)
        try:
            if labels is None:
                raise DiscRelaxometryError("No spine was found.")
            views, statements, found.names, features = describe_discs(read_image(path), labels)
        except DiscRelaxometryError as error:
            found.refused[series] = error.message
            continue
        for view, statement, row, picture in zip(views, statements, features, disc_pictures(views, MARGIN)):
            graded = gradings.get((person, view.value))
            if statement and graded:
                found.withheld[series, view.value] = statement
            elif graded:
                found.people.append(person)
                found.series.append(series)
                found.values.append(view.value)
                found.features.append(row)
                found.pictures.append(picture)
                found.gradings.append(graded)
    return found


def sources(data: Path) -> tuple[dict[str, list[Path]], Path]:
    """Return the images by contrast, and the table of gradings: of a study of ``import-spider``, or of slices.

    The slices' T2 SPACE is that of the embedded cohort.
    """
    if is_study(data):
        images = {kind: sorted(data.glob(f"sub-*/anat/*_{kind}.nii.gz")) for kind in ("T2w", "T1w")}
        space = [p for p in images["T2w"] if "_acq-SPACE" in p.name]
        return {**images, "T2w": [p for p in images["T2w"] if p not in space], "SPACE": space}, \
            data / "phenotype" / "radiological_gradings.tsv"
    cohort = resource_path("SampleData/spider-cohort", "DiscStatsLib")
    return ({kind: sorted(data.glob(f"*_{kind}.nii.gz")) for kind in ("T2w", "T1w")}
            | {"SPACE": sorted(cohort.glob("sub-*/anat/*_T2w.nii.gz"))}), data / "gradings.tsv"


def read_gradings(path: Path) -> dict[tuple[str, int], dict]:
    """Return (person, label value) -> gradings as numbers, of a table with ``disc_from_below``; 1 is L5-S1."""
    rows = read_tsv(path, required=("participant_id", "disc_from_below", "pfirrmann", *FINDINGS.keys() - {"endplates"}))
    lowest = DISCS[0].value - 1
    return {(r["participant_id"], lowest + int(r["disc_from_below"])): {k: cell_value(v) for k, v in r.items()}
            for r in rows.rows if r["pfirrmann"].isdigit()}


def deal_people(people: list[str], grades: np.ndarray) -> dict[str, int]:
    """Return each person's fold: people in order of their mean grade are dealt at random, five at a time."""
    rng, names = np.random.default_rng(SEED), sorted(set(people))
    means = {p: grades[np.array(people) == p].mean() for p in names}
    ordered = sorted(names, key=lambda p: (means[p], p))
    return {p: int(fold) for start in range(0, len(ordered), FOLDS)
            for p, fold in zip(ordered[start:start + FOLDS], rng.permutation(FOLDS))}


def fit(discs: Discs, members: int = MEMBERS, folder: Path | None = None) -> torch.nn.Module:
    """Return the network trained on discs, without temperatures; members that are done are kept in `folder`."""
    network = regressions(discs, members)
    train_members(network, discs.x, np.array(discs.pictures), discs.targets, SEED, folder)
    return network.eval()


def regressions(discs: Discs, members: int) -> torch.nn.Module:
    """Return the network with regressions and distance fitted; its other members are not trained yet."""
    network, features = build_grader(GradeConfig(tuple(discs.names), farthest=FARTHEST, members=members)), discs.x
    known = np.ma.masked_invalid(features)
    mean, scale = known.mean(axis=0).filled(0), known.std(axis=0).filled(0)
    scale[scale == 0] = 1  # what never differs says nothing
    z = np.nan_to_num((features - mean) / scale)
    weights, biases = zip(*(regress(z, y) for y in discs.targets.T))
    variance, axes = np.linalg.eigh(np.cov(z.T) + RIDGE * np.eye(z.shape[1]))
    state = {"mean": mean, "scale": scale, "whiten": axes / np.sqrt(variance), "linear.weight": np.array(weights),
             "linear.bias": np.array(biases)}
    network.load_state_dict(network.state_dict()
                            | {k: torch.as_tensor(v, dtype=torch.float32) for k, v in state.items()})
    return network


def regress(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Return coefficients and intercept of a logistic regression with penalty PENALTY / 2 |coefficients|^2."""
    sign = np.where(y, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (z @ w[:-1] + w[-1])
        pull = -sign / (1 + np.exp(margin))
        return (np.logaddexp(0, -margin).sum() + PENALTY / 2 * w[:-1] @ w[:-1],
                np.append(z.T @ pull + PENALTY * w[:-1], pull.sum()))

    found = minimize(loss, np.zeros(z.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return found.x[:-1], float(found.x[-1])


def evaluated(network: Callable, discs: Discs) -> np.ndarray:
    """Return what a network, or its log-odds, says of discs."""
    with torch.inference_mode():
        return network(torch.as_tensor(discs.x, dtype=torch.float32),
                       torch.as_tensor(middle(np.array(discs.pictures)), dtype=torch.float32)).double().numpy()


def cross_validate(discs: Discs, others: list[Discs], members: int = MEMBERS, folder: Path | None = None
                   ) -> tuple[list[np.ndarray], np.ndarray]:
    """Return probabilities and distance of each disc by the network that has not seen its person, and the temperature.

    Outputs are of `discs`, which are trained on, then of each of `others`; people that are in no fold are predicted by
    the first fold's network. Temperatures come from the other folds' discs, each seen by the network that held it out;
    that returned, (outputs,), is by all folds, for the network of everyone. For `members` and `folder` see
    :func:`fit`.
    """
    fold, sets = deal_people(discs.people, discs.grade), [discs, *others]
    results = [np.zeros((len(d.people), GRADES + len(FINDINGS) + 1)) for d in sets]
    of = [np.array([fold.get(p, 0) for p in d.people]) for d in sets]
    networks = {k: fit(discs.some(of[0] != k), members, folder) for k in sorted(set(fold.values()))}
    odds, best = np.zeros(discs.targets.shape), np.ones(discs.targets.shape[1])
    for k, network in networks.items():
        odds[of[0] == k] = evaluated(network.odds, discs.some(of[0] == k))
    for k, network in networks.items():
        if members:
            best = temperatures(odds[of[0] != k], discs.targets[of[0] != k])
            network.temperature.copy_(torch.as_tensor(best))
        for result, d, own in zip(results, sets, of):
            if (own == k).any():
                result[own == k] = evaluated(network, d.some(own == k))
    return results, temperatures(odds, discs.targets) if members else best


def set_apart(discs: Discs, p: np.ndarray) -> tuple[Discs, np.ndarray]:
    """Return the discs that are near enough to be judged, and their probabilities; the others are withheld."""
    near = p[:, -1] <= FARTHEST
    far = {(discs.series[n], discs.values[n]): UNLIKE for n in np.flatnonzero(~near)}
    return replace(discs.some(near), withheld=discs.withheld | far), p[near]


def export(network: torch.nn.Module, discs: Discs, folder: Path) -> Path:
    """Write weights, ONNX and manifest; return the manifest."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    files, config = {}, GradeConfig(tuple(discs.names), farthest=FARTHEST, members=len(network.eyes))
    weights = {k: v.half() if k.startswith("eyes") and v.is_floating_point() else v
               for k, v in network.state_dict().items()}
    network.load_state_dict(weights)  # rounded, as both engines read them
    for kind in ("safetensors", "onnx"):
        path = folder / f"{NAME}.{kind}"
        with atomic_path(path) as temporary:
            if kind == "onnx":
                sizes = {0: torch.export.Dim("n", min=1)}, {0: torch.export.Dim.AUTO}  # the same one
                examples = {"features": torch.zeros(2, len(discs.names)), "pictures": torch.zeros(2, *PICTURE)}
                export_onnx(network, examples, sizes, temporary, folder / f"{NAME}.safetensors")
            else:
                temporary.write_bytes(save({k: v.contiguous() for k, v in weights.items()}, {"name": NAME}))
        files[kind] = identity(path)
    return write_json(folder / f"{NAME}.json", {
        "name": NAME, "version": VERSION, "license": "Apache-2.0",
        "data": "SPIDER (van der Graaf et al., Sci Data 2024;11:264), CC BY 4.0: T2w images and their gradings",
        "architecture": config.to_dict(), "temperature": 1.0,
        "input": "features: n x features, see DiscRelaxometryLib.grades.describe_discs, NaN is missing; pictures: n x "
                 f"{' x '.join(map(str, PICTURE))}, see disc_pictures",
        "output": "probabilities of Pfirrmann grades 1 to 5, then of each finding; distance from the training set",
        "parameters": int(sum(p.numel() for p in network.parameters())),
        "training": {"discs": len(discs.people), "penalty": PENALTY, "people": {"train": sorted(set(discs.people))}},
        "files": files})


def main() -> tuple[argparse.Namespace, list[tuple[Discs, np.ndarray]], Discs, np.ndarray]:
    """Parse arguments, validate, train and export.

    Returns
    -------
    options : Namespace
    validated : list of (Discs, ndarray)
        T2w slices and T2 SPACE with probabilities and distance.
    t1w : Discs
    alone : ndarray
        Those of the T2w slices by regressions alone.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_data(parser, "spider_midsagittal")
    parser.add_argument("--runs", type=Path, default=RUNS / "grades")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--quick", action="store_true", help="every fifth image, to see that everything runs: figures "
                        "are printed only, weights go to the folder of runs")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    files, table = sources(options.data)
    if options.quick:
        files = {kind: paths[::5] for kind, paths in files.items()}
    gradings = read_gradings(table)
    kept, networks = outlines_of(options.runs), options.runs / "networks"
    clinical, t1w, space = (load_discs(files[kind], gradings, kept / kind) for kind in ("T2w", "T1w", "SPACE"))
    if not clinical.people:
        parser.error(f"no graded disc in {options.data}: {next(iter(clinical.refused.values()), 'no T2w image')}")
    outputs, temperature = cross_validate(clinical, [space], folder=networks)
    validated = [set_apart(d, p) for d, p in zip((clinical, space), outputs)]
    alone = set_apart(clinical, cross_validate(clinical, [], members=0)[0][0])[1]
    network = fit(clinical, folder=networks)
    network.temperature.copy_(torch.as_tensor(temperature))
    print(export(network, clinical, options.runs if options.quick else options.weights))
    return options, validated, t1w, alone


if __name__ == "__main__":
    main()
