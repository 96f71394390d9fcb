"""What an image is: its component, whether it was acquired or computed, its kind of echo, and its layout.

DICOM headers, JSON sidecars of converters and NRRD key/value pairs share their keywords, so one judgement serves all
three. Words are those of DICOM PS3.3 C.8.13.3.1 and of vendors' conformance statements. File names are judged in
``names.py``.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..errors import EchoSeriesError
from .times import number

#: Keywords that say what an image is; readers have to keep them.
KEYWORDS = ("ImageType", "FrameType", "ComplexImageComponent", "ScanningSequence", "EchoPulseSequence", "SequenceName",
            "PulseSequenceName", "Units")
#: Names under which readers of DICOM hand on vendors' private marks.
GE_COMPONENT, PHILIPS_COMPONENT, SIEMENS_TILES = "GEImageComponent", "PhilipsImageComponent", "SiemensTiles"
_COMPONENTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary", "MAG": "magnitude", "IMAG": "imaginary",
               "MAGNITUDE": "magnitude", "PHASE": "phase", "PHASE MAP": "phase", "REAL": "real",
               "IMAGINARY": "imaginary", "MIXED": "mixed complex"}
_COMPUTED = {"SUM", "ADDITION", "SUBTRACTION", "MULTIPLICATION", "DIVISION", "MEAN", "AVERAGE", "MAXIMUM", "MINIMUM",
             "STD_DEVIATION", "QUANTITY", "MIP", "MINIP", "MPR", "CSA MPR", "PROJECTION IMAGE"}
_QUANTITY = re.compile(r"(T0|T1|T2|T1RHO|RHO|R1|R2|R1RHO|B0|B1|M0)([_ ]?(\*|STAR))?")
_TILED = {"MOSAIC", "VFRAME", "GRID"}
#: Said where a user gives the times of such a series himself.
GRADIENT_NOTE = "The images are gradient echoes: without a T2 preparation their decay is T2*."
_PREPARED = re.compile(r"prep|mapss", re.I)
_GRADIENT_NAME = re.compile(r"[*_]*(ep)?(fl|fid|tfl|tfi|fi|me?gre|gre)(\d|_|$)", re.I)


def words(header: Mapping) -> list[str]:
    """Return the values of a frame's type, or else the image's, in capitals."""
    value = header.get("FrameType") or header.get("ImageType") or ()
    return [str(w).strip().upper() for w in (re.split(r"\\", value) if isinstance(value, str) else value)]


def component(header: Mapping) -> str:
    """Return ``magnitude``, ``phase``, ``real``, ``imaginary`` or ``mixed complex``; what says nothing is magnitude."""
    found = [_COMPONENTS.get(re.sub(r"^([MPRI])_\w+$", r"\1", w), "magnitude") for w in words(header)[2:]]
    for keyword in ("ComplexImageComponent", PHILIPS_COMPONENT):
        found.append(_COMPONENTS.get(str(header.get(keyword) or "").strip().upper(), "magnitude"))
    # Without its creator, which some tools remove, GE's mark keeps its number.
    ge = number(header.get(GE_COMPONENT, header.get("0043102F"))) or 0.0
    found.append({1.0: "phase", 2.0: "real", 3.0: "imaginary"}.get(ge, "magnitude"))
    if str(header.get("Units") or "").lower() in ("rad", "rad/s", "hz"):
        found.append("phase")
    return next((f for f in found if f != "magnitude"), "magnitude")


def left_out(header: Mapping) -> str:
    """Say which kind of image is no echo whatever else the series holds, or return an empty string."""
    found, types = component(header), words(header)
    if found != "magnitude":
        return found
    if "LOCALIZER" in types[2:]:
        return "localizer"
    # Value 3 of an enhanced image may be its contrast, T2; later values name what was computed.
    if any(w in _COMPUTED or w.endswith("MAP") for w in types[2:]) or any(_QUANTITY.fullmatch(w) for w in types[3:]):
        return "computed"
    return ""


def is_derived(header: Mapping) -> bool:
    """Tell whether an image calls itself derived; some scanners say so of every image."""
    return words(header)[:1] == ["DERIVED"]


def is_tiled(header: Mapping) -> bool:
    """Tell whether one image holds several slices as tiles, as Siemens mosaics and UIH grids do."""
    return bool(_TILED & set(words(header)[2:])) or (number(header.get(SIEMENS_TILES)) or 0) > 1


def is_gradient_echo(header: Mapping) -> bool:
    """Tell whether echoes are formed by gradients alone, so that they decay with T2*."""
    value = header.get("ScanningSequence") or ()
    sequence = set(re.split(r"[^A-Z]+", (value if isinstance(value, str) else " ".join(map(str, value))).upper()))
    pulses = str(header.get("EchoPulseSequence") or "").strip().upper()
    if "SE" in sequence or pulses in ("SPIN", "BOTH"):
        return False
    if "GR" in sequence or pulses == "GRADIENT":
        return True
    return any(_GRADIENT_NAME.match(str(header.get(k) or "")) for k in ("SequenceName", "PulseSequenceName"))


def require_spin_echoes(header: Mapping, name: str, texts: str) -> None:
    """Raise EchoSeriesError if a T2 series holds gradient echoes; a T2 preparation may be read out by them."""
    if _PREPARED.search(texts):
        return
    if is_gradient_echo(header) or re.search(r"t2[\s_-]?(\*|star)", texts, re.I):
        raise EchoSeriesError(f"{name} holds gradient echoes, which measure T2*, not T2: use spin echoes. For T2-"
                              "prepared images give kind=\"T2\" and the preparation times as times_ms.", anchor="kind")


def only_echoes(items: Sequence, header_of: Callable, named: Callable = lambda item: "") -> tuple[list, list[str]]:
    """Return the images or files (with a ``name``) that may be echoes, and notes that count and name the others.

    Derived images count only where a scanner calls all of a series so. `header_of` turns an item to what its header or
    sidecar says, `named` to what its file name says it is instead of an echo.
    """
    left, kept = defaultdict(list), []
    for item in items:
        reason = named(item) or left_out(header_of(item))
        (left[reason] if reason else kept).append(item)
    derived = [i for i in kept if is_derived(header_of(i))]
    if derived and len(derived) < len(kept):
        left["derived"] = derived
        kept = [i for i in kept if not is_derived(header_of(i))]
    notes = [left_out_note(group, f"{what} images") for what, group in left.items()]
    if derived and "derived" not in left:
        notes.append("All images call themselves derived (ImageType); they were read as echoes.")
    return kept, notes


def without_zero_echo_time(items: Sequence, header_of: Callable, texts: str) -> tuple[list, list[str]]:
    """Return the images or files of a T2 series that have an echo time, and a note; consoles give their maps none."""
    def time(item):
        header = header_of(item)
        found = number(header.get("EffectiveEchoTime"))
        return number(header.get("EchoTime")) if found is None else found

    zero = [i for i in items if time(i) == 0]
    if not zero or len(zero) == len(items) or _PREPARED.search(texts):
        return list(items), []
    return [i for i in items if time(i) != 0], [left_out_note(zero, "their echo time is 0")]


def left_out_note(left: Sequence, why: str) -> str:
    """Count images or files that are left out, and name the first of them."""
    found = list(dict.fromkeys(i.name for i in left))
    listed = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return f"{len(left)} image(s) or file(s) left out, {why}: {listed}."
