"""Groups of discs by a column or a rule: who is in which, and what makes no groups."""

import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.labels import LUMBAR_LEVELS
from DiscRelaxometryLib.tables import Table
from DiscStudyLib.folder import Settings
from DiscStudyLib.folder.groups import groups_by

NAMES = ("participant_id", "odi", "sex", "pfirrmann_L4L5", "pfirrmann_L5S1", "weight")
CELLS = ("sub-1 40 F 2 4 61", "sub-2 41 M 3 n/a 62", "sub-3 n/a F 1 1 63", "sub-4 12 F 4 2 64", "sub-5 0 M 2 2 65",
         "sub-6 77 M 5 3 66", "sub-7 38 M 5 3 67")
TABLE = Table("participants", [(n,) for n in NAMES], [dict(zip(NAMES, row.split())) for row in CELLS])


def people(discs):
    return sorted({who for who, _ in discs})


def test_the_cut_of_the_disability_index_keeps_40_below_and_leaves_the_unknown_out():
    found = groups_by(TABLE, "odi <= 40")
    assert list(found) == ["odi <= 40", "odi > 40"]
    assert [people(d) for d in found.values()] == [["sub-1", "sub-4", "sub-5", "sub-7"], ["sub-2", "sub-6"]]
    assert len(found["odi <= 40"]) == 4 * len(LUMBAR_LEVELS)
    assert [people(d) for d in groups_by(TABLE, "odi > 40").values()] == [["sub-2", "sub-6"],
                                                                          ["sub-1", "sub-4", "sub-5", "sub-7"]]


def test_a_column_per_level_groups_discs():
    found = groups_by(TABLE, "pfirrmann >= 3")
    assert found["pfirrmann >= 3"] == {("sub-2", "L4-L5"), ("sub-4", "L4-L5"), ("sub-6", "L4-L5"), ("sub-7", "L4-L5"),
                                       ("sub-1", "L5-S1"), ("sub-6", "L5-S1"), ("sub-7", "L5-S1")}
    assert list(groups_by(TABLE, "pfirrmann")) == [f"pfirrmann {g}" for g in range(1, 6)]


@pytest.mark.parametrize("text, words", [("weight", "makes 7"), ("bmi <= 25", "'bmi' is not a column"),
                                         ("sex < M", "compares words"), ("odi < 100", "makes 1")])
def test_what_makes_no_groups_is_named(text, words):
    with pytest.raises(DesignError, match=words):
        groups_by(TABLE, text)


@pytest.mark.parametrize("formula, groups, compared", [
    ("C(sex) + odi", "", "sex"), ("odi + C(sex)", "", ""), ("pfirrmann", "", ""), ("", "", ""), ("", "sex", "sex"),
    ("C(sex)", "odi <= 40", "odi <= 40"), ("C(sex):odi", "", "")])
def test_without_a_setting_the_tested_factor_is_shown(formula, groups, compared):
    assert Settings(formula=formula, groups=groups).compared == compared
