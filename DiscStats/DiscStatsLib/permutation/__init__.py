"""Voxel-wise inference: the linear model, permutation schemes, max-T, TFCE, clusters and false discovery rate."""

from .cluster_null import MapLayout, enhance_input, map_null, one_side
from .clusters import cluster_rows, cluster_sizes, cluster_table, find_clusters, level_name
from .deviates import stat_to_z
from .glm import Partition, estimates, fit, full_residuals, leverage, partition
from .max_statistic import (
    Stratum,
    fwe_p,
    has_constant,
    make_partial_stratum,
    make_stratum,
    max_statistics,
    unit_residuals,
)
from .missing import Presence, restricted_factors
from .multiple import adjust_bh, adjust_bky
from .schemes import Scheme, make_scheme
from .tfce import TfceSettings, neighbors_of, tfce
from .torch_products import require_device

__all__ = [
    "adjust_bh", "adjust_bky", "cluster_rows", "cluster_sizes", "cluster_table", "enhance_input", "estimates",
    "find_clusters", "fit", "full_residuals", "fwe_p", "has_constant", "level_name", "leverage",
    "make_partial_stratum", "make_scheme", "make_stratum", "map_null", "MapLayout", "max_statistics", "neighbors_of",
    "one_side", "Partition", "partition", "Presence", "require_device", "restricted_factors", "Scheme", "stat_to_z",
    "Stratum", "tfce", "TfceSettings", "unit_residuals",
]
