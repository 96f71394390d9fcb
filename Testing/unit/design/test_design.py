"""Formulas (restricted), designs and contrasts: right numbers, and one clear sentence for each bad input."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Column, Table
from DiscStatsLib.design.contrasts import build_contrasts, file_name
from DiscStatsLib.design.design import build_design, check_participants
from DiscStatsLib.design.formula import parse_formula
from DiscStatsLib.design.levels import build_level_designs
from DiscStatsLib.design.participants import ID, numeric_columns, read_participants


def table(n=12):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(n)],
            "age": rng.uniform(20, 80, n).round(),
            "sex": ["M", "F"] * (n // 2),
            "grade": np.arange(n) % 5 + 1,
            "odi": rng.uniform(0, 60, n),
            "pfirrmann_L5S1": np.arange(n) % 4 + 1,
            "pfirrmann_L4L5": np.arange(n)[::-1] % 3 + 1,
            "body mass": rng.normal(size=n),
        }
    )


@pytest.mark.parametrize(
    "text, names",
    [
        ("map ~ pfirrmann + age + C(sex)", ("pfirrmann", "age", "sex")),
        ("~ age*C(sex) + I(age**2)", ("age", "sex")),
        ("age:sex - 1", ("age", "sex")),
        ("T2 ~ rank(odi) + center(age) + log(odi + 1)", ("odi", "age")),
        ("map ~ C(sex, Treatment('M')) + Q('body mass')", ("sex", "body mass")),
        ("map ~ C(grade, levels=[1, 2, 3, 4, 5])", ("grade",)),
        ("(age + odi)**2", ("age", "odi")),
        ("symptoms___1 + Q('rank')", ("symptoms___1", "rank")),  # a checkbox of a survey program
    ],
)
def test_formulas_of_the_field_are_read(text, names):
    assert parse_formula(text).names == names


@pytest.mark.parametrize(
    "text",
    [
        "map ~ __import__('os').system('true')",
        "map ~ age.__class__",
        "map ~ C(age).design",
        "map ~ [x for x in (1,)]",
        "map ~ (lambda: 1)()",
        "map ~ open('x')",
        "map ~ eval('1')",
        "map ~ I(age if 1 else 2)",
        "map ~ C(sex, eval('1'))",
        "map ~ age[0]",
        "map ~ I(9**9**9**9)",
        "map ~ (age+odi)**99",
        "map ~ f'{age}'",
        "map ~ I(age := 3)",
        "map ~ age @ odi",
        "map ~ np.log(age)",
        "map ~ I('a' * 10)",
        "map ~ C(*age)",
        "map ~ I(age)(1)",
        "map ~ rank(age, out=3)",
        "map ~ age; import os",
        "map ~ {age}",
        "map ~ __age__",
        "map ~ I(10.0**400)",
        "a ~ b ~ c",
        "os.x ~ age",
        "map ~ 2*age",
        "map ~ " + "(" * 300 + "age" + ")" * 300,
        "map ~ " + "+".join(["age"] * 400),
    ],
)
def test_anything_else_is_refused_before_it_is_evaluated(text):
    with pytest.raises(DesignError):
        parse_formula(text)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("map ~", "not a formula"),
        ("map ~ age +", "cannot be read"),
        ("map ~ (age", "cannot be read"),
        ("map ~ mean(age)", "calls 'mean'"),
        ("map ~ age**2", r"age \*\* 2 is the term itself: write I\(age \*\* 2\)"),
        ("map ~ body.mass", r"Q\('NAME'\)"),
        ("map ~ class", r"Q\('NAME'\)"),
        ("map ~ rank + age", r"'rank' is a function: write rank\(COLUMN\), or Q\('rank'\)"),
    ],
)
def test_typing_errors_of_formulas(text, words):
    with pytest.raises(DesignError, match=words):
        parse_formula(text)


def test_matrix_is_patsys_in_natural_units():
    data = table()
    design = build_design("map ~ odi + age + C(sex)", data)
    expected = np.column_stack([np.ones(12), data.sex == "M", data.odi, data.age])
    assert design.columns == ["Intercept", "C(sex)[T.M]", "odi", "age"]
    np.testing.assert_allclose(design.matrix, expected)


def test_mean_only_formula():
    np.testing.assert_array_equal(build_design("map ~ 1", table()).matrix, np.ones((12, 1)))


def test_level_wise_term_is_read_from_the_levels_column():
    data = table()
    np.testing.assert_array_equal(
        build_design("map ~ pfirrmann", data, level="L4-L5").matrix[:, 1], data.pfirrmann_L4L5
    )
    np.testing.assert_array_equal(
        build_design("map ~ pfirrmann", data, level="L5-S1").matrix[:, 1], data.pfirrmann_L5S1
    )
    with pytest.raises(DesignError, match="'pfirrmann'.*no such column"):
        build_design("map ~ pfirrmann", data, level="L1-L2")


@pytest.mark.parametrize(
    "formula, change, words",
    [
        ("map ~ agee", {}, "Did you mean 'age'"),
        ("map ~ age + sex2", {}, "'sex2'"),
        ("map ~ age", {"age": 50.0}, "'age' has the same value"),
        ("map ~ C(sex)", {"sex": "M"}, "sex"),
        ("map ~ age + twice", {"twice": lambda t: 2 * t.age + 1}, "collinear"),
        ("map ~ age", {"age": lambda t: t.age.where(t.index != 3)}, "no value of 'age' for 'sub-03'"),
        ("map ~ log(age)", {"age": lambda t: t.age.where(t.index != 3, 0.0)}, "not a finite number"),
        ("map ~ C(participant_id)", {}, "12 observations.*12 parameters"),
        ("map ~ center(sex)", {}, "C\\(\\)"),
    ],
)
def test_bad_designs_are_named(formula, change, words):
    data = table()
    for column, value in change.items():
        data[column] = value(data) if callable(value) else value
    with pytest.raises(DesignError, match=words):
        build_design(formula, data)


def test_rows_with_missing_cells_can_be_left_out():
    data = table()
    data.loc[3, "age"] = np.nan
    np.testing.assert_array_equal(build_design("map ~ age", data, missing="drop").rows, np.delete(np.arange(12), 3))


def test_numbers_of_a_column_keep_their_row_and_a_missing_cell_is_none():
    cells = read_participants(Table("t", [Column(n) for n in (ID, "first", "second")], [
        {ID: "01", "first": "3.5", "second": "n/a"}, {ID: "2", "first": "n/a", "second": "4"},
        {ID: "10", "first": "", "second": "0"}]))
    assert cells[ID].tolist() == ["01", "2", "10"]
    first, second = numeric_columns(cells, "first", "second")
    np.testing.assert_array_equal(first, [3.5, np.nan, np.nan])
    np.testing.assert_array_equal(second, [np.nan, 4, 0])


def test_ranks_of_three_grades_are_those_of_scipy():
    data = table()
    matrix = build_design("map ~ pfirrmann + age + C(sex)", data, level="L4-L5", ranks=True)
    for name in ("pfirrmann", "age"):
        values = data.get(name, data.pfirrmann_L4L5)
        np.testing.assert_array_equal(matrix.matrix[:, matrix.columns.index(name)], rankdata(values))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_units_make_no_columns_collinear_and_hide_none_that_are(scale):
    data = table()
    data["dose"] = data.odi * scale
    build_design("map ~ age + dose + grade", data)
    data["twice"] = data.age + data.grade + data.dose / scale
    with pytest.raises(DesignError, match="age, dose, grade, twice are collinear"):
        build_design("map ~ age + dose + grade + twice", data)


def test_remarks_come_before_computing():
    data = table()
    data["older"] = data.age + np.random.default_rng(1).normal(0, 0.5, 12)
    data["sex"] = ["M"] * 11 + ["F"]
    words = " ".join(build_design("map ~ age + older + C(sex) + grade", data).warnings)
    for expected in (
        "Underpowered",
        "variance inflation",
        "Unbalanced groups of 'sex'",
        "'grade' has few whole values",
    ):
        assert expected in words


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.iloc[:0], "empty"),
        (lambda t: t.drop(columns="participant_id"), "no column 'participant_id'"),
        (lambda t: pd.concat([t, t.iloc[[2]]]), "'sub-02' stands twice"),
        (lambda t: t.assign(participant_id=t.participant_id.where(t.index != 4)), "Row 5"),
    ],
)
def test_bad_participants_tables(change, words):
    with pytest.raises(DesignError, match=words):
        check_participants(change(table()))


def test_repeated_measures_need_a_session_column():
    data = table()
    check_participants(pd.concat([data.assign(session=1), data.assign(session=2)]))


def test_contrasts_by_name_text_vector_and_matrix():
    design = build_design("map ~ C(grade) + age + odi", table())
    default = build_contrasts(None, design)
    assert [(c.name, c.kind) for c in default] == [("grade", "F"), ("age", "t"), ("odi", "t")]
    weights = {
        c.name: c.weights
        for c in build_contrasts(
            {"a": "grade", "b": "C(grade)[T.2]", "c": "age - 2*odi", "d": [0, 1, -1, 0, 0, 0, 0], "e": ("F", "age")},
            design,
        )
    }
    np.testing.assert_array_equal(weights["a"], np.eye(7)[1:5])
    np.testing.assert_array_equal(weights["b"], np.eye(7)[[1]])
    np.testing.assert_array_equal(weights["c"], [[0, 0, 0, 0, 0, 1, -2]])
    assert build_contrasts({"e": ("F", "age")}, design)[0].kind == "F"
    assert file_name("C(sex)[T.M]") == "sexM" and file_name("age - odi") == "ageMinusOdi"


@pytest.mark.parametrize(
    "contrast, words",
    [
        ("agee", "no contrast of this design"),
        ([[0, 1]], "has 2 weights; the design has 3 columns"),
        ([[0, 0, 0]], "zeros"),
        ([[[0, 1, 0], [0, 2, 0]]], "repeat each other"),
        ({}, "No contrast"),
        ("age = 1", "compares with a number"),
        ({"x": ("t", [[0, 1, 0], [0, 0, 1]])}, "only be tested by F"),
    ],
)
def test_bad_contrasts(contrast, words):
    with pytest.raises(DesignError, match=words):
        build_contrasts(contrast, build_design("map ~ age + odi", table()))


def test_groups_that_look_alike_are_refused():
    """A Cyrillic M is typed where the keyboard has two layouts."""
    data = table()
    data["sex"] = ["\u041c", *data["sex"][1:]]
    assert set(data["sex"]) == {"\u041c", "M", "F"}
    with pytest.raises(DesignError, match="two groups"):
        build_design("map ~ C(sex)", data)


def test_models_without_intercept_are_remarked_on():
    said = "compares with 0"
    assert any(said in w for w in build_design("map ~ 0 + C(sex)", table()).warnings)
    assert not any(said in w for w in build_design("map ~ C(sex)", table()).warnings)


def test_a_level_that_cannot_be_estimated_is_named_and_the_others_are_analyzed():
    people = table().assign(osteophytes_L4L5=range(12), osteophytes_L5S1=1)
    found = build_level_designs("map ~ osteophytes", people, ["L4-L5", "L5-S1", "L3-L4"])
    assert list(found.designs) == ["L4-L5"]
    assert [remark.split(":")[0] for remark in found.remarks[:2]] == [
        f"{level} was left out of the analysis" for level in ("L5-S1", "L3-L4")]
    assert "'osteophytes' has the same value (1)" in found.remarks[0] and "no such column" in found.remarks[1]
    with pytest.raises(DesignError, match="No level can be estimated"):
        build_level_designs("map ~ osteophytes", people, ["L5-S1", "L3-L4"])
