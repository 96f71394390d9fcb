"""DICOM echo series: vendors' conventions, sorting, units, and one clear sentence for each fault."""

import numpy as np
import pytest
from support import dicom_samples as samples
from support import shared_data

from DiscRelaxometryLib.echo.read import read_echo_series, read_mapss
from DiscRelaxometryLib.errors import EchoSeriesError

TSL = (0, 10, 40, 80)
TE = (12.5, 25.0, 37.5, 50.0)


def set_echo_time(dataset, t):
    dataset.EchoTime = t


def test_classic_files_are_sorted_by_position_and_time_not_by_name(tmp_path):
    samples.write_classic(tmp_path, TE, set_echo_time)
    series = read_echo_series(tmp_path)
    assert series.kind == "T2"
    np.testing.assert_array_equal(series.times_ms, TE)
    np.testing.assert_allclose(series.echoes, samples.expected(TE), atol=0.51)
    geometry = series.geometry
    assert geometry.size == (samples.COLUMNS, samples.ROWS, samples.SLICES)
    # PixelSpacing is row spacing, then column spacing: x uses the second.
    np.testing.assert_allclose(geometry.spacing, (0.625, 0.75, 4.0), atol=1e-5)
    for n in range(samples.SLICES):
        np.testing.assert_allclose(geometry.index_to_world((0, 0, n)), samples.position(n), atol=1e-4)
    step = geometry.index_to_world((1, 0, 0)) - geometry.index_to_world((0, 0, 0))
    np.testing.assert_allclose(step, samples.ORIENTATION[:3] * 0.625, atol=1e-5)


def test_slices_stored_from_the_far_side_give_the_same_volume(tmp_path):
    samples.write_classic(tmp_path / "a", TE, set_echo_time, seed=1)
    samples.write_classic(tmp_path / "b", TE, set_echo_time, seed=2)
    first, second = read_echo_series(tmp_path / "a"), read_echo_series(tmp_path / "b")
    np.testing.assert_array_equal(first.echoes, second.echoes)
    assert first.geometry == second.geometry


def comment(dataset, t):
    dataset.EchoTime, dataset.ImageComments = 3.2, f"TSL: {t} ms"
    dataset.SeriesDescription = "T1rho SAG"


def test_one_image_without_the_time_that_the_others_have_is_named(tmp_path):
    odd = samples.write_classic(tmp_path, TSL, comment)[2]
    rewrite(odd, lambda d: setattr(d, "ImageComments", "repeated"))
    with pytest.raises(EchoSeriesError, match=f"'{odd.name}' has no time in .*where others have one"):
        read_echo_series(tmp_path)


def description(dataset, t):
    dataset.EchoTime, dataset.SeriesDescription = 3.2, f"t1rho_TSL{t}ms_500Hz"


def sequence_name(dataset, t):
    dataset.EchoTime, dataset.SeriesDescription, dataset.SequenceName = 3.2, "T1rho", f"*tsl_{t * 1000:g}us"


def inversion_time(dataset, t):
    dataset.EchoTime, dataset.InversionTime, dataset.ProtocolName = 3.2, t, "spin-lock FFE"


def trigger_time(dataset, t):
    dataset.EchoTime, dataset.TriggerTime, dataset.ProtocolName = 3.2, t, "CubeQuant T1rho"


def echo_time(dataset, t):
    dataset.EchoTime, dataset.SeriesDescription = t, "Sag T1Rho"


@pytest.mark.parametrize("mark", [comment, description, sequence_name, inversion_time, trigger_time, echo_time])
@pytest.mark.parametrize("vendor", ["GE MEDICAL SYSTEMS", "SIEMENS", "Philips Medical Systems"])
def test_spin_lock_times_are_found_where_vendors_put_them(tmp_path, mark, vendor):
    samples.write_classic(tmp_path, TSL, mark, vendor=vendor)
    series = read_echo_series(tmp_path)
    assert series.kind == "T1rho"
    np.testing.assert_allclose(series.times_ms, TSL)
    np.testing.assert_allclose(series.echoes, samples.expected(TSL), atol=0.51)
    assert any("Times read from" in note for note in series.notes)


def test_unknown_places_are_listed_and_can_be_named(tmp_path):
    def private(dataset, t):
        dataset.EchoTime, dataset.SeriesDescription = 3.2, "T1rho"
        dataset.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0xB6, "DS", str(t))

    samples.write_classic(tmp_path, TSL, private, vendor="GE MEDICAL SYSTEMS")
    with pytest.raises(EchoSeriesError, match=r"no spin-lock times.*time_tag.*001910B6 = 0, 10, 40, 80"):
        read_echo_series(tmp_path)
    series = read_echo_series(tmp_path, time_tag="(0019,10B6)")
    np.testing.assert_allclose(series.times_ms, TSL)
    given = read_echo_series(tmp_path, times_ms=TSL)
    np.testing.assert_array_equal(given.echoes, series.echoes)
    (tmp_path / "times.json").write_text('{"SpinLockTime": [0, 0.01, 0.04, 0.08]}')
    np.testing.assert_allclose(read_echo_series(tmp_path).times_ms, TSL)


def test_one_series_a_spin_lock_time_is_joined(tmp_path):
    for n, t in enumerate(TSL):
        samples.write_classic(tmp_path / str(n), [t], description, series=f"1.2.{n}")
    series = read_echo_series(tmp_path)
    np.testing.assert_allclose(series.times_ms, TSL)
    assert any("joined" in note for note in series.notes)


@pytest.mark.parametrize("vendor", ["SIEMENS", "Philips Medical Systems"])
def test_enhanced_multiframe(tmp_path, vendor):
    path = samples.save(samples.enhanced(TE, vendor, SeriesDescription="T2 MESE"), tmp_path / "enhanced.dcm")
    series = read_echo_series(path)
    np.testing.assert_array_equal(series.times_ms, TE)
    np.testing.assert_allclose(series.echoes, samples.expected(TE), atol=0.3)
    np.testing.assert_allclose(series.geometry.spacing, (0.625, 0.75, 4.0), atol=1e-5)


def test_philips_scaling_makes_frames_comparable(tmp_path):
    path = samples.save(samples.enhanced(TE, "Philips Medical Systems", philips_scale=True), tmp_path / "enhanced.dcm")
    series = read_echo_series(path)
    # Stored values are signal * 0.4; FP = SV / SS with SS = 0.02 is signal * 20, whatever each frame's slope.
    np.testing.assert_allclose(series.echoes / 20, samples.expected(TE), atol=1.3)


def test_real_big_endian_ge_series():
    series = read_echo_series(shared_data("relaxometry/knee_mese_ge_dicom"))
    np.testing.assert_allclose(series.times_ms, 6.312 * np.arange(1, 9), atol=1e-3)
    assert series.echoes.shape == (8, 8, 256, 256) and series.kind == "T2"
    np.testing.assert_allclose(series.geometry.spacing, (0.625, 0.625, 4.0), atol=1e-4)
    # A byte-order mistake gives noise; the signal decays in the mean from the first echo on.
    assert np.all(np.diff(series.echoes.mean(axis=(1, 2, 3))) < 0)


def test_knee_map_is_plausible():
    from DiscRelaxometryLib.fit import FitOptions, fit_relaxation

    series = read_echo_series(shared_data("relaxometry/knee_mese_ge_dicom"))
    t2 = fit_relaxation(series, FitOptions(echoes=range(1, 8))).value
    # The femoral cartilage crosses these columns of slice 6 as a trough between marrow and joint fluid.
    cartilage = np.nanmin(t2[6, 134:142, 112:150], axis=0)
    assert 30 < np.median(cartilage) < 60
    muscle = np.nanmedian(t2[1, 120:180, 190:215])
    assert 25 < muscle < 45
    assert np.nanmedian(t2[6, 90:120, 110:150]) > 80


def test_no_identity_in_metadata(tmp_path):
    samples.write_classic(tmp_path, TE, set_echo_time)
    text = str(read_echo_series(tmp_path).meta)
    assert not any(word in text for word in ("Doe", "ID4711", "1970", str(tmp_path)))


def mapss_marks(dataset, volume):
    dataset.EchoTime, dataset.SeriesDescription = 3.2, "MAPSS"
    dataset.ImageComments = {0: "", 1: "TSL 10", 2: "TSL 40", 3: "TSL 80", 4: "TE 13.7", 5: "TE 27.3",
                             6: "TE 54.7"}[volume]


def test_mapss_combined_layout(tmp_path):
    samples.write_classic(tmp_path, range(7), mapss_marks)
    t1rho, t2 = read_mapss(tmp_path)
    np.testing.assert_allclose(t1rho.times_ms, (0, 10, 40, 80))
    np.testing.assert_allclose(t2.times_ms, (0, 13.7, 27.3, 54.7))
    np.testing.assert_array_equal(t1rho.echoes[0], t2.echoes[0])
    volumes = samples.expected(range(7))
    np.testing.assert_allclose(t1rho.echoes, volumes[[0, 1, 2, 3]], atol=0.51)
    np.testing.assert_allclose(t2.echoes, volumes[[0, 4, 5, 6]], atol=0.51)


def test_mapss_asks_for_times(tmp_path):
    samples.write_classic(tmp_path, range(7), lambda d, v: setattr(d, "SeriesDescription", "MAPSS"))
    with pytest.raises(EchoSeriesError, match="tsl_ms"):
        read_mapss(tmp_path)
    t1rho, t2 = read_mapss(tmp_path, tsl_ms=TSL, te_ms=(0, 13.7, 27.3, 54.7))
    assert (t1rho.kind, t2.kind) == ("T1rho", "T2")
    with pytest.raises(EchoSeriesError, match="both T1rho and T2"):
        read_echo_series(tmp_path)


def rewrite(path, change):
    import pydicom

    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


FAULTS = {
    "missing image": (lambda paths: paths[4].unlink(), "missing"),
    "missing slice": (lambda paths: [p.unlink() for p in paths[1::5]], "slice\\(s\\) are missing|not uniform"),
    "duplicate": (lambda paths: paths[4].with_name("copy").write_bytes(paths[4].read_bytes()), "same slice"),
    "other matrix": (lambda paths: rewrite(paths[2], lambda d: setattr(d, "Rows", 5)), "another matrix"),
    "other orientation": (lambda paths: rewrite(paths[2], lambda d: setattr(
        d, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0])), "another orientation"),
    "other pixel size": (lambda paths: rewrite(paths[2], lambda d: setattr(d, "PixelSpacing", [1, 1])),
                         "another pixel spacing"),
    "no pixel spacing": (lambda paths: rewrite(paths[2], lambda d: d.pop("PixelSpacing")), "no usable PixelSpacing"),
    "no position": (lambda paths: rewrite(paths[2], lambda d: d.pop("ImagePositionPatient")), "ImagePositionPatient"),
    "moved in plane": (lambda paths: rewrite(paths[2], lambda d: setattr(
        d, "ImagePositionPatient", [d.ImagePositionPatient[0], d.ImagePositionPatient[1] + 3,
                                    d.ImagePositionPatient[2]])), "within its plane|not uniform"),
    "truncated pixels": (lambda paths: paths[3].write_bytes(paths[3].read_bytes()[:-20]), "truncated or damaged"),
    "truncated header": (lambda paths: paths[3].write_bytes(paths[3].read_bytes()[:300]), "truncated or damaged|"
                         "not a plain gray"),
    "color": (lambda paths: rewrite(paths[2], lambda d: setattr(d, "PhotometricInterpretation", "MONOCHROME1")),
              "MONOCHROME1"),
    "second series": (lambda paths: [rewrite(p, lambda d: setattr(d, "SeriesInstanceUID", "9.9")) for p in paths[:4]],
                      "mix 2 series"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path, fault):
    change, message = FAULTS[fault]
    paths = samples.write_classic(tmp_path, TE, set_echo_time, slices=5)
    change(paths)
    with pytest.raises(EchoSeriesError, match=message):
        read_echo_series(tmp_path)


def test_series_can_be_chosen(tmp_path):
    samples.write_classic(tmp_path / "a", TE, set_echo_time)
    samples.write_classic(tmp_path / "b", TE[:3], set_echo_time, series="1.2.4")
    for path in (tmp_path / "b").iterdir():
        rewrite(path, lambda d: setattr(d, "SeriesNumber", 8))
    assert len(read_echo_series(tmp_path, series=8)) == 3
    with pytest.raises(EchoSeriesError, match="no series 9"):
        read_echo_series(tmp_path, series=9)


def test_phase_images_are_left_out_and_said(tmp_path):
    samples.write_classic(tmp_path, TE, set_echo_time)
    samples.write_classic(tmp_path / "phase", TE, set_echo_time, ImageType=["ORIGINAL", "PRIMARY", "P"])
    series = read_echo_series(tmp_path)
    assert len(series) == 4 and any("left out" in note for note in series.notes)


def test_overflow_and_empty_echo(tmp_path):
    paths = samples.write_classic(tmp_path, TE, set_echo_time, PixelRepresentation=1)
    first = next(p for p in paths if b"\0" in p.read_bytes())
    rewrite(first, lambda d: setattr(d, "PixelData", np.array([32760, -32000] * 15, "<i2").tobytes()))
    with pytest.raises(EchoSeriesError, match="integer limit"):
        read_echo_series(tmp_path)


def test_empty_echo_has_to_be_left_out(tmp_path):
    import pydicom

    for path in samples.write_classic(tmp_path, TE, set_echo_time):
        if pydicom.dcmread(path).EchoTime == TE[2]:
            rewrite(path, lambda d: setattr(d, "PixelData", bytes(len(d.PixelData))))
    with pytest.raises(EchoSeriesError, match=r"Echo 2 \(37.5 ms\) is empty"):
        read_echo_series(tmp_path)
    series = read_echo_series(tmp_path, skip_echoes=(2,))
    np.testing.assert_array_equal(series.times_ms, [12.5, 25.0, 50.0])


def test_one_volume_and_no_dicom(tmp_path):
    samples.write_classic(tmp_path / "one", [10.0], set_echo_time)
    with pytest.raises(EchoSeriesError, match="at least two echoes"):
        read_echo_series(tmp_path / "one", kind="T2")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("no image")
    with pytest.raises(EchoSeriesError, match="None of the 1 file"):
        read_echo_series(tmp_path / "text")
    with pytest.raises(EchoSeriesError, match="does not exist"):
        read_echo_series(tmp_path / "absent")


def test_single_slice_needs_a_thickness(tmp_path):
    paths = samples.write_classic(tmp_path, TE, set_echo_time, slices=1)
    assert read_echo_series(tmp_path).geometry.spacing[2] == 3.5
    for path in paths:
        rewrite(path, lambda d: d.pop("SliceThickness"))
    with pytest.raises(EchoSeriesError, match="thickness"):
        read_echo_series(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("multiframe", [False, True])
def test_damaged_files_never_crash(tmp_path, multiframe):
    """Truncated anywhere, or with random header bytes: the same numbers, or one clear error."""
    if multiframe:
        path = samples.save(samples.enhanced((10.0, 20.0)), tmp_path / "enhanced.dcm")
    else:
        path = samples.write_classic(tmp_path, (10.0, 20.0), set_echo_time, slices=2)[1]
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in np.linspace(140, len(whole) - 1, 40).astype(int)]
    for _ in range(40):
        changed = bytearray(whole)
        changed[rng.integers(132, len(whole) - 400)] = rng.integers(256)
        damaged.append(bytes(changed))
    errors = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            read_echo_series(tmp_path)
        except EchoSeriesError:
            errors += 1
    assert errors >= 40


def test_lossless_compression_is_read_and_unknown_compression_named(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, RLELossless

    paths = samples.write_classic(tmp_path, TE, set_echo_time)
    plain = read_echo_series(tmp_path)
    for path in paths:
        rewrite(path, lambda d: d.compress(RLELossless))
    np.testing.assert_array_equal(read_echo_series(tmp_path).echoes, plain.echoes)

    def foreign(dataset):
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51 no codestream "])
        dataset["PixelData"].is_undefined_length = True

    rewrite(paths[0], foreign)
    with pytest.raises(EchoSeriesError, match=f"'{paths[0].name}' is (compressed|truncated or damaged)"):
        read_echo_series(tmp_path)
