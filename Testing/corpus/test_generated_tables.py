"""Generated tables and formulas: right numbers, or a sentence of the project, or a note of what was left out."""

import math

import numpy as np
import patsy
import pytest

from corpus.common import generated
from corpus.made_studies import PEOPLE, atlas_and_maps, write_table
from corpus.made_tables import MISSING, Model, Written, id_columns, models, written_tables
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Image
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import read_tsv
from DiscStatsLib.analysis import analyze
from DiscStatsLib.design import rows_of, to_frame
from DiscStudyLib.folder import Study, make_settings, validate

LEVELS = ("L4-L5", "L5-S1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@generated(written_tables(), 150, 800)
def test_tables_are_read_as_they_were_meant(written: Written, folder) -> bool:
    path = folder / "table.tsv"
    path.write_bytes(written.raw())
    reason = written.refused()
    try:
        table = read_tsv(path, required=["participant_id"])
    except DesignError as error:
        assert reason and reason in error.message, error
        return False
    assert reason in ("", "."), f"read, though {reason}"
    assert table.names == written.names and table.lines == written.lines()
    frame = to_frame(table)
    assert list(frame["participant_id"]) == [row[0] for row in written.rows]
    for column, name in enumerate(written.names[1:], start=1):
        for value, expected in zip(frame[name], written.values(column), strict=True):
            assert value == expected or (expected is None and (value is None or math.isnan(value)))
    return True


@generated(id_columns(PEOPLE), 50, 400)
def test_ids_that_match_nobody_are_named(ids: list[str], people) -> bool:
    rows = [f"{id}\t{30 + n * n % 11}" for n, id in enumerate(ids)]
    write_table(people, "\n".join(["participant_id\tage", *rows]))
    found = [str(f) for f in validate(Study(people), make_settings(formula="age"), read_images=False)]
    ids, folders = [id.strip() for id in ids], [f"sub-{n:02d}" for n in range(1, PEOPLE + 1)]
    for line, id in enumerate(ids, start=2):
        if id not in folders or ids.count(id) > 1:
            assert any(str(line) in f and (id in MISSING or id in f) for f in found), (line, id, found)
    for absent in set(folders) - set(ids):
        assert any(absent in f for f in found), (absent, found)
    assert sorted(ids) != folders or not found
    return not any(f.startswith("error") for f in found)


@generated(models(PEOPLE), 100, 800)
def test_what_validation_accepts_runs_and_what_it_refuses_does_not(model: Model, people) -> bool:
    write_table(people, "\n".join("\t".join(row) for row in [list(model.columns), *zip(*model.columns.values())]))
    labels, maps = atlas_and_maps()
    try:
        settings = make_settings(formula=model.formula, levels=LEVELS, permutations=100)
        found = validate(Study(people), settings, read_images=False)
    except DesignError as error:
        pytest.fail(f"validate raises {error}")
    refused = [str(f) for f in found if f.severity == "error"]
    try:
        done = analyze(maps, labels, rows_of(to_frame(Study(people).participants), model.columns["participant_id"]),
                       f"map ~ {settings.model.terms}", settings.tested, settings.statistics(), levels=list(LEVELS))
    except DesignError as error:
        assert refused, f"validate accepts {model.formula}, which cannot be run: {error}"
        return False
    assert not refused, f"validate refuses {model.formula}, which runs: {refused}"
    check_numbers(model, done, labels, maps, [str(f) for f in found])
    return True


def check_numbers(model: Model, done, labels: Image, maps: list[Image], found: list[str]) -> None:
    """Compare each level with a least-squares fit of patsy's own matrix of the people who have all values."""
    (contrast,) = done.contrasts
    data = np.array([m.array for m in maps])
    for level in LEVELS:
        matrix = model.matrix(level.replace("-", ""))
        value = disc_value(level)
        if value not in done.designs:
            assert matrix is None and any(level in said for said in done.warnings) and any(level in f for f in found)
            continue
        kept = model.frame(level.replace("-", "")).index
        assert matrix is not None, level
        assert len(matrix) == len(kept) == done.designs[value].n, level
        said = " ".join([*done.warnings, *found])
        unsaid = [p for n, p in enumerate(model.columns["participant_id"]) if n not in kept and p not in said]
        assert not unsaid, f"{unsaid} are left out at {level}, of which is said: {said}"
        where = labels.array == value
        expected = f_of_term(matrix, first_term(model.formula, matrix), data[kept][:, where])
        got = next(m.array[where] for name, m in done.maps.items() if name.endswith(f"{contrast.name}_{contrast.kind}"))
        np.testing.assert_allclose(got ** (2 if contrast.kind == "t" else 1), expected, rtol=1e-4)


def first_term(formula: str, matrix) -> slice:
    """Return the columns of the first term, as it is written, but the intercept."""
    terms = [t.name() for t in patsy.ModelDesc.from_formula(formula.rpartition("~")[2]).rhs_termlist]
    name = next((t for t in terms if t != "Intercept"), "Intercept")
    return matrix.design_info.term_name_slices[name]


def f_of_term(matrix, columns: slice, data: np.ndarray) -> np.ndarray:
    """Return F of the hypothesis that the coefficients of some columns are zero, from two residual sums of squares."""
    full = np.asarray(matrix)
    less = np.delete(full, np.arange(full.shape[1])[columns], axis=1)
    residual = [((data - x @ np.linalg.lstsq(x, data, rcond=None)[0]) ** 2).sum(axis=0) if x.size else
                (data ** 2).sum(axis=0) for x in (full, less)]
    df = full.shape[1] - less.shape[1], len(full) - full.shape[1]
    return (residual[1] - residual[0]) / df[0] / (residual[0] / df[1])
