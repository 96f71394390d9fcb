"""What validation finds: severity, file, person, problem, remedy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something wrong, or worth knowing, in a study."""

    #: ``error`` (cannot be processed), ``warning`` (will be processed, look at it), or ``note``.
    severity: str
    #: Relative to the study; empty for the study as a whole.
    file: str
    #: ``sub-XX``, or empty.
    person: str
    #: One sentence each.
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = " ".join(v for v in (self.person, self.file and f"'{self.file}'") if v) or "study"
        return f"{self.severity}: {where}: {self.problem} {self.remedy}"
