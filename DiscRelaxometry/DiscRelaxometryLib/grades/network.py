"""The grading network: cumulative logistic regressions on a disc's features."""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: Findings beside the grade, each present or absent: column of a table of gradings -> description.
FINDINGS = {"narrowing": "disc narrowing", "bulging": "disc bulging", "modic": "Modic changes of any type",
            "endplates": "changes of the upper or lower endplate"}
GRADES = 5
ROMAN = ("I", "II", "III", "IV", "V")


@dataclass(frozen=True)
class GradeConfig:
    """Shape of the network.

    Attributes
    ----------
    features : tuple of str
        Names of the input, in order.
    findings : tuple of str
        Findings beside the grade, of :data:`FINDINGS`.
    farthest : float
        Distance from the training set beyond which a disc is not judged.
    """

    features: tuple[str, ...]
    findings: tuple[str, ...] = tuple(FINDINGS)
    farthest: float = float("inf")

    def to_dict(self) -> dict:
        """Return a JSON-writable dict."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict) -> GradeConfig:
        """Return the configuration written by :meth:`to_dict`."""
        return cls(tuple(values["features"]), tuple(values["findings"]), float(values["farthest"]))


def build_grader(config: GradeConfig):
    """Return the network as a ``torch.nn.Module``: features (n, f) -> probabilities and distance (n, 5 + findings + 1).

    A missing feature (NaN) counts as the training set's mean. The grade is ordinal: one regression per threshold gives
    the probability of a higher grade, none higher than that of the threshold below. The distance is that of Mahalanobis
    from the training set's mean, over the root of the number of features.
    """
    import torch
    from torch import nn

    class Grader(nn.Module):
        """Standardization and one regression per threshold and finding."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(len(config.features)))
            self.register_buffer("scale", torch.ones(len(config.features)))
            self.register_buffer("whiten", torch.eye(len(config.features)))
            self.linear = nn.Linear(len(config.features), GRADES - 1 + len(config.findings))

        def forward(self, features):
            """Return probabilities of the grades I to V and of each finding, and the distance."""
            z = (features - self.mean) / self.scale
            z = torch.where(torch.isnan(z), torch.zeros_like(z), z)
            p = torch.sigmoid(self.linear(z))
            distance = (z @ self.whiten).square().mean(1, keepdim=True).sqrt()
            higher = [p[:, :1]]
            for n in range(1, GRADES - 1):
                higher.append(torch.minimum(higher[-1], p[:, n:n + 1]))
            steps = [1 - higher[0], *(a - b for a, b in zip(higher, higher[1:])), higher[-1]]
            return torch.cat([*steps, p[:, GRADES - 1:], distance], 1)

    return Grader()
