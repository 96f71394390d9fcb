"""Tables of participants, discs or regions as data frames: one reader, one meaning of a missing cell."""

import os
from collections.abc import Iterable

import numpy as np

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Table, is_missing, number_key, read_tsv, to_number, typed

ID = "participant_id"


def to_frame(table: Table):
    """Return a table as pandas.DataFrame: None or NaN where a cell is missing, columns of numbers as numbers.

    Ids stay text, so that ``01`` is not 1. The table's notes are in ``attrs["notes"]``; a design repeats them.
    """
    import pandas

    columns = {}
    for name in table.names:
        cells = table[name]
        values = [None if is_missing(c) else str(c).strip() for c in cells] if name == ID else typed(cells)
        whole = values and all(isinstance(v, float) and v.is_integer() and abs(v) < 2**53 for v in values)
        columns[name] = pandas.Series([int(v) for v in values if v is not None] if whole else values,
                                      dtype=None if any(isinstance(v, (int, float)) for v in values) else object)
    frame = pandas.DataFrame(columns)
    frame.attrs["notes"] = list(table.notes)
    return frame


def read_participants(source: str | os.PathLike | Table):
    """Return a participants table (TSV file or Table) as pandas.DataFrame; a DataFrame is returned as it is."""
    if hasattr(source, "columns") and not isinstance(source, Table):
        return source
    return to_frame(source if isinstance(source, Table) else read_tsv(source))


def id_order(ids: Iterable[str]) -> np.ndarray:
    """Return the rows in the order of their ids, ``sub-2`` before ``sub-10``; rows of one person stay in order."""
    keys = [number_key(i) for i in ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def rows_of(frame, people: Iterable[str]):
    """Return the rows of `people`, in that order.

    Raises
    ------
    DesignError
        If someone has no row.
    """
    people = list(people)
    frame = frame.set_index(ID, drop=False).rename_axis(None)
    absent = [p for p in people if p not in frame.index]
    if absent:
        raise DesignError(f"No row in the participants table for {', '.join(absent)}.", anchor="participants-table")
    return frame.loc[people].reset_index(drop=True)


def require_moderate(values: np.ndarray, what: str) -> None:
    """Raise DesignError where the squares of numbers would overflow or vanish; `what` they are begins the sentence."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    if largest and not 1e-100 < largest < 1e100:
        raise DesignError(f"{what} has values up to {largest:.3g}, beyond what can be computed: correct it, or give it "
                          "in another unit.", anchor="participants-table")


def require_sizes(sizes: dict[str, int], column: str, where: str = "") -> list[str]:
    """Return what to say of small variance groups, from the number of observations of each.

    Raises
    ------
    DesignError
        If a group has one observation, which has no spread.
    """
    single = [name for name, size in sizes.items() if size == 1]
    if single:
        raise DesignError(f"Variance group '{single[0]}' of '{column}' has one observation{where}, which has no "
                          "spread: merge it with another group, or leave it out.", anchor="variance-groups")
    few = ", ".join(f"{name}: {size}" for name, size in sizes.items() if size < 5)
    return [f"Variance groups of '{column}' with few observations{where} ({few}): their spread is hardly known."
            ] if few else []


def numeric_columns(table, *names: str) -> list[np.ndarray]:
    """Return columns of a table as floats, or raise DesignError where one is not there or holds text."""
    found = []
    for name in names:
        if name not in table.columns:
            raise DesignError(f"The table has no column '{name}'; it has {', '.join(map(str, table.columns))}.",
                              anchor="participants-table")
        numbers = [np.nan if is_missing(c) else to_number(c) for c in table[name]]
        if None in numbers:
            raise DesignError(f"Column '{name}' holds '{table[name].iloc[numbers.index(None)]}' where a number is "
                              "needed.", anchor="participants-table")
        found.append(np.array(numbers, float))
        require_moderate(found[-1], f"Column '{name}'")
    return found
