"""Mixed models of per-disc and per-region tables: several discs of one person are not independent.

The model is fitted by statsmodels (``MixedLM``); the formula is checked by ``formula.py`` first.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table

from ..design import Formula, build_design, parse_formula, require_moderate, to_frame

ID = "participant_id"


@dataclass(frozen=True)
class MixedFit:
    """A fitted mixed model."""

    #: Fixed effects: estimate, standard error, z, p, confidence limits.
    fixed: Table
    #: Standard deviation between people (intercept, and slope if asked for) and of the residual.
    variances: Table
    #: Share of the unexplained variance that lies between people (intercept).
    icc: float
    #: Observations and people used.
    n: int
    people: int
    #: Restricted, if the fit was.
    log_likelihood: float
    #: Convergence, variance at the border, rows left out.
    notes: list[str] = field(default_factory=list)


def fit_mixed(table, formula: str, group: str = ID, slope: str | None = None, reml: bool = True,
              missing: str = "error", confidence: float = 0.95) -> MixedFit:
    """Fit a linear mixed model with a random person.

    Parameters
    ----------
    table : pandas.DataFrame or Table
        One row per disc or region, such as ``measure_regions`` of everyone joined with the participants table.
    formula : str
        Such as ``mean ~ pfirrmann + C(level) + age + C(sex)``; the response is a column of the table.
    group : str
        Column that names the person.
    slope : str, optional
        Numeric column whose effect varies from person to person too (correlated with the intercept).
    reml : bool
        Restricted maximum likelihood; use False to compare models with different fixed effects.
    missing : {"error", "drop"}
        What to do with rows that lack a value of the model.
    confidence : float

    Raises
    ------
    DesignError
        For an unknown column, a formula without response, collinear terms, missing values, fewer than three people,
        or a person in every row alone (no repeated measurement).
    """
    frame, parsed = _frame(table, formula, group, slope, missing)
    n_dropped, frame = frame
    # The design's own check of repeated people does not apply: repetition is what the model is for.
    design = build_design(Formula("", parsed.terms, parsed.names), frame)
    groups = frame["__group__"].to_numpy()
    people, counts = np.unique(groups, return_counts=True)
    if len(people) < 3:
        raise DesignError(f"A random person needs at least three people; the table has {len(people)}.", anchor="mixed")
    if counts.max() < 2:
        raise DesignError("Everyone has one row only: there is nothing to tell people from error; use an ordinary "
                          "regression.", anchor="mixed")
    require_moderate(frame[parsed.response].to_numpy(float), f"The response '{parsed.response}'")
    random = np.ones((len(frame), 1))
    names = ["intercept"]
    if slope:
        random = np.column_stack([random, frame[slope].to_numpy(float)])
        names.append(slope)
    result, notes = _fit(frame[parsed.response].to_numpy(float), design.matrix, groups, random, reml)
    dropped = [f"{n_dropped} row(s) with missing values were left out."] if n_dropped else []
    notes = [*frame.attrs.get("notes", ()), *dropped, *notes]
    covariance = np.atleast_2d(result.cov_re)
    between = float(covariance[0, 0])
    variances = [{"component": f"person: {name}", "sd": float(np.sqrt(max(v, 0)))}
                 for name, v in zip(names, np.diag(covariance))]
    variances.append({"component": "residual", "sd": float(np.sqrt(result.scale))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = np.asarray(result.bse_fe)
    if not np.isfinite(errors).all():  # the Hessian has no inverse near a variance of 0
        errors = _gls_errors(design.matrix, groups, random, covariance, float(result.scale))
    return MixedFit(_fixed_table(np.asarray(result.fe_params), errors, design.columns, confidence),
                    Table("variances", [Column("component", "", "Source of variation"),
                                        Column("sd", "", "Standard deviation, in the unit of the response")],
                          variances),
                    between / (between + float(result.scale)), len(frame), len(people), float(result.llf), notes)


def _frame(table, formula: str, group: str, slope: str | None, missing: str):
    """Return (rows dropped, complete rows with a group column) and the parsed formula."""
    import pandas

    parsed = parse_formula(formula)
    if not parsed.response:
        raise DesignError(f"The formula '{formula}' names no response: write RESPONSE ~ TERMS.", anchor="formula")
    frame = to_frame(table) if isinstance(table, Table) else table.copy()
    needed = list(dict.fromkeys([parsed.response, group, *parsed.names, *([slope] if slope else [])]))
    for name in needed:
        if name not in frame.columns:
            raise DesignError(f"The table has no column '{name}'; it has {', '.join(map(str, frame.columns))}.",
                              anchor="formula")
    if not pandas.api.types.is_numeric_dtype(frame[parsed.response]):
        raise DesignError(f"The response '{parsed.response}' is not numeric.", anchor="formula")
    absent = frame[needed].isna().any(axis=1)
    if absent.any() and missing != "drop":
        raise DesignError(f"{int(absent.sum())} row(s) lack a value of the model: fill them, or choose "
                          "missing=\"drop\".", anchor="missing-values")
    frame = frame[~absent].reset_index(drop=True)
    if frame.empty:
        raise DesignError("No row has all values of the model.", anchor="missing-values")
    frame["__group__"] = frame[group].astype(str)
    # build_design wants one name per row.
    frame[ID] = [f"{g} row {n}" for n, g in enumerate(frame["__group__"])]
    return (int(absent.sum()), frame), parsed


def _fit(response: np.ndarray, matrix: np.ndarray, groups: np.ndarray, random: np.ndarray, reml: bool):
    from statsmodels.regression.mixed_linear_model import MixedLM

    notes = []
    if np.ptp(response) == 0:
        raise DesignError("The response has the same value in every row.", anchor="design")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = MixedLM(response, matrix, groups, exog_re=random)
            result = model.fit(reml=reml, method=["bfgs", "lbfgs", "powell"])
        except (np.linalg.LinAlgError, ValueError) as error:
            raise DesignError(f"The mixed model cannot be estimated ({error}): simplify the random part or the "
                              "formula.", anchor="mixed") from error
    if not result.converged:
        notes.append("The fit did not converge: do not use its p values; simplify the model.")
    # statsmodels' own warning of the boundary has a fixed threshold and comes with every response of small numbers.
    if min(np.diag(np.atleast_2d(result.cov_re))) < 1e-4 * result.scale:
        notes.append("The variance between people is estimated at or near zero.")
    return result, notes


def _gls_errors(matrix: np.ndarray, groups: np.ndarray, random: np.ndarray, covariance: np.ndarray,
                scale: float) -> np.ndarray:
    """Return the standard errors of generalized least squares at the estimated variances, as nlme and lme4 do."""
    information = np.zeros((matrix.shape[1], matrix.shape[1]))
    for group in np.unique(groups):
        x, z = matrix[groups == group], random[groups == group]
        information += x.T @ np.linalg.solve(z @ covariance @ z.T + scale * np.eye(len(z)), x)
    return np.sqrt(np.diag(np.linalg.inv(information)))


def _fixed_table(estimates: np.ndarray, errors: np.ndarray, columns: list[str], confidence: float) -> Table:
    from scipy import stats

    z = estimates / errors
    half = stats.norm.ppf((1 + confidence) / 2) * errors
    p = 2 * stats.norm.sf(np.abs(z))
    keys = ("term", "estimate", "se", "z", "p", "low", "high")
    values = (v.tolist() for v in (estimates, errors, z, p, estimates - half, estimates + half))
    rows = [dict(zip(keys, row)) for row in zip(columns, *values)]
    return Table("fixed effects", [
        Column("term", "", "Term of the formula"), Column("estimate", "", "Effect, in the unit of the response"),
        Column("se", "", "Standard error"), Column("z", "1", "Estimate over standard error"),
        Column("p", "1", "Two-sided p (normal approximation)"),
        Column("low", "", f"Lower {confidence:.0%} limit"), Column("high", "", f"Upper {confidence:.0%} limit")], rows)
