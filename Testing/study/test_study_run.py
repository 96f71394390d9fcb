"""The runner: resume, redo, failures, and who has work."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
from support.study_phantom import make_study, stages

from DiscRelaxometryLib.errors import Cancelled, StudyError
from DiscRelaxometryLib.image import read_image, write_image
from DiscStudyLib import plan_study, run_study
from DiscStudyLib.after import status_table
from DiscStudyLib.engine import exclusive, provenance


def results(study: Path) -> dict[str, str]:
    """Hash of every result file; provenance and timings hold times of day and are left out."""
    base = study / "derivatives" / "disc-relaxometry"
    return {p.relative_to(base).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(base.rglob("*")) if p.is_file() and "prov" not in p.parts
            and not p.name.startswith(("timings", ".lock"))}


def run(study, **options):
    return run_study(study, pipeline=stages, **options)


def states(run_result) -> dict[tuple[str, str], str]:
    return {(o.person, o.step): o.state for o in run_result.outcomes}


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "Rückenstudie mit Leerzeichen")


def test_second_run_does_nothing(study):
    first = run(study)
    assert set(states(first).values()) == {"done"} and len(first.outcomes) == 3 * 2 + 1
    before, timings = results(study), study / "derivatives/disc-relaxometry/group/timings.tsv"
    durations = timings.read_text()
    second = run(study)
    assert timings.read_text() == durations and "smooth" in durations
    assert set(states(second).values()) == {"current"}
    assert results(study) == before


def test_only_what_changed_is_redone(study):
    run(study)
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    image = read_image(path)
    write_image(image.like(image.array // 2), path)
    redone = {k for k, v in states(run(study)).items() if v == "done"}
    assert redone == {("sub-02", "smooth"), ("sub-02", "halve"), ("", "mean")}


def test_touched_but_equal_input_is_not_redone(study):
    run(study)
    os.utime(study / "sub-02" / "anat" / "sub-02_T2w.nii.gz")
    assert set(states(run(study)).values()) == {"current"}


def test_leftovers_are_removed_but_not_what_another_may_be_writing(study):
    run(study)
    output = study / "derivatives/disc-relaxometry"
    for name in (".1.partial.review.tsv", "group/.2.partial.tsv", "group/analysis-x/.3.partial.png",
                 "figures/.4.partial.png"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).touch()
    run(study)
    assert [path.name for path in output.rglob(".*.partial.*")] == [".1.partial.review.tsv"]
    os.utime(output / ".1.partial.review.tsv", (0, 0))
    run(study)
    assert not list(output.rglob(".*.partial.*"))


def test_input_that_cannot_be_read_leaves_no_results_that_look_current(study, monkeypatch):
    run(study)
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    os.utime(path)  # a known hash is trusted only while size and time are unchanged
    whole = provenance.file_hash

    def refused(file):
        if Path(file) == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return whole(file)

    with monkeypatch.context() as patched:
        patched.setattr(provenance, "file_hash", refused)
        found = run(study)
        assert found.missing["sub-02"].startswith("smooth: PermissionError")
        assert (states(found)["sub-02", "halve"], states(found)["", "mean"]) == ("blocked", "done")
        assert not list((study / "derivatives/disc-relaxometry/sub-02").rglob("*.nii.gz"))
    again = {k for k, v in states(run(study)).items() if v == "done"}
    assert again == {("sub-02", "smooth"), ("sub-02", "halve"), ("", "mean")}


def test_changed_setting_redoes_the_steps_that_use_it(study):
    run(study)
    again = states(run(study, seed=2))
    assert again[("", "mean")] == "done" and again[("sub-01", "smooth")] == "current"
    # Another parameter with the same outcome: what follows is not redone, since its inputs are unchanged.
    again = states(run(study, seed=2, align="off"))
    assert again[("sub-01", "smooth")] == "done" and again[("sub-01", "halve")] == "current"


@pytest.mark.parametrize("damage", ["delete", "change", "truncate"])
def test_damaged_output_is_redone(study, damage):
    run(study)
    before = results(study)
    path = study / "derivatives/disc-relaxometry/sub-01/anat/sub-01_desc-smooth_T2w.nii.gz"
    if damage == "delete":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if damage == "truncate" else data[:-1] + b"?")
    assert states(run(study))[("sub-01", "smooth")] == "done"
    assert results(study) == before


def test_bad_person_is_reported_and_skipped(study):
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    image = read_image(path)
    write_image(image.like(image.array * 0), path)
    outcome = run(study)
    assert states(outcome)[("sub-02", "smooth")] == "failed"
    assert states(outcome)[("sub-02", "halve")] == "blocked"
    assert states(outcome)[("sub-03", "halve")] == "done"
    assert "zeros only" in outcome.missing["sub-02"]
    group = json.loads((study / "derivatives/disc-relaxometry/group/means.json").read_text())
    assert set(group["means"]) == {"sub-01", "sub-03"} and "sub-02" in group["missing"]
    # The same bad data are not tried again; corrected data are.
    assert "zeros only" in run(study).missing["sub-02"]
    write_image(image, path)
    assert states(run(study))[("sub-02", "halve")] == "done"


def test_stop_on_error_names_person_and_step(study):
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    image = read_image(path)
    write_image(image.like(image.array * 0), path)
    with pytest.raises(StudyError, match="sub-02, step smooth: .*zeros only"):
        run(study, on_error="stop")


def test_unreadable_person_is_left_out_and_named(study):
    path = study / "sub-03" / "anat" / "sub-03_T2w.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    outcome = run(study)
    assert "truncated" in outcome.missing["sub-03"] or "damaged" in outcome.missing["sub-03"]
    assert ("sub-01", "halve") in states(outcome) and ("sub-03", "halve") not in states(outcome)


def test_withdrawn_person_leaves_the_group(study):
    run(study)
    shutil.rmtree(study / "sub-03")
    assert states(run(study))[("", "mean")] == "done"
    group = json.loads((study / "derivatives/disc-relaxometry/group/means.json").read_text())
    assert set(group["means"]) == {"sub-01", "sub-02"}


def test_results_elsewhere_leave_the_study_alone(study, tmp_path):
    before = sorted(p for p in study.rglob("*"))
    elsewhere = tmp_path / "results"
    run(study, output=elsewhere)
    assert sorted(p for p in study.rglob("*")) == before
    assert (elsewhere / "sub-01" / "anat" / "sub-01_desc-half_T2w.nii.gz").exists()
    assert set(states(run(study, output=elsewhere)).values()) == {"current"}
    assert str(tmp_path) not in "".join(p.read_text() for p in elsewhere.rglob("*.json"))


def test_dry_run_writes_nothing(study):
    outcome = plan_study(study, pipeline=stages)
    assert set(states(outcome).values()) == {"pending"}
    assert not (study / "derivatives").exists()


def test_cancel_between_steps_then_resume(study):
    def cancel(fraction, text):
        if "sub-02: halve" in text:
            raise Cancelled
    with pytest.raises(Cancelled):
        run(study, progressCallback=cancel)
    after = states(run(study))
    assert after[("sub-02", "smooth")] == "current" and after[("sub-02", "halve")] == "done"


def test_disk_full_is_said_and_leaves_no_half_file(study, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("support.study_phantom.write_image", full)
        outcome = run(study)
    assert all("disk is full" in m for m in outcome.missing.values()) and len(outcome.missing) == 3
    assert not list((study / "derivatives").rglob("*.nii.gz*"))
    # Not the data's fault: the next run tries again.
    assert set(states(run(study)).values()) == {"done"}


def test_two_runs_at_once_are_refused(study, monkeypatch):
    monkeypatch.setattr("DiscStudyLib.engine.lock.LOCK_SECONDS", 0.1)
    output = study / "derivatives" / "disc-relaxometry"
    with exclusive(output), pytest.raises(StudyError, match="Another run is working on this study"):
        run(study)
    # A run of people alone needs its own people only: several go on at once.
    with exclusive(output), exclusive(output / "sub-01" / "prov"):
        run(study, level="participant", people=["sub-02"])
        with pytest.raises(StudyError, match="Another run is working on sub-01"):
            run(study, level="participant")


def test_levels_apart_give_what_one_run_gives(study):
    run(study)
    expected = results(study)
    shutil.rmtree(study / "derivatives")
    for person in ("sub-02", "sub-01", "sub-03"):
        people = run(study, level="participant", people=[person])
        assert {o.person for o in people.outcomes} == {person}
    group = run(study, level="group")
    assert states(group) == {("", "mean"): "done"} and results(study) == expected


def test_group_level_leaves_out_and_names_who_is_not_done(study):
    run(study, level="participant", people=["sub-01", "sub-02"])
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    image = read_image(path)
    write_image(image.like(image.array // 2), path)  # its results are of another image now
    group = run(study, level="group")
    assert set(group.missing) == {"sub-02", "sub-03"} and "run the participant level" in group.missing["sub-02"]
    means = json.loads((study / "derivatives/disc-relaxometry/group/means.json").read_text())
    assert set(means["means"]) == {"sub-01"} and set(means["missing"]) == {"sub-02", "sub-03"}
    with pytest.raises(StudyError, match="Level 'people'"):
        run(study, level="people")


def test_status_table_counts_what_is_done_and_names_what_is_not(study):
    bad = study / "sub-03/anat/sub-03_T2w.nii.gz"
    write_image(read_image(bad).like(read_image(bad).array * 0), bad)
    run(study)
    path = study / "derivatives/disc-relaxometry/sub-01/anat/sub-01_desc-half_T2w.nii.gz"
    path.unlink()
    table = status_table(plan_study(study, pipeline=stages))
    rows = {r["participant"]: r for r in table.rows}
    assert table.names == ["participant", "done", "to do", "failed", "blocked", "message"]
    assert (rows["sub-01"]["done"], rows["sub-01"]["to do"]) == (1, "halve")
    assert rows["sub-02"] == {"participant": "sub-02", "done": 2}
    assert (rows["sub-03"]["failed"], rows["sub-03"]["blocked"]) == ("smooth", "halve")
    assert "zeros only" in rows["sub-03"]["message"] and rows["group"] == {"participant": "group", "done": 1}


def test_provenance_names_no_machine_or_person(study):
    run(study)
    text = "".join(p.read_text() for p in (study / "derivatives").rglob("*.json"))
    for secret in (str(study), os.uname().nodename, os.environ.get("USER") or "nobody-here"):
        assert secret not in text
    record = json.loads((study / "derivatives/disc-relaxometry/sub-01/prov/sub-01_step-smooth_prov.json").read_text())
    assert record["versions"]["SimpleITK"] == sitk.Version_VersionString()
    assert list(record["inputs"]) == ["sub-01/anat/sub-01_T2w.nii.gz"]


def test_no_worker_starts_where_nothing_is_due(study, monkeypatch):
    pytest.importorskip("distributed")
    path = study / "sub-02" / "anat" / "sub-02_T2w.nii.gz"
    image = read_image(path)
    write_image(image.like(image.array * 0), path)  # fails for good: it is not tried again either

    def connect(*cluster):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("DiscStudyLib.engine.cluster_dask.connect", connect)
    assert set(states(plan_study(study, pipeline=stages)).values()) == {"pending"}
    with pytest.raises(AssertionError, match="was started"):
        run(study, processes=4)
    run(study)
    before = results(study)
    again = run(study, processes=4)
    assert states(again) == {**{(p, s): "current" for p in ("sub-01", "sub-03") for s in ("smooth", "halve")},
                             ("sub-02", "smooth"): "failed", ("sub-02", "halve"): "blocked", ("", "mean"): "current"}
    assert results(study) == before
    # One person alone is worked on in this process.
    write_image(image, path)
    assert states(run(study, processes=4))[("sub-02", "halve")] == "done"
