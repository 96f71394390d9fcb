"""Clusters above a height: extent, mass, and the table with peak, disc level and region."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from DiscRelaxometryLib.compiled import kernel_if_numba
from DiscRelaxometryLib.image import Geometry
from DiscRelaxometryLib.labels import BY_VALUE
from DiscRelaxometryLib.tables import Column, Table

from .tfce import Neighbors

CLUSTER_COLUMNS = (
    Column("contrast", "", "Contrast of the model"),
    Column("quantity", "", "Map that was tested"),
    Column("cluster", "", "Number of the cluster, as in the cluster map; largest first"),
    Column("sign", "", "Direction of the effect (+ or -)"),
    Column("voxels", "1", "Extent in voxels"),
    Column("volume_mm3", "mm3", "Extent in mm3"),
    Column("mass", "1", "Sum of the statistic's excess over the cluster-forming height, of z of the same p where "
                        "voxels differ in degrees of freedom"),
    Column("p_extent", "1", "FWE-corrected p of the extent (maximum over all maps and levels tested together)"),
    Column("p_mass", "1", "FWE-corrected p of the mass"),
    Column("peak", "1", "Statistic (t or F) at the peak"),
    Column("peak_r", "mm", "Peak position, patient right to left axis, RAS as Slicer shows it"),
    Column("peak_a", "mm", "Peak position, posterior to anterior axis, RAS"),
    Column("peak_s", "mm", "Peak position, inferior to superior axis, RAS"),
    Column("peak_p_fwe", "1", "Voxel-wise FWE-corrected p at the peak"),
    Column("peak_p_tfce", "1", "TFCE FWE-corrected p at the peak"),
    Column("effect", "", "Effect at the peak, in the unit of the map per unit of the contrast"),
    Column("effect_mean", "", "Mean effect over the cluster"),
    Column("level", "", "Disc level of the peak"),
    Column("region", "", "Region of the peak, from the atlas's regions"),
    Column("regions", "", "Share of the cluster in each region"),
)


def find_clusters(stat: np.ndarray, height, neighbors: Neighbors) -> np.ndarray:
    """Label the connected voxels of one sign whose size reaches a height.

    Parameters
    ----------
    stat : ndarray, shape (v,)
        Signed statistic; NaN belongs to no cluster.
    height : float or ndarray, shape (v,)
        Cluster-forming threshold.
    neighbors : Neighbors
        From :func:`DiscStatsLib.permutation.tfce.neighbors_of`.

    Returns
    -------
    ndarray, shape (v,), int32
        0 outside clusters, else 1, 2, ... by falling extent.
    """
    with np.errstate(invalid="ignore"):
        above = np.abs(stat) >= height
    voxels = np.flatnonzero(above)
    labels = np.zeros(len(stat), np.int32)
    if len(voxels) == 0:
        return labels
    local = np.full(len(stat) + 1, -1, np.int64)
    local[voxels] = np.arange(len(voxels))
    to = neighbors.table[voxels]
    joined = (to >= 0) & above[to] & (np.sign(stat[to]) == np.sign(stat[voxels])[:, None])
    start = np.broadcast_to(np.arange(len(voxels))[:, None], to.shape)[joined]
    graph = coo_matrix((np.ones(len(start), np.int8), (start, local[to[joined]])), shape=(len(voxels),) * 2)
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component)
    rank = np.empty(len(sizes), np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
    labels[voxels] = rank[component]
    return labels


def cluster_sizes(stat: np.ndarray, labels: np.ndarray, height) -> tuple[np.ndarray, np.ndarray]:
    """Return extent (voxels) and mass (sum of ``|stat| - height``) of clusters 1, 2, ..."""
    inside = labels > 0
    excess = (np.abs(stat) - height)[inside]
    extent = np.bincount(labels[inside])[1:]
    return extent, np.bincount(labels[inside], weights=excess)[1:]


def cluster_maxima(stat: np.ndarray, height: np.ndarray, neighbors: Neighbors, group: np.ndarray,
                   n_groups: int) -> np.ndarray:
    """Return the largest extent and mass of a cluster in each group of voxels, shape (2, groups); 0 without cluster.

    Statistic, height and group have the shape (v,); no cluster crosses a group (a disc level).
    """
    best = np.zeros((2, n_groups))
    compiled = kernel_if_numba(_cluster_maxima)
    if compiled is not None:
        compiled(stat, height, neighbors.table, group, best)
        return best
    labels = find_clusters(stat, height, neighbors)
    if labels.any():
        own = np.zeros(labels.max() + 1, int)
        own[labels] = group
        for row, size in zip(best, cluster_sizes(stat, labels, height)):
            np.maximum.at(row, own[1:], size)
    return best


def _cluster_maxima(stat, height, table, group, best):
    n = stat.shape[0]
    link = np.full(n, -1, np.int32)
    for v in range(n):
        if abs(stat[v]) >= height[v]:
            link[v] = v
            for c in range(table.shape[1]):
                root = table[v, c]
                if 0 <= root < v and link[root] >= 0 and (stat[root] > 0) == (stat[v] > 0):
                    while link[root] != root:
                        link[root] = link[link[root]]
                        root = link[root]
                    own = link[v]
                    while link[own] != own:
                        own = link[own]
                    # The lower number stays root, so that links point to voxels seen before.
                    link[max(own, root)] = min(own, root)
    extent, mass = np.zeros(n, np.int32), np.zeros(n)
    for v in range(n):
        if link[v] >= 0:
            link[v] = link[link[v]]
            extent[link[v]] += 1
            mass[link[v]] += abs(stat[v]) - height[v]
    for v in range(n):
        if extent[v] > 0:
            best[0, group[v]] = max(best[0, group[v]], extent[v])
            best[1, group[v]] = max(best[1, group[v]], mass[v])


@dataclass(frozen=True)
class ClusterStatistics:
    """Clusters of one map and what was found of them."""

    #: Shape (v,). Statistic and cluster number of each voxel.
    stat: np.ndarray
    labels: np.ndarray
    #: Mass of cluster 1, 2, ..., from :func:`cluster_sizes`.
    mass: np.ndarray
    #: Corrected p of cluster 1, 2, ...
    extent_p: np.ndarray | None = None
    mass_p: np.ndarray | None = None


def cluster_rows(found: ClusterStatistics, *, columns: dict[str, np.ndarray], ijk: np.ndarray, levels: np.ndarray,
                 regions: np.ndarray | None, region_names: dict[int, str], geometry: Geometry, contrast: str,
                 quantity: str) -> list[dict]:
    """Return the table rows of the clusters of one map.

    Parameters
    ----------
    found : ClusterStatistics
    columns : dict of str to ndarray, shape (v,)
        Maps to read at the peak: ``p_fwe``, ``p_tfce``, ``effect``; any may be absent.
    ijk : ndarray, shape (v, 3)
        Index of each voxel.
    levels, regions : ndarray, shape (v,)
        Label values of the atlas.
    region_names : dict of int to str
    geometry : Geometry
    contrast, quantity : str
    """
    rows, stat, labels = [], found.stat, found.labels
    if not labels.any():
        return rows
    extent = np.bincount(labels)[1:]
    for number in range(1, len(extent) + 1):
        members = np.flatnonzero(labels == number)
        peak = members[np.argmax(np.abs(stat[members]))]
        lps = geometry.index_to_world(ijk[peak])
        row = {"contrast": contrast, "quantity": quantity, "cluster": number, "sign": "+" if stat[peak] > 0 else "-",
               "voxels": int(extent[number - 1]), "volume_mm3": float(extent[number - 1] * geometry.voxel_volume),
               "mass": float(found.mass[number - 1]), "peak": float(stat[peak]),
               "peak_r": float(-lps[0]), "peak_a": float(-lps[1]), "peak_s": float(lps[2]),
               "p_extent": None if found.extent_p is None else float(found.extent_p[number - 1]),
               "p_mass": None if found.mass_p is None else float(found.mass_p[number - 1]),
               "level": level_name(levels[peak])}
        for name, key in (("peak_p_fwe", "p_fwe"), ("peak_p_tfce", "p_tfce"), ("effect", "effect")):
            row[name] = float(columns[key][peak]) if key in columns else None
        row["effect_mean"] = float(np.mean(columns["effect"][members])) if "effect" in columns else None
        if regions is not None:
            row["region"] = region_names.get(int(regions[peak]), str(int(regions[peak])))
            values, counts = np.unique(regions[members], return_counts=True)
            row["regions"] = "; ".join(f"{region_names.get(int(v), str(int(v)))} {c / len(members):.0%}"
                                       for c, v in sorted(zip(counts, values), reverse=True))
        rows.append(row)
    return rows


def level_name(value: int) -> str:
    """Return the name of a label value, or ``label N`` for one outside the project's table."""
    value = int(value)
    return BY_VALUE[value].name if value in BY_VALUE and BY_VALUE[value].kind == "disc" else f"label {value}"


def cluster_table(rows: list[dict]) -> Table:
    """Return the cluster table."""
    return Table("clusters", list(CLUSTER_COLUMNS), rows)
