"""DICOM echo series as vendors write them, where a header can be misread."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from corpus.made_dicom import SLICES, TIMES, decay, fill, write_classic, write_enhanced
from DiscRelaxometryLib.echo.read import read_echo_series
from DiscRelaxometryLib.errors import DiscRelaxometryError, EchoSeriesError
from DiscRelaxometryLib.fit import fit_relaxation


def signals(series) -> np.ndarray:
    """Return the signal of one voxel, as (echo, slice)."""
    return series.echoes[:, :, 4, 4]


def assert_decay(series) -> None:
    """Check that the echoes, and no other images, make up the series."""
    assert series.times_ms == pytest.approx(TIMES)
    assert signals(series) == pytest.approx(np.repeat([[round(decay(t))] for t in TIMES], SLICES, axis=1))


@pytest.mark.parametrize(("attribute", "value"), [("ImagePositionPatient", [2.0, -6.0, 9.0]),
                                                  ("PixelSpacing", [3.0, 3.0]), ("EffectiveEchoTime", 33.0)])
def test_private_sequence_does_not_override_functional_groups(tmp_path, attribute, value):
    """Values nested in a vendor's sequence replace those of the public macros."""
    def nest(group, place):
        inner = Dataset()
        setattr(inner, attribute, value)
        if attribute == "ImagePositionPatient":
            inner.ImagePositionPatient = [4.0 * place + value[0], *value[1:]]
        group.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [inner])

    plain = read_echo_series(write_enhanced(tmp_path / "plain.dcm"))
    nested = read_echo_series(write_enhanced(tmp_path / "nested.dcm", nest))
    assert_decay(plain)
    assert not plain.geometry.difference(nested.geometry)
    assert_decay(nested)


@pytest.mark.parametrize("description", ["gre_field_mapping", "sag T2_star map"])
def test_gradient_echoes_are_not_called_t2(tmp_path, description):
    """A gate that one file format has is missing in another: gradient echoes measure T2*."""
    def gradient(dataset, echo, place):
        dataset.ScanningSequence, dataset.SeriesDescription = "GR", description

    with pytest.raises(EchoSeriesError, match="radient echo"):
        read_echo_series(write_classic(tmp_path / "gre", gradient, times=(5.19, 7.65)))


def ge_component(number: int):
    """Return an edit that marks images as GE does: 0 magnitude, 1 phase, 2 real, 3 imaginary."""
    def edit(dataset, echo, place):
        dataset.Manufacturer, dataset.ImageType = "GE MEDICAL SYSTEMS", ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", number)
        dataset.InstanceNumber += 100 * number
        if number:
            fill(dataset, 3000 - 200 * echo)
    return edit


@pytest.mark.parametrize("component", [1, 2, 3])
def test_image_component_in_a_private_element(tmp_path, component):
    """A vendor's own mark of phase, real and imaginary images is not known."""
    folder = write_classic(tmp_path / "both", ge_component(0), prefix="m")
    write_classic(folder, ge_component(component), prefix="p")
    series = read_echo_series(folder)
    assert_decay(series)
    assert any(f"{len(TIMES) * SLICES} " in note and "left out" in note for note in series.notes)
    with pytest.raises(DiscRelaxometryError):
        read_echo_series(write_classic(tmp_path / "alone", ge_component(component)))


def test_file_names_do_not_give_the_order_of_acquisition(tmp_path):
    """An order is guessed where the numbers of the header tie, and slices of different echoes make one volume."""
    def tie(dataset, echo, place):
        dataset.EchoTime, dataset.EchoNumbers, dataset.InstanceNumber = "10", 1, place + 1

    folder = write_classic(tmp_path / "ge", tie)
    files = sorted(folder.iterdir())
    for number, file in zip(np.random.default_rng(1).permutation(len(files)), files):
        file.rename(folder / f"shuffled{number:03d}.dcm")
    with pytest.raises(EchoSeriesError, match="order"):
        read_echo_series(folder, kind="T2", times_ms=TIMES)


def test_mosaic_is_no_slice(tmp_path):
    """An image that holds all slices as tiles is taken for one large slice."""
    def mosaic(dataset, echo, place):
        dataset.Manufacturer, dataset.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 4)

    folder = write_classic(tmp_path / "mosaic", mosaic, slices=1)
    try:
        size = read_echo_series(folder).geometry.size
    except EchoSeriesError as error:
        assert "mosaic" in str(error).lower()
    else:
        assert size == (4, 4, 4)


@pytest.mark.parametrize(("time", "image_type", "value"), [
    (37.5, ["DERIVED", "PRIMARY", "M", "SUM"], 4500), (0, ["ORIGINAL", "PRIMARY", "T2", "T2", "UNSPECIFIED"], 60)],
    ids=["sum of echoes", "map"])
def test_derived_images_are_no_echoes(tmp_path, time, image_type, value):
    """Images that a console computed are known by a short list of words; others are fitted as echoes."""
    def derived(dataset, echo, place):
        dataset.ImageType = image_type
        dataset.InstanceNumber += 200
        fill(dataset, value)

    folder = write_classic(tmp_path / "series")
    write_classic(folder, derived, times=(time,), prefix="derived")
    series = read_echo_series(folder)
    assert_decay(series)
    assert any(f"{SLICES} " in note and "left out" in note for note in series.notes)
    assert fit_relaxation(series).value[0, 4, 4] == pytest.approx(60, rel=0.01)


def test_echo_times_may_differ_in_the_last_digit(tmp_path):
    """Times are compared exactly, and images are said to be missing that are there."""
    def shift(by):
        def edit(dataset, echo, place):
            dataset.EchoTime = f"{TIMES[echo] + by * (place % 2):.3f}"
        return edit

    assert_decay(read_echo_series(write_classic(tmp_path / "rounding", shift(0.001))))
    with pytest.raises(EchoSeriesError, match=r"(?s)10.*10\.5"):
        read_echo_series(write_classic(tmp_path / "real", shift(0.5)))


@pytest.mark.parametrize("private", [False, True])
def test_an_image_without_the_scaling_of_the_others(tmp_path, private):
    """One image's scaling is lost on the way: its values would be those of another scale."""
    def scale(dataset, echo, place):
        if private:
            dataset.Manufacturer = "Philips"
        if (echo, place) != (1, 1):
            dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"
        elif private:
            dataset.RescaleSlope, dataset.RescaleIntercept = "2", "0"
            return
        if private:
            dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True).add_new(0x0E, "FL", 0.01)

    with pytest.raises(EchoSeriesError, match="PhilipsScaleSlope" if private else "RescaleSlope"):
        read_echo_series(write_classic(tmp_path, scale))


def test_a_negative_spacing_between_slices_is_a_distance(tmp_path):
    def negative(dataset, echo, place):
        dataset.SpacingBetweenSlices, dataset.SliceThickness = -4, ""

    assert read_echo_series(write_classic(tmp_path, negative, slices=1)).geometry.spacing[2] == 4


def test_times_in_seconds(tmp_path):
    """Headers may hold s, which are recognized; whoever gives times gives ms."""
    def seconds(dataset, echo, place):
        dataset.EchoTime = f"{TIMES[echo] / 1000:g}"

    folder = write_classic(tmp_path, seconds)
    assert_decay(read_echo_series(folder))
    with pytest.raises(EchoSeriesError, match="in ms, not in s"):
        read_echo_series(folder, "T2", [t / 1000 for t in TIMES])
