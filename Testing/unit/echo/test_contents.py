"""What an image is: one judgement of DICOM headers, sidecars and NRRD fields."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from support import dicom_samples as samples
from support.echo_writer import write_echo_series

from DiscRelaxometryLib.echo import contents, read_echo_series
from DiscRelaxometryLib.errors import EchoSeriesError
from DiscRelaxometryLib.image import Geometry, Image, write_image

ECHO = ["ORIGINAL", "PRIMARY"]


@pytest.mark.parametrize(("header", "expected"), [
    ({}, ""), ({"ImageType": [*ECHO, "M", "ND"]}, ""), ({"ImageType": [*ECHO, "M_SE", "M", "SE"]}, ""),
    ({"ImageType": [*ECHO, "OTHER"]}, ""), ({"ImageType": [*ECHO, "T2", "NONE"]}, ""),
    ({"ImageType": "ORIGINAL\\PRIMARY\\P\\ND"}, "phase"), ({"ImageType": [*ECHO, "P_FFE", "P", "FFE"]}, "phase"),
    ({"ImageType": [*ECHO, "R_IR", "R", "IR"]}, "real"), ({"ImageType": [*ECHO, "PHASE MAP"]}, "phase"),
    ({"ComplexImageComponent": "IMAGINARY"}, "imaginary"), ({contents.GE_COMPONENT: 2}, "real"),
    ({contents.GE_COMPONENT: 0}, ""), ({contents.PHILIPS_COMPONENT: "P"}, "phase"), ({"0043102F": 1.0}, "phase"),
    ({"Units": "rad"}, "phase"), ({"ImageType": [*ECHO, "LOCALIZER"]}, "localizer"),
    ({"ImageType": ["DERIVED", "PRIMARY", "T2 MAP"]}, "computed"),
    ({"ImageType": [*ECHO, "M", "R2_STAR"]}, "computed"),
    ({"ImageType": [*ECHO, "SUM"]}, "computed"), ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "computed"),
    ({"ImageType": [*ECHO, "MIXED"], "FrameType": [*ECHO, "M", "NONE"]}, "")])
def test_components_and_computed_images(header, expected):
    assert contents.left_out(header) == expected


@pytest.mark.parametrize(("header", "expected"), [
    ({"ScanningSequence": "GR"}, True), ({"ScanningSequence": ["EP", "GR"]}, True),
    ({"ScanningSequence": "SE"}, False), ({"SequenceName": "*tse2d"}, False),
    ({"ScanningSequence": "GR\\SE"}, False), ({"ScanningSequence": "RM"}, False),
    ({"EchoPulseSequence": "SPIN"}, False),
    ({"EchoPulseSequence": "GRADIENT"}, True), ({"SequenceName": "*fl3d12"}, True),
    ({"ScanningSequence": "EP", "SequenceName": "epfid2d1_64"}, True), ({}, False)])
def test_gradient_echoes(header, expected):
    assert contents.is_gradient_echo(header) == expected


def nifti(folder, name, sidecar, times=(10.0, 20.0, 40.0)):
    """Write one file per echo with its sidecar, and return the folder."""
    for n, time in enumerate(times, start=1):
        echo = np.full((4, 4, 4), 1000 * np.exp(-time / 60), np.float32)
        echo[0, 0] = 0
        write_image(Image(echo, Geometry((4, 4, 4))), folder / f"{name}_e{n}.nii.gz")
        (folder / f"{name}_e{n}.json").write_text(json.dumps({"EchoTime": time / 1000, **sidecar}))
    return folder


@pytest.mark.parametrize(("name", "sidecar"), [("scan", {"ScanningSequence": "GR"}), ("sag_T2star", {}),
                                               ("scan", {"SequenceName": "_fl2d8"}), ("sub-01_MEGRE", {})])
def test_gradient_echoes_are_refused_whatever_the_format(tmp_path, name, sidecar):
    with pytest.raises(EchoSeriesError, match=r"T2\*"):
        read_echo_series(nifti(tmp_path / "nifti", name, sidecar))
    series = read_echo_series(tmp_path / "nifti", "T2", (10, 20, 40))
    if name != "sag_T2star":
        assert any("T2*" in n for n in series.notes)
    if "MEGRE" not in name:
        samples.write_classic(tmp_path / "dicom", (10, 20), lambda d, t: setattr(d, "EchoTime", t),
                              SeriesDescription=name, **sidecar)
        with pytest.raises(EchoSeriesError, match=r"T2\*"):
            read_echo_series(tmp_path / "dicom")


def test_prepared_images_may_have_a_gradient_readout(tmp_path):
    folder = nifti(tmp_path, "T2prep", {"ScanningSequence": "GR"})
    assert read_echo_series(folder).kind == "T2"


@pytest.mark.parametrize(("extra", "why"), [({"ImageType": ["ORIGINAL", "PRIMARY", "P"]}, "phase"),
                                            ({"ImageType": ["DERIVED", "PRIMARY", "M"]}, "derived"),
                                            ({"EchoTime": 0}, "echo time is 0")])
def test_files_that_are_no_echoes_are_counted_and_named(tmp_path, extra, why):
    nifti(tmp_path, "scan", {"ImageType": ["ORIGINAL", "PRIMARY", "M"]})
    (tmp_path / "scan_e9.nii.gz").write_bytes((tmp_path / "scan_e1.nii.gz").read_bytes())
    (tmp_path / "scan_e9.json").write_text(json.dumps({"EchoTime": 0.09, **extra}))
    series = read_echo_series(tmp_path, "T2")
    np.testing.assert_allclose(series.times_ms, (10, 20, 40))
    assert any("1 image(s)" in n and why in n and "scan_e9.nii.gz" in n for n in series.notes)


def test_all_derived_images_are_echoes_with_a_note(tmp_path):
    nifti(tmp_path, "scan", {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]})
    assert any("derived" in n for n in read_echo_series(tmp_path).notes)


def test_nrrd_fields_say_what_dicom_says(tmp_path):
    image = sitk.Compose([sitk.Image(3, 3, 3, sitk.sitkFloat32) + n for n in range(3)])
    image.SetMetaData("MultiVolume.FrameLabels", "10,20,40")
    image.SetMetaData("MultiVolume.FrameIdentifyingDICOMTagName", "EchoTime")
    image.SetMetaData("MultiVolume.DICOM.ComplexImageComponent", "PHASE")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(EchoSeriesError, match="phase"):
        read_echo_series(tmp_path / "a.nrrd")


def test_colors_are_no_echoes(tmp_path):
    for name in ("a_T2.nii", "a_T2.nrrd", "a_T2.mha"):
        sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / name))
        with pytest.raises(EchoSeriesError, match="3 values per voxel"):
            read_echo_series(tmp_path / name, "T2", (10, 20, 40))


def test_a_kind_that_contradicts_the_files_is_said_and_its_times_are_not_taken(tmp_path):
    folder = nifti(tmp_path / "nifti", "sub-01_MESE", {})
    with pytest.raises(EchoSeriesError, match="no spin-lock times"):
        read_echo_series(folder, "T1rho")
    assert any("says T2" in n for n in read_echo_series(folder, "T1rho", (0, 10, 40)).notes)
    samples.write_classic(tmp_path / "dicom", (10, 20), lambda d, t: setattr(d, "EchoTime", t))
    with pytest.raises(EchoSeriesError, match="EchoTime = 10, 20"):
        read_echo_series(tmp_path / "dicom", "T1rho")
    assert len(read_echo_series(tmp_path / "dicom", "T1rho", time_tag="EchoTime")) == 2


def test_written_series_read_back_with_what_was_said(tmp_path):
    series = read_echo_series(nifti(tmp_path / "in", "scan", {}))
    assert read_echo_series(write_echo_series(series, tmp_path / "scan.nii.gz")).kind == "T2"
