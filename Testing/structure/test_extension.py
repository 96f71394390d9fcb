"""The extension's outside: CMake lists, .ui files, the Extensions Index's rules, file-scope imports, tracked files."""

import ast
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from support import ROOT, shared_data
from tools.update_cmake_lists import MODULES, cmake_list

CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
LIBS = [*(f"{m}/{m}Lib" for m in MODULES), "DiscStats/DiscStudyLib"]


def tracked(*patterns: str) -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True,
                             check=True).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).exists()]


@pytest.mark.parametrize("module", MODULES)
def test_cmake_lists_are_up_to_date(module):
    assert (ROOT / module / "CMakeLists.txt").read_text(encoding="utf-8") == cmake_list(module), \
        "run: make cmake-lists"


def test_extension_configures_with_the_stub(tmp_path):
    stub = shared_data().parent / "tools" / "slicer-cmake-stub"
    if not shutil.which("cmake") or not stub.exists():
        pytest.skip("cmake or the Slicer stub is absent")
    result = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path, f"-DSlicer_DIR={stub}", "-DBUILD_TESTING=ON"],
                            capture_output=True, text=True)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    for complaint in ("listed but missing", "present but not packaged", "CMake Error", "CMake Warning"):
        assert complaint not in output, output


def test_ui_files_parse_and_name_their_widgets_once():
    files = tracked("*.ui")
    for file in files:
        root = ElementTree.parse(file).getroot()
        assert root.tag == "ui", file
        names = [w.get("name") for w in root.iter("widget")]
        assert len(names) == len(set(names)), f"{file.name}: repeated widget names"


def test_index_metadata():
    values = dict(re.findall(r'^set\((EXTENSION_\w+) "([^"\n]*)"\)$', CMAKE, re.M))
    name = re.search(r"^project\((\w+)\)$", CMAKE, re.M).group(1)
    assert not name.startswith("Slicer")
    for key in ("EXTENSION_HOMEPAGE", "EXTENSION_CONTRIBUTORS", "EXTENSION_DESCRIPTION", "EXTENSION_ICONURL",
                "EXTENSION_SCREENSHOTURLS"):
        assert values.get(key), f"{key} must be set, on one line"
    entry_file = ROOT / "Docs" / f"{name}.json"
    text = entry_file.read_bytes()
    assert b"\r" not in text
    entry = json.loads(text)
    assert entry["category"] == "Quantification"
    assert {"$schema", "category", "scm_url"} <= set(entry) <= {
        "$schema", "category", "scm_url", "scm_revision", "build_dependencies", "build_subdirectory", "tier", "enabled",
        "dicom_support_rule"}
    assert entry["scm_url"].removesuffix(".git").split("/")[-1] == f"Slicer{name}"


def test_icon_and_screenshots_named_in_cmake_exist():
    urls = re.findall(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/main/([^\s\"]+)", CMAKE)
    assert len(urls) >= 2
    for path in urls:
        assert (ROOT / path).exists(), f"{path} is named in CMakeLists.txt and missing"
    header = (ROOT / urls[0]).read_bytes()[:24]
    assert header[1:4] == b"PNG"
    assert (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")) == (128, 128)


def test_licence_is_named():
    assert "Apache License" in (ROOT / "LICENSE.txt").read_text()
    assert "LICENSE.txt" in (ROOT / "README.md").read_text(encoding="utf-8")


def file_scope_imports(path: Path) -> set[str]:
    """Return the top-level packages imported when the file itself is imported."""
    found = set()
    stack = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
        elif isinstance(node, (ast.Try, ast.With)) or (isinstance(node, ast.If)
                                                       and "TYPE_CHECKING" not in ast.dump(node.test)):
            stack += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
    return found


def test_no_heavy_import_at_file_scope():
    import sys
    light = set(sys.stdlib_module_names) | {"numpy", "scipy", "SimpleITK", "DiscRelaxometryLib", "DiscAtlasLib",
                                            "DiscStatsLib", "DiscStudyLib"}
    slicer_side = light | {"slicer", "vtk", "qt", "ctk", "DICOMLib", "SegmentEditorEffects",
                           "DiscRelaxometryWidgets", "DiscAtlasWidgets", "DiscStatsWidgets"}
    for path in tracked("DiscRelaxometry/*.py", "DiscAtlas/*.py", "DiscStats/*.py"):
        parts = path.relative_to(ROOT).parts[1:]
        free = parts[0].endswith("Lib") and not any(p.startswith(("mrml", "headless")) for p in parts[1:])
        # The command line's verbs are imported by its main alone, which says what is missing.
        allowed = (light if free else slicer_side) | ({"typer"} if path.parent.name == "cli" else set())
        extra = file_scope_imports(path) - allowed
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)} at file scope"


def test_logic_has_no_qt():
    for module in MODULES:
        tree = ast.parse((ROOT / module / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Logic"):
                names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                assert not names & {"qt", "ctk"}, f"{node.name} uses {names & {'qt', 'ctk'}}"


def test_four_classes_a_module():
    for module in MODULES:
        tree = ast.parse((ROOT / module / f"{module}.py").read_text(encoding="utf-8"))
        classes = {n.name for n in tree.body if isinstance(n, ast.ClassDef)}
        assert {module, f"{module}Widget", f"{module}Logic", f"{module}Test"} <= classes


def test_no_machine_path_or_host_is_tracked():
    # Spelled in pieces, so that this file does not find itself.
    pattern = re.compile("|".join(["/" + "root/", "/" + "work/", "python" + "hosted", "pypi" + r"\.org",
                                   "registry" + r"\.npmjs", "debian" + r"\.org/debian"]))
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" in raw[:8000]:
            continue
        match = pattern.search(raw.decode("utf-8", "replace"))
        assert not match, f"{path.relative_to(ROOT)} names {match.group()}"


def test_no_pickled_weights_and_no_large_file():
    for path in tracked():
        assert path.suffix not in (".pt", ".pth", ".pkl"), path
        assert path.stat().st_size < 20e6, f"{path} is over 20 MB"


def test_python_files_stay_short():
    long = {p.name: n for p in tracked("*.py") if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


def test_every_help_anchor_is_explained():
    page = (ROOT / "Docs/troubleshooting.md").read_text(encoding="utf-8")
    known = set(re.findall(r'<a id="([\w-]+)"></a>', page))
    for path in tracked("DiscRelaxometry/*.py", "DiscAtlas/*.py", "DiscStats/*.py"):
        used = set(re.findall(r'anchor="([\w-]+)"', path.read_text(encoding="utf-8")))
        assert used <= known, f"{path.name}: {sorted(used - known)} not in Docs/troubleshooting.md"
