"""Two ways to one number: tables against region masks, voxels at a point, volumes carried; holes stay holes."""

import numpy as np
import pytest
import SimpleITK as sitk
from support.spine_phantom import spine, t2w

from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.fit import sample_signal
from DiscRelaxometryLib.image import Geometry, Image
from DiscRelaxometryLib.labels import disc_name
from DiscRelaxometryLib.measure import carry_labels, measure_all, measure_regions, resample_labels
from DiscRelaxometryLib.measure.regions import disc_regions

LEVELS = range(11, 14)


@pytest.fixture(scope="module")
def column():
    classes, truth = spine(levels=3, spacing=(3.0, 1.5, 1.5), lordosis=8)
    return t2w(classes), truth


def test_counts_of_the_table_are_those_of_the_masks(column):
    image, labels = column
    rows = {(row["level"], row["region"]): row for row in measure_regions(labels, {"nT2w": image}).rows}
    for value in LEVELS:
        for region, inside in disc_regions(labels, value).items():
            row = rows[disc_name(value), region]
            assert row["n"] == np.count_nonzero(inside)
            assert row["mean"] == pytest.approx(image.array[inside].mean(), rel=1e-5)
    tables = measure_all(labels, {"nT2w": image})
    discs, regions = tables["discs"], tables["regions"]
    assert len(regions.rows) == len(rows)
    for row in discs.rows:
        assert row["voxels"] == rows[row["level"], "whole"]["n"] == np.count_nonzero(labels.array == row["label"])
    assert set(measure_all(labels, {})) == {"discs", "vertebrae"}
    assert set(measure_all(labels.like(np.where(labels.array < 30, labels.array, 0)), {})) == {"discs"}


@pytest.mark.parametrize("offset", [-0.4, 0.0, 0.4])
def test_the_inspector_takes_the_nearest_voxel(offset):
    rng = np.random.default_rng(0)
    grid = Geometry((5, 4, 3), (0.7, 0.9, 3.0), (10, -20, 5), (0, 0, 1, 1, 0, 0, 0, 1, 0))
    echoes = rng.uniform(100, 900, (4, 3, 4, 5)).astype(np.float32)
    series = EchoSeries(echoes, [0.0, 10.0, 40.0, 80.0], "T1rho", grid)
    for _ in range(20):
        i, j, k = (rng.integers(0, n) for n in grid.size)
        signs = rng.choice([-1, 1], 3)
        point = grid.index_to_world(np.array([i, j, k]) + offset * signs)
        signal, times, curve = sample_signal(series, point, 50.0, 800.0, 20.0)
        assert np.array_equal(signal, echoes[:, k, j, i])
        assert curve == pytest.approx(800 * np.exp(-times / 50) + 20)
        assert grid.voxel_at(point) == (k, j, i)
    assert sample_signal(series, grid.index_to_world((-0.6, 0, 0))) is None
    assert grid.voxel_at(grid.index_to_world((4.6, 0, 0))) is None


def test_carried_volumes_add_up(column):
    image, labels = column
    result = carry_labels(labels, image, image, register=False)
    voxel = labels.geometry.voxel_volume
    assert set(result.report.volumes) == set(LEVELS)
    for value, (before, after) in result.report.volumes.items():
        assert before == pytest.approx(np.count_nonzero(labels.array == value) * voxel)
        assert after == pytest.approx(np.count_nonzero(result.labels.array == value) * voxel)
    total = sum(after for _, after in result.report.volumes.values())
    discs = (result.labels.array >= 11) & (result.labels.array < 30)
    assert total == pytest.approx(np.count_nonzero(discs) * voxel)
    assert total == pytest.approx(sum(before for before, _ in result.report.volumes.values()), rel=0.02)


def test_a_voxel_that_three_labels_share_has_one_of_them():
    stripes = np.broadcast_to(np.array([11, 12, 13] * 3, np.uint8)[:, None, None], (9, 6, 6))
    thick = Geometry((6, 6, 3), (2.0, 2.0, 3.0), (0, 0, 1))
    parts, coverage = resample_labels(Image(stripes, Geometry((6, 6, 9), (2.0, 2.0, 1.0))), thick)
    assert (parts.array >= 11).all() and coverage.array == pytest.approx(1 / 3, abs=1e-6)


def test_neighboring_labels_leave_no_gap_and_invent_nothing(column):
    _, labels = column
    turned = sitk.Euler3DTransform(labels.geometry.index_to_world((10, 30, 40)).tolist(), 0.1, -0.05, 0.08)
    one = labels.like((labels.array > 2).astype(np.uint8))
    grid = Geometry((14, 60, 80), (4.0, 1.7, 1.9), labels.geometry.origin, labels.geometry.direction)
    parts, coverage = resample_labels(labels, grid, turned)
    assert set(np.unique(parts.array)) <= set(np.unique(labels.array))
    assert np.array_equal(parts.array > 0, coverage.array > 0)
    whole, _ = resample_labels(one, grid, turned)
    differ = np.mean((parts.array > 2) != (whole.array > 0))
    assert differ < 0.02
