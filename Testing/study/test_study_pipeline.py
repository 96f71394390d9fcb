"""The whole pipeline on phantoms with existing labels: what goes in comes out, everywhere labelled as simulated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from DiscRelaxometryLib.image import read_image
from DiscStatsLib.report import SIMULATED
from DiscStatsLib.runner import report_only, run_study
from DiscStatsLib.steps_group import read_rows

sys.path.insert(0, str(Path(__file__).parent))
from cohort_phantom import NUCLEUS_T1RHO, make_spine_study

for library in ("jinja2", "matplotlib", "pandas", "patsy"):
    pytest.importorskip(library)
GRADES = (1, 2, 3, 4, 5, 2)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_spine_study(tmp_path_factory.mktemp("Studie mit Umläuten äöü"), GRADES)


@pytest.fixture(scope="module")
def run(study):
    return run_study(study, "pfirrmann", levels=("L4-L5",), permutations=200, analysis="grade")


def output(study, name):
    return study / "derivatives" / "disc-relaxometry" / name


def test_every_step_is_done(run):
    assert [f"{o.person} {o.step}: {o.message}" for o in run.outcomes if o.state != "done"] == []
    assert run.report.exists() and run.missing == {}


def test_true_relaxation_times_come_out(run, study):
    rows = [r for r in read_rows(output(study, "group/regions.tsv")).rows
            if r["map"] == "T1rho" and r["region"] == "nucleus" and r["level"] == "L4-L5"]
    assert len(rows) == len(GRADES)
    for row, grade in zip(rows, GRADES):
        # The true nucleus of the phantom is smaller than the region: the median is of it, the mean is not.
        assert row["median"] == pytest.approx(NUCLEUS_T1RHO[grade], rel=0.06)


def test_grade_lowers_both_maps_in_the_nucleus(run, study):
    folder = output(study, "group/analysis-grade")
    for key in ("T1rho", "nT2w"):
        r = read_image(folder / f"space-DiscAtlas_stat-{key}_pfirrmann_r.nii.gz").array
        assert np.nanmin(r) < -0.85
    assert (folder / "T1rho-nT2w_clusters.tsv").exists()


def test_simulated_on_page_and_in_description(run, study):
    assert SIMULATED in run.report.read_text(encoding="utf-8")
    assert json.loads(output(study, "dataset_description.json").read_text())["Simulated"] is True
    tables, images = (list(output(study, "").rglob(f"*.{end}")) for end in ("tsv", "nii.gz"))
    assert len(tables) > 10 and len(images) > 20
    for path in tables:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert all(line.endswith("SIMULATED") for line in lines[1:]), path
    for path in images:
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        assert json.loads(sidecar.read_text(encoding="utf-8"))["Simulated"] is True, path


def test_report_says_that_signal_is_not_t2(run):
    text = run.report.read_text(encoding="utf-8")
    assert "It is not T2" in text
    for title in ("Study overview", "Warnings", "Segmentation", "Map quality", "Registration quality",
                  "Group mean maps", "Parametric maps", "Clusters", "Region statistics", "Methods"):
        assert f">{title}" in text


def test_nothing_is_done_twice_and_report_alone_works(run, study):
    before = run.report.read_bytes()
    again = run_study(study, "pfirrmann", levels=("L4-L5",), permutations=200, analysis="grade")
    assert {o.state for o in again.outcomes} == {"current"}
    assert report_only(study).read_bytes() == before


def test_results_hold_no_path_of_the_machine(run, study):
    for path in output(study, "").rglob("*"):
        if path.suffix in (".json", ".tsv", ".html"):
            assert str(study.parent) not in path.read_text(encoding="utf-8"), path
