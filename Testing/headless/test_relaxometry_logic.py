"""DiscRelaxometryLogic, headless: series to maps to tables, on a phantom with known values and on the real person."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.headless import start_headless

start_headless()

import DiscRelaxometry as module  # noqa: E402
from DiscRelaxometry import DiscRelaxometryLogic  # noqa: E402
from DiscRelaxometryLib import mrml  # noqa: E402
from DiscRelaxometryLib.echo.read import EchoSeries  # noqa: E402
from DiscRelaxometryLib.errors import Cancelled, DiscRelaxometryError, EchoSeriesError  # noqa: E402
from DiscRelaxometryLib.image import Geometry, Image  # noqa: E402

TIMES = np.array([0.0, 20.0, 40.0, 80.0])


def geometry() -> Geometry:
    """A sagittal grid: i runs posterior, j caudal, k to the patient's left; oblique by 10 degrees."""
    a = np.deg2rad(10)
    tilt = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    axes = np.array([[0, 0, 1.0], [1.0, 0, 0], [0, -1.0, 0]])
    return Geometry((48, 40, 9), (1.0, 1.0, 4.0), (-16, -20, 20), (tilt @ axes).ravel())


def phantom():
    """Return labels of two discs and a noise-free series with T1rho 80 ms (L4-L5), 120 ms (L5-S1), 30 ms elsewhere."""
    grid = geometry()
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:8, 8:16, 8:40] = 12
    labels[1:8, 26:34, 8:40] = 11
    value = np.select([labels == 12, labels == 11], [80.0, 120.0], 30.0)
    m0 = 1000 + 5.0 * np.arange(grid.size[0])
    echoes = m0 * np.exp(-TIMES[:, None, None, None] / value)
    return Image(labels, grid), EchoSeries(echoes.astype(np.float32), TIMES, "T1rho", grid), value


def test_series_to_maps_to_tables(slicer, tmp_path):
    labels, series, truth = phantom()
    logic = DiscRelaxometryLogic()
    sequence = mrml.sequence_from_series(series, "spin lock")
    segmentation = mrml.segmentation_from_labels(labels, "Discs")
    seen = []
    maps = logic.computeMaps(sequence, align="off", progressCallback=lambda f, t: seen.append(f))
    assert {"T1rho", "M0", "SE", "R2", "status"} <= set(maps) and max(seen) == 1.0
    np.testing.assert_allclose(slicer.util.arrayFromVolume(maps["T1rho"]), truth, rtol=1e-5)
    assert maps["T1rho"].GetVoxelValueUnits().GetCodeValue() == "ms"
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(n)) for n in maps.values()}
    assert len(folders) == 1 and hierarchy.GetItemName(folders.pop()) == "spin lock maps"
    tables = logic.measure(segmentation, maps)
    discs = mrml.table_from_node(tables["discs"])
    assert discs["level"] == ["L4-L5", "L5-S1"]
    assert discs["T1rho_mean"] == pytest.approx([80, 120], rel=1e-5)
    assert discs["volume"] == pytest.approx([7 * 8 * 32 * 4 / 1000] * 2)
    regions = mrml.table_from_node(tables["regions"])
    assert {"nucleus"} <= set(regions["region"])
    paths = logic.exportTables(tables, tmp_path / "out")
    assert [p.suffix for p in paths] == [".tsv", ".tsv"] and paths[0].with_suffix(".json").exists()
    assert "80" in paths[0].read_text()


def test_maps_only_inside_the_discs(slicer):
    labels, series, truth = phantom()
    maps = DiscRelaxometryLogic().computeMaps(mrml.sequence_from_series(series, "s"), align="off",
                                              segmentationNode=mrml.segmentation_from_labels(labels, "Discs"))
    values = slicer.util.arrayFromVolume(maps["T1rho"])
    np.testing.assert_array_equal(np.isfinite(values), labels.array > 0)


def test_motion_is_found_and_the_aligned_series_is_kept(slicer):
    from scipy import ndimage

    labels, series, truth = phantom()
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=truth.shape), (0.5, 2, 2))
    y, x = np.mgrid[:40, :48]
    body = ((y - 20) / 17)**2 + ((x - 24) / 21)**2 < 1
    echoes = (1000 * (1 + 4 * texture) * body * np.exp(-TIMES[:, None, None, None] / truth)).astype(np.float32)
    echoes[2] = np.roll(echoes[2], 3, axis=1)
    moved = mrml.sequence_from_series(EchoSeries(echoes, TIMES, "T1rho", series.geometry), "moved")
    logic = DiscRelaxometryLogic()
    maps = logic.computeMaps(moved, align="auto")
    fitted = maps["T1rho"].GetNodeReference(mrml.FITTED_SERIES)
    assert fitted.GetName() == "moved aligned" and "aligned" in maps["T1rho"].GetAttribute("DiscRelaxometry.Notes")
    motion = mrml.table_from_node(slicer.util.getNode("moved motion"))
    # The echo was shifted by three voxels of 1 mm along j, which runs caudal.
    assert motion["shift_cranial"][2] == pytest.approx(-3, abs=0.2) and motion["aligned"][2] == 1
    raw = logic.computeMaps(moved, align="off")
    inside = ndimage.binary_erosion(labels.array == 12, iterations=2)
    error = [np.nanmedian(np.abs(slicer.util.arrayFromVolume(m["T1rho"])[inside] - 80)) for m in (maps, raw)]
    assert error[0] < error[1] / 2


def test_volumes_with_typed_times_give_the_same_map(slicer):
    _, series, truth = phantom()
    volumes = [mrml.volume_from_image(series.echo(n), f"echo {n}") for n in range(4)]
    logic = DiscRelaxometryLogic()
    with pytest.raises(EchoSeriesError, match="type them"):
        logic.computeMaps(volumes, kind="T1rho", align="off")
    with pytest.raises(EchoSeriesError, match="T1rho or a T2"):
        logic.computeMaps(volumes, timesMs=TIMES, align="off")
    maps = logic.computeMaps(volumes, timesMs=TIMES, kind="T2", align="off")
    np.testing.assert_allclose(slicer.util.arrayFromVolume(maps["T2"]), truth, rtol=1e-5)


def test_cancel_leaves_the_scene_as_it_was(slicer):
    _, series, _ = phantom()
    sequence = mrml.sequence_from_series(series, "s")
    before = slicer.mrmlScene.GetNumberOfNodes()

    def cancel(fraction, text):
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        DiscRelaxometryLogic().computeMaps(sequence, align="off", progressCallback=cancel)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_load_echo_series_from_files(slicer, tmp_path):
    from support.echo_writer import write_echo_series

    _, series, _ = phantom()
    written = write_echo_series(series, tmp_path / "sub-01_T1rho.nii.gz")
    logic = DiscRelaxometryLogic()
    sequence = logic.loadEchoSeries(written)
    back = mrml.series_from_nodes(sequence)
    np.testing.assert_allclose(back.times_ms, TIMES)
    np.testing.assert_allclose(back.echoes, series.echoes)
    assert back.kind == "T1rho" and back.geometry.difference(series.geometry, 1e-3) == ""
    with pytest.raises(DiscRelaxometryError):
        logic.loadEchoSeries(tmp_path / "nothing")


def test_levels_and_positions(slicer):
    labels, _, _ = phantom()
    logic = DiscRelaxometryLogic()
    node = mrml.segmentation_from_labels(labels, "Discs")
    centers = mrml.segment_centers(node)
    expected = labels.geometry.index_to_world(np.argwhere(labels.array == 12)[:, ::-1].mean(axis=0))
    # Slicer returns the center of a voxel near the middle.
    assert np.abs(np.array(centers["L4L5"]) * [-1, -1, 1] - expected).max() < 4.1
    logic.shiftLevels(node, 1)
    assert node.GetSegmentation().GetSegment("L5S1").GetName() == "L4-L5"


def test_measure_without_a_segmentation_in_the_volume_says_so(slicer):
    node = mrml.add_node("vtkMRMLSegmentationNode", "empty")
    with pytest.raises(DiscRelaxometryError, match="no reference volume"):
        DiscRelaxometryLogic().measure(node)


def test_export_needs_a_folder(slicer):
    with pytest.raises(DiscRelaxometryError, match="folder"):
        DiscRelaxometryLogic().exportTables({}, "")


def test_parameter_node_defaults(slicer):
    parameters = DiscRelaxometryLogic().getParameterNode()
    assert parameters.inputVolume is None and parameters.times == [] and parameters.model.value == "mono2/nlls"


def test_the_modules_self_test_passes(slicer):
    module.DiscRelaxometryTest().runTest()


def test_normalized_signal_of_the_real_person(slicer):
    """Discs are darker than cerebrospinal fluid, and the fluid's median is one by definition."""
    from DiscRelaxometryWidgets.sample_data import load_person

    volume, segmentation = load_person()
    node = DiscRelaxometryLogic().normalizeSignal(volume, segmentation)
    labels = mrml.labels_from_segmentation(segmentation, volume)
    values = slicer.util.arrayFromVolume(node)
    discs = [float(np.nanmedian(values[labels.array == v])) for v in (11, 12, 13, 14, 15)]
    assert all(0.02 < d < 0.8 for d in discs), discs
    assert node.GetVoxelValueUnits().GetCodeValue() == "1" and "this is not T2" in node.GetDescription()


def test_dicom_export_of_nodes(slicer, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    labels, series, truth = phantom()
    logic = DiscRelaxometryLogic()
    maps = logic.computeMaps(mrml.sequence_from_series(series, "spin lock"), align="off")
    segmentation = mrml.segmentation_from_labels(labels, "Discs")
    paths = logic.exportDicom(tmp_path / "dicom", maps, segmentation, subject="P7", algorithm="Test")
    assert {"T1rho.dcm", "M0.dcm", "segmentation.dcm"} <= {p.name for p in paths}
    assert "status.dcm" not in {p.name for p in paths}
    dataset = pydicom.dcmread(tmp_path / "dicom" / "T1rho.dcm")
    assert dataset.PatientID == "P7"
    np.testing.assert_allclose(np.sort(dataset.pixel_array, None), np.sort(truth, None), rtol=1e-5)
    discs = pydicom.dcmread(tmp_path / "dicom" / "segmentation.dcm")
    assert [s.SegmentLabel for s in discs.SegmentSequence] == ["L5-S1", "L4-L5"]
    assert int(discs.pixel_array.sum()) == np.count_nonzero(labels.array)


def test_estimated_grades_are_kept_with_the_discs_and_marked(slicer):
    from support.grade_phantom import spine

    pytest.importorskip("onnxruntime")
    image, labels = spine((10, 25, 60, 110, 150, 190))
    volume, discs = mrml.volume_from_image(image, "T2w"), mrml.segmentation_from_labels(labels, "Discs")
    table = mrml.table_from_node(DiscRelaxometryLogic().gradeDiscs(volume, discs))
    assert "pfirrmann_estimated" in table.names and "pfirrmann" not in table.names and len(table) == 6
    kept = mrml.kept_grades(discs)
    assert len(kept) == 6 and all("not read" in text for _numeral, text in kept.values())
    with pytest.raises(DiscRelaxometryError, match="no T2-weighted image"):
        DiscRelaxometryLogic().gradeDiscs(mrml.volume_from_image(spine(canal=50.0)[0], "T1w"), discs)
    assert mrml.kept_grades(discs) == kept


def test_a_segmentation_marks_the_discs_to_look_at_and_has_their_confidence(slicer):
    labels, _, _ = phantom()
    result = SimpleNamespace(labels=labels, confidence=labels.like(labels.array / np.float32(20)), reason="",
                             discs=[SimpleNamespace(value=v) for v in (11, 12)], flags=["Look at L4-L5."],
                             evidence="S1",
                             quality=[SimpleNamespace(value=11, confidence=0.971, expected_dice=0.9, review=False),
                                      SimpleNamespace(value=12, confidence=0.642, expected_dice=0.7, review=True)])
    volume = mrml.volume_from_image(labels.like(labels.array.astype(np.float32)), "T2w")
    found = DiscRelaxometryLogic().showSegmentation(result, volume)
    tags = {segment.GetName(): [mrml.segment_tag(segment, mrml.ATTRIBUTE + n) for n in ("Confidence", "Review")]
            for _, _, segment in mrml.discs_of(found.segmentation)}
    assert tags == {"L5-S1": ["0.971", ""], "L4-L5": ["0.642", "review"]}
    assert found.flags == ["Look at L4-L5."] and found.segmentation.GetDescription() == "Look at L4-L5."
