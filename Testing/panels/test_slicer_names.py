"""Every name that the panels use of Qt, CTK and Slicer exists there, in the form in which it is used.

A stand-in or PySide6 may be kinder than PythonQt: it has a name that Slicer lacks, or lets a property be called.
``slicer_names.json`` is taken from the sources of Slicer, CTK and PythonQt; VTK and MRML are the real libraries.
"""

import ast
import builtins
import functools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = json.loads((Path(__file__).parent / "slicer_names.json").read_text(encoding="utf-8"))["classes"]
KINDS = ("properties", "signals", "methods", "enums")
FOLDERS = ("DiscRelaxometryWidgets", "DiscAtlasWidgets", "DiscStatsWidgets", "DiscRelaxometryLib/mrml")
FILES = sorted([*ROOT.glob("Disc*/Disc*.py"), *ROOT.glob("Disc*/Disc*Lib/mrml.py"),
                *(f for folder in FOLDERS for f in ROOT.glob(f"Disc*/{folder}/**/*.py"))])
#: Variables of the panels whose class is known.
VARIABLES = {"self.layout": "QVBoxLayout", "self.scriptedEffect": "qSlicerSegmentEditorScriptedEffect",
             "scriptedEffect": "qSlicerSegmentEditorScriptedEffect", "self.plot": "qMRMLPlotView",
             "self.parent": "qSlicerScriptedLoadableModuleWidget", "slicer.app": "qSlicerApplication",
             "editor": "qMRMLSegmentEditorWidget", "scroll": "QScrollArea",
             "effect": "qSlicerSegmentEditorScriptedEffect", "clonedEffect": "qSlicerSegmentEditorScriptedEffect",
             "self._timer": "QTimer", "self._settled": "QTimer",
             "self.completer": "QCompleter", "self.allButton": "QPushButton", "self.clickCombo": "QComboBox",
             "header": "QHeaderView", "combo": "QComboBox", "slider": "ctkSliderWidget", "button": "QPushButton",
             "field": "ctkPathLineEdit", "self.label": "QLabel"}
#: What Slicer adds in its own Python: to the effect's base class, and to every wrapped object.
ADDED = {"self", "register", "className", "connect", "disconnect", "delete", "setParent", "findChild", "findChildren"}
#: Names of scripted modules and of module objects: SampleData.py, DICOMPlugin.py, ctkDICOMDatabase.h and
#: qSlicerAbstractCoreModule.h of Slicer and CTK, and PyTorchUtils.py of SlicerPyTorch.
MODULES = {"registerCustomSampleDataSource", "SampleDataLogic", "PyTorchUtilsLogic", "installTorch",
           "widgetRepresentation", "editor", "dicomPlugins", "fileValue", "warning"}


def members(name: str) -> dict[str, str]:
    """Return kind by name of what a class and its bases offer; a property hides a method of its name."""
    found: dict[str, str] = {}
    while name in NAMES:
        for kind in KINDS:
            for member in NAMES[name][kind]:
                found.setdefault(member, kind)
        name = NAMES[name]["base"]
    return found


@functools.cache
def widgets() -> dict[str, str]:
    """Return class by object name of all .ui files."""
    return {e.get("name"): e.get("class") for f in ROOT.glob("Disc*/Resources/UI/*.ui")
            for e in ElementTree.parse(f).getroot().iter("widget")}


@functools.cache
def known() -> frozenset[str]:
    """Return the names of our own code, Python, NumPy, VTK and MRML, and everything of the listed classes."""
    import vtk

    from panels.host import start_host

    slicer = start_host()
    found = {*dir(slicer), *vars(slicer.modules), *dir(builtins)}
    found |= {n for c in (str, dict, list, set, float, Path, np.ndarray, object) for n in dir(c)}
    for module in (vtk, slicer.util, np, *(m for m in vars(slicer).values() if isinstance(m, type))):
        found |= set(dir(module))
    for name in dir(vtk):
        found |= set(dir(getattr(vtk, name))) if name.startswith("vtk") else set()
    for file in ROOT.glob("Disc*/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(
                    node.value, "id", "") in ("self", "cls"):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    for name in NAMES:
        found |= {*members(name), name}
    return frozenset(found | set(widgets()) | ADDED | MODULES)


def pandas_names() -> set[str]:
    pandas = pytest.importorskip("pandas")
    return set(dir(pandas.DataFrame))


def class_of(expression: str) -> str | None:
    """Return the class of an expression where the code says it: ``ui.x``, ``qt.X`` or a variable of `VARIABLES`."""
    found = re.fullmatch(r"(?:self\.)?ui\.(\w+)", expression)
    if found:
        return widgets()[found.group(1)]
    return expression[3:] if re.fullmatch(r"qt\.Q\w+", expression) else VARIABLES.get(expression)


def uses(tree: ast.AST):
    """Yield (class, member, how it is used, whether on the class itself, line) of accesses whose class is known."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name, parent = class_of(ast.unparse(node.value)), parents[node]
            how = "call" if isinstance(parent, ast.Call) and parent.func is node else \
                "connect" if isinstance(parent, ast.Attribute) and parent.attr == "connect" else "read"
            if name:
                yield name, node.attr, how, ast.unparse(node.value).startswith("qt."), node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "value":
            name = class_of(ast.unparse(node.args[0]))
            if name and isinstance(node.args[1], ast.Constant):
                yield name, node.args[1].value, "value", False, node.lineno
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "assign":
            name = class_of(ast.unparse(node.args[0]))
            for keyword in node.keywords:
                yield name, keyword.arg, "assign", False, node.lineno


ALLOWED = {"call": {"methods", "signals"}, "connect": {"signals"}, "read": {"properties", "enums"},
           "value": {"properties", "methods"}, "assign": {"properties"}}


def wrong(name: str, member: str, how: str, on_class: bool = False) -> str:
    """Return what is wrong with a use, or nothing; a property hides a static method on objects only."""
    if name not in NAMES:
        return f"{name} is not listed: run Testing/tools/slicer_names.py"
    kind = "methods" if on_class and member in NAMES[name]["methods"] else members(name).get(member)
    if kind is None:
        return "" if member in ADDED else f"{name} has no {member}"
    return "" if kind in ALLOWED[how] else f"{member} of {name} is of the {kind}, but used for: {how}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_members_exist_and_are_used_as_what_they_are(file):
    found = [f"line {line}: {problem}" for *use, line in uses(ast.parse(file.read_text(encoding="utf-8")))
             if (problem := wrong(*use))]
    assert not found


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_no_name_is_unknown_to_all(file):
    modules = {"math", "enum", "os", "re", "json", "logging", "traceback", "zlib", "time", "tempfile", "importlib",
               "importlib.util", "inspect", "np", "sitk", "pandas", "rng", "np.random", "slicer.packaging", "slicer",
               "vtk", "test", "self"}
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr not in known() and ast.unparse(node.value) not in modules \
                and node.attr not in pandas_names() | {"_value_"}:  # what an enumeration's __new__ sets
            found.append(f"line {node.lineno}: {ast.unparse(node)[-60:]}")
    assert not found


def test_the_check_sees_what_fails_in_slicer_alone():
    faults = {"ui.segmentButton.setEnabeld(1)": "has no", "ui.statusLabel.text()": "properties",
              "ui.discTable.rowCount()": "properties", "ui.formulaEdit.textEditd.connect(f)": "has no",
              "ui.progressBar.value()": "properties", "qt.QTableWidgetItem.checkstate": "has no",
              "self.scriptedEffect.saveUndoState()": "has no", "ui.seriesSelector.setCurrentNode.connect(f)": "methods",
              "self.parent.isEntered()": "properties", "self._timer.singleShot(0, f)": "properties",
              "qt.QTimer.singleShot(0, f)": "", "qt.QLayoutX()": ""}
    for text, expected in faults.items():
        found = [problem for *use, _ in uses(ast.parse(text)) if (problem := wrong(*use))]
        assert (expected in found[0]) if expected else not found, text
