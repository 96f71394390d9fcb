"""What is asked of a study that has run: exports, status, and tables, from what its files and tables say."""

import inspect
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from support.review_study import make_reviewable

import DiscStatsLib.tables
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib import Study
from DiscStudyLib.after import atlas_of, compare_tables, export, export_people, find_maps, mixed_model, status_table
from DiscStudyLib.engine import Record, StudyRun, endings, fingerprints, write_record
from DiscStudyLib.engine.steps import Outcome
from DiscStudyLib.folder import COLUMN

ECHOES = Geometry((5, 4, 3), (2.0, 2.0, 5.0), (1.0, 2.0, 3.0))


@pytest.fixture
def study(tmp_path):
    """A person with a T1rho map and its error on the grid of the echoes, and discs carried to it."""
    study = Study(make_reviewable(tmp_path / "study", 1))
    for step, name, value in (("maps-T1rho", endings.relaxation_map("T1rho"), 50),
                              ("maps-T1rho", "desc-SE_T1rhofit.nii.gz", 2),
                              ("carry-T1rho", endings.carried("T1rho"), 11)):
        path = write_image(Image(np.full(ECHOES.shape, value, np.float32 if value != 11 else np.uint8), ECHOES),
                           study.output / "sub-01/anat" / f"sub-01_{name}")
        record = study.output / "sub-01/prov" / f"sub-01_step-{step}_prov.json"
        outputs = fingerprints(sorted(path.parent.glob("*T1rho*")) if step != "carry-T1rho" else [path], study.relative)
        write_record(Record(step, "sub-01", "key", outputs=outputs), record)
    return study


def segmented(study, **facts) -> None:
    path = study.output / "sub-01/anat/sub-01_desc-discs_dseg.nii.gz"
    write_record(Record("segment", "sub-01", "key", outputs=fingerprints([path], study.relative), facts=facts),
                 study.output / "sub-01/prov/sub-01_step-segment_prov.json")


@pytest.mark.parametrize("facts, algorithm", [({"source": "cnn", "model": "lumbar 3"}, "DiscRelaxometry lumbar 3"),
                                              ({"source": "cnn"}, "DiscRelaxometry network"),
                                              ({"source": "existing", "model": "lumbar 3"}, None)])
@pytest.mark.parametrize("simulated", [False, True])
def test_each_grid_is_exported_with_its_own_maps_and_discs(study, tmp_path, monkeypatch, facts, algorithm, simulated):
    segmented(study, **facts)
    monkeypatch.setattr(Study, "simulated", simulated)
    calls, signature = {}, inspect.signature(export.export_study)

    def recorded(*args, **named):
        given = signature.bind(*args, **named).arguments
        calls[given["folder"].name] = given
        return [given["folder"]]

    monkeypatch.setattr(export, "export_study", recorded)
    export_people(study.root, tmp_path / "dicom")
    assert set(calls) == {"T2w", "T1rho"}
    for given in calls.values():
        assert (given["subject"], given["algorithm"], given["simulated"], given["source"]) == (
            "sub-01", algorithm, simulated, None)
        assert given["folder"].parent == tmp_path / "dicom/sub-01"
    maps, labels = calls["T1rho"]["maps"], calls["T1rho"]["labels"]
    assert {k: float(m.array[0, 0, 0]) for k, m in maps.items()} == {"T1rho": 50, "SE": 2}
    assert (labels.array == 11).all() and not labels.geometry.difference(ECHOES)
    own = read_image(study.output / "sub-01/anat/sub-01_desc-discs_dseg.nii.gz")
    np.testing.assert_array_equal(calls["T2w"]["labels"].array, own.array)
    assert set(calls["T2w"]["maps"]) == {"nT2w"}


def test_the_status_names_each_persons_steps_and_the_first_failure():
    run = StudyRun([Outcome("sub-02", "segment", "current"), Outcome("sub-02", "maps-T2", "failed", "no times"),
                    Outcome("sub-02", "carry-T2", "failed", "no map"), Outcome("sub-02", "atlas", "blocked"),
                    Outcome("sub-01", "segment", "done"), Outcome("sub-01", "atlas", "current"),
                    Outcome("", "tables", "pending"), Outcome("", "report", "pending")])
    table = status_table(run)
    assert table.rows == [
        {"participant": "sub-02", "done": 1, "failed": "maps-T2, carry-T2", "message": "maps-T2: no times",
         "blocked": "atlas"},
        {"participant": "sub-01", "done": 2}, {"participant": "group", "done": 0, "to do": "tables, report"}]
    assert table.names == ["participant", "done", "to do", "failed", "blocked", "message"]


def means(*values, unit="", **more):
    rows = [{"participant_id": f"sub-{n}", "age": 30 + n, "map": "T2", "mean": v, **more} for n, v in enumerate(values)]
    return Table("means", [Column("participant_id"), Column("age", "year"), Column("map"), Column("mean", unit),
                           *map(Column, more)], rows)


def test_rows_are_chosen_in_both_tables():
    first, second = means(1.0, 2, 4), means(2.0, 3, 6)
    for table, value in ((first, 100.0), (second, 900.0)):
        table.rows += [r | {"map": "T1rho", "mean": value} for r in table.rows]
    table, unmatched = compare_tables(first, second, "mean", on=("participant_id",), map="T2")
    assert next(r for r in table.rows if r["measure"] == "bias")["value"] == pytest.approx(-4 / 3) and not unmatched


def test_the_unit_is_that_of_the_compared_column():
    def unit(first):
        table, _ = compare_tables(first, means(2.0, 3, 6), "mean")
        return next(r for r in table.rows if r["measure"] == "bias")["unit"]

    assert unit(means(1.0, 2, 4, unit="ms")) == "ms" and unit(means(1.0, 2, 4)) == ""
    by_rows = means(1.0, 2, 4)
    for row, text in zip(by_rows.rows, ("cm3", "cm3", "")):
        row["unit"] = text
    assert unit(by_rows) == "cm3"
    by_rows.rows[0]["unit"] = "mm3"
    assert unit(by_rows) == ""


@pytest.mark.parametrize("simulated", [(True, False), (False, True)])
def test_agreement_with_a_simulated_table_says_so(simulated):
    first, second = (means(1.0, 2, n, **({COLUMN: "SIMULATED"} if is_simulated else {}))
                     for n, is_simulated in zip((4, 5), simulated))
    table, _ = compare_tables(first, second, "mean")
    assert {r[COLUMN] for r in table.rows} == {"SIMULATED"}
    plain, _ = compare_tables(means(1.0, 2, 4), means(1.0, 2, 5), "mean")
    bias = next(r for r in table.rows if r["measure"] == "bias")
    assert abs(bias["value"]) == pytest.approx(1 / 3)
    assert [set(r) - {COLUMN} for r in table.rows] == [set(r) for r in plain.rows]


def test_rows_are_named_by_the_columns_that_both_tables_have():
    """Reader two wrote no level: people and maps pair; of a table with more levels a person would stand there twice."""
    first, second = means(1.0, 2, 4, level="L4-L5"), means(2.0, 3, 6)
    table, unmatched = compare_tables(first, second, "mean")
    assert next(r for r in table.rows if r["measure"] == "bias")["value"] == pytest.approx(-4 / 3) and not unmatched
    first.rows += [r | {"level": "L5-S1"} for r in first.rows]
    with pytest.raises(DesignError, match="unique by participant_id, map"):
        compare_tables(first, second, "mean")


@pytest.mark.parametrize("names", [("sub-01_ses-1", "sub-01_ses-2"), ("a/sub-01", "b/sub-01")])
def test_two_maps_of_a_person_are_refused(tmp_path, names):
    for name in names:
        path = tmp_path / f"{name}_space-DiscAtlas_T2.nii.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(DesignError, match="sub-01 has two T2 maps"):
        find_maps(tmp_path)


def test_a_template_is_found_under_the_results_of_the_study_that_built_it(tmp_path):
    assert atlas_of(tmp_path) is None
    built = tmp_path / "group" / "template" / "atlas_dseg.nii.gz"
    built.parent.mkdir(parents=True)
    built.touch()
    assert atlas_of(tmp_path) == atlas_of(tmp_path / "group") == built.parent


def test_a_mixed_model_has_each_variable_of_its_formula_and_its_slope(tmp_path, monkeypatch):
    """Rows of the map and region asked for, each with its person's values, of its own level where there is one."""
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tpfirrmann_L4L5\tpfirrmann_L5S1\n"
                                               "sub-02\t40\t2\t5\nsub-01\t70\t3\t4\n", encoding="utf-8")
    (tmp_path / "derivatives/discrelaxometry/group").mkdir(parents=True)
    names = ("participant_id", "level", "region", "map", "mean")
    rows = [dict(zip(names, row)) for row in itertools.product(
        ("sub-01", "sub-02"), ("L4-L5", "L5-S1"), ("whole", "nucleus"), ("T1rho", "T2"), (0.0,))]
    study = Study(tmp_path)
    Table("regions", [Column(n) for n in names], [r | {"mean": float(n)} for n, r in enumerate(rows)]).write(
        study.output / "group/regions.tsv")
    given = []
    empty = SimpleNamespace(fixed=Table("f", [Column("a")], []), variances=Table("v", [Column("a")], []), notes=[])
    monkeypatch.setattr(DiscStatsLib.tables, "fit_mixed",
                        lambda frame, formula, **options: given.append((frame, formula, options)) or empty)
    _, paths = mixed_model(tmp_path, "mean ~ pfirrmann", map="T2", region="nucleus", slope="age", name="x")
    ((frame, formula, options),) = given
    assert (formula, options) == ("mean ~ pfirrmann", {"slope": "age", "missing": "drop"})
    assert frame[["participant_id", "level", "mean", "age", "pfirrmann"]].to_numpy().tolist() == [
        ["sub-01", "L4-L5", 3, 70, 3], ["sub-01", "L5-S1", 7, 70, 4], ["sub-02", "L4-L5", 11, 40, 2],
        ["sub-02", "L5-S1", 15, 40, 5]]
    assert [p.name for p in paths] == [f"mixed-x_{n}.{e}" for n in ("fixed", "variances") for e in ("tsv", "json")]
