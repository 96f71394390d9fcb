"""Echo series from NIfTI with sidecars, NRRD and Slicer sequences; and the series' own checks."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from support import shared_data
from support.echo_writer import write_echo_series

from DiscRelaxometryLib.echo.read import EchoSeries, read_echo_series, read_mapss
from DiscRelaxometryLib.echo.sidecars import sidecar_values
from DiscRelaxometryLib.echo.times import joined_times, same_time, text_time, to_milliseconds
from DiscRelaxometryLib.errors import EchoSeriesError
from DiscRelaxometryLib.image import Geometry, Image, write_image

#: Oblique and left-handed.
TILT = np.array([[0.0, 0.0, 1.0], [np.cos(0.2), -np.sin(0.2), 0.0], [-np.sin(0.2), -np.cos(0.2), 0.0]])
GEOMETRY = Geometry((5, 6, 3), (0.6, 0.6, 4.0), (3.0, -20.0, 11.0), tuple(TILT.ravel()))
TSL = (0.0, 10.0, 40.0, 80.0)


def make(times=TSL, kind="T1rho", geometry=GEOMETRY):
    base = 100 + np.arange(np.prod(geometry.shape)).reshape(geometry.shape)
    return EchoSeries(np.array([base * np.exp(-t / 60) for t in times]), np.array(times), kind, geometry)


@pytest.mark.parametrize("name", ["a_T1rho.nii.gz", "a.seq.nrrd"])
@pytest.mark.parametrize("kind", ["T1rho", "T2"])
def test_written_series_read_back_the_same(tmp_path, name, kind):
    series = make(kind=kind)
    write_echo_series(series, tmp_path / name)
    again = read_echo_series(tmp_path / name)
    assert again.kind == kind
    np.testing.assert_array_equal(again.echoes, series.echoes)
    np.testing.assert_allclose(again.times_ms, TSL, rtol=1e-12)
    assert again.geometry.difference(series.geometry) == ""
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_bids_one_file_an_echo(tmp_path):
    series = make((10.0, 20.0, 30.0), "T2")
    for n in (2, 0, 1):
        stem = f"sub-01_echo-{n + 1}_MESE"
        write_image(series.echo(n), tmp_path / f"{stem}.nii.gz")
        (tmp_path / f"{stem}.json").write_text(json.dumps({"EchoTime": series.times_ms[n] / 1e3}))
    write_image(series.echo(0), tmp_path / "sub-01_part-phase_echo-1_MESE.nii.gz")
    write_image(series.echo(0), tmp_path / "sub-01_dseg.nii.gz")
    again = read_echo_series(tmp_path)
    assert again.kind == "T2"
    np.testing.assert_allclose(again.times_ms, (10, 20, 30))
    np.testing.assert_allclose(again.echoes, series.echoes)
    (tmp_path / "sub-01_echo-2_MESE.json").unlink()
    with pytest.raises(EchoSeriesError, match="sub-01_echo-2_MESE.nii.gz' is missing"):
        read_echo_series(tmp_path)
    write_image(series.echo(0), tmp_path / "sub-02_echo-1_MESE.nii.gz")
    with pytest.raises(EchoSeriesError, match="mix 2 series"):
        read_echo_series(tmp_path)


def test_echo_number_ten_comes_after_two(tmp_path):
    series = make(tuple(10.0 * n for n in range(1, 12)), "T2")
    for n in range(11):
        write_image(series.echo(n), tmp_path / f"sub-01_echo-{n + 1}_MESE.nii.gz")
    (tmp_path / "sub-01_MESE.json").write_text(json.dumps({"EchoTime": [t / 1e3 for t in series.times_ms]}))
    np.testing.assert_allclose(read_echo_series(tmp_path).echoes, series.echoes)


def test_spin_lock_sidecar_makes_a_t1rho_series(tmp_path):
    write_echo_series(make(), tmp_path / "scan.nii.gz")
    (tmp_path / "scan.json").write_text(json.dumps({"SpinLockTime": [0, 0.01, 0.04, 0.08], "EchoTime": 0.003}))
    assert read_echo_series(tmp_path / "scan.nii.gz").kind == "T1rho"


def test_times_missing_or_wrong(tmp_path):
    write_echo_series(make(), tmp_path / "scan.nii.gz")
    sidecar = tmp_path / "scan.json"
    for content, message in (("{}", "say whether"), ('{"Kind": "T1rho"}', "Nothing gives the times"),
                             ('{"SpinLockTime": [0, 0.01]}', "4 echoes but 2"), ("{", "no valid JSON"),
                             ('{"SpinLockTime": ["a", 1, 2, 3]}', "not a number"),
                             ('{"SpinLockTime": [0, 0.01, 0.04, 0.08], "SpinLockTime": [0, 0.02, 0.04, 0.08]}',
                              "the key 'SpinLockTime' twice"),
                             ('{"Kind": "T1rho", "a": NaN, "a": 1}', "'a' twice"),
                             ('{"Kind": "T1rho", "a": NaN, "b": 1, "b": 1}', "Nothing gives the times"),
                             ('{"SpinLockTime": [0, 1, 2, 3]}', "ambiguous"),
                             ('{"SpinLockTime": [0, 0.01, 0.01, 0.08]}', "a time twice")):
        sidecar.write_text(content)
        with pytest.raises(EchoSeriesError, match=message):
            read_echo_series(tmp_path / "scan.nii.gz")
    sidecar.unlink()
    series = read_echo_series(tmp_path / "scan.nii.gz", "T1rho", (80, 10, 40, 0))
    np.testing.assert_array_equal(series.times_ms, TSL)
    np.testing.assert_array_equal(series.echoes, make().echoes[[3, 1, 2, 0]])
    assert any("sorted by time" in note for note in series.notes)


@pytest.mark.parametrize("shared", [False, True])
def test_files_and_times_in_any_order_keep_each_image_with_its_time(tmp_path, shared):
    series, order = make((10.0, 20.0, 40.0, 80.0), "T2"), (2, 0, 3, 1)
    for number, n in enumerate(order, start=1):
        write_image(series.echo(n), tmp_path / f"sub-01_echo-{number}_MESE.nii.gz")
        if not shared:
            sidecar = tmp_path / f"sub-01_echo-{number}_MESE.json"
            sidecar.write_text(json.dumps({"EchoTime": series.times_ms[n] / 1e3}))
    if shared:
        (tmp_path / "sub-01_MESE.json").write_text(json.dumps({"EchoTime": [series.times_ms[n] / 1e3 for n in order]}))
    files = [tmp_path / f"sub-01_echo-{n}_MESE.nii.gz" for n in (3, 1, 4, 2)]
    for path in (tmp_path, files, (f for f in files)):
        again = read_echo_series(path)
        np.testing.assert_allclose(again.times_ms, series.times_ms)
        np.testing.assert_array_equal(again.echoes, series.echoes)


def test_gradient_echoes_are_not_t2(tmp_path):
    write_echo_series(make(kind="T2"), tmp_path / "sub-01_MEGRE.nii.gz")
    with pytest.raises(EchoSeriesError, match=r"T2\*"):
        read_echo_series(tmp_path / "sub-01_MEGRE.nii.gz")


def test_multivolume_nrrd_of_slicer(tmp_path):
    series = make()
    image = sitk.Compose([series.echo(n).to_sitk() for n in range(4)])
    image.SetMetaData("MultiVolume.FrameLabels", "0,10,40,80")
    image.SetMetaData("MultiVolume.FrameIdentifyingDICOMTagName", "SpinLockTime")
    image.SetMetaData("MultiVolume.FrameIdentifyingDICOMTagUnits", "ms")
    sitk.WriteImage(image, str(tmp_path / "multi.nrrd"))
    again = read_echo_series(tmp_path / "multi.nrrd")
    assert again.kind == "T1rho"
    np.testing.assert_array_equal(again.echoes, series.echoes)


def test_older_sequences_have_the_sequence_on_axis_0(tmp_path):
    data = np.arange(2 * 3 * 4 * 5, dtype="<f4")
    header = ("NRRD0004\ntype: float\ndimension: 4\nspace: left-posterior-superior\nsizes: 2 5 4 3\n"
              "space directions: none (1,0,0) (0,1,0) (0,0,2)\nkinds: list domain domain domain\n"
              'labels: "EchoTime" "" "" ""\nendian: little\nencoding: raw\nunits: "s" "" "" ""\n'
              "space origin: (0,0,0)\naxis 0 index type:=numeric\naxis 0 index values:=0.01 0.02\n\n")
    (tmp_path / "old.seq.nrrd").write_bytes(header.encode() + data.tobytes())
    series = read_echo_series(tmp_path / "old.seq.nrrd")
    assert series.kind == "T2"
    np.testing.assert_allclose(series.times_ms, (10, 20))
    np.testing.assert_array_equal(series.echoes[1].ravel(), data[1::2])


def test_separate_nrrd_files(tmp_path):
    series = make((0.0, 10.0, 40.0), "T1rho")
    for n in range(3):
        write_image(series.echo(n), tmp_path / f"tsl{n}.nrrd")
    again = read_echo_series(tmp_path, "T1rho", (0, 10, 40))
    np.testing.assert_array_equal(again.echoes, series.echoes)


def test_mapss_nifti(tmp_path):
    volumes = make(tuple(float(t) for t in range(10, 80, 10)), "T2")
    write_echo_series(volumes, tmp_path / "mapss.nii.gz")
    (tmp_path / "mapss.json").write_text(json.dumps({"SpinLockTime": [0, 0.01, 0.04, 0.08],
                                                     "EchoTime": [0, 0.0137, 0.0273, 0.0547]}))
    t1rho, t2 = read_mapss(tmp_path / "mapss.nii.gz")
    np.testing.assert_array_equal(t1rho.echoes, volumes.echoes[[0, 1, 2, 3]])
    np.testing.assert_array_equal(t2.echoes, volumes.echoes[[0, 4, 5, 6]])
    np.testing.assert_allclose(t2.times_ms, (0, 13.7, 27.3, 54.7))
    write_echo_series(make(), tmp_path / "four.nii.gz")
    with pytest.raises(EchoSeriesError, match="7 volumes"):
        read_mapss(tmp_path / "four.nii.gz")


def test_other_geometry_truncated_and_overflow(tmp_path):
    series = make((10.0, 20.0), "T2")
    write_image(series.echo(0), tmp_path / "e1.nii.gz")
    other = Geometry(GEOMETRY.size, (0.6, 0.6, 4.1), GEOMETRY.origin, GEOMETRY.direction)
    write_image(Image(series.echoes[1], other), tmp_path / "e2.nii.gz")
    with pytest.raises(EchoSeriesError, match="another grid"):
        read_echo_series(tmp_path, "T2", (10, 20))
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes((tmp_path / "e1.nii.gz").read_bytes()[:60])
    with pytest.raises(EchoSeriesError, match="truncated"):
        read_echo_series(damaged, "T2", (10, 20))
    wrapped = np.array([[[[32000, -31000]]], [[[16000, 15000]]]], np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(wrapped, isVector=False), str(tmp_path / "wrapped_T2.nii.gz"))
    with pytest.raises(EchoSeriesError, match="integer limit"):
        read_echo_series(tmp_path / "wrapped_T2.nii.gz", "T2", (10, 20))


@pytest.mark.parametrize("name", ["a_T1rho.nii.gz", "a_T1rho.nii", "a.seq.nrrd"])
def test_truncation_anywhere_is_an_error_and_never_other_numbers(tmp_path, name):
    series = make()
    path = write_echo_series(series, tmp_path / name)
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 9, 25).astype(int):
        path.write_bytes(whole[:length])
        try:
            again = read_echo_series(path)
        except EchoSeriesError:
            continue
        # Only a checksum may be missing.
        assert length > len(whole) - 12
        np.testing.assert_array_equal(again.echoes, series.echoes)


def test_missing_voxels_of_an_echo_stay_missing(tmp_path):
    series = make()
    series.echoes[1, 2, 3, 4] = np.nan
    for name in ("a_T1rho.nii.gz", "a.seq.nrrd"):
        again = read_echo_series(write_echo_series(series, tmp_path / name))
        np.testing.assert_array_equal(again.echoes, series.echoes)


@pytest.mark.parametrize("folder, first, last", [("kidney_t2_philips", 12.9, 129.0), ("brain_se_qmrlab", 12.8, 384.0)])
def test_real_series(folder, first, last):
    series = read_echo_series(shared_data(f"relaxometry/{folder}/echoes.nii.gz"))
    assert (series.times_ms[0], series.times_ms[-1], series.kind) == (first, last, "T2")


def test_unit_rule_and_text():
    assert to_milliseconds([0.0, 0.08], "x")[0] == [0.0, 80.0]
    assert to_milliseconds([0.0, 80.0], "x")[0] == [0.0, 80.0]
    assert to_milliseconds([0.0, 80000.0], "x", "us")[0] == [0.0, 80.0]
    assert [to_milliseconds([0.0, t], "x")[0][1] for t in (0.999, 5.0, 5000.0)] == [999.0, 5.0, 5000.0]
    for longest in (0.0, 1.0, 4.99, 5000.1):
        with pytest.raises(EchoSeriesError, match="ambiguous"):
            to_milliseconds([0.0, longest], "x")
    assert joined_times([0.0, 0.01, 0.0137]) == {0.0: 0.0, 0.01: 0.01, 0.0137: 0.0137}  # s
    assert joined_times([13.70, 13.705, 13.705, 27.4]) == {13.70: 13.705, 13.705: 13.705, 27.4: 27.4}  # ms
    assert text_time("T1rho TSL=13,7ms", "T1rho") == 13.7
    assert text_time("TSL_0.04s", "T1rho") == 40.0
    assert text_time("TITLE 5", "T2") is None and text_time("note 5", "T2") is None


def test_of_two_keys_the_one_with_a_time_for_each_volume_counts():
    """Converters write the first echo's time as EchoTime, and all of them under another name."""
    content = {"EchoTime": 0.01, "EchoTimes": [0.01, 0.02, 0.04]}
    assert sidecar_values(content, "T2", 3) == ([0.01, 0.02, 0.04], None, "EchoTimes")
    assert sidecar_values(content, "T2", 1) == ([0.01], None, "EchoTime")
    assert sidecar_values(content, "T2", 2)[0] == [0.01]  # the most specific one, whose number is then refused


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=0, max_size=6))
def test_any_times_give_a_series_or_one_clear_error(times):
    echoes = np.ones((len(times), 2, 2, 2), np.float32)
    geometry = Geometry((2, 2, 2))
    good = len(times) >= 2 and np.all(np.isfinite(times)) and min(times) >= 0 <= max(times) - 1 and not any(
        same_time(a, b) for n, a in enumerate(times) for b in times[:n])
    if good:
        assert np.all(np.diff(EchoSeries(echoes, times, "T2", geometry).times_ms) > 0)
    else:
        with pytest.raises(EchoSeriesError):
            EchoSeries(echoes, times, "T2", geometry)


def test_wrong_kind_shape_and_selection():
    with pytest.raises(EchoSeriesError, match="kind"):
        make(kind="T2*")
    with pytest.raises(EchoSeriesError, match="do not fit the grid"):
        EchoSeries(np.ones((2, 3, 3, 3)), (1, 2), "T2", GEOMETRY)
    series = make().select([0, 3])
    np.testing.assert_array_equal(series.times_ms, (0, 80))
