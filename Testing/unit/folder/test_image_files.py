"""Files of a study one by one: links that lead nowhere, and how far an image reaches, however it is stored."""

import numpy as np
import pytest
from support.study_phantom import make_study

from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscStudyLib.folder.study import Study
from DiscStudyLib.folder.validate import validate


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study", series=True)


def anat(study, person, suffix):
    return study / person / "anat" / f"{person}_{suffix}"


def test_links_to_files_that_were_not_fetched_are_named_and_the_others_are_checked(study):
    """Data sets under version control hold links to images until these are fetched."""
    for person, suffix in (("sub-01", "T2w.nii.gz"), ("sub-02", "T1rho.nii.gz")):
        path = anat(study, person, suffix)
        path.unlink()
        path.symlink_to("../../.git/annex/objects/gone")
    anat(study, "sub-03", "T1rho.json").unlink()
    found = {(f.person, f.problem.split(",")[0]) for f in validate(Study(study)) if f.severity == "error"}
    gone = "The file is a link to one that is not here."
    assert found == {("sub-01", gone), ("sub-02", gone), ("sub-03", "The JSON sidecar is missing")}


def test_the_extent_is_that_from_head_to_foot_however_the_image_is_stored(study):
    for person, size in (("sub-01", 200), ("sub-02", 60)):
        geometry = Geometry((size, 150, 15), (1.5, 1.5, 4.0), direction=(0, 0, 1, 0, 1, 0, 1, 0, 0))
        write_image(Image(np.ones(geometry.shape, np.uint8), geometry), anat(study, person, "T2w.nii.gz"))
    found = [(f.person, f.problem) for f in validate(Study(study)) if "head to foot" in f.problem]
    assert found == [("sub-02", "The image covers 90 mm from head to foot: not a lumbar spine.")]
