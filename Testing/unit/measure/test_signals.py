"""Nucleus against annulus, the cleft and the peaks: known signals give known numbers; too few voxels give none."""

import numpy as np
import pytest
from support.disc_phantoms import label_image

from DiscRelaxometryLib.measure import disc_coordinates, disc_frames, measure_discs
from DiscRelaxometryLib.measure.regions import disc_regions
from DiscRelaxometryLib.measure.signals import signal_measures

NAMES = ("contrast", "cleft_index", "peak_difference")


@pytest.fixture(scope="module")
def labels():
    return label_image("isotropic")


@pytest.fixture(scope="module")
def painted(labels):
    """Return a function that makes a map with some values in each disc."""
    discs = []
    for value, frame in disc_frames(labels).items():
        mask = labels.array == value
        height = np.full(mask.shape, np.nan)
        height[mask] = disc_coordinates(mask, labels.geometry, frame)[0][:, 2]
        discs.append((mask, disc_regions(labels, value, frame)["nucleus"], np.abs(height) <= 0.2))

    def paint(nucleus: float, annulus: float, cleft: float = 1.0) -> np.ndarray:
        """Return a map; the middle fifth of the nucleus's height has `cleft` of its value."""
        values = np.full(labels.array.shape, np.nan, np.float32)
        for mask, inner, middle in discs:
            values[mask], values[inner] = annulus, nucleus
            values[inner & middle] = nucleus * cleft
        return values
    return paint


def row(labels, values, level="L4-L5"):
    table = measure_discs(labels, {"nT2w": labels.like(values)})
    assert {f"nT2w_{n}" for n in NAMES} <= set(table.names) and all(c.description for c in table.columns)
    return next(r for r in table.rows if r["level"] == level)


@pytest.mark.parametrize("nucleus, annulus, cleft", [(0.6, 0.2, 1.0), (0.5, 0.5, 1.0), (0.8, 0.2, 0.6),
                                                     (0.2, 0.3, 1.2)])
def test_known_signals(labels, painted, nucleus, annulus, cleft):
    found = row(labels, painted(nucleus, annulus, cleft))
    assert found["nT2w_cleft_index"] == pytest.approx(1 - cleft, abs=0.01)
    assert found["nT2w_peak_difference"] == pytest.approx(nucleus - annulus, abs=0.05)
    if cleft == 1:
        assert found["nT2w_contrast"] == pytest.approx((nucleus - annulus) / (nucleus + annulus), abs=0.01)


def test_the_cleft_is_compared_with_the_nucleus_beside_it_alone():
    """Signals by height: middle fifth, the fifths above and below, what lies beyond; three voxels have none."""
    height = np.concatenate([sign * np.linspace(low, high, 20) for low, high in ((0, 0.19), (0.21, 0.59), (0.61, 0.72))
                             for sign in (-1, 1)])
    values = np.where(np.abs(height) <= 0.2, 60.0, np.where(np.abs(height) <= 0.6, 80.0, 500.0))
    values[[0, 50, 100]] = np.nan
    members = {"nucleus": np.ones(len(height), bool), "annulus": np.zeros(len(height), bool)}
    assert signal_measures(values, members, height)["cleft_index"]() == pytest.approx(0.25)


def test_gain_changes_neither_contrast_nor_cleft_and_scales_the_peaks(labels, painted):
    random = np.random.default_rng(0)
    values = painted(0.6, 0.2, 0.8) * random.normal(1, 0.05, labels.array.shape).astype(np.float32)
    once, more = row(labels, values), row(labels, 3 * values)
    assert more["nT2w_contrast"] == pytest.approx(once["nT2w_contrast"], rel=1e-4)
    assert more["nT2w_cleft_index"] == pytest.approx(once["nT2w_cleft_index"], rel=1e-4)
    assert more["nT2w_peak_difference"] == pytest.approx(3 * once["nT2w_peak_difference"], rel=1e-3)


def test_peaks_are_the_most_frequent_values_and_no_means(labels, painted):
    values = painted(0.6, 0.2)
    nucleus = disc_regions(labels, 12)["nucleus"]
    where = np.argwhere(nucleus)
    values[tuple(where[::3].T)] = 0.25
    found = row(labels, values)
    assert found["nT2w_peak_difference"] == pytest.approx(0.4, abs=0.05)
    assert values[nucleus].mean() < 0.5


def test_failed_voxels_and_signals_without_ratio_are_empty_with_their_reason(labels, painted):
    nothing = row(labels, np.full(labels.array.shape, np.nan, np.float32))
    assert not {f"nT2w_{n}" for n in NAMES} & set(nothing)
    assert "fewer than 12 voxels of the nucleus have a value: nT2w_contrast" in nothing["statement"]
    negative = row(labels, -painted(0.6, 0.2))
    assert "the signal is not positive: nT2w_contrast, nT2w_cleft_index" in negative["statement"]
    assert negative["nT2w_peak_difference"] == pytest.approx(-0.4, abs=0.05)
