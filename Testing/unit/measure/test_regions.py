"""Frames and regions on analytic discs, on rotated, left-handed and thick-slice grids."""

import numpy as np
import pytest
from support import shared_data
from support.disc_phantoms import GRIDS, cuboid, ellipsoid, grid_around, label_image, tilted_axes

from DiscRelaxometryLib.errors import SegmentationError
from DiscRelaxometryLib.image import Geometry, Image, voxel_points
from DiscRelaxometryLib.measure.axes import PATIENT_AXES, spine_axes
from DiscRelaxometryLib.measure.regions import (
    PARTITION,
    REGIONS,
    DiscOutline,
    disc_coordinates,
    disc_frame,
    disc_regions,
    members_at,
    region_image,
)

SIZE = (46.0, 33.0, 11.0)


def angles(frame, axes):
    return np.degrees(np.arccos(np.clip((frame.axes * axes).sum(axis=1), -1, 1)))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("tilt", [(0, 0, 0), (25, -6, 8)])
def test_frame_finds_axes_center_and_extents_on_any_grid(grid, tilt):
    axes = tilted_axes(*tilt)
    geometry = grid_around(grid)
    frame = disc_frame(ellipsoid(geometry, axes, SIZE, center=(2.0, -3.0, 1.0)), geometry)
    assert angles(frame, axes).max() < 2.5
    np.testing.assert_allclose(frame.center, (2, -3, 1), atol=0.3)
    # Extents are known to half a voxel a side.
    reach = np.abs(axes @ geometry.matrix3).sum(axis=1)
    assert np.all(np.abs(frame.extents - SIZE) < np.maximum(reach, 1.0))
    np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-12)


def test_frame_of_a_laterally_cut_disc_keeps_the_reference_anterior():
    geometry = Geometry((20, 90, 60), (0.9, 0.6, 0.6), (-9.0, -27.0, -18.0))
    frame = disc_frame(ellipsoid(geometry, PATIENT_AXES, (48, 34, 11)), geometry)
    assert angles(frame, PATIENT_AXES).max() < 2


def test_local_coordinates_go_there_and_back():
    geometry = grid_around("oblique")
    frame = disc_frame(ellipsoid(geometry, PATIENT_AXES, SIZE), geometry)
    points = np.random.default_rng(0).normal(0, 20, (50, 3))
    np.testing.assert_allclose(frame.to_world(frame.to_local(points)), points, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
def test_left_is_patient_left_and_front_is_anterior(grid):
    labels = label_image(grid)
    regions = disc_regions(labels, 12)
    center = voxel_points(regions["whole"], labels.geometry).mean(axis=0)
    for name, direction in (("left_third", (1, 0, 0)), ("right_third", (-1, 0, 0)),
                            ("anterior_annulus", (0, -1, 0)), ("posterior_annulus", (0, 1, 0)),
                            ("cranial_third", (0, 0, 1)), ("caudal_third", (0, 0, -1))):
        offset = voxel_points(regions[name], labels.geometry).mean(axis=0) - center
        assert offset @ direction > 0.7 * np.linalg.norm(offset) > 1, name


@pytest.mark.parametrize("grid", GRIDS)
def test_shares_of_a_cuboid_are_the_analytic_ones(grid):
    geometry = grid_around(grid)
    axes = tilted_axes(12, 4, 0)
    mask = cuboid(geometry, axes, SIZE)
    labels = Image(np.where(mask, 12, 0).astype(np.uint8), geometry)
    regions = disc_regions(labels, 12)
    share = {name: np.count_nonzero(inside) / np.count_nonzero(mask) for name, inside in regions.items()}
    ellipse = np.pi / 4 * 0.639 * 0.64
    tolerance = 0.08 if max(geometry.spacing) > 2 else 0.04
    for name in ("left_third", "midsagittal_third", "right_third", "cranial_third", "midheight_third", "caudal_third"):
        assert abs(share[name] - 1 / 3) < tolerance, name
    assert abs(share["nucleus"] - 0.72 * ellipse) < tolerance
    assert abs(share["annulus"] - (1 - ellipse)) < tolerance
    assert share["anterior_annulus"] > share["posterior_annulus"]


def test_midsagittal_line_has_the_published_proportions():
    geometry = Geometry((70, 140, 60), (0.8, 0.3, 0.3), (-27.6, -20.85, -8.85))
    for value, anterior, posterior in ((12, 0.205, 0.156), (11, 0.14, 0.14)):
        mask = cuboid(geometry, PATIENT_AXES, (46, 33, 11))
        regions = disc_regions(Image(np.where(mask, value, 0).astype(np.uint8), geometry), value)
        line = {name: np.count_nonzero(inside[30, :, 35]) * 0.3 / 33 for name, inside in regions.items()}
        assert abs(line["anterior_annulus"] - anterior) < 0.015
        assert abs(line["posterior_annulus"] - posterior) < 0.015
        assert abs(line["nucleus"] - (1 - anterior - posterior)) < 0.015


def test_thirds_of_a_cut_disc_are_those_of_what_is_seen():
    """A disc of 50 mm, of which the image shows 30: its thirds are 10 mm wide, the nucleus is that of 50."""
    outline = DiscOutline(right=-12.0, left=18.0, posterior=-17.0, anterior=17.0, width=50.0, cut_laterally=True)
    lr = (np.arange(300) / 10 - 15 + 0.05) / 25
    members = members_at(np.column_stack([lr, np.zeros_like(lr), np.zeros_like(lr)]), outline)
    assert [members[f"{n}_third"].sum() for n in ("left", "midsagittal", "right")] == [100, 100, 100]
    assert lr[members["left_third"]].min() > 0 > lr[members["right_third"]].max() and members["nucleus"].all()


@pytest.mark.parametrize("grid", GRIDS)
def test_partition_gives_each_disc_voxel_one_region(grid):
    labels = label_image(grid)
    image = region_image(labels)
    assert np.array_equal(image.array > 0, labels.array > 10)
    assert set(np.unique(image.array)) <= {0, *PARTITION.values()}
    regions = disc_regions(labels, 12)
    assert set(regions) == set(REGIONS)
    for name, code in PARTITION.items():
        assert np.array_equal(image.array[labels.array == 12] == code, regions[name][labels.array == 12])


def test_coordinates_reach_the_borders():
    geometry = Geometry((120, 90, 40), (0.5, 0.5, 0.5), (-29.75, -22.25, -9.75))
    mask = ellipsoid(geometry, PATIENT_AXES, SIZE)
    coordinates, outline = disc_coordinates(mask, geometry, disc_frame(mask, geometry))
    assert not outline.cut_laterally
    np.testing.assert_allclose((outline.width, outline.ap_diameter), SIZE[:2], rtol=0.03)
    assert np.all(np.abs(np.abs(coordinates[:, :2]).max(axis=0) - 1) < 0.05)


def test_wrong_header_is_overruled_by_neighbors_and_canal():
    labels = label_image("oblique")
    right = disc_regions(labels, 12)
    # The same voxels under a header that calls cranial anterior: world turned by 90 degrees about LR.
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float)
    geometry = labels.geometry
    wrong = Geometry(geometry.size, geometry.spacing, tuple(turn @ geometry.origin),
                     tuple((turn @ np.array(geometry.direction).reshape(3, 3)).ravel()))
    turned = Image(labels.array, wrong)
    np.testing.assert_allclose(spine_axes(turned, 12) @ turn, spine_axes(labels, 12), atol=1e-9)
    found = disc_regions(turned, 12)
    for name in ("nucleus", "anterior_annulus", "cranial_third"):
        overlap = np.count_nonzero(found[name] & right[name]) / np.count_nonzero(right[name])
        assert overlap > 0.97, name
    without_canal = Image(np.where(labels.array == 2, 0, labels.array), wrong)
    with pytest.raises(SegmentationError, match="label the canal"):
        spine_axes(without_canal, 12)


def test_absent_and_tiny_discs():
    labels = label_image("isotropic")
    with pytest.raises(SegmentationError, match="no disc L2-L3"):
        disc_regions(labels, 14)
    tiny = np.zeros(labels.array.shape, bool)
    tiny[5, 5, 5:8] = True
    with pytest.raises(SegmentationError, match="3 voxels is too small"):
        disc_frame(tiny, labels.geometry)


@pytest.mark.shared_data
def test_real_people_lie_as_people_do():
    from DiscRelaxometryLib.image import read_image
    from DiscRelaxometryLib.measure.axes import disc_frames

    labels = read_image(shared_data("spider_t2space/sub-005_dseg.nii.gz"))
    frames = disc_frames(labels)
    # Lordosis: the lumbosacral disc is tilted forward, its cranial normal leans to anterior.
    lean = {v: np.degrees(np.arcsin(-f.axes[2][1])) for v, f in frames.items()}
    assert 15 < lean[11] < 50 and lean[11] > lean[12] > lean[14]
    assert all(f.axes[0][0] > 0.97 for f in frames.values())
