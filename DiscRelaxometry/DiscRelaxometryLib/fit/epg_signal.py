"""Extended phase graph of a multi-echo spin echo train (CPMG): the echoes that imperfect refocusing produces.

Hennig, Concepts Magn Reson 1991;3:125; Weigel, J Magn Reson Imaging 2015;41:266. With a CPMG sequence all states are
real, and only odd orders meet a pulse, so a train of n echoes needs n transverse pairs and n longitudinal states.
The slice profile is not modelled.
"""

import numpy as np


def epg_echoes(t2: np.ndarray, b1: np.ndarray, count: int, spacing: float, t1: float = 1000.0,
               refocusing: float = 180.0, excitation: float = 90.0) -> np.ndarray:
    """Return the echo amplitudes of a CPMG train, shape (count, v), for equilibrium magnetization 1.

    T2 is in ms, shape (v,); `b1` the relative transmit field, shape (v,), 1 at the nominal angles; `spacing` in ms,
    echo i (from 1) at i x spacing; T1 in ms, of little influence; the flip angles are nominal, in degrees.
    """
    t2, b1 = np.broadcast_arrays(np.asarray(t2, float), np.asarray(b1, float))
    angle = np.deg2rad(refocusing) * b1
    cos2, sin2 = np.cos(angle / 2) ** 2, np.sin(angle / 2) ** 2
    sine, cosine = np.sin(angle), np.cos(angle)
    decay, half = np.exp(-spacing / t2), np.exp(-0.5 * spacing / t2)
    recovery = np.exp(-spacing / t1)
    echoes = np.empty((count, t2.size))
    # Orders 1, 3, 5 ... just before a pulse; the equilibrium recovers into order 0, which no echo sees.
    plus, minus, along = (np.zeros((count + 1, t2.size)) for _ in range(3))
    plus[0] = np.sin(np.deg2rad(excitation) * b1) * half
    for echo in range(count):
        # Higher orders than both the pulses so far and the echoes left cannot contribute any more.
        n = min(echo + 1, count - echo)
        p, m, z = plus[:n], minus[:n], along[:n]
        mixed = 0.5 * sine * (m - p) + cosine * z
        turned = cos2 * p + sin2 * m + sine * z
        refocused = sin2 * p + cos2 * m - sine * z
        echoes[echo] = refocused[0] * half
        plus[1:n + 1] = turned * decay
        plus[0] = refocused[0] * decay
        minus[:n - 1] = refocused[1:] * decay
        minus[n - 1:n + 1] = 0
        along[:n] = mixed * recovery
    return echoes
