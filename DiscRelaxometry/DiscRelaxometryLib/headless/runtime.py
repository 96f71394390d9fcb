"""A small Slicer runtime on the ``slicer-core`` wheel, so that Logic classes run without the application.

``slicer-core`` brings the real MRML libraries and Slicer's own ``slicer/util.py``; this module starts the scene and the
module logics and supplies the few names that Slicer's application adds: ``slicer.mrmlScene``, ``slicer.modules``,
``slicer.app``, the base classes of scripted modules, ``slicer.parameterNodeWrapper``, ``slicer.i18n`` and
``slicer.packaging``. Inside Slicer nothing is started and the application's ``slicer`` is returned.
Views, panels, ``qt``, ``ctk`` and CLI modules are not supplied.
"""

import atexit
import importlib
import importlib.util
import logging
import shutil
import sys
import tempfile
import types
from pathlib import Path

from ..errors import DiscRelaxometryError

#: Module logics in the order Slicer starts them: name of the module, class of its logic.
MODULE_LOGICS = (
    ("Colors", "vtkSlicerColorLogic"), ("Units", "vtkSlicerUnitsLogic"), ("Cameras", "vtkSlicerCamerasModuleLogic"),
    ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"), ("Tables", "vtkSlicerTablesLogic"),
    ("Texts", "vtkSlicerTextsLogic"), ("Transforms", "vtkSlicerTransformLogic"), ("Volumes", "vtkSlicerVolumesLogic"),
    ("Models", "vtkSlicerModelsLogic"), ("Markups", "vtkSlicerMarkupsLogic"), ("Plots", "vtkSlicerPlotsLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"), ("Sequences", "vtkSlicerSequencesLogic"),
    ("CropVolume", "vtkSlicerCropVolumeLogic"),
)


class HeadlessApplication(types.SimpleNamespace):
    """What ``slicer.app`` offers headless: no windows, dialogs answer themselves, files through storage nodes."""


def _application(scene, logic, io_manager) -> HeadlessApplication:
    return HeadlessApplication(
        applicationName="Slicer (headless)", majorVersion=5, minorVersion=13, temporaryPath=tempfile.gettempdir(),
        mrmlScene=lambda: scene, applicationLogic=lambda: logic, coreIOManager=lambda: io_manager,
        layoutManager=lambda: None,  # there are no views
        testingEnabled=lambda: True,  # message boxes log and answer themselves instead of opening
        translate=lambda context, text: text,
        **dict.fromkeys(("processEvents", "pauseRender", "resumeRender"), lambda *flags: None))


def _module(name: str, logic=None, path: str = "") -> types.SimpleNamespace:
    """Return what ``slicer.modules.<name>`` offers headless; a scripted module has no C++ logic."""
    return types.SimpleNamespace(name=name, title=name, path=path, logic=lambda: logic)


def inside_slicer() -> bool:
    """Return whether this process is the Slicer application."""
    slicer = sys.modules.get("slicer")
    app = getattr(slicer, "app", None)
    return app is not None and not isinstance(app, HeadlessApplication)


def start_headless():
    """Start the runtime once and return the ``slicer`` module; inside Slicer return the application's own.

    Returns
    -------
    module
        ``slicer``, with ``mrmlScene``, ``modules``, ``app`` and ``util`` ready.

    Raises
    ------
    DiscRelaxometryError
        If ``slicer-core`` is not installed.
    """
    if inside_slicer():
        return sys.modules["slicer"]
    if importlib.util.find_spec("slicer") is None:
        raise DiscRelaxometryError(
            "Slicer's libraries are not installed in this Python: run 'pip install slicer-core', "
            "or run the script inside 3D Slicer.", anchor="slicer-core-is-missing")
    slicer = importlib.import_module("slicer")
    slicer.util = importlib.import_module("slicer.util")
    if isinstance(getattr(slicer, "app", None), HeadlessApplication):
        return slicer
    _start(slicer)
    return slicer


def _start(slicer) -> None:
    """Create scene, application logic and module logics, in the order in which Slicer does."""
    from . import colors as headless_colors
    from . import io as headless_io
    from . import scripted as headless_scripted

    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    _add_cache(slicer, scene)
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(scene)
    colors = slicer.vtkSlicerColorLogic()
    # The wheel ships no color files; the tables that maps need are added after.
    shown = colors.GetGlobalWarningDisplay()
    colors.SetGlobalWarningDisplay(False)
    colors.SetMRMLApplicationLogic(application_logic)
    colors.SetMRMLScene(scene)
    application_logic.SetColorLogic(colors)
    colors.AddDefaultColorNodes()
    colors.SetGlobalWarningDisplay(shown)
    headless_colors.add_color_tables(slicer)
    slicer.modules = types.SimpleNamespace()
    for name, class_name in MODULE_LOGICS:
        _add_module_logic(slicer, application_logic, name, class_name)
    slicer.app = _application(scene, application_logic, headless_io.HeadlessIOManager(slicer))
    slicer.selfTests = {}
    for submodule in headless_scripted.submodules(slicer):
        sys.modules[submodule.__name__] = submodule
        setattr(slicer, submodule.__name__.partition(".")[2], submodule)


def _add_cache(slicer, scene) -> None:
    """Give the scene the cache folder that reading a scene bundle (.mrb) unpacks into."""
    folder = tempfile.mkdtemp(prefix="DiscRelaxometryHeadless-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cache = slicer.vtkCacheManager()
    cache.SetRemoteCacheDirectory(folder)
    manager = slicer.vtkDataIOManager()
    manager.SetCacheManager(cache)
    scene.SetCacheManager(cache)
    scene.SetDataIOManager(manager)


def _add_module_logic(slicer, application_logic, name: str, class_name: str) -> None:
    factory = getattr(slicer, class_name, None)
    if factory is None:
        logging.warning("slicer-core has no %s: slicer.modules.%s is not available.", class_name, name.lower())
        return
    logic = application_logic.GetColorLogic() if name == "Colors" else factory()
    if name != "Colors":
        # The wheel ships no terminology files; their absence is no news to the user.
        shown = logic.GetGlobalWarningDisplay()
        logic.SetGlobalWarningDisplay(shown and name != "Terminologies")
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetGlobalWarningDisplay(shown)
    application_logic.SetModuleLogic(name, logic)
    setattr(slicer.modules, name.lower(), _module(name, logic))


def register_scripted_module(name: str, path: str | Path) -> None:
    """Make ``slicer.modules.<name>`` and ``slicer.util.modulePath`` know a scripted module's file."""
    slicer = start_headless()
    if not inside_slicer():
        setattr(slicer.modules, name.lower(), _module(name, None, str(path)))
