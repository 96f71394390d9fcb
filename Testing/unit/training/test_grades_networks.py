"""Pictures varied for the training of the grading network, and its temperatures."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from DiscRelaxometryLib.grades import GRADES, PICTURE  # noqa: E402
from Training import grades_networks  # noqa: E402
from Training.grades_networks import MARGIN  # noqa: E402


@pytest.mark.parametrize("down", [False, True])
def test_a_picture_varied_by_nothing_is_itself(monkeypatch, down):
    for name in ("TURN", "ZOOM", "SHIFT", "GAIN", "NOISE"):
        monkeypatch.setattr(grades_networks, name, 0.0)
    pictures = torch.rand(3, PICTURE[0], *MARGIN, generator=torch.Generator().manual_seed(0)) + 0.1
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 0.4 if down else 0.6))
    plain = torch.from_numpy(grades_networks.middle(pictures.numpy()))
    assert torch.allclose(grades_networks.vary(pictures), plain.flip(2) if down else plain, atol=1e-4)


def test_a_picture_is_moved_turned_and_zoomed_as_said(monkeypatch):
    """The lowest point of a valley after a shift, a turn by a quarter of a radian, and a zoom."""
    rows, columns = np.indices(MARGIN) - (np.array(MARGIN)[:, None, None] - 1) / 2
    valley = torch.tensor((rows - 5) ** 2 + (columns - 20) ** 2 + 1, dtype=torch.float32).expand(1, PICTURE[0], *MARGIN)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.ones(shape))
    for name in ("GAIN", "NOISE"):
        monkeypatch.setattr(grades_networks, name, 0.0)
    for turn, zoom, shift in ((0.0, 0.0, 4.0), (0.25, 0.0, 0.0), (0.0, 0.2, 0.0)):
        for name, value in (("TURN", turn), ("ZOOM", zoom), ("SHIFT", shift)):
            monkeypatch.setattr(grades_networks, name, value)
        found = np.unravel_index(int(grades_networks.vary(valley)[0, 0].argmin()), PICTURE[1:])
        place = np.array([5 - shift, 20 - shift]) / np.exp(zoom)
        c, s = np.cos(turn), np.sin(turn)
        expected = np.array([[c, -s], [s, c]]) @ place + (np.array(PICTURE[1:]) - 1) / 2
        assert np.abs(found - expected).max() < 1


def test_temperatures_are_those_by_which_odds_were_drawn_out():
    """Simulated: log-odds twice (grade) and half (findings) of what gave the targets."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, (8000, 1)) + np.append(np.linspace(2, -2, GRADES - 1), np.zeros(2))
    shared = rng.logistic(size=(8000, 1))  # one draw for all thresholds: grades are ordered
    targets = odds + np.hstack([np.repeat(shared, GRADES - 1, 1), rng.logistic(size=(8000, 2))]) > 0
    stretch = np.array([2.0] * (GRADES - 1) + [0.5] * 2)
    assert grades_networks.temperatures(odds * stretch, targets) == pytest.approx(stretch, rel=0.06)
