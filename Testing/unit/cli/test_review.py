"""The verb ``review``: lists, decisions and comparison from scripts; bad input is one sentence."""

import pytest

pytest.importorskip("typer")
from support.review_study import make_reviewable
from typer.main import get_command

from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscStudyLib.cli.app import build_app
from DiscStudyLib.folder import Decision, decide, read_decisions

FLAGS = {"sub-02": (["The network is unsure of L4-L5: look."], {})}


@pytest.fixture
def study(tmp_path):
    return make_reviewable(tmp_path / "study", 2, FLAGS)


def call(*words) -> None:
    get_command(build_app())([str(w) for w in words], standalone_mode=False)


def decisions(study):
    return read_decisions(study / "derivatives/disc-relaxometry/review.tsv")


def test_decisions_from_a_script(study, capsys):
    call("review", study, "--decide", "sub-02/L4-L5=excluded", "--reason", "hardware", "--reviewer", "AB")
    call("review", study, "--decide", "01/all=accepted")
    call("review", study, "--decide", "sub-02/L1-L2 = T12-L1")
    found = decisions(study)
    assert {(d.disc, d.decision, d.renamed_to, d.reason, d.reviewer) for d in found.values()} == {
        (("sub-02", "L4-L5"), "excluded", "", "hardware", "AB"), (("sub-01", "all"), "accepted", "", "", ""),
        (("sub-02", "L1-L2"), "renamed", "T12-L1", "", "")}
    assert all(d.looked_at and d.date for d in found.values())
    call("review", study, "--decide", "sub-02/L1-L2=undo")
    assert ("sub-02", "L1-L2") not in decisions(study)
    capsys.readouterr()
    call("review", study, "--list")
    shown = capsys.readouterr().out
    assert "2 of 2 participants reviewed" in shown and shown.index("sub-02") < shown.index("sub-01")
    row = next(line for line in shown.splitlines() if "excluded" in line)
    assert "sub-02" in row and "L4-L5" in row and "AB" in row


def test_two_reviews_are_compared(study, tmp_path, capsys):
    other = tmp_path / "other.tsv"
    for person, kind in (("sub-01", "accepted"), ("sub-02", "accepted")):
        decide(other, Decision(person, "L4-L5", kind))
    call("review", study, "--decide", "sub-01/L4-L5=accepted")
    call("review", study, "--decide", "sub-02/L4-L5=excluded", "--reason", "hardware")
    capsys.readouterr()
    call("review", study, "--compare", other)
    shown = capsys.readouterr().out
    assert "1 of 2 decisions agree" in shown and "sub-02" in shown and "sub-01" not in shown


@pytest.mark.parametrize("words, sentence", [
    (("--decide", "sub-02"), "write PARTICIPANT/LEVEL=DECISION"),
    (("--decide", "sub-02/L4-L5="), "write PARTICIPANT/LEVEL=DECISION"),
    (("--decide", "sub-77/all=accepted"), "'sub-77' has no outlines to review"),
    (("--decide", "../sub-02/all=accepted"), "has no outlines to review"),
    (("--decide", "sub-02/L4-L5=excluded"), "why it was excluded"),
    (("--decide", "sub-02/L4-L5=nonsense"), "must hold a level"),
    (("--decide", "sub-02/L4-L5=undo"), "Nothing was decided"),
    (("--decide", "sub-02/L4-L5=corrected"), "A correction is drawn"),
    (("--list", "--decide", "sub-02/all=accepted"), "--list and --decide exclude one another"),
    (("--reason", "hardware"), "give --decide too"),
    (("--compare", "absent.tsv"), "does not exist")])
def test_bad_calls_are_refused_and_write_nothing(study, words, sentence):
    with pytest.raises(DiscRelaxometryError, match=sentence):
        call("review", study, *words)
    assert not decisions(study)
