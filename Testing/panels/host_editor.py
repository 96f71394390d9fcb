"""The Segment Editor's side of a scripted effect: loaded by path as Slicer does, with Slicer's own editor logic.

After qSlicerSegmentEditorScriptedEffect.cxx, qSlicerScriptedUtils.cxx and qSlicerSegmentEditorAbstractEffect.h of
Slicer 5.12 and 5.13.
"""

import importlib.util
import sys
import types
from pathlib import Path

from PySide6 import QtWidgets

from DiscRelaxometryLib.headless import start_headless


class AbstractScriptedSegmentEditorEffect:
    """Base class of effects written in Python."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        start_headless().qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)


class qSlicerSegmentEditorEffectFactory:
    """Knows the effects by name; the one that comes first stays."""

    _only = None

    def __init__(self):
        self.effects = {}

    @classmethod
    def instance(cls):
        cls._only = cls._only or cls()
        return cls._only

    def registerEffect(self, effect):
        self.effects.setdefault(effect.name, effect)


class qSlicerSegmentEditorScriptedEffect:
    """Slicer's half of an effect; `editor` is what an editor gives to it."""

    def __init__(self, parent):
        self.name, self.title, self.perSegment, self.requireSegments = "UnnamedScriptedEffect", "", True, True
        self._self, self.options, self.logic = None, [], None

    def setPythonSource(self, path: str) -> bool:
        """Load the class of the file's name into the module of the folder's name, whatever that module was before.

        False for what is no Python file, or has no class whose name ends with Effect.
        """
        slicer, source = start_headless(), Path(path)
        if source.suffix not in (".py", ".pyc"):
            return False
        module_name, class_name = source.parent.name, source.stem.removesuffix("Effect") + "Effect"
        module = sys.modules.get(module_name)
        if module is None or not hasattr(module, class_name):
            spec = importlib.util.spec_from_file_location(module_name, path)
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            spec.loader.exec_module(module)
        if not hasattr(module, class_name):
            return False
        self._self = getattr(module, class_name)(self)
        setattr(slicer, module_name, self._self)
        return True

    def self(self):
        return self._self

    def edit(self, segmentation, volume):
        """Give the effect to an editor of these nodes, as qMRMLSegmentEditorWidget does."""
        slicer = start_headless()
        self.logic, node = slicer.vtkSlicerSegmentEditorLogic(), slicer.vtkMRMLSegmentEditorNode()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetVerbose(True)
        slicer.mrmlScene.AddNode(node)
        self.logic.SetSegmentEditorNode(node)
        self.logic.SetMaximumNumberOfUndoStates(10)
        self.logic.SetSegmentationNode(segmentation)
        self.logic.SetSourceVolumeNode(volume)
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        for data in (segmentation, volume):
            if not hierarchy.GetItemByDataNode(data):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), data)  # as the application's plugins do

    def parameterSetNode(self):
        return self.logic.GetSegmentEditorNode()

    def addOptionsWidget(self, widget):
        assert isinstance(widget, QtWidgets.QWidget)
        self.options.append(widget)

    def saveStateForUndo(self):
        assert self.logic.SaveStateForUndo()

    def referenceGeometryImage(self):
        """Return the grid that is edited, or None where there is none."""
        return self.logic.GetReferenceGeometryImage() if self.logic.UpdateReferenceGeometryImage() else None

    def modifySegmentByLabelmap(self, node, segment, labelmap, mode, bypassMasking=False):
        errors = []
        tag = self.logic.AddObserver("ErrorEvent", lambda caller, event: errors.append(event))
        self.logic.ModifySegmentByLabelmap(node, segment, labelmap, mode, self.perSegment, bypassMasking)
        self.logic.RemoveObserver(tag)
        # Slicer only logs it.
        assert not errors, "the editor could not write this labelmap"


def install(slicer) -> None:
    """Make the modules and classes known under the names that Slicer gives them."""
    base = types.ModuleType("SegmentEditorEffects")
    base.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    effects = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    effects.qSlicerSegmentEditorScriptedEffect = qSlicerSegmentEditorScriptedEffect
    for module in (base, effects):
        sys.modules[module.__name__] = module
    slicer.qSlicerSegmentEditorEffectFactory = qSlicerSegmentEditorEffectFactory
    # The modes of the abstract effect are those of the logic, under the same names.
    slicer.qSlicerSegmentEditorAbstractEffect = types.SimpleNamespace(**{
        name: getattr(slicer.vtkSlicerSegmentEditorLogic, name)
        for name in dir(slicer.vtkSlicerSegmentEditorLogic) if name.startswith("ModificationMode")})
