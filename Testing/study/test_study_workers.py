"""People side by side: workers, clusters, killed runs, and identical results whoever works."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import replace

import numpy as np
import pytest
from study.test_study_run import results, run, states
from support.kills import killed_runs
from support.study_phantom import deadly_stages, make_study

from DiscRelaxometryLib.errors import Cancelled, StudyError
from DiscRelaxometryLib.image import Geometry, Image, read_image, write_image
from DiscStudyLib import Cluster, run_study
from DiscStudyLib.engine.workers import Workers


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "Rückenstudie mit Leerzeichen")


def test_no_more_workers_than_cores(monkeypatch):
    pytest.importorskip("distributed")
    from DiscStudyLib.engine import cluster_dask

    monkeypatch.setattr(cluster_dask, "cores", lambda: 3)
    assert [cluster_dask.workers_that_fit(n, 0.001) for n in (0, 2, 8)] == [1, 2, 3]


def test_a_second_cluster_on_the_machine_is_no_matter(monkeypatch):
    """The port of Dask's status page may be taken; a warning is an error here."""
    pytest.importorskip("distributed")
    from DiscStudyLib.engine import cluster_dask

    for name in ("_start_workers", "_wait_for_workers", "_stop"):
        monkeypatch.setattr(cluster_dask, name, lambda *_: None)
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("0.0.0.0", 8787))
            taken.listen()
        with cluster_dask.connect(processes=1) as client:
            assert client.scheduler_info()["address"].startswith("tcp://127.0.0.1:")


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


def test_unreachable_scheduler_is_one_sentence(study, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("DiscStudyLib.engine.cluster_dask._START_SECONDS", 1)
    with pytest.raises(StudyError, match="does not answer"):
        run(study, cluster=Cluster("tcp://127.0.0.1:9"))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_runs_resume_to_identical_results(tmp_path, every):
    given, study = make_study(tmp_path / "whole", people=2), tmp_path / "killed"

    def new_study():
        shutil.rmtree(study, ignore_errors=True)
        return shutil.copytree(given, study, ignore=shutil.ignore_patterns("derivatives"))

    run(given)
    expected, kept = results(given), []
    for _ in killed_runs(new_study, every):
        # What has its record is done, and nothing else.
        kept.append({path.name for path in study.rglob("*_prov.json") if not path.name.startswith(".")})
        for path in study.rglob("*.partial.*"):
            os.utime(path, (0, 0))
        again = run(study)
        assert {"_".join([*filter(None, [o.person]), f"step-{o.step}_prov.json"])
                for o in again.outcomes if o.state == "current"} == kept[-1]
        assert results(study) == expected
        assert not list((study / "derivatives").rglob("*.partial*"))
    assert len(kept) * every > 30 and kept[-1]


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


def test_person_whose_worker_dies_is_missing_with_a_reason(study):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        outcome = run_study(study, pipeline=deadly_stages, processes=2)
    assert set(outcome.missing) == {"sub-02"} and "worker was ended" in outcome.missing["sub-02"]
    means = json.loads((study / "derivatives/disc-relaxometry/group/means.json").read_text())
    assert set(means["means"]) == {"sub-01", "sub-03"} and set(means["missing"]) == {"sub-02"}


class cluster:
    """A scheduler and workers as separate programs on loopback, as a site's cluster would be."""

    def __init__(self, workers: int):
        self.workers = workers
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> str:
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


@pytest.fixture(scope="module")
def scheduler():
    """Return the address of a scheduler with two workers, which cost while they wait: its tests come last."""
    pytest.importorskip("distributed")
    with cluster(2) as address:
        yield address


def test_identical_on_one_and_two_processes_and_a_cluster(study, scheduler, monkeypatch):
    monkeypatch.setattr("DiscStudyLib.engine.cluster_dask.cores", lambda: 2)
    def elsewhere() -> bool:
        record = study / "derivatives" / "disc-relaxometry" / "group" / "prov" / "step-mean_prov.json"
        return json.loads(record.read_text(encoding="utf-8"))["facts"]["elsewhere"]

    run(study)
    expected = results(study)
    shutil.rmtree(study / "derivatives")
    run(study, processes=2)
    assert results(study) == expected and not elsewhere()
    shutil.rmtree(study / "derivatives")
    outcome = run(study, cluster=Cluster(scheduler))
    assert set(states(outcome).values()) == {"done"} and elsewhere()
    assert results(study) == expected


def test_the_workers_of_a_scheduler_take_blocks_of_voxels(tmp_path, scheduler):
    """A group step on a cluster gives the p of this process, from maps that lie on disk."""
    import pandas

    from DiscStatsLib.analysis import Values, analyze
    from DiscStatsLib.settings import AnalysisSettings

    rng, labels = np.random.default_rng(2), np.zeros((3, 8, 12), np.uint8)
    labels[:, 1:7, 1:11] = 11
    table = pandas.DataFrame({"participant_id": [f"s{n:02}" for n in range(20)], "age": rng.uniform(20, 80, 20)})
    maps = np.where(rng.uniform(size=(20, 180)) < 0.1, np.nan, rng.normal(size=(20, 180))).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    atlas, settings = Image(labels, Geometry((12, 8, 3))), AnalysisSettings(n_permutations=300)
    values = Values(np.load(tmp_path / "maps.npy", mmap_mode="r"), np.arange(20), np.arange(180))
    here = analyze(values, atlas, table, "map ~ age", settings=settings)
    assert Workers(Cluster(), 4).distribute is None
    seen: list[str] = []
    with Workers(Cluster(scheduler)) as workers:
        settings = replace(settings, distribute=workers.distribute)
        there = analyze(values, atlas, table, "map ~ age", settings=settings,
                        progressCallback=lambda fraction, text: seen.append(text))
        with pytest.raises(Cancelled):
            analyze(values, atlas, table, "map ~ age", settings=settings,
                    progressCallback=cancel_at("Permutations"))
    assert any("TFCE" in text for text in seen)
    for name, image in here.maps.items():
        np.testing.assert_array_equal(there.maps[name].array, image.array, err_msg=name)
    for name, null in here.null.items():
        np.testing.assert_allclose(there.null[name], null, rtol=1e-10, err_msg=name)


def cancel_at(word: str):
    def progress(fraction, text):
        if word in text:
            raise Cancelled
    return progress
