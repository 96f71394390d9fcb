"""Checks of the participants table, and of formula, contrast and rule against it, for ``validate``."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from DiscRelaxometryLib.errors import DesignError, StudyError
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED
from DiscRelaxometryLib.tables import Table, is_missing, to_number

from .finding import Finding
from .groups import groups_by
from .rules import people_by_rule
from .settings import MAPS, Settings
from .study import TABLE, Study, level_columns, long_frame
from .visits import first_and_last, remarks_of

_COMMA = re.compile(r"[+-]?\d+,\d+")
#: Words and numbers that other programs write where a value is missing; here they are values.
_NO_VALUE = ("", "na", "n/a", "n.a", "nan", "nat", "null", "none", "nil", "missing", "unknown")
_CODES = (-9, -88, -99, -888, -999, -9999, 88, 99, 888, 999, 9999, 99999)


def check_participants(study: Study, settings: Settings) -> Iterator[Finding]:
    """Check table, formula, contrast and rule, and build what will be fitted."""
    if not (study.root / TABLE).exists():
        yield Finding("error" if settings.formula else "warning", TABLE, "", "The participants table does not exist.",
                      "Write a tab-separated table with the column 'participant_id' and one row per participant.")
        return
    try:
        table = study.participants
    except (DesignError, StudyError) as error:
        yield Finding("error", TABLE, "", error.message, "Correct the table.")
        return
    if study.visits:
        for who, problem, remedy in remarks_of(table, [p.id for p in study.people]):
            yield Finding("note", "", who, problem, remedy)
    yield from (Finding("warning", "", "", note, "It is read all the same; other BIDS programs want tabs and "
                        "decimal points.") for note in table.notes)
    yield from _check_ids(study, table)
    try:
        model = settings.model
    except DesignError as error:
        yield Finding("error", "", "", error.message, "Correct the formula.")
        return
    if settings.groups:
        try:
            groups_by(table, settings.groups)
        except DesignError as error:
            yield Finding("error", TABLE, "", error.message, "Correct --groups.")
    found = [*_check_response(study, settings), *_check_values(study, table, settings)]
    yield from found
    # Estimated grades and measures are known only after the run.
    later = settings.estimated or settings.measured_besides(table.names)
    if model and not later and not any(f.severity == "error" for f in found):
        yield from _check_design(study, settings, table)


def _check_response(study: Study, settings: Settings) -> Iterator[Finding]:
    """Check the map that the formula names."""
    response = settings.model.response if settings.model else ""
    if response in ("", "map"):
        return
    has = {kind for p in study.people for kind in (*p.kinds, *(("nT2w",) if p.anatomical else ()))}
    if response not in MAPS:
        yield Finding("error", "", "", f"The formula explains '{response}', which is not a map.",
                      f"Write one of {', '.join(MAPS)} before '~', or nothing for all maps.")
    elif settings.maps and response not in settings.maps:
        yield Finding("error", "", "", f"The formula explains {response}, the maps to analyze are "
                      f"{', '.join(settings.maps)}.", "Name the map once.")
    elif study.people and response not in has:
        yield Finding("error", "", "", f"The formula explains {response}, of which nobody has a series.",
                      "Add the series, or correct the formula.")


def _check_design(study: Study, settings: Settings, table: Table) -> Iterator[Finding]:
    """Build every level's design and the contrast, of everyone and of those the sensitivity rule holds for."""
    from DiscStatsLib.design import (
        NotEstimable,
        build_contrasts,
        build_design,
        build_level_designs,
        require_sizes,
        rows_of,
        to_frame,
    )

    folders = {p.id for p in study.people}
    some = [p for p in table["participant_id"] if p in folders]
    where = ""
    try:
        groups = {"": some}
        if settings.sensitivity:
            kept = people_by_rule(table, settings.sensitivity)
            groups[f"With the rule '{settings.sensitivity}': "] = [p for p in some if p in kept]
        for where, people in groups.items():
            if settings.pooled and len(settings.levels) < 2:
                raise DesignError("A pooled analysis needs at least two levels.", anchor="design")
            if settings.variance_groups:
                named = Counter(row[settings.variance_groups] for row in table.rows if row["participant_id"] in people)
                sizes = {name: n for name, n in named.items() if not is_missing(name)}
                for remark in require_sizes(sizes, settings.variance_groups):
                    yield Finding("warning", TABLE, "", where + remark, "Merge groups that are alike.")
            if settings.pooled:
                discs = [{"participant_id": p, "level": level} for p in people for level in settings.levels]
                design = build_design(settings.pooled_model, long_frame(discs, table, settings.columns), missing="drop")
                build_contrasts(settings.tested, design)
                continue
            frame = rows_of(to_frame(table), people)
            if settings.change:
                frame = first_and_last(frame)[1]
            found = build_level_designs(settings.model, frame, settings.levels, settings.tested, missing="drop")
            for level, why in found.left_out.items():
                yield Finding("warning", TABLE, "", f"{where}{level} will be left out of the analysis: {why}",
                              "The other levels are analyzed.")
    except DesignError as error:
        # A trial with some of the participants may be too small for the model; their maps are made all the same.
        few = isinstance(error, NotEstimable) and study.only
        yield Finding("warning" if few else "error", TABLE, "", where + error.message,
                      "Correct the formula, the contrast or the table, or choose levels with --levels.")


def _check_ids(study: Study, table: Table) -> Iterator[Finding]:
    ids = table["participant_id"]
    folders = {p.id for p in study.people}
    alike = {_id_key(f): f for f in folders}
    lines: dict[str, list[int]] = {}
    for number, id in zip(table.lines, ids):
        lines.setdefault(id, []).append(number)
    for id, where in lines.items():
        folder, line = alike.get(_id_key(id), ""), f"Line {where[0]}: "
        if is_missing(id):
            yield Finding("error", TABLE, "", f"Line {' and '.join(map(str, where))}: there is no participant_id.",
                          "Fill the cell, or remove the row.")
        elif len(where) > 1:
            yield Finding("error", TABLE, "", f"'{id}' has {len(where)} rows (lines {' and '.join(map(str, where))}).",
                          "Keep one row per participant.")
        elif id not in folders and folder and folder not in ids:
            yield Finding("error", TABLE, folder, f"{line}the id is written '{id}'.",
                          f"Write '{folder}', as the folder is named.")
        elif id not in folders and not study.only:
            yield Finding("warning", TABLE, id, line + "the person has a row but no folder.",
                          "Add the images, or remove the row; the person is left out.")
    keys = {_id_key(i) for i in ids}
    for id in sorted(f for f in folders if _id_key(f) not in keys):
        yield Finding("warning", TABLE, id, "The person has a folder but no row.",
                      "Add a row; without it the person has maps but is left out of the statistics.")


def _id_key(id: str) -> str:
    """Return what ids share that a spreadsheet or a typist wrote otherwise: sub-01, 01, 1, 1.0, SUB_01."""
    bare = re.sub(r"^sub[-_ \u2010-\u2015\u2212]*", "", id.strip().lower())
    number = to_number(bare)
    return bare if number is None else f"{number:g}"


def _check_values(study: Study, table: Table, settings: Settings) -> Iterator[Finding]:
    measured = settings.measured_besides(table.names)
    variables = [v for v in settings.columns if v not in measured]
    levels = level_columns(table.names)
    folders = {p.id for p in study.people}
    for variable in variables:
        columns = [variable] if variable in table.names else list(levels.get(variable, {}).values())
        if variable in (ESTIMATED, EXPECTED):
            if columns:
                yield Finding("error", TABLE, "", f"The table has a column '{columns[0]}', a name kept for the grades "
                              "that the program estimates.", "Rename the column.")
            elif not any(p.anatomical for p in study.people):
                yield Finding("error", TABLE, "", f"'{variable}' needs T2-weighted images, which nobody has.",
                              "Add them, or a reader's grades.")
            continue
        if not columns:
            hint = f" Without a reader's grades, '{ESTIMATED}' is the program's estimate." * (variable == "pfirrmann")
            yield Finding("error", TABLE, "", f"The model's variable '{variable}' is not a column.",
                          f"Columns are {', '.join(table.names)}; correct the formula or add the column.{hint}")
        for column in columns:
            yield from _check_column(table, column, folders)
    for column in table.names:
        if column not in variables and any(map(_COMMA.fullmatch, table[column])):
            yield Finding("warning", TABLE, "", f"Column '{column}' has commas in numbers.",
                          "Use decimal points; the column cannot be used as a number.")


def _check_column(table: Table, column: str, folders: set[str]) -> Iterator[Finding]:
    cells = [(line, row["participant_id"], row[column]) for line, row in zip(table.lines, table.rows)
             if row["participant_id"] in folders]
    numbers = sum(to_number(text) is not None for _, _, text in cells)
    empty = [person for _, person, text in cells if is_missing(text)]
    commas = [cell for cell in cells if _COMMA.fullmatch(cell[2])]
    words = [cell for cell in cells if numbers > len(cells) / 2 and to_number(cell[2]) is None
             and not is_missing(cell[2]) and cell not in commas]
    if empty:
        yield Finding("warning", TABLE, "", f"Column '{column}' is empty for {len(empty)} of {len(cells)} "
                      f"participants: {_first(empty)}.", "They are left out of the analyses that need it.")
    if commas:
        text = commas[0][2]
        yield Finding("error", TABLE, "", f"{_place(commas, column)}: the comma of '{text}' may stand for decimals or "
                      "thousands.", f"Write '{text.replace(',', '.')}' or '{text.replace(',', '')}'.")
    if words:
        yield Finding("error", TABLE, "", f"{_place(words, column)}: '{words[0][2]}' is not a number, but most other "
                      "cells are.", "Correct it, or write 'n/a'.")
    odd = {text for _, _, text in cells if not is_missing(text) and text.lower().strip("#.-?<>") in _NO_VALUE}
    for word in sorted(odd if numbers <= len(cells) / 2 else ()):
        yield Finding("warning", TABLE, "", f"Column '{column}': '{word}' is a group of its own.",
                      "Write 'n/a' if it means that the value is missing.")
    for number in _codes([to_number(text) for _, _, text in cells]):
        yield Finding("warning", TABLE, "", f"Column '{column}': {number:g} is used as a number.",
                      "Write 'n/a' if it is a code for a missing value.")


def _first(names: Sequence[str]) -> str:
    """List up to five names, and count the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _place(cells: Sequence[tuple[int, str, str]], column: str) -> str:
    """Say where cells (line, participant, text) of a column stand."""
    return f"Column '{column}', " + _first([f"line {line} ({person})" for line, person, _ in cells])


def _codes(numbers: Sequence[float | None]) -> list[float]:
    """Return numbers that look like codes of a missing value: 999 far above the others, -9 where none is negative."""
    found = {n for n in numbers if n in _CODES}
    others = [n for n in numbers if n is not None and n not in found]
    if not others:
        return []
    low, high = min(others), max(others)
    return sorted(n for n in found if n > high + max(high - low, 1) or n < 0 <= low)
