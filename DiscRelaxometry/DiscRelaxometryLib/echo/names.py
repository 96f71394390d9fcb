"""What a file's name says: its series, its echo, its component; BIDS entities, and the endings of converters.

Only entities and suffixes count, never a word in the middle of a name: ``acq-T2map_MESE`` is a series.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..errors import EchoSeriesError
from ..image import format_ending

_ENDING = re.compile(r"(\.seq)?\.(nii\.gz|nii|nrrd|nhdr|mha|mhd)$", re.I)
#: Parts of a name that count echoes; files that differ in these alone are one series. ``_e2`` is dcm2niix's.
_ECHO = re.compile(r"(?:^|_)(?:(?:echo|tsl|te|inv|acq-tsl)-?(\d+)(?:ms)?|e(\d+))(?=_|$)", re.I)
#: Components: the BIDS entity, or the ending of a converter.
_PART = re.compile(r"_part-(mag|phase|real|imag)(?=_|$)|_(ph|phase|real|imaginary)(?=$|_e\d+$)", re.I)
_COMPONENTS = {"mag": "", "phase": "phase", "ph": "phase", "real": "real", "imag": "imaginary",
               "imaginary": "imaginary"}
#: Suffixes of what was made from images: BIDS writes T2map, R2map; a protocol may be called T2MAP.
_DERIVED = re.compile(r"(?:^|_)(?:[A-Za-z0-9]*map|dseg|probseg|mask)$")


def is_image(file: Path) -> bool:
    """Tell whether a file is an image that is read, by its ending or else by its content."""
    return bool(_ENDING.search(file.name)) or bool(format_ending(file))


def stem(file: Path) -> str:
    """Return a file's name without the ending of its format."""
    return _ENDING.sub("", file.name)


def series_name(file: Path) -> str:
    """Return what the names of all echoes of a series share: the stem without echo and magnitude entities."""
    return _PART.sub("", _ECHO.sub("", stem(file)))


def suffix(file: Path) -> str:
    """Return the last part of a series' name, which is the suffix of a BIDS name."""
    return series_name(file).rpartition("_")[2]


def component(file: Path) -> str:
    """Return ``phase``, ``real`` or ``imaginary`` where a name says so, or an empty string."""
    found = _PART.search(stem(file))
    return _COMPONENTS[(found.group(1) or found.group(2)).lower()] if found else ""


def left_out(file: Path) -> str:
    """Say why a file of a folder is no echo, by its name; an empty string for an echo."""
    if component(file):
        return component(file)
    return "map or mask" if _DERIVED.search(stem(file)) and _number(file) is None else ""


def group_series(files: Iterable[Path]) -> list[list[Path]]:
    """Group image files into echo series: names that differ in the echo alone, or in one number.

    Returns
    -------
    list of list of Path
        Files of each series in order of their echo number; a first echo may lack a number.

    Raises
    ------
    EchoSeriesError
        If an echo stands twice.
    """
    files, groups = list(files), defaultdict(list)
    for file in files:
        groups[(file.parent, series_name(file))].append(file)
    if len(groups) > 1 and not any(_number(f) for f in files) and _differ_in_one_number(files):
        return [sorted(files, key=lambda f: [int(n) for n in re.findall(r"\d+", stem(f))])]
    return [_in_order(group) for _, group in sorted(groups.items())]


def _number(file: Path) -> tuple[int, ...] | None:
    return tuple(int(a or b) for a, b in _ECHO.findall(stem(file))) or None


def _in_order(files: list[Path]) -> list[Path]:
    # Converters leave the number of the first echo out; beside a numbered first echo the file is something else.
    order: dict[tuple[int, ...], Path] = {}
    for file in files:
        twin = order.setdefault(_number(file) or (1,), file)
        if twin is not file:
            raise EchoSeriesError(f"'{file.name}' and '{twin.name}' are the same echo by their names: remove one, or "
                                  "give the files of the series.", anchor="mixed-series")
    return [order[n] for n in sorted(order)]


def _differ_in_one_number(files: list[Path]) -> bool:
    """Tell whether names differ in one number only, as echo1.nrrd, echo2.nrrd do."""
    if any(stem(f).startswith("sub-") for f in files):
        return False  # BIDS names number people and runs
    parts = [re.split(r"(\d+)", stem(f)) for f in files]
    differing = [place for place, column in enumerate(zip(*parts)) if len(set(column)) > 1]
    # Odd places hold the numbers.
    return len({len(p) for p in parts}) == 1 and len(differing) == 1 and differing[0] % 2 == 1
