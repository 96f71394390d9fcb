"""What precision a protocol can reach: the Cramer-Rao bound of each model for constant Gaussian noise."""

from collections.abc import Sequence

import numpy as np

from DiscRelaxometryLib.fit.epg_signal import epg_echoes


def cramer_rao_sd(value: np.ndarray, times_ms: Sequence[float], snr: float | np.ndarray, model: str = "mono2",
                  **epg: float) -> np.ndarray:
    """Return the smallest standard deviation, in ms, that an unbiased estimate of a relaxation time can have.

    Parameters
    ----------
    value : numpy.ndarray
        Relaxation time in ms.
    times_ms : sequence of float
        Spin-lock or echo times in ms.
    snr : float or numpy.ndarray
        M0 over sigma; broadcasts with `value`.
    model : str
        ``mono2``, ``mono3``, or ``epg`` (T2, B1 and M0 unknown).
    **epg
        For ``epg``: ``b1`` (relative, 0.9), and ``t1``, ``refocusing`` as in ``fit_epg.EpgModel``.

    Notes
    -----
    The Fisher information of a least-squares model with noise of variance sigma^2 is J'J / sigma^2, J the derivatives
    by all parameters. Magnitude noise has slightly less information where the signal nears the noise.
    """
    times = np.asarray(times_ms, float)
    value, snr = np.broadcast_arrays(np.asarray(value, float), np.asarray(snr, float))
    if model == "epg":
        columns = _epg_columns(value.ravel(), times, **epg)
    elif model in ("mono2", "mono3"):
        e = np.exp(-np.multiply.outer(times, 1 / value.ravel()))
        columns = [times[:, None] / value.ravel() ** 2 * e, e]
        if model == "mono3":
            columns.append(np.ones_like(e))
    else:
        raise ValueError(f"'{model}' is not a model: choose 'mono2', 'mono3' or 'epg'.")
    jacobian = np.stack(columns, axis=-1).transpose(1, 0, 2)
    information = jacobian.transpose(0, 2, 1) @ jacobian
    variance = np.linalg.inv(information)[:, 0, 0]
    return np.sqrt(variance).reshape(value.shape) / snr


def _epg_columns(t2, times, b1=0.9, t1=1000.0, refocusing=180.0):
    spacing = float(np.diff(times).min())
    rows = np.round(times / spacing).astype(int) - 1

    def echoes(t2, b1):
        return epg_echoes(t2, b1, int(rows.max()) + 1, spacing, t1, refocusing)[rows]

    field = np.full(t2.size, float(b1))
    by_t2 = (echoes(t2 * (1 + 1e-5), field) - echoes(t2 * (1 - 1e-5), field)) / (2e-5 * t2)
    by_b1 = (echoes(t2, field + 1e-5) - echoes(t2, field - 1e-5)) / 2e-5
    return [by_t2, echoes(t2, field), by_b1]
