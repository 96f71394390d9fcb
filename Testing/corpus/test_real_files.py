"""Real small files that pydicom, nibabel and highdicom carry or make, each with what must come out."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from corpus.made_dicom import SLICES, TIMES, decay, write_classic
from DiscRelaxometryLib.echo import read_echo_series
from DiscRelaxometryLib.echo.dicom import read_dicom_volumes
from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import read_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's own, of these files


def package_data(package: str, *folders: str) -> Path:
    """Return a folder of an installed package, or skip."""
    return Path(pytest.importorskip(package).__file__).parent.joinpath(*folders)


#: File of nibabel to size and first voxel spacing (mm).
IMAGES = {"anatomical.nii": ((33, 41, 25), 2.0), "standard.nii.gz": ((4, 5, 7), 1.0),
          "reoriented_anat_moved.nii": ((21, 26, 22), 4.0), "resampled_anat_moved.nii": ((17, 21, 3), 4.0)}


@pytest.mark.parametrize("name", IMAGES)
def test_images_lie_where_nibabel_puts_them(name):
    nibabel = pytest.importorskip("nibabel")
    path = package_data("nibabel", "tests", "data") / name
    (size, spacing), image, other = IMAGES[name], read_image(path), nibabel.load(path)
    assert image.geometry.size == size and image.geometry.spacing[0] == pytest.approx(spacing, abs=1e-4)
    corner = np.array(size) - 1
    expected = (other.affine @ [*corner, 1])[:3] * (-1, -1, 1)
    np.testing.assert_allclose(image.geometry.index_to_world(corner), expected, atol=0.1)
    np.testing.assert_allclose(image.array, other.get_fdata().T, rtol=1e-5)


@pytest.mark.parametrize(("name", "message"), [
    ("example4d.nii.gz", "not a 3-D"), ("functional.nii", "not a 3-D"), ("example_nifti2.nii.gz", "NIfTI-2"),
    ("row_major.dconn.nii", "NIfTI-2"), ("nifti1.hdr", "two files"), ("analyze.hdr", "two files"),
    ("nifti2.hdr", "NIfTI-2"), *((name, "no NIfTI, NRRD or MetaImage") for name in (
        "standard.trk", "phantom_truncated.PAR", "tiny.mnc", "minc2_1_scale.mnc", "test.mgz", "0.dcm",
        "example4d+orig.HEAD", "scaled+tlrc.BRIK"))])
def test_other_files_of_nibabel_are_a_sentence(name, message):
    with pytest.raises(DiscRelaxometryError, match=message):
        read_image(package_data("nibabel", "tests", "data") / name)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "functional.nii"])
def test_series_without_times_ask_for_them(name):
    path = package_data("nibabel", "tests", "data") / name
    with pytest.raises(DiscRelaxometryError, match="T1rho or a T2 series"):
        read_echo_series(path)
    with pytest.raises(DiscRelaxometryError, match="Nothing gives the times"):
        read_echo_series(path, "T2")


SINGLE = ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_RLE.dcm",
          "MR_small_padded.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]


@pytest.mark.parametrize("name", SINGLE)
def test_single_images_are_read_alike_in_every_transfer_syntax(name):
    """The values are those that pydicom decodes from the uncompressed image, at the place that its header states."""
    pydicom = pytest.importorskip("pydicom")
    folder = package_data("pydicom", "data", "test_files")
    plain = pydicom.dcmread(folder / "MR_small.dcm")
    try:
        echoes, geometry, _, _ = read_dicom_volumes([folder / name])
    except DiscRelaxometryError as error:
        assert error.anchor == "compressed", error.message
        pytest.skip(error.message)
    np.testing.assert_array_equal(echoes[0, 0], plain.pixel_array)
    assert geometry.origin == pytest.approx(list(map(float, plain.ImagePositionPatient)))
    assert geometry.spacing[:2] == pytest.approx(list(map(float, plain.PixelSpacing))[::-1])


#: File of pydicom to what its error says.
OTHER = {"CT_small.dcm": "None of the 1", "ExplVR_BigEnd.dcm": "None of the 1", "rtplan.dcm": "None of the 1",
         "no_meta.dcm": "None of the 1", "reportsi.dcm": "None of the 1", "zipMR.gz": "None of the 1",
         "empty_charset_LEI.dcm": "truncated or damaged", "MR_truncated.dcm": "truncated or damaged",
         "README.txt": "None of the 1", "examples_overlay.dcm": "left out, computed images: 'examples_overlay.dcm'",
         "dicomdirtests/DICOMDIR": "mix 6 series", "dicomdirtests/98892003/MR1": "of several examinations",
         "dicomdirtests/98892003/MR700": "7 image.s. or file.s. left out, computed images: '4467'",
         "dicomdirtests/77654033": "None of the 7", "dicomdirtests/TINY_ALPHA": "None of the 51"}


@pytest.mark.parametrize("name", OTHER)
def test_other_dicom_files_are_a_sentence(name):
    path = package_data("pydicom", "data", "test_files") / name
    if not path.exists():
        pytest.skip(f"this pydicom has no {name}")
    with pytest.raises(DiscRelaxometryError, match=OTHER[name]):
        read_echo_series(path, "T2", [10, 20])


#: DICOM file of nibabel to what its error says; the first four have the start of a NIfTI header as preamble.
SCANNERS = {"0.dcm": "mosaic", "1.dcm": "mosaic", "siemens_dwi_0.dcm.gz": "mosaic", "siemens_dwi_1000.dcm.gz": "mosaic",
            "csa_slice_norm.dcm": "mosaic",
            "slicethickness_empty_string.dcm": "left out, computed images",
            "decimal_rescale.dcm": "left out, real images", "philips_mprage.dcm.gz": "at least two"}


@pytest.mark.parametrize("name", SCANNERS)
def test_files_of_scanners(tmp_path, name):
    source = package_data("nibabel", "nicom", "tests", "data") / name
    path = tmp_path / name.removesuffix(".gz")
    path.write_bytes(gzip.decompress(source.read_bytes()) if name.endswith(".gz") else source.read_bytes())
    with pytest.raises(DiscRelaxometryError, match=SCANNERS[name]):
        read_echo_series([path], "T2", [80])


def test_enhanced_images_lie_where_their_frames_say(tmp_path):
    """A Philips multi-frame volume, whose frames pydicom gives one by one."""
    pydicom = pytest.importorskip("pydicom")
    path = tmp_path / "enhanced.dcm"
    source = package_data("nibabel", "nicom", "tests", "data") / "philips_mprage.dcm.gz"
    path.write_bytes(gzip.decompress(source.read_bytes()))
    echoes, geometry, _, _ = read_dicom_volumes([path])
    dataset, corner = pydicom.dcmread(path), (geometry.size[0] - 1, geometry.size[1] - 1)
    for group, pixels in zip(dataset.PerFrameFunctionalGroupsSequence[::20], dataset.pixel_array[::20]):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        orientation = np.array(group.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
        steps = np.array(group.PixelMeasuresSequence[0].PixelSpacing, float)[::-1] * corner
        slice_ = round(float(geometry.world_to_index(position)[2]))
        expected = position + steps @ orientation
        assert geometry.index_to_world([*corner, slice_]) == pytest.approx(expected, abs=0.05)
        ratio = echoes[0, slice_][pixels > 0] / pixels[pixels > 0]
        assert np.allclose(ratio, ratio[:1], rtol=1e-5) and not echoes[0, slice_][pixels == 0].any()


@pytest.mark.parametrize("package", ["pydicom", "nibabel", "highdicom"])
def test_no_file_of_other_packages_ends_in_a_traceback(package):
    root = package_data(package)
    files = [f for f in root.rglob("*") if f.is_file() and "__pycache__" not in f.parts
             and f.suffix not in (".py", ".pyi") and f.stat().st_size < 1 << 20]
    assert files
    for file in files:
        with pytest.raises(DiscRelaxometryError):
            read_echo_series([file], "T2")


def test_a_legacy_converted_series_of_highdicom_is_the_series(tmp_path):
    """Highdicom puts the classic images into one multi-frame file."""
    pydicom, highdicom = pytest.importorskip("pydicom"), pytest.importorskip("highdicom")
    from highdicom.legacy import LegacyConvertedEnhancedMRImage

    def identify(dataset, echo, place):
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                        "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"):
            setattr(dataset, keyword, "")
        dataset.FrameOfReferenceUID, dataset.SequenceVariant, dataset.ScanOptions = "1.2.3.5", "NONE", ""
        dataset.AcquisitionNumber, dataset.MRAcquisitionType, dataset.PatientPosition = 1, "2D", "HFS"

    folder = write_classic(tmp_path / "classic", identify)
    datasets = [pydicom.dcmread(f) for f in sorted(folder.iterdir())]
    converted = LegacyConvertedEnhancedMRImage(datasets, highdicom.UID(), 7, highdicom.UID(), 1)
    converted.save_as(tmp_path / "legacy.dcm")
    series, classic = read_echo_series(tmp_path / "legacy.dcm"), read_echo_series(folder)
    assert series.times_ms == pytest.approx(TIMES) and not classic.geometry.difference(series.geometry)
    np.testing.assert_array_equal(series.echoes, classic.echoes)
    assert series.echoes[0, :, 4, 4] == pytest.approx([round(decay(TIMES[0]))] * SLICES)
