"""DICOM export: read back frame by frame with pydicom alone, checked by dciodvfy, free of foreign identity."""

import copy
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from support import dicom_samples as samples
from support.disc_phantoms import label_image

from DiscRelaxometryLib.dicom_export import export_study
from DiscRelaxometryLib.echo.read import read_echo_series
from DiscRelaxometryLib.errors import DiscRelaxometryError, OutputError, SegmentationError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import BY_VALUE

CIELabColor = pytest.importorskip("highdicom").color.CIELabColor


@pytest.fixture(scope="module", params=["oblique", "left_handed"])
def exported(request, tmp_path_factory):
    labels = label_image(request.param)
    t1rho = np.where(labels.array > 10, 60.25 + labels.array, np.nan).astype(np.float32)
    t1rho += np.linspace(0, 1, t1rho.shape[0], dtype=np.float32)[:, None, None]
    maps = {"T1rho": labels.like(t1rho), "T2": labels.like(t1rho / 2)}
    folder = tmp_path_factory.mktemp("export")
    return labels, maps, export_study(folder, maps, labels, algorithm="Disc CNN")


def frames(dataset, pixels):
    """Yield (segment number, pixels, LPS of the first pixel, steps to the next column and row) of each frame."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for group, frame in zip(dataset.PerFrameFunctionalGroupsSequence, pixels):
        def get(name, group=group):
            return (group if name in group else shared)[name].value[0]

        row, column = np.array(get("PlaneOrientationSequence").ImageOrientationPatient, float).reshape(2, 3)
        down, across = (float(v) for v in get("PixelMeasuresSequence").PixelSpacing)
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber) \
            if "SegmentIdentificationSequence" in group else 0
        first = np.array(get("PlanePositionSequence").ImagePositionPatient, float)
        yield segment, frame, first, row * across, column * down


def compare(image: Image, found: list) -> int:
    """Compare each frame with the image at the frame's own positions; return voxels compared."""
    count = 0
    for frame, first, across, down in found:
        index = np.argwhere(np.ones(frame.shape, bool))
        points = first + index[:, 1:] * across + index[:, :1] * down
        ijk = np.rint(image.geometry.world_to_index(points)).astype(int)
        np.testing.assert_allclose(image.geometry.index_to_world(ijk), points, atol=2e-2)
        np.testing.assert_array_equal(frame.ravel(), image.array[tuple(ijk.T[::-1])])
        count += frame.size
    return count


def test_parametric_maps_read_back_where_they_belong(exported):
    labels, maps, paths = exported
    for key, path in zip(("T1rho", "T2"), paths):
        dataset = pydicom.dcmread(path)
        assert dataset.SOPClassUID.name == "Parametric Map Storage"
        pixels = dataset.pixel_array
        assert pixels.dtype == np.float32
        found = [f[1:] for f in frames(dataset, pixels)]
        assert compare(maps[key], found) == labels.array.size
        mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "ms"
        quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
        expected = ("T1RHO", "99DISCRELAX") if key == "T1rho" else ("113065", "DCM")
        assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == expected
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
        mapped = (mapping.DoubleFloatRealWorldValueFirstValueMapped, mapping.DoubleFloatRealWorldValueLastValueMapped)
        assert mapped == pytest.approx((np.nanmin(maps[key].array), np.nanmax(maps[key].array)))
        window = dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
        assert (float(window.WindowCenter), float(window.WindowWidth)) == (80, 160)


def test_frames_of_a_map_run_along_the_normal(exported):
    """Not demanded by DICOM, but dcmqi, Slicer's importer, shuffles the slices otherwise."""
    dataset = pydicom.dcmread(exported[2][0])
    found = list(frames(dataset, dataset.pixel_array))
    normal = np.cross(found[0][3], found[0][4])
    assert np.all(np.diff([first @ normal for _, _, first, *_ in found]) > 0)


def test_dcmqi_imports_what_was_exported(exported, tmp_path):
    if not (shutil.which("paramap2itkimage") and shutil.which("segimage2itkimage")):
        pytest.skip("dcmqi (pip install dcmqi), Slicer's importer, is not installed")
    labels, maps, paths = exported
    for program, path in (("paramap2itkimage", paths[0]), ("segimage2itkimage", paths[-1])):
        subprocess.run([program, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path), "-t", "nrrd"],
                       check=True, capture_output=True)
    for file, expected in ((tmp_path / "pmap.nrrd", np.nan_to_num(maps["T1rho"].array)),
                           *((tmp_path / f"{n}.nrrd", n * (labels.array == v)) for n, v in enumerate(
                               (2, 11, 12, 13), 1))):
        image = sitk.ReadImage(str(file))
        array = np.nan_to_num(sitk.GetArrayFromImage(image))
        where = np.argwhere(array != 0)
        assert len(where) == np.count_nonzero(expected)
        matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        points = where[:, ::-1] @ matrix.T + image.GetOrigin()
        index = np.rint(labels.geometry.world_to_index(points)).astype(int)
        np.testing.assert_array_equal(array[tuple(where.T)], expected[tuple(index.T[::-1])])


def test_segmentation_reads_back_with_snomed_codes(exported):
    labels, _, paths = exported
    dataset = pydicom.dcmread(paths[-1])
    codes = {}
    for segment in dataset.SegmentSequence:
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        codes[segment.SegmentNumber] = (segment.SegmentLabel, code.CodeValue, code.CodingSchemeDesignator)
        assert segment.SegmentAlgorithmName == "Disc CNN"
        color = BY_VALUE[(2, 11, 12, 13)[segment.SegmentNumber - 1]].color
        assert tuple(segment.RecommendedDisplayCIELabValue) == CIELabColor.from_rgb(*color).value
    assert codes == {n: (BY_VALUE[v].name, BY_VALUE[v].snomed[0], "SCT") for n, v in enumerate((2, 11, 12, 13), 1)}
    voxels = dict.fromkeys(codes, 0)
    for segment, pixels, *place in frames(dataset, dataset.pixel_array):
        value = (2, 11, 12, 13)[segment - 1]
        compare(labels.like((labels.array == value).astype(np.uint8)), [(pixels, *place)])
        voxels[segment] += int(pixels.sum())
    assert voxels == {n: np.count_nonzero(labels.array == v) for n, v in enumerate((2, 11, 12, 13), 1)}


def test_objects_form_one_study_without_dangling_references(exported):
    datasets = [pydicom.dcmread(p, stop_before_pixels=True) for p in exported[2]]
    for keyword, count in (("StudyInstanceUID", 1), ("FrameOfReferenceUID", 1), ("SeriesInstanceUID", 3),
                           ("SOPInstanceUID", 3)):
        assert len({d[keyword].value for d in datasets}) == count, keyword
    assert not any("ReferencedSeriesSequence" in d for d in datasets)


def test_dciodvfy_finds_no_error(exported):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    for path in exported[2]:
        found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        lines = (found.stdout + found.stderr).splitlines()
        assert lines and not [line for line in lines if line.startswith("Error")], path.name


def write_source(folder):
    def mark(dataset, t):
        dataset.EchoTime, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = t, "1.2.840.1", "1.2.840.2"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "", "9", "A1"
        dataset.PatientSex, dataset.ReferringPhysicianName, dataset.PositionReferenceIndicator = "F", "", ""
        dataset.InstitutionName, dataset.OperatorsName = "Secret Hospital", "Op^Secret"
        dataset.ImageComments, dataset.PatientComments = "Secret remark", "Secret patient remark"

    return samples.write_classic(folder, (10.0, 20.0), mark)


def test_with_a_source_the_study_is_joined_and_nothing_else_leaks(tmp_path):
    write_source(tmp_path / "source")
    series = read_echo_series(tmp_path / "source")
    image = Image(series.echoes[0], series.geometry)
    labels = image.like(np.where(np.arange(image.array.size).reshape(image.array.shape) % 3, 0, 12).astype(np.uint8))
    paths = export_study(tmp_path / "out", {"T2": image}, labels, tmp_path / "source")
    source_uids = {pydicom.dcmread(p).SOPInstanceUID for p in (tmp_path / "source").iterdir()}
    for path in paths:
        dataset = pydicom.dcmread(path)
        assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == ("1.2.840.1", "1.2.840.2")
        assert (dataset.PatientName, dataset.PatientID) == ("Doe^Jane", "ID4711")
        assert "Secret" not in str(dataset)
        references = {i.ReferencedSOPInstanceUID for s in dataset.ReferencedSeriesSequence
                      for i in s.ReferencedInstanceSequence}
        assert references and references <= source_uids
        if shutil.which("dciodvfy"):
            found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
            assert "Error" not in found.stdout + found.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["T2.dcm", "segmentation.dcm"]


def test_a_repeated_export_has_the_same_identifiers(tmp_path):
    labels = label_image("sagittal_4mm")
    uids = [pydicom.dcmread(export_study(tmp_path / str(n), {}, labels)[0]).SOPInstanceUID for n in range(2)]
    assert uids[0] == uids[1]


def test_bad_input_is_named(tmp_path):
    labels = label_image("sagittal_4mm")
    with pytest.raises(SegmentationError, match=r"unknown label values \[99\]"):
        export_study(tmp_path, {}, labels.like(np.where(labels.array == 11, 99, 0)))
    with pytest.raises(SegmentationError, match="empty"):
        export_study(tmp_path, {}, labels.like(np.zeros_like(labels.array)))
    with pytest.raises(DiscRelaxometryError, match="no known quantity"):
        export_study(tmp_path, {"T3": labels})
    with pytest.raises(DiscRelaxometryError, match="nothing to export"):
        export_study(tmp_path, {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiscRelaxometryError, match="no DICOM image"):
        export_study(tmp_path, {"T2": labels}, None, tmp_path / "empty")
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.parametrize("lose", ["a frame", "an element"])
def test_a_cut_export_never_takes_the_place_of_a_whole_one(tmp_path, monkeypatch, lose):
    labels = label_image("oblique")
    maps = {"T2": labels.like(labels.array.astype(np.float32))}
    path = export_study(tmp_path, maps)[0]
    before, save = path.read_bytes(), pydicom.Dataset.save_as

    def cut(self, name, **options):
        part = copy.deepcopy(self)
        if lose == "a frame":
            part.FloatPixelData = part.FloatPixelData[:-4 * part.Rows * part.Columns]
        else:
            del part.SeriesDescription
        save(part, name, **options)

    monkeypatch.setattr(pydicom.Dataset, "save_as", cut)
    with pytest.raises(OutputError, match="could not be written in full"):
        export_study(tmp_path, {"T2": maps["T2"].like(maps["T2"].array + 1)})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
