"""Who takes part in a simulated cohort: age, sex, grades, relaxation times, muscle and disability (SIMULATED).

Tissue values, correlations and their sources are in ``Docs/method/virtual-cohort.md``. Grades of one person's discs
share a person effect, and disability depends on the T1rho of the lower discs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.labels import LUMBAR_LEVELS

#: Mean relaxation time in ms of the nucleus and the annulus for Pfirrmann grades I to V.
NUCLEUS = {"T1rho": (220.0, 145.0, 100.0, 70.0, 65.0), "T2": (210.0, 129.0, 84.0, 51.0, 45.0)}
ANNULUS = {"T1rho": (75.0, 70.0, 66.0, 61.0, 57.0), "T2": (58.0, 52.0, 47.0, 38.0, 37.0)}
#: Standard deviation of log T of the nucleus: between people, and between the discs of one person.
NUCLEUS_SPREAD = (0.09, 0.11)
ANNULUS_SPREAD = (0.05, 0.06)
#: All discs that are simulated; the one above the lumbar five keeps the field of view realistic.
LEVELS = ("T12-L1", *LUMBAR_LEVELS)
# Lower discs degenerate earlier; a difference of one is one grade.
_LEVEL_SHIFT = {"T12-L1": -0.8, "L1-L2": -0.6, "L2-L3": -0.3, "L3-L4": 0.0, "L4-L5": 0.45, "L5-S1": 0.4}
_PERSON_SD, _DISC_SD, _PER_DECADE = 0.65, 0.55, 0.35


@dataclass(frozen=True)
class VirtualPerson:
    """One simulated person."""

    #: ``sub-XX``.
    id: str
    #: 0 or 1: which of the study's sites scanned the person.
    site: int
    #: Years; ``F`` or ``M``.
    age: float
    sex: str
    #: Share of fat in the paraspinal muscle, percent.
    fat_fraction: float
    #: Oswestry disability index, 0 to 60, in steps of 2.
    odi: int
    #: Continuous degeneration of each disc: 1 to 5, whose rounding is the grade.
    severity: Mapping[str, float]
    #: ``{(kind, level): ms}`` for kind ``T1rho`` and ``T2``.
    nucleus: Mapping[tuple[str, str], float]
    annulus: Mapping[tuple[str, str], float]
    #: Of everything random in the person's anatomy and images.
    seed: int
    #: What the participants table says where that is not the truth: a null cohort's shuffled variables.
    listed: Mapping[str, object] = field(default_factory=dict)

    def grade(self, level: str) -> int:
        """Pfirrmann grade, 1 to 5, of a disc."""
        return min(max(round(self.severity[level]), 1), 5)

    @property
    def variables(self) -> dict:
        """Columns of the participants table that may be related to the images."""
        grades = {f"pfirrmann_{level.replace('-', '')}": self.grade(level) for level in LUMBAR_LEVELS}
        return {"odi": self.odi, "odi_group": "severe" if self.odi > 40 else "minimal_moderate",
                "fat_fraction": round(self.fat_fraction, 1), **grades, **self.listed}


def draw_people(count: int, seed: int, null: bool = False, sites: int = 1,
                real: Sequence[Mapping] = ()) -> list[VirtualPerson]:
    """Draw a cohort; the same seed and settings give the same one. StudyError if the count is not positive.

    With `null`, disability, muscle and grades are shuffled between people in the participants table, so that they have
    nothing to do with the images. Of two sites, every third person comes from the second. People with a real anatomy
    state ``id`` (source), ``age``, ``sex`` and ``grades`` {level: 1..5}, used instead of drawn ones.
    """
    if count < 1:
        raise StudyError(f"A simulated cohort needs at least one person, not {count}.")
    rng = np.random.default_rng(seed)
    width = max(2, len(str(count)))
    people = []
    for n in range(count):
        site = 1 if sites > 1 and n % 3 == 2 else 0
        given = real[n] if n < len(real) else {}
        people.append(_draw_person(f"sub-{n + 1:0{width}d}", site, rng, given))
    people = _add_disability(people, rng)
    if null:
        people = [replace(p, listed=people[n].variables) for p, n in zip(people, rng.permutation(len(people)))]
    return people


def _draw_person(id: str, site: int, rng: np.random.Generator, given: Mapping) -> VirtualPerson:
    sex = given.get("sex") or ("F" if rng.random() < 0.52 else "M")
    age = given.get("age") or float(np.clip(np.round(rng.normal(46, 13)), 20, 78))
    shared = rng.normal(0, _PERSON_SD) + _PER_DECADE * (age - 46) / 10
    severity = {}
    for level in LEVELS:
        drawn = 2.75 + shared + _LEVEL_SHIFT[level] + rng.normal(0, _DISC_SD)
        grade = given.get("grades", {}).get(level)
        # A given grade keeps the drawn value's place within the grade.
        severity[level] = float(np.clip(drawn if grade is None else grade + 0.45 * np.tanh(drawn - grade), 0.6, 5.4))
    nucleus, annulus = {}, {}
    person_n, person_a = rng.normal(0, NUCLEUS_SPREAD[0]), rng.normal(0, ANNULUS_SPREAD[0])
    for level in LEVELS:
        # One disc's T1rho and T2 deviate together, mostly.
        both_n, both_a = rng.normal(0, 1), rng.normal(0, 1)
        for kind in KINDS:
            own_n, own_a = rng.normal(0, 1), rng.normal(0, 1)
            log_n = person_n + NUCLEUS_SPREAD[1] * (0.9 * both_n + 0.44 * own_n)
            log_a = person_a + ANNULUS_SPREAD[1] * (0.9 * both_a + 0.44 * own_a)
            nucleus[kind, level] = float(mean_value(NUCLEUS[kind], severity[level]) * np.exp(log_n))
            annulus[kind, level] = float(mean_value(ANNULUS[kind], severity[level]) * np.exp(log_a))
        for values in (nucleus, annulus):
            # Relaxation in the rotating frame is never faster than without the lock.
            values["T1rho", level] = max(values["T1rho", level], 1.02 * values["T2", level])
    base = 22.5 if sex == "F" else 14.4
    fat = float(np.clip(base + 2.5 * (age - 46) / 10 + 3 * shared + rng.normal(0, 4), 3, 60))
    return VirtualPerson(id, site, age, sex, fat, 0, severity, nucleus, annulus, int(rng.integers(2**31)))


def mean_value(table: Sequence[float], severity: float | np.ndarray) -> np.ndarray:
    """Interpolate a table of grades I to V at a continuous severity (1 to 5)."""
    return np.exp(np.interp(severity, np.arange(1, 6), np.log(table)))


def _add_disability(people: list[VirtualPerson], rng: np.random.Generator) -> list[VirtualPerson]:
    """Draw disability so that the T1rho of the two lowest discs explains about half of its variance (R2 0.56)."""
    logs = np.array([np.mean([np.log(p.nucleus["T1rho", level]) for level in ("L4-L5", "L5-S1")]) for p in people])
    # Moments of the population, not of this draw, so that a person does not depend on who else takes part.
    z = (logs - np.log(97.3)) / 0.296
    index = 31 - 10.8 * z + rng.normal(0, 9.4, len(people))
    return [replace(p, odi=int(2 * np.round(np.clip(value, 2, 60) / 2))) for p, value in zip(people, index)]
