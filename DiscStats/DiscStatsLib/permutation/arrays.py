"""Permutation inference of one contrast for those who hold arrays: no maps, atlas or table needed."""

from dataclasses import dataclass, replace

import numpy as np

from DiscRelaxometryLib.errors import DesignError

from ..design import require_weights
from .blocks import complete_blocks, constant_in_blocks, design_within, less_block_means, within_columns
from .deviates import stat_to_z
from .glm import Partition, fit, full_rank, partition
from .max_statistic import directed, fwe_p, max_statistics
from .missing import by_presence, freedom, least_count
from .schemes import Scheme, make_scheme
from .stratum import Stratum, has_constant, make_stratum

#: Numbers in the voxel-wise designs of a block.
DESIGN_BLOCK = 2 ** 22


@dataclass(frozen=True)
class PermutationTest:
    """Result of :func:`permutation_test`; per-voxel arrays have the shape of y without its first axis."""

    #: t of one contrast row, F of several; NaN where it is undefined.
    statistic: np.ndarray
    #: Residual degrees of freedom.
    df: np.ndarray
    #: Uncorrected permutation p.
    p: np.ndarray
    #: Family-wise corrected over all voxels.
    p_fwe: np.ndarray
    #: Shape (m,). Maximum of each rearrangement, without the observed order; of z of the same p where voxels differ in
    #: `df`.
    null: np.ndarray
    #: The rearrangements.
    scheme: Scheme


def permutation_test(y, design, contrast, *, n_permutations: int = 5000, permutations=None, signs=None, blocks=None,
                     exchange: str | None = None, errors: str = "exchangeable", alternative: str = "two-sided",
                     seed: int = 1, workers: int = 1) -> PermutationTest:
    """Test a contrast of a linear model by permutation or sign flipping, with correction over voxels.

    Parameters
    ----------
    y : array_like, shape (n,) or (n, v)
        Observations, NaN where missing. A voxel with fewer than :func:`least_count` values stays NaN.
    design : array_like, shape (n, p)
        Independent columns, the constant among them if the model has one.
    contrast : array_like, shape (p,) or (r, p)
    n_permutations : int
        Rearrangements, the observed order among them; where no more distinct ones exist, all are listed.
    permutations : array_like of int, shape (m, n), optional
        Rearrangements to use instead: row b sends observation ``permutations[b, i]`` to place i.
    signs : array_like of 1 and -1, shape (m, n), optional
        Sign flips to use instead, alone or with `permutations`. The observed order counts once, given or not.
    blocks : array_like, shape (n,) or (n, 2), optional
        Exchangeability block of each observation, and what it is in its block (level, visit): whole blocks change
        places only if they hold the same, matched by it. Without the second column the order of the rows counts.
    exchange : {"within", "whole"}, optional
        How blocks are exchanged; by default as a whole if signs are flipped or the tested columns are constant in each,
        else within, their means taken out.
    errors : {"exchangeable", "symmetric"}
        Symmetric errors have their signs flipped, as all have where the reduced model lacks the constant.
    alternative : {"two-sided", "greater", "less"}
        For t; F has one direction.
    seed : int
    workers : int
        Threads; no result depends on it.

    Raises
    ------
    DesignError
        Shapes that do not fit, infinite values, collinear designs, a contrast without meaning, no voxel that can be
        tested, rearrangements that are none, or none that exist.

    Notes
    -----
    Freedman-Lane (Winkler et al. 2014, Neuroimage 92:381), maximum statistic (Nichols & Holmes 2002, Hum Brain Mapp
    15:1), p = b / m with the observed order among the m (Phipson & Smyth 2010). The same as
    :func:`DiscStatsLib.analysis.analyze` does with maps and a table.
    """
    y, design, weights = _checked(y, design, contrast)
    _require_choice("errors", errors, "exchangeable", "symmetric")
    _require_choice("alternative", alternative, "two-sided", "greater", "less")
    _require_choice("exchange", exchange, None, "within", "whole")
    shape, y = y.shape[1:], y.reshape(len(y), -1)
    kind = "t" if len(weights) == 1 else "F"
    alternative = alternative if kind == "t" else "two-sided"
    given = _given(permutations, signs, len(y))
    _require(given is None or blocks is None, "Rearrangements and exchangeability blocks were both given: choose one.")
    blocks, places = (None, None) if blocks is None else _numbered(blocks, len(y))
    valid, inside, whole = np.isfinite(y), None, False
    if blocks is not None:
        constant = constant_in_blocks(design[:, weights.any(axis=0)], blocks)
        whole = (exchange or ("whole" if constant else "within")) == "whole"
        inside = None if whole else blocks
        if not whole:
            columns = within_columns(design, weights, blocks)
            design, weights = design[:, columns], weights[:, columns]
        elif errors != "symmetric":
            valid = complete_blocks(valid, blocks)
    fits = _fits(y, valid, design, weights, kind, inside)
    _require(bool(fits), "No voxel can be tested: values are missing, constant or fitted perfectly, or the design is "
             "collinear where they are present.")
    if given is not None:
        flip = given.sign is not None
    else:
        flip = errors == "symmetric" or (inside is None and not all(has_constant(part.qz, present)
                                                                    for part, _, present, _, _ in fits))
    strata = [make_stratum(part, values, kind, columns=voxels, rows=np.arange(len(y)), flip=flip, present=present)
              for part, values, present, voxels, _ in fits]
    scheme = given
    if scheme is None:
        _require(n_permutations >= 2, f"At least two permutations are needed, the observed order among them; "
                 f"{n_permutations} were asked for.")
        everyone = all(s.presence is None for s in strata)
        types = np.unique(design, axis=0, return_inverse=True)[1].ravel() if everyone else None
        scheme = make_scheme(len(y), n_permutations - 1, seed, flip=flip, blocks=blocks,
                             exchange="whole" if flip or whole else "within", row_types=types, places=places)
    return _tested(fits, strata, scheme, kind, alternative, workers, len(weights), shape)


def _tested(fits: list[tuple], strata: list[Stratum], scheme: Scheme, kind: str, alternative: str, workers: int,
            rank: int, shape: tuple[int, ...]) -> PermutationTest:
    """Rearrange and compare the observed statistics with the maxima."""
    size = int(np.prod(shape))
    stat, df = np.full(size, np.nan), np.full(size, np.nan)
    for part, _, _, voxels, values in fits:
        stat[voxels], df[voxels] = values, part.df
    as_z = len(np.unique(np.concatenate([np.ravel(s.df) for s in strata]))) > 1
    null = max_statistics(strata, scheme, size, alternative=alternative, as_z=as_z, workers=workers)
    compared = stat_to_z(stat, df, kind, rank) if as_z else stat
    p = np.where(np.isfinite(stat), (null.counts + 1) / (len(scheme) + 1), np.nan)
    p_fwe = fwe_p(directed(compared, alternative, kind), null.maxima[0])
    return PermutationTest(stat.reshape(shape), df.reshape(shape), p.reshape(shape), p_fwe.reshape(shape),
                           null.maxima[0], scheme)


def _require(condition, sentence: str) -> None:
    if not condition:
        raise DesignError(sentence)


def _require_choice(name: str, value, *choices) -> None:
    _require(value in choices, f"{name} = '{value}' is not known: choose {' or '.join(c for c in choices if c)}.")


def _checked(y, design, contrast) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y, design and weights, shape (r, p), as they can be used."""
    try:
        y, design = np.asarray(y, float), np.asarray(design, float)
        weights = np.atleast_2d(np.asarray(contrast, float))
    except (TypeError, ValueError):
        raise DesignError("Observations, design and contrast must be arrays of numbers.") from None
    _require(y.ndim in (1, 2), f"Observations must have shape (n,) or (n, voxels); these have {y.shape}.")
    _require(design.ndim == 2 and len(design) == len(y), f"The design must have one row for each of the {len(y)} "
             f"observations; its shape is {design.shape}.")
    _require(not np.isinf(y).any(), "The observations hold infinite values: mark missing ones by NaN.")
    _require(np.isfinite(design).all(), "The design holds values that are no numbers: leave these rows out.")
    _require(bool(full_rank(design)), "The columns of the design are collinear, or no fewer than its rows.")
    return y, design, require_weights(weights, "The contrast", design.shape[1])


def _numbered(blocks, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the number of each observation's block, and what it is in it."""
    blocks = np.asarray(blocks)
    _require(blocks.shape in ((n,), (n, 2)), f"{len(blocks)} exchangeability blocks were given for {n} observations.")
    _require(not any(b is None or b != b for b in blocks.ravel().tolist()), "An observation has no exchangeability "
             "block.")
    blocks = blocks.astype(str).reshape(n, -1)
    return np.unique(blocks[:, 0], return_inverse=True)[1], blocks[:, 1] if blocks.shape[1] > 1 else None


def _fits(y, valid, design, weights, kind: str, blocks) -> list[tuple]:
    """Return (partition, values, presence or None, voxels, statistic) of the voxels that can be tested.

    The means of `blocks` are taken out.
    """
    n, p = design.shape
    fits = []
    for voxels, present in by_presence(valid.T, least_count(n, p))[0]:
        size = len(voxels) if present is None else max(DESIGN_BLOCK // design.size, 1)
        for start in range(0, len(voxels), size):
            at, here = voxels[start:start + size], None if present is None else present[start:start + size]
            values = y[:, at] if here is None else np.where(here.T, y[:, at], 0.0)
            own = design if here is None else np.where(here[:, :, None], design, 0.0)
            if blocks is not None:
                values = less_block_means(values, blocks, None if here is None else here.T)
                own = design_within(own, blocks, here)
            fits += _fit(values, here, own, weights, kind, at, freedom(n, p, here, blocks))
    return fits


def _fit(values, present, design, weights, kind: str, voxels, df) -> list[tuple]:
    """Fit voxels that everyone has, or each by the design of those present; return at most one fit."""
    if np.max(df) <= 0:
        return []
    if present is not None:
        usable = full_rank(design) & (df > 0)
        design, values, present, voxels, df = design[usable], values[:, usable], present[usable], voxels[usable], \
            df[usable]
        if not len(voxels):
            return []
    part = replace(partition(design, weights), df=df)
    stat = fit(part, values, kind).stat
    good = np.isfinite(stat)
    if not good.any():
        return []
    if present is not None:
        part = Partition(part.qz[good], part.qx[good], part.scale[good], df[good])
    return [(part, values[:, good], None if present is None else present[good], voxels[good], stat[good])]


def _given(permutations, signs, n: int) -> Scheme | None:
    """Return the scheme of given rearrangements, the observed order left out once; None if none were given."""
    if permutations is None and signs is None:
        return None
    order = None if permutations is None else np.asarray(permutations)
    sign = None if signs is None else np.asarray(signs, float)
    for name, array in (("permutations", order), ("signs", sign)):
        _require(array is None or (array.ndim == 2 and array.shape[1] == n),
                 f"The {name} must have shape (m, {n}), one column for each observation.")
    order = np.tile(np.arange(n), (len(signs), 1)) if order is None else order
    _require(sign is None or len(sign) == len(order), "As many sign flips as permutations must be given.")
    _require(np.array_equal(np.sort(order, axis=1), np.tile(np.arange(n), (len(order), 1))),
             f"Each row of the permutations must hold 0 to {n - 1} once.")
    _require(sign is None or bool(np.isin(sign, (-1, 1)).all()), "Signs must be 1 or -1.")
    observed = (order == np.arange(n)).all(axis=1) & (True if sign is None else (sign == 1).all(axis=1))
    kept = np.arange(len(order)) != (np.argmax(observed) if observed.any() else -1)
    _require(bool(kept.any()), "No rearrangement other than the observed order was given.")
    return Scheme(order[kept].astype(np.int32), None if sign is None else sign[kept], False,
                  f"{int(kept.sum())} given rearrangements")
