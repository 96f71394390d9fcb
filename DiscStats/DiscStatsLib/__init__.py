"""Algorithms of DiscStats: design, voxel-wise inference, agreement, and the study runner."""
