"""One study of phantoms for several files of tests, run once for all workers; each has a copy of its own."""

import io
import pickle
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest
from filelock import FileLock
from support.cohort_phantom import add_reference, make_spine_study
from support.identity import add_identity
from support.study_results import GRADES, SETTINGS
from support.study_runs import light_runs, shared_folder

from DiscStudyLib import run_study


@pytest.fixture(scope="module", autouse=True)
def studies(tmp_path_factory):
    """Save a file's tests work; the process has tests of other folders, too."""
    with light_runs(shared_folder(tmp_path_factory)):
        yield


@pytest.fixture(scope="session")
def made_study(tmp_path_factory):
    """Return a folder that holds the study after its run, and what the run returned."""
    shared = shared_folder(tmp_path_factory)
    folder = shared / "Studie mit Umläuten äöü"
    with FileLock(f"{folder}.lock"):
        if not (folder / "run.pickle").exists():
            study = make_spine_study(folder / "study", GRADES, ("T1rho", "T2"))
            for path in study.glob("sub-03/anat/*MESE*"):
                path.unlink()
            add_reference(study, "sub-01", "L4-L5")
            add_reference(study, "sub-02", "L5-S1")
            add_identity(study)
            printed = io.StringIO()
            with light_runs(shared), redirect_stdout(printed), redirect_stderr(printed):
                run = run_study(study, "pfirrmann", **SETTINGS)
            (folder / "run.pickle").write_bytes(pickle.dumps((run, printed.getvalue())))
    return folder


@pytest.fixture(scope="session")
def study(made_study, tmp_path_factory):
    return shutil.copytree(made_study / "study", tmp_path_factory.mktemp("eigene Kopie") / "Studie äöü")


@pytest.fixture(scope="session")
def run(made_study, study):
    found, _ = pickle.loads((made_study / "run.pickle").read_bytes())
    return replace(found, report=study / found.report.relative_to(made_study / "study"))


@pytest.fixture(scope="session")
def printed(made_study):
    return pickle.loads((made_study / "run.pickle").read_bytes())[1]
