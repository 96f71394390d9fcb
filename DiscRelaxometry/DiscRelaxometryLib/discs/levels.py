"""Names for discs and vertebrae: counted upward from L5-S1, with the evidence and the doubts explained."""

from dataclasses import dataclass

import numpy as np

from ..errors import SegmentationError
from ..image import Geometry, Image
from ..labels import BY_VALUE, CANAL, DISC, DISCS
from .instances import CUT, Disc, Piece, SpineCurve, column_core, find_discs, spine_curve
from .sacral import CERTAIN, confidence, shape_odds, slope, trace_below
from .vertebra_names import name_vertebrae, spacings_between

LOWEST, HIGHEST = DISCS[0].value, DISCS[-1].value
SHRINK = 0.96  # of the distance between discs, from one level to the next above
USUAL = 34.0, 0.2  # mm between the lowest discs, and the logarithm's standard deviation between people
SCATTER = 0.12  # standard deviation of the logarithm of a person's distances
MISSED, DOUBT, MOST_MISSED = 7.0, 5.0, 4  # cost of a missed disc (-2 log odds); margin between counts; most looked for
CROWDED = 0.55
TINY, CROWDED_TINY = 0.2, 0.8  # a piece this small is believed to be a level only at more of the usual distance
SMALL = 0.35  # of a disc's volume; smaller pieces need a vertebra beside them to count as a level
SHORT, LITTLE = 0.72, 0.75  # of the next disc's AP length and volume; a remnant disc S1-S2 is below both
NO_BODY_BELOW = 0.9  # probability of L5-S1 where no body lies below the lowest disc
ROOM_BELOW = 20.0  # mm of image below the lowest disc, enough to see the sacrum or L5


@dataclass
class LevelResult:
    """Labelled discs and vertebrae."""

    #: uint8. Project label values on the input's grid.
    labels: Image
    #: Caudal first.
    discs: list[Disc]
    #: Label values of the vertebrae present, caudal first.
    vertebrae: list[int]
    #: Sentences for the user; empty for a regular spine with the sacrum in view.
    flags: list[str]
    #: False where the level names rest on an assumption that a flag states.
    certain: bool
    #: Why the lowest disc has its name.
    evidence: str


def label_instances(classes: np.ndarray, geometry: Geometry, l5s1_probability: np.ndarray | None = None
                    ) -> LevelResult:
    """Separate, order and name the discs, and name the vertebrae from them.

    Classes (k, j, i) are 0 background, 1 vertebra, 2 canal, 3 disc, in any orientation; the probability of L5-S1 is a
    network's, per voxel. SegmentationError if there is no disc, or the arrays do not fit each other.
    """
    classes = np.asarray(classes)
    if classes.shape != geometry.shape:
        raise SegmentationError(f"The classes {classes.shape} do not fit the grid {geometry.shape}.")
    if not np.any(classes == 3):
        raise SegmentationError("No disc was found: check that the image is a sagittal view of the lumbar spine.",
                                anchor="no-spine-found")
    core = column_core(classes, geometry)
    pieces, islands, curve = find_discs(classes, geometry, spine_curve(classes, geometry, core[0]))
    if not pieces:
        raise SegmentationError("The disc voxels found lie off the spine or are too few to be a disc.",
                                anchor="no-spine-found")
    pieces, unsupported, remarks = _without_unsupported(pieces, core)
    pieces, crowded, crowded_remarks = _without_crowded(pieces)
    extra = crowded + unsupported
    steps, gaps, doubt = _level_steps(pieces)
    probabilities, trace = [float("nan")] * len(pieces), 0.0
    if l5s1_probability is not None:
        probabilities = [float(np.mean(l5s1_probability[tuple(p.indices.T)])) for p in pieces]
        trace = trace_below(pieces[0], l5s1_probability, geometry)
    below = vertebra_below(pieces[0], core, geometry, curve)
    lowest = _from_network(pieces, steps, probabilities, below[0], trace, geometry) or _from_surroundings(
        pieces, probabilities, below, room_below(pieces[0], geometry, curve), geometry)
    discs = _named(pieces, steps, lowest.start, probabilities, geometry)
    doubts = ["The distances between the discs fit more than one number of missed discs: the level names are an "
              "assumption. Check them and shift the labels if needed."] * doubt
    flags = [*remarks, *crowded_remarks, *_gap_remarks(gaps, discs), *doubts, *lowest.remarks,
             *(f"{disc.name}: {note}." for disc in discs for note in disc.flags if note != CUT),
             *_island_remarks(islands + extra)]
    labels = np.zeros(classes.shape, np.uint8)
    labels[classes == 2] = CANAL.value
    for disc, piece in zip(discs, pieces):
        labels[tuple(piece.indices.T)] = disc.value
    for piece in extra:
        labels[tuple(piece.indices.T)] = DISC.value
    vertebrae = name_vertebrae(labels, classes == 1, discs, pieces, geometry, curve,
                               sacrum=discs[0].value == LOWEST and below[0])
    image = Image(labels, geometry, {"flags": list(flags), "evidence": lowest.evidence})
    return LevelResult(image, discs, vertebrae, flags, lowest.certain and not doubt, lowest.evidence)


def _without_unsupported(pieces: list[Piece], core: tuple[np.ndarray, np.ndarray]
                         ) -> tuple[list[Piece], list[Piece], list[str]]:
    """Return the pieces, those taken out for want of a vertebral body between them and the next disc, and remarks.

    Below L5-S1 these are islands or the remnant disc S1-S2 (the network labels no sacrum); between two levels they are
    torn-off parts of a disc.
    """
    pieces, extra, remarks = list(pieces), [], []
    if not np.any(core[1] == 1):
        return pieces, extra, remarks
    typical = float(np.median([p.volume for p in pieces]))
    n = 0
    while n < len(pieces) - 1 and len(pieces) > 2:
        low, high = pieces[n], pieces[n + 1]
        smaller, larger = (low, high) if low.volume < high.volume else (high, low)
        if smaller.volume < SMALL * min(larger.volume, typical) and not vertebra_between(low, high, core):
            remarks.append(f"A disc-like piece of {smaller.volume:.0f} mm3 at {_place(smaller)} has no vertebra "
                           "between it and the next disc; it has no level.")
            pieces = [p for p in pieces if p is not smaller]
            extra.append(smaller)
            n = 0
        else:
            n += 1
    return pieces, extra, remarks


def vertebra_between(low: Piece, high: Piece, core: tuple[np.ndarray, np.ndarray]) -> bool:
    """Tell whether the inside of a vertebral body fills a good part of the way between two pieces."""
    points = core[0][core[1] == 1]
    way = high.centroid - low.centroid
    length = np.linalg.norm(way)
    along = (points - low.centroid) @ way / length
    beside = np.linalg.norm(points - low.centroid - np.outer(along, way / length), axis=1)
    near = along[(beside < 12) & (along > 0) & (along < length)]
    steps = np.unique(np.floor(near / 2))
    return bool(len(steps) * 2 >= 0.3 * length)


def _without_crowded(pieces: list[Piece]) -> tuple[list[Piece], list[Piece], list[str]]:
    """Return the pieces, those taken out because they lie too near others, and remarks."""
    pieces, extra, remarks = list(pieces), [], []
    while len(pieces) > 2:
        spacings = spacings_between(pieces)
        typical = float(np.median(np.sort(spacings)[len(spacings) // 3:]))
        n = int(np.argmin(spacings))
        low, high = pieces[n], pieces[n + 1]
        smaller = low if low.volume < high.volume else high
        tiny = smaller.volume < TINY * max(low.volume, high.volume) and not smaller.at_edge
        if spacings[n] >= (CROWDED_TINY if tiny else CROWDED) * typical:
            break
        if smaller.volume > SMALL * max(low.volume, high.volume):
            remarks.append(f"Two discs lie only {spacings[n]:.0f} mm apart: check the levels near the disc at "
                           f"{_place(smaller)}.")
            break
        remarks.append(f"A disc-like piece of {smaller.volume:.0f} mm3 at {_place(smaller)} lies between two levels; "
                       "it has no level.")
        pieces = [p for p in pieces if p is not smaller]
        extra.append(smaller)
    return pieces, extra, remarks


def _place(piece: Piece) -> str:
    right, anterior, superior = -piece.centroid[0], -piece.centroid[1], piece.centroid[2]
    return f"(R {right:.0f}, A {anterior:.0f}, S {superior:.0f}) mm"


def _level_steps(pieces: list[Piece]) -> tuple[list[int], list[tuple[int, int]], bool]:
    """Return each disc's level counted from the lowest, the gaps, and whether another count is likely, too.

    A gap is (disc below, discs that should be in it). All ways to miss up to MOST_MISSED discs are compared: one
    spacing between levels, which decreases upward, has to explain all distances.
    """
    log_spacings = np.log(spacings_between(pieces))
    n = len(log_spacings)
    ways = np.ones((1, n), int)
    for _ in range(MOST_MISSED if n else 0):
        ways = np.unique(np.concatenate([ways, *(ways + row for row in np.eye(n, dtype=int))]), axis=0)
    first = np.cumsum(ways, axis=1) - ways
    deviations = log_spacings - np.log(SHRINK**first * (1 - SHRINK**ways) / (1 - SHRINK))
    weight, prior = 1 / SCATTER**2, 1 / USUAL[1]**2
    mean = (weight * deviations.sum(axis=1) + prior * np.log(USUAL[0])) / (weight * n + prior)
    cost = (weight * ((deviations - mean[:, None])**2).sum(axis=1) + prior * (mean - np.log(USUAL[0]))**2
            + MISSED * (ways - 1).sum(axis=1))
    order = np.argsort(cost)
    best = ways[order[0]]
    gaps = [(int(at), int(best[at]) - 1) for at in np.flatnonzero(best > 1)]
    doubt = len(order) > 1 and cost[order[1]] - cost[order[0]] < DOUBT
    return [0, *np.cumsum(best).tolist()], gaps, bool(doubt)


@dataclass(frozen=True)
class _Lowest:
    """The level step of L5-S1 (relative to the lowest disc), whether it is sure, why, and what the user should know."""

    start: int
    certain: bool
    evidence: str
    remarks: list[str]


def _from_network(pieces, steps, probabilities, body: bool, trace: float, geometry) -> _Lowest | None:
    """Return what the network's L5-S1 says, or None where it sees none; for `body` and `trace` see `_by_shape`."""
    if np.all(np.isnan(probabilities)) or np.nanmax(probabilities) < 0.5:
        return None
    # A speck of the class in the sacrum may be surer than the disc itself.
    best = int(np.argmax([p.volume * v if v >= 0.5 else 0.0 for p, v in zip(pieces, probabilities)]))
    evidence = f"the network sees L5-S1 in it with probability {probabilities[best]:.2f}"
    if best == 0:
        return _by_shape(float(probabilities[0]), evidence, pieces, geometry, body, trace)
    if best == len(pieces) - 1 and best >= 2:
        return _Lowest(0, False, "assumed; the network contradicts the header's orientation", [
            "The network sees L5-S1 in the uppermost disc: the image's header may state superior and inferior the "
            "wrong way round. The lowest disc is taken as L5-S1; check the orientation."])
    return _Lowest(steps[best], False, evidence, [
        f"{best} disc(s) lie below the one that the network names L5-S1: transitional anatomy (lumbarized S1) is "
        "possible. They have no level; check, and shift the labels if needed."])


def _from_surroundings(pieces, probabilities, below: tuple[bool, bool], room: float, geometry) -> _Lowest:
    """Return what a vertebra below the lowest disc (found, whole) or the room there (mm) says of its level."""
    found, whole = below
    if found and whole:
        return _Lowest(-1, False, "a vertebra without a disc below it was taken as L5", [
            "A whole vertebra lies below the lowest disc found: the disc L5-S1 is missing, fused or outside the image. "
            "That the lowest disc is L4-L5 is an assumption; check the levels."])
    if found or room < ROOM_BELOW:
        end = "in a vertebra" if found else f"{room:.0f} mm"
        level = "L4-L5" if found else "L5-S1"
        return _Lowest(-1 if found else 0, False, "assumed; the sacrum is not in view", [
            f"The image ends {end} below the lowest disc, and the sacrum is not seen: the level names are an "
            f"assumption (lowest disc = {level}). Check them and shift the labels if needed."])
    if not np.all(np.isnan(probabilities)) and np.nanmax(probabilities) < 0.25:
        return _Lowest(0, False, "no vertebra lies below the lowest disc, against the network", [
            "The network does not recognize L5-S1 in any disc; that the lowest disc is L5-S1 is an assumption, made "
            "because no vertebra lies below it. Check the levels, and whether the image is upside down."])
    return _by_shape(NO_BODY_BELOW, "no vertebra lies below the lowest disc and the image continues below it", pieces,
                     geometry)


def _by_shape(probability: float, evidence: str, pieces: list[Piece], geometry: Geometry, body=False, trace=0.0
              ) -> _Lowest:
    """Return that the lowest disc is L5-S1 by evidence of some probability, weighed with the shape of the column.

    Where a vertebral body lies below it (`body`), or a `trace` of L5-S1, it may be L4-L5.
    """
    sure = confidence(probability, pieces, body, trace)
    if body and sure < 0.5:
        return _Lowest(-1, False, f"{evidence}, but a vertebra lies below it: confidence {sure:.2f}", [
            "A vertebra lies below the lowest disc, which the network takes for L5-S1: a disc below it may be missed. "
            "That the lowest disc is L4-L5 is an assumption; check the levels."])
    doubt, remarks = _transitional(pieces, geometry)
    if sure < CERTAIN:
        missed = f", and a trace of L5-S1 (probability {trace:.2g}) lies below it" if trace else ""
        remarks = [*remarks, f"The lowest disc leans {slope(pieces[0]):.0f} degrees forward{missed}: that it is L5-S1 "
                             f"has a confidence of {sure:.2f} only. Check the levels and shift the labels if needed."]
    doubt = doubt or sure < CERTAIN
    lean = f", and it leans {slope(pieces[0]):.0f} degrees forward" if shape_odds(pieces) else ""
    return _Lowest(0, not doubt, f"{evidence}{lean}: confidence {sure:.2f}", remarks)


def _transitional(pieces: list[Piece], geometry: Geometry) -> tuple[bool, list[str]]:
    """Return whether a small lowest disc puts the names in doubt, and remarks.

    A remnant disc S1-S2 may look like L5-S1 to the network; it is shorter than a lumbar disc, whatever its height.
    """
    remarks = []
    if len(pieces) < 2 or pieces[0].at_edge:
        return False, remarks
    ratio = pieces[0].volume / pieces[1].volume
    if ratio < 0.3:
        remarks.append(f"The lowest disc has {100 * ratio:.0f} % of the next one's volume: collapsed, cut, or "
                       "transitional anatomy (sacralized L5 or lumbarized S1). Check the levels.")
    length = ap_length(pieces[0], geometry) / ap_length(pieces[1], geometry)
    remnant = length < SHORT and ratio < LITTLE
    if remnant:
        remarks.append(f"The lowest disc is only {100 * length:.0f} % as long from front to back as the next one, and "
                       f"has {100 * ratio:.0f} % of its volume: it may be the remnant disc S1-S2 (transitional "
                       "anatomy). The names are an assumption (lowest disc = L5-S1): if it is the remnant, delete that "
                       "segment and shift the other labels down.")
    return remnant, remarks


def ap_length(piece: Piece, geometry: Geometry) -> float:
    """Return a disc's extent from front to back along its own plane, mm (2nd to 98th percentile of its voxels)."""
    axis = np.cross(piece.normal, [1.0, 0.0, 0.0])
    axis /= np.linalg.norm(axis)
    along = geometry.index_to_world(piece.indices[:, ::-1]) @ axis
    return float(np.subtract(*np.percentile(along, [98, 2])) + np.abs(axis @ geometry.matrix3).max())


def vertebra_below(piece: Piece, core: tuple[np.ndarray, np.ndarray], geometry: Geometry, curve: SpineCurve
                   ) -> tuple[bool, bool]:
    """Return whether a vertebral body lies below a disc, and whether the image shows it whole.

    The network labels no sacrum, so a body below the lowest disc is L5 or higher. `core` comes from
    :func:`column_core`.
    """
    points, kinds = core
    points = points[kinds == 1]
    if not len(points):
        return False, False
    depth = -(points - piece.centroid) @ piece.normal
    body = points[(depth > 6) & (depth < 60)]
    body = body[curve.near(body, 25)]
    if len(body) < 20:
        return False, False
    extent = np.percentile(-(body - piece.centroid) @ piece.normal, 98)
    if extent < 10:
        return False, False
    lowest = body[np.argmax(-(body - piece.centroid) @ piece.normal)]
    index = geometry.world_to_index(lowest - 10 * piece.normal)
    inside = bool(np.all(index > 0) and np.all(index < np.array(geometry.size) - 1))
    return True, inside and extent > 16


def room_below(piece: Piece, geometry: Geometry, curve: SpineCurve) -> float:
    """Return how far the image continues below a disc along the spine, mm (at most 60)."""
    depth = np.arange(0.0, 61.0)
    points = piece.centroid - depth[:, None] * curve.tangent(piece.centroid)
    index = geometry.world_to_index(points)
    outside = np.any((index < -0.5) | (index > np.array(geometry.size) - 0.5), axis=1)
    return float(depth[np.argmax(outside)]) if np.any(outside) else 60.0


def _named(pieces, steps, start, probabilities, geometry) -> list[Disc]:
    """Return the discs with their names."""
    discs = []
    for piece, step, probability in zip(pieces, steps, probabilities):
        value = LOWEST + step - start
        notes = [*piece.notes, CUT] if piece.at_edge else list(piece.notes)
        if not LOWEST <= value <= HIGHEST:
            value = DISC.value
        discs.append(Disc(value, BY_VALUE[value].name, tuple(float(c) for c in piece.centroid), piece.volume,
                          piece.position, float(piece.extents[0]), ap_length(piece, geometry), probability, notes))
    return discs


def _gap_remarks(gaps: list[tuple[int, int]], discs: list[Disc]) -> list[str]:
    return [f"No disc was found in the gap between {discs[n].name} and {discs[n + 1].name} ({missing} level(s) left "
            "out): fused, collapsed or missed. Check the levels." for n, missing in gaps]


def _island_remarks(islands: list[Piece]) -> list[str]:
    large = [p.volume for p in islands if p.volume >= 30]
    text = f"{len(large)} disc-like island(s) apart from the discs, {sum(large):.0f} mm3 in all, were left out."
    return [text] if large else []
