"""From a series to maps: what reaches the fit, and what is fitted."""

from types import SimpleNamespace

import numpy as np
import pytest

import DiscRelaxometryLib.echo
from DiscRelaxometryLib.echo import EchoSeries
from DiscRelaxometryLib.fit import FitOptions, map_series
from DiscRelaxometryLib.image import Geometry, Image

TIMES = np.array([0.0, 10.0, 40.0, 80.0])
GRID = Geometry((6, 5, 3), (1.0, 2.0, 3.0))
T = np.linspace(40, 120, 90).reshape(GRID.shape)


def series(offset=0.0):
    echoes = 6000 * np.exp(-TIMES[:, None, None, None] / T) + offset
    return EchoSeries(echoes.astype(np.float32), TIMES, "T1rho", GRID)


def test_voxels_outside_the_mask_are_not_fitted():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1, 1:4] = 12
    found = map_series(series(), mask=Image(mask, GRID), align="off").fit.value
    np.testing.assert_allclose(found[mask > 0], T[mask > 0], rtol=1e-4)
    assert np.isnan(found[mask == 0]).all()


@pytest.mark.parametrize("model, fits", [("mono2", False), ("mono3", True)])
def test_options_reach_the_fit_and_nothing_is_aligned_when_off(model, fits):
    mapped = map_series(series(offset=400.0), FitOptions(model=model), align="off")
    assert mapped.motion is None and not mapped.aligned and mapped.fit.options.model == model
    assert np.allclose(mapped.fit.value, T, rtol=5e-3) == fits


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_what_was_aligned_is_fitted_with_the_clipping_of_what_was_recorded(monkeypatch, mode):
    clipped, seen = series(), {}
    clipped.echoes[:] = np.minimum(clipped.echoes, 4095)
    aligned = SimpleNamespace(series=series(), motion=SimpleNamespace(rows=[{"aligned": True}]))
    monkeypatch.setattr(DiscRelaxometryLib.echo, "align_echoes",
                        lambda s, mode, progressCallback: seen.update(series=s, mode=mode) or aligned)
    mapped = map_series(clipped, align=mode)
    assert seen["series"] is clipped and seen["mode"] == mode and mapped.aligned
    assert mapped.series is aligned.series and mapped.motion is aligned.motion
    assert mapped.fit.options.saturation == pytest.approx(0.995 * 4095)
    given = map_series(clipped, FitOptions(saturation=1e4), align=mode)
    assert given.fit.options.saturation == 1e4
    np.testing.assert_allclose(given.fit.value, T, rtol=1e-4)
