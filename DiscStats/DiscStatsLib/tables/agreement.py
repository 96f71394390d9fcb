"""Agreement between methods, raters and repeated measurements.

Bland-Altman limits, the six intraclass correlations of Shrout and Fleiss, Lin's concordance, and test-retest
precision, each with its confidence interval. Equations and sources are in ``Docs/method/agreement.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table


@dataclass(frozen=True)
class BlandAltman:
    """Limits of agreement of ``first - second``."""

    #: Pairs with both values.
    n: int
    #: Mean and standard deviation of the differences.
    bias: float
    sd: float
    #: Limits of agreement, bias -+ 1.96 SD.
    lower: float
    upper: float
    #: Confidence intervals.
    bias_ci: tuple[float, float]
    lower_ci: tuple[float, float]
    upper_ci: tuple[float, float]
    #: Slope of the difference on the pair's mean and its p value: a small p says that the bias depends on the size.
    slope: float
    slope_p: float


def bland_altman(first, second, confidence: float = 0.95) -> BlandAltman:
    """Return bias and 95 % limits of agreement with their intervals (Bland & Altman 1986, 1999).

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Paired values; pairs with a missing value are left out.
    confidence : float
        Of the intervals around bias and limits.

    Raises
    ------
    DesignError
        With fewer than three pairs or unequal lengths.
    """
    first, second = paired(first, second)
    difference, n = first - second, len(first)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t = stats.t.ppf((1 + confidence) / 2, n - 1)
    z = stats.norm.ppf(0.975)
    of_bias = t * sd / np.sqrt(n)
    of_limit = t * sd * np.sqrt(1 / n + z ** 2 / (2 * (n - 1)))
    lower, upper = bias - z * sd, bias + z * sd
    mean = (first + second) / 2
    if np.ptp(mean) > 0 and sd > 0:
        line = stats.linregress(mean, difference)
        slope, slope_p = float(line.slope), float(line.pvalue)
    else:
        slope, slope_p = 0.0, 1.0
    return BlandAltman(n, bias, sd, lower, upper, (bias - of_bias, bias + of_bias),
                       (lower - of_limit, lower + of_limit), (upper - of_limit, upper + of_limit), slope, slope_p)


def icc(values, confidence: float = 0.95) -> Table:
    """Return the six intraclass correlations of Shrout and Fleiss (1979) with intervals and F tests.

    Parameters
    ----------
    values : array-like, shape (n, k)
        n targets measured by k raters, methods or sessions; targets with a missing value are left out.
    confidence : float

    Returns
    -------
    Table
        Columns ``form`` (``ICC(2,1)``), ``value``, ``low``, ``high``, ``F``, ``df1``, ``df2``, ``p``, ``n``, ``k``.

    Raises
    ------
    DesignError
        With fewer than three complete targets, fewer than two raters, or no variation at all.
    """
    values = _matrix(values)
    n, k = values.shape
    grand = values.mean()
    rows = k * ((values.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((values.mean(axis=0) - grand) ** 2).sum() / (k - 1)
    within = values.var(axis=1, ddof=1).mean()
    residual = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + grand
    error = (residual ** 2).sum() / ((n - 1) * (k - 1))
    if rows + within == 0:
        raise DesignError("All values are the same: an intraclass correlation is not defined.", anchor="agreement")
    alpha = 1 - confidence
    found = []
    for form, mean_square, df2 in ((1, within, n * (k - 1)), (3, error, (n - 1) * (k - 1))):
        found.append((form, _one_way(rows, mean_square, n, k, df2, alpha)))
    found.insert(1, (2, _two_way_random(rows, columns, error, n, k, alpha)))
    table = []
    for average in (False, True):
        for form, (single, mean_of_k, test) in found:
            value, low, high = mean_of_k if average else single
            table.append({"form": f"ICC({form},{'k' if average else 1})", "value": value, "low": low, "high": high,
                          **test, "n": n, "k": k})
    return Table("icc", [
        Column("form", "", "Shrout and Fleiss's form: 1 one-way, 2 two-way random (agreement), 3 two-way fixed "
                           "(consistency); 1 single measurement, k mean of k"),
        Column("value", "1", "Intraclass correlation"), Column("low", "1", f"Lower {confidence:.0%} limit"),
        Column("high", "1", f"Upper {confidence:.0%} limit"), Column("F", "1", "F of the test against 0"),
        Column("df1", "1", "Degrees of freedom of targets"), Column("df2", "1", "Degrees of freedom of error"),
        Column("p", "1", "p of the F test"), Column("n", "1", "Targets"), Column("k", "1", "Raters")], table)


def _one_way(rows: float, noise: float, n: int, k: int, df2: int, alpha: float) -> tuple:
    """Return value and interval of a single and a mean measurement, for forms 1 and 3."""
    with np.errstate(divide="ignore"):
        f = float(np.divide(rows, noise)) if noise > 0 else np.inf
    low = f / stats.f.ppf(1 - alpha / 2, n - 1, df2)
    high = f * stats.f.ppf(1 - alpha / 2, df2, n - 1)
    test = {"F": f, "df1": n - 1, "df2": df2, "p": float(stats.f.sf(f, n - 1, df2))}
    if not np.isfinite(f):
        return (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), test
    single = tuple(float((x - 1) / (x + k - 1)) for x in (f, low, high))
    mean_of_k = tuple(float(1 - 1 / x) if x > 0 else float("-inf") for x in (f, low, high))
    return single, mean_of_k, test


def _two_way_random(rows: float, columns: float, error: float, n: int, k: int, alpha: float) -> tuple:
    """Return value and interval for form 2; the interval is Satterthwaite's as in McGraw and Wong (1996)."""
    single = (rows - error) / (rows + (k - 1) * error + k * (columns - error) / n)
    mean_of_k = (rows - error) / (rows + (columns - error) / n)
    df2 = (n - 1) * (k - 1)
    f = rows / error if error > 0 else np.inf
    test = {"F": float(f), "df1": n - 1, "df2": df2, "p": float(stats.f.sf(f, n - 1, df2))}
    if (error <= 0 and columns <= 0) or single >= 1:  # the same values; their squares may leave a rounding
        return (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), test
    ratio = single / (1 - single)
    a, b = k * ratio / n, 1 + k * ratio * (n - 1) / n
    parts = a * columns, b * error
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / (k - 1) + parts[1] ** 2 / ((n - 1) * (k - 1)))
    lower_f = stats.f.ppf(1 - alpha / 2, n - 1, degrees)
    upper_f = stats.f.ppf(1 - alpha / 2, degrees, n - 1)
    other = k * columns + (k * n - k - n) * error
    low = n * (rows - lower_f * error) / (lower_f * other + n * rows)
    high = n * (upper_f * rows - error) / (other + n * upper_f * rows)
    spread = [float(k * x / (1 + (k - 1) * x)) for x in (low, high)]
    return (float(single), float(low), float(high)), (float(mean_of_k), *spread), test


@dataclass(frozen=True)
class Concordance:
    """Lin's concordance correlation: precision (Pearson's r) times accuracy (bias correction)."""

    #: Pairs; the coefficient and its confidence limits; its two factors.
    n: int
    value: float
    low: float
    high: float
    pearson: float
    accuracy: float


def concordance(first, second, confidence: float = 0.95) -> Concordance:
    """Return Lin's concordance correlation with the interval of its z transform (Lin 1989, 2000).

    Raises
    ------
    DesignError
        With fewer than three pairs, or if one of the two does not vary.
    """
    first, second = paired(first, second)
    n = len(first)
    sx, sy = first.std(), second.std()
    if sx == 0 or sy == 0:
        raise DesignError("One of the two measurements has the same value for everyone: a concordance is not defined.",
                          anchor="agreement")
    shift = first.mean() - second.mean()
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    value = 2 * covariance / (sx ** 2 + sy ** 2 + shift ** 2)
    r, u = covariance / (sx * sy), shift / np.sqrt(sx * sy)
    if abs(r) < 1e-12:
        return Concordance(n, float(value), float("nan"), float("nan"), float(r), float("nan"))
    if abs(value) >= 1 - 1e-12:
        return Concordance(n, float(value), float(value), float(value), float(r), float(value / r))
    variance = ((1 - r ** 2) * value ** 2 * (1 - value ** 2) / r ** 2 + 2 * value ** 3 * (1 - value) * u ** 2 / r
                - value ** 4 * u ** 4 / (2 * r ** 2)) / (n - 2)
    half = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(max(variance, 0)) / (1 - value ** 2)
    low, high = np.tanh(np.arctanh(value) + np.array((-half, half)))
    return Concordance(n, float(value), float(low), float(high), float(r), float(value / r))


@dataclass(frozen=True)
class Repeatability:
    """Precision of repeated measurements of the same targets."""

    #: Targets, repetitions.
    n: int
    k: int
    #: Within-target standard deviation; ``within_ci`` its interval.
    within_sd: float
    within_ci: tuple[float, float]
    #: Repeatability coefficient 1.96 sqrt(2) within_sd: two measurements of one target differ by less in 95 %.
    coefficient: float
    #: Root mean square of the targets' coefficients of variation (share, not percent); ``rms_cv_ci`` its interval.
    rms_cv: float
    rms_cv_ci: tuple[float, float]
    #: Mean of the targets' coefficients of variation.
    mean_cv: float


def repeatability(values, confidence: float = 0.95) -> Repeatability:
    """Return test-retest precision of repeated measurements.

    Parameters
    ----------
    values : array-like, shape (n, k)
        n targets, k repetitions; targets with a missing value are left out.

    Raises
    ------
    DesignError
        With fewer than three complete targets, fewer than two repetitions, or a target whose mean is not positive.
    """
    values = _matrix(values)
    n, k = values.shape
    means = values.mean(axis=1)
    if means.min() <= 0:
        raise DesignError("A coefficient of variation needs positive means; one target's mean is "
                          f"{means.min():g}.", anchor="agreement")
    variances = values.var(axis=1, ddof=1)
    cv = np.sqrt(variances) / means
    within, rms = float(np.sqrt(variances.mean())), float(np.sqrt((cv ** 2).mean()))
    degrees = n * (k - 1)
    low, high = (np.sqrt(degrees / stats.chi2.ppf(q, degrees)) for q in ((1 + confidence) / 2, (1 - confidence) / 2))
    return Repeatability(n, k, within, (float(within * low), float(within * high)),
                         float(stats.norm.ppf(0.975) * np.sqrt(2) * within), rms,
                         (float(rms * low), float(rms * high)), float(cv.mean()))


def agreement_table(first, second, unit: str = "", confidence: float = 0.95) -> Table:
    """Return all measures of agreement of two paired measurements as one table of value and interval."""
    limits, lin = bland_altman(first, second, confidence), concordance(first, second, confidence)
    rows: list[dict] = [{"measure": "bias", "value": limits.bias, "low": limits.bias_ci[0], "high": limits.bias_ci[1]},
            {"measure": "lower limit of agreement", "value": limits.lower, "low": limits.lower_ci[0],
             "high": limits.lower_ci[1]},
            {"measure": "upper limit of agreement", "value": limits.upper, "low": limits.upper_ci[0],
             "high": limits.upper_ci[1]},
            {"measure": "concordance correlation", "value": lin.value, "low": lin.low, "high": lin.high}]
    rows += [{"measure": r["form"], "value": r["value"], "low": r["low"], "high": r["high"]}
             for r in icc(np.column_stack(paired(first, second)), confidence).rows]
    for row in rows:
        row |= {"unit": unit if "bias" in row["measure"] or "limit" in row["measure"] else "1", "n": limits.n}
    return Table("agreement", [
        Column("measure", "", "Measure of agreement of first minus second"), Column("value", "", "Estimate"),
        Column("low", "", f"Lower {confidence:.0%} limit"), Column("high", "", f"Upper {confidence:.0%} limit"),
        Column("unit", "", "UCUM unit"), Column("n", "1", "Pairs")], rows)


def weighted_kappa(first, second) -> float:
    """Return Cohen's kappa of two readings of ordered grades with quadratic weights (Cohen 1968).

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Grades as numbers; pairs with a missing value are left out.

    Raises
    ------
    DesignError
        With fewer than three pairs, or if both readings are the same grade throughout.
    """
    first, second = paired(first, second)
    if np.ptp([first, second]) == 0:
        raise DesignError("Both readings have the same grade throughout: kappa is not defined.", anchor="agreement")
    expected = first.var() + second.var() + (first.mean() - second.mean()) ** 2  # of all pairs
    return float(1 - ((first - second) ** 2).mean() / expected)


def pair_tables(first: Table, second: Table, on: Sequence[str], value: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pair one column of two tables by key columns.

    Parameters
    ----------
    first, second : Table
    on : sequence of str
        Columns that name a row, such as ``("participant_id", "level", "region")``.
    value : str
        Column to compare.

    Returns
    -------
    first, second : ndarray
        Paired values.
    unmatched : list of str
        Rows that one of the two tables alone has.

    Raises
    ------
    DesignError
        If a key stands twice in one table, or no row is common.
    """
    keyed = []
    for table in (first, second):
        rows = {}
        for row in table.rows:
            key = tuple(row.get(name) for name in on)
            if key in rows:
                raise DesignError(f"Table '{table.name}' has the row {', '.join(map(str, key))} twice: rows must be "
                                  f"unique by {', '.join(on)}.", anchor="agreement")
            rows[key] = row.get(value)
        keyed.append(rows)
    common = [k for k in keyed[0] if k in keyed[1]]
    if not common:
        raise DesignError(f"The tables '{first.name}' and '{second.name}' have no common row by {', '.join(on)}.",
                          anchor="agreement")
    unmatched = [", ".join(map(str, k)) for k in [*keyed[0], *keyed[1]] if (k in keyed[0]) != (k in keyed[1])]
    return (np.array([_float(keyed[0][k]) for k in common]), np.array([_float(keyed[1][k]) for k in common]), unmatched)


def _float(value) -> float:
    return float("nan") if value is None else float(value)


def paired(first, second) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs with both values as float arrays, or raise DesignError."""
    first, second = np.asarray(first, float).ravel(), np.asarray(second, float).ravel()
    if first.shape != second.shape:
        raise DesignError(f"{len(first)} and {len(second)} values cannot be paired.", anchor="agreement")
    keep = np.isfinite(first) & np.isfinite(second)
    if keep.sum() < 3:
        raise DesignError(f"Agreement needs at least three complete pairs; there are {int(keep.sum())}.",
                          anchor="agreement")
    return first[keep], second[keep]


def _matrix(values) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[1] < 2:
        raise DesignError(f"A table of targets by at least two measurements is needed; got shape {values.shape}.",
                          anchor="agreement")
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 3:
        raise DesignError(f"Agreement needs at least three complete targets; there are {len(values)}.",
                          anchor="agreement")
    return values
