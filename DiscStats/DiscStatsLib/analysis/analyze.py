"""Voxel-wise analysis of maps in atlas space: model, permutation inference, maps and cluster table in one call."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.progress import ProgressCallback, subrange
from DiscRelaxometryLib.tables import Table, is_missing
from DiscRelaxometryLib.versions import versions_of

from ..design import (
    ID,
    PLACES,
    Contrast,
    Design,
    Formula,
    build_level_designs,
    check_participants,
    id_order,
    parse_formula,
    require_sizes,
)
from ..permutation import cluster_table, level_name, require_device
from ..settings import AnalysisSettings
from .data import AnalysisData, gather
from .exchange import Exchange
from .inference import Inference, infer
from .map_kinds import map_meta
from .model import Cell, ContrastFit, fit_contrast
from .spread import NOTABLE


@dataclass
class AnalysisResult:
    """Result of :func:`analyze`."""

    #: Named ``<quantity>_<contrast>_<statistic>`` (``T1rho_pfirrmann_pfwe``), float32, NaN where not computed; each
    #: with a ``meta`` of title, description, unit, window and colors. Statistics: see ``analysis_maps.MAP_KINDS``.
    maps: dict[str, Image]
    clusters: Table
    #: Of the lowest level; `designs` holds that of each level.
    design: Design
    contrasts: list[Contrast]
    #: Everything needed to repeat the analysis and to write the methods paragraph.
    provenance: dict
    warnings: list[str]
    designs: dict[int, Design]
    #: The maps as arrays, for plots.
    data: AnalysisData
    #: The rows of the table that were analyzed, in the order of `data`.
    participants: Any
    #: Null maxima by ``<contrast>_<statistic>``, over all maps and levels.
    null: dict[str, np.ndarray] = field(default_factory=dict)


def analyze(maps, atlas_labels: Image, participants, formula: str, contrasts=None,
            settings: AnalysisSettings | None = None, *, blocks=None, levels=None, regions: Image | None = None,
            region_names: dict[int, str] | None = None, voxel_covariates: dict | None = None,
            progressCallback: ProgressCallback | None = None) -> AnalysisResult:
    """Analyze maps in atlas space, voxel by voxel, with correction over all maps and levels tested together.

    Parameters
    ----------
    maps : list of Image, ndarray, Values, or dict
        One map per row of the table, in its order; or an array (n, voxels of the mask) or (n, k, j, i); or values of an
        array on disk (:class:`DiscStatsLib.analysis.Values`), of which a few voxels are read at a time; or images by
        ``participant_id``; or a dict of any of these by quantity (``{"T1rho": [...], "T2": [...]}``), tested together.
        If the formula's response is the name of a quantity, only that one is analyzed.
    atlas_labels : Image
        Disc levels of the atlas; voxels > 0 are analyzed. Voxels of different levels are never neighbors.
    participants : pandas.DataFrame
        One row per observation, with ``participant_id``; their order does not matter.
    formula : str
        Such as ``map ~ pfirrmann + age + C(sex)``. A name that is not a column is read, for each disc level, from the
        column ``<name>_<level>`` (``pfirrmann_L5S1``): every level then has a design of its own, and people are
        rearranged in the same way at all levels, so that the maximum over levels corrects for them.
    contrasts : None, str, list or dict
        See :func:`DiscStatsLib.design.contrasts.build_contrasts`.
    settings : AnalysisSettings, optional
        How to analyze; by default as panel, study and command line do.
    blocks : str or sequence, optional
        Exchangeability block of each row, or the column that has it (``participant_id`` for repeated measures).
    levels : list of str or int, optional
        Disc levels to analyze (default: all of the atlas).
    regions : Image, optional
        Atlas regions, for the cluster table, with `region_names`.
    voxel_covariates : dict, optional
        Maps that enter the model voxel by voxel, by the name used in the formula (``T1rho ~ T2 + age``).
    progressCallback : callable, optional
        ``progressCallback(fraction, text)``; raises ``Cancelled`` to stop.

    Raises
    ------
    DesignError
        Anything about table, formula, contrasts, and missing values that forbids the analysis.
    GeometryError
        Maps that are not on the atlas's grid.
    """
    settings = settings or AnalysisSettings()
    if settings.device != "cpu":
        require_device(settings.device)
    check_participants(participants)
    participants = participants.reset_index(drop=True)
    parsed = parse_formula(formula)
    unused = [name for name in voxel_covariates or {} if name not in parsed.names]
    if unused:
        raise DesignError(f"The voxel-wise covariate '{unused[0]}' is not in the formula: add '+ {unused[0]}'.")
    data = gather(maps, atlas_labels, participants, levels=levels, regions=regions, voxel_covariates=voxel_covariates,
                  response=parsed.response)
    blocks = _numbered(blocks, participants, "exchangeability block")
    places = _places(participants)
    # People are rearranged by the place of their ids, and levels or visits of one person by name, so that p does not
    # depend on the order of the table.
    order = np.argsort(places, kind="stable") if places is not None else np.arange(data.n)
    order = order[id_order([data.ids[row] for row in order])]
    data, participants = data.of_rows(order), participants.iloc[order].reset_index(drop=True)
    blocks, places = (None if some is None else some[order] for some in (blocks, places))
    grouped, lacking = _with_group(participants, settings)
    if lacking:
        data, participants = data.of_rows(grouped), participants.iloc[grouped].reset_index(drop=True)
        blocks, places = (None if some is None else some[grouped] for some in (blocks, places))
    found = build_level_designs(parsed, participants, [level_name(v) for v in data.level_values], contrasts,
                                covariates=tuple(data.covariates), ranks=settings.ranks,
                                missing=settings.missing_covariates)
    data = data.at_levels([v for v in data.level_values if level_name(v) not in found.left_out])
    designs = {value: found.designs[level_name(value)] for value in data.level_values}
    left_out = _left_out(designs, data)
    groups = _numbered(settings.variance_groups or None, participants, "variance group")
    kept = np.unique(np.concatenate([d.rows for d in designs.values()]))
    if len(kept) < data.n:  # nobody counts, or changes places, who is in the model of no level
        data = data.of_rows(kept)
        blocks, groups, places = (None if some is None else some[kept] for some in (blocks, groups, places))
        designs = {level: replace(d, rows=np.searchsorted(kept, d.rows)) for level, d in designs.items()}
    exchange = Exchange(data, designs, settings, blocks, groups, places)
    cells, lost = exchange.cells(found.contrasts[0])
    participants = participants.iloc[kept]
    remarks = list(dict.fromkeys([*data.warnings, *found.remarks, *lacking, *_small_groups(
        participants, groups, designs, settings.variance_groups)]))
    remarks += [f"Left out{'' if where == 'all levels' else f' at {where}'} for a missing value of the model's "
                f"variables: {', '.join(ids)}." for where, ids in left_out.items()]
    without = {level_name(level): [data.ids[row] for row in np.setdiff1d(design.rows, data.measured(level))]
               for level, design in designs.items()}
    without = {level: ids for level, ids in without.items() if ids}
    remarks += [f"No value of a map at {level}: {', '.join(ids)}." for level, ids in without.items()]
    result = AnalysisResult(_data_maps(data, cells), cluster_table([]), designs[data.level_values[0]], found.contrasts,
                            {}, remarks + lost, designs, data, participants)
    described = []
    for index, contrast in enumerate(found.contrasts):
        report = subrange(progressCallback, index / len(found.contrasts), (index + 1) / len(found.contrasts))
        report(0.0, f"Fitting the model at {data.n_voxels} voxels ({contrast.name})")
        own, lost = exchange.cells(contrast)
        fitted = fit_contrast(contrast, own, designs, data, settings, blocks, exchange.groups)
        scheme, mode = exchange.scheme(fitted, own) if set(settings.correction) - {"fdr"} else (None, None)
        inference = infer(fitted, data, scheme, settings, region_names or {}, report)
        result.maps |= _contrast_maps(fitted, inference, data, settings)
        result.clusters.rows += inference.clusters
        result.null |= {f"{contrast.name}_{key}": values for key, values in inference.null.items()}
        lost += exchange.remarks(None if fitted.flip else mode)
        result.warnings += [w for w in lost if w not in result.warnings]
        result.warnings += _remarks(fitted, inference, settings)
        described.append(inference.done | {"exchange": mode, "block_means_removed": own[0].blocks is not None,
                                           "errors": "symmetric" if fitted.flip else "exchangeable",
                                           "residual_spread": vars(fitted.spread) if fitted.spread else None})
    result.provenance = _provenance(parsed, result, described, settings, cells) | {
        "left_out": left_out, "without_map": without}
    if progressCallback:
        progressCallback(1.0, "Analysis done")
    return result


def _numbered(values, participants, what: str) -> np.ndarray | None:
    """Return the number of each row's block or group, from values or the column that has them."""
    import pandas

    if values is None:
        return None
    if isinstance(values, str):
        if values not in participants.columns:
            raise DesignError(f"The {what}s '{values}' are no column of the participants table.")
        values = participants[values]
    values = np.asarray(values)
    if len(values) != len(participants):
        raise DesignError(f"{len(values)} {what}s for {len(participants)} rows of the table.")
    if pandas.isna(values).any():
        raise DesignError(f"Row {int(np.argmax(pandas.isna(values))) + 1} of the table has no {what}.")
    return np.unique(values.astype(str), return_inverse=True)[1]


def _with_group(participants, settings: AnalysisSettings) -> tuple[np.ndarray, list[str]]:
    """Return the rows that have a variance group, and who is left out for want of one."""
    name = settings.variance_groups
    if name not in participants.columns or settings.missing_covariates != "drop":
        return np.arange(len(participants)), []
    lost = participants[name].map(is_missing).to_numpy(bool)
    who = ", ".join(dict.fromkeys(participants[ID][lost]))
    return np.flatnonzero(~lost), [f"Left out for want of a variance group ({name}): {who}."] if who else []


def _small_groups(participants, groups: np.ndarray | None, designs: dict[int, Design], column: str) -> list[str]:
    """Return what to say of variance groups with few observations, at each level; one alone is refused."""
    if groups is None:
        return []
    names = dict(zip(groups.tolist(), participants[column].astype(str)))
    return [remark for level, design in designs.items() for remark in require_sizes(
        {names[g]: int(n) for g, n in enumerate(np.bincount(groups[design.rows])) if n}, column,
        f" at {level_name(level)}" if design.level else "")]


def _places(participants) -> np.ndarray | None:
    """Return what each row is in its block, from the columns that tell rows of one person apart; None without them."""
    columns = [c for c in PLACES if c in participants.columns]
    return participants[columns].astype(str).agg("|".join, axis=1).to_numpy() if columns else None


def _left_out(designs: dict[int, Design], data: AnalysisData) -> dict[str, list[str]]:
    """Return who has a map and is in no model: of ``all levels``, or of single ones by name."""
    at = {level_name(level): [data.ids[n] for n in np.setdiff1d(np.arange(data.n), d.rows)]
          for level, d in designs.items()}
    same = len({tuple(ids) for ids in at.values()}) == 1
    return {where: ids for where, ids in ({"all levels": next(iter(at.values()))} if same else at).items() if ids}


def _data_maps(data: AnalysisData, cells: list[Cell]) -> dict[str, Image]:
    """Return count, mean and SD of each quantity."""
    maps = {}
    for quantity, values in data.values.items():
        count = np.full(data.n_voxels, np.nan)
        for cell in cells:
            if cell.quantity == quantity:
                count[cell.voxels] = cell.n
        mean, sd = np.full((2, data.n_voxels), np.nan)
        for block, some in values.blocks():
            n = np.isfinite(some).sum(axis=0)
            own = np.where(n > 0, np.nansum(some, axis=0) / np.maximum(n, 1), np.nan)
            spread = np.nansum((some - own) ** 2, axis=0)
            mean[block], sd[block] = own, np.where(n > 1, np.sqrt(spread / np.maximum(n - 1, 1)), np.nan)
        for key, array in (("n", count), ("mean", mean), ("sd", sd)):
            maps[f"{quantity}_{key}"] = data.to_image(array, **map_meta(
                key, quantity, values=array, change_unit=values.change_unit))
    return maps


_TAILS = {"pfwe": "tail_max", "ptfce": "tail_tfce"}
_OF_STANDARD_ERROR = ("se", "ci_low", "ci_high", "stat", "r", "p", "qfdr", "qbky")
_ORDER = ("effect", "se", "ci_low", "ci_high", "stat", "r", "size", "p", "pperm", "pfwe", "qfdr", "qbky", "tfce",
          "ptfce", "cluster", "pextent", "pmass")


def _contrast_maps(fitted: ContrastFit, inference: Inference, data: AnalysisData,
                   settings: AnalysisSettings) -> dict[str, Image]:
    """Return one image per statistic and quantity; F contrasts have no effect, limits or r."""
    contrast, columns, maps = fitted.contrast, inference.columns, {}
    names = {"stat": contrast.kind, "size": "d" if contrast.kind == "t" else "eta2", "ci_low": "cilow",
             "ci_high": "cihigh"}
    without = ("effect", "se", "ci_low", "ci_high", "r") if contrast.kind == "F" else ()
    wanted = [k for k in _ORDER if k in columns and k not in without] + (["df"] if len(fitted.dfs) > 1 else [])
    how = "upper tail" if contrast.kind == "F" else settings.alternative
    spread = {"hc3": "heteroscedasticity-consistent standard error (HC3)"}.get(settings.standard_errors, "")
    if settings.variance_groups:
        spread = f"a variance for each group of {settings.variance_groups} (G statistic)"
    for m, quantity in enumerate(data.values):
        part = slice(m * data.n_voxels, (m + 1) * data.n_voxels)
        for key in wanted:
            name, values = names.get(key, key), columns[key][part]
            meta = map_meta(name, quantity, contrast.name, values, how, data.values[quantity].change_unit)
            if key in ("pfwe", "ptfce") and isinstance(inference.done.get(_TAILS[key]), dict):
                meta["description"] += "; beyond the 90th percentile of the null approximated (generalized Pareto)"
            if spread and key in _OF_STANDARD_ERROR:
                meta["description"] += f"; {spread}"
            maps[f"{quantity}_{contrast.name}_{name}"] = data.to_image(values, **meta)
    return maps


def _remarks(fitted: ContrastFit, inference: Inference, settings: AnalysisSettings) -> list[str]:
    """Return what to say of a contrast: voxels left empty, spread that depends on it, clusters formed too low."""
    name, spread, remarks = fitted.contrast.name, fitted.spread, []
    for number, words in ((fitted.perfect, "are fitted without residual (a perfect fit, t would be infinite)"),
                          (fitted.constant, "do not vary beyond the covariates"),
                          (fitted.degenerate, "have a design that is collinear, or a variance group without spread, "
                           "among the people present")):
        if number:
            remarks.append(f"{number} voxels {words} and are left empty in the maps of '{name}'.")
    allowed_for = settings.standard_errors == "hc3" or bool(settings.variance_groups)
    if spread is not None and spread.p <= NOTABLE and not (allowed_for and fitted.flip):
        advice = [words for needed, words in ((not fitted.flip, "errors='symmetric' (sign flips) for corrected p"),
                                              (not allowed_for, "standard_errors='hc3' for limits, parametric p and "
                                               "FDR")) if needed]
        done = "Signs were flipped, which corrected p need; use" if fitted.flip else "Use"
        remarks.append(f"The residual spread of '{spread.quantity}' at {spread.level} depends on '{name}' (variance "
                       f"differs {spread.ratio:.1f}-fold, p = {spread.p:.2g}), which makes p too small or too large. "
                       f"{done} {' and '.join(advice)}.")
    if inference.done.get("cluster_forming_p", 0) > 0.001:
        remarks.append(f"The cluster-forming p of {settings.cluster_p:g} is above 0.001: clusters formed at it are not "
                       "accepted as localized findings (Woo 2014).")
    return remarks


def _provenance(formula: Formula, result: AnalysisResult, described, settings: AnalysisSettings, cells) -> dict:
    """Return what repeats the analysis: model, counts, scheme, versions."""
    data, designs = result.data, result.designs
    rows = {level: np.intersect1d(design.rows, data.measured(level)) for level, design in designs.items()}
    fitted = np.unique(np.concatenate(list(rows.values())))
    people = list(dict.fromkeys(data.ids[row] for row in fitted))
    return {
        "method": "Mass-univariate general linear model; permutation inference (Freedman-Lane) where p is corrected",
        "formula": str(formula), "columns": result.design.columns, "voxel_covariates": list(data.covariates),
        "ranks": settings.ranks, "observations": len(fitted), "people": len(people), "participants": people,
        "observations_by_level": {level_name(level): len(some) for level, some in rows.items()},
        "voxels": data.n_voxels, "quantities": list(data.values), "levels": data.level_values,
        "tested_voxels": sum(len(c.voxels) for c in cells),
        "missing": settings.missing, "correction": list(settings.correction), "alternative": settings.alternative,
        "standard_errors": settings.standard_errors, "errors": settings.errors,
        "variance_groups": settings.variance_groups, "seed": settings.seed,
        "p": "(b + 1) / (m + 1), b of m rearrangements reach the observed value",
        "contrasts": described, "versions": versions_of(("numpy", "scipy", "pandas", "patsy")),
        "warnings": result.warnings,
    }
