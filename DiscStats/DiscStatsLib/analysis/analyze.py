"""Voxel-wise analysis of maps in atlas space: model, permutation inference, maps and cluster table in one call."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from DiscRelaxometryLib import __version__
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.progress import ProgressCallback, subrange
from DiscRelaxometryLib.tables import Table

from ..design import Contrast, Design, Formula, build_level_designs, check_participants, parse_formula
from ..permutation import Scheme, cluster_table, level_name, make_scheme
from .data import AnalysisData, gather
from .inference import Options, infer
from .map_kinds import map_meta
from .model import ContrastFit, fit_contrast, make_cells
from .spread import NOTABLE, Spread

CORRECTIONS = ("fwe", "tfce", "fdr", "cluster")


@dataclass
class AnalysisResult:
    """Result of :func:`analyze`.

    Attributes
    ----------
    maps : dict of str to Image
        Named ``<quantity>_<contrast>_<statistic>`` (``T1rho_pfirrmann_pfwe``), float32, NaN where not computed; each
        with a ``meta`` of title, description, unit, window and colors. Statistics: see ``analysis_maps.MAP_KINDS``.
    clusters : Table
    design : Design
        Of the lowest level; `designs` holds that of each level.
    contrasts : list of Contrast
    provenance : dict
        Everything needed to repeat the analysis and to write the methods paragraph.
    warnings : list of str
    designs : dict of int to Design
    data : AnalysisData
        The maps as arrays, for plots.
    null : dict of str to ndarray
        Null maxima by ``<contrast>_<statistic>``, over all maps and levels.
    """

    maps: dict[str, Image]
    clusters: Table
    design: Design
    contrasts: list[Contrast]
    provenance: dict
    warnings: list[str]
    designs: dict[int, Design]
    data: AnalysisData
    null: dict[str, np.ndarray] = field(default_factory=dict)


def analyze(maps, atlas_labels: Image, participants, formula: str, contrasts=None, *,
            correction=CORRECTIONS, n_permutations: int = 5000, seed: int = 0, missing: str = "complete",
            min_count: int | None = None, missing_covariates: str = "error", blocks=None, exchange: str | None = None,
            levels=None, regions: Image | None = None, region_names: dict[int, str] | None = None, ranks: bool = False,
            voxel_covariates: dict | None = None, standard_errors: str = "classical", errors: str = "auto",
            alternative: str = "two-sided", cluster_p: float = 0.001,
            tfce_settings=None, workers: int = 1, device: str = "cpu",
            progressCallback: ProgressCallback | None = None) -> AnalysisResult:
    """Analyze maps in atlas space, voxel by voxel, with correction over all maps and levels tested together.

    Parameters
    ----------
    maps : list of Image, ndarray, or dict
        One map a row of the table, in its order; or an array (n, voxels of the mask) or (n, k, j, i); or images by
        ``participant_id``; or a dict of any of these by quantity (``{"T1rho": [...], "T2": [...]}``), tested together.
        If the formula's response is the name of a quantity, only that one is analyzed.
    atlas_labels : Image
        Disc levels of the atlas; voxels > 0 are analyzed. Voxels of different levels are never neighbors.
    participants : pandas.DataFrame
        One row an observation, with ``participant_id``.
    formula : str
        Such as ``map ~ pfirrmann + age + C(sex)``. A name that is no column is read, for each disc level, from the
        column ``<name>_<level>`` (``pfirrmann_L5S1``): every level then has a design of its own, and people are
        rearranged in the same way at all levels, so that the maximum over levels corrects for them.
    contrasts : None, str, list or dict
        See :func:`DiscStatsLib.design.contrasts.build_contrasts`.
    correction : collection of {"fwe", "tfce", "fdr", "cluster"}
        An empty one gives the uncorrected maps.
    n_permutations : int
        All distinct rearrangements are listed instead where there are no more than this.
    seed : int
    missing : {"complete", "available"}
        Analyze voxels that everyone has, or those that at least `min_count` have, with degrees of freedom per voxel.
    min_count : int, optional
        Default: half of the observations, and no fewer than the parameters + 2.
    missing_covariates : {"error", "drop"}
        Refuse empty cells, or leave the row out (at the level concerned).
    blocks : str or sequence, optional
        Exchangeability block of each row, or the column that has it (``participant_id`` for repeated measures).
    exchange : {"within", "whole"}, optional
        Default: whole blocks if the tested columns are constant in each block, else within.
    levels : list of str or int, optional
        Disc levels to analyze (default: all of the atlas).
    regions : Image, optional
        Atlas regions, for the cluster table, with `region_names`.
    ranks : bool
        Ranks of maps and of numeric columns: Spearman's partial correlation.
    voxel_covariates : dict, optional
        Maps that enter the model voxel by voxel, by the name used in the formula (``T1rho ~ T2 + age``).
    standard_errors : {"classical", "hc3"}
        Of equal residual spread, or heteroscedasticity-consistent (HC3): t, F, limits and parametric p then hold where
        the spread differs between people.
    errors : {"auto", "exchangeable", "symmetric"}
        What permutation assumes of the errors: that people can change places, or that each person's error, of whatever
        spread, is symmetric about 0 (signs are flipped). ``auto`` flips signs where the residual spread depends on the
        tested variable (``analysis_spread.DEPENDS``), and lets people change places elsewhere.
    alternative : {"two-sided", "greater", "less"}
        For t contrasts.
    cluster_p : float
        Uncorrected p that forms clusters; above 0.001 is not accepted in the field (Woo 2014) and is warned of.
    tfce_settings : DiscStatsLib.permutation.tfce.TfceSettings, optional
    workers : int
        Threads; no result depends on it.
    device : str
        ``cpu``, or a torch device for the permutation products.
    progressCallback : callable, optional
        ``progressCallback(fraction, text)``; raises ``Cancelled`` to stop.

    Raises
    ------
    DesignError
        Anything about table, formula, contrasts, and missing values that forbids the analysis.
    GeometryError
        Maps that are not on the atlas's grid.
    """
    options = Options(_corrections(correction), alternative, cluster_p, tfce_settings, workers, device, standard_errors)
    options.check()
    _choices(missing=(missing, ("complete", "available")), missing_covariates=(missing_covariates, ("error", "drop")),
             exchange=(exchange, (None, "within", "whole")), standard_errors=(standard_errors, ("classical", "hc3")),
             errors=(errors, ("auto", "exchangeable", "symmetric")))
    _whole(n_permutations=(n_permutations, 1), seed=(seed, 0), min_count=(1 if min_count is None else min_count, 1))
    check_participants(participants)
    participants = participants.reset_index(drop=True)
    parsed = parse_formula(formula)
    unused = [name for name in voxel_covariates or {} if name not in parsed.names]
    if unused:
        raise DesignError(f"The voxel-wise covariate '{unused[0]}' is not in the formula: add '+ {unused[0]}'.")
    data = gather(maps, atlas_labels, participants, levels=levels, regions=regions, voxel_covariates=voxel_covariates,
                  response=parsed.response)
    found = build_level_designs(parsed, participants, [level_name(v) for v in data.level_values], contrasts,
                                covariates=tuple(data.covariates), ranks=ranks, missing=missing_covariates)
    data = data.at_levels([v for v in data.level_values if level_name(v) not in found.left_out])
    designs = {value: found.designs[level_name(value)] for value in data.level_values}
    blocks, left_out = _blocks(blocks, participants), _left_out(designs, data)
    kept = np.unique(np.concatenate([d.rows for d in designs.values()]))
    if len(kept) < data.n:  # nobody counts, or changes places, who is in the model of no level
        participants, data = participants.iloc[kept].reset_index(drop=True), data.of_rows(kept)
        blocks = None if blocks is None else blocks[kept]
        designs = {level: replace(d, rows=np.searchsorted(kept, d.rows)) for level, d in designs.items()}
    design, listed = designs[data.level_values[0]], found.contrasts
    remarks = list(dict.fromkeys([*data.warnings, *found.remarks]))
    remarks += [f"Left out{'' if where == 'all levels' else f' at {where}'} for a missing value of the model's "
                f"variables: {', '.join(ids)}." for where, ids in left_out.items()]
    whole = exchange == "whole" or (exchange is None and blocks is not None
                                    and any(_constant_in_blocks(c, designs, data, blocks) for c in listed))
    cells, lost = make_cells(data, designs, missing=missing, min_count=min_count,
                             whole_blocks=blocks if whole and errors != "symmetric" else None)
    result = AnalysisResult({}, cluster_table([]), design, listed, {}, remarks + lost, designs, data)
    _describe_data(result, cells)
    described = []
    for index, contrast in enumerate(listed):
        report = subrange(progressCallback, index / len(listed), (index + 1) / len(listed))
        report(0.0, f"Fitting the model at {data.n_voxels} voxels ({contrast.name})")
        fitted = fit_contrast(contrast, cells, designs, data, ranks, standard_errors == "hc3", errors, blocks)
        spread = fitted.spread
        _note_unfitted(result, fitted)
        _note_spread(result, contrast, spread, standard_errors, fitted.flip)
        scheme, mode = None, None
        if set(options.correction) - {"fdr"}:
            scheme, mode = _scheme(fitted, designs, data, participants, cells, n_permutations, seed, blocks, exchange)
        described.append(infer(result, fitted, scheme, options, region_names or {}, report)
                         | {"exchange": mode, "residual_spread": vars(spread) if spread else None,
                            "errors": "symmetric" if fitted.flip else "exchangeable"})
    result.provenance = _provenance(parsed, result, described, options, seed, missing, ranks, cells)
    result.provenance |= {"standard_errors": standard_errors, "errors": errors, "left_out": left_out}
    if progressCallback:
        progressCallback(1.0, "Analysis done")
    return result


def _corrections(correction) -> tuple[str, ...]:
    chosen = (correction,) if isinstance(correction, str) else tuple(correction or ())
    unknown = [c for c in chosen if c not in CORRECTIONS]
    if unknown:
        raise DesignError(f"'{unknown[0]}' is no correction: choose from {', '.join(CORRECTIONS)}.")
    return chosen


def _choices(**settings) -> None:
    for name, (value, allowed) in settings.items():
        if value not in allowed:
            known = ", ".join(a for a in allowed if a)
            raise DesignError(f"{name} = '{value}' is not known: choose from {known}.")


def _whole(**settings) -> None:
    for name, (value, least) in settings.items():
        if not isinstance(value, (int, np.integer)) or value < least:
            what = "At least one permutation is needed" if name == "n_permutations" else \
                f"{name} must be a whole number of at least {least}"
            raise DesignError(f"{what}; '{value}' was given.")


def _blocks(blocks, participants):
    if blocks is None:
        return None
    if isinstance(blocks, str):
        if blocks not in participants.columns:
            raise DesignError(f"The exchangeability blocks '{blocks}' are no column of the participants table.")
        blocks = participants[blocks]
    import pandas

    blocks = np.asarray(blocks)
    if pandas.isna(blocks).any():
        raise DesignError(f"Row {int(np.argmax(pandas.isna(blocks))) + 1} of the table has no exchangeability block.")
    if len(blocks) != len(participants):
        raise DesignError(f"{len(blocks)} exchangeability blocks for {len(participants)} rows of the table.")
    return np.unique(blocks.astype(str), return_inverse=True)[1]


def _left_out(designs: dict[int, Design], data: AnalysisData) -> dict[str, list[str]]:
    """Return who has a map and is in no model: of ``all levels``, or of single ones by name."""
    at = {level_name(level): [data.ids[n] for n in np.setdiff1d(np.arange(data.n), d.rows)]
          for level, d in designs.items()}
    same = len({tuple(ids) for ids in at.values()}) == 1
    return {where: ids for where, ids in ({"all levels": next(iter(at.values()))} if same else at).items() if ids}


def _scheme(fitted: ContrastFit, designs, data: AnalysisData, participants, cells, n_permutations, seed, blocks,
            exchange) -> tuple[Scheme, str | None]:
    """Choose flips or permutations, and how blocks are exchanged; people are the same rows at all levels."""
    mode = exchange
    if blocks is not None and exchange is None:
        mode = "whole" if fitted.flip or _constant_in_blocks(fitted.contrast, designs, data, blocks) else "within"
    types = None
    whole = all(c.present is None and np.array_equal(c.rows, cells[0].rows) for c in cells)
    if whole and not data.covariates:
        # Rows with the same design at every level can change places without changing anything.
        stacked = np.full((data.n, len(designs), fitted.contrast.weights.shape[1]), np.inf)
        for k, design in enumerate(designs.values()):
            stacked[design.rows, k] = design.matrix
        types = np.unique(stacked.reshape(data.n, -1), axis=0, return_inverse=True)[1].ravel()
    scheme = make_scheme(data.n, n_permutations, seed, flip=fitted.flip, blocks=blocks, exchange=mode or "within",
                         row_types=types)
    return scheme, mode


def _constant_in_blocks(contrast: Contrast, designs, data: AnalysisData, blocks) -> bool:
    for design in designs.values():
        tested = np.flatnonzero(np.any(contrast.weights != 0, axis=0))
        if np.any(tested >= design.matrix.shape[1]):
            return False
        for block in np.unique(blocks):
            rows = design.matrix[np.ix_(blocks[design.rows] == block, tested)]
            if len(rows) > 1 and np.ptp(rows, axis=0).max() > 0:
                return False
    return True


def _describe_data(result: AnalysisResult, cells) -> None:
    """Add count, mean and SD of each quantity."""
    data = result.data
    for quantity, values in data.values.items():
        count = np.full(data.n_voxels, np.nan)
        for cell in cells:
            if cell.quantity == quantity:
                count[cell.voxels] = cell.n
        with np.errstate(all="ignore"):
            present = np.isfinite(values)
            n = present.sum(axis=0)
            mean = np.where(n > 0, np.nansum(values, axis=0) / np.maximum(n, 1), np.nan)
            spread = np.nansum((values - mean) ** 2, axis=0)
            sd = np.where(n > 1, np.sqrt(spread / np.maximum(n - 1, 1)), np.nan)
        for key, array in (("n", count), ("mean", mean), ("sd", sd)):
            result.maps[f"{quantity}_{key}"] = data.to_image(array, **map_meta(key, quantity, values=array))


def _note_unfitted(result: AnalysisResult, fitted: ContrastFit) -> None:
    for number, words in ((fitted.perfect, "are fitted without residual (a perfect fit, t would be infinite)"),
                          (fitted.constant, "do not vary beyond the covariates"),
                          (fitted.degenerate, "have a design that is collinear among the people present")):
        if number:
            result.warnings.append(f"{number} voxels {words} and are left empty in the maps of "
                                   f"'{fitted.contrast.name}'.")


def _note_spread(result: AnalysisResult, contrast: Contrast, spread: Spread | None, standard_errors, flip) -> None:
    """Warn where the residual spread depends on the tested variable and what is computed does not allow for it."""
    if spread is None or spread.p > NOTABLE or (standard_errors == "hc3" and flip):
        return
    advice = [words for needed, words in ((not flip, "errors='symmetric' (sign flips) for corrected p"),
                                          (standard_errors == "classical", "standard_errors='hc3' for limits, "
                                           "parametric p and FDR")) if needed]
    done = "Signs were flipped, which corrected p need; use" if flip else "Use"
    result.warnings.append(f"The residual spread of '{spread.quantity}' at {spread.level} depends on "
                           f"'{contrast.name}' (variance differs {spread.ratio:.1f}-fold, p = {spread.p:.2g}), which "
                           f"makes p too small or too large. {done} {' and '.join(advice)}.")


def _provenance(formula: Formula, result: AnalysisResult, described, options: Options, seed, missing, ranks,
                cells) -> dict:
    """Return what repeats the analysis: model, counts, scheme, versions."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"disc-relaxometry": __version__}
    for package in ("numpy", "scipy", "pandas", "patsy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    data, designs = result.data, result.designs
    people = list(dict.fromkeys(data.ids))
    return {
        "method": "Mass-univariate general linear model; permutation inference (Freedman-Lane) where p is corrected",
        "formula": str(formula), "columns": result.design.columns, "voxel_covariates": list(data.covariates),
        "ranks": ranks, "observations": data.n, "people": len(people), "participants": people,
        "observations_by_level": {level_name(v): d.n for v, d in designs.items()}, "voxels": data.n_voxels,
        "quantities": list(data.values), "levels": data.level_values,
        "tested_voxels": sum(len(c.voxels) for c in cells),
        "missing": missing, "correction": list(options.correction), "alternative": options.alternative,
        "seed": seed, "p": "(b + 1) / (m + 1), b of m rearrangements reach the observed value",
        "contrasts": described, "versions": versions, "warnings": result.warnings,
    }
