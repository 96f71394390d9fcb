"""Measures of discs as variables of a study's formula: each level's own, without a column in the participants table."""

import numpy as np
import pytest
from support.cohort_phantom import make_spine_study

from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.tables import Column, Table, read_tsv
from DiscStudyLib import Study, make_settings, run_study
from DiscStudyLib.engine import GroupContext, participants_of, read_rows
from DiscStudyLib.engine.reviewed import step_record
from DiscStudyLib.folder import validate

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
SETTINGS = {"levels": ("L4-L5", "L5-S1"), "permutations": 100}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = make_spine_study(tmp_path_factory.mktemp("measures"), [(g, g, 0) for g in (1, 2, 3, 4, 5, 2)])
    for n in range(1, 7):  # discs of different heights
        path = root / f"sub-0{n}/anat/sub-0{n}_dseg.nii.gz"
        labels = read_image(path)
        write_image(labels.like(lower(labels.array, n % 4)), path)
    run_study(root, "nT2w ~ height_index", **SETTINGS)
    return root


def lower(array, layers):
    """Take layers off the discs, across their least extent."""
    array = array.copy()
    for value in np.unique(array[(array >= 11) & (array < 30)]):
        where = np.argwhere(array == value)
        axis = int(np.ptp(where, axis=0).argmin())
        array[tuple(where[where[:, axis] < where[:, axis].min() + layers].T)] = 0
    return array


def table_of(study, formula):
    found = Study(study)
    settings = make_settings(formula=formula, **SETTINGS)
    everyone = {p.id: {"measure": step_record(found, p.id, "measure")} for p in found.people}
    return participants_of(GroupContext(found, settings, {}, everyone))


def test_each_level_has_its_own_measure(study):
    rows = read_rows(study / "derivatives/disc-relaxometry/group/discs.tsv").rows
    table = table_of(study, "nT2w ~ height_index + canal_diameter")
    for row in table.rows:
        for level in SETTINGS["levels"]:
            (own,) = [r for r in rows if (r["participant_id"], r["level"]) == (row["participant_id"], level)]
            assert row[f"height_index_{level.replace('-', '')}"] == own["height_index"] > 0.1
    assert "canal_diameter_L4L5" in table.names and "ap_diameter_L4L5" not in table.names
    assert table_of(study, "nT2w ~ age").names == read_tsv(study / "participants.tsv").names


def test_the_analysis_and_the_models_use_it(study):
    group = study / "derivatives/disc-relaxometry/group"
    assert list(group.glob("analysis-main/*height_index*"))
    assert {r["term"] for r in read_rows(group / "mixed_models.tsv").rows} == {"height_index"}


def test_a_column_of_the_table_comes_first(study, tmp_path):
    own = study / "participants.tsv"
    before = own.read_text(encoding="utf-8")
    table = read_tsv(own)
    for n, row in enumerate(table.rows):
        row["height_index_L4L5"] = 5.0 + n
    try:
        Table("participants", [*table.columns, Column("height_index_L4L5")], table.rows).write(own)
        found = table_of(study, "nT2w ~ height_index")
        assert [float(v) for v in found["height_index_L4L5"]] == [5.0 + n for n in range(6)]
        assert "height_index_L5S1" not in found.names
    finally:
        own.write_text(before, encoding="utf-8")


def test_validate_knows_measures_and_no_misspelled_ones(study):
    def errors(formula):
        settings = make_settings(formula=formula, **SETTINGS)
        return [f for f in validate(Study(study), settings, read_images=False) if f.severity == "error"]

    assert not errors("nT2w ~ height_index + C(sex)")
    assert any("heigth_index" in f.problem for f in errors("nT2w ~ heigth_index"))


def test_measures_are_numbers(study):
    table = table_of(study, "nT2w ~ canal_diameter")
    assert all(isinstance(v, float) and np.isfinite(v) for v in table["canal_diameter_L4L5"])
