"""Flags of a review come from what the segmentation says of each disc, where it says so."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK
from support.review_study import LEVELS, make_reviewable, outlines

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib import Study
from DiscStudyLib.after import export_people
from DiscStudyLib.engine import (
    Record,
    endings,
    fingerprints,
    outlined_image,
    review_records,
    reviewed_discs,
    write_record,
)
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


def test_flags_of_the_registration_go_to_the_disc_as_it_was_segmented(tmp_path):
    """After L5-S1 was renamed to L4-L5, what the registration says of L4-L5 is about the disc segmented as L5-S1."""
    records = review_records(Study(make_reviewable(tmp_path / "s", 1)), "sub-01")
    about = {"renamed_to": "L4-L5"}
    rows = [{"level": "L4-L5", "flags": "folding"}, {"level": "L2-L3", "flags": "cut at the left; low overlap"}]
    records |= {"segment": replace(records["segment"], notes=[]),
                "atlas": Record("atlas", "sub-01", "key", facts={"quality": rows})}
    for stale, level in ((False, "L5-S1"), (True, "L4-L5")):
        decided = {"decisions": {"L5-S1": about | {"stale": stale}}}
        records["review"] = Record("review", "sub-01", "key", facts=decided)
        found = {d.level: d.flags for d in reviewed_discs(Settings(), "sub-01", records, {}) if d.flags}
        assert found == {level: ("folding",), "L2-L3": ("low overlap",)}


def test_the_outlined_image_of_a_series_is_its_first_echo(tmp_path):
    echoes = [Image(np.full((2, 3, 4), value, np.float32), Geometry((4, 3, 2))) for value in (50, 20, 10)]
    SimpleITK.WriteImage(SimpleITK.JoinSeries([e.to_sitk() for e in echoes]), str(tmp_path / "sub-01_T1rho.nii.gz"))
    files = ("sub-01_T1rho.json", "sub-01_T1rho.nii.gz", "sub-01_dseg.nii.gz")
    segment = Record("segment", "sub-01", "key", inputs=dict.fromkeys(files, {}))
    assert np.all(outlined_image(SimpleNamespace(absolute=tmp_path.joinpath), segment).array == 50)
