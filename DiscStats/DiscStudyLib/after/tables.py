"""Tables of a finished study: mixed models of discs and regions, and agreement of two measurements."""

from collections.abc import Sequence
from pathlib import Path

from DiscRelaxometryLib.atomic import check_folder
from DiscRelaxometryLib.errors import DesignError, StudyError
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED
from DiscRelaxometryLib.tables import Column, Table, read_tsv

from ..engine import read_rows, with_estimates
from ..folder import COLUMN, Study, label_results, long_frame

#: Columns that name a row of the tables of discs and regions.
KEYS = ("participant_id", "level", "region", "map")


def group_rows(path: Path, **equal: str) -> list[dict]:
    """Return rows of a group table whose named columns hold the given text; cells that are numbers become float."""
    if not path.exists():
        raise StudyError(f"The study has no '{path.name}': run it first, with maps.", anchor="study-run")
    rows = read_rows(path).rows
    for name, value in equal.items():
        if value and rows and name not in rows[0]:
            raise StudyError(f"'{path.name}' has no column '{name}'.", anchor="participants-table")
        kept = [r for r in rows if not value or str(r[name]) == value]
        if not kept:
            known = ", ".join(dict.fromkeys(str(r[name]) for r in rows))
            raise StudyError(f"'{path.name}' has no row with {name} '{value}'; there are {known}.",
                             anchor="participants-table")
        rows = kept
    return rows


def mixed_model(path, formula: str, *, map: str = "", region: str = "whole", table: str = "regions", slope: str = "",
                name: str = "main", output=None, session: str = ""):
    """Fit a mixed model (random person) to a group table of a study, and write it.

    Parameters
    ----------
    path : path
        Study that was run.
    formula : str
        Such as ``mean ~ pfirrmann + C(level) + age + C(sex)``; variables come from the table and participants.tsv.
    map, region : str
        Rows to use of the table of regions; empty for all.
    table : {"regions", "discs"}
    slope : str
        Variable whose effect varies between people too.
    name : str
        Name of the result: ``group/mixed-NAME_fixed.tsv`` and ``..._variances.tsv``.

    Returns
    -------
    fit : MixedFit
    paths : list of Path

    Raises
    ------
    StudyError, DesignError
        See :func:`DiscStatsLib.tables.mixed.fit_mixed`.
    """
    from DiscStatsLib.design import parse_formula
    from DiscStatsLib.tables import fit_mixed

    study = Study(Path(path), session, output)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise StudyError(f"Name '{name}': use letters, digits, - and _ only.")
    check_folder(study.output / "group")
    wanted = {"map": map, "region": region} if table == "regions" else {}
    rows = group_rows(study.output / "group" / f"{table}.tsv", **wanted)
    if table == "regions" and not map and len({r["map"] for r in rows}) > 1:
        maps = ", ".join(dict.fromkeys(r["map"] for r in rows))
        raise StudyError(f"The table holds several maps ({maps}): choose one with --map.", anchor="mixed")
    parsed = parse_formula(formula)
    names = [*parsed.names, *([slope] if slope else [])]
    grades = study.output / "group" / "grades.tsv"
    estimates = read_rows(grades).rows if grades.exists() else []
    frame = long_frame(rows, with_estimates(study.participants, names, estimates), names)
    fit = fit_mixed(frame, formula, slope=slope or None, missing="drop")
    fit.notes.extend(f"'{n}' is a network's estimate, not a reader's grade."
                     for n in names if n in (ESTIMATED, EXPECTED))
    return fit, _write(study, {f"mixed-{name}_fixed": fit.fixed, f"mixed-{name}_variances": fit.variances})


def _write(study: Study, tables: dict[str, Table]) -> list[Path]:
    written = []
    for name, table in tables.items():
        path = table.write(study.output / "group" / f"{name}.tsv")
        written += [path, path.with_suffix(".json")]
    return label_results(written) if study.simulated else written


def compare_tables(first, second, value: str, on: Sequence[str] = (), unit: str = "",
                   **equal: str) -> tuple[Table, list[str]]:
    """Return agreement (bias, limits, concordance, ICC) of one column of two tables, and unmatched rows.

    Parameters
    ----------
    first, second : path or Table
        Of two methods, raters, or sessions.
    value : str
        Column to compare.
    on : sequence of str
        Columns that name a row; by default those of ``participant_id``, ``level``, ``region``, ``map`` that both have.
    unit : str
        Unit of the column; by default that of the first table's sidecar.
    **equal : str
        Rows to use, such as ``region="nucleus"``.

    Raises
    ------
    DesignError
        If there is nothing to pair.
    """
    from DiscStatsLib.tables import agreement_table, pair_tables

    tables = [t if isinstance(t, Table) else read_tsv(t, required=(value,), numeric=(value,)) for t in (first, second)]
    on = tuple(on) or tuple(k for k in KEYS if all(k in t.names for t in tables))
    if not on:
        raise DesignError(f"The tables share none of the columns {', '.join(KEYS)}: say with --on which columns name a "
                          "row.", anchor="agreement")
    chosen = [t.select(**{k: v for k, v in equal.items() if v}) for t in tables]
    one, two, unmatched = pair_tables(chosen[0], chosen[1], on, value)
    result = agreement_table(one, two, unit or _unit(first, value, chosen[0]))
    result.notes += dict.fromkeys(note for t in tables for note in t.notes)
    if any(COLUMN in t.names for t in tables):  # of a simulated study
        result.columns.append(Column(COLUMN))
        result.rows = [{**row, COLUMN: "SIMULATED"} for row in result.rows]
    return result, unmatched


def _unit(source, column: str, table: Table) -> str:
    """Return a column's unit: of the table or its sidecar, or of the rows' own column ``unit`` where they agree."""
    import json

    described = next((c.unit for c in table.columns if c.name == column), "")
    if not isinstance(source, Table) and Path(source).with_suffix(".json").exists():
        entry = json.loads(Path(source).with_suffix(".json").read_text(encoding="utf-8")).get(column, {})
        described = entry.get("Units", "")
    if described:
        return described
    units = {r.get("unit") for r in table.rows} - {None, ""}
    return str(units.pop()) if len(units) == 1 else ""
