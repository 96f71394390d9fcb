"""Steps that resume: what is due, who works on it, and what was done."""

from .provenance import file_hash, versions
from .results import (
    JOINED,
    SENSITIVITY,
    anatomical_image,
    context_atlas,
    first_term,
    load_series,
    maps_in_atlas,
    person_maps,
    read_rows,
    shipped_atlas,
    uses_existing,
)
from .runner import (
    PIPELINE,
    RunSpec,
    Stage,
    StudyRun,
    last_settings,
    read_records,
    report_only,
    run_group,
    run_person,
    run_study,
)
from .steps import Context, Outcome, Step

__all__ = [
    "anatomical_image", "Context", "context_atlas", "file_hash", "first_term", "JOINED", "last_settings",
    "load_series", "maps_in_atlas", "Outcome", "person_maps", "PIPELINE", "read_records",
    "read_rows", "report_only", "run_group", "run_person", "run_study", "RunSpec", "SENSITIVITY", "shipped_atlas",
    "Stage", "Step", "StudyRun", "uses_existing", "versions",
]
