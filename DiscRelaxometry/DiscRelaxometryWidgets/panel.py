"""What the three panels share: the life of the parameter node, and a footer for work that is always in sight."""

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from DiscRelaxometryLib.resources import resource_path

from .displays import renew_thresholds
from .qt_helpers import current_data, fill_conventions, silent, value
from .work import Work


class DiscPanel(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Base of the module panels.

    The module's Widget class implements ``createLogic``, its panel ``connectWidgets`` and ``_checkCanApply``. The .ui
    file of the module's name is shown in a scroll area, above a footer with progress, status and Cancel.
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self.work = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    # ------------------------------------------------------------ life of the panel

    def setup(self):
        """Build the panel; called once, when it is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.footer = slicer.util.loadUI(str(resource_path("UI/Footer.ui")))
        self._arrange()
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        vars(self.ui).update(vars(slicer.util.childWidgetVariables(self.footer)))
        self._paths = [w for w in vars(self.ui).values() if hasattr(w, "setCurrentPath")]
        for table in (w for w in vars(self.ui).values() if hasattr(w, "horizontalHeader")):
            table.horizontalHeader().setStretchLastSection(True)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.createLogic()
        scene = slicer.mrmlScene
        for event, slot in ((scene.StartCloseEvent, self.onSceneStartClose), (scene.EndCloseEvent, self.onSceneReady),
                            (scene.StartImportEvent, self.onSceneStartImport),
                            (scene.EndImportEvent, self.onSceneReady)):
            self.addObserver(scene, event, slot)
        self.work = Work(self.ui, self.moduleName, self._onWorkChanged)
        self.connectWidgets()
        self.initializeParameterNode()

    def _arrange(self):
        """Let the sections scroll, and keep the footer below them in sight."""
        import qt

        scroll = qt.QScrollArea()
        scroll.setObjectName("sections")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(qt.QFrame.NoFrame)
        scroll.setWidget(self.uiWidget)
        # Slicer makes its panel as wide as the module asks for; a scroll area alone asks for next to nothing.
        bar = value(scroll.verticalScrollBar(), "sizeHint").width()
        scroll.setMinimumWidth(value(self.uiWidget, "minimumSizeHint").width() + bar)
        self.layout.addWidget(scroll, 1)
        self.layout.addWidget(self.footer)

    def cleanup(self):
        """Release everything: the module is unloaded or reloaded."""
        if self.work is not None:
            self.work.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """Take up the parameter node: the panel is shown."""
        self.initializeParameterNode()

    def exit(self):
        """Leave the parameter node: another module is shown. Work that runs goes on."""
        if not self.work.busy:
            self.setParameterNode(None)

    @property
    def _isShown(self):
        return value(self.parent, "isEntered")

    def onSceneStartClose(self, caller, event):
        """Leave the scene's nodes before they go; work on them is pointless now."""
        self.work.stop(_("Stopped: the scene was closed."))
        self.setParameterNode(None)

    def onSceneStartImport(self, caller, event):
        """Leave the settings while nodes arrive: references to them are not there yet, and would be taken for none."""
        self.setParameterNode(None)

    def onSceneReady(self, caller, event):
        """Take up the settings of the scene as it is now, if the panel is shown."""
        renew_thresholds()
        if self._isShown or self.work.busy:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        """Use the scene's parameter node, made with the defaults if there is none."""
        if self.logic is not None:
            renew_thresholds()
            self.setParameterNode(self.logic.getParameterNode())
            self.chooseInputs()

    def chooseInputs(self):
        """Choose what the user most likely means, where nothing is chosen; called when the panel is shown."""

    def offerConventions(self, first):
        """List the label tables of other tools, `first` being chosen, and keep the chosen one in the settings."""
        combo = self.ui.conventionCombo
        fill_conventions(combo, first)
        combo.currentIndexChanged.connect(self.onConventionChosen)

    def onConventionChosen(self, index):
        """Keep the label table in the settings."""
        if self._parameterNode is not None:
            self._parameterNode.convention = current_data(self.ui.conventionCombo)

    def setParameterNode(self, parameterNode):
        """Bind the widgets to a parameter node, or to none."""
        import vtk

        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._parameterNodeGuiTag = parameterNode.connectGui(self.ui)
            # After the widgets have taken over the settings.
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified,
                             priority=-1.0)
            self._onModified()

    def _onModified(self, caller=None, event=None):
        if self._parameterNode is None:
            return
        for field in self._paths:
            # Path() is written as a dot, which reads as a folder that was chosen.
            if value(field, "currentPath") == ".":
                with silent(field):
                    field.setCurrentPath("")
        self.onParametersChanged()
        self._checkCanApply()

    def onParametersChanged(self):
        """Show what depends on the settings; called before ``_checkCanApply``."""

    def _onWorkChanged(self):
        if not self.work.busy and not self._isShown:
            self.setParameterNode(None)
        self._checkCanApply()
