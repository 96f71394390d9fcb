"""Which DICOM images are echoes of the wanted series; the others are counted and named."""

from collections import defaultdict

import numpy as np

from ..errors import EchoSeriesError
from . import contents
from .dicom_frames import Frame
from .times import number

#: Series are echoes of one another only if these agree, within the given share.
_SAME = {"RepetitionTime": 0.1, "FlipAngle": 0.01, "EchoTrainLength": 0.0, "MagneticFieldStrength": 0.05}


def choose_frames(frames: list[Frame], series: int | str | None) -> tuple[list[Frame], list[str]]:
    """Return the echoes of one series (by number or instance UID), and notes on what was left out.

    Several series are one echo series only where each is one complete volume, as vendors export one series per
    spin-lock time; otherwise the user has to name one. EchoSeriesError if none is an echo, or several could be meant.
    """
    if series is not None:
        frames = _named(frames, series)
    echoes, notes = contents.only_echoes(frames, lambda f: f.header)
    if not echoes:
        raise EchoSeriesError(f"None of the {len(frames)} image(s) is an original magnitude image: choose the series "
                              f"of the echoes. {' '.join(notes)}", anchor="no-mr-image")
    _require_one_scaling(echoes)
    groups = _by_series(echoes)
    if len(groups) == 1:
        return echoes, notes
    problem = _why_not_joined(groups)
    if problem is not None:
        raise EchoSeriesError(f"The files mix {len(groups)} series ({_listed(groups)}){problem}: name one with "
                              "series=NUMBER, or point to the folder of one series.", anchor="mixed-series")
    return echoes, [*notes, f"{len(groups)} series of one volume each were joined."]


def _require_one_scaling(frames: list[Frame]) -> None:
    """Raise if some images lack a scaling that others have: their values cannot be compared."""
    for keyword, neutral in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0), ("PhilipsScaleSlope", 1.0)):
        values = [number(f.header.get(keyword)) for f in frames]
        if None in values and set(values) - {None, neutral}:
            raise EchoSeriesError(f"{frames[values.index(None)].name} has no {keyword}, which other images have: "
                                  "export the original images again.", anchor="scaling")


def _by_series(frames: list[Frame]) -> dict[str, list[Frame]]:
    groups = defaultdict(list)
    for frame in frames:
        groups[frame.series].append(frame)
    return groups


def _named(frames: list[Frame], series: int | str) -> list[Frame]:
    chosen = [f for f in frames if series in (f.series, f.number) or str(series) == str(f.number)]
    if not chosen:
        raise EchoSeriesError(f"There is no series {series}; found {_listed(_by_series(frames))}.",
                              anchor="mixed-series")
    if len({f.series for f in chosen}) > 1:
        raise EchoSeriesError(f"Series number {series} stands for several series; name one by its UID: "
                              f"{', '.join(sorted({f.series for f in chosen}))}.", anchor="mixed-series")
    return chosen


def _why_not_joined(groups: dict[str, list[Frame]]) -> str | None:
    """Return what speaks against several series being echoes of one acquisition, or None."""
    first = next(iter(groups.values()))
    if not all(_is_one_volume(g) and len(g) == len(first) for g in groups.values()):
        return ""
    if len({g[0].study for g in groups.values()}) > 1:
        return " of several examinations"
    for keyword, share in _SAME.items():
        values = [g[0].described.get(keyword) for g in groups.values()]
        known = [v for v in values if isinstance(v, float)]
        if known and max(known) - min(known) > share * max(known):
            return f", which differ in {keyword} ({min(known):g} to {max(known):g})"
    return None


def _is_one_volume(frames: list[Frame]) -> bool:
    positions = [tuple(np.round([float(v) for v in f.header.get("ImagePositionPatient") or []], 2)) for f in frames]
    return len(set(positions)) == len(positions)


def _listed(groups: dict[str, list[Frame]]) -> str:
    ordered = sorted(groups.values(), key=lambda g: g[0].number)
    unique = len({g[0].number for g in ordered}) == len(ordered)
    return "; ".join(f"number {g[0].number}{'' if unique else f', UID {g[0].series}'}, {len(g)} images"
                     for g in ordered)
