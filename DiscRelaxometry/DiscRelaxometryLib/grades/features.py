"""Numbers that describe a disc in a T2-weighted view: signal by region and quantile, sharpness, size, and its peers.

The grades of Pfirrmann et al. (Spine 2001;26:1873) go by the nucleus's signal and homogeneity, its distinction from the
annulus, and the disc's height. Signal is in units of cerebrospinal fluid or vertebral marrow.
"""

from collections.abc import Sequence

import numpy as np
import scipy

from ..labels import DISCS
from .views import CANAL, SPACING, THIS_DISC, VERTEBRA, DiscView

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
#: Share of the AP length and of the height that the nucleus takes in a mid-sagittal view.
FRONT, BACK, HALF_HEIGHT = 0.2, 0.85, 0.36
#: Compared between the discs of a person.
_SHARED = ("csf_q50", "csf_q90", "nucleus", "contrast", "height_middle", "marrow_q90")


def disc_features(views: Sequence[DiscView]) -> tuple[list[str], np.ndarray]:
    """Describe one person's discs: names of the features, and values (discs, features), NaN where not measurable.

    There are two views or more, caudal first, each with its disc in it.
    """
    csf = float(np.nanmedian([v.csf for v in views]))
    rows = [_own(view, csf) for view in views]
    names = list(rows[0])
    own = np.array([[row[name] for name in names] for row in rows])
    shared = own[:, [names.index(name) for name in _SHARED]]
    peers = []
    for n in range(len(views)):
        others, near = np.delete(shared, n, axis=0), shared[[m for m in (n - 1, n + 1) if 0 <= m < len(views)]]
        highest = others.max(axis=0)
        peers.append(np.concatenate([np.median(others, axis=0), highest, near.mean(axis=0), shared[n] - highest]))
    names += [f"{name}_{kind}" for kind in ("others", "highest", "near", "below_highest") for name in _SHARED]
    return names, np.hstack([own, np.array(peers)])


def _own(view: DiscView, csf: float) -> dict[str, float]:
    """Return the features of a disc by itself; `csf` is the person's, for views that show none."""
    inside = largest_piece(view.classes == THIS_DISC)
    signal = np.nan_to_num(view.signal / (view.csf if np.isfinite(view.csf) else csf))
    r, c = np.nonzero(inside)
    columns = np.flatnonzero(inside.any(axis=0))
    part = inside[:, columns]
    top, bottom = part.argmax(axis=0), len(part) - part[::-1].argmax(axis=0)
    at, height = c - columns[0], bottom - top
    ap, depth = (at + 0.5) / len(columns), (r - top[at] + 0.5) / height[at]
    row = {"level": float(view.value - DISCS[0].value), "csf": view.csf / csf, "marrow": view.marrow / csf,
           **_signal(signal, view.signal / view.marrow, inside, ap, depth),
           **_size(height * SPACING, int(inside.sum())), **_endplates(view, inside), **_borders(view, inside)}
    return row


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask."""
    pieces = scipy.ndimage.label(mask, np.ones((3, 3)))[0]
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _signal(signal: np.ndarray, in_marrow: np.ndarray, inside: np.ndarray, ap: np.ndarray, depth: np.ndarray) -> dict:
    """Return quantiles, region means, profiles and sharpness of the signal in a disc."""
    values = signal[inside]
    middle = (ap > FRONT) & (ap < BACK)
    core = middle & (np.abs(depth - 0.5) < HALF_HEIGHT)
    row = {"mean": _mean(values), "sd": float(values.std())}
    for name, some in (("csf", values), ("marrow", in_marrow[inside])):
        row |= {f"{name}_q{100 * q:02.0f}": float(v) for q, v in zip(QUANTILES, np.quantile(some, QUANTILES))}
    row |= {"nucleus": _mean(values[core]), "nucleus_sd": float(values[core].std()) if core.any() else np.nan,
            "anterior": _mean(values[ap <= FRONT]), "posterior": _mean(values[ap >= BACK]),
            "margin": _mean(values[middle & ~core])}
    row["contrast"] = row["nucleus"] - (row["anterior"] + row["posterior"]) / 2
    profiles = (("ap", values, ap, np.linspace(0, 1, 9)),
                ("depth", values[core], depth[core], np.linspace(0.5 - HALF_HEIGHT, 0.5 + HALF_HEIGHT, 8)))
    for name, some, position, edges in profiles:
        row |= {f"{name}{n}": _mean(some[(position >= low) & (position < high)])
                for n, (low, high) in enumerate(zip(edges[:-1], edges[1:]))}
    smooth = scipy.ndimage.gaussian_filter(signal, 1.0)
    slope = np.hypot(*np.gradient(smooth, SPACING))[inside]
    row |= {"slope": _mean(slope), "slope_q90": float(np.quantile(slope, 0.9)), "slope_nucleus": _mean(slope[core]),
            "texture": float((signal - smooth)[inside].std())}
    row |= {f"above_{100 * level:.0f}": float(np.mean(values > level)) for level in (0.2, 0.3, 0.4, 0.5, 0.6)}
    # Few pixels between dark and bright make a sharp border of the nucleus.
    low, high = np.quantile(values, (0.2, 0.95))
    row["between"] = float(np.mean(np.abs(values - (low + high) / 2) < 0.2 * (high - low)))
    return row


def _size(height: np.ndarray, pixels: int) -> dict:
    """Return heights (mm) in three bands of the AP length, length (mm), area (mm2), and mean height over length."""
    n = len(height)
    row = {f"height_{name}": float(height[int(a * n):max(int(b * n), int(a * n) + 1)].mean())
           for name, (a, b) in {"anterior": (0.1, 0.3), "middle": (0.4, 0.6), "posterior": (0.7, 0.9)}.items()}
    length = n * SPACING
    return row | {"length": length, "area": pixels * SPACING**2, "slender": float(height.mean()) / length}


def _endplates(view: DiscView, inside: np.ndarray) -> dict:
    """Return the marrow's signal near the endplates and farther off, and the bodies' heights (mm) in the view."""
    r, c = np.nonzero(inside)
    distance = scipy.ndimage.distance_transform_edt(~inside, sampling=SPACING)
    middle = slice(int(np.quantile(c, 0.3)), int(np.quantile(c, 0.7)) + 1)
    row = {}
    for name, rows in (("above", slice(0, r.min() + 4)), ("below", slice(r.max() - 3, None))):
        bone, near, values = (view.classes == VERTEBRA)[rows], distance[rows], view.signal[rows] / view.marrow
        beside = values[bone & (near > 1.5) & (near < 5)]
        row |= {f"endplate_{name}": _mean(beside), f"marrow_{name}": _mean(values[bone & (near >= 5) & (near < 12)]),
                f"endplate_sd_{name}": float(np.nanstd(beside)) if len(beside) else np.nan,
                f"body_{name}": float(bone[:, middle].sum(axis=0).mean() * SPACING)}
    return row


def _borders(view: DiscView, inside: np.ndarray) -> dict:
    """Return the disc's reach (mm) beyond the bodies in front and to the canal behind, and the canal's narrowing."""
    r, c = np.nonzero(inside)
    bone, canal = view.classes == VERTEBRA, view.classes == CANAL
    fronts = [np.flatnonzero(part.sum(axis=0) > 8)[:1] for part in (bone[:r.min()], bone[r.max() + 1:])]
    columns = np.flatnonzero(canal[r.min():r.max() + 1].any(axis=0))
    rows = np.arange(len(inside))
    widths = [canal[band].sum(axis=1) for band in ((rows >= r.min()) & (rows <= r.max()),
                                                   (rows < r.min() - 4) | (rows > r.max() + 4))]
    beside, away = (_mean(w[w > 0]) for w in widths)
    return {"bulge_front": (_mean(np.concatenate(fronts)) - c.min()) * SPACING,
            "canal_gap": (columns[0] - c.max()) * SPACING if len(columns) else np.nan,
            "canal_narrowing": beside / away}
