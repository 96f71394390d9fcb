"""Participants tables as spreadsheets write them, and formulas as the documentation allows them."""

import numpy as np
import pytest

from corpus.made_studies import PEOPLE, analyze, atlas_and_maps, found_errors, table, write_table
from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.labels import disc_value
from DiscRelaxometryLib.tables import Table
from DiscStatsLib.analysis import analyze as statistics
from DiscStatsLib.design import build_design, to_frame
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib.folder.study import Study, level_columns
from DiscStudyLib.report.methods import _left_out_text


@pytest.mark.parametrize("word", ["None", "NULL"])
def test_words_are_values_unless_documented_as_missing(people, word):
    """Words that a library takes for missing values make a group vanish, and the contrast changes its meaning."""
    write_table(people, table(treatment=[word, "drug", "surgery"] * (PEOPLE // 3)))
    done = analyze(people, "C(treatment) + age", contrast="C(treatment)")
    if done.facts:
        reference = min([word, "drug", "surgery"])
        others = {f"C(treatment)[T.{w}]" for w in (word, "drug", "surgery") if w != reference}
        assert others <= set(done.columns)
        assert done.facts["n"] == PEOPLE
    else:
        assert any(word in sentence for sentence in [*done.found, *done.failed])


def test_people_left_out_are_not_counted(people):
    """What is reported is what was given, not what was fitted."""
    write_table(people, table(bmi=["n/a", 25, 30, 22, 27, "n/a", 29, 31, "n/a", 24, 26, 28]))
    done = analyze(people, "bmi")
    provenance = done.facts["provenance"]
    assert (done.facts["n"], provenance["people"], provenance["observations"]) == (9, 9, 9)
    assert done.facts["people"] == [f"sub-{n:02d}" for n in (2, 3, 4, 5, 7, 8, 10, 11, 12)]
    said = f"{done.notes} {done.facts}"
    assert all(person in said for person in ("sub-01", "sub-06", "sub-09"))


def test_counts_are_by_level_where_people_lack_a_disc():
    """Who has no disc at a level was counted there, and named nowhere."""
    labels, maps = atlas_and_maps()
    for person in (2, 3):
        maps[person].array[labels.array == disc_value("L4-L5")] = np.nan
    maps[4].array[0, 0, 0] = np.nan  # one failed voxel is no missing disc
    rows = [line.split("\t") for line in table(bmi=["n/a", 25, 30, 22, 27, 26, 29, 31, 21, 24, 26, 28]).splitlines()]
    frame = to_frame(Table("people", [(name,) for name in rows[0]], [dict(zip(rows[0], row)) for row in rows[1:]]))
    done = statistics(maps, labels, frame, "map ~ bmi", settings=AnalysisSettings(n_permutations=100,
                                                                                  missing_covariates="drop"))
    made = done.provenance
    assert made["observations_by_level"] == {"L4-L5": 9, "L5-S1": 11}
    assert made["people"] == made["observations"] == 11 and "sub-01" not in made["participants"]
    assert made["without_map"] == {"L4-L5": ["sub-03", "sub-04"]}
    assert "No value of a map at L4-L5: sub-03, sub-04." in done.warnings
    assert _left_out_text({"T1rho": {"provenance": made}}).endswith(" Without a disc map at L4-L5: sub-03, sub-04.")


@pytest.mark.parametrize("formula", ['C(sex, Treatment(reference="M")) + age', "C(sex, Sum)", 'Q("body mass") + age',
                                     "âge"])
def test_validation_accepts_documented_formulas(people, formula):
    """A second, simpler parser of formulas takes words in quotes, keywords and functions for columns."""
    write_table(people, table(**{"body mass": [20 + n * n % 7 for n in range(PEOPLE)], "âge": range(PEOPLE)}))
    assert found_errors(people, formula) == []


def test_a_subtracted_column_is_checked_alike(people):
    """Validation refuses cells that the analysis takes, because the formula subtracts their column."""
    write_table(people, table(thousands=["1,234", "2,500"] * (PEOPLE // 2)))
    assert any("1,234" in error for error in found_errors(people, "age - thousands"))
    with pytest.raises(DesignError, match="1,234"):
        build_design("age - thousands", to_frame(Study(people).participants))


@pytest.mark.parametrize(("formula", "tested"), [("age * C(sex)", "age"), ("log(age + 1) + bmi", "logAge1"),
                                                 ("(age + bmi)", "age"), ("age - 1", "age")])
def test_default_contrast_is_the_first_term(people, formula, tested):
    """The first term is found by splitting text, which fails after everyone was processed."""
    write_table(people, table(bmi=[21, 25, 30, 22, 27, 23, 29, 31, 20, 24, 26, 28]))
    done = analyze(people, formula)
    assert done.found or not done.failed, done.failed
    if not done.found:
        assert done.facts["contrasts"] == [tested]


@pytest.mark.parametrize("formula", ["poly(age, 2)", "2*age", "age + (1|site)", "site", "age + age2", "share", "T2 ~ ",
                                     "T2 ~ age ~ sex"])
def test_validation_parses_the_formula_and_builds_the_design(people, formula):
    """What cannot be fitted is said hours later, though validation promises to say everything."""
    write_table(people, table(site=["A"] * PEOPLE, age2=[2 * (30 + 3 * n) for n in range(PEOPLE)],
                              share=[f"{n}%" for n in range(PEOPLE)]))
    assert found_errors(people, formula)


def test_validation_looks_at_the_contrast(people):
    """A contrast that the design does not have is found after everyone was processed."""
    write_table(people, table())
    assert found_errors(people, "age", contrast="age") == []
    assert found_errors(people, "age", contrast="xyz")


def test_one_constant_level_leaves_the_others(people):
    """One level that cannot be estimated stops the analysis of all, with advice that is wrong for the others."""
    levels = ("L1L2", "L2L3", "L3L4", "L4L5", "L5S1")
    grades = {f"pfirrmann_{v}": [1 + n * k % 5 for n in range(PEOPLE)] for k, v in enumerate(levels, 1)}
    write_table(people, table(**{**grades, "pfirrmann_L1L2": [2] * PEOPLE}))
    done = analyze(people, "pfirrmann", levels=("L1-L2", "L4-L5"))
    if done.facts:
        assert any("L1-L2" in sentence for sentence in [*done.notes, *done.found])
    else:
        assert any("L1-L2" in sentence and "--levels" in sentence for sentence in [*done.found, *done.failed])


def test_carriage_returns_end_lines(people):
    """One of two readers of a table does not know the line ends of a spreadsheet."""
    write_table(people, table().replace("\n", "\r"))
    done = analyze(people, "age")
    if done.facts:
        assert done.facts["n"] == PEOPLE
    else:
        assert any("participants.tsv" in sentence for sentence in done.found)


def test_tabs_at_the_ends_of_rows(people):
    """One of two readers of a table takes the ids for names of rows and shifts every column."""
    header, *rows = table().splitlines()
    write_table(people, "\n".join([header, *(row + "\t" for row in rows)]) + "\n")
    done = analyze(people, "age")
    assert done.found or not done.failed, done.failed
    if not done.found:
        assert done.facts["n"] == PEOPLE
    assert level_columns(Study(people).participants.names) == {}


@pytest.mark.parametrize("label", ["M ", "m"])
def test_labels_that_look_alike_make_no_group(people, label):
    """A space or another case in one cell makes a group of one person, and another test."""
    write_table(people, table(sex=[label, *["F", "M"] * (PEOPLE // 2 - 1), "F"]))
    done = analyze(people, "C(sex) + age", contrast="C(sex)")
    said = any("sex" in sentence and repr(label) in sentence for sentence in done.found)
    assert said or [c for c in done.columns if "sex" in c] == ["C(sex)[T.M]"]
