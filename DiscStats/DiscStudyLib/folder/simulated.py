"""Label results of simulated studies, so that no table or map can pass for a measurement of people."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from DiscRelaxometryLib.atomic import write_json, write_text
from DiscRelaxometryLib.echo import stem

from .study import IMAGE_SUFFIXES

LABEL = {"Simulated": True, "Notice": "SIMULATED data: no measurement of a person."}
#: Column that tables of simulated studies carry.
COLUMN = "data"


def label_results(outputs: Sequence[Path]) -> list[Path]:
    """Add the label to tables (a column) and to JSON sidecars, which are made where an image has none.

    Parameters
    ----------
    outputs : sequence of Path
        Results of a step.

    Returns
    -------
    list of Path
        The outputs, and the sidecars that were made.
    """
    found = list(dict.fromkeys(Path(p) for p in outputs))
    for path in list(found):
        if path.suffix == ".tsv":
            _label_table(path)
        elif path.name.endswith(IMAGE_SUFFIXES):
            sidecar = path.with_name(stem(path) + ".json")
            if sidecar not in found:
                write_json(sidecar, LABEL)
                found.append(sidecar)
    for path in found:
        if path.suffix == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, dict) and not data.get("Simulated"):
                write_json(path, {**data, **LABEL})
    return found


def _label_table(path: Path) -> None:
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    if not rows or COLUMN in rows[0]:
        return
    lines = [[*rows[0], COLUMN], *([*row, "SIMULATED"] for row in rows[1:])]
    write_text(path, "".join("\t".join(line) + "\n" for line in lines))
