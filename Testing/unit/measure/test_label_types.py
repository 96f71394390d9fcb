"""Labels mean what they say in whatever type a file holds them; what is not a label is named; nothing wraps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spine_phantom import spine, t2w

from DiscRelaxometryLib.discs import import_labels, project_labels
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import whole_labels
from DiscRelaxometryLib.measure import (
    carry_labels,
    disc_frames,
    measure_discs,
    measure_regions,
    normalized_t2w,
    region_image,
    resample_labels,
)
from DiscRelaxometryLib.measure.regions import disc_regions


@pytest.fixture(scope="module")
def column():
    classes, truth = spine(levels=2, spacing=(3.0, 2.0, 2.0))
    return t2w(classes), truth


def near(array):
    """Return labels as a resampler leaves them: floating point, up to 0.01 off."""
    return array + np.where(array > 0, np.random.default_rng(0).uniform(-0.0099, 0.0099, array.shape), 0)


READERS = {
    "discs": lambda image, labels: measure_discs(labels, {"nT2w": image}).rows,
    "regions": lambda image, labels: measure_regions(labels, {"nT2w": image}).rows,
    "members": lambda image, labels: disc_regions(labels, 11)["nucleus"].tolist(),
    "partition": lambda image, labels: region_image(labels).array.tolist(),
    "frames": lambda image, labels: [f.axes.tolist() for f in disc_frames(labels).values()],
    "normalized": lambda image, labels: normalized_t2w(image, labels).meta["csf"],
    "carried": lambda image, labels: carry_labels(labels, image, image, register=False).labels.array.tolist(),
    "resampled": lambda image, labels: resample_labels(labels, labels.geometry)[0].array.tolist(),
    "imported": lambda image, labels: import_labels(labels, "project")[0].array.tolist(),
    "project's": lambda image, labels: project_labels(labels)[0].array.tolist(),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_takes_whole_numbers_of_any_type(reader, column):
    image, labels = column
    expected = repr(READERS[reader](image, labels))
    for kind in (np.int8, np.uint16, np.int64, np.float32):
        assert repr(READERS[reader](image, labels.like(labels.array.astype(kind)))) == expected, kind
    assert repr(READERS[reader](image, labels.like(near(labels.array.astype(np.float32))))) == expected


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("value", "named"), [(11.5, "11.5"), (10.6, "10.6"), (np.nan, "nan"), (np.inf, "inf")])
def test_every_reader_names_what_is_no_label(reader, value, named, column):
    image, labels = column
    array = labels.array.astype(np.float32)
    array[array == 12] = value
    with pytest.raises(SegmentationError, match=named):
        READERS[reader](image, labels.like(array))


@given(values=st.lists(st.integers(0, 60000), min_size=1, max_size=8, unique=True), shift=st.floats(-0.0099, 0.0099))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_come_back(values, shift):
    array = np.array(values).reshape(-1, 1, 1)
    image = Image(array + shift, Geometry(array.shape[::-1]))
    assert np.array_equal(whole_labels(image).array, array)
    assert whole_labels(Image(array, image.geometry)).array is array


@pytest.mark.parametrize("values", [(127, 128), (200, 255), (255, 256), (300, 60000)])
def test_large_labels_do_not_wrap(values):
    array = np.zeros((12, 12, 12), np.int32)
    array[2:6, 2:10, 2:10], array[6:10, 2:10, 2:10] = values
    image = Image(array, Geometry((12, 12, 12)))
    moved, _ = resample_labels(image, image.geometry)
    assert set(np.unique(moved.array).tolist()) == {0, *values}


def stack(values, spacing=(4.0, 1.5, 1.5), kind=np.int32):
    """Return boxes on top of each other, first value lowest."""
    array = np.zeros((10 + 14 * len(values), 40, 10), kind)
    for n, value in enumerate(values):
        array[5 + 14 * n:5 + 14 * n + 12, 8:32, 2:8] = value
    return Image(array, Geometry(array.shape[::-1], spacing))


@pytest.mark.parametrize(("values", "tool"), [
    ([26, 124, 24, 123, 23, 122, 22], "SPINEPS"), ([50, 100, 45, 95, 44, 94, 43], "TotalSpineSeg"),
    ([201, 1, 202, 2, 203, 3], "SPIDER")])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_another_tools_values_are_translated_and_said(values, tool, kind):
    labels, notes = project_labels(stack(values, kind=kind))
    assert {11, 12, 13} <= set(np.unique(labels.array).tolist())
    lowest = next(v for v in values if v > 90)
    assert np.count_nonzero(labels.array == 11) == np.count_nonzero(stack(values).array == lowest)
    assert any(tool in note for note in notes)


def test_the_projects_values_stay():
    image = stack([30, 11, 31, 12, 32, 13], kind=np.uint8)
    labels, notes = project_labels(image)
    assert np.array_equal(labels.array, image.array) and notes == []


@pytest.mark.parametrize(("values", "named"), [
    ([11, 12, 13, 77], "77"), ([11, 12, 300], "300"), ([15, 14, 13, 12, 11], "11, 12, 13, 14, 15"),
    ([24, 23, 22, 21], "21, 22, 23, 24"), ([18, 19, 20], "18, 19, 20"), ([1, 2, 3, 4, 5], "1, 2, 3, 4, 5")])
def test_values_that_are_nobodys_are_named(values, named):
    with pytest.raises(SegmentationError, match=named):
        project_labels(stack(values))
