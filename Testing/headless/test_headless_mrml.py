"""Nodes to arrays and back: geometry to the last digit, terminology, edited segmentations, sequences, tables."""

import numpy as np
import pytest

from DiscRelaxometryLib import labels as structures
from DiscRelaxometryLib import mrml
from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.errors import DiscRelaxometryError, EchoSeriesError, GeometryError, SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.mrml.segmentations import oriented_image, segment_mask, segment_value, terminology_entry
from DiscRelaxometryLib.mrml.views import _in_discs
from DiscRelaxometryLib.mrml.volumes import oriented_geometry, ras_matrix
from DiscRelaxometryLib.tables import Column, Table


def oblique(left_handed=False, size=(5, 4, 3)) -> Geometry:
    direction = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    if (np.linalg.det(direction) < 0) != left_handed:
        direction[:, 2] *= -1
    return Geometry(size, (0.6, 0.7, 4.4), (12.5, -40.0, 7.25), direction.ravel())


def label_image(geometry=None) -> Image:
    array = np.zeros((3, 8, 9), np.uint8)
    array[:, 1:3, 2:6], array[:, 4:6, 2:6], array[1:, 6:8, 7:9] = 12, 11, 2
    return Image(array, geometry or oblique(True, (9, 8, 3)))


@pytest.mark.parametrize("left_handed", [False, True])
def test_volume_round_trip_is_exact(slicer, left_handed):
    image = Image(np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), oblique(left_handed))
    image.array[0, 0, 0] = np.nan
    back = mrml.image_from_volume(mrml.volume_from_image(image, "map", "T1rho"))
    np.testing.assert_array_equal(back.array, image.array)
    assert back.geometry.difference(image.geometry, 1e-9) == ""


def test_ras_of_a_voxel_is_its_lps_with_two_signs_turned(slicer):
    geometry = oblique(True)
    node = mrml.volume_from_image(Image(np.zeros(geometry.shape), geometry), "v")
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ras = matrix.MultiplyPoint([3, 2, 1, 1])[:3]
    np.testing.assert_allclose(mrml.position_from_ras(ras), geometry.index_to_world([3, 2, 1]), atol=1e-9)


def test_file_saved_by_slicer_reads_to_the_same_image(slicer, tmp_path):
    geometry = oblique(False)
    image = Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), geometry)
    slicer.util.saveNode(mrml.volume_from_image(image, "v"), str(tmp_path / "v.nrrd"))
    read = read_image(tmp_path / "v.nrrd")
    assert read.geometry.difference(geometry, 1e-4) == ""
    np.testing.assert_array_equal(read.array, image.array)


def test_linear_parent_transform_moves_the_image_and_a_warp_is_refused(slicer):
    image = Image(np.zeros((3, 4, 5), np.float32), oblique())
    node = mrml.volume_from_image(image, "v")
    parent = mrml.add_node("vtkMRMLLinearTransformNode", "move")
    matrix = np.eye(4)
    matrix[:3, 3] = [1, 2, 3]
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(parent.GetID())
    moved = mrml.image_from_volume(node).geometry
    np.testing.assert_allclose(np.subtract(moved.origin, image.geometry.origin), [-1, -2, 3], atol=1e-9)
    warp = mrml.add_node("vtkMRMLBSplineTransformNode", "warp")
    import vtk
    grid = vtk.vtkThinPlateSplineTransform()
    warp.SetAndObserveTransformToParent(grid)
    node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(GeometryError, match="non-linear"):
        mrml.image_from_volume(node)


def test_empty_or_sheared_volumes_are_refused_in_words(slicer):
    empty = mrml.add_node("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(GeometryError, match="'nothing' is empty"):
        mrml.image_from_volume(empty)
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(GeometryError, match="right angles"):
        mrml.geometry_from_ras(sheared, (2, 2, 2))


def test_map_carries_unit_code_window_and_transparent_nan(slicer):
    array = np.full((3, 4, 5), 50, np.float32)
    array[0] = np.nan
    node = mrml.volume_from_image(Image(array, oblique()), "T2", "T2")
    display = node.GetDisplayNode()
    units = node.GetVoxelValueUnits()
    assert (units.GetCodeValue(), units.GetCodeMeaning()) == ("ms", "millisecond")
    assert node.GetVoxelValueQuantity().GetCodeValue() == "113065"
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 160)
    assert display.GetColorNode().GetName() == "Viridis"
    assert display.GetApplyThreshold() and 49 < display.GetLowerThreshold() < 50 < display.GetUpperThreshold() < 51
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(node)
    assert legend.GetTitleText() == "T2 (ms)"
    assert "relaxation" in node.GetDescription()
    assert mrml.volume_from_image(Image(array, oblique()), "T2", "T2").GetName() != node.GetName()


def test_signal_of_arbitrary_units_is_shown_from_its_1st_to_its_99th_percentile(slicer):
    array = np.random.default_rng(0).permutation(np.linspace(200, 300, 60)).reshape(3, 4, 5)
    display = mrml.volume_from_image(Image(array, oblique()), "M0", "M0").GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((201, 299))


def test_a_map_is_shown_in_named_discs_alone(slicer):
    labels = Image(np.array([[[0, 2, 3, 11, 12, 30, 31]]], np.uint8), Geometry((7, 1, 1)))
    volume = mrml.volume_from_image(labels.like(np.arange(7, dtype=np.float32).reshape(1, 1, 7)), "T2", "T2")
    shown = slicer.util.arrayFromVolume(_in_discs(volume, labels))
    np.testing.assert_array_equal(shown[0, 0], [np.nan, np.nan, np.nan, 3, 4, np.nan, np.nan])


def test_segmentation_round_trip_names_codes_colors_and_reference(slicer):
    labels = label_image()
    volume = mrml.volume_from_image(labels.like(np.zeros(labels.array.shape, np.float32)), "T2w")
    node = mrml.segmentation_from_labels(labels, "Discs", volume, confidence={12: 0.97})
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(3)] == ["L4-L5", "L5-S1", "Spinal canal"]
    segment = segmentation.GetSegment("L5S1")
    assert mrml.segment_tag(segment, "Segmentation.Status") == "inprogress"
    assert "SCT^715056000^" in mrml.segment_tag(segment, segment.GetTerminologyEntryTagName())
    assert mrml.segment_tag(segmentation.GetSegment("L4L5"), "DiscRelaxometry.Confidence") == "0.970"
    np.testing.assert_allclose(np.multiply(segment.GetColor(), 255), structures.BY_VALUE[11].color, atol=1e-6)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    back = mrml.labels_from_segmentation(node)
    np.testing.assert_array_equal(back.array, labels.array)
    assert back.geometry.difference(labels.geometry, 1e-6) == ""
    # Slicer's own export sees the same voxels.
    exported = slicer.util.arrayFromSegmentBinaryLabelmap(node, "L5S1", volume)
    np.testing.assert_array_equal(exported != 0, labels.array == 11)


def test_segmentation_file_keeps_codes_and_label_values(slicer, tmp_path):
    labels = label_image(oblique(False, (9, 8, 3)))
    node = mrml.segmentation_from_labels(labels, "Discs")
    path = tmp_path / "discs.seg.nrrd"
    assert slicer.util.saveNode(node, str(path))
    back = slicer.util.loadSegmentation(str(path))
    np.testing.assert_array_equal(mrml.labels_from_segmentation(back, labels.geometry).array, labels.array)
    # The file remembers the grid, though there is no reference volume.
    remembered = mrml.labels_from_segmentation(back)
    assert remembered.geometry.difference(labels.geometry, 1e-3) == ""
    np.testing.assert_array_equal(remembered.array, labels.array)
    entry = mrml.segment_tag(back.GetSegmentation().GetSegment("L4L5"), "TerminologyEntry")
    assert "84020006" in entry


def test_an_edited_segmentation_is_never_overwritten(slicer):
    labels = label_image()
    node = mrml.segmentation_from_labels(labels, "Discs")
    assert mrml.segmentation_from_labels(labels, "Discs", node=node) is node
    volume = mrml.volume_from_image(labels.like(np.zeros(labels.array.shape, np.float32)), "T2w")
    edited = np.zeros(labels.array.shape, np.uint8)
    edited[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited, node, "L4L5", volume)
    assert mrml.was_edited(node)
    other = mrml.segmentation_from_labels(labels, "Discs", node=node)
    assert other is not node and other.GetName() != node.GetName()
    np.testing.assert_array_equal(
        slicer.util.arrayFromSegmentBinaryLabelmap(node, "L4L5", volume) != 0, edited != 0)


def test_segments_are_found_by_name_or_code_whatever_their_order(slicer):
    labels = label_image()
    node = mrml.segmentation_from_labels(labels, "Discs")
    node.GetSegmentation().GetSegment("L4L5").SetName("the one above")
    node.GetSegmentation().GetSegment("canal").SetName("CSF and more")
    back = mrml.labels_from_segmentation(node, labels.geometry)
    assert set(np.unique(back.array)) == {0, 2, 11, 12}
    foreign = mrml.add_node("vtkMRMLSegmentationNode", "foreign")
    foreign.GetSegmentation().AddEmptySegment("Segment_1", "Segment 1")
    with pytest.raises(SegmentationError, match="names a disc"):
        mrml.labels_from_segmentation(foreign, labels.geometry)


def test_a_code_stands_for_a_structure_that_no_other_shares_it_with(slicer):
    codes = [s.snomed[0] for s in structures.STRUCTURES]
    for structure in structures.STRUCTURES:
        segment = slicer.vtkSegment()
        segment.SetName("outline")
        segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(structure))
        alone = codes.count(structure.snomed[0]) == 1
        assert segment_value(segment, "Segment_1") == (structure.value if alone else None)


def test_an_extent_may_start_anywhere(slicer):
    geometry, image = oblique(True), slicer.vtkOrientedImageData()
    image.SetExtent(2, 4, 3, 7, -1, 4)
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ras_matrix(geometry)))
    found = oriented_geometry(image)
    assert found.size == (3, 5, 6)
    np.testing.assert_allclose(found.origin, geometry.index_to_world((2, 3, -1)), atol=1e-9)


def test_labels_sample_onto_another_grid(slicer):
    labels = label_image()
    node = mrml.segmentation_from_labels(labels, "Discs")
    fine = Geometry((18, 16, 3), (0.3, 0.35, 4.4),
                    labels.geometry.index_to_world([-0.25, -0.25, 0]), labels.geometry.direction)
    sampled = mrml.labels_from_segmentation(node, fine)
    np.testing.assert_array_equal(sampled.array, labels.array.repeat(2, 1).repeat(2, 2))


def test_unknown_or_empty_labels_are_refused(slicer):
    labels = label_image()
    with pytest.raises(SegmentationError, match="no label"):
        mrml.segmentation_from_labels(labels.like(np.zeros_like(labels.array)), "Discs")
    with pytest.raises(SegmentationError, match=r"\[200\]"):
        mrml.segmentation_from_labels(labels.like(np.full_like(labels.array, 200)), "Discs")


def test_table_round_trip_keeps_units_and_empty_cells(slicer):
    table = Table("discs", [Column("level"), Column("volume", "cm3", "Voxel count times voxel volume"), Column("flag")],
                  [{"level": "L4-L5", "volume": 9.25, "flag": "cut_laterally"}, {"level": "L5-S1", "volume": None}])
    node = mrml.table_node(table)
    assert node.GetColumnUnitLabel("volume") == "cm3"
    back = mrml.table_from_node(node)
    assert back["level"] == ["L4-L5", "L5-S1"] and back["flag"] == ["cut_laterally", ""]
    assert back["volume"][0] == 9.25 and np.isnan(back["volume"][1])
    assert back.columns[1] == table.columns[1]


def series() -> EchoSeries:
    echoes = np.random.default_rng(5).normal(100, 5, size=(4, 3, 4, 5)).astype(np.float32)
    return EchoSeries(echoes, np.array([0.0, 12.847, 25.694, 51.388]), "T1rho", oblique(True))


def test_sequence_round_trip_also_from_its_shown_volume(slicer):
    original = series()
    sequence = mrml.sequence_from_series(original, "spin lock")
    browser = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")[0]
    for node in (sequence, browser.GetProxyNode(sequence), [sequence]):
        back = mrml.series_from_nodes(node)
        np.testing.assert_array_equal(back.echoes, original.echoes)
        np.testing.assert_allclose(back.times_ms, original.times_ms)
        assert back.kind == "T1rho" and back.geometry.difference(original.geometry, 1e-6) == ""


def test_sequence_file_keeps_the_times(slicer, tmp_path):
    original = EchoSeries(series().echoes, series().times_ms, "T1rho", oblique(False))
    sequence = mrml.sequence_from_series(original, "spin lock", browser=False)
    assert slicer.util.saveNode(sequence, str(tmp_path / "s.seq.nrrd"))
    back = mrml.series_from_nodes(slicer.util.loadSequence(str(tmp_path / "s.seq.nrrd")))
    np.testing.assert_allclose(back.times_ms, original.times_ms)
    np.testing.assert_array_equal(back.echoes, original.echoes)


def test_times_in_seconds_are_converted_and_frame_numbers_are_no_times(slicer):
    sequence = mrml.sequence_from_series(series(), "s")
    sequence.SetIndexUnit("s")
    assert mrml.sequence_times(sequence)[1] == pytest.approx(12847.0)
    sequence.SetIndexUnit("")
    with pytest.raises(EchoSeriesError, match="type them"):
        mrml.series_from_nodes(sequence)
    assert mrml.series_from_nodes(sequence, times=[1, 2, 3, 4]).times_ms.tolist() == [1, 2, 3, 4]


def test_volumes_of_different_grids_are_refused(slicer):
    first = mrml.volume_from_image(Image(np.ones((3, 4, 5), np.float32), oblique()), "e1")
    second = mrml.volume_from_image(Image(np.ones((3, 4, 5), np.float32), oblique(True)), "e2")
    with pytest.raises(DiscRelaxometryError, match="'e2' lies on another grid"):
        mrml.series_from_nodes([first, second], times=[10, 20], kind="T2")


def test_a_failed_step_leaves_no_node(slicer):
    before = {n.GetID() for n in slicer.util.getNodes("*", useLists=True).values() for n in n}
    with pytest.raises(RuntimeError), mrml.all_or_nothing():
        mrml.sequence_from_series(series(), "s")
        mrml.volume_from_image(Image(np.ones((3, 4, 5), np.float32), oblique()), "T2", "T2")
        raise RuntimeError("stop")
    after = {n.GetID() for n in slicer.util.getNodes("*", useLists=True).values() for n in n}
    assert after == before


def test_folders_are_unique_and_hold_their_nodes(slicer):
    first, second = mrml.create_folder("Run"), mrml.create_folder("Run")
    node = mrml.volume_from_image(Image(np.ones((3, 4, 5), np.float32), oblique()), "T2")
    mrml.put_in_folder(first, node)
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == first
    assert hierarchy.GetItemName(first) != hierarchy.GetItemName(second)


def test_levels_shift_by_name_and_keep_voxels(slicer):
    labels = label_image()
    node = mrml.segmentation_from_labels(labels, "Discs")
    mrml.shift_segment_levels(node, 1)
    back = mrml.labels_from_segmentation(node)
    np.testing.assert_array_equal(back.array == 13, labels.array == 12)
    np.testing.assert_array_equal(back.array == 12, labels.array == 11)
    np.testing.assert_array_equal(back.array == 2, labels.array == 2)
    assert not mrml.was_edited(node)
    mrml.shift_segment_levels(node, -1)
    with pytest.raises(SegmentationError, match="'L5-S1' cannot be moved"):
        mrml.shift_segment_levels(node, -1)
    np.testing.assert_array_equal(mrml.labels_from_segmentation(node).array, labels.array)


def test_slicer_reads_the_terminology_of_every_structure(slicer):
    import vtk

    mrml.segmentation_from_labels(label_image(), "Discs")
    logic, loaded = slicer.modules.terminologies.logic(), vtk.vtkStringArray()
    logic.GetLoadedTerminologyNames(loaded)
    assert [loaded.GetValue(n) for n in range(loaded.GetNumberOfValues())].count(
        "Segmentation category and type - Lumbar discs") == 1
    for structure in structures.STRUCTURES:
        entry = slicer.vtkSlicerTerminologyEntry()
        assert logic.DeserializeTerminologyEntry(mrml.terminology_entry(structure), entry), structure.name
        assert entry.GetTypeObject().GetCodeValue() == structure.snomed[0]


def test_sample_data_load_and_register(slicer, monkeypatch):
    import sys
    import types
    from pathlib import Path

    from DiscRelaxometryWidgets import sample_data
    from DiscStatsWidgets import sample_cohort

    sources = []
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **source: sources.append(source))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    sample_data.register()
    sample_cohort.register()
    assert [s["sampleName"] for s in sources] == ["Lumbar spine (SPIDER)", "Cohort of 33 people (SPIDER)"]
    assert all(Path(s["thumbnailFileName"]).exists() for s in sources)
    volume, segmentation = sources[0]["customDownloader"](None)
    assert volume.GetImageData() is not None and segmentation.GetSegmentation().GetSegment("L4L5") is not None
    (table,) = sources[1]["customDownloader"](None)
    assert table.GetTable().GetNumberOfRows() == 33


def test_segments_of_one_and_of_several_labelmaps_are_read_as_one_by_one(slicer):
    """Shared labelmaps, one that overlaps, an empty, an unknown and a renamed segment, under a transform."""
    rng, grid = np.random.default_rng(3), Geometry((12, 10, 8), (1.0, 1.5, 2.0), (-4, 3, 9))
    labels = rng.choice([0, 11, 12, 13], grid.shape).astype(np.uint8)
    node = mrml.segmentation_from_labels(Image(labels, grid), "Discs")
    segmentation, mask = node.GetSegmentation(), (rng.random(grid.shape) < 0.3).astype(np.uint8)
    own = segmentation.AddEmptySegment("own", "L1-L2")
    segmentation.GetSegment(own).AddRepresentation("Binary labelmap", oriented_image(mask, grid))
    segmentation.AddEmptySegment("empty", "T12-L1")
    segmentation.GetSegment("L4L5").SetName("L5-S1 of somebody")
    segmentation.AddEmptySegment("fat", "fat")
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([1.0, 1, 1, 1]) + 3 * np.eye(4, k=3)))
    node.SetAndObserveTransformNodeID(move.GetID())
    expected, overlap = np.zeros(grid.shape, np.uint8), 0
    for n in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(n)
        value = mrml.segment_value(segmentation.GetSegment(segment_id), segment_id)
        inside = segment_mask(node, segment_id, grid) if value is not None else expected < 0
        overlap += np.count_nonzero(inside & (expected > 0))
        expected[inside & (expected == 0)] = value or 0
    found = mrml.labels_from_segmentation(node, grid)
    np.testing.assert_array_equal(found.array, expected)
    assert found.meta["overlap"] == overlap > 20 and found.meta["ignored"] == ["fat"]
    assert set(np.unique(expected)) == {0, 11, 12, 13, 15}


@pytest.mark.parametrize("nodes", [None, [], "empty", "colors"])
def test_what_is_no_echo_series_is_one_sentence(slicer, nodes):
    if nodes == "empty":
        nodes = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "nothing in it")
    if nodes == "colors":
        nodes = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", f"photo {n}") for n in range(2)]
        for node in nodes:
            slicer.util.updateVolumeFromArray(node, np.zeros((2, 3, 4, 3), np.uint8))
    with pytest.raises(DiscRelaxometryError, match="Choose an echo series|several values per voxel"):
        mrml.series_from_nodes(nodes, [10.0, 20.0], "T2")


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int64, np.float64])
def test_echoes_of_any_number_are_read_and_not_shared(slicer, kind):
    """What the fit changes must not change the scene."""
    values = np.arange(24, dtype=kind).reshape(2, 3, 4)
    nodes = [mrml.volume_from_image(Image(values * f, Geometry((4, 3, 2))), f"echo {f}") for f in (1, 2)]
    series = mrml.series_from_nodes(nodes, [10.0, 20.0], "T2")
    np.testing.assert_array_equal(series.echoes, np.stack([values, values * 2]))
    assert series.echoes.dtype == np.float32
    series.echoes[:] = -1
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes[1]), values * 2)
