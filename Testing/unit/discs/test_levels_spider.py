"""Levels on the reference masks of 33 real people, collapsed to classes and named again."""

import numpy as np
import pytest
from support import shared_data

from DiscRelaxometryLib.discs.levels import label_instances
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, read_image

PEOPLE = ["005", "007", "018", "022", "034", "035", "045", "050", "052", "055", "061", "065", "069", "078", "098",
          "107", "110", "118", "129", "136", "141", "142", "146", "161", "162", "166", "185", "191", "200", "209",
          "220", "239", "241"]


#: All of them in the slow run.
SOME = [p if n % 3 == 1 else pytest.param(p, marks=pytest.mark.slow) for n, p in enumerate(PEOPLE)]


def collapse(array):
    """Return classes 0 background, 1 vertebra, 2 canal, 3 disc of a SPIDER reference mask."""
    return np.where(array >= 11, 3, array).astype(np.uint8)


@pytest.mark.shared_data
@pytest.mark.parametrize("person", SOME)
def test_reference_levels_are_found_again(person):
    reference = read_image(shared_data(f"spider_t2space/sub-{person}_dseg.nii.gz"))
    result = label_instances(collapse(reference.array), reference.geometry)
    discs = reference.array >= 11
    assert np.mean(result.labels.array[discs] == reference.array[discs]) > 0.999
    assert result.certain
    # Each disc has the vertebra above it, unless the image ends there.
    values = [d.value for d in result.discs]
    assert {v + 20 for v in values[:-1]} <= set(result.vertebrae)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["sub-20_dseg", "sub-42_dseg"] + [
    f"native_labels/sub-{n}_dseg" for n in ("01", "07", "14", "20", "27", "33", "42", "54")])
def test_discs_of_other_people_without_vertebrae(name):
    """Whole discs of healthy adults; 1 is L5-S1 there. The tight crops show no sacrum, which is said."""
    reference = read_image(shared_data(f"ivd_t2w/{name}.nii.gz"))
    truth = np.where(reference.array > 0, reference.array + 10, 0)
    geometry = reference.geometry
    if name.startswith("native"):
        # Stored as rows from superior to inferior, columns from anterior to posterior; the header does not say so.
        geometry = Geometry(geometry.size, geometry.spacing, geometry.origin, (0, 0, 1, 1, 0, 0, 0, -1, 0))
    result = label_instances(np.where(truth > 0, 3, 0).astype(np.uint8), geometry)
    discs = truth > 0
    assert np.mean(result.labels.array[discs] == truth[discs]) > 0.99
    if not result.certain:
        assert any("sacrum is not seen" in f for f in result.flags)


@pytest.mark.shared_data
def test_header_that_lays_the_spine_across_the_body_is_refused():
    reference = read_image(shared_data("ivd_t2w/native_labels/sub-33_dseg.nii.gz"))
    with pytest.raises(SegmentationError, match="orientation in the header is wrong"):
        label_instances(np.where(reference.array > 0, 3, 0).astype(np.uint8), reference.geometry)
