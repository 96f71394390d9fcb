"""What earlier steps wrote, found again: labels, maps, atlas and tables of results."""

import functools
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from DiscRelaxometryLib.echo import KINDS
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.grades import ESTIMATED, EXPECTED
from DiscRelaxometryLib.image import Image, read_image
from DiscRelaxometryLib.resources import resource_path
from DiscRelaxometryLib.tables import Column, Table, cell_value, read_tsv

from ..folder import MAPS, Person, Series, Study
from . import endings
from .context import Context, GroupContext, PersonContext
from .reviewed import step_record

#: What the name of a sensitivity analysis ends with.
SENSITIVITY = "-sensitivity"
#: Tables of people that are joined: name of the group's table -> (step, ending of the person's file).
JOINED = {"discs": ("measure", endings.MEASURES), "vertebrae": ("measure", endings.VERTEBRAE),
          "regions": ("measure", endings.REGIONS),
          "registration": ("atlas", endings.REGISTRATION),
          "agreement": ("score", endings.AGREEMENT), "grades": ("grade", endings.GRADES)}
#: Steps that give maps of relaxation times and the discs on their grid.
MAP_STEPS = tuple(f"{a}-{k}" for k in KINDS for a in ("maps", "carry"))
_TEXT = ("participant_id", "level", "region", "map", "unit", "flags", "label", "status", "backend", "notes", "name",
         "term", "data", "statement")


def read_rows(path: Path) -> Table:
    """Read a table of results; all cells that are numbers become float."""
    table = read_tsv(path)
    for row in table.rows:
        for name, text in row.items():
            if name not in _TEXT:
                row[name] = cell_value(text)
    return table


def group_rows(context: GroupContext, name: str) -> list[dict]:
    """Return the rows of a table of everyone's :data:`JOINED` files; none where nobody has such a file."""
    path = context.output_of("tables", f"{name}.tsv")
    return read_rows(path).rows if path else []


def with_estimates(participants: Table, names: Sequence[str], rows: Sequence[dict]) -> Table:
    """Return the participants table with the estimated grades that a formula names, one column per level.

    Parameters
    ----------
    participants : Table
    names : sequence of str
        Variables of the formula; of these ``pfirrmann_estimated`` and ``pfirrmann_expected`` are added.
    rows : sequence of dict
        Of the table of grades.

    Raises
    ------
    DesignError
        If the table has such a column of its own: estimates are never mixed with what a reader wrote.
    """
    wanted = [name for name in (ESTIMATED, EXPECTED) if name in names]
    own = [n for n in participants.names if any(n == name or n.startswith(name + "_") for name in wanted)]
    if own:
        raise DesignError(f"participants.tsv has a column '{own[0]}', a name kept for estimated grades: rename it.",
                          anchor="grades")
    return _with_discs(participants, wanted, rows)


def _with_discs(participants: Table, names: Sequence[str], rows: Sequence[dict]) -> Table:
    """Return the participants table with columns of a table of discs, one per name and level."""
    given = {(name, r["participant_id"], r["level"]): r.get(name) for r in rows for name in names}
    levels = list(dict.fromkeys(r["level"] for r in rows))
    columns = {f"{name}_{level.replace('-', '')}": (name, level) for name in names for level in levels}
    return Table(participants.name, [*participants.columns, *map(Column, columns)],
                 [row | {c: given.get((name, row["participant_id"], level)) for c, (name, level) in columns.items()}
                  for row in participants.rows], participants.lines, participants.notes)


def participants_of(context: GroupContext) -> Table:
    """Return the participants table that a group step works with: with grades and measures where the formula asks.

    A column of the table itself comes before a measure of the same name.
    """
    def rows(name: str) -> list[dict]:
        files = [f for p in context.everyone if (f := context.of(p).output_of(*JOINED[name]))]
        return [row for file in files for row in read_rows(file).rows]

    table, settings = context.study.participants, context.settings
    if settings.estimated:
        table = with_estimates(table, settings.variables, rows("grades"))
    measured = settings.measured_besides(table.names)
    return _with_discs(table, measured, rows("discs")) if measured else table


def load_series(series: Series, kind: str):
    """Return the EchoSeries of `kind` from files."""
    from DiscRelaxometryLib.echo import read_echo_series, read_mapss

    source = series.files[0] if len(series.files) == 1 else list(series.files)
    if series.kind == "mapss":
        return read_mapss(source)[0 if kind == "T1rho" else 1]
    return read_echo_series(source, kind=kind)


def uses_existing(context: PersonContext) -> bool:
    """Say whether the person's own segmentation is used."""
    mode = context.settings.segmentation
    return mode == "existing" or (mode == "auto" and bool(context.person.labels))


def anatomical_image(person: Person) -> Image:
    """Return the T2-weighted volume, or the first echo of a series where there is none."""
    if person.anatomical:
        return read_image(person.anatomical[0])
    kind = person.kinds[0]
    return load_series(person.of_kind(kind), kind).echo(0)


def disc_labels(context: Context) -> Image:
    """Return the disc labels in use: as decided in review, else as segmented."""
    return read_image(context.output_of("review", endings.DECIDED) or context.needed("segment", endings.DISCS))


def echo_transform(context: Context, kind: str) -> sitk.Transform:
    """Return the rigid transform from points of an echo series to those of the anatomical volume."""
    return sitk.ReadTransform(str(context.needed(f"carry-{kind}", endings.TRANSFORM)))


def of_person(context: PersonContext, table: Table) -> Table:
    """Return a table of discs or regions with the person's id in the first column."""
    return Table(table.name, [Column("participant_id", "", "Person"), *table.columns],
                 [{"participant_id": context.name, **r} for r in table.rows])


def person_maps(context: Context) -> dict[str, tuple[Image, Image]]:
    """Return the person's maps: key -> (map, labels on its grid)."""
    found = {}
    path = context.output_of("normalize", endings.NORMALIZED)
    if path:
        found["nT2w"] = (read_image(path), disc_labels(context))
    for kind in KINDS:
        path = context.output_of(f"carry-{kind}", endings.carried(kind))
        if path:
            found[kind] = (read_image(context.needed(f"maps-{kind}", endings.relaxation_map(kind))), read_image(path))
    return found


def maps_in_atlas(context: GroupContext) -> dict[str, dict[str, Path]]:
    """Return map -> {person: file in atlas space}, for the maps of the settings that anyone has."""
    wanted = context.settings.maps or MAPS
    model = context.settings.model
    if model and model.response in MAPS:
        wanted = (model.response,)
    found = {key: {p: path for p in context.everyone
                   if (path := context.of(p).output_of("atlas", endings.in_atlas(key)))} for key in wanted}
    return {key: files for key, files in found.items() if files}


def context_atlas(context: Context):
    """Return the atlas in use: the study's own template where one was built, else the shipped one."""
    return _atlas_at(context.output_of("template", "atlas.json"))


def context_atlas_of(study: Study):
    """Return the atlas of a study that was run."""
    record = step_record(study, "", "template")
    return _atlas_at(next((study.absolute(n) for n in record.outputs if n.endswith("atlas.json")), None)
                     if record else None)


def _atlas_at(built: Path | None):
    provenance = built or shipped_atlas()
    return _atlas(provenance.parent if built else None, provenance.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _atlas(folder: Path | None, time_ns: int):
    """Return an atlas; it and the shapes of its discs are found once for everyone a process works on."""
    from DiscAtlasLib import load_atlas

    return load_atlas(folder)


def shipped_atlas() -> Path:
    """Return the description of the atlas that comes with the project."""
    return resource_path("Atlas", "DiscAtlasLib") / "atlas.json"
