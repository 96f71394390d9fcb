"""Design matrices from a formula and the participants table, with a term resolved for each disc level."""

import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import is_missing, to_number

from .formula import FUNCTIONS, Formula, parse_formula, require_columns
from .participants import ID, require_moderate

#: Columns that tell the rows of one participant apart.
PLACES = ("level", "session", "visit")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}([./-])\d{1,2}\2(\d{4}|\d{2})")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_NEARLY_NUMBER = re.compile(r"[<>~\u2248\u2264\u2265+-]?\s*[.,]?\d")
#: Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0430\u0435\u043e\u0440\u0441\u0445"
    "\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03bf",
    "ABEKMHOPCTXaeopcx" "ABEHIKMNOPTXo")


class NotEstimable(DesignError):
    """A design is well formed, but its observations cannot tell its columns apart: at another level they may."""


@dataclass(frozen=True)
class Design:
    """A design matrix with names."""

    formula: Formula
    #: Shape (n, p). Columns in natural units.
    matrix: np.ndarray
    #: Name of each column, such as ``C(sex)[T.M]``.
    columns: list[str]
    #: Columns of each term.
    terms: dict[str, list[int]]
    #: Shape (n,). Rows of the participants table that the design holds.
    rows: np.ndarray
    #: Disc level that level-wise columns were taken from; empty if none were.
    level: str = ""
    #: patsy's DesignInfo, for contrasts written as text.
    info: Any = None
    #: What a statistician would remark before computing.
    warnings: list[str] = field(default_factory=list)

    def __getstate__(self) -> dict:
        """Leave out patsy's object, which cannot be pickled, when a result comes back from another process."""
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
                 missing: str = "error", extra_columns: int = 0) -> Design:
    """Return the design matrix of a formula on a participants table.

    A name that is not a column is looked up for the disc level: with ``level="L5-S1"``, ``pfirrmann`` is read from
    the column ``pfirrmann_L5S1``.

    Parameters
    ----------
    formula : str or Formula
        Such as ``map ~ pfirrmann + age + C(sex)``.
    participants : pandas.DataFrame
        One row per observation.
    level : str
        Disc level, such as ``L5-S1``.
    ranks : bool
        Replace every numeric column by its ranks (Spearman; the maps are ranked by the caller).
    missing : {"error", "drop"}
        What to do with a row in which a needed cell is empty.
    extra_columns : int
        Voxel-wise covariates that will be added, counted in the checks of size.

    Raises
    ------
    DesignError
        For an unknown column, empty cells, a constant or collinear column, or too few observations.
    """
    formula = parse_formula(formula) if isinstance(formula, str) else formula
    table = level_table(participants, formula.names, level)
    for name in formula.names:
        if name not in table.columns and level and is_level_wise(name, participants.columns):
            raise NotEstimable(f"The formula names '{name}', but the table has no such column for {level} "
                               f"('{level_columns(name, level)[0]}').",
                               anchor="participants-table")
    require_columns(formula, table.columns)
    table = _without_missing(table, formula, missing, level)
    where = f" at level {level}" if level else ""
    if table.empty:
        raise NotEstimable(f"Nobody has a value of all of {', '.join(formula.names)}{where}: fill the cells.",
                           anchor="participants-table")
    _check_cells(formula, table)
    alike = [n for n in formula.names if table[n].nunique() == 1]
    if alike:
        raise NotEstimable(f"'{alike[0]}' has the same value ({table[alike[0]].iloc[0]}) for everyone{where}: take it "
                           "out of the formula.", anchor="design")
    matrix, info = _evaluate(formula, table)
    design = Design(formula, matrix, list(info.column_names),
                    {t: list(range(s.start, s.stop)) for t, s in info.term_name_slices.items()},
                    table.index.to_numpy(), level, info)
    check_matrix(design.matrix, design.columns, where, extra_columns)
    remarks = [*participants.attrs.get("notes", ()), *_left_out(participants, design, where),
               *_remarks(design, table, where, extra_columns)]
    design = replace(design, warnings=remarks)
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
    """Tell whether `name` is not a column itself but has a column for some disc level."""
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
    keys = [ID] + [c for c in PLACES if c in participants.columns]
    twice = participants[participants.duplicated(keys)]
    if len(twice):
        raise DesignError(f"'{twice[ID].iloc[0]}' stands twice in the participants table: keep one row per person, "
                          "or tell the rows apart in a column 'session' or 'level'.", anchor="participants-table")


def _without_missing(table, formula: Formula, missing: str, level: str):
    """Leave out rows that lack a value of the formula, and refuse columns that hold text among numbers."""
    names = list(formula.names)
    if not names:
        return table
    empty = table[names].isna() | table[names].map(lambda cell: isinstance(cell, str) and is_missing(cell))
    rows = empty.any(axis=1)
    if rows.any() and missing != "drop":
        row, column = np.argwhere(empty.to_numpy())[0]
        where = f" (level {level})" if level else ""
        raise DesignError(
            f"The participants table has no value of '{names[column]}' for '{_who(table, row)}'{where}; "
            f"{int(rows.sum())} row(s) lack a value: fill the cells, or choose to leave these participants out.",
            anchor="participants-table")
    table = table[~rows].copy()
    for name in names:  # 2.0 in a column that had an empty cell is the group 2
        if table[name].dtype.kind == "f" and (table[name] % 1 == 0).all() and (table[name].abs() < 2**53).all():
            table[name] = table[name].astype(int)
    return table


def _who(table, row: int) -> str:
    return str(table[ID].iloc[row]) if ID in table.columns else f"row {row + 1}"


def _left_out(participants, design: Design, where: str) -> list[str]:
    """Name the participants that lack a value of the model."""
    rows = np.setdiff1d(np.arange(len(participants)), design.rows)
    who = list(dict.fromkeys(_who(participants, row) for row in rows))
    more = f" and {len(who) - 20} more" if len(who) > 20 else ""
    return [f"{', '.join(who[:20])}{more} lack a value of {', '.join(design.formula.names)}{where} and were left "
            "out."] if who else []


def _check_cells(formula: Formula, table) -> None:
    """Refuse columns whose cells would silently become groups: dates, numbers with a word or a unit, twins."""
    plain = {part for term in formula.term_names for part in term.split(":")}
    used = {name for term in formula.term_names for name in formula.variables_of(term)}
    for name in formula.names:
        values = table[name]
        if values.dtype.kind in "ifub":
            continue
        texts = list(dict.fromkeys(values.astype(str)))
        if values.dtype.kind == "M" or all(map(_DATE.fullmatch, texts)):
            raise DesignError(f"Column '{name}' holds dates: use a number, such as age in years.", anchor="formula")
        odd = [t for t in texts if to_number(t) is None]
        if odd and len(odd) < len(texts):
            who = _who(table, list(values.astype(str)).index(odd[0]))
            raise DesignError(f"Column '{name}' holds the text '{odd[0]}' ('{who}') among numbers: correct the cell, "
                              "or write 'n/a' where the value is missing.", anchor="participants-table")
        # A subtracted column counts: whoever lacks its value is left out.
        if (name in plain or name not in used) and all(map(_NEARLY_NUMBER.match, texts)):
            comma = " with a decimal point" if _COMMA.fullmatch(texts[0]) else ""
            raise DesignError(f"Column '{name}' holds text such as '{texts[0]}': write numbers{comma}, or C({name}) "
                              "for groups.", anchor="participants-table")
        _no_twins(name, texts)


def _no_twins(name: str, texts) -> None:
    """Raise DesignError where two groups differ in case, white space, or letters of one look alone."""
    seen: dict[str, str] = {}
    for text in texts:
        key = unicodedata.normalize("NFKC", text.translate(_LOOK_ALIKE)).casefold()
        other = seen.setdefault("".join(key.split()), text)
        if other != text:
            raise DesignError(f"Column '{name}' holds {other!r} and {text!r}: they would be two groups; write them "
                              "alike, or give the groups different names.", anchor="participants-table")


def _evaluate(formula: Formula, table) -> tuple[np.ndarray, Any]:
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
        raise DesignError(f"The formula '{formula}' cannot be evaluated ({reason}).{hint}", anchor="formula") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DesignError(f"The formula '{formula}' cannot be evaluated ({error}): is a column text where a number is "
                          "needed? Use C() for groups.", anchor="formula") from None
    matrix = np.asarray(result, float)
    if matrix.shape[0] != len(table):
        # patsy cannot infer the length of '~ 1'.
        matrix = np.ones((len(table), matrix.shape[1]))
    bad = ~np.isfinite(matrix).all(axis=0)
    if bad.any():
        raise DesignError(f"The term '{result.design_info.column_names[int(np.argmax(bad))]}' is not a finite number "
                          "for every person (a logarithm of zero?).", anchor="formula")
    for name, column in zip(result.design_info.column_names, matrix.T):
        require_moderate(column, f"The term '{name}'")
    return matrix, result.design_info


def check_matrix(matrix: np.ndarray, columns: list[str], where: str = "", extra_columns: int = 0) -> None:
    """Raise DesignError, naming the columns, for a constant, collinear or too large design matrix."""
    n, p = matrix.shape
    if p + extra_columns == 0:
        raise DesignError("The formula has no term: add one, or '1' for the mean.")
    for j in range(p):
        if columns[j] != "Intercept" and np.ptp(matrix[:, j]) == 0:
            raise NotEstimable(f"'{columns[j]}' has the same value ({matrix[0, j]:g}) for everyone{where}: take it "
                               "out of the formula.", anchor="design")
    if n <= p + extra_columns:
        raise NotEstimable(f"{n} observations{where} cannot estimate a model of {p + extra_columns} parameters: "
                           "drop terms or add people.", anchor="design")
    scaled = matrix / np.linalg.norm(matrix, axis=0)
    _, singular, vectors = np.linalg.svd(scaled, full_matrices=False)
    if singular[-1] < singular[0] * n * 1e-13:
        weight = np.abs(vectors[-1])
        names = [columns[j] for j in range(p) if weight[j] > 1e-6 * weight.max()]
        raise NotEstimable(f"The columns {', '.join(names)} are collinear{where} (one is a combination of the others): "
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
    if "Intercept" not in design.terms:
        remarks.append("The model has no intercept: a contrast of single columns, as that of a term, compares with 0.")
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
