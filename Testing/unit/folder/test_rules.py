"""Rules of a sensitivity analysis: who is kept, and what is no rule."""

import pytest

from DiscRelaxometryLib.errors import DesignError
from DiscRelaxometryLib.tables import Table
from DiscStudyLib.folder.rules import parse_rule, people_by_rule
from DiscStudyLib.folder.settings import make_settings

TABLE = Table("participants", [("participant_id",), ("field_T",), ("site",)], [
    {"participant_id": "sub-01", "field_T": "1.5", "site": "A"},
    {"participant_id": "sub-02", "field_T": "3.0", "site": "B"},
    {"participant_id": "sub-03", "field_T": "n/a", "site": "A b"}])


@pytest.mark.parametrize(("rule", "kept"), [
    ("field_T == 1.50", {"sub-01"}), ("field_T != 1.5", {"sub-02"}), ("field_T<3", {"sub-01"}),
    ("field_T >= 1.5", {"sub-01", "sub-02"}), ("site == 'A b'", {"sub-03"}), ("site != A", {"sub-02", "sub-03"})])
def test_who_is_kept(rule, kept):
    assert people_by_rule(TABLE, rule) == kept


@pytest.mark.parametrize("rule", ["field_T", "field_T = 1.5", "__import__('os') == 1", "a == b == c", "field_T == "])
def test_no_rule(rule):
    with pytest.raises(DesignError, match="is not a rule"):
        make_settings(sensitivity=rule)


def test_bad_rules_are_named():
    with pytest.raises(DesignError, match="column 'odi' is not in participants.tsv"):
        people_by_rule(TABLE, "odi > 40")
    with pytest.raises(DesignError, match="compares words"):
        people_by_rule(TABLE, "site < A")
    assert parse_rule(" site == 'A b' ") == ("site", "==", "A b")
