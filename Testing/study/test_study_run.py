"""The runner: resume, redo, failures, kills, and identical results on any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from support.study_phantom import make_study, stages

from DiscRelaxometryLib.errors import Cancelled, StudyError
from DiscRelaxometryLib.image import read_image, write_image
from DiscStudyLib import Cluster, plan_study, run_study
from DiscStudyLib.after import status_table
from DiscStudyLib.engine import exclusive


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


def test_status_table_lists_people_and_steps(study):
    run(study)
    path = study / "derivatives/disc-relaxometry/sub-01/anat/sub-01_desc-half_T2w.nii.gz"
    path.unlink()
    table = status_table(plan_study(study, pipeline=stages))
    rows = {r["person"]: r for r in table.rows}
    assert rows["sub-01"]["halve"] == "to do" and rows["sub-02"]["halve"] == "done"


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


def test_no_more_workers_than_cores(monkeypatch):
    pytest.importorskip("distributed")
    from DiscStudyLib.engine import cluster_dask

    monkeypatch.setattr(cluster_dask, "cores", lambda: 3)
    assert [cluster_dask.workers_that_fit(n, 0.001) for n in (0, 2, 8)] == [1, 2, 3]


@pytest.mark.parametrize("people, workers, expected", [
    (4, 2, [1, 1, 1, 1]), (5, 2, [1, 1, 1, 1, 2]), (6, 4, [1, 1, 1, 1, 2, 2]),
    (2, 4, [2, 2]), (1, 9, [8]), (7, 4, [1] * 7)])
def test_the_last_people_share_the_cores_of_the_processes(monkeypatch, people, workers, expected):
    pytest.importorskip("distributed")
    from DiscStudyLib.engine import cluster_dask

    monkeypatch.setattr(cluster_dask, "cores", lambda: 8)
    assert cluster_dask.threads_of_people(people, workers) == expected


@pytest.mark.parametrize("given, expected", [({}, [1, 1, 2]), ({"threads": 1}, [1, 1, 1])])
def test_side_by_side_the_largest_person_comes_first(study, monkeypatch, given, expected):
    """Fewer people than workers at the end get more threads, unless the user said how many."""
    pytest.importorskip("distributed")
    from DiscStudyLib.engine import cluster_dask

    image = read_image(study / "sub-03/anat/sub-03_T2w.nii.gz")
    noise = image.like(np.random.default_rng(0).normal(size=image.array.shape).astype("float32"))
    write_image(noise, study / "sub-03/anat/sub-03_T2w.nii.gz")
    seen = []

    def map_people(client, function, people, resources, threads):
        for n, person in enumerate(people):
            more = threads[n] if threads else 1
            seen.append((person, more))
            yield person, function(person, threads=more), ""

    class Client:
        def nthreads(self):
            return {"one": 1, "two": 1}

    monkeypatch.setattr(cluster_dask, "connect", lambda *options: nullcontext(Client()))
    monkeypatch.setattr(cluster_dask, "map_people", map_people)
    monkeypatch.setattr(cluster_dask, "cores", lambda: 2)
    outcome = run(study, processes=2, **given)
    assert set(states(outcome).values()) == {"done"}
    assert seen[0][0] == "sub-03" and [threads for _, threads in seen] == expected
    assert [o.person for o in outcome.outcomes] == sorted(o.person for o in outcome.outcomes if o.person) + [""]


def test_identical_on_one_and_four_processes_and_a_cluster(study, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("DiscStudyLib.engine.cluster_dask.cores", lambda: 4)
    run(study)
    expected = results(study)
    shutil.rmtree(study / "derivatives")
    run(study, processes=4)
    assert results(study) == expected
    shutil.rmtree(study / "derivatives")
    with cluster(2) as address:
        outcome = run(study, cluster=Cluster(address))
        assert set(states(outcome).values()) == {"done"}
    assert results(study) == expected


class cluster:
    """A scheduler and workers as separate programs on loopback, as a site's cluster would be."""

    def __init__(self, workers: int):
        self.workers = workers
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> str:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        port = address.rsplit(":", 1)[1]
        commands = [["dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
        commands += [["dask_worker", address, "--nthreads", "1", "--no-dashboard"]] * self.workers
        for name, *options in commands:
            self.processes.append(subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{name}", *options], env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return address

    def __exit__(self, *error):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)


def test_unreachable_scheduler_is_one_sentence(study, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("DiscStudyLib.engine.cluster_dask._START_SECONDS", 1)
    with pytest.raises(StudyError, match="does not answer"):
        run(study, cluster=Cluster("tcp://127.0.0.1:9"))


def kill_and_resume(study: Path, delay: float) -> bool:
    """Run in a process of its own, kill it (SIGKILL) after `delay` s; return whether it was still running."""
    code = (f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
            "from DiscStudyLib import run_study\nfrom support.study_phantom import stages\nfrom pathlib import Path\n"
            f"print('go', flush=True); run_study(Path({str(study)!r}), pipeline=stages)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                               env={**os.environ, "PHANTOM_PAUSE": "0.05"})
    process.stdout.readline()
    time.sleep(delay)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return running


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_resume_to_identical_results(tmp_path, kills):
    expected_study = make_study(tmp_path / "whole")
    run(expected_study)
    expected = results(expected_study)
    rng = random.Random(kills)
    caught = 0
    for _ in range(kills):
        study = make_study(tmp_path / "killed")
        caught += kill_and_resume(study, rng.uniform(0.0, 0.8))
        run(study)
        assert results(study) == expected
        assert not list((study / "derivatives").rglob("*.partial*"))
        shutil.rmtree(study)
    assert caught >= kills // 2


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_workers_of_a_killed_run_end_before_the_next_begins(tmp_path):
    pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")
    run(make_study(tmp_path / "whole"))
    study, count = make_study(tmp_path / "killed"), tmp_path / "count"
    code = (f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
            "from DiscStudyLib import run_study\nfrom support.study_phantom import stages\nfrom pathlib import Path\n"
            f"run_study(Path({str(study)!r}), pipeline=stages, processes=2)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "PHANTOM_PAUSE": "1", "PHANTOM_COUNT": str(count)})
    while not count.exists() and process.poll() is None:  # a worker is in the middle of a step
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(study)
    assert results(study) == results(tmp_path / "whole")
    # The lock was theirs until the last had ended.
    assert not psutil.wait_procs(workers, 2)[1]
