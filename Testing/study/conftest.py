"""One study of phantoms for several files of tests, run once by the worker that has the group."""

from __future__ import annotations

import pytest
from support.cohort_phantom import add_reference, make_spine_study
from support.study_results import GRADES, SETTINGS

from DiscStudyLib import run_study


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    folder = make_spine_study(tmp_path_factory.mktemp("Studie mit Umläuten äöü"), GRADES, ("T1rho", "T2"))
    for path in folder.glob("sub-03/anat/*MESE*"):
        path.unlink()
    add_reference(folder, "sub-01", "L4-L5")
    add_reference(folder, "sub-02", "L5-S1")
    return folder


@pytest.fixture(scope="session")
def run(study):
    return run_study(study, "pfirrmann", **SETTINGS)
