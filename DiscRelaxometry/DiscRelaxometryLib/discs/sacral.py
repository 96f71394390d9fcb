"""How the lowest discs lie on the sacrum: evidence that the lowest one is L5-S1 and not L4-L5, with a confidence.

The upper endplate of the sacrum (the sacral slope) and the kink above it set L5-S1 apart; the network labels no sacrum,
so both are read from the discs. Means and standard deviations (degrees) are those of SPIDER's 33 reference masks.
"""

import numpy as np
import scipy

from ..image import Geometry
from .instances import Piece, world

#: Forward lean of a disc's normal as L5-S1 and as L4-L5: mean, standard deviation.
SLOPE = ((34.0, 10.0), (13.0, 8.0))
#: The same less that of the disc above.
KINK = ((21.0, 7.0), (11.0, 6.0))
#: A network's probability is never taken for more than this; the shape of the column never for more log odds than
#: these, against and for L5-S1: some sacra are steep, some lumbar spines straight.
SUREST, MOST_ODDS = 0.98, (-1.0, 2.0)
#: Log odds of L5-S1 where a vertebral body is labelled below the disc: networks and references label no sacrum.
BODY = -4.0
#: mm below a disc's plane, from its axis to either side, and at least from its voxels, where a disc below it would lie.
BELOW, BESIDE, APART = (12.0, 45.0), 28.0, 6.0
#: Three quarters of clinical slices have less probability of L5-S1 below the disc of that name; chosen on every other
#: person of them. The log odds fall by the logarithm of what is seen over it: half as many slices have twice as much.
TRACE = 0.0015
#: Names are certain from this confidence on.
CERTAIN = 0.75


def slope(piece: Piece) -> float:
    """Return the angle (degrees) by which a disc's normal leans forward from cranial, in the sagittal plane."""
    return float(np.degrees(np.arctan2(-piece.normal[1], piece.normal[2])))


def shape_odds(pieces: list[Piece]) -> float:
    """Return the log odds of L5-S1 against L4-L5 for the lowest disc, by its slope and the kink to the next one.

    A disc cut by the image's border says nothing (0).
    """
    if len(pieces) < 2 or any(p.at_edge for p in pieces[:2]):
        return 0.0
    lowest, above = slope(pieces[0]), slope(pieces[1])
    odds = sum(_log_density(x, *own) - _log_density(x, *other)
               for x, (own, other) in ((lowest, SLOPE), (lowest - above, KINK)))
    # The two angles are not independent: together they count like one and a half.
    return float(np.clip(0.75 * odds, *MOST_ODDS))


def trace_below(piece: Piece, probability: np.ndarray, geometry: Geometry) -> float:
    """Return the largest probability of L5-S1 (k, j, i) where a disc below this one would lie; 0 where it is small."""
    indices = np.argwhere(probability > TRACE)
    points = world(indices, geometry)
    offset, axis = points - piece.centroid, np.cross(piece.normal, [1.0, 0.0, 0.0])
    depth = -offset @ piece.normal
    near = (depth > BELOW[0]) & (depth < BELOW[1]) & (np.abs(offset @ axis) < BESIDE * np.linalg.norm(axis))
    # A steep wedge reaches farther from its plane than a flat disc.
    near[near] = scipy.spatial.cKDTree(world(piece.indices, geometry)).query(points[near])[0] > APART
    return float(probability[tuple(indices[near].T)].max(initial=0.0))


def confidence(probability: float, pieces: list[Piece], body: bool = False, trace: float = 0.0) -> float:
    """Return the probability (0..1) that the lowest disc is L5-S1, from that by other evidence.

    The shape of the column (pieces, caudal first) is weighed with it, whether a vertebral body lies below the disc,
    and as `trace` the largest probability of L5-S1 below it: the disc may be missed there.
    """
    probability = min(max(probability, 1 - SUREST), SUREST)
    against = BODY * body - np.log(max(trace / TRACE, 1.0))
    return float(1 / (1 + np.exp(-np.log(probability / (1 - probability)) - shape_odds(pieces) - against)))


def _log_density(value: float, mean: float, deviation: float) -> float:
    return -0.5 * ((value - mean) / deviation)**2 - np.log(deviation)
