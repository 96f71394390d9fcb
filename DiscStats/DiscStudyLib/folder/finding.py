"""What validation finds: severity, file, person, problem, remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong, or worth knowing, in a study.

    Attributes
    ----------
    severity : str
        ``error`` (cannot be processed), ``warning`` (will be processed, look at it), or ``note``.
    file : str
        Relative to the study; empty for the study as a whole.
    person : str
        ``sub-XX``, or empty.
    problem, remedy : str
        One sentence each.
    """

    severity: str
    file: str
    person: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = " ".join(v for v in (self.person, self.file and f"'{self.file}'") if v) or "study"
        return f"{self.severity}: {where}: {self.problem} {self.remedy}"
