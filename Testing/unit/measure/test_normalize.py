"""CSF reference and normalized T2w signal: known values, robustness to masks, and refusals."""

import numpy as np
import pytest
from scipy import ndimage
from support import shared_data
from support.spine_phantom import spine, t2w

from DiscRelaxometryLib.errors import GeometryError, SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.measure.normalize import _without_border, csf_reference, normalized_t2w, otsu


@pytest.fixture(scope="module")
def person():
    classes, truth = spine(levels=3)
    image = t2w(classes)
    # CSF of exactly 400 before noise: no texture in the bright half of the canal.
    bright = (classes.array == 2) & (image.array > 200)
    array = image.array.copy()
    array[bright] = 400 + np.random.default_rng(0).normal(0, 8, np.count_nonzero(bright))
    return image.like(array), truth


def test_known_csf(person):
    image, labels = person
    reference, mask = csf_reference(image, labels)
    assert reference.median == pytest.approx(400, abs=2)
    assert reference.spread == pytest.approx(8 / 400, rel=0.15)
    assert reference.n == np.count_nonzero(mask) and np.all(labels.array[mask] == 2)
    assert image.array[mask].min() > 200  # no nerve root
    assert reference.flags == []


def test_map_is_signal_over_csf_and_says_what_it_is(person):
    image, labels = person
    result = normalized_t2w(image, labels)
    reference = csf_reference(image, labels)[0]
    assert np.allclose(result.array, image.array / reference.median, rtol=1e-6)
    assert result.meta["quantity"] == "nT2w"
    assert result.meta["csf"]["n"] == reference.n and result.meta["csf"]["median"] == reference.median


def test_scale_of_the_image_does_not_matter(person):
    image, labels = person
    first = normalized_t2w(image, labels).array
    second = normalized_t2w(image.like(image.array * 37.5), labels).array
    assert np.allclose(first, second, rtol=1e-4)


def test_nan_stays_nan(person):
    image, labels = person
    array = image.array.copy()
    array[labels.array == 12] = np.nan
    result = normalized_t2w(image.like(array), labels)
    assert np.all(np.isnan(result.array[labels.array == 12]))
    assert np.all(np.isfinite(result.array[labels.array == 11]))


def test_flipped_and_oblique_grids_give_the_same_value(person):
    image, labels = person
    geometry = image.geometry
    last = geometry.index_to_world(np.array(geometry.size) - 1)
    flipped = Geometry(geometry.size, geometry.spacing, last, -np.array(geometry.direction))
    first = csf_reference(image, labels)[0]
    second = csf_reference(Image(image.array[::-1, ::-1, ::-1], flipped),
                           Image(labels.array[::-1, ::-1, ::-1], flipped))[0]
    assert second.median == first.median and second.n == first.n


def test_missing_canal_is_an_error(person):
    image, labels = person
    with pytest.raises(SegmentationError, match="no spinal canal"):
        normalized_t2w(image, labels.like(np.where(labels.array == 2, 0, labels.array)))


def test_little_canal_is_an_error(person):
    image, labels = person
    array = labels.array.copy()
    where = np.argwhere(array == 2)
    array[tuple(where[20:].T)] = 0
    with pytest.raises(SegmentationError, match="too few"):
        normalized_t2w(image, labels.like(array))


def test_t1_weighting_is_an_error(person):
    image, labels = person
    array = image.array.copy()
    array[labels.array == 2] = np.abs(np.random.default_rng(0).normal(40, 5, np.count_nonzero(labels.array == 2)))
    with pytest.raises(SegmentationError, match="no T2-"):
        normalized_t2w(image.like(array), labels)


def test_uniform_canal_is_an_error(person):
    image, labels = person
    array = image.array.copy()
    array[labels.array == 2] = 300
    with pytest.raises(SegmentationError, match="uniform"):
        normalized_t2w(image.like(array), labels)


def test_different_grids_are_an_error(person):
    image, labels = person
    geometry = Geometry(image.geometry.size, image.geometry.spacing, (9, 9, 9), image.geometry.direction)
    with pytest.raises(GeometryError):
        normalized_t2w(image, Image(labels.array, geometry))


def test_clipping_is_flagged(person):
    image, labels = person
    reference, _ = csf_reference(image.like(np.minimum(image.array, 398)), labels)
    assert reference.clipped > 0.5 and any("clipped" in f for f in reference.flags)
    even = np.minimum(image.array, 398)
    even[labels.array == 0] *= 4  # fat is brighter: fluid of one value is then not at the scale's end
    reference, _ = csf_reference(image.like(even), labels)
    assert reference.clipped == 0 and not reference.flags


def test_the_canals_border_is_a_millimeter_along_each_axis_and_the_images_is_none():
    canal = np.zeros((7, 12, 20), bool)
    canal[2:5, 3:9, :10] = True
    labels = Image(np.where(canal, 2, 0).astype(np.uint8), Geometry((20, 12, 7), (0.4, 0.7, 3.0)))
    inner = np.zeros_like(canal)
    inner[2:5, 4:8, :8] = True  # two voxels of 0.4 mm, one of 0.7, none of 3 are within the millimeter
    assert np.array_equal(_without_border(canal, labels), inner)


def test_otsu_splits_two_known_populations():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(50, 5, 4000), rng.normal(150, 10, 4000)])
    assert 70 < otsu(values) < 125


@pytest.mark.shared_data
@pytest.mark.parametrize("person, clipped", [("005", False), ("239", False), ("200", True)])
def test_real_people(person, clipped):
    image = read_image(shared_data(f"spider_t2space/sub-{person}_T2w.nii.gz"))
    labels = read_image(shared_data(f"spider_t2space/sub-{person}_dseg.nii.gz"))
    reference, _ = csf_reference(image, labels)
    assert (reference.clipped > 0.3) == clipped
    # A mask one voxel larger or smaller in-plane moves the reference by less than 2 %.
    for change in (ndimage.binary_erosion, ndimage.binary_dilation):
        array = np.where(labels.array == 2, 0, labels.array)
        array[change(labels.array == 2, np.ones((3, 3, 1)))] = 2
        assert csf_reference(image, labels.like(array))[0].median == pytest.approx(reference.median, rel=0.02)
