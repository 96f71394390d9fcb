"""Flags of a review come from what the segmentation says of each disc, where it says so."""

from __future__ import annotations

from dataclasses import replace

from support.review_study import LEVELS, make_reviewable

from DiscStudyLib import Study
from DiscStudyLib.engine import review_records, reviewed_discs
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
