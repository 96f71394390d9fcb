"""The cookbook's scripts run as they are written."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.cohort_phantom import MOTION, anatomy, make_spine_study, true_nucleus

from DiscRelaxometryLib.errors import DiscRelaxometryError
from DiscRelaxometryLib.image import Image, read_image, write_image
from DiscRelaxometryLib.resources import resource_path

ROOT = Path(__file__).resolve().parents[2]


def script(name: str):
    """Load a script of the cookbook as a module, without running its command line."""
    path = next((ROOT / "Docs" / "cookbook").glob(f"{name}*.py"))
    spec = importlib.util.spec_from_file_location(f"cookbook_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    for library in ("jinja2", "matplotlib", "pandas", "patsy"):
        pytest.importorskip(library)
    return make_spine_study(tmp_path_factory.mktemp("cookbook"), (1, 2, 5, 4))


def test_one_person(tmp_path):
    pytest.importorskip("onnxruntime")
    try:
        resource_path("Weights")
    except DiscRelaxometryError:
        pytest.skip("the network's weights are not in this checkout")
    source = resource_path("SampleData/spider-cohort", "DiscStatsLib") / "sub-022" / "anat" / "sub-022_T2w.nii.gz"
    table = script("1_").one_person(source, tmp_path / "labels.nii.gz")
    assert {"L4-L5", "L5-S1"} <= set(table["level"])
    assert read_image(tmp_path / "labels.nii.gz").array.max() >= 11


def test_maps_of_a_folder(tmp_path, capsys):
    study = make_spine_study(tmp_path / "in", (2,), ("T1rho",))
    folder = study / "sub-01" / "anat"
    series = read_image_of_series(folder / "sub-01_T1rho.nii.gz")
    labels, _ = anatomy(series.geometry, MOTION["T1rho"])
    write_image(Image(labels, series.geometry), folder / "sub-01_dseg.nii.gz")
    (folder / "bad_T1rho.nii.gz").write_bytes(b"no image")
    table = script("2_").maps_of_a_folder(folder, tmp_path / "out")
    assert "bad:" in capsys.readouterr().out
    nucleus = [r for r in table.rows if r["region"] == "nucleus" and r["level"] == "L4-L5"]
    assert nucleus[0]["median"] == pytest.approx(true_nucleus("T1rho", 2, "L4-L5"), rel=0.05)
    assert (tmp_path / "out" / "sub-01_T1rho.nii.gz").exists()


def read_image_of_series(path) -> Image:
    from DiscRelaxometryLib.echo.read import read_echo_series

    return read_echo_series(path).echo(0)


def test_whole_study_then_second_analysis(study, capsys):
    settings = {"levels": ("L4-L5",), "permutations": 100}
    run = script("3_").whole_study(study, "pfirrmann", processes=1, **settings)
    assert not run.failed and run.report.exists()
    run, maps = script("4_").second_analysis(study, "age + pfirrmann", "age", **settings)
    assert "Done again: nobody" in capsys.readouterr().out
    assert "nT2w_age_r" in maps
    # The first analysis stands beside the second.
    assert (run.report.parent / "group" / "analysis-main").is_dir()


@pytest.mark.slow
def test_on_a_scheduler(study):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
                                  protocol="tcp", host="127.0.0.1") as cluster:
        run = script("5_").on_scheduler(study, "pfirrmann", cluster.scheduler_address, levels=("L4-L5",),
                                        permutations=100)
    assert not run.failed


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SLURM runs on POSIX systems")
def test_array_of_jobs_and_then_the_group(study, tmp_path):
    """The page's own commands, with an environment in place of SLURM's."""
    page = (ROOT / "Docs" / "batch-cookbook.md").read_text(encoding="utf-8")
    people = page[page.index("#!/bin/bash"):].split("```")[0]
    group = re.search(r"--wrap [^']*'(.+)'", page).group(1)
    command = tmp_path / "bin" / "disc-relaxometry"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path!r}\n"
                       "from DiscStudyLib.cli.main import main\nsys.exit(main())\n", encoding="utf-8")
    command.chmod(0o755)
    results = tmp_path / "results"
    for script, task in ((people, 1), (people, 2), (people, 3), (people, 4), (group, 0)):
        script = script.replace("STUDY", str(study)).replace("RESULTS", str(results)).replace(
            "--formula", "--permutations 100 --levels L4-L5 --formula").replace("pfirrmann + age", "pfirrmann")
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ | {
            "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(task)})
        assert done.returncode == 0, done.stdout + done.stderr
        assert (results / "report.html").exists() == (task == 0)
    assert len(list(results.glob("sub-*/anat"))) == 4 and (results / "group" / "voxels").is_dir()
