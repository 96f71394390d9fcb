"""The grading network: regressions and perceptrons on a disc's features, and small convolutions on its picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .views import PICTURE

#: Findings beside the grade, each present or absent: column of a table of gradings -> description.
FINDINGS = {"narrowing": "disc narrowing", "bulging": "disc bulging", "modic": "Modic changes of any type",
            "endplates": "changes of the upper or lower endplate"}
GRADES = 5
ROMAN = ("I", "II", "III", "IV", "V")
#: Perceptrons see features up to this many standard deviations.
CLIP = 3.0


@dataclass(frozen=True)
class GradeConfig:
    """Shape of the network."""

    #: Names of the input, in order.
    features: tuple[str, ...]
    #: Findings beside the grade, of :data:`FINDINGS`.
    findings: tuple[str, ...] = tuple(FINDINGS)
    #: Distance from the training set beyond which a disc is not judged.
    farthest: float = float("inf")
    #: Perceptrons, and convolutional networks, whose log-odds are averaged; 0 for regressions alone.
    members: int = 4

    def to_dict(self) -> dict:
        """Return a JSON-writable dict."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict) -> GradeConfig:
        """Return the configuration written by :meth:`to_dict`."""
        return cls(tuple(values["features"]), tuple(values["findings"]), float(values["farthest"]),
                   int(values["members"]))


def build_grader(config: GradeConfig):
    """Return the network as a ``torch.nn.Module``.

    It maps features (n, f) and pictures ``(n, *PICTURE)`` to probabilities and distance (n, 5 + findings + 1). The
    log-odds of a higher grade, per threshold, and of each finding are half those of the picture, a quarter those of the
    regressions, and a quarter those of the perceptrons, over temperatures. No threshold is likelier than the one below.
    A missing feature (NaN) counts as the training set's mean. The distance is that of Mahalanobis from that mean, over
    the root of the number of features.
    """
    import torch
    from torch import nn

    count, outputs = len(config.features), GRADES - 1 + len(config.findings)

    class Eye(nn.Module):
        """Convolutions on a picture (Simonyan and Zisserman 2015, in small), and its mean and largest responses."""

        def __init__(self):
            super().__init__()
            layers, width = [], PICTURE[0]
            for wider, stride in ((16, 2), (32, 2), (48, 2), (48, 1), (64, 2)):
                layers += [nn.Conv2d(width, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
                width = wider
            self.body, self.head = nn.Sequential(*layers), nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * width, outputs))

        def forward(self, picture):
            seen = self.body(picture)
            return self.head(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))

    class Grader(nn.Module):
        """Standardization, and the members."""

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(count))
            self.register_buffer("scale", torch.ones(count))
            self.register_buffer("whiten", torch.eye(count))
            self.register_buffer("temperature", torch.ones(outputs))
            self.linear = nn.Linear(count, outputs)
            self.readers = nn.ModuleList(
                nn.Sequential(nn.Linear(count, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, outputs))
                for _ in range(config.members))
            self.eyes = nn.ModuleList(Eye() for _ in range(config.members))

        def standardize(self, features):
            """Return features in standard deviations from the training set's mean, 0 where missing."""
            z = (features - self.mean) / self.scale
            return torch.where(torch.isnan(z), torch.zeros_like(z), z)

        def odds(self, features, pictures):
            """Return the members' log-odds, over no temperature."""
            z = self.standardize(features)
            if not config.members:
                return self.linear(z)
            near, turned = z.clamp(-CLIP, CLIP), pictures.flip(2)
            read = sum(reader(near) for reader in self.readers) / config.members
            seen = sum(eye(pictures) + eye(turned) for eye in self.eyes) / (2 * config.members)
            return (self.linear(z) + read) / 4 + seen / 2

        def forward(self, features, pictures):
            """Return probabilities of the grades I to V and of each finding, and the distance."""
            p = torch.sigmoid(self.odds(features, pictures) / self.temperature)
            distance = (self.standardize(features) @ self.whiten).square().mean(1, keepdim=True).sqrt()
            higher = [p[:, :1]]
            for n in range(1, GRADES - 1):
                higher.append(torch.minimum(higher[-1], p[:, n:n + 1]))
            steps = [1 - higher[0], *(a - b for a, b in zip(higher, higher[1:])), higher[-1]]
            return torch.cat([*steps, p[:, GRADES - 1:], distance], 1)

    return Grader()
