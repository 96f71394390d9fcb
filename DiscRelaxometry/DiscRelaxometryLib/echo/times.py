"""Spin-lock and echo times from wherever vendors put them in DICOM headers.

DICOM has an attribute for echo times and none for spin-lock times. A source counts only if it gives every volume a
time of its own; nothing is inferred from acquisition order. See ``Docs/method/echo-series.md``.
"""

import math
import re
from collections import Counter
from collections.abc import Callable

from ..errors import EchoSeriesError

#: DICOM elements in which a person or a vendor describes an image.
FREE_TEXT = ("ImageComments", "FrameComments", "FrameLabel", "SeriesDescription", "ProtocolName", "SequenceName",
             "PulseSequenceName", "AcquisitionContrast", "DerivationDescription", "ScanOptions")
#: The longest spin-lock and echo times (ms) that a series plausibly ends with.
_LONGEST = {"T1rho": 500.0, "T2": 2000.0}
_NUMBER = r"[\s_=:\-\[(]*(\d+(?:[.,p]\d+)?)\s*(ms|us|s)?(?![a-z0-9])"
_LABELS = {"T1rho": r"(?:tsl|spin[\s_-]?lock(?:[\s_-]?time)?|slt)",
           "T2": r"(?:t2[\s_-]?prep(?:[\s_-]?te)?|te[\s_-]?prep|te)"}
_SPIN_LOCK_WORDS = re.compile(r"t1[\s_-]?(rho|r(?![a-z])|ρ|p(?![a-z]))|spin[\s_-]?lock|(?<![a-z])tsl(?![a-z])"
                              r"|cubequant", re.I)
_T2_WORDS = re.compile(r"(?<![a-z])t2(?![a-z*]|[\s_-]?(?:\*|star))|mese|multi[\s_-]?echo|t2[\s_-]?map", re.I)


def number(value) -> float | None:
    """Return a header value as float, or None where it is absent or no finite number."""
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = value[0] if len(value) == 1 else None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def guess_kind(texts: list[str]) -> str | None:
    """Return the kind that a series' descriptions state, or None; EchoSeriesError if both, as in combined MAPSS."""
    text = " ".join(t for t in texts if t)
    rho = bool(_SPIN_LOCK_WORDS.search(text))
    t2 = bool(_T2_WORDS.search(text)) or "T2prep" in text
    if (rho and t2) or (rho == t2 and "mapss" in text.lower()):
        raise EchoSeriesError("The series' description stands for both T1rho and T2: give kind=\"T1rho\" or "
                              "kind=\"T2\", or read a combined MAPSS acquisition with read_mapss.", anchor="kind")
    return "T1rho" if rho else "T2" if t2 else None


def text_time(text: str, kind: str) -> float | None:
    """Return the time (ms) that a text states next to its name, such as ``TSL 40 ms`` or ``TE=13.7``."""
    match = re.search(r"(?<![a-z])" + _LABELS[kind] + _NUMBER, text, re.I)
    if not match:
        return None
    value = float(re.sub("[,p]", ".", match.group(1), flags=re.I))
    return value * {"us": 1e-3, "s": 1e3}.get((match.group(2) or "ms").lower(), 1.0)


def sources(kind: str, time_tag: str | None = None, stated: bool = True) -> dict[str, Callable[[dict], float | None]]:
    """Return the places to look for a frame's time (ms) by name, each a function of header values, the best first.

    A `time_tag` that the user named, a DICOM keyword (``InversionTime``) or tag (``0019,10B6``), is the only place.
    Vendors write spin-lock times into elements that mean something else; in images that do not call themselves `kind`
    (`stated`), those elements hold what their names say.
    """
    if time_tag:
        key = normalized_tag(time_tag)
        return {f"DICOM attribute {time_tag}": lambda header: number(header.get(key))}
    texts = {f"text '{_LABELS_SHOWN[kind]}' in {name}": _text_reader(name, kind) for name in FREE_TEXT}
    attributes = {name: _attribute_reader(name) for name in ("EffectiveEchoTime", "EchoTime")}
    if kind == "T2":
        # A T2 preparation's time stands in the text while EchoTime is constant; EchoTime counts if it varies.
        return attributes | texts
    if not stated:
        return texts
    return texts | attributes | {name: _attribute_reader(name) for name in ("InversionTime", "TriggerTime")}


_LABELS_SHOWN = {"T1rho": "TSL", "T2": "TE"}


def _text_reader(name: str, kind: str) -> Callable[[dict], float | None]:
    return lambda header: text_time(str(header.get(name) or ""), kind)


def _attribute_reader(name: str) -> Callable[[dict], float | None]:
    return lambda header: number(header.get(name))


def normalized_tag(tag: str) -> str:
    """Return a DICOM keyword as it is, and a numeric tag as ``GGGGEEEE``."""
    digits = re.sub(r"[\s(),x]", "", tag)
    return digits.upper() if re.fullmatch(r"[0-9A-Fa-f]{8}", digits) else tag.strip()


def to_milliseconds(values, source: str, unit: str | None = None) -> tuple[list[float], str]:
    """Return times in ms and a note on their unit; EchoSeriesError if it is ambiguous or unknown.

    Rule, where no unit is stated: a longest time below 1 is in s; from 5 to 5000 it is in ms; anything else is
    ambiguous, because no series ends between 1 and 5 ms or s.
    """
    values = [float(v) for v in values]
    longest = max(values, default=0.0)
    if unit:
        factor = {"ms": 1.0, "s": 1e3, "us": 1e-3, "millisecond": 1.0, "second": 1e3}.get(unit.strip().lower())
        if factor is None:
            raise EchoSeriesError(f"The times' unit '{unit}' in {source} is unknown: use ms or s, or give times_ms.",
                                  anchor="times")
        return [round(v * factor, 9) for v in values], f"Times read from {source}, in {unit}."
    if 0 < longest < 1:
        return [round(v * 1e3, 9) for v in values], f"Times read from {source}, in seconds (longest below 1)."
    if 5 <= longest <= 5000:
        return values, f"Times read from {source}, in ms."
    listed = ", ".join(f"{v:g}" for v in values)
    raise EchoSeriesError(f"The unit of the times {listed} in {source} is ambiguous: give times_ms.", anchor="times")


def require_plausible(times: list[float], kind: str, source: str) -> None:
    """Raise EchoSeriesError if the longest time (ms) cannot be one of this kind."""
    if max(times, default=0.0) > _LONGEST[kind]:
        raise EchoSeriesError(f"The times {', '.join(f'{t:g}' for t in times)} ms in {source} are too long for {kind} "
                              f"(up to {_LONGEST[kind]:g} ms): give times_ms.", anchor="times")


def same_time(first: float, second: float, rounding: float = 0.01) -> bool:
    """Tell whether two times (ms) are one: scanners round calculated times, at most by 0.01 ms or 0.1 %."""
    return abs(first - second) <= max(rounding, 1e-3 * min(abs(first), abs(second))) * (1 + 1e-9)


def joined_times(times) -> dict[float, float]:
    """Map each time (ms) to the one that stands for all of the same echo: the most frequent, or the shortest."""
    counts, groups = Counter(times), []
    rounding = 1e-5 if max(counts, default=0.0) < 1 else 0.01  # s, ms
    for time in sorted(counts):
        if groups and same_time(groups[-1][0], time, rounding):
            groups[-1].append(time)
        else:
            groups.append([time])
    return {time: max(group, key=lambda t: (counts[t], -t)) for group in groups for time in group}
