"""One call from a sagittal volume to labelled discs, vertebrae and canal, with confidence."""

from dataclasses import dataclass, field, replace

import numpy as np
import scipy

from ..errors import SegmentationError
from ..image import Image, voxel_points
from ..progress import ProgressCallback, subrange
from ..tables import Table
from .confidence import DiscQuality, disc_quality, doubts, quality_table
from .engine import Model, load_engine, load_model
from .inference import Prediction, predict
from .instances import Disc
from .levels import LevelResult, label_instances

_MODEL_CLASS = {"vertebra": 1, "canal": 2, "disc": 3}
#: mm from a disc's center to the canal; half an AP diameter plus a wide canal.
CANAL_REACH = 45.0
#: mm sideways from the spine; spinous processes and the canal's ends lie nearer.
ISLAND_REACH = 15.0
#: Why a disc is flagged whose expected Dice is low.
UNSURE = "the network is unsure of its outline"
#: Without one disc of this expected Dice an image is not believed to show a spine.
MIN_EXPECTED = 0.8


@dataclass
class Segmentation:
    """Labelled structures of one volume, on its grid."""

    #: uint8. Project label values; all zero if no spine was found.
    labels: Image
    #: float32. Calibrated probability of each voxel's class (background too).
    confidence: Image
    #: Caudal first; empty if no spine was found.
    discs: list[Disc]
    #: One entry per disc.
    quality: list[DiscQuality]
    #: Sentences for the user.
    flags: list[str]
    #: Label values of the vertebrae present.
    vertebrae: list[int]
    #: False where level names rest on an assumption that a flag states, or where no spine was found.
    certain: bool
    #: Why the lowest disc has its name.
    evidence: str
    #: Why the segmentation is empty; empty otherwise.
    reason: str
    #: float32. Calibrated probability of any disc.
    disc_probability: Image
    #: Name and version of the weights; engine and device used.
    model: str
    engine: str
    meta: dict = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether a spine was found."""
        return not self.reason

    @property
    def review(self) -> list[str]:
        """Names of the discs that a person should look at."""
        return [q.name for q in self.quality if q.review]

    def quality_table(self) -> Table:
        """Return confidence, entropy, expected Dice and review flag of each disc."""
        return quality_table(self.quality)


def segment(image: Image, engine: str = "auto", device: str | None = None, flip: bool = False,
            threads: int | None = None, model: Model | None = None,
            progressCallback: ProgressCallback | None = None) -> Segmentation:
    """Segment and name the discs of a sagittal lumbar volume.

    Parameters
    ----------
    image : Image
        Sagittal or nearly sagittal volume of any anisotropy, axis order, handedness and signal scale.
    engine : str
        ``auto``, ``onnx`` or ``torch``; see ``engine.load_engine``.
    device : str, optional
        torch device.
    flip : bool
        Average with the left-right mirror image; doubles the time.
    threads : int, optional
        CPU threads.
    model : Model, optional
        Other weights than the shipped ones.
    progressCallback : callable, optional
        Called with (fraction, text); cancels by raising ``Cancelled``.

    Returns
    -------
    Segmentation
        Empty, with a reason, if the volume does not show a spine.

    Raises
    ------
    SegmentationError
        If the volume cannot be a sagittal volume: axial, coronal, empty, not numbers.
    DiscRelaxometryError
        If weights are missing or damaged.
    """
    report = subrange(progressCallback, 0.0, 1.0)
    report(0.0, "Loading the network")
    model = model or load_model()
    runner = load_engine(model, engine, device, threads)
    prediction, flags = predict(image, model, runner, flip, subrange(progressCallback, 0.02, 0.85))
    report(0.87, "Separating and naming discs")
    return assemble(image, prediction, flags, model, f"{runner.name} ({runner.device})")


def without_islands(classes: np.ndarray, image: Image) -> tuple[np.ndarray, float]:
    """Remove foreground far from the spine; return the classes and the volume removed in mm3.

    The spine is the largest connected foreground with the large pieces (a tenth of it or more) near it or near one of
    these: in one slice each body may be a piece of its own. Pieces within ISLAND_REACH of the spine sideways, or three
    times as far along the body axis (a vertebra may be missed), stay.
    """
    pieces, count = scipy.ndimage.label(classes > 0, np.ones((3, 3, 3)))
    if count < 2:
        return classes, 0.0
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    scale = np.array([1.0, 1.0, 1 / 3]) / ISLAND_REACH
    points = [np.empty((0, 3))]
    for value, box in enumerate(scipy.ndimage.find_objects(pieces), 1):
        where = np.argwhere(pieces[box] == value) + [b.start for b in box]
        points.append(image.geometry.index_to_world(where[::1 + len(where) // 20000, ::-1]) * scale)
    main, large = int(sizes.argmax()), np.flatnonzero(sizes >= 0.1 * sizes.max())
    spine: list[int] = []
    grown = [main]
    while len(grown) > len(spine):
        spine, grown = grown, _near(points, grown, large)
    keep = np.zeros(count + 1, bool)
    keep[_near(points, spine, range(1, count + 1))] = True
    removed = float(sizes[~keep].sum() * image.geometry.voxel_volume)
    return np.where(keep[pieces], classes, 0).astype(classes.dtype), removed


def _near(points: list[np.ndarray], kept: list[int], candidates) -> list[int]:
    """Return the pieces kept and those of the candidates with a point within unit distance of them."""
    tree = scipy.spatial.cKDTree(np.concatenate([points[v] for v in kept]))
    return [v for v in candidates if v in kept or tree.query(points[v][::1 + len(points[v]) // 300])[0].min() <= 1]


def assemble(image: Image, prediction: Prediction, flags: list[str], model: Model, engine: str) -> Segmentation:
    """Name the discs of a prediction, score them, and refuse what does not look like a spine."""
    classes, removed = without_islands(prediction.classes, image)
    if removed > 1000:
        flags = [*flags, f"{removed / 1000:.1f} cm3 that looked like spine, far from it, were left out."]
    try:
        levels = label_instances(classes, image.geometry, prediction.l5s1)
        quality = disc_quality(levels.labels, prediction, float(model.manifest.get("review_threshold", 0.9)))
        quality = with_doubts(quality, levels)
        reason = doubt(levels, quality, classes, image)
    except SegmentationError as error:
        reason = error.message
    if reason:
        levels = LevelResult(image.like(np.zeros(classes.shape, np.uint8)), [], [], [reason], False, "")
        quality = []
    flags = flags + levels.flags
    review = [q.name for q in quality if q.review]
    if review:
        unsure = "The network is unsure of" if any(UNSURE in q.why for q in quality) else "Shape or place is odd of"
        flags.append(f"{unsure} {', '.join(review)}: look at the outlines before using the numbers.")
    return Segmentation(
        levels.labels, image.like(prediction.confidence), levels.discs, quality, flags, levels.vertebrae,
        levels.certain, levels.evidence, reason, image.like(prediction.disc.astype(np.float32)), model.name, engine)


def with_doubts(quality: list[DiscQuality], levels: LevelResult) -> list[DiscQuality]:
    """Return the quality of discs with what their shape and place say against them."""
    odd, result = doubts(levels.discs), []
    for own in quality:
        why = [UNSURE] * own.review + odd.get(own.value, [])
        result.append(replace(own, review=bool(why), why="; ".join(dict.fromkeys(why))))
    return result


def doubt(levels: LevelResult, quality: list[DiscQuality], classes: np.ndarray, image: Image) -> str:
    """Return why a labelled volume is not believed to show a spine, or an empty string.

    The limits are choices of this project, set on the people kept for calibration and on images without a spine;
    see Docs/method/segmentation-network.md.
    """
    voxel = image.geometry.voxel_volume
    volume = {name: np.count_nonzero(classes == value) * voxel / 1000 for name, value in _MODEL_CLASS.items()}
    advice = "check that the image is a sagittal view of the lumbar spine and that its orientation is right."
    if volume["vertebra"] < max(2.0, 0.5 * volume["disc"]):
        return f"No spine was found: there are too few voxels of vertebrae beside the discs; {advice}"
    behind, front = canal_sides(levels, classes == _MODEL_CLASS["canal"], image)
    if front > behind:
        return f"The spinal canal lies in front of the discs: the header's orientation must be wrong; {advice}"
    if behind < 0.5 * len(levels.discs):
        return f"No spine was found: no spinal canal was seen behind most discs; {advice}"
    if max((q.expected_dice for q in quality), default=0.0) < MIN_EXPECTED:
        return f"No spine was found: the network is not sure of any disc; {advice}"
    return ""


def canal_sides(levels: LevelResult, canal: np.ndarray, image: Image) -> tuple[int, int]:
    """Return how many discs have canal behind them, and how many in front, within CANAL_REACH at their height."""
    points = voxel_points(canal, image.geometry)
    behind = front = 0
    for disc in levels.discs:
        offset = points - np.array(disc.centroid)
        near = offset[(np.abs(offset[:, 2]) < 12) & (np.abs(offset[:, 1]) < CANAL_REACH), 1]
        if len(near):
            behind += np.median(near) > 0
            front += np.median(near) < 0
    return int(behind), int(front)
