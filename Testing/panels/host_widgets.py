"""Stand-ins for the qMRML and ctk widgets that the panels use, on the real scene.

Each names the functions it imitates: of Libs/MRML/Widgets of Slicer, and of Libs/Widgets of CTK.
"""

from PySide6 import QtCore, QtGui, QtWidgets

from DiscRelaxometryLib.headless import start_headless
from panels.host_plot import qMRMLPlotView

Signal, Property = QtCore.Signal, QtCore.Property


class qMRMLWidget(QtWidgets.QWidget):
    """Root of a panel; hands its scene to the widgets that the .ui file connects.

    After qMRMLWidget.cxx: ``setMRMLScene``, whose ``mrmlSceneChanged`` the .ui file connects.
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        self.sceneReceivers, self.entered = [], False

    def setMRMLScene(self, scene):
        for receiver in self.sceneReceivers:
            receiver.setMRMLScene(scene)

    def isEntered(self):
        return self.entered


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header that hides and shows its content.

    After ctkCollapsibleButton.cpp: ``collapse`` (height), ``setChildVisibility`` (what the panel itself has hidden
    stays hidden when the section opens; nothing is hidden before the widget is shown).
    """

    HEADER = 26

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed, self._hidden = "", False, []
        self.setContentsMargins(0, self.HEADER, 0, 0)

    def _get_text(self):
        return self._text

    def _set_text(self, text):
        self._text = text
        self.setAccessibleName(text)

    def _get_collapsed(self):
        return self._collapsed

    def setCollapsed(self, collapsed):
        self._collapsed = collapsed
        self._apply()

    def _apply(self):
        if self._collapsed:
            children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly)
            self._hidden += [c for c in children if not c.isHidden()]
            for child in children:
                child.hide()
        else:
            for child in self._hidden:
                child.show()
            self._hidden = []
        self.setMaximumHeight(self.HEADER if self._collapsed else 16777215)

    text = Property(str, _get_text, _set_text)
    collapsed = Property(bool, _get_collapsed, setCollapsed)

    def showEvent(self, event):
        if self._collapsed:
            self._apply()

    def mousePressEvent(self, event):
        if event.position().y() < self.HEADER:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, event):
        painter, option = QtGui.QPainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self.HEADER - 2)
        option.text = ("▸ " if self._collapsed else "▾ ") + self._text
        self.style().drawControl(QtWidgets.QStyle.CE_PushButton, option, painter, self)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a browse button.

    After ctkPathLineEdit.cpp: ``setCurrentPath``, ``updateHasValidInput`` (the signal comes with each valid text).
    """

    currentPathChanged = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit(self)
        browse = QtWidgets.QToolButton(self)
        browse.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged)
        self.setFocusProxy(self._edit)

    def currentPath(self):
        return self._edit.text()

    def setCurrentPath(self, path):
        self._edit.setText(path)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Nodes of the scene by class, kept up to date by scene events.

    After qMRMLNodeComboBox.cxx: ``setMRMLScene``, ``setNodeTypes``, ``addNode``, ``setCurrentNodeIDInternal`` (a node
    that is not offered selects none), ``setComboBox`` (a changed text, so also a new name, is announced), and
    qMRMLSortFilterProxyModel.cxx: ``filterAcceptsNode`` (hidden nodes, child classes).
    """

    currentNodeChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._tags, self._types, self._last = None, [], None, None
        self.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.activated.connect(self._activated)
        self.currentIndexChanged.connect(self._changed)

    def setNodeTypes(self, types):
        self._types = list(types)
        self._refresh()

    def nodeTypes(self):
        return self._types or list(self.property("nodeTypes") or [])

    def setMRMLScene(self, scene):
        import vtk

        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                self._tags.append(scene.AddObserver(event, self._refresh))
            self._tags.append(scene.AddObserver(vtk.vtkCommand.ModifiedEvent, self._rename))
        self._refresh()

    def mrmlScene(self):
        return self._scene

    def _nodes(self):
        if self._scene is None:
            return []
        slicer = start_headless()
        found = []
        for name in self.nodeTypes():
            for node in slicer.util.getNodesByClass(name):
                exact = self.property("showChildNodeTypes") is not False or node.GetClassName() == name
                if exact and not node.GetHideFromEditors() and node not in found:
                    found.append(node)
        return found

    def _refresh(self, caller=None, event=None):
        current = self.currentNodeID()
        self.blockSignals(True)
        self.clear()
        if self.property("noneEnabled") is not False:
            self.addItem("None", "")
        for node in self._nodes():
            self.addItem(node.GetName(), node.GetID())
        if self.property("addEnabled") is not False:
            self.addItem(f"Create new {self.property('baseName') or 'node'}", "add")
        index = self.findData(current) if current else -1
        self.setCurrentIndex(max(index, 0) if self.property("noneEnabled") is not False else index)
        self.blockSignals(False)
        self._changed()

    def _rename(self, caller=None, event=None):
        for index in range(self.count()):
            node = self._scene.GetNodeByID(self.itemData(index) or "")
            if node is not None and node.GetName() != self.itemText(index):
                self.setItemText(index, node.GetName())
                if index == self.currentIndex():
                    self.currentNodeChanged.emit(node)

    def _activated(self, index):
        if self.itemData(index) == "add":
            self.addNode()

    def addNode(self):
        name = self._scene.GenerateUniqueName(self.property("baseName") or "Node")
        node = self._scene.AddNewNodeByClass(self.nodeTypes()[0], name)
        self.setCurrentNode(node)
        return node

    def currentNodeID(self):
        data = self.currentData()
        return "" if data in (None, "add") else data

    def currentNode(self):
        identifier = self.currentNodeID()
        return self._scene.GetNodeByID(identifier) if identifier and self._scene else None

    def setCurrentNode(self, node):
        index = self.findData(node.GetID() if node is not None else "")
        self.setCurrentIndex(0 if index < 0 and self.property("noneEnabled") is not False else index)

    def setCurrentNodeID(self, identifier):
        self.setCurrentNode(self._scene.GetNodeByID(identifier) if identifier else None)

    def _changed(self, index=0):
        if self.currentNodeID() != self._last:
            self._last = self.currentNodeID()
            self.currentNodeChanged.emit(self.currentNode())


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a number beside it.

    After ctkSliderWidget.cpp: ``setValue``, ``setSliderValue``, ``setSpinBoxValue`` (one follows the other).
    """

    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider, self._spin = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._slider.setRange(0, 1000)
        self._slider.valueChanged.connect(self._slid)
        self._spin.valueChanged.connect(self._typed)

    def _limits(self):
        return self._spin.minimum(), self._spin.maximum()

    def _slid(self, position):
        low, high = self._limits()
        self._spin.setValue(low + (high - low) * position / 1000)

    def _typed(self, value):
        low, high = self._limits()
        self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / (high - low)) if high > low else 0)
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _get_value(self):
        return self._spin.value()

    def setValue(self, value):
        self._spin.setValue(value)

    def _get_minimum(self):
        return self._spin.minimum()

    def setMinimum(self, value):
        self._spin.setMinimum(value)

    def _get_maximum(self):
        return self._spin.maximum()

    def setMaximum(self, value):
        self._spin.setMaximum(value)

    def _get_decimals(self):
        return self._spin.decimals()

    def setDecimals(self, value):
        self._spin.setDecimals(value)

    def _get_step(self):
        return self._spin.singleStep()

    def setSingleStep(self, value):
        self._spin.setSingleStep(value)

    value = Property(float, _get_value, setValue)
    minimum = Property(float, _get_minimum, setMinimum)
    maximum = Property(float, _get_maximum, setMaximum)
    decimals = Property(int, _get_decimals, setDecimals)
    singleStep = Property(float, _get_step, setSingleStep)


QMRML = {c.__name__: c for c in (qMRMLWidget, qMRMLNodeComboBox, qMRMLPlotView)}
CTK = {c.__name__: c for c in (ctkCollapsibleButton, ctkPathLineEdit, ctkSliderWidget)}
