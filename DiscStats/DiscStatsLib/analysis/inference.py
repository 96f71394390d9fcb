"""Permutation p, FDR, TFCE and clusters of one fitted contrast."""

from dataclasses import dataclass, field

import numpy as np
from scipy import special

from DiscRelaxometryLib.progress import ProgressCallback, subrange

from ..permutation import (
    ClusterStatistics,
    MapLayout,
    Scheme,
    TfceSettings,
    adjust_bh,
    adjust_bky,
    cluster_rows,
    cluster_sizes,
    directed,
    enhance_input,
    find_clusters,
    fwe_p,
    map_null,
    max_statistics,
    neighbors_of,
    one_side,
    stat_to_z,
    tail_p,
    tfce_values,
)
from ..settings import AnalysisSettings
from .data import AnalysisData
from .model import ContrastFit


@dataclass
class Inference:
    """What permutation says of one contrast."""

    #: Maps over (quantity, voxel) flattened, those of the fit among them.
    columns: dict[str, np.ndarray]
    #: Rows of the cluster table.
    clusters: list[dict] = field(default_factory=list)
    #: Null maxima of ``max``, ``tfce``, ``extent`` and ``mass``, over all maps and levels.
    null: dict[str, np.ndarray] = field(default_factory=dict)
    #: What was done, for the provenance.
    done: dict = field(default_factory=dict)


def infer(fitted: ContrastFit, data: AnalysisData, scheme: Scheme | None, settings: AnalysisSettings,
          region_names: dict[int, str], report: ProgressCallback) -> Inference:
    """Return the maps, cluster rows and null distributions of one contrast; without a scheme what needs none."""
    contrast, columns = fitted.contrast, dict(fitted.columns)
    stat = columns.pop("compared")
    alternative = settings.alternative if contrast.kind == "t" else "two-sided"
    as_z = len(fitted.dfs) > 1
    done: dict = {"name": contrast.name, "kind": contrast.kind, "weights": contrast.weights, "df": fitted.dfs,
            "permutation": scheme.description if scheme else None,
            "statistic": ("z of the same p as " if as_z else "") + contrast.kind}
    result = Inference(columns, done=done)
    if alternative != "two-sided":
        half = columns["p"] / 2
        columns["p"] = np.where((columns["stat"] > 0) == (alternative == "greater"), half, 1 - half)
    if "fdr" in settings.correction:
        columns["qfdr"], columns["qbky"] = adjust_bh(columns["p"]), adjust_bky(columns["p"])
    if scheme is None:
        return result
    needs_maps = bool({"tfce", "cluster"} & set(settings.correction))
    if as_z:
        stat = stat_to_z(stat, columns["df"], contrast.kind, len(contrast.weights))
    null = max_statistics(fitted.strata, scheme, len(stat), alternative=alternative, as_z=as_z,
                          workers=settings.workers, device=settings.device, distribute=settings.distribute,
                          progressCallback=subrange(report, 0.0, 0.3 if needs_maps else 1.0))
    columns["pperm"] = np.where(np.isfinite(stat), (null.counts + 1) / (len(scheme) + 1), np.nan)
    result.null["max"] = null.maxima.max(axis=0)
    columns["pfwe"] = _corrected(result, directed(stat, alternative, contrast.kind), "max", settings)
    done["max_threshold_05"] = float(np.quantile(result.null["max"], 0.95, method="higher"))
    if not needs_maps:
        return result
    enhancement = settings.tfce or TfceSettings()
    layout = _layout(data, enhancement, np.isfinite(columns["df"]))
    height = _height(fitted, settings.cluster_p, as_z, alternative) if "cluster" in settings.correction else None
    nulls = map_null(fitted.strata, scheme, layout, settings=enhancement if "tfce" in settings.correction else None,
                     height=height, alternative=alternative, as_z=as_z, workers=settings.workers,
                     distribute=settings.distribute, progressCallback=subrange(report, 0.3, 1.0))
    shown = one_side(stat, alternative, contrast.kind)
    if nulls.tfce is not None:
        result.null["tfce"] = nulls.tfce.max(axis=0)
        _add_tfce(result, enhance_input(shown, contrast.kind, as_z), layout, settings)
        done["tfce"] = vars(enhancement) | {}
    if height is not None and nulls.extent is not None and nulls.mass is not None:
        result.null |= {"extent": nulls.extent.max(axis=0), "mass": nulls.mass.max(axis=0)}
        _add_clusters(result, shown, data, layout, height, region_names)
        done["cluster_forming_p"] = settings.cluster_p
    return result


def _layout(data: AnalysisData, settings: TfceSettings, tested: np.ndarray) -> MapLayout:
    grid = np.zeros(data.inside.shape, np.int32)
    grid[data.inside] = data.levels
    return MapLayout(len(data.values), neighbors_of(grid, settings.connectivity),
                     [np.flatnonzero(data.levels == v) for v in data.level_values], tested)


def _height(fitted: ContrastFit, cluster_p: float, as_z: bool, alternative: str) -> np.ndarray:
    """Return the cluster-forming threshold in the unit of the statistic."""
    kind, r = fitted.contrast.kind, len(fitted.contrast.weights)
    tail = cluster_p if kind == "F" or alternative != "two-sided" else cluster_p / 2
    if as_z:
        return np.full(len(fitted.columns["stat"]), -special.ndtri(tail))
    df = fitted.dfs[0]
    height = special.fdtri(r, df, 1 - tail) if kind == "F" else -special.stdtrit(df, tail)
    return np.full(len(fitted.columns["stat"]), height)


def _corrected(result: Inference, observed: np.ndarray, key: str, settings: AnalysisSettings) -> np.ndarray:
    """Return the family-wise p of observed maxima, and record the tail that approximated some."""
    if settings.tail == "counted":
        return fwe_p(observed, result.null[key])
    p, tail = tail_p(observed, result.null[key])
    result.done[f"tail_{key}"] = vars(tail) if tail else "no Pareto distribution fits: p is counted"
    return p


def _add_tfce(result: Inference, shown: np.ndarray, layout: MapLayout, settings: AnalysisSettings) -> None:
    v, enhancement = len(layout.neighbors), settings.tfce or TfceSettings()
    value = np.concatenate([tfce_values(shown[m * v:(m + 1) * v], layout.neighbors, enhancement)
                            for m in range(layout.n_maps)])
    value[np.isnan(shown)] = np.nan
    result.columns["tfce"] = value
    result.columns["ptfce"] = _corrected(result, np.abs(value), "tfce", settings)


def _add_clusters(result: Inference, shown: np.ndarray, data: AnalysisData, layout: MapLayout, height: np.ndarray,
                  region_names: dict[int, str]) -> None:
    columns, v = result.columns, len(layout.neighbors)
    columns["cluster"] = np.zeros(len(shown), np.int32)
    for key in ("pextent", "pmass"):
        columns[key] = np.where(np.isfinite(shown), 1.0, np.nan)
    for m, quantity in enumerate(data.values):
        part = slice(m * v, (m + 1) * v)
        found = columns["cluster"][part] = find_clusters(shown[part], height[part], layout.neighbors)
        if not found.any():
            continue
        extent, mass = cluster_sizes(shown[part], found, height[part])
        p = {"pextent": fwe_p(extent.astype(float), result.null["extent"]), "pmass": fwe_p(mass, result.null["mass"])}
        for key, values in p.items():
            columns[key][part][found > 0] = values[found[found > 0] - 1]
        named = {k: columns[c][part] for k, c in (("p_fwe", "pfwe"), ("p_tfce", "ptfce"), ("effect", "effect"))
                 if c in columns}
        result.clusters += cluster_rows(
            ClusterStatistics(columns["stat"][part], found, mass, p["pextent"], p["pmass"]),
            columns=named, ijk=data.ijk,
            levels=data.levels, regions=data.regions, region_names=region_names, geometry=data.geometry,
            contrast=result.done["name"], quantity=quantity)
