"""Measures: published volumes, analytic lengths, and statistics with failed voxels."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from support import shared_data
from support.disc_phantoms import GRIDS, cuboid, ellipsoid, grid_around, label_image, tilted_axes

from DiscRelaxometryLib.errors import GeometryError, SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, read_image
from DiscRelaxometryLib.measure.axes import PATIENT_AXES
from DiscRelaxometryLib.measure.measures import _has_flat_end, _shape_flags, measure_discs, measure_regions, statistics
from DiscRelaxometryLib.measure.regions import disc_regions


def test_native_label_maps_give_the_published_volumes():
    folder = shared_data("ivd_t2w")
    with open(folder / "reference_volumes_cm3.tsv", newline="") as stream:
        reference = {row["subject"]: row for row in csv.DictReader(stream, delimiter="\t")}
    names = ("L5S1", "L4L5", "L3L4", "L2L3", "L1L2")
    seen = 0
    for path in sorted((folder / "native_labels").glob("*.nii.gz")):
        labels = read_image(path)
        known = reference[str(int(path.name[4:6]))]
        values = np.where(labels.array > 0, labels.array.astype(np.uint8) + 10, 0).astype(np.uint8)
        for row in measure_discs(Image(values, labels.geometry)).rows:
            assert abs(row["volume"] - float(known[names[row["label"] - 11]])) < 1e-4, path.name
            seen += 1
    assert seen > 46 * 5 * 0.9


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("tilt", [(0, 0, 0), (20, 5, -8)])
def test_cuboid_has_its_own_lengths_on_any_grid(grid, tilt):
    size = (48.0, 34.0, 12.0)
    geometry = grid_around(grid)
    mask = cuboid(geometry, tilted_axes(*tilt), size)
    row = measure_discs(Image(np.where(mask, 12, 0).astype(np.uint8), geometry)).rows[0]
    fine = max(geometry.spacing) < 1
    for name in ("height_anterior", "height_middle", "height_posterior"):
        assert abs(row[name] - size[2]) < (0.5 if fine else 0.8), name
    assert abs(row["ap_diameter"] - size[1]) < (0.8 if fine else 1.5)
    assert abs(row["width"] - size[0]) < (1.6 if fine else 4.5)
    assert abs(row["volume"] - np.prod(size) / 1000) / row["volume"] < (0.03 if fine else 0.09)


def test_wedge_and_ellipsoid_heights():
    geometry = grid_around("isotropic")
    size = np.array((46.0, 34.0, 12.0))
    row = measure_discs(Image(np.where(ellipsoid(geometry, PATIENT_AXES, size), 12, 0).astype(np.uint8),
                              geometry)).rows[0]
    # Mean of 12 sqrt(1 - y^2) over the bands 2/3 +- 1/6 and 0 +- 1/6 of the half diameter.
    y = np.linspace(0.5, 5 / 6, 1001)
    assert abs(row["height_anterior"] - 12 * np.sqrt(1 - y ** 2).mean()) < 0.4
    assert abs(row["height_middle"] - 12 * np.sqrt(1 - np.linspace(0, 1 / 6, 1001) ** 2).mean()) < 0.4
    assert abs(row["height_anterior"] - row["height_posterior"]) < 0.2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij"), axis=-1)[..., ::-1]
    left, posterior, cranial = np.moveaxis(geometry.index_to_world(index), -1, 0)
    wedge = (np.abs(left) < 23) & (np.abs(posterior) < 17) & (np.abs(cranial) < 5 - posterior * 3 / 17)
    row = measure_discs(Image(np.where(wedge, 11, 0).astype(np.uint8), geometry)).rows[0]
    # Full height 10 + 6 * (-posterior) / 17: 14 a third of the half diameter in from the front, 6 at the back.
    assert abs(row["height_anterior"] - 14) < 0.4
    assert abs(row["height_middle"] - 10) < 0.4
    assert abs(row["height_posterior"] - 6) < 0.4


def test_flags():
    geometry = Geometry((24, 90, 60), (0.9, 0.6, 0.6), (-10.0, -27.0, -18.0))
    array = np.zeros(geometry.shape, np.uint8)
    array[ellipsoid(geometry, PATIENT_AXES, (48, 34, 11), center=(0, 0, -10))] = 11
    narrow = ellipsoid(geometry, PATIENT_AXES, (48, 34, 11), center=(0, 0, 6))
    narrow[:, :, :3] = narrow[:, :, -3:] = False
    array[narrow] = 12
    array[57, 45:47, 10] = 13
    flags = {row["level"]: row["flags"] for row in measure_discs(Image(array, geometry)).rows}
    assert flags == {"L5-S1": "cut_laterally;touches_volume_edge", "L4-L5": "cut_laterally", "L3-L4": "too_small"}
    whole = measure_discs(label_image("sagittal_4mm"))
    assert whole["flags"] == ["", "", ""]
    assert whole["level"] == ["L3-L4", "L4-L5", "L5-S1"]


@pytest.mark.parametrize("cut", [slice(0, 17), slice(24, None)], ids=["first", "last"])
def test_a_disc_that_goes_on_beyond_either_last_section_has_a_flat_end(cut):
    k, j, i = np.indices((41, 21, 21))
    inside = ((k - 20) / 20) ** 2 + ((j - 10) / 10) ** 2 + ((i - 10) / 10) ** 2 <= 1
    assert not _has_flat_end(SimpleNamespace(local=SimpleNamespace(inside=inside, step=1.0)), 4.0)
    fine = SimpleNamespace(local=SimpleNamespace(inside=inside, step=0.5))  # sections are as thick as the slices, in mm
    assert _has_flat_end(fine, 7.0) and not _has_flat_end(fine, 6.0)
    inside[cut] = False
    assert _has_flat_end(SimpleNamespace(local=SimpleNamespace(inside=inside, step=1.0)), 4.0)


def test_pieces_that_touch_by_an_edge_or_a_corner_are_one():
    for shift in ((0, 0, 1), (0, 1, 1), (1, 1, 1)):
        mask = np.zeros((6, 6, 6), bool)
        mask[1:3, 1:3, 1:3] = True
        step = [2 if s else 0 for s in shift]
        mask[tuple(slice(1 + s, 3 + s) for s in step)] = True
        assert _shape_flags(mask) == []
    mask[-2, 1, 1], mask[3:5, 3:5, 3:5] = True, False
    assert _shape_flags(mask) == ["several_pieces"]


def test_statistics_count_failed_voxels_and_never_take_them_as_zero():
    found = statistics(np.array([1.0, 2.0, 3.0, 10.0, np.nan, np.inf]))
    assert found["n"] == 4 and abs(found["failed"] - 2 / 6) < 1e-12
    assert (found["mean"], found["median"]) == (4.0, 2.5)
    np.testing.assert_allclose(found["sd"], np.std([1, 2, 3, 10], ddof=1))
    ladder = np.r_[np.random.default_rng(0).permutation(21), np.nan]
    assert statistics(ladder) == pytest.approx({
        "n": 21, "failed": 1 / 22, "mean": 10, "sd": np.std(np.arange(21), ddof=1), "median": 10, "q05": 1, "q25": 5,
        "q75": 15, "q95": 19})
    empty = statistics(np.full(3, np.nan))
    assert empty["n"] == 0 and empty["failed"] == 1 and np.isnan(empty["mean"]) and np.isnan(empty["median"])


def test_regions_table_has_each_region_its_value():
    labels = label_image("left_handed")
    values = np.full(labels.array.shape, np.nan)
    regions = disc_regions(labels, 12)
    for region, value in (("nucleus", 120.0), ("anterior_annulus", 60.0), ("posterior_annulus", 50.0)):
        values[regions[region]] = value
    values[np.nonzero(regions["nucleus"])[0][0], np.nonzero(regions["nucleus"])[1][0],
           np.nonzero(regions["nucleus"])[2][0]] = np.nan
    table = measure_regions(labels, {"T2": labels.like(values)})
    one = {row["region"]: row for row in table.select(level="L4-L5").rows}
    assert one["nucleus"]["mean"] == 120 and one["anterior_annulus"]["mean"] == 60
    assert one["posterior_annulus"]["median"] == 50 and one["nucleus"]["unit"] == "ms"
    assert abs(one["nucleus"]["failed"] - 1 / np.count_nonzero(regions["nucleus"])) < 1e-12
    assert one["left_annulus"]["n"] == 0 and one["left_annulus"]["failed"] == 1
    assert all(column.description for column in table.columns)
    discs = measure_discs(labels, {"T2": labels.like(values)})
    assert discs["T2_n"][0] == 0 and discs["T2_mean"][1] > 50


def test_bad_input_is_named():
    labels = label_image("isotropic")
    with pytest.raises(SegmentationError, match="no named disc"):
        measure_discs(labels.like(np.where(labels.array == 2, 2, 0).astype(np.uint8)))
    with pytest.raises(SegmentationError, match="5.5, 6.5"):
        measure_discs(labels.like(labels.array / 2))
    other = Geometry(labels.geometry.size, (1, 1, 1))
    with pytest.raises(GeometryError, match="T2 map"):
        measure_regions(labels, {"T2": Image(np.zeros(labels.array.shape), other)})
