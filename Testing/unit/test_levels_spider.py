"""Levels on the reference masks of 33 real people, collapsed to classes and named again."""

import numpy as np
import pytest
from support import shared_data

from DiscRelaxometryLib.image import read_image
from DiscRelaxometryLib.levels import label_instances

PEOPLE = ["005", "007", "018", "022", "034", "035", "045", "050", "052", "055", "061", "065", "069", "078", "098",
          "107", "110", "118", "129", "136", "141", "142", "146", "161", "162", "166", "185", "191", "200", "209",
          "220", "239", "241"]


def collapse(array):
    """Return classes 0 background, 1 vertebra, 2 canal, 3 disc of a SPIDER reference mask."""
    return np.where(array >= 11, 3, array).astype(np.uint8)


@pytest.mark.shared_data
@pytest.mark.parametrize("person", PEOPLE)
def test_reference_levels_are_found_again(person):
    reference = read_image(shared_data(f"spider_t2space/sub-{person}_dseg.nii.gz"))
    result = label_instances(collapse(reference.array), reference.geometry)
    discs = reference.array >= 11
    assert np.mean(result.labels.array[discs] == reference.array[discs]) > 0.999
    assert result.certain
    # Each disc has the vertebra above it, unless the image ends there.
    values = [d.value for d in result.discs]
    assert {v + 20 for v in values[:-1]} <= set(result.vertebrae)
