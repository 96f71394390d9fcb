"""What a step writes goes with it when it fails; what an earlier step must have written is missed by name."""

import pytest

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib.engine import Context, GroupContext, PersonContext, Record, Step
from DiscStudyLib.engine.steps import execute, plan
from DiscStudyLib.folder import Person, Settings, Study

TABLE = Table("sizes", [Column("size", "mm", "Height")], [{"size": 8.5}])


@pytest.mark.parametrize("make", [lambda study: GroupContext(study, Settings(), {}),
                                  lambda study: PersonContext(study, Settings(), {}, Person("sub-01"))])
def test_table_and_sidecar_are_outputs_and_go_when_the_step_fails(tmp_path, make):
    def run(context, fails):
        context.write(TABLE, "sizes.tsv")
        if fails:
            raise StudyError("Too small.")

    for fails in (True, False):
        context = make(Study(tmp_path))
        step = Step("sizes", f"1{fails}", lambda c, fails=fails: run(c, fails))
        (done,) = execute(plan([step], context))
        place = context.study.output / ("sub-01/anat/sub-01_sizes" if context.name else "group/sizes")
        left = {p.suffix for p in place.parent.glob(f"{place.name}.*")}
        assert (done.state, left) == (("failed", set()) if fails else ("done", {".tsv", ".json"})), done.message


def test_results_are_found_by_step_and_ending(tmp_path):
    study = Study(tmp_path)
    record = Record("segment", "sub-01", "k", outputs={"derivatives/a_dseg.nii.gz": {}})
    group = GroupContext(study, Settings(), {}, {"sub-01": {"segment": record}, "sub-02": {}})
    found = [group.of(p).output_of("segment", "_dseg.nii.gz") for p in ("sub-01", "sub-02")]
    assert found == [tmp_path / "derivatives" / "a_dseg.nii.gz", None]
    assert group.of("sub-01").needed("segment", "_dseg.nii.gz") == found[0]
    with pytest.raises(StudyError, match="segment has no result '_T2.nii.gz'"):
        group.of("sub-01").needed("segment", "_T2.nii.gz")
    with pytest.raises(StudyError, match="atlas has no result"):
        Context(study, Settings(), {}).needed("atlas", ".tsv")
