"""Fits whose answer depends on a single voxel, or on where the search for it begins."""

from types import SimpleNamespace

import numpy as np
import pytest

from DiscRelaxometryLib.echo.read import EchoSeries
from DiscRelaxometryLib.fit import epg, fit_arrays, fit_relaxation, rician
from DiscRelaxometryLib.fit.epg import EpgModel
from DiscRelaxometryLib.fit.mono import MonoModel
from DiscRelaxometryLib.fit.rician import RicianModel
from DiscRelaxometryLib.fit.status import FitStatus
from DiscRelaxometryLib.image import Geometry


@pytest.mark.parametrize(("echo", "value"), [(0, np.inf), (0, np.nan), (2, np.inf)])
def test_one_voxel_does_not_hide_clipping(echo, value):
    """One Inf or NaN switches off the detection of clipped signal, and wrong times have the status OK."""
    times = np.array([10.0, 20.0, 40.0, 80.0])
    signal = np.linspace(2000, 7000, 64)[None] * np.exp(-times[:, None] / 60)
    echoes = np.minimum(signal, 4095).astype(np.float32)
    clipped = (signal >= 4095).any(axis=0)
    echoes[echo, 0] = value
    clipped[0] = False
    fit = fit_relaxation(EchoSeries(echoes.reshape(4, 4, 4, 4), times, "T2", Geometry((4, 4, 4), (1.0, 1.0, 1.0))))
    status = fit.status.ravel()
    assert status[0] == FitStatus.NOT_FINITE
    assert clipped.sum() > 10 and (status[clipped] == FitStatus.SATURATED).all()
    assert fit.value.ravel()[status == FitStatus.OK] == pytest.approx(60, rel=1e-3)


@pytest.mark.parametrize("times", [(0, 66, 70), (0, 80)])
def test_fast_decay_between_few_times(times):
    """The bracket of the search leaves the optimum out, and its border is returned with the status OK."""
    truth = np.array([9.3, 9.7, 10.0, 10.5, 11.0, 11.7, 12.3])
    fit = fit_arrays(1000 * np.exp(-np.divide.outer(np.array(times, float), truth)), times)
    done = fit.status == FitStatus.OK
    assert fit.value[done] == pytest.approx(truth[done], rel=1e-3)
    assert done.all()


@pytest.mark.parametrize("model", ["rician", "epg"])
def test_a_step_that_damping_made_small_is_no_convergence(monkeypatch, model):
    """Far from the optimum, a heavily damped step is below any tolerance."""
    times = np.arange(1, 9) * 10.0
    signal = np.exp(-times / 60)[:, None] * np.ones(5)
    if model == "rician":
        fit = RicianModel(MonoModel.prepare(times, (1, 1000)))
        monkeypatch.setattr(MonoModel, "solve", lambda self, y: SimpleNamespace(value=np.full(5, 30.0), m0=np.ones(5)))
        solve, place, name = lambda: fit.solve(signal, np.full(5, 0.02)), rician, "_damped_step"
    else:
        fit = EpgModel.prepare(times, (5, 500))
        solve, place, name = lambda: fit.solve(signal), epg, "_step"
        monkeypatch.setattr(epg, "_match", lambda model, y: np.tile([[np.log(30.0)], [0.1]], 5))
    assert solve().converged.all()
    step = getattr(place, name)
    monkeypatch.setattr(place, name, lambda gradient, matrix, damping: step(
        gradient, matrix, damping if np.ndim(damping) == 0 else np.maximum(damping, 1e9)))
    assert not solve().converged.any()
