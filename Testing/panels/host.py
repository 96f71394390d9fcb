"""A thin Qt host for the panels: PySide6, offscreen, on the real MRML scene of slicer-core.

Stands in for what Slicer's application adds to Qt: the modules ``qt`` and ``ctk``, five qMRML and two ctk widgets, the
``.ui`` loader, the widget base class, and the binding of widgets to parameter nodes. Stand-ins follow Slicer's rules
where code depends on them (exact widget types in bindings, scene handed on by the .ui file's connections) and raise
where Slicer would. What this does and does not prove is in ``Docs/panels-testing.md``.
"""

import ctypes
import functools
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from DiscRelaxometryLib.headless import parameters as headless_parameters
from DiscRelaxometryLib.headless import start_headless
from DiscRelaxometryLib.headless.runtime import register_scripted_module
from panels import host_editor, host_widgets
from panels.host_binding import bind, keep_values, unbind

ROOT = Path(__file__).resolve().parent.parent.parent
#: Panels that are open, shown or not.
_PANELS: list = []


def _keep_constants() -> None:
    """Hold a million references to True and None, for good.

    PySide6 (6.12) gives one of True away at each ``emit`` and one of None at each slot that returns it; up to Python
    3.11, where these two are counted like any object, the interpreter ends with an error when the last is gone.
    """
    held = [True, None] * 1_000_000
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


def start_host():
    """Start application, scene and stand-ins once; return ``slicer``."""
    slicer = start_headless()
    if getattr(slicer, "panelHost", None) is not None:
        return slicer
    _keep_constants()
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panels"])
    application.setStyle("Fusion")
    slicer.panelHost = application
    sys.modules["qt"] = _qt_module()
    sys.modules["ctk"] = types.ModuleType("ctk")
    for name, cls in host_widgets.CTK.items():
        setattr(sys.modules["ctk"], name, cls)
    for name, cls in host_widgets.QMRML.items():
        setattr(slicer, name, cls)
    slicer.util.loadUI = load_ui
    slicer.util.childWidgetVariables = child_widgets
    slicer.app.setOverrideCursor = application.setOverrideCursor
    slicer.app.restoreOverrideCursor = application.restoreOverrideCursor
    slicer.app.processEvents = lambda *flags: application.processEvents()
    _fill_widget_base(slicer.ScriptedLoadableModule.ScriptedLoadableModuleWidget)
    slicer.util.selectModule = _select_module
    slicer.util.getModuleWidget = lambda name: next(p for p in _PANELS if p.moduleName == name)
    slicer.modules.segmenteditor = SegmentEditor()
    host_editor.install(slicer)
    keep_values(headless_parameters._Wrapper)
    headless_parameters._Wrapper.connectGui = bind
    headless_parameters._Wrapper.disconnectGui = unbind
    for module in ("DiscRelaxometry", "DiscAtlas", "DiscStats"):
        register_scripted_module(module, ROOT / module / f"{module}.py")
    return slicer


def _qt_module() -> types.ModuleType:
    """Return a module with all Qt names in one place, as PythonQt has it."""
    module = types.ModuleType("qt")
    for part in (QtCore, QtGui, QtWidgets):
        module.__dict__.update({n: getattr(part, n) for n in dir(part) if n.startswith("Q")})
    return module


class _Loader(QtUiTools.QUiLoader):
    """Makes the stand-ins for custom widgets; an unknown class is an error, not a plain QWidget."""

    def createWidget(self, class_name, parent=None, name=""):
        custom = {**host_widgets.QMRML, **host_widgets.CTK}.get(class_name)
        widget = custom(parent) if custom else super().createWidget(class_name, parent, name)
        if widget is None:
            raise RuntimeError(f"The panel needs a stand-in for {class_name}.")
        widget.setObjectName(name)
        return widget


@functools.cache
def _readable(path) -> tuple[bytes, list[str]]:
    """Return what the loader can read of a .ui file, and the widgets that its connections hand the scene to."""
    tree = ElementTree.parse(path)
    receivers = [c.findtext("receiver") for c in tree.iter("connection")
                 if c.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"]
    root = tree.getroot()
    for section in root.findall("connections"):
        root.remove(section)
    # Enumerations of custom widgets are unknown to the loader; they are kept as texts.
    for prop in root.iter("property"):
        for child in list(prop):
            if child.tag in ("set", "enum") and (child.text or "").startswith(("ctk", "qMRML")):
                child.tag = "string"
                prop.set("stdset", "0")
    return ElementTree.tostring(root), receivers


def load_ui(path):
    """Load a .ui file; the scene is handed on to the widgets that its connections name."""
    text, receivers = _readable(path)
    data = QtCore.QByteArray(text)
    buffer = QtCore.QBuffer(data)
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget = _Loader().load(buffer)
    widget.sceneReceivers = [widget.findChild(QtWidgets.QWidget, name) for name in receivers]
    if None in widget.sceneReceivers:
        raise RuntimeError(f"{path}: a connection names a widget that does not exist.")
    return widget


def child_widgets(widget):
    """Return the named descendants as attributes, as ``slicer.util.childWidgetVariables`` does."""
    names = types.SimpleNamespace()
    for child in widget.findChildren(QtCore.QObject):
        name = child.objectName()
        if name and not name.startswith("qt_"):
            setattr(names, name, child)
    return names


def _fill_widget_base(base) -> None:
    """Give the headless placeholder of ScriptedLoadableModuleWidget its behavior in Slicer."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent or host_widgets.qMRMLWidget()
        if self.parent.layout() is None:
            self.parent.setLayout(QtWidgets.QVBoxLayout())
        self.layout = self.parent.layout()

    def resourcePath(self, filename):
        slicer = start_headless()
        return str(Path(getattr(slicer.modules, self.moduleName.lower()).path).parent / "Resources" / filename)

    base.__init__ = __init__
    base.resourcePath = resourcePath
    base.setup = lambda self: None
    base.cleanup = lambda self: None


def _select_module(name) -> None:
    """Show another module, as ``slicer.util.selectModule`` does: the panel shown is left, then the other is entered."""
    for panel in _PANELS:
        if panel.parent.entered and panel.moduleName != name:
            panel.parent.entered = False
            panel.exit()
    for panel in _PANELS:
        if panel.moduleName == name and not panel.parent.entered:
            panel.parent.entered = True
            panel.enter()


class SegmentEditor:
    """Stands in for the Segment Editor module's widget: remembers what it is asked to edit."""

    def __init__(self):
        self.editor = self
        self.segmentation = self.volume = None

    def widgetRepresentation(self):
        return self

    def self(self):
        return self

    def setSegmentationNode(self, node):
        self.segmentation = node

    def setSourceVolumeNode(self, node):
        self.volume = node


def open_panel(widget_class):
    """Open a panel as Slicer does: construct, setup, enter, show."""
    panel = widget_class()
    panel.setup()
    _PANELS.append(panel)
    panel.parent.entered = True
    panel.enter()
    panel.parent.resize(440, 1000)
    panel.parent.show()
    process()
    return panel


def close_panel(panel) -> None:
    """Close a panel as Slicer does when a module is unloaded."""
    if panel.parent.entered:
        panel.parent.entered = False
        panel.exit()
    _PANELS.remove(panel)
    panel.cleanup()
    panel.uiWidget.setMRMLScene(None)  # what the widgets' destructors do in Slicer
    panel.parent.close()
    panel.parent.deleteLater()
    process()


def panel_session(widget):
    """Yield an open panel for a fixture; then close it, and see that no child process is left."""
    from DiscRelaxometryLib.jobs import jobs

    opened = open_panel(widget)
    yield opened
    close_panel(opened)
    assert not jobs._RUNNING


def click(button) -> None:
    """Press a button that must be enabled."""
    assert button.isEnabled(), f"{button.objectName()} is disabled: {button.toolTip()}"
    button.click()
    process()


def process(milliseconds: int = 0) -> None:
    """Run the event loop, for a while if asked."""
    loop = QtCore.QEventLoop()
    QtCore.QTimer.singleShot(max(milliseconds, 1), loop.quit)
    loop.exec()


def wait_until(condition, seconds: float = 60.0) -> None:
    """Run the event loop until a condition holds."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"nothing happened in {seconds} s")
        process(20)


def finish(panel, button, seconds: float = 60.0) -> None:
    """Press a button and wait until the work that it starts has ended."""
    click(button)
    wait_until(lambda: not panel.work.busy, seconds)


def screenshot(panel, path: Path, dark: bool = False) -> Path:
    """Save a picture of a panel in the light or dark palette."""
    application = QtWidgets.QApplication.instance()
    before = application.palette()
    application.setPalette(dark_palette() if dark else light_palette())
    process(50)
    # As high as all sections, so that nothing needs scrolling.
    height = panel.uiWidget.sizeHint().height() + panel.footer.sizeHint().height() + 40
    panel.parent.resize(500, max(height, 400))  # about as wide as in Slicer
    process(50)
    path.parent.mkdir(parents=True, exist_ok=True)
    panel.parent.grab().save(str(path))
    application.setPalette(before)
    process(20)
    return path


def light_palette() -> QtGui.QPalette:
    """Return the light palette of the Fusion style."""
    return QtWidgets.QStyleFactory.create("Fusion").standardPalette()


def dark_palette() -> QtGui.QPalette:
    """Return a dark palette like Slicer's dark style."""
    palette = QtGui.QPalette()
    role = QtGui.QPalette.ColorRole
    for names, color in (((role.Window, role.Button), "#323232"), ((role.Base, role.ToolTipBase), "#232323"),
                         ((role.AlternateBase,), "#2b2b2b"), ((role.Highlight,), "#2a82da"),
                         ((role.WindowText, role.Text, role.ButtonText, role.ToolTipText), "#e6e6e6"),
                         ((role.HighlightedText,), "#ffffff"), ((role.Light, role.Midlight), "#454545"),
                         ((role.Dark, role.Mid), "#1e1e1e")):
        for name in names:
            palette.setColor(name, QtGui.QColor(color))
    for name in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QtGui.QPalette.ColorGroup.Disabled, name, QtGui.QColor("#808080"))
    return palette


