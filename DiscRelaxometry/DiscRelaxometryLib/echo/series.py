"""Echo series: images of one geometry with their spin-lock or echo times in ms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from ..errors import EchoSeriesError
from ..image import Geometry, Image
from .times import same_time

#: Quantity that a series measures: T1rho has spin-lock times, T2 has echo (preparation) times.
KINDS = ("T1rho", "T2")


@dataclass(frozen=True)
class EchoSeries:
    """Images of one geometry, sorted by time.

    Raises
    ------
    EchoSeriesError
        If there are fewer than two echoes, if times and echoes differ in number, if a time is negative, not finite
        or repeated, or if the arrays do not fit the geometry.
    """

    #: float32, shape (n, k, j, i). Signal in arbitrary units; NaN and Inf are kept, the fit gives such voxels a status
    #: code.
    echoes: np.ndarray
    #: float64, shape (n,). Spin-lock times (T1rho) or echo times (T2) in ms, increasing; 0 is a valid spin-lock time.
    times_ms: np.ndarray
    #: ``T1rho`` or ``T2``.
    kind: str
    #: Grid shared by all echoes.
    geometry: Geometry
    #: Where the series and its times came from; ``meta["notes"]`` lists what a user should know (reordering, unit
    #: conversion, saturation). It never holds a patient's identity.
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise EchoSeriesError(f"The series' kind is '{self.kind}'; it must be T1rho or T2.", anchor="kind")
        echoes = np.asarray(self.echoes)
        if echoes.ndim != 4 or echoes.shape[1:] != self.geometry.shape:
            raise EchoSeriesError(f"Echoes of shape {echoes.shape} do not fit the grid {self.geometry.shape}: "
                                  "an array (echo, k, j, i) is needed.")
        times = check_times(self.times_ms, len(echoes), self.kind)
        order = np.argsort(times, kind="stable")
        meta = {**self.meta, "notes": list(self.meta.get("notes", []))}
        if np.any(order != np.arange(len(order))):
            meta["notes"].append("Echoes were sorted by time; they came in the order "
                                 + ", ".join(f"{t:g}" for t in times) + " ms.")
            echoes, times = echoes[order], times[order]
        object.__setattr__(self, "echoes", np.ascontiguousarray(echoes, dtype=np.float32))
        object.__setattr__(self, "times_ms", times)
        object.__setattr__(self, "meta", meta)

    def __len__(self) -> int:
        return len(self.times_ms)

    @property
    def notes(self) -> list[str]:
        """What a user should know about how the series was read."""
        return self.meta["notes"]

    def echo(self, index: int) -> Image:
        """Return one echo as an image; its time is in ``meta["time_ms"]``."""
        return Image(self.echoes[index], self.geometry, {"time_ms": float(self.times_ms[index]), "kind": self.kind})

    def select(self, indices: Sequence[int]) -> EchoSeries:
        """Return the series with the named echoes only (0 is the shortest time)."""
        indices = list(indices)
        return replace(self, echoes=self.echoes[indices], times_ms=self.times_ms[indices])

    def with_note(self, text: str, **meta) -> EchoSeries:
        """Return the series with one more note, and further metadata."""
        return replace(self, meta={**self.meta, **meta, "notes": [*self.notes, text]})


def check_times(times_ms, count: int, kind: str) -> np.ndarray:
    """Return times as float64 (n,), or raise EchoSeriesError that says what is wrong with them."""
    what = "spin-lock times" if kind == "T1rho" else "echo times"
    try:
        times = np.array(times_ms, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise EchoSeriesError(f"The {what} {times_ms!r} are not numbers: give them in ms.", anchor="times") from None
    listed = ", ".join(f"{t:g}" for t in times)
    if len(times) != count:
        raise EchoSeriesError(f"There are {count} echoes but {len(times)} {what} ({listed} ms): give one for each.",
                              anchor="times")
    if count < 2:
        raise EchoSeriesError(f"A map needs at least two echoes; this series has {count}.", anchor="too-few-echoes")
    if not np.all(np.isfinite(times)) or times.min() < 0:
        raise EchoSeriesError(f"The {what} {listed} ms are not all finite and positive: correct them.", anchor="times")
    if times.max() < 1:
        raise EchoSeriesError(f"The {what} {listed} ms end below 1 ms: give them in ms, not in s.", anchor="times")
    if any(same_time(a, b) for a, b in pairwise(sorted(times))):
        raise EchoSeriesError(f"The {what} {listed} ms contain a time twice: correct the times, or remove the "
                              "duplicate echo.", anchor="times")
    return times
