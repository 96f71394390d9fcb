"""Code of the panels stays in what PythonQt (Slicer) and PySide6 (the host) share, and starts light."""

import ast
import subprocess
import sys

import pytest
from support import ROOT

PANEL_FILES = sorted(p for m in ("DiscRelaxometry", "DiscAtlas", "DiscStats") for p in (ROOT / m).glob("*.py")) + \
    sorted(ROOT.glob("Disc*/*Widgets/*.py"))
#: Qt properties: attributes in PythonQt, methods in PySide6. Code reads them through ``qt_helpers.value``.
PROPERTIES = {"text", "currentText", "currentIndex", "rowCount", "columnCount", "isChecked", "checked", "isVisible",
              "toPlainText", "currentPath", "plainText", "isEnabled", "toolTip", "currentRow", "count"}
#: Found in only one of the two, or set the look.
FORBIDDEN = {"setStyleSheet", "exec_", "exec", "QRegExp", "QMessageBox", "setLayout", "setModule"}


@pytest.mark.parametrize("path", PANEL_FILES, ids=lambda p: p.name)
def test_properties_are_read_through_the_helper(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            assert node.func.attr not in PROPERTIES, f"{path.name}:{node.lineno} calls {node.func.attr}()"
        views = isinstance(node, ast.Attribute) and "SlicerLayout" in lines[node.lineno - 1]  # not a widget's layout
        if isinstance(node, ast.Attribute) and not views:
            assert node.attr not in FORBIDDEN, f"{path.name}:{node.lineno} uses {node.attr}"
        # widget.text = ... is PythonQt alone.
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    assert target.attr not in PROPERTIES | {"enabled", "visible", "value"}, \
                        f"{path.name}:{node.lineno} assigns {target.attr}"


@pytest.mark.parametrize("path", PANEL_FILES, ids=lambda p: p.name)
def test_qt_is_imported_inside_functions(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
            [node.module] if isinstance(node, ast.ImportFrom) else []
        assert not {"qt", "ctk"} & set(names), f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", PANEL_FILES, ids=lambda p: p.name)
def test_files_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_texts_of_the_panels_can_be_translated():
    """Texts given to widgets go through ``_()``; formatted ones use named fields."""
    setters = {"setText", "setToolTip", "setAccessibleName", "setWindowTitle"}
    for path in PANEL_FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in setters:
                for argument in node.args:
                    plain = isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value
                    assert not plain, f"{path.name}:{node.lineno}: '{plain}' is not translated"


def test_importing_the_modules_is_light():
    """Slicer imports every module when it starts: of our libraries these alone, and nothing that is not Slicer's."""
    modules = ("DiscRelaxometry", "DiscAtlas", "DiscStats")
    code = ("import sys, types; from DiscRelaxometryLib.headless import start_headless; start_headless()\n"
            "import slicer.parameterNodeWrapper\nbefore = set(sys.modules)\n"
            f"for name in {modules}:\n    getattr(__import__(name), name)(types.SimpleNamespace(path=name))\n"
            "print(*sorted(set(sys.modules) - before))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={"PYTHONPATH": ":".join(str(ROOT / m) for m in modules)})
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    ours = {n for n in loaded if n.startswith("Disc") and n.split(".")[0].endswith("Lib")}
    assert ours == {"DiscRelaxometryLib.jobs", "DiscRelaxometryLib.jobs.jobs", "DiscRelaxometryLib.labels",
                    "DiscRelaxometryLib.mrml", "DiscRelaxometryLib.progress", "DiscRelaxometryLib.resources",
                    "DiscStatsLib", "DiscStatsLib.settings"}
    foreign = {n.split(".")[0] for n in loaded if not n.startswith("Disc")} - sys.stdlib_module_names
    assert not foreign, "numerical packages and Qt wait until they are used"
