"""Normal deviates of the same p as t or F, by table: the distribution functions take ten times as long."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

#: Nodes per unit of t (without its sign), or of log F, and the range of the tables; what lies outside is computed.
NODES, T_TOP, F_RANGE = 128, 16, (-12, 10)
#: Fewer values than this are not worth a table.
FEW = 256
#: p below 1e-300 are not told apart.
Z_TOP = 37


def stat_to_z(stat, df, kind: str = "t", r: int = 1) -> np.ndarray:
    """Return the normal deviate with the same p; used where voxels differ in degrees of freedom.

    Cubic interpolation with exact slopes; off by less than 2e-10.

    Parameters
    ----------
    stat : array-like
    df : int or ndarray
        Residual degrees of freedom, one or one for each entry (of the last axis).
    kind : {"t", "F"}
    r : int
        Degrees of freedom of the contrast.
    """
    stat = np.asarray(stat, float)
    if np.ndim(df) == 0:
        return _of_t(stat, df) if kind == "t" else _of_f(stat, df, r)
    z = np.full(stat.shape, np.nan)
    for value in np.unique(df[np.isfinite(df)]):
        at = ..., df == value
        z[at] = stat_to_z(stat[at], value, kind, r)
    return z


def _of_t(t: np.ndarray, df) -> np.ndarray:
    size = np.abs(t)
    if t.size < FEW:
        return np.copysign(_exact_t(size, df), t)
    return np.copysign(_interpolated(size, size, _t_table(float(df)), 0, lambda s: _exact_t(s, df)), t)


def _of_f(f: np.ndarray, df, r: int) -> np.ndarray:
    if f.size < FEW:
        return _exact_f(f, df, r)
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.log(f)
    return _interpolated(f, place, _f_table(float(df), r), F_RANGE[0], lambda s: _exact_f(s, df, r))


def _interpolated(stat, place, table, start, exact) -> np.ndarray:
    """Return the cubics of a table at some places of it, and the exact value elsewhere."""
    top = len(table[0])
    x = (place - start) * NODES
    inside = None
    if not (x.min(initial=0) >= 0 and x.max(initial=0) < top):
        with np.errstate(invalid="ignore"):
            inside = (x >= 0) & (x < top)
        x = np.where(inside, x, 0)
    node = x.astype(np.int32)
    x -= node
    z = table[3].take(node)
    for coefficient in table[2::-1]:
        z *= x
        z += coefficient.take(node)
    if inside is not None:
        z[~inside] = exact(stat[~inside])
    return z


def _exact_t(size, df) -> np.ndarray:
    return -special.ndtri(np.maximum(special.stdtr(df, -size), 1e-300))


def _exact_f(f, df, r: int) -> np.ndarray:
    upper, lower = special.fdtrc(r, df, f), special.fdtr(r, df, f)
    return np.where(upper < lower, -special.ndtri(np.maximum(upper, 1e-300)), special.ndtri(np.maximum(lower, 1e-300)))


@lru_cache(maxsize=1024)
def _t_table(df: float) -> tuple[np.ndarray, ...]:
    t = np.arange(T_TOP * NODES + 1) / NODES
    z = _exact_t(t, df)
    density = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(df * np.pi) / 2 \
        - (df + 1) / 2 * np.log1p(t ** 2 / df)
    return _cubics(z, density)


@lru_cache(maxsize=1024)
def _f_table(df: float, r: int) -> tuple[np.ndarray, ...]:
    place = np.arange(F_RANGE[0] * NODES, F_RANGE[1] * NODES + 1) / NODES
    z = _exact_f(np.exp(place), df, r)
    # Of log F: the density of F times F.
    density = r / 2 * (np.log(r / df) + place) - (r + df) / 2 * np.log1p(r / df * np.exp(place)) \
        - special.betaln(r / 2, df / 2)
    kept = z < Z_TOP
    return _cubics(z[kept], density[kept])


def _cubics(z: np.ndarray, log_density: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the coefficients of Hermite's cubics between nodes, constant first; dz = density / normal density."""
    slope = np.exp(log_density + z ** 2 / 2 + np.log(2 * np.pi) / 2) / NODES
    step = np.diff(z)
    return z[:-1], slope[:-1], 3 * step - 2 * slope[:-1] - slope[1:], slope[:-1] + slope[1:] - 2 * step
