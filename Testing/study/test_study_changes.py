"""Change maps of visits and the report's tables of a review, each from numbers set by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from DiscRelaxometryLib.errors import StudyError
from DiscStudyLib.engine.observed import change, changes

#: First, middle and last visit; the rows of the table are in another order, and visit 10 is the last.
VALUES = {"b_ses-1": (50.0, 80.0, 0.0, np.nan), "b_ses-2": (7.0,) * 4, "b_ses-10": (60.0, 60.0, 5.0, 3.0),
          "a_ses-1": (100.0, 40.0, 20.0, 10.0), "a_ses-2": (90.0, 50.0, np.nan, 10.0), "c_ses-1": (1.0,) * 4}
YEARS = {"b_ses-1": 0.0, "b_ses-2": 1.0, "b_ses-10": 4.0, "a_ses-1": 0.5, "a_ses-2": 1.0, "c_ses-1": 0.0}


@pytest.mark.parametrize("how, expected", [
    ("absolute", {"a": (-10, 10, np.nan, 0), "b": (10, -20, 5, np.nan)}),
    ("percent", {"a": (-10, 25, np.nan, 0), "b": (20, -25, np.nan, np.nan)}),
    ("per-year", {"a": (-20, 20, np.nan, 0), "b": (2.5, -5, 1.25, np.nan)})])
def test_change_is_last_less_first_visit_of_each_participant(how, expected):
    order = ["b_ses-10", "a_ses-2", "c_ses-1", "b_ses-1", "a_ses-1", "b_ses-2"]
    table = pd.DataFrame({"participant_id": order, "participant": [v[0] for v in order],
                          "session": [v.split("_")[1] for v in order], "years": [YEARS[v] for v in order],
                          "age": [30 + YEARS[v] for v in order]})
    context = SimpleNamespace(settings=SimpleNamespace(change=how), notes=[])
    pairs, rows = changes(context, table)
    assert rows["participant_id"].tolist() == ["b", "a"] and rows["age"].tolist() == [30.0, 30.5]
    for person, pair in zip(rows["participant_id"], pairs, strict=True):
        found = change(*(np.array(VALUES[v]) for v in pair.visits), how, pair.scale)
        np.testing.assert_allclose(found, expected[person], rtol=1e-6, err_msg=f"{how} {person}")
    assert [n for n in context.notes if n.startswith("c ")]
    if how == "per-year":
        with pytest.raises(StudyError, match="time between the visits of a "):
            changes(context, table.assign(years=np.nan)[table.participant == "a"])
