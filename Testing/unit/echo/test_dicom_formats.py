"""DICOM files that lack parts of the format, and the order of images whose times are not in the header."""

from types import SimpleNamespace

import numpy as np
import pytest
from support import dicom_samples as samples

from DiscRelaxometryLib.echo import read_echo_series
from DiscRelaxometryLib.echo.dicom_select import _is_one_volume
from DiscRelaxometryLib.echo.dicom_volumes import _slice_spacing
from DiscRelaxometryLib.errors import EchoSeriesError

TE = (12.5, 25.0, 37.5, 50.0)


def set_echo_time(dataset, t):
    dataset.EchoTime = t


def rewrite(path, change):
    import pydicom

    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def no_preamble(path):
    path.write_bytes(path.read_bytes()[132:])


def no_storage_class(path):
    rewrite(path, lambda d: d.pop("SOPClassUID"))


@pytest.mark.parametrize("spoil", [no_preamble, no_storage_class])
def test_incomplete_file_formats_are_read(tmp_path, spoil):
    for path in samples.write_classic(tmp_path, TE, set_echo_time):
        spoil(path)
    np.testing.assert_allclose(read_echo_series(tmp_path).echoes, samples.expected(TE), atol=0.51)


@pytest.mark.parametrize("name, spoil", [("DICOMDIR", None), ("dicomdir;1", None), ("INDEX.dcm", no_preamble)])
def test_directory_of_a_disc_whatever_its_name(tmp_path, name, spoil):
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

    paths = samples.write_classic(tmp_path / "images", TE, set_echo_time)
    samples.write_classic(tmp_path / "other", TE, set_echo_time)
    directory = samples.base(sop=MediaStorageDirectoryStorage)
    directory.DirectoryRecordSequence = [Dataset(), *(Dataset() for _ in paths)]
    for record, path in zip(directory.DirectoryRecordSequence[1:], paths):
        record.ReferencedFileID = ["IMAGES", path.name]
    directory.file_meta.TransferSyntaxUID, directory.SOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
    samples.save(directory, tmp_path / name)
    if spoil:
        spoil(tmp_path / name)
    series = read_echo_series(tmp_path / name)
    np.testing.assert_allclose(series.echoes, samples.expected(TE), atol=0.51)
    paths[0].unlink()
    with pytest.raises(EchoSeriesError, match=f"1 of 12 files that '{name}' names"):
        read_echo_series(tmp_path / name)


def test_an_image_named_as_a_directory_is_read(tmp_path):
    paths = samples.write_classic(tmp_path, TE, set_echo_time)
    paths[0].rename(tmp_path / "DICOMDIR")
    np.testing.assert_allclose(read_echo_series(tmp_path).echoes, samples.expected(TE), atol=0.51)


@pytest.mark.parametrize(("keyword", "values"), [("RepetitionTime", (600, 3500)), ("StudyInstanceUID", ("1.2", "1.3"))])
def test_different_acquisitions_are_not_joined(tmp_path, keyword, values):
    for n, (t, value) in enumerate(zip(TE, values)):
        samples.write_classic(tmp_path / str(n), [t], set_echo_time, series=f"1.2.{n}", **{keyword: value})
    with pytest.raises(EchoSeriesError, match="mix 2 series"):
        read_echo_series(tmp_path)


def number_images(paths, rule):
    """Number a constant-time series by rule(echo, slice); paths are echo by echo."""
    for n, path in enumerate(paths):
        echo, place = divmod(n, samples.SLICES)
        rewrite(path, lambda d, e=echo, s=place: [setattr(d, k, v) for k, v in rule(e, s).items()])


ORDERS = {"echo by echo": lambda e, s: {"InstanceNumber": e * 3 + s + 1},
          "slice by slice": lambda e, s: {"InstanceNumber": s * 4 + e + 1},
          "echo numbers": lambda e, s: {"EchoNumbers": e + 1, "InstanceNumber": 1},
          "acquisitions": lambda e, s: {"AcquisitionNumber": e // 2, "EchoNumbers": e % 2, "InstanceNumber": 99 - e}}


@pytest.mark.parametrize("rule", ORDERS.values(), ids=ORDERS)
def test_order_of_acquisition_from_numbers(tmp_path, rule):
    number_images(samples.write_classic(tmp_path, TE, lambda d, t: None), rule)
    given = (40.0, 10.0, 80.0, 20.0)
    series = read_echo_series(tmp_path, "T2", given)
    for time, image in zip(given, samples.expected(TE)):
        np.testing.assert_allclose(series.echoes[list(series.times_ms).index(time)], image, atol=0.51)


@pytest.mark.parametrize("rule", [lambda e, s: {"InstanceNumber": s + 1},
                                  lambda e, s: {"InstanceNumber": (e * 7 + s * s * 5) % 13 + 20 * s}])
def test_order_that_no_number_gives_is_asked_for(tmp_path, rule):
    number_images(samples.write_classic(tmp_path, TE, lambda d, t: None), rule)
    with pytest.raises(EchoSeriesError, match="order of acquisition is unknown"):
        read_echo_series(tmp_path, "T2", TE)


def test_implausible_times_are_not_used(tmp_path):
    samples.write_classic(tmp_path, (100, 812, 1630), lambda d, t: setattr(d, "TriggerTime", t),
                          SeriesDescription="T1rho", EchoTime=3.2)
    with pytest.raises(EchoSeriesError, match="too long for T1rho"):
        read_echo_series(tmp_path)


@pytest.mark.parametrize("slope", ["0", "nan"])
def test_scaling_that_cannot_be_is_named(tmp_path, slope):
    import pydicom

    with pydicom.config.disable_value_validation():
        samples.write_classic(tmp_path, TE, set_echo_time, RescaleSlope=slope, RescaleIntercept="0")
        with pytest.raises(EchoSeriesError, match="RescaleSlope|damaged"):
            read_echo_series(tmp_path)


def test_missing_slices_are_counted_by_the_usual_gap_and_their_neighbors_are_named():
    frames = [SimpleNamespace(name=f"'{n}'") for n in "abcdefg"]
    along = np.array([0.0, 4, 8, 20, 24, 28, 32])
    with pytest.raises(EchoSeriesError, match=r"2 slice\(s\) are missing between 'c' and 'd' \(gap 12.00 mm, usual "
                                              r"spacing 4.00 mm\)"):
        _slice_spacing(frames, along, np.arange(7))


def test_slices_half_a_millimeter_apart_are_a_volume_and_repeated_ones_are_none():
    def frames(positions):
        return [SimpleNamespace(header={"ImagePositionPatient": [x, 10.0, 5.0]}) for x in positions]

    assert _is_one_volume(frames([-1.1, -0.6, -0.1, 0.4])) and not _is_one_volume(frames([-1.1, -0.6, -0.6, 0.4]))


@pytest.mark.parametrize("padding, missing", [(63000, True), (0, False)])
def test_padding_is_missing_but_a_zero_may_be_a_signal(tmp_path, padding, missing):
    for path in samples.write_classic(tmp_path, TE, set_echo_time, PixelPaddingValue=padding):
        rewrite(path, lambda d: setattr(d, "PixelData", np.uint16(padding).tobytes() + d.PixelData[2:]))
    echoes, expected = read_echo_series(tmp_path).echoes, samples.expected(TE)
    expected[..., 0, 0] = np.nan if missing else 0
    np.testing.assert_allclose(echoes, expected, atol=0.51)
