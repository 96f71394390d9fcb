"""Lumbar discs of many people in one space: template, registration by shape, maps in atlas space."""

from .atlas import Atlas, load_atlas, save_atlas
from .cohort import CohortRegistration, checkerboard, load_cohort, register_cohort
from .pooled import PooledDisc, load_pooled, pooled_disc, save_pooled
from .registration import (
    Backend,
    PersonRegistration,
    load_registration,
    register_discs,
    register_people,
    register_person,
    save_registration,
)
from .template import build_template
from .transforms import DisplacementField, LevelTransform, read_transform, write_transform
from .warping import sample, warp_from_atlas, warp_to_atlas

__all__ = [
    "Atlas", "Backend", "CohortRegistration", "DisplacementField", "LevelTransform", "PersonRegistration",
    "PooledDisc", "build_template", "checkerboard", "load_atlas", "load_cohort", "load_pooled",
    "load_registration", "pooled_disc", "read_transform", "register_cohort", "register_discs", "register_people",
    "register_person", "sample", "save_atlas", "save_pooled", "save_registration", "warp_from_atlas", "warp_to_atlas",
    "write_transform",
]
