"""A disk that really is full, or read-only: a small file system in memory, where the system lets us make one."""

import shutil
import subprocess

import pytest
from study.test_study_run import results, run
from support.study_phantom import make_study, stages

from DiscRelaxometryLib.errors import StudyError
from DiscStudyLib import run_study
from DiscStudyLib.folder.study import Study
from DiscStudyLib.folder.validate import validate


@pytest.fixture
def disk(tmp_path):
    """Return (folder, mount(options)): a file system in memory that can be mounted anew with another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0

    if not mount("size=64k"):
        pytest.skip("mounting a file system needs root")
    yield folder, mount
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_gets_full_is_said_and_the_run_resumes(tmp_path, disk, monkeypatch):
    folder, mount = disk
    study = make_study(tmp_path / "study", people=4)
    run(study)
    expected = results(study)
    output = folder / "results"
    assert any("MB left" in f.problem for f in validate(Study(study, output=output)))
    # Validation refuses such a disk; here it gets full while the study runs.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12))
    try:
        said = "; ".join(run_study(study, pipeline=stages, output=output).missing.values())
    except StudyError as error:
        said = str(error)
    assert "disk is full" in said
    assert not list(output.rglob("*.partial*"))
    assert mount("remount,size=16m")
    outcome = run_study(study, pipeline=stages, output=output)
    assert not outcome.missing
    found = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
    assert {n for n in expected if n.startswith(("sub-", "group"))} <= found
    for name in expected:
        if name.startswith("sub-"):
            assert (output / name).read_bytes() == (
                study / "derivatives" / "disc-relaxometry" / name).read_bytes(), name


def test_read_only_output_is_said(tmp_path, disk):
    folder, mount = disk
    study = make_study(tmp_path / "study", people=1)
    assert mount("remount,ro,size=64k")
    found = validate(Study(study, output=folder / "results"))
    hit = [f for f in found if "cannot be written" in f.problem]
    assert len(hit) == 1 and "another output folder" in hit[0].remedy
    with pytest.raises(StudyError, match="cannot be written"):
        run_study(study, pipeline=stages, output=folder / "results")


def test_study_on_a_read_only_disk_has_its_results_elsewhere(tmp_path, disk):
    folder, mount = disk
    assert mount("remount,size=16m")
    study = make_study(folder / "study")
    assert mount("remount,ro,size=16m")
    expected_study = make_study(tmp_path / "writable")
    run(expected_study)
    expected = results(expected_study)
    outcome = run_study(study, pipeline=stages, output=tmp_path / "results")
    assert not outcome.missing and not outcome.failed
    for name in expected:
        if name.startswith("sub-"):
            assert (tmp_path / "results" / name).read_bytes() == (
                expected_study / "derivatives" / "disc-relaxometry" / name).read_bytes(), name
