"""Normal deviates of the same p as t or F, by table: the distribution functions take ten times as long."""

from functools import lru_cache, partial

import numpy as np
from scipy import special

from DiscRelaxometryLib.compiled import kernel_if_numba

#: Nodes per unit of t (without its sign), or of log F, and the range of the tables; what lies outside is computed.
NODES, T_TOP, F_RANGE = 128, 16, (-12, 10)
#: Fewer values than this are not worth a table.
FEW = 256
#: Degrees of freedom whose tables (64 kB each) are looked up side by side; more outgrow the cache.
MOST = 64
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
    size, exact = (np.abs(stat), _exact_t) if kind == "t" else (stat, partial(_exact_f, r=r))
    z = np.full(stat.shape, np.nan)
    if stat.size >= FEW:
        with np.errstate(divide="ignore", invalid="ignore"):
            _interpolate(size if kind == "t" else np.log(size) - F_RANGE[0], df, (kind, r), z)
    beyond = np.isnan(z)
    if beyond.any():
        z[beyond] = exact(size[beyond], np.broadcast_to(df, stat.shape)[beyond])
    return np.copysign(z, stat) if kind == "t" else z


def _interpolate(place, df, of: tuple[str, int], z) -> None:
    """Fill z by the cubics of each column's table at places counted from its start; what lies outside stays NaN."""
    values, own = np.unique(df, return_inverse=True)
    values = values[np.isfinite(values)]
    compiled = kernel_if_numba(_cubics_at) if len(values) <= MOST else None
    if compiled is None:
        for number, value in enumerate(values):
            at = ... if np.ndim(df) == 0 else (..., own == number)
            z[at] = _interpolated(place[at] * NODES, _table(value, *of))
        return
    width = place.shape[-1] if np.ndim(df) else 1
    compiled(place.reshape(-1, width), np.broadcast_to(own, width).astype(np.int32), *_tables(tuple(values), *of),
             z.reshape(-1, width))


def _table(df: float, kind: str, r: int) -> np.ndarray:
    return _t_table(df) if kind == "t" else _f_table(df, r)


@lru_cache(maxsize=16)
def _tables(dfs: tuple[float, ...], kind: str, r: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tables of several degrees of freedom in one piece, and where each begins."""
    found = [_table(df, kind, r) for df in dfs]
    # A last, empty one is that of the columns without degrees of freedom.
    first = np.cumsum([0, *map(len, found), 0])
    return np.concatenate([np.empty((0, 4)), *found]), first


def _cubics_at(place, own, tables, first, z):
    for n in range(place.shape[0]):
        for v in range(place.shape[1]):
            x, start = place[n, v] * NODES, first[own[v]]
            if 0 <= x < first[own[v] + 1] - start:
                node = int(x)
                x -= node
                c = tables[start + node]
                z[n, v] = ((c[3] * x + c[2]) * x + c[1]) * x + c[0]


def _interpolated(x, table) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x < len(table))
    x = np.where(inside, x, 0)
    node = x.astype(np.int32)
    x -= node
    z = table[:, 3].take(node)
    for coefficient in table.T[2::-1]:
        z *= x
        z += coefficient.take(node)
    z[~inside] = np.nan
    return z


def _exact_t(size, df) -> np.ndarray:
    return -special.ndtri(np.maximum(special.stdtr(df, -size), 1e-300))


def _exact_f(f, df, r: int) -> np.ndarray:
    upper, lower = special.fdtrc(r, df, f), special.fdtr(r, df, f)
    return np.where(upper < lower, -special.ndtri(np.maximum(upper, 1e-300)), special.ndtri(np.maximum(lower, 1e-300)))


@lru_cache(maxsize=1024)
def _t_table(df: float) -> np.ndarray:
    t = np.arange(T_TOP * NODES + 1) / NODES
    z = _exact_t(t, df)
    density = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(df * np.pi) / 2 \
        - (df + 1) / 2 * np.log1p(t ** 2 / df)
    return _cubics(z, density)


@lru_cache(maxsize=1024)
def _f_table(df: float, r: int) -> np.ndarray:
    place = np.arange(F_RANGE[0] * NODES, F_RANGE[1] * NODES + 1) / NODES
    z = _exact_f(np.exp(place), df, r)
    # Of log F: the density of F times F.
    density = r / 2 * (np.log(r / df) + place) - (r + df) / 2 * np.log1p(r / df * np.exp(place)) \
        - special.betaln(r / 2, df / 2)
    kept = z < Z_TOP
    return _cubics(z[kept], density[kept])


def _cubics(z: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """Return the coefficients (nodes, 4) of Hermite's cubics, constant first; dz = density / normal density."""
    slope = np.exp(log_density + z ** 2 / 2 + np.log(2 * np.pi) / 2) / NODES
    step = np.diff(z)
    return np.stack([z[:-1], slope[:-1], 3 * step - 2 * slope[:-1] - slope[1:], slope[:-1] + slope[1:] - 2 * step], 1)
