"""Groups of people, or of their discs, by a column of the participants table or by a rule such as ``odi <= 40``."""

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.tables import Table, cell_value, is_missing

from .rules import holds, is_rule, opposite, parse_rule
from .study import level_columns

#: More average maps cannot be compared side by side.
MOST = 6
#: A participant's disc.
Disc = tuple[str, str]


def values_by_level(table: Table, variable: str) -> dict[Disc, object]:
    """Return (participant, level) -> value of a column of the table, or of its columns per level; missing ones not."""
    per_level = level_columns(table.names).get(variable, {})
    found = {}
    for row in table.rows:
        for level in LUMBAR_LEVELS:
            text = row.get(variable if variable in table.names else per_level.get(level, ""), "")
            if not is_missing(text):
                found[row["participant_id"], level] = cell_value(text)
    return found


def groups_by(table: Table, text: str) -> dict[str, set[Disc]]:
    """Return the discs of each group: of each value of a column, or those for which a rule holds and the others.

    Raises
    ------
    DesignError
        If there is no such column, an order is asked of words, or there are fewer than two groups, or too many.
    """
    column, *rule = parse_rule(text) if is_rule(text) else (text,)
    values = values_by_level(table, column)
    if not values:
        raise DesignError(f"Groups: '{column}' is not a column of participants.tsv, or it has no value; columns are "
                          f"{', '.join(table.names)}.", anchor="sensitivity")
    found: dict[str, set[Disc]] = {}
    names = [text, f"{column} {opposite(rule[0])} {rule[1]}"] if rule else [
        f"{column} {_text(v)}" for v in sorted(set(values.values()), key=lambda v: (isinstance(v, str), v))]
    for disc, value in values.items():
        name = names[not holds(str(value), rule[0], rule[1], column)] if rule else f"{column} {_text(value)}"
        found.setdefault(name, set()).add(disc)
    if not 2 <= len(found) <= MOST:
        raise DesignError(f"Groups: '{text}' makes {len(found)}; 2 to {MOST} can be compared: write a rule such as "
                          f"'{column} <= 40', or another column.", anchor="sensitivity")
    return {name: found[name] for name in names if name in found}


def _text(value) -> str:
    """Return a value as people write it: 2, not 2.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
