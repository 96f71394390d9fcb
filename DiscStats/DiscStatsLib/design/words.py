"""Contrasts in words: ``severe - minimal``, ``age in women - age in men``, ``slope in F``."""

import re

import numpy as np

from .design import Design

#: What people write for the cells of a column of sexes.
_SEXES = {"women": "f", "female": "f", "females": "f", "men": "m", "male": "m", "males": "m"}
_COLUMN = re.compile(r"^(.*)\[(?:T\.)?(.*)\]$")


def in_words(text: str, design: Design) -> np.ndarray | None:
    """Return the weights, shape (1, p), of a contrast of group names and slopes; None if it is no such text.

    Terms stand between `` - `` and `` + ``: the group of a factor, or ``VARIABLE in GROUP`` (``slope`` is the only
    variable whose slope the factor changes). Groups must balance: a difference, not a level. The design has patsy's
    information.
    """
    parts = re.split(r"\s+([+-])\s+", text.strip())
    signs = [1.0, *(1.0 if sign == "+" else -1.0 for sign in parts[1::2])]
    total, balance = np.zeros(len(design.columns)), {}
    for sign, term in zip(signs, parts[::2]):
        name, _, group = term.rpartition(" in ")
        found = _group(group.strip(), design)
        if found is None:
            return None
        factor, cell = found
        weights = _slope(name.strip(), factor, cell, design) if name else _mean(factor, cell, design)
        if weights is None:
            return None
        if not name:
            balance[factor] = balance.get(factor, 0.0) + sign
        total += sign * weights
    return None if any(balance.values()) else total[None]


def _group(name: str, design: Design) -> tuple[str, str] | None:
    """Return (factor, group) of a group's name; None if no factor, or several, have it."""
    key = name.casefold()
    found = [(factor.name(), str(c)) for factor, info in design.info.factor_infos.items()
             if info.type == "categorical" for c in info.categories if str(c).casefold() in (key, _SEXES.get(key))]
    return found[0] if len(found) == 1 else None


def _mean(factor: str, cell: str, design: Design) -> np.ndarray | None:
    """Return the weights of a group's mean beside the others'; None where an interaction makes that depend."""
    weights = np.zeros(len(design.columns))
    for at, column in enumerate(design.columns):
        if ":" in column and factor in column:
            return None
        match = _COLUMN.match(column)
        weights[at] = match is not None and match.groups() == (factor, cell)
    return weights


def _slope(name: str, factor: str, cell: str, design: Design) -> np.ndarray | None:
    """Return the weights of a variable's slope in a group."""
    weights, variables = np.zeros(len(design.columns)), set()
    for at, column in enumerate(design.columns):
        names = column.split(":")
        matches = [m.groups() for m in map(_COLUMN.match, names) if m and m.group(1) == factor]
        rest = [n for n in names if not n.startswith(factor + "[")]
        if len(names) == 2 and matches and len(rest) == 1 and name in (rest[0], "slope"):
            variables.add(rest[0])
            weights[at] = matches[0][1] == cell
    if len(variables) != 1:
        return None
    main = variables.pop()
    weights[[at for at, column in enumerate(design.columns) if column == main]] = 1.0
    return weights
