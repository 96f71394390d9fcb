"""Which people of a study a shipped network was trained on, by the manifest beside its weights."""

import json

from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.resources import resource_path

from .study import Study


def trained_on(study: Study, network: str = "lumbar-discs") -> set[str]:
    """Return the ids of the study's people that are in a network's training set.

    Only the SPIDER cohort can overlap: the study's description must name SPIDER as its source, so that a person of
    another study who happens to have the same id is not meant.
    """
    source = json.dumps(study.description)
    if "SPIDER" not in source.upper():
        return set()
    try:
        path = resource_path(f"Weights/{network}.json")
    except DiscRelaxometryError:
        return set()
    return _people(json.loads(path.read_text(encoding="utf-8"))) & {p.id for p in study.people}


def _people(value, below_training: bool = False) -> set[str]:
    """Collect ids below keys that speak of training, whatever the manifest's nesting."""
    if isinstance(value, dict):
        parts = [_people(v, below_training or "train" in str(k).lower()) for k, v in value.items()
                 if not str(k).lower().startswith(("valid", "held", "test"))]
        return set().union(*parts) if parts else set()
    if isinstance(value, list):
        parts = [_people(v, below_training) for v in value]
        return set().union(*parts) if parts else set()
    return {value} if below_training and isinstance(value, str) and value.startswith("sub-") else set()
