"""The extension as Slicer installs it, and the packages that it asks for beside those that Slicer bundles."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT
from tools.update_cmake_lists import MODULES

#: What Slicer 5.13 bundles (5.12 has the same releases, or earlier fixes of them).
BUNDLED = {"numpy": "2.4.6", "scipy": "1.17.1", "simpleitk": "2.5.0", "pydicom": "3.0.2", "highdicom": "0.27.0",
           "requests": "2.32.0", "packaging": "25.0", "pillow": "12.0.0", "python-dateutil": "2.9.0"}


def listed(module: str) -> list[str]:
    """Return the files that a module's CMakeLists.txt installs."""
    text = (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8")
    return [name for block in re.findall(r"set\(MODULE_PYTHON_\w+\n(.*?)\n  \)", text, re.S) for name in block.split()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Lay the files out as Slicer's macros do: those of all modules in one folder, their subfolders kept."""
    folder = tmp_path_factory.mktemp("slicer") / "lib" / "Slicer-5.13" / "qt-scripted-modules"
    for module in MODULES:
        for name in listed(module):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / module / name, folder / name)
    return folder


def test_no_module_overwrites_a_file_of_another():
    names = [name for module in MODULES for name in listed(module)]
    assert len(names) == len(set(names)) > 100, sorted(n for n in set(names) if names.count(n) > 1)


CODE = """
import json, sys
from DiscRelaxometryLib.headless import start_headless
slicer = start_headless()
import DiscAtlas, DiscRelaxometry, DiscStats
from DiscRelaxometryWidgets.sample_data import load_person
volume, segmentation = load_person()
tables = DiscRelaxometry.DiscRelaxometryLogic().measure(segmentation)
atlas = DiscAtlas.DiscAtlasLogic().showAtlas()
design = DiscStats.DiscStatsLogic().checkDesign(
    DiscStats.sample_cohort.resource_path("SampleData/spider-cohort/participants.tsv", "DiscStatsLib"), "T2 ~ age")
import DiscStudyLib
from DiscRelaxometryLib.resources import resource_path
print(json.dumps({
    "rows": tables["discs"].GetTable().GetNumberOfRows(), "atlas": atlas.GetSegmentation().GetNumberOfSegments(),
    "people": design.n, "panels": [resource_path(f"UI/{n}.ui").exists() for n in
                                   ("DiscRelaxometry", "DiscAtlas", "DiscStats", "Footer")],
    "from": sorted({m.__file__ for n, m in sys.modules.items() if n.startswith("Disc")})}))
"""


def test_the_installed_tree_works_alone(tree, tmp_path):
    """A child process without the checkout on its path imports all three modules and calls the Logic of each."""
    pytest.importorskip("slicer")
    pytest.importorskip("pandas")
    # Without site (-S) no .pth file adds the checkout; packages are found where they lie.
    folders = {str(importlib.metadata.distribution(n).locate_file("")) for n in ("numpy", "slicer-core", "pandas")}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), *folders])}
    done = subprocess.run([sys.executable, "-S", "-c", CODE], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["rows"] >= 5 and found["atlas"] == 5 and found["people"] == 33 and all(found["panels"])
    assert all(Path(path).is_relative_to(tree) for path in found["from"]), found["from"]


def test_the_panels_ask_for_what_the_package_declares():
    """One requirement, one version: what panels install is what pyproject.toml's extras name."""
    import tomllib

    from DiscRelaxometryWidgets import requirements as wanted

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {r for extra in project["optional-dependencies"].values() for r in extra}
    asked = {wanted.TORCH, *wanted.TORCH_WEIGHTS, *wanted.ELASTIX, *wanted.STUDY, *wanted.CLUSTER}
    assert asked <= declared, asked - declared


def needs(name: str, extras=frozenset(), seen=None) -> dict:
    """Return what an installed package and its dependencies ask of the packages that Slicer bundles."""
    seen = set() if seen is None else seen
    found: dict = {}
    if name in seen:
        return found
    seen.add(name)
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        markers = [{"extra": e, "python_version": "3.12", "python_full_version": "3.12.10"} for e in {"", *extras}]
        if requirement.marker is not None and not any(requirement.marker.evaluate(m) for m in markers):
            continue
        key = canonicalize_name(requirement.name)
        if key in BUNDLED:
            found.setdefault(key, []).append((name, requirement.specifier))
            continue
        try:
            deeper = needs(key, requirement.extras, seen)
        except importlib.metadata.PackageNotFoundError:
            continue
        for other, reasons in deeper.items():
            found.setdefault(other, []).extend(reasons)
    return found


def test_nothing_that_slicer_bundles_is_replaced():
    """Each package that a panel installs, with all that comes with it, accepts the versions that are there."""
    from DiscRelaxometryWidgets import requirements as wanted

    checked = 0
    for text in {*wanted.TORCH_WEIGHTS, *wanted.ELASTIX, *wanted.STUDY, *wanted.CLUSTER}:
        name = canonicalize_name(Requirement(text).name)
        assert name not in BUNDLED, f"{name} is Slicer's own"
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for bundled, reasons in needs(name).items():
            for asker, specifier in reasons:
                assert specifier.contains(BUNDLED[bundled], prereleases=True), \
                    f"{text}: {asker} asks for {bundled}{specifier}, Slicer has {BUNDLED[bundled]}"
                checked += 1
    assert checked > 5


def test_core_requirements_are_met_by_slicer():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(BUNDLED[canonicalize_name(requirement.name)]), text
