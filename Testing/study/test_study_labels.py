"""A segmentation that a participant already has, on a grid of its own."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.errors import GeometryError
from DiscRelaxometryLib.image import Geometry, Image, write_image
from DiscStudyLib.steps.person import _existing_labels

COARSE = Geometry((4, 5, 6), (2.0, 2.0, 3.0))


@pytest.fixture
def context(tmp_path):
    labels = np.zeros(COARSE.shape, np.uint8)
    labels[1:5, 1:4, 1:3] = np.array([11, 12, 13, 14])[:, None, None]
    path = write_image(Image(labels, COARSE), tmp_path / "sub-01_dseg.nii.gz")
    return SimpleNamespace(person=SimpleNamespace(labels=[path]), notes=[])


def test_each_voxel_has_the_label_of_the_nearest_one_and_no_label_is_invented(context):
    fine = Geometry((8, 10, 18), (1.0, 1.0, 1.0), (-0.3, 0.2, -0.6))
    found = _existing_labels(context, Image(np.zeros(fine.shape, np.float32), fine))
    coarse = np.zeros(COARSE.shape, np.uint8)
    coarse[1:5, 1:4, 1:3] = np.array([11, 12, 13, 14])[:, None, None]
    points = fine.index_to_world(np.moveaxis(np.indices(fine.shape), 0, -1)[..., ::-1])
    i, j, k = np.moveaxis(np.floor(COARSE.world_to_index(points) + 0.5).astype(int), -1, 0)
    inside = (i >= 0) & (i < 4) & (j >= 0) & (j < 5) & (k >= 0) & (k < 6)
    expected = np.where(inside, coarse[k.clip(0, 5), j.clip(0, 4), i.clip(0, 3)], 0)
    np.testing.assert_array_equal(found.array, expected)
    assert "resampled" in context.notes[-1]


def test_labels_of_another_volume_are_refused(context):
    far = Geometry((4, 5, 6), (2.0, 2.0, 3.0), (500.0, 0.0, 0.0))
    with pytest.raises(GeometryError, match="does not overlap"):
        _existing_labels(context, Image(np.zeros(far.shape, np.float32), far))
