"""Voxel-wise inference: the linear model, permutation schemes, max-T, TFCE, clusters and false discovery rate."""
