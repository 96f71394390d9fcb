"""Voxel-wise inference: the linear model, permutation schemes, max-T, TFCE, clusters and false discovery rate."""

from .arrays import DESIGN_BLOCK, PermutationTest, permutation_test
from .blocks import complete_blocks, constant_in_blocks, design_within, less_block_means, within_columns
from .cluster_null import MapLayout, enhance_input, map_null, one_side
from .clusters import ClusterStatistics, cluster_rows, cluster_sizes, cluster_table, find_clusters, level_name
from .deviates import stat_to_z
from .glm import Partition, estimates, fit, full_rank, full_residuals, leverage, partition
from .max_statistic import directed, fwe_p, max_statistics
from .missing import Presence, by_presence, freedom, least_count, restricted_factors
from .multiple import adjust_bh, adjust_bky
from .schemes import Scheme, alike_blocks, make_scheme
from .stratum import Source, Stratum, has_constant, make_partial_stratum, make_stratum, unit_residuals
from .tail import Tail, fit_tail, tail_p
from .tfce import TfceSettings, neighbors_of, tfce, tfce_values
from .torch_products import require_device

__all__ = [
    "DESIGN_BLOCK",
    "adjust_bh", "adjust_bky", "alike_blocks", "by_presence", "cluster_rows", "cluster_sizes", "cluster_table",
    "ClusterStatistics", "complete_blocks", "constant_in_blocks", "design_within", "directed", "enhance_input",
    "estimates", "find_clusters", "fit", "fit_tail", "freedom", "full_rank", "full_residuals", "fwe_p", "has_constant",
    "least_count", "less_block_means", "level_name", "leverage", "make_partial_stratum", "make_scheme", "make_stratum",
    "map_null", "MapLayout", "max_statistics", "neighbors_of", "one_side", "partition", "Partition", "permutation_test",
    "PermutationTest", "Presence", "require_device", "restricted_factors", "Scheme", "Source", "stat_to_z", "Stratum",
    "Tail", "tail_p", "tfce", "tfce_values", "TfceSettings", "unit_residuals", "within_columns",
]
