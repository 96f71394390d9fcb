"""Write Testing/panels/slicer_names.json: what PythonQt offers of the Qt, CTK and Slicer classes that the panels use.

``python Testing/tools/slicer_names.py SLICER@REVISION CTK@REVISION PYTHONQT@REVISION`` takes three source folders. A
member is a property, signal or slot of the class's meta-object, or a method of PythonQt's generated wrapper.
"""

import json
import re
import sys
from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

TARGET = Path(__file__).resolve().parent.parent / "panels" / "slicer_names.json"
QT = ("Qt", "QApplication", "QCheckBox", "QColor", "QComboBox", "QCompleter", "QCursor", "QDesktopServices",
      "QDoubleSpinBox", "QDropEvent", "QEvent", "QFormLayout", "QFrame", "QHBoxLayout", "QHeaderView", "QIcon",
      "QLabel", "QLineEdit", "QMimeData", "QObject", "QPlainTextEdit", "QProgressBar", "QPushButton", "QScrollArea",
      "QScrollBar", "QSize", "QSpinBox", "QStringListModel", "QTableWidget", "QTableWidgetItem", "QTimer", "QUrl",
      "QVBoxLayout", "QWidget")
OTHERS = ("ctkCollapsibleButton", "ctkPathLineEdit", "ctkSliderWidget", "ctkVTKChartView", "qMRMLNodeComboBox",
          "qMRMLPlotView", "qMRMLSegmentEditorWidget", "qMRMLWidget", "qSlicerAbstractModuleWidget",
          "qSlicerApplication", "qSlicerCoreApplication", "qSlicerScriptedLoadableModule",
          "qSlicerScriptedLoadableModuleWidget", "qSlicerSegmentEditorAbstractEffect",
          "qSlicerSegmentEditorScriptedEffect", "qSlicerWidget", "qSlicerSequencesModule",
          "qSlicerAbstractCoreModule")


def qt_class(name: str, wrappers: str) -> dict:
    """Return base, properties, signals and methods of a Qt class."""
    cls = next(getattr(m, name) for m in (QtCore, QtGui, QtWidgets) if hasattr(m, name))
    found = {"base": cls.__mro__[1].__name__ if name != "Qt" else "object", "properties": [], "signals": [],
             "methods": [], "enums": []}
    meta = getattr(cls, "staticMetaObject", None)
    if meta is not None:
        found["properties"] = [meta.property(n).name() for n in range(meta.propertyOffset(), meta.propertyCount())]
        for n in range(meta.methodOffset(), meta.methodCount()):
            kind = "signals" if meta.method(n).methodType() == QtCore.QMetaMethod.MethodType.Signal else "methods"
            found[kind].append(meta.method(n).name().data().decode())
    for member in vars(cls).values():
        found["enums"] += list(getattr(member, "__members__", ()))
    body = re.search(rf"class PythonQtWrapper_{name} :.*?\n}};", wrappers, re.S)
    text = body.group(0) if body else ""
    found["methods"] += re.findall(rf"\b(?!py_q_)(\w+)\({name}\* theWrappedObject", text)
    found["methods"] += re.findall(rf"\bstatic_{name}_(\w+)\(", text)
    if name != "Qt" and f"new_{name}(" not in text:
        found["abstract"] = True
    return found


def header_class(name: str, text: str) -> dict:
    """Return base, properties, signals and methods of a class from its header."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    start = re.search(rf"class\s+(?:\w+_EXPORT\s+)?{name}\s*:\s*public\s+(\w+)", text)
    body = text[start.end():]
    # CTK's view is a widget of VTK, whose own members nobody uses.
    base = re.sub(r"(ctkVTK|QVTK)OpenGLNativeWidget|\w*RenderView", "QWidget", start.group(1))
    found = {"base": base, "properties": re.findall(r"Q_PROPERTY\(\s*[\w:<>*]+\s+\*?(\w+)", body),
             "signals": [], "methods": [], "enums": []}
    for part in re.split(r"\n(?=(?:public|protected|private|signals|Q_SIGNALS)\b[^\n]*:)", body):
        names = re.findall(r"[\w>*&]\s+[*&]?(\w+)\s*\([^;{]*?\)\s*(?:const)?\s*(?:override|= 0)?\s*[;{]", part)
        if re.match(r"(signals|Q_SIGNALS)", part):
            found["signals"] += names
        elif re.match(r"public (slots|Q_SLOTS)", part):
            found["methods"] += names
        elif part.startswith("public"):
            found["methods"] += re.findall(r"Q_INVOKABLE[^;(]*?(\w+)\s*\(", part)
    for enum in re.findall(r"\benum\s+\w+\s*\{(.*?)\}", body, re.S):
        found["enums"] += re.findall(r"(?:^|,)\s*(\w+)", enum)
    return found


def main(*arguments: str) -> None:
    """Write the file."""
    sources = dict(zip(("Slicer", "CTK", "PythonQt"), (a.rpartition("@")[2] for a in arguments)))
    slicer, ctk, pythonqt = (Path(a.rpartition("@")[0]) for a in arguments)
    wrappers = "\n".join(p.read_text(errors="replace") for p in pythonqt.rglob("com_trolltech_qt_*.h"))
    classes, queue = {}, list(QT)
    while queue:
        name = queue.pop()
        if name not in classes and any(hasattr(m, name) for m in (QtCore, QtGui, QtWidgets)):
            classes[name] = qt_class(name, wrappers)
            queue.append(classes[name]["base"])
    headers = {p.stem: p for root in (slicer, ctk) for p in root.rglob("*.h") if p.stem in OTHERS}
    for name in OTHERS:
        classes[name] = header_class(name, headers[name].read_text(errors="replace"))
    for found in classes.values():
        for kind in ("properties", "signals", "methods", "enums"):
            found[kind] = sorted(set(found[kind]))
    lines = ",\n".join(f"{json.dumps(n)}: {json.dumps(c)}" for n, c in sorted(classes.items()))
    TARGET.write_text(f'{{"sources": {json.dumps(sources)},\n"classes": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
