"""Permutation p, FDR, TFCE and clusters of one fitted contrast, written into the result's maps and table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.progress import ProgressCallback, subrange

from ..permutation import (
    MapLayout,
    Scheme,
    TfceSettings,
    adjust_bh,
    adjust_bky,
    cluster_rows,
    cluster_sizes,
    enhance_input,
    find_clusters,
    fwe_p,
    map_null,
    max_statistics,
    neighbors_of,
    one_side,
    stat_to_z,
    tfce,
)
from .map_kinds import map_meta
from .model import ContrastFit


@dataclass(frozen=True)
class Options:
    """Settings of the inference; see :func:`DiscStatsLib.analysis.analyze.analyze`."""

    correction: tuple[str, ...]
    alternative: str = "two-sided"
    cluster_p: float = 0.001
    tfce_settings: TfceSettings | None = None
    workers: int = 1
    device: str = "cpu"
    standard_errors: str = "classical"

    def check(self) -> None:
        """Raise DesignError for settings that do not exist."""
        if self.alternative not in ("two-sided", "greater", "less"):
            raise DesignError(f"alternative = '{self.alternative}' is not known: choose two-sided, greater or less.")
        if not 0 < self.cluster_p < 0.5:
            raise DesignError(f"The cluster-forming p must lie between 0 and 0.5; it is {self.cluster_p}.")
        step = self.tfce_settings.step if self.tfce_settings else None
        if step is not None and not step > 0:
            raise DesignError(f"The step of TFCE must be above 0, or None for the exact sum; it is {step}.")
        if self.workers < 1:
            raise DesignError(f"At least one worker is needed; {self.workers} were asked for.")
        if self.device != "cpu":
            from ..permutation import require_device

            require_device(self.device)


def infer(result, fitted: ContrastFit, scheme: Scheme | None, options: Options, region_names: dict[int, str],
          report: ProgressCallback) -> dict:
    """Add the maps and cluster rows of one contrast to `result`; return what was done, for the provenance."""
    data, contrast, columns = result.data, fitted.contrast, dict(fitted.columns)
    alternative = options.alternative if contrast.kind == "t" else "two-sided"
    as_z = len(fitted.dfs) > 1
    done = {"name": contrast.name, "kind": contrast.kind, "weights": contrast.weights, "df": fitted.dfs,
            "permutation": scheme.description if scheme else None,
            "statistic": ("z of the same p as " if as_z else "") + contrast.kind}
    if alternative != "two-sided":
        columns["p"] = special.stdtr(columns["df"], columns["stat"] * (1 if alternative == "less" else -1))
    if "fdr" in options.correction:
        columns["qfdr"], columns["qbky"] = adjust_bh(columns["p"]), adjust_bky(columns["p"])
    turned = columns["stat"] if not as_z else _as_z(fitted)
    if scheme is not None:
        null = max_statistics(fitted.strata, scheme, len(turned), alternative=alternative, as_z=as_z,
                              workers=options.workers, device=options.device,
                              progressCallback=subrange(report, 0.0, 0.3 if _needs_maps(options) else 1.0))
        tested = np.isfinite(turned)
        columns["pperm"] = np.where(tested, (null.counts + 1) / (len(scheme) + 1), np.nan)
        maximum = null.maxima.max(axis=0)
        result.null[f"{contrast.name}_max"] = maximum
        columns["pfwe"] = fwe_p(_directed(turned, alternative, contrast.kind), maximum)
        done["max_threshold_05"] = float(np.quantile(maximum, 0.95, method="higher"))
    layout = None
    if scheme is not None and _needs_maps(options):
        settings = options.tfce_settings or TfceSettings()
        layout = _layout(data, settings)
        height = _height(fitted, options, as_z, alternative) if "cluster" in options.correction else None
        nulls = map_null(fitted.strata, scheme, layout, settings=settings if "tfce" in options.correction else None,
                         height=height, alternative=alternative, as_z=as_z, workers=options.workers,
                         progressCallback=subrange(report, 0.3, 1.0))
        if nulls.tfce is not None:
            _tfce_columns(result, columns, turned, fitted, nulls.tfce.max(axis=0), layout, settings, alternative, as_z)
            done["tfce"] = vars(settings) | {}
        if height is not None:
            _cluster_columns(result, columns, turned, fitted, nulls, layout, height, alternative, region_names)
            done["cluster_forming_p"] = options.cluster_p
            if options.cluster_p > 0.001:
                result.warnings.append(f"The cluster-forming p of {options.cluster_p:g} is above 0.001: clusters "
                                       "formed at it are not accepted as localized findings (Woo 2014).")
    _write_maps(result, fitted, columns, alternative, options.standard_errors)
    return done


def _needs_maps(options: Options) -> bool:
    return bool({"tfce", "cluster"} & set(options.correction))


def _as_z(fitted: ContrastFit) -> np.ndarray:
    r = len(fitted.contrast.weights)
    return stat_to_z(fitted.columns["stat"], fitted.columns["df"], fitted.contrast.kind, r)


def _directed(stat: np.ndarray, alternative: str, kind: str) -> np.ndarray:
    """Return the statistic so that larger is more extreme."""
    if kind == "F" or alternative == "greater":
        return stat
    return -stat if alternative == "less" else np.abs(stat)


def _layout(data, settings: TfceSettings) -> MapLayout:
    grid = np.zeros(data.inside.shape, np.int32)
    grid[data.inside] = data.levels
    return MapLayout(len(data.values), neighbors_of(grid, settings.connectivity),
                     [np.flatnonzero(data.levels == v) for v in data.level_values])


def _height(fitted: ContrastFit, options: Options, as_z: bool, alternative: str) -> np.ndarray:
    """Return the cluster-forming threshold in the unit of the statistic; voxels without one form no cluster."""
    kind, r = fitted.contrast.kind, len(fitted.contrast.weights)
    tail = options.cluster_p if kind == "F" or alternative != "two-sided" else options.cluster_p / 2
    if as_z:
        return np.full(len(fitted.columns["stat"]), -special.ndtri(tail))
    df = fitted.dfs[0]
    height = special.fdtri(r, df, 1 - tail) if kind == "F" else -special.stdtrit(df, tail)
    return np.full(len(fitted.columns["stat"]), height)


def _tfce_columns(result, columns, stat, fitted, maximum, layout, settings, alternative, as_z) -> None:
    kind, v = fitted.contrast.kind, len(layout.neighbors)
    shown = enhance_input(one_side(stat, alternative, kind), kind, as_z)
    value = np.concatenate([tfce(shown[m * v:(m + 1) * v], layout.neighbors, settings) for m in range(layout.n_maps)])
    value[np.isnan(stat)] = np.nan
    columns["tfce"] = value
    columns["ptfce"] = fwe_p(np.abs(value), maximum)
    result.null[f"{fitted.contrast.name}_tfce"] = maximum


def _cluster_columns(result, columns, stat, fitted, nulls, layout, height, alternative, region_names) -> None:
    contrast, data, v = fitted.contrast, result.data, len(layout.neighbors)
    shown = one_side(stat, alternative, contrast.kind)
    extents, masses = nulls.extent.max(axis=0), nulls.mass.max(axis=0)
    result.null[f"{contrast.name}_extent"], result.null[f"{contrast.name}_mass"] = extents, masses
    tested = np.isfinite(stat)
    labels = np.zeros(len(stat), np.int32)
    for key in ("pextent", "pmass"):
        columns[key] = np.where(tested, 1.0, np.nan)
    for m, quantity in enumerate(data.values):
        part = slice(m * v, (m + 1) * v)
        found = find_clusters(shown[part], height[part], layout.neighbors)
        labels[part] = found
        if not found.any():
            continue
        extent, mass = cluster_sizes(shown[part], found, height[part])
        p_extent, p_mass = fwe_p(extent.astype(float), extents), fwe_p(mass, masses)
        for key, p in (("pextent", p_extent), ("pmass", p_mass)):
            columns[key][part][found > 0] = p[found[found > 0] - 1]
        named = {k: columns[c][part] for k, c in (("p_fwe", "pfwe"), ("p_tfce", "ptfce"), ("effect", "effect"))
                 if c in columns}
        result.clusters.rows += cluster_rows(
            stat=columns["stat"][part], labels=found, mass=mass, extent_p=p_extent, mass_p=p_mass,
            columns=named, ijk=data.ijk, levels=data.levels, regions=data.regions, region_names=region_names,
            geometry=data.geometry, contrast=contrast.name, quantity=quantity)
    columns["cluster"] = labels


_OF_STANDARD_ERROR = ("se", "ci_low", "ci_high", "stat", "r", "p", "qfdr", "qbky")
_ORDER = ("effect", "se", "ci_low", "ci_high", "stat", "r", "size", "p", "pperm", "pfwe", "qfdr", "qbky", "tfce",
          "ptfce", "cluster", "pextent", "pmass")


def _write_maps(result, fitted: ContrastFit, columns: dict[str, np.ndarray], alternative: str, errors: str) -> None:
    """Add one image a statistic and quantity; F contrasts have no effect, limits or r."""
    contrast, data = fitted.contrast, result.data
    names = {"stat": contrast.kind, "size": "d" if contrast.kind == "t" else "eta2", "ci_low": "cilow",
             "ci_high": "cihigh"}
    without = ("effect", "se", "ci_low", "ci_high", "r") if contrast.kind == "F" else ()
    wanted = [k for k in _ORDER if k in columns and k not in without] + (["df"] if len(fitted.dfs) > 1 else [])
    how = "upper tail" if contrast.kind == "F" else alternative
    for m, quantity in enumerate(data.values):
        part = slice(m * data.n_voxels, (m + 1) * data.n_voxels)
        for key in wanted:
            name, values = names.get(key, key), columns[key][part]
            meta = map_meta(name, quantity, contrast.name, values, how)
            if errors == "hc3" and key in _OF_STANDARD_ERROR:
                meta["description"] += "; heteroscedasticity-consistent standard error (HC3)"
            result.maps[f"{quantity}_{contrast.name}_{name}"] = data.to_image(values, **meta)
