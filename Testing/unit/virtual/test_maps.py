"""Simulated maps in atlas space: noise at the bound, effects where planted, no association under null."""

from dataclasses import replace

import numpy as np
import pytest
from support.precision import cramer_rao_sd
from support.virtual_maps import atlas_coordinates, simulate_maps

from DiscAtlasLib.atlas import load_atlas
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.virtual.signal import SPIN_LOCK_MS
from DiscStudyLib.virtual.study import PlantedEffect, draw_people

LEVEL = "L1-L2"


@pytest.fixture(scope="module")
def labels():
    return load_atlas().labels


def test_noise_is_at_the_cramer_rao_bound_and_correlated_across_slices(labels):
    people = draw_people(6, 1)
    measured, truth = simulate_maps(labels, people, levels=[LEVEL], misregistration=0)
    assert measured.shape == (6, np.count_nonzero(labels.array == disc_value(LEVEL)))
    noise = (measured - truth) / cramer_rao_sd(truth, SPIN_LOCK_MS, 60.0)
    assert noise.std() == pytest.approx(1, abs=0.02)
    volume = np.full((6, *labels.array.shape), np.nan)
    volume[:, labels.array == disc_value(LEVEL)] = noise
    across = np.nanmean(volume[..., 1:] * volume[..., :-1])
    along = np.nanmean(volume[:, 2:] * volume[:, :-2])
    assert across > 0.6 > 0.2 > along


def test_planted_effect_is_recovered_by_regression(labels):
    effect = PlantedEffect("odi", "T1rho", LEVEL, slope=-1.0)
    people = draw_people(60, 2, null=True)
    _, truth = simulate_maps(labels, people, levels=[LEVEL], effects=[effect])
    _, plain = simulate_maps(labels, people, levels=[LEVEL])
    odi = np.array([p.variables["odi"] for p in people], float) - effect.reference
    xyz = atlas_coordinates(labels, LEVEL)
    # The truth differs by slope x (variable - reference) x the bump, except where a value would fall below 8 ms.
    expected = np.outer(odi, effect.at(xyz, effect.reference + 1))
    assert np.allclose((truth - plain), expected, atol=1e-3)
    peak = xyz[np.argmin(expected[np.argmax(odi)])]
    assert np.abs(peak - effect.center).max() < 0.12


def test_same_seed_same_maps_and_other_seed_other_noise(labels):
    people = draw_people(2, 3)
    first, truth = simulate_maps(labels, people, levels=[LEVEL], seed=4)
    again, _ = simulate_maps(labels, people, levels=[LEVEL], seed=4)
    other, same_truth = simulate_maps(labels, people, levels=[LEVEL], seed=5)
    assert np.array_equal(first, again)
    assert np.array_equal(truth, same_truth)
    assert not np.array_equal(first, other)
    # Adding people or changing what the table says leaves a person's maps alone.
    more, _ = simulate_maps(labels, [*people, replace(people[0], listed={"odi": 60})], levels=[LEVEL], seed=4)
    assert np.array_equal(more[:2], first)
