"""Flags of a review come from what the segmentation says of each disc, where it says so."""

from dataclasses import replace

import pytest
from support.review_study import LEVELS, make_reviewable, outlines

from DiscRelaxometryLib.image import write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import Study
from DiscStudyLib.after import export_people
from DiscStudyLib.engine import Record, endings, fingerprints, review_records, reviewed_discs, write_record
from DiscStudyLib.folder import Settings


def test_flags_are_what_the_segmentation_says_of_each_analyzed_disc(tmp_path):
    study = make_reviewable(tmp_path / "s", 1, {"sub-01": (["The volume has only 1 sagittal slice(s)."], {})})
    records = review_records(Study(study), "sub-01")
    assert all(d.flags for d in reviewed_discs(Settings(), "sub-01", records, {}))
    facts = [{"name": LEVELS[0], "why": ""}, {"name": LEVELS[1], "why": "the network is unsure of its outline"},
             {"name": "T12-L1", "why": "joined from separate parts"}]
    segment = replace(records["segment"], facts=records["segment"].facts | {"discs": facts})
    found = {d.level: d.flags for d in reviewed_discs(Settings(), "sub-01", records | {"segment": segment}, {})}
    assert found.pop(LEVELS[1]) == ("the network is unsure of its outline",)
    assert not any(found.values()) and "T12-L1" not in found
    unsure = replace(segment, facts=segment.facts | {"certain": False})
    found = {d.level: d.flags for d in reviewed_discs(Settings(), "sub-01", records | {"segment": unsure}, {})}
    assert "assumptions" in found["L5-S1"][0] and not found["L1-L2"]


def test_what_was_decided_is_exported(tmp_path):
    """A disc that was excluded is in the outlines as segmented, and not in those that are exported."""
    highdicom = pytest.importorskip("highdicom")
    study = Study(make_reviewable(tmp_path / "s", 2))
    decided = outlines()
    decided.array[decided.array == disc_value("L4-L5")] = 0
    folder = study.output / "sub-01"
    path = write_image(decided, folder / "anat" / f"sub-01_{endings.DECIDED}")
    write_record(Record("review", "sub-01", "key", outputs=fingerprints([path], study.relative)),
                 folder / "prov" / "sub-01_step-review_prov.json")
    found = {file.parents[1].name: {s.SegmentLabel for s in highdicom.seg.segread(file).SegmentSequence}
             for file in export_people(study.root, tmp_path / "dicom") if file.stem == "segmentation"}
    assert found["sub-02"] - found["sub-01"] == {"L4-L5"} and {"L5-S1", "L3-L4"} < found["sub-01"]
