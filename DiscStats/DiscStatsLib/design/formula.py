"""Model formulas, restricted to names, numbers, arithmetic and a short list of functions before anything is evaluated.

The grammar is that of patsy, the formula library of statsmodels. Formulas come from panels, command lines and
files of others, and patsy evaluates them as Python: every node is therefore checked against a whitelist first.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError

MAX_LENGTH = 1000
MAX_POWER = 4


def rank(values) -> np.ndarray:
    """Return average ranks; missing values stay missing and are not counted."""
    return rankdata(np.asarray(values, float), nan_policy="omit")


#: Functions a formula may call; those that are None are patsy's own (categorical coding and stateful transforms).
FUNCTIONS = {"C": None, "I": None, "Q": None, "Treatment": None, "Sum": None, "center": None, "scale": None,
             "standardize": None, "rank": rank, "log": np.log, "log10": np.log10, "sqrt": np.sqrt, "exp": np.exp,
             "abs": np.abs}
_TEXT_ALLOWED = ("C", "Q", "Treatment", "Sum")


@dataclass(frozen=True)
class Formula:
    """A checked formula."""

    #: Name left of ``~``; empty if none.
    response: str
    #: Right side, in patsy's grammar.
    terms: str
    #: Variables (columns) that the right side needs, in order of appearance.
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.response or 'map'} ~ {self.terms}"

    @property
    def first_term(self) -> str:
        """Name of the first term that is not the intercept, as the design names it: what is tested by default."""
        return next((t for t in self.term_names if t != "Intercept"), "Intercept")

    @property
    def term_names(self) -> list[str]:
        """Names of the terms, in patsy's order."""
        return [term.name() for term in _described(self.terms, str(self)).rhs_termlist]

    def variables_of(self, term: str) -> tuple[str, ...]:
        """Return the variables that a term is made of."""
        return parse_formula(term).names if term != "Intercept" else ()

    def without(self, variables) -> Formula:
        """Return the formula without variables, which must be terms of their own (the intercept stays as it is)."""
        kept = []
        for term in self.term_names:
            mixed = [v for v in variables if v != term and v in self.variables_of(term)]
            if mixed:
                raise DesignError(f"The voxel-wise covariate '{mixed[0]}' can only be added ('+ {mixed[0]}'), not "
                                  "combined.")
            kept += [] if term in variables or term == "Intercept" else [term]
        start = "1" if "Intercept" in self.term_names or not kept else "0"
        return parse_formula(f"{self.response or 'map'} ~ {' + '.join([start, *kept])}") if variables else self


def parse_formula(text: str) -> Formula:
    """Check a formula such as ``T1rho ~ pfirrmann + age + C(sex)`` and return its parts.

    Parameters
    ----------
    text : str
        At most 1000 characters. The response may be left out.

    Raises
    ------
    DesignError
        If the formula is empty, has a syntax error, or holds anything but names, numbers, arithmetic and the
        functions of :data:`FUNCTIONS`.
    """
    if not isinstance(text, str) or not text.strip():
        raise DesignError("The formula is empty: write one such as 'map ~ pfirrmann + age + C(sex)'.")
    if len(text) > MAX_LENGTH:
        raise DesignError(f"The formula has {len(text)} characters; at most {MAX_LENGTH} are allowed.")
    text = re.sub(r"\s", " ", text)
    left, tilde, right = text.rpartition("~")
    response, right = left.strip(), right.strip()
    if not right or "~" in left or (tilde and response and not response.isidentifier()):
        raise DesignError(f"'{text}' is not a formula: write 'map ~ term + term', with one '~' and one name before it.")
    tree = _parse(right, text)
    names: list[str] = []
    _check_formula_node(tree, names, text)
    if not _described(right, text).rhs_termlist:
        raise DesignError(f"The formula '{text}' has no term: add one, or '1' for the mean.", anchor="formula")
    return Formula(response, right, tuple(dict.fromkeys(names)))


def require_columns(formula: Formula, columns) -> None:
    """Raise DesignError, with the nearest existing name, if the table lacks a column of the formula."""
    columns = [str(c) for c in columns]
    for name in formula.names:
        if name in columns:
            continue
        near = difflib.get_close_matches(name, columns, n=1)
        near += [c for c in columns if c.lower() == name.lower()]
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise DesignError(f"The formula names '{name}', but the participants table has no such column "
                          f"(it has {', '.join(columns)}).{hint}", anchor="formula")


@lru_cache(maxsize=256)
def _described(right: str, text: str):
    """Return patsy's description of a right side: its terms, nothing evaluated; asked for again and again."""
    import patsy

    try:
        return patsy.ModelDesc.from_formula(right)
    except patsy.PatsyError as error:
        raise DesignError(f"'{text}' cannot be read as a formula ({str(error).splitlines()[0]}).",
                          anchor="formula") from None


def _parse(right: str, text: str) -> ast.expr:
    """Return the syntax tree; patsy's ``:`` is read as ``@``, which Python can parse and patsy does not use."""
    if "@" in right:
        raise DesignError(f"'{text}' cannot be used: '@' is not allowed in a formula.")
    try:
        return ast.parse(_outside_quotes(right), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DesignError(f"'{text}' cannot be read as a formula: check its operators and brackets, and write "
                          "Q('NAME') for a column whose name is no plain word.", anchor="formula") from None


def _outside_quotes(text: str) -> str:
    quote, out = "", []
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == ":":
            character = "@"
        out.append(character)
    return "".join(out)


def _refuse(node: ast.AST, text: str):
    raise DesignError(
        f"The formula '{text}' holds something that is not allowed ({type(node).__name__}): use column names, "
        f"numbers, + - * : / **, brackets, and {', '.join(FUNCTIONS)}; Q('NAME') stands for any other name of a "
        "column.", anchor="formula")


def _check_formula_node(node: ast.AST, names: list[str], text: str) -> None:
    """Check a node of the term language (outside function calls)."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.MatMult, ast.Div)):
        _check_formula_node(node.left, names, text)
        _check_formula_node(node.right, names, text)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        _check_formula_node(node.left, names, text)
        if not (_is_number(node.right) and _constant(node.right) in range(1, MAX_POWER + 1)):
            raise DesignError(f"In '{text}', '**' must be followed by a whole number from 1 to {MAX_POWER}.")
        if isinstance(node.left, (ast.Name, ast.Call)):  # its interactions with itself: the term alone
            power = ast.unparse(node)
            raise DesignError(f"In '{text}', {power} is the term itself: write I({power}) for a power.",
                              anchor="formula")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        _check_formula_node(node.operand, names, text)
    elif _is_number(node):
        if _constant(node) not in (0, 1):
            raise DesignError(f"In '{text}', the only numbers outside functions are 0 and 1 (no intercept, intercept).")
    else:
        _check_value_node(node, names, text, "")


def _check_value_node(node: ast.AST, names: list[str], text: str, function: str) -> None:
    """Check a node inside a function call, where operators are arithmetic."""
    if isinstance(node, ast.Name):
        if node.id in FUNCTIONS:
            raise DesignError(f"In '{text}', '{node.id}' is a function: write {node.id}(COLUMN), or Q('{node.id}') for "
                              "a column of that name.", anchor="formula")
        if node.id.startswith("__"):
            _refuse(node, text)
        names.append(node.id)
    elif isinstance(node, ast.Call):
        _check_call(node, names, text)
    elif not function:
        _refuse(node, text)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        _check_value_node(node.left, names, text, function)
        _check_value_node(node.right, names, text, function)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        _check_value_node(node.left, names, text, function)
        if not (_is_number(node.right) and abs(_constant(node.right)) <= MAX_POWER):
            raise DesignError(f"In '{text}', '**' must be followed by a number of at most {MAX_POWER}.")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        _check_value_node(node.operand, names, text, function)
    elif not (_is_number(node) or (function in _TEXT_ALLOWED and _is_text(node))):
        _refuse(node, text)


def _check_call(node: ast.Call, names: list[str], text: str) -> None:
    function = node.func.id if isinstance(node.func, ast.Name) else None
    if function not in FUNCTIONS:
        if function is None:
            _refuse(node, text)
        raise DesignError(f"The formula '{text}' calls '{function}', which is not allowed: use {', '.join(FUNCTIONS)}.",
                          anchor="formula")
    if function == "Q":
        if len(node.args) != 1 or node.keywords or not _is_text(node.args[0]):
            _refuse(node, text)
        names.append(_constant(node.args[0]))
        return
    for argument in node.args:
        if function == "C" and isinstance(argument, ast.Name) and argument.id in ("Treatment", "Sum"):
            continue
        _check_value_node(argument, names, text, function)
    for keyword in node.keywords:
        if keyword.arg not in ("reference", "levels") or function not in _TEXT_ALLOWED:
            _refuse(node, text)
        items = keyword.value.elts if isinstance(keyword.value, ast.List) else [keyword.value]
        if not all(_is_number(i) or _is_text(i) for i in items):
            _refuse(node, text)


def _constant(node: ast.AST) -> Any:
    """Return the value of a constant."""
    return node.value if isinstance(node, ast.Constant) else None


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(_constant(node)) < 1e12


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
