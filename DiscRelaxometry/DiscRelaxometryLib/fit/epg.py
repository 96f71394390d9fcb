"""T2 and B1 from a multi-echo spin echo train: dictionary of extended phase graphs, then Gauss-Newton.

The dictionary start follows Ben-Eliezer et al. (Magn Reson Med 2015;73:809) with the echoes of Lebel and Wilman's
stimulated-echo-compensated fit (Magn Reson Med 2010;64:1005). M0 is eliminated by variable projection. The refocusing
angle a enters as w = cos^2(a / 2): near 180 degrees the echoes are linear in w, but flat in a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import EchoSeriesError
from .epg_signal import epg_echoes
from .solution import Solution, noise_variance, total_squares

_ROWS = 512
_MAX_STEPS = 40
#: From this step on, steps follow from the last two.
_EXTRAPOLATED = 20
_DIFFERENCE = 1e-5
_TOLERANCE = np.array([[1e-5], [1e-4]])  # Last step in log T2 and in w.


@dataclass(frozen=True)
class EpgModel:
    """What an EPG fit needs to know, prepared once per series."""

    #: Shape (n,). Which echoes of the train (from 0) were given.
    echoes: np.ndarray
    #: Echo spacing in ms.
    spacing: float
    #: Assumed T1 in ms; nominal refocusing angle in degrees.
    t1: float
    refocusing: float
    #: T2 in ms.
    bounds: tuple[float, float]
    #: Relative transmit field; equal ends fix it.
    b1_range: tuple[float, float]
    #: Shape (n, a). Unit decays of the dictionary.
    atoms: np.ndarray
    #: Shape (2, a). log T2 and w of each atom.
    parameters: np.ndarray

    @classmethod
    def prepare(cls, times: np.ndarray, bounds: tuple[float, float], t1: float = 1000.0, refocusing: float = 180.0,
                b1_range: tuple[float, float] | None = None, spacing: float | None = None) -> EpgModel:
        """Build the dictionary; `times` (ms) have to be multiples of one echo `spacing` (default: their gap).

        An angle above 180 degrees gives the same echoes as one as far below, so B1 ends where 180 degrees is reached.
        """
        times = np.asarray(times, float)
        spacing = float(np.diff(times).min()) if spacing is None else float(spacing)
        number = times / spacing
        if np.any(np.abs(number - np.round(number)) > 0.02) or np.any(np.round(number) < 1):
            listed = ", ".join(f"{t:g}" for t in times)
            raise EchoSeriesError(
                f"The EPG model needs the echo times of a multi-echo spin echo train, multiples of one spacing; these "
                f"are {listed} ms. Use the model 'mono2', or correct the times.", anchor="echo-times")
        if b1_range is None:
            b1_range = (0.4, 180.0 / refocusing)
        low, high = b1_range
        fields = np.array([low]) if high == low else np.linspace(low, high, max(int((high - low) / 0.03) + 1, 3))
        log_t2 = np.linspace(np.log(bounds[0]), np.log(bounds[1]), max(int(np.log(bounds[1] / bounds[0]) / 0.1), 8))
        w = np.cos(np.deg2rad(refocusing) * fields / 2) ** 2
        parameters = np.stack(np.meshgrid(log_t2, w, indexing="ij")).reshape(2, -1)
        model = cls(np.round(number).astype(int) - 1, spacing, t1, refocusing, (bounds[0], bounds[1]), (low, high),
                    np.empty(0), parameters)
        atoms = model.decay(parameters)
        object.__setattr__(model, "atoms", (atoms / np.linalg.norm(atoms, axis=0)).astype(np.float32))
        return model

    @property
    def limits(self) -> np.ndarray:
        """Lowest and highest log T2 and w, shape (2, 2)."""
        w = np.cos(np.deg2rad(self.refocusing) * np.array(self.b1_range[::-1]) / 2) ** 2
        return np.array([np.log(self.bounds), w])

    @property
    def times(self) -> np.ndarray:
        """Echo times in ms."""
        return (self.echoes + 1) * self.spacing

    @property
    def fixed_b1(self) -> bool:
        """Whether B1 is given, not fitted."""
        return self.b1_range[0] == self.b1_range[1]

    def b1(self, theta: np.ndarray) -> np.ndarray:
        """Return the relative transmit field of parameters `theta`."""
        return 2 * np.arccos(np.sqrt(theta[1])) / np.deg2rad(self.refocusing)

    def decay(self, theta: np.ndarray) -> np.ndarray:
        """Return the magnitude of the given echoes, shape (n, v), for log T2 and w in `theta`, shape (2, v)."""
        count = int(self.echoes.max()) + 1
        train = epg_echoes(np.exp(theta[0]), self.b1(theta), count, self.spacing, self.t1, self.refocusing)
        return np.abs(train[self.echoes])

    def solve(self, y: np.ndarray, sigma: np.ndarray | None = None) -> Solution:
        """Return T2, B1 and M0 of signals `y` (n, v) by least squares, each voxel scaled to a maximum near 1."""
        theta = _match(self, y)
        limits = self.limits
        damping = np.full(theta.shape[1], 1e-3)
        result = theta.copy()
        converged = np.zeros(theta.shape[1], bool)
        active, z = np.arange(theta.shape[1]), y
        ssr = _residual(z, self.decay(theta))[1]
        before = moved = np.zeros(theta.shape)
        for number in range(_MAX_STEPS):
            gradient, matrix = _normal_equations(self, z, theta)
            # A parameter held at its bound leaves the system, or the other one could not move freely.
            for row in range(2):
                held = ((theta[row] <= limits[row, 0]) & (gradient[row] < 0)
                        | (theta[row] >= limits[row, 1]) & (gradient[row] > 0))
                _hold(gradient, matrix, row, held)
            plain, step = _step(gradient, matrix, 0.0), _step(gradient, matrix, damping)
            if number >= _EXTRAPOLATED:
                step = np.where(moved.any(axis=0), _extrapolated(plain, before, moved), step)
            trial = np.clip(theta + step, limits[:, :1], limits[:, 1:])
            trial_ssr = _residual(z, self.decay(trial))[1]
            better = trial_ssr <= ssr * (1 + 1e-12) + 1e-28
            # Damping makes any step small: the one without it tells whether the optimum is here.
            whole = np.clip(theta + plain, limits[:, :1], limits[:, 1:])
            done = ((np.abs(trial - theta) <= _TOLERANCE) & (np.abs(whole - theta) <= 100 * _TOLERANCE)).all(axis=0)
            before, moved = plain, np.where(better, trial - theta, 0.0)
            theta, ssr = np.where(better, trial, theta), np.where(better, trial_ssr, ssr)
            damping = np.clip(np.where(better, damping * 0.1, damping * 10), 1e-12, 1e12)
            result[:, active] = theta
            if done.any():
                converged[active[done]] = True
                keep = ~done
                active, z, theta, ssr, damping = active[keep], z[:, keep], theta[:, keep], ssr[keep], damping[keep]
                before, moved = before[:, keep], moved[:, keep]
                if not active.size:
                    break
        return _summary(self, y, sigma, result, converged)


def _match(model: EpgModel, y: np.ndarray) -> np.ndarray:
    """Return the parameters of the best atom of each voxel."""
    best = np.empty(y.shape[1], np.intp)
    signals = y.T.astype(np.float32)
    for start in range(0, best.size, _ROWS):
        rows = slice(start, start + _ROWS)
        best[rows] = (signals[rows] @ model.atoms).argmax(axis=1)
    return model.parameters[:, best].copy()


def _residual(y, decay):
    """Return amplitude, residual sum of squares, and residual, with M0 eliminated."""
    amplitude = (y * decay).sum(axis=0) / (decay * decay).sum(axis=0)
    residual = y - amplitude * decay
    return amplitude, (residual * residual).sum(axis=0), residual


def _jacobian(model, theta, decay):
    """Return the derivatives by log T2 and w, orthogonal to the decay itself; shape (2, n, v)."""
    norm = (decay * decay).sum(axis=0)
    out = np.zeros((2, *decay.shape))
    upper = model.limits[:, 1]
    for row in range(1 if model.fixed_b1 else 2):
        sign = np.where(theta[row] + _DIFFERENCE > upper[row], -1.0, 1.0)
        moved = theta.copy()
        moved[row] += sign * _DIFFERENCE
        column = (model.decay(moved) - decay) * (sign / _DIFFERENCE)
        out[row] = column - (column * decay).sum(axis=0) / norm * decay
    return out


def _normal_equations(model, y, theta):
    decay = model.decay(theta)
    amplitude, _, residual = _residual(y, decay)
    columns = _jacobian(model, theta, decay) * amplitude
    gradient = np.einsum("pnv,nv->pv", columns, residual)
    matrix = np.einsum("pnv,qnv->pqv", columns, columns)
    if model.fixed_b1:
        _hold(gradient, matrix, 1, np.ones(theta.shape[1], bool))
    return gradient, matrix


def _hold(gradient, matrix, row, held):
    gradient[row, held] = 0
    matrix[row, :, held] = 0
    matrix[:, row, held] = 0
    matrix[row, row, held] = 1


def _step(gradient, matrix, damping):
    a, b, c = matrix[0, 0] * (1 + damping), matrix[0, 1], matrix[1, 1] * (1 + damping)
    determinant = a * c - b * b
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.stack([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / determinant
    return np.clip(np.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0), -0.5, 0.5)


def _extrapolated(step, before, moved):
    """Return the step that Gauss-Newton's last two lead to (Anderson, J ACM 1965;12:547, depth 1).

    Noise makes its steps along the valley of T2 and w too long or too short by a constant factor.
    """
    change = step - before
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num((change * step).sum(axis=0) / (change * change).sum(axis=0), posinf=0.0, neginf=0.0)
    return np.clip(step - share * (moved + change), -0.5, 0.5)


def _summary(model, y, sigma, theta, converged) -> Solution:
    decay = model.decay(theta)
    amplitude, ssr, _ = _residual(y, decay)
    columns = _jacobian(model, theta, decay) * amplitude
    matrix = np.einsum("pnv,qnv->pqv", columns, columns)
    # B1 at an end of its range is not estimated, so it takes no information from T2.
    (low, high), ends = model.limits
    held = (theta[1] <= ends[0]) | (theta[1] >= ends[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        shared = np.where(held, 0.0, matrix[0, 1] ** 2 / matrix[1, 1])
        variance = np.exp(2 * theta[0]) / (matrix[0, 0] - shared)
        variance *= noise_variance(ssr, sigma, len(y) - (2 if model.fixed_b1 else 3))
    edge = (theta[0] <= low).astype(np.int8) - (theta[0] >= high).astype(np.int8)
    return Solution(np.exp(theta[0]), amplitude, ssr, total_squares(y), variance, edge, converged,
                    b1=100 * model.b1(theta))
