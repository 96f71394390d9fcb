"""Rules on a column of the participants table, such as ``field_T == 1.5``: who belongs to an analysis or a group."""

import operator
import re

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Table, is_missing, to_number

_SIGNS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
          ">=": operator.ge}
_OPPOSITE = {"==": "!=", "<": ">=", "<=": ">"}
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}
_RULE = r"\s*([A-Za-z_]\w*)\s*(==|!=|<=|>=|<|>)\s*['\"]?([^'\"<>=\s][^'\"<>=]*?)['\"]?\s*"


def is_rule(text: str) -> bool:
    """Tell whether a text is a rule."""
    return re.fullmatch(_RULE, text) is not None


def opposite(sign: str) -> str:
    """Return the comparison that holds where another does not."""
    return _OPPOSITE[sign]


def parse_rule(text: str) -> tuple[str, str, str]:
    """Return column, comparison and value of a rule such as ``field_T == 1.5``; DesignError if it is no such rule."""
    found = re.fullmatch(_RULE, text)
    if not found:
        raise DesignError(f"'{text}' is not a rule: write COLUMN == VALUE (or !=, <, <=, >, >=).", anchor="sensitivity")
    return found.group(1), found.group(2), found.group(3)


def people_by_rule(table: Table, text: str) -> set[str]:
    """Return the people of a participants table for whom a rule holds; a missing value holds for nothing.

    Raises
    ------
    DesignError
        If the column does not exist, or an order is asked of words.
    """
    column, sign, value = parse_rule(text)
    if column not in table.names:
        raise DesignError(f"The rule's column '{column}' is not in participants.tsv; it has {', '.join(table.names)}.",
                          anchor="sensitivity")
    return {row["participant_id"] for row in table.rows
            if not is_missing(row[column]) and holds(row[column], sign, value, column)}


def holds(cell: str, sign: str, value: str, column: str) -> bool:
    """Tell whether a comparison holds for a cell of a column; DesignError where words are to have an order."""
    left, right = to_number(cell), to_number(value)
    if left is None or right is None:
        if sign not in ("==", "!="):
            raise DesignError(f"'{column} {sign} {value}' compares words; only == and != can.", anchor="sensitivity")
        return _SIGNS[sign](cell, value)
    return _SIGNS[sign](left, right)
