"""Settings of an analysis: one set of defaults, checked when made."""

import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscStatsLib.settings import AnalysisSettings
from DiscStudyLib.folder.settings import Settings


def test_a_study_analyzes_with_the_defaults_of_every_analysis():
    assert Settings().statistics() == AnalysisSettings()


def test_a_study_hands_on_each_setting_of_the_analysis():
    given = {"seed": 7, "missing": "complete", "errors": "symmetric", "standard_errors": "hc3"}
    made = Settings(permutations=300, **given).statistics()
    assert made == AnalysisSettings(n_permutations=300, **given)


@pytest.mark.parametrize(("values", "words"), [
    ({"correction": ("fwe", "bonferroni")}, "'bonferroni' is no correction"),
    ({"missing": "some"}, "choose from available, complete"),
    ({"exchange": "all"}, "choose from within, whole"),
    ({"n_permutations": 0}, "whole number of at least 1"),
    ({"n_permutations": 10.5}, "'10.5' was given"),
    ({"seed": -1}, "seed must be"),
    ({"workers": True}, "workers must be"),
    ({"cluster_p": 0.5}, "between 0 and 0.5"),
    ({"alternative": "both"}, "two-sided, greater, less"),
])
def test_values_that_do_not_exist(values, words):
    with pytest.raises(DesignError, match=words):
        AnalysisSettings(**values)


@pytest.mark.parametrize(("formula", "levels", "pooled"), [
    ("map ~ grade + age", ("L4-L5", "L5-S1"), "map ~ grade + age + C(level)"),
    ("map ~ grade + age", ("pooled",), "map ~ grade + age + C(level)"),
    ("map ~ grade + age", ("L4-L5", "pooled"), "map ~ grade + age"),
    ("map ~ grade * C(level)", ("L4-L5", "L5-S1"), "map ~ grade * C(level)"),
    ("map ~ grade + level", ("pooled",), "map ~ grade + level")])
def test_the_pooled_model_has_the_level_once_where_there_are_several(formula, levels, pooled):
    assert str(Settings(formula=formula, levels=levels, pooled=True).pooled_model) == pooled
