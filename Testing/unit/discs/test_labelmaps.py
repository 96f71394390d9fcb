"""Import of other tools' label values, checked against their published tables and on relabelled real masks."""

import json

import numpy as np
import pytest
from support import shared_data

from DiscRelaxometryLib.discs import labelmaps
from DiscRelaxometryLib.discs.labelmaps import conventions, import_labels, structure_for_name
from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.labels import BY_VALUE, DISC, SACRUM, STRUCTURES
from DiscRelaxometryLib.resources import resource_path

# Published values: TotalSpineSeg README (20260429), SPINEPS README (2.0.0), SPIDER's description, MRSpineSeg's page.
PUBLISHED = {
    "totalspineseg": {100: "L5-S1", 95: "L4-L5", 94: "L3-L4", 93: "L2-L3", 92: "L1-L2", 91: "T12-L1", 82: "T11-T12",
                      45: "L5", 41: "L1", 32: "T12", 50: "Sacrum", 2: "Spinal canal", 1: "Spinal canal"},
    "spineps": {124: "L5-S1", 123: "L4-L5", 120: "L1-L2", 119: "T12-L1", 24: "L5", 20: "L1", 19: "T12", 8: "T1",
                26: "Sacrum"},
    "spider": {201: "L5-S1", 202: "L4-L5", 205: "L1-L2", 206: "T12-L1", 1: "L5", 5: "L1", 6: "T12", 100: "Spinal canal",
               106: "T12"},
    "mrspineseg": {11: "L5-S1", 15: "L1-L2", 19: "T9-T10", 1: "Sacrum", 2: "L5", 10: "T9"},
    "totalsegmentator-total_mr": {18: "Sacrum", 19: "Vertebra (no level)", 20: "Disc (no level)"},
    "totalsegmentator-vertebrae_mr": {1: "Sacrum", 2: "L5", 6: "L1", 7: "T12"},
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_tables_hold_the_published_values(key):
    table = conventions()[key].table
    assert {v: table[v][1].name for v in PUBLISHED[key]} == PUBLISHED[key]


def test_every_convention_states_version_and_source():
    for key, convention in conventions().items():
        assert convention.version and convention.source and convention.levels in ("tool", "counted"), key


def test_project_table_equals_the_structures():
    assert {v: s.name for v, (_, s, _) in conventions()["project"].table.items()} == {
        s.value: s.name for s in STRUCTURES}


def test_terminology_file_holds_every_structure():
    content = json.loads(resource_path("Terminologies/LumbarDiscs.term.json").read_text())
    assert content["SegmentationCategoryTypeContextName"] == "Segmentation category and type - Lumbar discs"
    category, = content["SegmentationCodes"]["Category"]
    assert category["CodeValue"] == "123037004"
    types = {t["CodeValue"]: t for t in category["Type"]}
    assert len(types) == len(category["Type"]), "a code stands twice; Slicer would find the first alone"
    first = {}
    for structure in STRUCTURES:
        first.setdefault(structure.snomed[0], structure)
    assert set(types) == set(first)
    for code, structure in first.items():
        assert types[code]["CodeMeaning"] == structure.snomed[1]
        assert tuple(types[code]["recommendedDisplayRGBValue"]) == structure.color
        # Limits of DICOM value representations SH and LO, as in dcmqi's schema.
        assert len(types[code]["CodeValue"]) <= 16 and len(types[code]["CodeMeaning"]) <= 64
    assert not {"243920003", "243927000"} & set(types)


def test_slicer_reads_the_terminology_file():
    pytest.importorskip("slicer_core")
    from DiscRelaxometryLib.headless import start_headless
    slicer = start_headless()
    logic = slicer.modules.terminologies.logic()
    path = str(resource_path("Terminologies/LumbarDiscs.term.json"))
    assert logic.LoadTerminologyFromFile(path) == "Segmentation category and type - Lumbar discs"


def synthetic(values, spacing=(4.0, 1.0, 1.0)):
    """Return a column of boxes, first value lowest, alternating body (24 mm) and disc (8 mm), 30 x 30 mm wide."""
    blocks = [np.full((24 if n % 2 == 0 else 8, 30, 8), v) for n, v in enumerate(values)]
    column = np.concatenate([np.zeros((40, 30, 8), int), *blocks, np.zeros((10, 30, 8), int)])
    array = np.zeros((column.shape[0], 80, 14), np.int16)
    array[:, 20:50, 3:11] = column
    return Image(array, Geometry(array.shape[::-1], spacing))


def names_upward(labels):
    array = labels.array[:, 35, 7]
    steps = array[np.flatnonzero(np.diff(np.concatenate([[0], array])) != 0)]
    return [BY_VALUE[int(v)].name for v in steps if v]


LUMBAR = ["Sacrum", "L5-S1", "L5", "L4-L5", "L4", "L3-L4", "L3"]


@pytest.mark.parametrize("key, values", [
    ("totalspineseg", [50, 100, 45, 95, 44, 94, 43]),
    ("spineps", [26, 124, 24, 123, 23, 122, 22]),
    ("mrspineseg", [1, 11, 2, 12, 3, 13, 4]),
    ("project", [30, 11, 31, 12, 32, 13, 33]),
    ("totalsegmentator-total_mr", [18, 20, 19, 20, 19, 20, 19]),
    ("spineps-subregions", [26, 100, 49, 100, 49, 100, 49]),
])
def test_automatic_choice(key, values):
    labels, report = import_labels(synthetic(values))
    assert report.convention.key == key
    assert names_upward(labels) == LUMBAR
    assert report.certain and not report.flags


@pytest.mark.parametrize("key, values", [
    ("spider", [201, 1, 202, 2, 203, 3]),
    ("spineps-instances", [104, 4, 103, 3, 102, 2, 101, 1]),
    ("classes", [3, 1, 3, 1, 3, 1]),
])
def test_automatic_choice_without_sacrum(key, values):
    image = synthetic([0, *values])
    labels, report = import_labels(image)
    assert report.convention.key == key
    assert names_upward(labels)[:6] == ["L5-S1", "L5", "L4-L5", "L4", "L3-L4", "L3"]


def test_the_sacrum_reaches_12_mm_into_the_discs_along_each_axis(monkeypatch):
    array, seen = np.full((30, 14, 34), DISC.value, np.uint8), []
    array[15, 7, 17] = SACRUM.value
    geometry = Geometry((34, 14, 30), (0.9, 2.5, 1.4))
    monkeypatch.setattr(labelmaps, "label_instances", lambda classes, grid, near: 1 / seen.append(near))
    with pytest.raises(TypeError):
        labelmaps._count_levels(Image(array, geometry), None)
    distance = np.linalg.norm((np.indices(array.shape).T - [15, 7, 17]) * geometry.spacing[::-1], axis=-1).T
    assert np.array_equal(seen[0] > 0, (distance < 12) & (distance > 0))


def test_partial_spider_vertebrae_are_told_from_spineps_instances():
    # 101... are discs for SPINEPS and partially visible vertebrae for SPIDER: only the order tells.
    image = synthetic([0, 201, 1, 202, 2, 203, 103])
    labels, report = import_labels(image)
    assert report.convention.key == "spider"
    assert any("partially visible" in f for f in report.flags)


def test_whole_spine_spineps_instances_are_ambiguous():
    values = [v for n in range(24, 0, -1) for v in (100 + n, n)]
    with pytest.raises(SegmentationError, match="say which one"):
        import_labels(synthetic([0, *values]))
    labels, report = import_labels(synthetic([0, *values]), "spineps")
    assert names_upward(labels)[:3] == ["L5-S1", "L5", "L4-L5"]
    assert 101 in report.left_out


@pytest.mark.parametrize("values", [[255], [1], [1, 2, 3, 4, 5], [7, 300]])
def test_values_of_no_convention_ask(values):
    with pytest.raises(SegmentationError, match="say which tool"):
        import_labels(synthetic([0, *values]))


def test_numbered_discs_need_the_users_word():
    image = synthetic([0, 1, 0, 2, 0, 3, 0, 4, 0, 5])
    below, _ = import_labels(image, "discs-from-below")
    above, _ = import_labels(image, "discs-from-above")
    assert names_upward(below) == ["L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2"]
    assert names_upward(above) == ["L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]
    assert any("do not ascend" in f for f in import_labels(image, "discs-from-above")[1].flags)


def test_unknown_values_are_not_dropped_silently():
    image = synthetic([50, 100, 45, 95, 44, 94, 43])
    image.array[0, 0, 0] = 99
    with pytest.raises(SegmentationError, match="99"):
        import_labels(image, "totalspineseg")
    _, report = import_labels(image, "totalspineseg", leave_out_unknown=True)
    assert report.left_out[99][2] == 1


def test_l6_is_flagged():
    _, report = import_labels(synthetic([26, 125, 25, 124, 24, 123, 23]))
    assert any("transitional" in f for f in report.flags)


def test_missing_disc_is_flagged():
    _, report = import_labels(synthetic([50, 100, 45, 0, 44, 94, 43]))
    assert any("L4-L5" in f for f in report.flags)


@pytest.mark.parametrize("array, message", [
    (np.zeros((4, 4, 4)), "empty"),
    (np.full((4, 4, 4), 0.5), "fractions"),
    (np.full((4, 4, 4), np.nan), "fractions"),
    (np.arange(512).reshape(8, 8, 8), "not a label image"),
    (np.full((4, 4, 4), -3), "not a label image"),
])
def test_images_that_hold_no_labels(array, message):
    with pytest.raises(SegmentationError, match=message):
        import_labels(Image(array, Geometry(array.shape[::-1])))


def test_unknown_convention_is_named():
    with pytest.raises(SegmentationError, match="totalspineseg"):
        import_labels(synthetic([50, 100, 45]), "nnunet")


@pytest.mark.parametrize("text, name", [
    ("L4-L5", "L4-L5"), ("L4L5", "L4-L5"), ("L4/5", "L4-L5"), ("disc_L4_L5", "L4-L5"), ("L5/S1 disc", "L5-S1"),
    ("disc_L5_S", "L5-S1"), ("IVD L5/S1", "L5-S1"), ("Th12/L1", "T12-L1"), ("vertebrae_L3", "L3"), ("L2", "L2"),
    ("sacrum", "Sacrum"), ("Spinal canal", "Spinal canal"), ("intervertebral_discs", "Disc (no level)"),
    ("L4/S1", None), ("liver", None), ("Segment_1", None)])
def test_segment_names(text, name):
    found = structure_for_name(text)
    assert (found.name if found else None) == name


@pytest.mark.shared_data
@pytest.mark.parametrize("key", ["totalspineseg", "spineps", "spider", "mrspineseg", "totalsegmentator-total_mr"])
def test_real_mask_in_each_convention(key):
    reference = read_image(shared_data("spider_t2space/sub-045_dseg.nii.gz"))
    lumbar = np.where(np.isin(reference.array, [11, 12, 13, 14, 15]), reference.array, 0)
    structures = {}
    for value, (_, structure, note) in conventions()[key].table.items():
        if structure is not None and note == "":
            structures.setdefault(structure.name, value)
    theirs = np.zeros(reference.array.shape, np.int16)
    for value in range(11, 16):
        theirs[lumbar == value] = structures.get(BY_VALUE[value].name, structures.get("Disc (no level)", 0))
    if key == "totalsegmentator-total_mr":
        theirs[reference.array == 1] = 19
        theirs[reference.array > 15] = 20
    labels, report = import_labels(Image(theirs, reference.geometry), key)
    assert np.array_equal(labels.array[lumbar > 0], lumbar[lumbar > 0])
    assert report.certain
