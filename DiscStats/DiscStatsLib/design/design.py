"""Design matrices from a formula and the participants table, with a term resolved for each disc level."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError

from .formula import FUNCTIONS, Formula, parse_formula, require_columns

ID = "participant_id"


@dataclass(frozen=True)
class Design:
    """A design matrix with names.

    Attributes
    ----------
    formula : Formula
    matrix : ndarray, shape (n, p), float64
        Columns in natural units.
    columns : list of str
        Name of each column, such as ``C(sex)[T.M]``.
    terms : dict of str to list of int
        Columns of each term.
    rows : ndarray, shape (n,), int
        Rows of the participants table that the design holds.
    level : str
        Disc level that level-wise columns were taken from; empty if none were.
    info : object
        patsy's DesignInfo, for contrasts written as text.
    warnings : list of str
        What a statistician would remark before computing.
    """

    formula: Formula
    matrix: np.ndarray
    columns: list[str]
    terms: dict[str, list[int]]
    rows: np.ndarray
    level: str = ""
    info: object = None
    warnings: list[str] = field(default_factory=list)

    def __getstate__(self) -> dict:
        """Leave out patsy's object, which can not be pickled, when a result comes back from another process."""
        return {**self.__dict__, "info": None}

    @property
    def n(self) -> int:
        """Number of observations."""
        return len(self.matrix)

    @property
    def rank(self) -> int:
        """Number of columns; a rank-deficient design is refused when it is built."""
        return self.matrix.shape[1]


def build_design(formula: str | Formula, participants, *, level: str = "", ranks: bool = False,
                 missing: str = "error", extra_columns: int = 0, checks: bool = True) -> Design:
    """Return the design matrix of a formula on a participants table.

    A name that is no column is looked up for the disc level: with ``level="L5-S1"``, ``pfirrmann`` is read from
    the column ``pfirrmann_L5S1``.

    Parameters
    ----------
    formula : str or Formula
        Such as ``map ~ pfirrmann + age + C(sex)``.
    participants : pandas.DataFrame
        One row an observation.
    level : str
        Disc level, such as ``L5-S1``.
    ranks : bool
        Replace every numeric column by its ranks (Spearman; the maps are ranked by the caller).
    missing : {"error", "drop"}
        What to do with a row in which a needed cell is empty.
    extra_columns : int
        Voxel-wise covariates that will be added, counted in the checks of size.
    checks : bool
        Refuse constant, collinear and too large designs.

    Raises
    ------
    DesignError
        For an unknown column, empty cells, a constant or collinear column, or too few observations.
    """
    formula = parse_formula(formula) if isinstance(formula, str) else formula
    table = level_table(participants, formula.names, level)
    require_columns(formula, table.columns)
    table = _without_missing(table, formula, missing, level)
    alike = [n for n in formula.names if table[n].nunique() == 1] if checks else []
    if alike:
        where = f" at level {level}" if level else ""
        raise DesignError(f"'{alike[0]}' has the same value ({table[alike[0]].iloc[0]}) for everyone{where}: take it "
                          "out of the formula.", anchor="design")
    _no_text_among_numbers(formula, table)
    matrix, info = _evaluate(formula, table)
    design = Design(formula, matrix, list(info.column_names),
                    {t: list(range(s.start, s.stop)) for t, s in info.term_name_slices.items()},
                    table.index.to_numpy(), level, info)
    if not checks:
        return design
    where = f" at level {level}" if level else ""
    check_matrix(design.matrix, design.columns, where, extra_columns)
    design = replace(design, warnings=_remarks(design, table, where, extra_columns))
    return _ranked(design) if ranks else design


def level_table(participants, names, level: str):
    """Return a copy of the table in which names such as ``pfirrmann`` hold the values of ``pfirrmann_<level>``."""
    table = participants.reset_index(drop=True).copy()
    for name in names:
        if name not in table.columns and level:
            for column in level_columns(name, level):
                if column in table.columns:
                    table[name] = table[column]
    return table


def level_columns(name: str, level: str) -> tuple[str, ...]:
    """Return the column names in which the value of `name` at a disc level may stand."""
    return f"{name}_{level.replace('-', '')}", f"{name}_{level}"


def is_level_wise(name: str, columns) -> bool:
    """Tell whether `name` is no column itself but has a column for some disc level."""
    from DiscRelaxometryLib.labels import DISCS

    return name not in columns and any(c in columns for d in DISCS for c in level_columns(name, d.name))


def check_participants(participants) -> None:
    """Raise DesignError if the table is empty or has missing or duplicate ids.

    Repeated ids are allowed only in a long table, which says what differs in a column ``level`` or ``session``.
    """
    if participants is not None and not hasattr(participants, "columns"):
        raise DesignError(f"The participants table is a {type(participants).__name__}: a pandas.DataFrame is needed.",
                          anchor="participants-table")
    twice = [] if participants is None else participants.columns[participants.columns.duplicated()]
    if len(twice):
        raise DesignError(f"The participants table has two columns '{twice[0]}': rename or drop one.",
                          anchor="participants-table")
    if participants is None or len(participants) == 0:
        raise DesignError("The participants table is empty.", anchor="participants-table")
    if ID not in participants.columns:
        raise DesignError(f"The participants table has no column '{ID}' (it has "
                          f"{', '.join(map(str, participants.columns))}).", anchor="participants-table")
    ids = participants[ID]
    if ids.isna().any():
        raise DesignError(f"Row {int(np.argmax(ids.isna())) + 1} of the participants table has no {ID}.",
                          anchor="participants-table")
    keys = [ID] + [c for c in ("level", "session", "visit") if c in participants.columns]
    twice = participants[participants.duplicated(keys)]
    if len(twice):
        raise DesignError(f"'{twice[ID].iloc[0]}' stands twice in the participants table: keep one row a person, "
                          "or tell the rows apart in a column 'session' or 'level'.", anchor="participants-table")


def numeric_columns(table, *names: str) -> list[np.ndarray]:
    """Return columns of a table as floats, or raise DesignError where one is not there or holds text."""
    import pandas

    found = []
    for name in names:
        if name not in table.columns:
            raise DesignError(f"The table has no column '{name}'; it has {', '.join(map(str, table.columns))}.",
                              anchor="participants-table")
        values = pandas.to_numeric(table[name], errors="coerce")
        text = values.isna() & table[name].notna()
        if text.any():
            raise DesignError(f"Column '{name}' holds '{table[name][text].iloc[0]}' where a number is needed.",
                              anchor="participants-table")
        found.append(values.to_numpy(float))
    return found


def _without_missing(table, formula: Formula, missing: str, level: str):
    empty = table[list(formula.names)].isna() if formula.names else None
    if empty is None or not empty.to_numpy().any():
        return table
    row, column = np.argwhere(empty.to_numpy())[0]
    if missing == "drop":
        return table[~empty.any(axis=1)]
    person = table[ID].iloc[row] if ID in table.columns else f"row {row + 1}"
    where = f" (level {level})" if level else ""
    raise DesignError(
        f"The participants table has no value of '{formula.names[column]}' for '{person}'{where}; "
        f"{int(empty.to_numpy().any(axis=1).sum())} row(s) lack a value: fill the cells, or choose to leave these "
        "people out.", anchor="participants-table")


def _no_text_among_numbers(formula: Formula, table) -> None:
    """A column of numbers with one word in it is read as text, and would become a group for each number."""
    import pandas

    for name in formula.names:
        values = table[name]
        if values.dtype.kind == "M":
            raise DesignError(f"Column '{name}' holds dates: use a number, such as age in years.", anchor="formula")
        if values.dtype.kind in "ifub" or isinstance(values.dtype, pandas.CategoricalDtype):
            continue
        numbers = pandas.to_numeric(values, errors="coerce")
        if numbers.notna().any() and numbers.isna().any():
            row = int(np.argmax(numbers.isna()))
            person = table[ID].iloc[row] if ID in table.columns else f"row {row + 1}"
            raise DesignError(f"Column '{name}' holds the text '{values.iloc[row]}' ('{person}') among numbers: "
                              "correct the cell, or leave it empty.", anchor="participants-table")


def _evaluate(formula: Formula, table) -> tuple[np.ndarray, object]:
    """Evaluate a checked formula with patsy; only the listed functions and the table's columns are in reach."""
    import patsy

    allowed = {name: function for name, function in FUNCTIONS.items() if function is not None}
    frame = table[list(formula.names)]
    try:
        with np.errstate(all="ignore"):
            result = patsy.dmatrix(formula.terms, frame, eval_env=patsy.EvalEnvironment([allowed]), NA_action="raise")
    except patsy.PatsyError as error:
        reason = str(error).splitlines()[0].removeprefix("Error evaluating factor: ")
        text = [n for n in formula.names if frame[n].dtype.kind not in "ifub"]
        hint = f" {', '.join(text)} holds text: use C() for groups." if text else ""
        raise DesignError(f"The formula '{formula}' can not be evaluated ({reason}).{hint}", anchor="formula") from None
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise DesignError(f"The formula '{formula}' can not be evaluated ({error}): is a column text where a number is "
                          "needed? Use C() for groups.", anchor="formula") from None
    matrix = np.asarray(result, float)
    if matrix.shape[0] != len(table):
        # patsy can not infer the length of '~ 1'.
        matrix = np.ones((len(table), matrix.shape[1]))
    bad = ~np.isfinite(matrix).all(axis=0)
    if bad.any():
        raise DesignError(f"The term '{result.design_info.column_names[int(np.argmax(bad))]}' is not a finite number "
                          "for every person (a logarithm of zero?).", anchor="formula")
    return matrix, result.design_info


def check_matrix(matrix: np.ndarray, columns: list[str], where: str = "", extra_columns: int = 0) -> None:
    """Raise DesignError, naming the columns, for a constant, collinear or too large design matrix."""
    n, p = matrix.shape
    if p + extra_columns == 0:
        raise DesignError("The formula has no term: add one, or '1' for the mean.")
    for j in range(p):
        if columns[j] != "Intercept" and np.ptp(matrix[:, j]) == 0:
            raise DesignError(f"'{columns[j]}' has the same value ({matrix[0, j]:g}) for everyone{where}: take it "
                              "out of the formula.", anchor="design")
    if n <= p + extra_columns:
        raise DesignError(f"{n} observations{where} can not estimate a model of {p + extra_columns} parameters: "
                          "drop terms or add people.", anchor="design")
    scaled = matrix / np.linalg.norm(matrix, axis=0)
    _, singular, vectors = np.linalg.svd(scaled, full_matrices=False)
    if singular[-1] < singular[0] * n * 1e-13:
        weight = np.abs(vectors[-1])
        names = [columns[j] for j in range(p) if weight[j] > 1e-6 * weight.max()]
        raise DesignError(f"The columns {', '.join(names)} are collinear{where} (one is a combination of the others): "
                          "take one of them out.", anchor="design")


def variance_inflation(design: Design) -> dict[str, float]:
    """Return the variance inflation factor of each column but the intercept."""
    factors = {}
    for j, name in enumerate(design.columns):
        if name == "Intercept":
            continue
        others = np.delete(design.matrix, j, axis=1)
        target = design.matrix[:, j]
        residual = target - others @ np.linalg.lstsq(others, target, rcond=None)[0] if others.size else target
        total = np.sum((target - target.mean()) ** 2)
        factors[name] = float(total / max(np.sum(residual ** 2), 1e-300)) if total > 0 else 1.0
    return factors


def _remarks(design: Design, table, where: str, extra_columns: int) -> list[str]:
    """Return what to say before computing: few degrees of freedom, collinearity, small groups, ordinal numbers."""
    remarks = []
    df = design.n - design.rank - extra_columns
    if df < 10:
        remarks.append(f"Underpowered{where}: {design.n} observations leave {df} residual degrees of freedom.")
    for name, factor in variance_inflation(design).items():
        if factor > 10 and ":" not in name and "**" not in name:
            remarks.append(f"'{name}' is nearly a combination of the other columns{where} (variance inflation "
                           f"{factor:.0f}): its effect can hardly be told from theirs.")
    for name in design.formula.names:
        values = table[name]
        counts = values.value_counts()
        grouped = f"C({name}" in design.formula.terms or values.dtype.kind not in "ifub"
        if grouped and len(counts) > 1 and (counts.min() < 5 or counts.max() > 4 * counts.min()):
            sizes = ", ".join(f"{k}: {v}" for k, v in counts.items())
            remarks.append(f"Unbalanced groups of '{name}'{where} ({sizes}).")
        whole = not grouped and 3 <= len(counts) <= 7 and np.all(np.mod(values, 1) == 0)
        if whole and f"rank({name}" not in design.formula.terms:
            remarks.append(f"'{name}' has few whole values and is used as a number with equal steps: use ranks "
                           "(Spearman) or C() if it is only ordered.")
    return remarks


def _ranked(design: Design) -> Design:
    """Return the design with average ranks in the columns that are neither constant nor two-valued."""
    matrix = design.matrix.copy()
    for j in range(matrix.shape[1]):
        if len(np.unique(matrix[:, j])) > 2:
            matrix[:, j] = rankdata(matrix[:, j])
    check_matrix(matrix, design.columns, " after ranking")
    return replace(design, matrix=matrix, warnings=[w for w in design.warnings if "equal steps" not in w])
