"""Visits: the BIDS sessions of a study as observations of their participants, and what their tables say of them."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.tables import Column, Table, is_missing, number_key, read_tsv, to_number

#: The session that stands for all of them.
EVERY = "all"
#: Columns that the expanded table adds: whose visit a row is, which one, and when.
OWNER, SESSION, YEARS = "participant", "session", "years"
_DAYS = 365.25


def sessions_of(folder: Path) -> list[str]:
    """Return the names of a participant's sessions, ``ses-2`` before ``ses-10``; one empty name for none."""
    return sorted((f.name for f in folder.glob("ses-*") if f.is_dir()), key=number_key) or [""]


def visit_id(participant: str, session: str) -> str:
    """Return the id of a visit, as BIDS begins its file names: ``sub-01_ses-02``."""
    return f"{participant}_{session}" if session else participant


def sessions_table(folder: Path) -> Path:
    """Return where BIDS keeps what differs between the visits of a participant."""
    return folder / f"{folder.name}_sessions.tsv"


def visit_table(participants: Table, root: Path) -> Table:
    """Return one row per visit: the participant's row, over it that of ``sub-XX_sessions.tsv``, and ``years``.

    Years count from the first visit, by ``acq_time`` (ISO dates), else by ``age``. StudyError for a date that cannot
    be read, a session that stands twice, or an age among them that is not a number.
    """
    rows, lines, names, notes = [], [], list(participants.names), list(participants.notes)
    for line, row in zip(participants.lines, participants.rows):
        folder = root / row["participant_id"]
        own = _own_rows(sessions_table(folder), notes)
        visits = [{**row, **own.get(session, {}), OWNER: row["participant_id"], SESSION: session,
                   "participant_id": visit_id(row["participant_id"], session)} for session in sessions_of(folder)]
        timed = own if any(not is_missing(str(v.get("acq_time", ""))) for v in own.values()) else {}
        _add_years(visits, "acq_time" if timed else "age" if any("age" in v for v in own.values()) else "")
        rows += visits
        lines += [line] * len(visits)
        names += [n for v in visits for n in v if n not in names]
    return Table(participants.name, [Column(n) for n in dict.fromkeys(names)],
                 [{n: r.get(n, "") for n in dict.fromkeys(names)} for r in rows], lines, notes)


def _own_rows(path: Path, notes: list[str]) -> dict[str, dict]:
    if not path.exists():
        return {}
    found: dict[str, dict] = {}
    table = read_tsv(path, required=("session_id",))
    notes += table.notes
    for row in table.rows:
        session = row.pop("session_id")
        session = session if session.startswith("ses-") else f"ses-{session}"
        if session in found:
            raise StudyError(f"'{path.name}' has {session} twice: keep one row per session.", anchor="study-visits")
        found[session] = row
    return found


def _add_years(visits: list[dict], by: str) -> None:
    times = [None if not by or is_missing(str(v.get(by, ""))) else _time(v, by) for v in visits]
    first = min((t for t in times if t is not None), default=0.0)
    for visit, time in zip(visits, times):
        if by and YEARS not in visit:
            visit[YEARS] = "n/a" if time is None else f"{time - first:.6g}"


def _time(visit: dict, by: str) -> float:
    """Return a time in years."""
    text = str(visit[by]).strip()
    if by == "age":
        number = to_number(text)
        if number is None:
            raise StudyError(f"The age '{text}' of {visit['participant_id']} is not a number: correct its sessions "
                             "table.", anchor="study-visits")
        return number
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None).toordinal() / _DAYS
    except ValueError:
        raise StudyError(f"The date '{text}' of {visit['participant_id']} (acq_time) cannot be read: write it as "
                         "2026-03-31, or n/a.", anchor="study-visits") from None


def first_and_last(table) -> tuple[list[tuple], object, list[str]]:
    """Pair each participant's first visit with the last, in time where all of a participant's are dated, else by name.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per visit.

    Returns
    -------
    pairs : list of (Series, Series)
    people : pandas.DataFrame
        The rows of the first visits, as rows of their participants: without the session and its years.
    remarks : list of str
        Who has no change, and whose visits have another order in time than by name.
    """
    import pandas

    pairs, rows, remarks = [], [], []
    for owner, visits in table.groupby(OWNER, sort=False):
        visits = visits.sort_values(SESSION, key=lambda names: names.map(lambda n: tuple(number_key(n))))
        if len(visits) < 2:
            remarks.append(f"{owner} has one visit with maps and no change.")
            continue
        years = pandas.to_numeric(visits[YEARS], errors="coerce").to_numpy() if YEARS in visits else np.full(2, np.nan)
        if np.isfinite(years).all():
            visits = visits.iloc[np.argsort(years, kind="stable")]
            if (np.diff(years) < 0).any():
                remarks.append(f"{owner}: the visits are taken in the order of their dates "
                               f"({', '.join(visits[SESSION])}), which is not that of their names.")
        pairs.append((visits.iloc[0], visits.iloc[-1]))
        rows.append(visits.iloc[0].to_dict() | {"participant_id": owner})
    return pairs, type(table)(rows, columns=[c for c in table.columns if c not in (SESSION, YEARS)]), remarks


def remarks_of(table: Table, folders: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (participant, problem, remedy) of single visits and of scanners that change between visits."""
    found, by = [], {}
    for row in table.rows:
        if row["participant_id"] in folders:
            by.setdefault(row[OWNER], []).append(row)
    for owner, rows in by.items():
        if len(rows) == 1:
            found.append((owner, f"There is one visit ({rows[0][SESSION] or 'no session folder'}).",
                          "Change and tests within participants do not use it."))
        for name in ("scanner", "site", "vendor", "field_T"):
            values = list(dict.fromkeys(r.get(name, "") for r in rows if not is_missing(r.get(name, ""))))
            if len(values) > 1:
                found.append((owner, f"The visits differ in {name} ({', '.join(values)}).",
                              f"A change may be the scanner's: add C({name}) to the formula, or compare within one."))
    return found
