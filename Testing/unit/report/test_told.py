"""What the report tells of estimated grades beside read ones, and of how an analysis was made."""

from types import SimpleNamespace

import pytest

from DiscRelaxometryLib.tables import Column, Table
from DiscStudyLib import make_settings
from DiscStudyLib.report import grades, methods

READ = {"sub-2": {"L4-L5": 1, "L5-S1": 2}, "sub-1": {"L4-L5": 4, "L5-S1": 4}, "sub-3": {"L4-L5": 5, "L5-S1": "n/a"}}
ESTIMATED = {("sub-1", "L4-L5"): 3.0, ("sub-1", "L5-S1"): 4.0, ("sub-2", "L4-L5"): 2.0, ("sub-3", "L4-L5"): 5.0,
             ("sub-2", "L5-S1"): float("nan"), ("sub-3", "L5-S1"): 1.0, ("sub-4", "L4-L5"): 1.0}


def test_read_and_estimated_grades_stand_in_their_own_places():
    table = Table("participants", [Column(n) for n in ("participant_id", "pfirrmann_L4L5", "pfirrmann_L5S1")],
                  [{"participant_id": p, "pfirrmann_L4L5": str(g["L4-L5"]), "pfirrmann_L5S1": str(g["L5-S1"])}
                   for p, g in READ.items()])
    rows = [{"participant_id": p, "level": level, "pfirrmann_estimated": g} for (p, level), g in ESTIMATED.items()]
    assert grades.grades_beside(rows, table, {"sub-1"}).rows == [
        {"participant": "sub-2", "L4-L5": "I / II", "L5-S1": "II / \N{EN DASH}"},
        {"participant": "sub-1 *", "L4-L5": "IV / III", "L5-S1": "IV / IV"},
        {"participant": "sub-3", "L4-L5": "V / V"}]
    agreement, _, confusion = grades._agreement(rows, table, {"sub-1"})
    shares = {r["people"]: (r["n"], r["discs"], r["same grade"]) for r in agreement.table.rows}
    assert shares == {"in the network's training set": (1, 2, 50), "not in it": (2, 2, 50)}
    counts = {r["read"]: [r[f"estimated {n}"] for n in ("I", "II", "III", "IV", "V")] for r in confusion.table.rows}
    assert counts == {"I": [0, 1, 0, 0, 0], "II": [0] * 5, "III": [0] * 5, "IV": [0, 0, 1, 1, 0], "V": [0, 0, 0, 0, 1]}


def told(monkeypatch, facts, **settings) -> str:
    """Return the words about an analysis of T2 and T1rho with the contrasts and lists of people given."""
    monkeypatch.setattr(methods, "review_text", lambda context: "")
    made = SimpleNamespace(settings=make_settings(formula="map ~ age", **settings), everyone={},
                           output_of=lambda step, ending: None, records={"analysis-main": SimpleNamespace(facts=facts)})
    return " ".join(methods._paragraphs(made, "main"))


def facts_of(*maps, left_out=(), without_map=(), **contrast):
    given = {"name": "age", "permutation": "199 times", "errors": "exchangeable", "exchange": ""} | contrast
    return {"maps": list(maps), "n": 30, "discs": 0, "levels": {"L4-L5": 30, "L5-S1": 28},
            "provenance": {"contrasts": [given], "left_out": dict(left_out), "without_map": dict(without_map)}}


def test_signs_and_people_left_out_are_told_of_the_maps_and_levels_they_belong_to(monkeypatch):
    text = told(monkeypatch, {
        "1": facts_of("T2", errors="symmetric", left_out={"all levels": ["sub-07"]}, without_map={"L5-S1": ["sub-09"]}),
        "2": facts_of("T1rho")}, seed=7)
    for words in ("residuals of the reduced model for T1rho were permuted (Freedman-Lane), 199 times",
                  "model for T2 were given random signs", "variable (test at p <= ", "so for T2.",
                  "Left out for a missing value of the model's variables: sub-07.",
                  "Without a disc map at L5-S1: sub-09.", "T2 (n = 30 at L4-L5, 28 at L5-S1)", "(seed 7)",
                  "(map ~ age) was fitted to T2", "the term tested was age"):
        assert words.lower() in text.lower(), words
    assert "so for nowhere" not in text and text.count("sub-09") == text.count("sub-07") == 1
    assert "nowhere here" in told(monkeypatch, {"1": facts_of("T2")})


@pytest.mark.parametrize("change, words", [
    ("", "fitted to T2"), ("absolute", "fitted to the change from the first to the last visit in T2"),
    ("per-year", "fitted to the change per year between the first and the last visit in T2"),
    ("percent", "fitted to the change, in percent of the first visit, to the last one in T2")])
def test_the_change_that_was_analyzed_is_told(monkeypatch, change, words):
    assert words in told(monkeypatch, {"1": facts_of("T2")}, change=change, session="all" if change else "")


@pytest.mark.parametrize("pooled, exchange, errors, words", [
    (True, "within", "", "discs of a person change places"), (False, "within", "", "visits of a person change places"),
    (True, "whole", "", "who has the same levels"), (False, "whole", "", "who has the same visits"),
    (True, "whole", "symmetric", "the signs of all discs"), (False, "within", "symmetric", "the signs of all visits")])
def test_what_changes_places_is_told(monkeypatch, pooled, exchange, errors, words):
    text = told(monkeypatch, {"1": facts_of("T2", exchange=exchange, errors=errors or "exchangeable")}, pooled=pooled)
    how = "by changing" if errors else {"within": "within persons", "whole": "between persons"}[exchange]
    assert words in text and f"age was tested {how}" in text
    assert ("carried into one mean disc" in text) is pooled and ("Each visit was an observation" in text) is not pooled
