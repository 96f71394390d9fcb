"""Base classes of scripted modules, translation and packaging outside Slicer; the panel classes need Qt."""

import importlib
import importlib.metadata
import logging
import os
import re
import types
import unittest
from pathlib import Path

from . import parameters as headless_parameters


def submodules(slicer) -> list[types.ModuleType]:
    """Return the modules to install under ``slicer``."""
    return [_scripted_loadable_module(slicer), headless_parameters.module(slicer), _i18n(), _packaging()]


def _module(name: str, doc: str, **members) -> types.ModuleType:
    module = types.ModuleType(name, doc)
    module.__dict__.update(members)
    module.__dict__["__all__"] = list(members)
    return module


def _scripted_loadable_module(slicer) -> types.ModuleType:
    class ScriptedLoadableModule:
        """Module description; `parent` receives title, categories and help as in Slicer."""

        def __init__(self, parent):
            self.parent = parent
            self.moduleName = type(self).__name__
            slicer.selfTests[self.moduleName] = self.runTest

        def resourcePath(self, filename: str) -> str:
            return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

        def getDefaultModuleDocumentationLink(self, docPage=None) -> str:
            return ""

        def runTest(self, msec: int = 100, **kwargs) -> None:
            test = getattr(importlib.import_module(type(self).__module__), self.moduleName + "Test")()
            test.runTest(**kwargs)

    class ScriptedLoadableModuleWidget:
        """Stands for the panel's base class; a panel needs Qt, so that creating one fails with the reason."""

        def __init__(self, parent=None):
            raise RuntimeError("Panels need the Slicer application; headless, use the module's Logic class.")

    class ScriptedLoadableModuleLogic:
        """Logic with a parameter node in the scene."""

        def __init__(self, parent=None):
            super().__init__()
            self.moduleName = type(self).__name__.removesuffix("Logic")
            self.isSingletonParameterNode = True

        def getParameterNode(self):
            if self.isSingletonParameterNode:
                node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
                if node:
                    node.SetAttribute("ModuleName", self.moduleName)
                    return node
            nodes = self.getAllParameterNodes()
            return nodes[0] if nodes else slicer.mrmlScene.AddNode(self.createParameterNode())

        def getAllParameterNodes(self) -> list:
            nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
            return [n for n in nodes if n.GetAttribute("ModuleName") == self.moduleName]

        def createParameterNode(self):
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            if self.isSingletonParameterNode:
                node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            return node

    class ScriptedLoadableModuleTest(unittest.TestCase):
        """Self test; ``runTest`` runs every ``test*`` method with its set-up and tear-down."""

        messageDelay = 0

        def delayDisplay(self, message: str, requestedDelay=None, msec=None) -> None:
            logging.info(message)

        def runTest(self, **kwargs) -> None:
            names = unittest.defaultTestLoader.getTestCaseNames(type(self))
            result = unittest.TestSuite(type(self)(name) for name in names).run(unittest.TestResult())
            problems = [text for _, text in result.failures + result.errors]
            if problems:
                raise AssertionError(f"{type(self).__name__}: {len(problems)} failed\n" + "\n".join(problems))

    return _module("slicer.ScriptedLoadableModule", "Base classes of scripted modules, without Qt.",
                   ScriptedLoadableModule=ScriptedLoadableModule,
                   ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
                   ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
                   ScriptedLoadableModuleTest=ScriptedLoadableModuleTest)


def _i18n() -> types.ModuleType:
    return _module("slicer.i18n", "Translation: texts stay as written.",
                   tr=lambda text: text, translate=lambda context, text: text)


def _packaging() -> types.ModuleType:
    """Return a ``slicer.packaging`` that checks requirements and never installs."""

    def load_requirements(path) -> list[str]:
        lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]

    def pip_check(requirement) -> bool:
        try:
            return _satisfied(str(requirement))
        except importlib.metadata.PackageNotFoundError:
            return False

    def pip_ensure(requirements, requester=None, **options) -> None:
        """Raise RuntimeError naming what is missing; outside Slicer the user's environment is theirs to change."""
        wanted = requirements.split() if isinstance(requirements, str) else list(requirements)
        missing = [str(r) for r in wanted if not pip_check(r)]
        if missing:
            raise RuntimeError(f"{requester or 'This step'} needs {', '.join(missing)}: install them in this Python "
                               f"(pip install {' '.join(repr(m) for m in missing)}).")

    return _module("slicer.packaging", "Checks requirements; installs nothing.",
                   load_requirements=load_requirements, pip_check=pip_check, pip_ensure=pip_ensure)


def _satisfied(requirement: str) -> bool:
    """Return whether an installed package satisfies ``name`` or ``name>=version``."""
    name, _, minimum = requirement.partition(">=")
    installed = importlib.metadata.version(re.split(r"[\[;\s<=~!]", name.strip())[0])
    return _release(installed) >= _release(minimum)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0])[:3])
