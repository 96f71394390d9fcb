"""Exchangeability blocks: participants with several discs or visits, in a contrast between them or within them.

A variable that is constant in each block (age) is tested by exchanging whole blocks. One that varies within them (the
grade of a disc, a visit) is tested within: block means are taken out of maps and design, as an intercept for each block
would, and observations change places inside their block (Winkler et al. 2015, Neuroimage 123:253).
"""

import numpy as np

from DiscRelaxometryLib.errors import DesignError

#: A column whose within-block part is below this share of its size does not vary within blocks.
CONSTANT = 1e-10


def constant_in_blocks(columns: np.ndarray, blocks: np.ndarray) -> bool:
    """Tell whether the tested columns, shape (n, c), are constant in each block: blocks then move as a whole."""
    return all(np.ptp(columns[blocks == block], axis=0).max() == 0 for block in np.unique(blocks))


def complete_blocks(valid: np.ndarray, blocks) -> np.ndarray:
    """Return who counts, shape (n, v): not those in a block of which an observation is missing at the voxel."""
    valid = valid.copy()
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        valid[members] &= valid[members].all(axis=0)
    return valid


def count_blocks(present: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the number of blocks that have a value at each voxel, from presence (v, m)."""
    member = blocks[:, None] == np.unique(blocks)
    return (present.astype(float) @ member > 0).sum(axis=1)


def absorbed(blocks: np.ndarray | None, present: np.ndarray | None) -> int | np.ndarray:
    """Return how many block means a fit within `blocks` takes out; with presence, (v, m), at each voxel."""
    if blocks is None:
        return 0
    return len(np.unique(blocks)) if present is None else count_blocks(present, blocks)


def less_block_means(values: np.ndarray, blocks: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return values, shape (m, ...), without the mean of each block over those present; 0 for the absent."""
    result = np.array(values, float)
    for block in np.unique(blocks):
        own = np.flatnonzero(blocks == block)
        here = np.ones(len(own)) if present is None else present[own]
        here = here.reshape(here.shape + (1,) * (result.ndim - here.ndim))
        mean = (result[own] * here).sum(axis=0) / np.maximum(here.sum(axis=0), 1)
        result[own] = (result[own] - mean) * here
    return result


def design_within(matrix: np.ndarray, blocks: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return a design, (m, p) or (v, m, p), without its block means; with `present`, (v, m), voxel by voxel."""
    if present is not None:
        matrix = np.broadcast_to(matrix, (len(present), *matrix.shape[-2:]))
    inside = less_block_means(np.moveaxis(matrix, -2, 0), blocks, None if present is None else present.T)
    return np.moveaxis(inside, 0, -2)


def within_columns(matrix: np.ndarray, weights: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the columns of a design, shape (m, p), that vary within blocks.

    Raises
    ------
    DesignError
        If the contrast weighs a column that does not.
    """
    size = np.linalg.norm(matrix, axis=0)
    varies = np.linalg.norm(less_block_means(matrix, blocks), axis=0) > CONSTANT * size
    if not varies[weights.any(axis=0)].all():
        raise DesignError("The contrast tests something that is constant within every exchangeability block, which no "
                          "exchange within blocks can test: exchange whole blocks, or test what varies within blocks "
                          "and what does not by contrasts of their own.", anchor="exchangeability")
    return np.flatnonzero(varies)
