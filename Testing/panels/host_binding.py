"""Binding of widgets to parameter nodes, by Slicer's rules: exact widget types, one SlicerParameterName per widget.

After Base/Python/slicer/parameterNodeWrapper of Slicer: ``wrapper.py`` (what is read, when a widget is written) and
``guiConnectors.py`` (which widget takes which type; an unbounded number, an unknown choice).
"""

import enum
import pathlib
import weakref

from PySide6 import QtWidgets

from DiscRelaxometryLib.headless import start_headless
from panels import host_widgets

_OBSERVERS: list = []


def keep_values(wrapper_class) -> None:
    """Let wrappers keep each value that they read until the parameter node is modified: ``_CachedParameterWrapper``.

    A reference that is read before its node is there is kept as None, although the node comes later.
    """
    import vtk

    write, start = wrapper_class.setValue, wrapper_class.__init__

    def read(self, name):
        serializer, default = self.allParameters[name]
        return serializer.read(self.parameterNode, name) if serializer.has(self.parameterNode, name) else default

    def __init__(self, parameterNode):
        start(self, parameterNode)
        me = weakref.ref(self)

        def renew(caller=None, event=None):
            wrapper = me()
            if wrapper is not None:
                wrapper._kept = {name: read(wrapper, name) for name in wrapper.allParameters}

        renew()
        # Held for good: VTK calls an observer that Python is about to collect, and the interpreter dies of it.
        _OBSERVERS.append(renew)
        parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, renew, 1.0)

    def setValue(self, name, value):
        was = self.parameterNode.StartModify()
        try:
            write(self, name, value)
            self._kept[name] = read(self, name)
        finally:
            self.parameterNode.EndModify(was)

    wrapper_class.__init__, wrapper_class.setValue = __init__, setValue
    wrapper_class.getValue = lambda self, name: self._kept[name]


def bind(wrapper, gui):
    """Connect every widget with a SlicerParameterName: ``_connectGui``, ``_connectParametersToGui``."""
    import vtk

    connectors = {}
    for widget in vars(gui).values():
        name = widget.property("SlicerParameterName")
        if name:
            if name not in wrapper.allParameters:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            connectors[name] = _connector(widget, wrapper.allParameters[name][0])
    state = {"updating": False}

    def to_gui(caller=None, event=None):
        if state["updating"]:
            return
        state["updating"] = True
        try:
            for name, (write, _read, _signal) in connectors.items():
                write(wrapper.getValue(name))
        finally:
            state["updating"] = False

    slots = []
    for name, (_write, read, signal) in connectors.items():
        def to_node(*ignored, name=name, read=read):
            if not state["updating"]:
                wrapper.setValue(name, read())
        slots.append((signal, to_node))
    to_gui()
    for signal, slot in slots:
        signal.connect(slot)
    tag = wrapper.AddObserver(vtk.vtkCommand.ModifiedEvent, to_gui)
    key = len(wrapper._guis) + 1
    wrapper._guis[key] = (tag, slots)
    return key


def unbind(wrapper, key) -> None:
    """Undo :func:`bind`: ``_disconnectGui``."""
    if key not in wrapper._guis:
        return
    tag, slots = wrapper._guis.pop(key)
    wrapper.RemoveObserver(tag)
    for signal, slot in slots:
        signal.disconnect(slot)


def _connector(widget, serializer):
    """Return (write, read, signal) where a class of ``guiConnectors.py`` can represent widget and type, or raise."""
    kind, exact = serializer.kind, type(widget)
    slicer = start_headless()
    if exact is QtWidgets.QCheckBox and kind is bool:
        return widget.setChecked, widget.isChecked, widget.toggled
    if exact is QtWidgets.QSpinBox and kind is int:
        return _ranged(widget, serializer)
    if exact is QtWidgets.QDoubleSpinBox and kind in (int, float):
        return _ranged(widget, serializer)
    if exact is QtWidgets.QComboBox and isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choice(widget, list(kind), [getattr(e, "label", lambda e=e: e.name)() for e in kind])
    if exact is QtWidgets.QComboBox and kind is str:
        choices = next(v.choices for v in serializer.validators if hasattr(v, "choices"))
        return _choice(widget, choices, [str(c) for c in choices])
    if exact is QtWidgets.QLineEdit and kind is str:
        return (lambda v: v == widget.text() or widget.setText(v)), widget.text, widget.textChanged
    if exact is QtWidgets.QTextEdit and kind is str:
        return widget.setPlainText, widget.toPlainText, widget.textChanged
    if exact is host_widgets.ctkPathLineEdit and isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return (lambda v: widget.setCurrentPath(str(v))), (lambda: kind(widget.currentPath())), \
            widget.currentPathChanged
    if exact is host_widgets.qMRMLNodeComboBox and isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        widget.setNodeTypes([kind.__name__])
        return widget.setCurrentNode, widget.currentNode, widget.currentNodeChanged
    raise RuntimeError(f"Slicer has no connector from {exact.__name__} '{widget.objectName()}' to {kind}.")


def _ranged(widget, serializer):
    for validator in serializer.validators:
        if hasattr(validator, "minimum"):
            widget.setRange(max(validator.minimum, -2e9), min(validator.maximum, 2e9))
    return widget.setValue, widget.value, widget.valueChanged


def _choice(widget, values, texts):
    widget.blockSignals(True)
    widget.clear()
    widget.addItems(texts)
    widget.blockSignals(False)
    return (lambda v: widget.setCurrentIndex(values.index(v))), (lambda: values[widget.currentIndex()]), \
        widget.currentIndexChanged
