"""Steps that resume: what is due, who works on it, and what was done."""

from . import endings
from .context import Context, GroupContext, PersonContext
from .lock import exclusive, held
from .observed import observations, pooled_disc_of
from .provenance import Record, file_hash, fingerprints, outputs_intact, read_record, step_key, versions, write_record
from .results import (
    JOINED,
    MAP_STEPS,
    SENSITIVITY,
    anatomical_image,
    context_atlas,
    context_atlas_of,
    disc_labels,
    echo_transform,
    group_rows,
    load_series,
    maps_in_atlas,
    of_person,
    participants_of,
    person_maps,
    read_rows,
    shipped_atlas,
    uses_existing,
    with_estimates,
)
from .reviewed import (
    ReviewedDisc,
    decision_rows,
    looked_at,
    outlined_image,
    review_records,
    review_times,
    reviewed_discs,
    serious_flags,
    step_record,
    undecided,
)
from .rows import filled_rows
from .runner import RunSpec, StudyRun, incomplete, person_records, plan_stages, read_before, run_group, run_stages
from .steps import Outcome, Stage, Step
from .workers import Cluster, Workers

__all__ = [
    "anatomical_image", "Cluster", "Context", "context_atlas", "context_atlas_of", "decision_rows", "disc_labels",
    "echo_transform", "endings", "exclusive", "file_hash", "filled_rows", "fingerprints", "group_rows", "GroupContext",
    "held", "incomplete", "JOINED", "load_series", "looked_at", "MAP_STEPS", "maps_in_atlas", "observations",
    "of_person", "Outcome", "outlined_image", "outputs_intact", "participants_of", "person_maps", "person_records",
    "PersonContext", "plan_stages", "pooled_disc_of", "read_before", "read_record", "read_rows", "Record",
    "review_records", "review_times", "reviewed_discs", "ReviewedDisc", "run_group", "run_stages", "RunSpec",
    "SENSITIVITY", "serious_flags", "shipped_atlas", "Stage", "Step", "step_key", "step_record", "StudyRun",
    "undecided", "uses_existing", "versions", "with_estimates", "Workers", "write_record",
]
