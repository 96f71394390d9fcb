"""JSON sidecars of images: where they stand, and the times that they give."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import EchoSeriesError
from .names import series_name, stem

#: Sidecar keys of the times, most specific first; BIDS gives them in s.
_KEYS = {"T1rho": ("SpinLockTime", "SpinLockTimes", "TSL", "EchoTime"),
         "T2": ("EchoTime", "EchoTimes", "T2PreparationTime", "PreparationTime", "EffectiveEchoTime")}


def sidecar_of(file: Path) -> Path:
    """Return where the JSON sidecar of an image is: of its own name, or shared by all echoes of its series."""
    own, shared = (file.with_name(name + ".json") for name in (stem(file), series_name(file)))
    return own if own.exists() or not shared.exists() else shared


def read_sidecar(file: Path) -> dict:
    """Return the content of an image's sidecar, empty where there is none; EchoSeriesError if it cannot be read."""
    path = sidecar_of(file)
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict:
    """Return a JSON file's object; empty for a list or a number.

    Raises
    ------
    EchoSeriesError
        If it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except (KeyError, OSError, ValueError, RecursionError) as error:
        twice = f" (it has the key {error} twice)" if isinstance(error, KeyError) else ""
        raise EchoSeriesError(f"The sidecar '{path.name}' is no valid JSON{twice}: correct or remove it.",
                              anchor="sidecar") from None
    return content if isinstance(content, dict) else {}


def _each_once(pairs: list[tuple]) -> dict:
    """Return an object; of a key that stands twice nobody knows which value is meant."""
    found: dict = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise KeyError(key)
        found[key] = value
    return found


def sidecar_values(content: dict, kind: str, count: int | None = None) -> tuple[list[float], str | None, str] | None:
    """Return times, unit stated by the key's ending (``_ms``) and key name of a sidecar, or None.

    Parameters
    ----------
    content : dict
    kind : {"T1rho", "T2"}
    count : int, optional
        Number of times wanted; a key that gives so many is preferred to one that gives others.

    Raises
    ------
    EchoSeriesError
        If the times are no numbers.
    """
    found = []
    for key in (k + ending for k in _KEYS[kind] for ending in ("", "_ms", "_s")):
        value = content.get(key)
        if value is None:
            continue
        try:
            numbers = [_time(v) for v in (value if isinstance(value, list) else [value])]
        except (TypeError, ValueError):
            raise EchoSeriesError(f"The sidecar's {key} is not a number or a list of numbers: {value!r}.",
                                  anchor="sidecar") from None
        found.append((numbers, {"_ms": "ms", "_s": "s"}.get(key[key.rfind("_"):] if "_" in key else ""), key))
    return next((f for f in found if len(f[0]) == count), found[0] if found else None)


def _time(value) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def stated_times(files: Sequence[Path], kind: str, count: int) -> tuple[list[float], str | None, str] | None:
    """Return the times that sidecars give a series, their unit as the key states it, and the key; None without any.

    Parameters
    ----------
    files : sequence of Path
        Images of the series, in order.
    kind : {"T1rho", "T2"}
    count : int
        Volumes in all files together.

    Raises
    ------
    EchoSeriesError
        If some files have times and others have none, keys differ, or a sidecar cannot be read.
    """
    places = list(dict.fromkeys(map(sidecar_of, files)))
    each = count if len(places) == 1 else None
    found = [sidecar_values(read_json(p), kind, each) if p.exists() else None for p in places]
    stated = [f for f in found if f]
    if not stated:
        return None
    if len(stated) < len(found):
        odd = next(f for f in files if sidecar_of(f) == places[found.index(None)])
        raise EchoSeriesError(f"The sidecar of '{odd.name}' is missing or holds no time: add it, or give times_ms.",
                              anchor="sidecar")
    if len({f[1:] for f in stated}) > 1:
        raise EchoSeriesError(f"The sidecars give the times as {' and '.join(sorted({f[2] for f in stated}))}: use one "
                              "key for all echoes.", anchor="sidecar")
    lists = [f[0] for f in stated]
    # Some converters repeat the whole list in the sidecar of each echo.
    repeated = len(lists) > 1 and len(lists[0]) == count and all(v == lists[0] for v in lists)
    return lists[0] if repeated else [t for times in lists for t in times], *stated[0][1:]
