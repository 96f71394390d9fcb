"""A reviewer's session: order, decisions that hold or are refused, drawings, other reviewers, kills."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.kills import killed_at_each_write
from support.review_study import LEVELS, make_reviewable, outlines, record_run

from DiscRelaxometryLib.errors import StudyError
from DiscRelaxometryLib.image import read_image, write_image
from DiscRelaxometryLib.labels import disc_value
from DiscStudyLib.engine import exclusive
from DiscStudyLib.folder import Study, apply_decisions, read_decisions
from DiscStudyLib.review import Session

FLAGS = {"sub-02": (["The network is unsure of L4-L5: look."], {"L2-L3": "cut at the patient's left; 5 folded voxels"}),
         "sub-03": (["Two discs lie only 21 mm apart."], {})}


@pytest.fixture
def study(tmp_path):
    return make_reviewable(tmp_path / "study", flags=FLAGS)


def mask(study, person="sub-01"):
    return study / "derivatives/disc-relaxometry" / person / "anat" / f"{person}_desc-reviewed_dseg.nii.gz"


def kinds(session, person="sub-01"):
    return {d.level: d.decision.decision for d in session.look(person).discs if d.decision}


def test_flagged_people_come_first_and_flags_name_their_discs(study):
    session = Session(study)
    assert session.people == ["sub-02", "sub-03", "sub-01"]
    flags = {d.level: d.flags for d in session.look("sub-02").discs}
    assert list(flags) == list(reversed(LEVELS))  # head to foot
    assert flags["L4-L5"] == ("The network is unsure of L4-L5: look.",)
    assert flags["L2-L3"] == ("5 folded voxels",)  # lateral cuts are no reason to look
    assert flags["L1-L2"] == ()
    assert all(d.flags for d in session.look("sub-03").discs)  # a note without a level is about everyone


def test_a_person_is_done_when_the_flagged_discs_are(study):
    session = Session(study, reviewer=" A  B ")
    session.decide("sub-02", "L4-L5", "accepted")
    assert not session.look("sub-02").done
    session.decide("sub-02", "L2-L3", "accepted")
    session.decide("sub-01", "all", "accepted")
    assert [k.done for k in session.overview()] == [True, False, True]
    assert {d.reviewer for d in read_decisions(session.file).values()} == {"A B"}


def test_an_open_session_sees_what_others_and_a_new_run_write(study):
    session = Session(study)
    assert not any(k.done for k in session.overview())
    Session(study).decide("sub-01", "all", "accepted")
    assert {k.person: k.done for k in session.overview()}["sub-01"]
    Session(study).take_back("sub-01", "all")
    record_run(Study(study), "sub-01", study / "sub-01/anat/sub-01_T2w.nii.gz", ["Look at L1-L2."])
    look = {k.person: k for k in session.overview()}["sub-01"]
    assert look.flagged and not look.done


def test_results_of_somebody_who_left_the_study_are_not_shown(study):
    shutil.rmtree(study / "sub-03")
    assert Session(study).people == ["sub-02", "sub-01"]


def test_decisions_are_stale_when_image_or_outlines_change(study):
    session = Session(study)
    session.decide("sub-01", "all", "accepted")
    assert session.look("sub-01").done
    source = study / "sub-01/anat/sub-01_T2w.nii.gz"
    image = read_image(source)
    write_image(image.like(image.array + 1), source)
    record_run(Study(study), "sub-01", source)
    assert all(d.stale for d in session.look("sub-01").discs) and not session.look("sub-01").done


@pytest.mark.parametrize("level, kind, more, words", [
    ("L4-L5", "excluded", {}, "why it was excluded"), ("L4-L5", "excluded", {"reason": "  "}, "why it was excluded"),
    ("L4-L5", "excluded", {"reason": "n/a"}, "why it was excluded"),
    ("T11-T12", "accepted", {}, "has no disc T11-T12"),
    ("all", "renamed", {"renamed_to": "L3-L4"}, "One disc is renamed"),
    ("L4-L5", "renamed", {"renamed_to": "L9"}, "must hold a level"), ("L4-L5", "renamed", {}, "must hold a level"),
    ("L4-L5", "renamed", {"renamed_to": "L4-L5"}, "has this name already"), ("L4-L5", "corrected", {}, "is drawn"),
    ("L4-L5", "acepted", {}, "is no decision"), ("L5-S1", "accepted", {"renamed_to": "L4-L5"}, "must hold a level"),
    ("L4-L5", "renamed", {"renamed_to": "L5-S1"}, "L5-S1 cannot move by 1")])
def test_what_cannot_be_obeyed_is_refused_and_nothing_is_written(study, level, kind, more, words):
    session = Session(study)
    with pytest.raises(StudyError, match=words):
        session.decide("sub-01", level, kind, **more)
    assert not session.file.exists()


def test_a_reason_stays_one_line_whatever_was_typed(study):
    session = Session(study, reviewer="A\tB")
    session.decide("sub-01", "L4-L5", "excluded", reason='two\nlines,\t"quotes" = and \u00e4')
    assert len(session.file.read_text(encoding="utf-8").splitlines()) == 2
    found, = read_decisions(session.file).values()
    assert (found.reason, found.reviewer) == ('two lines, "quotes" = and \u00e4', "A B")


def test_a_new_name_that_a_neighbor_has_moves_everyone_but_excluded_discs(study):
    session = Session(study)
    session.decide("sub-01", "L5-S1", "excluded", reason="remnant")
    session.decide("sub-01", "L4-L5", "renamed", renamed_to="L5-S1")  # its name is free: L5-S1 is out
    assert kinds(session) == {"L5-S1": "excluded", "L4-L5": "renamed"}
    session.take_back("sub-01", "L4-L5")
    session.decide("sub-01", "L4-L5", "renamed", renamed_to="L3-L4")
    assert {d.level: d.name for d in session.look("sub-01").discs} == {
        "L5-S1": "L5-S1", "L4-L5": "L3-L4", "L3-L4": "L2-L3", "L2-L3": "L1-L2", "L1-L2": "T12-L1"}


def test_drawings_become_decisions_about_the_discs_that_differ(study):
    session, labels = Session(study), outlines()
    drawn = labels.array.copy()
    drawn[2][drawn[2] == disc_value("L4-L5")] = 0
    assert session.correct("sub-01", labels.like(drawn)) == ["L4-L5"]
    assert kinds(session) == {"L4-L5": "corrected"}
    assert (session.outlines("sub-01").array == drawn).all()
    session.decide("sub-01", "L4-L5", "renamed", renamed_to="T12-L1")
    assert kinds(session) == {"L4-L5": "corrected"}  # a new name does not lose the drawing
    assert (session.outlines("sub-01").array == drawn).all()  # and is not drawn: what is edited has the old names
    final, _ = apply_decisions(labels, list(session.look("sub-01").seen.values()), read_image(mask(study)))
    assert (final.array == disc_value("T12-L1")).sum() == (drawn == disc_value("L4-L5")).sum()
    assert session.correct("sub-01", labels) == []  # drawn back
    assert kinds(session) == {}


@pytest.mark.parametrize("change", ["larger", "smaller", "moved", "another's"])
def test_each_way_to_differ_is_a_correction(study, change):
    """Voxels won from the background or lost to it, as many elsewhere, and voxels that were another disc's."""
    labels, value = outlines(), disc_value("L4-L5")
    drawn = labels.array.copy()
    place = np.argwhere(drawn == value)[0]
    if change in ("smaller", "moved"):
        drawn[tuple(place)] = 0
    if change in ("larger", "moved"):
        drawn[tuple(np.argwhere(labels.array == 0)[0])] = value
    if change == "another's":
        drawn[tuple(place)] = disc_value("L5-S1")
    session = Session(study)
    levels = ["L5-S1", "L4-L5"] if change == "another's" else ["L4-L5"]
    assert sorted(session.correct("sub-01", labels.like(drawn))) == sorted(levels)
    assert set(kinds(session)) == set(levels) and (session.outlines("sub-01").array == drawn).all()


def test_a_drawing_that_was_cut_short_can_be_obeyed_or_is_not_there(study):
    labels = outlines()
    drawn = labels.array.copy()
    drawn[2][drawn[2] == disc_value("L4-L5")] = 0
    moments = 0
    for _ in killed_at_each_write(lambda: Session(study).correct("sub-01", labels.like(drawn))):
        session = Session(study)
        kept = drawn if kinds(session) else labels.array
        assert (session.outlines("sub-01").array == kept).all()
        moments += 1
    assert moments > 1 and (Session(study).outlines("sub-01").array == drawn).all()


def test_a_drawn_canal_is_a_correction_of_the_whole(study):
    session, labels = Session(study), outlines()
    drawn = labels.array.copy()
    drawn[drawn == 2] = 0
    assert session.correct("sub-01", labels.like(drawn)) == ["all"]
    assert (session.outlines("sub-01").array == drawn).all()


@pytest.mark.parametrize("change, words", [
    (lambda a: np.where(a == disc_value("L4-L5"), 0, a), "Nothing is left of L4-L5: exclude"),
    (lambda a: np.where(a == 2, 77, a), r"holds the values \[77\]")])
def test_drawings_that_name_nothing_are_refused(study, change, words):
    session, labels = Session(study), outlines()
    with pytest.raises(StudyError, match=words):
        session.correct("sub-01", labels.like(change(labels.array)))
    assert not mask(study).exists() and not session.file.exists()


def test_a_mask_of_another_grid_is_refused_and_the_earlier_one_stays(study):
    from DiscRelaxometryLib.image import Geometry, Image

    session, labels = Session(study), outlines()
    drawn = labels.array.copy()
    drawn[1][drawn[1] == disc_value("L4-L5")] = 0
    session.correct("sub-01", labels.like(drawn))
    before = mask(study).read_bytes()
    moved = Geometry(labels.geometry.size, labels.geometry.spacing, (0, 0, 0), labels.geometry.direction)
    with pytest.raises(StudyError, match="not on the image's grid"):
        session.correct("sub-01", Image(labels.array, moved))
    assert mask(study).read_bytes() == before


def test_what_another_reviewer_did_meanwhile_is_not_written_over(study):
    one, two = Session(study, reviewer="AB"), Session(study, reviewer="CD")
    shown = one.look("sub-01").seen
    two.decide("sub-01", "L4-L5", "excluded", reason="hardware")
    with pytest.raises(StudyError, match="was decided by CD meanwhile"):
        one.decide("sub-01", "L4-L5", "accepted", seen=shown)
    drawn = outlines().array.copy()
    drawn[1][drawn[1] == disc_value("L4-L5")] = 0
    with pytest.raises(StudyError, match="was decided by CD meanwhile"):
        one.correct("sub-01", outlines().like(drawn), seen=shown)
    assert not mask(study).exists()
    assert kinds(one) == {"L4-L5": "excluded"}
    one.decide("sub-01", "L3-L4", "accepted", seen=shown)  # another disc: nobody's decision is lost
    assert kinds(one) == {"L4-L5": "excluded", "L3-L4": "accepted"}
    with pytest.raises(StudyError, match="meanwhile \\(taken back\\)"):
        seen = one.look("sub-01").seen
        two.take_back("sub-01", "L4-L5")
        one.decide("sub-01", "L4-L5", "accepted", seen=seen)


def test_a_run_in_progress_makes_the_review_read_only(study, monkeypatch):
    monkeypatch.setattr("DiscStudyLib.engine.lock.LOCK_SECONDS", 0.1)
    session = Session(study)
    assert not session.read_only
    code = ("import sys, time; from pathlib import Path; from DiscStudyLib.engine import exclusive\n"
            "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)")
    run = subprocess.Popen([sys.executable, "-c", code, str(session.study.output)], stdout=subprocess.PIPE, env=paths())
    try:
        run.stdout.readline()
        assert session.read_only
        with pytest.raises(StudyError, match="Another run is working on this study"):
            session.decide("sub-01", "all", "accepted")
    finally:
        run.kill()
        run.communicate()
    assert not session.file.exists()
    session.decide("sub-01", "all", "accepted")  # the system releases a killed run's lock
    with exclusive(session.study.output):
        pass


def paths() -> dict:
    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(root / m) for m in ("DiscRelaxometry", "DiscAtlas",
                                                                                "DiscStats", "Testing"))}


def test_someone_whose_outlines_are_just_being_made_anew_is_left_out(study):
    session = Session(study)
    next(study.glob("derivatives/*/sub-02/prov/*segment*")).unlink()
    assert [k.person for k in session.overview()] == ["sub-03", "sub-01"]
    with pytest.raises(StudyError, match="'sub-02' has no outlines to review"):
        session.look("sub-02")


def test_studies_that_cannot_be_reviewed_say_so(tmp_path, study):
    (tmp_path / "empty" / "sub-01").mkdir(parents=True)
    with pytest.raises(StudyError, match="was not run yet"):
        Session(tmp_path / "empty")
    for path in study.glob("derivatives/*/*/prov/*segment*"):
        path.unlink()
    with pytest.raises(StudyError, match="No participant has outlines yet"):
        Session(study)


def test_a_file_with_errors_stops_the_session_and_names_the_line(study):
    (study / "derivatives/disc-relaxometry/review.tsv").write_text(
        "participant_id\tlevel\tdecision\nsub-01\tL4-L5\taccept\n")
    with pytest.raises(StudyError, match="'review.tsv', line 2: 'accept' is no decision"):
        Session(study)


DECIDER = """
import sys
from DiscStudyLib.review import Session
session = Session(sys.argv[1], reviewer="AB")
print("ready", flush=True)
for person in session.people:
    for disc in session.look(person).discs:
        session.decide(person, disc.level, "accepted")
        print(person, disc.level, flush=True)
"""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_decisions_outlive_a_kill_at_any_moment(tmp_path, kills):
    """Whatever the moment of a kill, each decision that was reported is in the file, and the file can be read."""
    study = make_reviewable(tmp_path / "study", people=4)
    file = study / "derivatives/disc-relaxometry/review.tsv"
    survived, cut = 0, 0
    for n in range(kills):
        file.unlink(missing_ok=True)
        work = subprocess.Popen([sys.executable, "-c", DECIDER, str(study)], stdout=subprocess.PIPE, text=True,
                                env=paths())
        assert work.stdout.readline() == "ready\n"
        time.sleep(0.4 * n / kills)
        work.kill()
        reported = {tuple(line.split()) for line in work.communicate()[0].splitlines() if len(line.split()) == 2}
        kept = set(read_decisions(file))
        survived += reported <= kept
        cut += len(reported) < 20
        assert len(kept - reported) <= 1  # the one that was written when the kill came
        Session(study)
    assert survived == kills and cut > 0
