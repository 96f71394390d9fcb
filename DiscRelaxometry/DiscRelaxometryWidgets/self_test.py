"""Self test of a panel, shared by the modules' test classes; it needs Slicer's window and does nothing without one."""

import slicer

from .qt_helpers import value


def check_panel(test, module):
    """Open a module's panel and check that it is bound to its settings and says what each button waits for."""
    if slicer.app.layoutManager() is None:
        return
    slicer.util.selectModule(module)
    panel = slicer.util.getModuleWidget(module)
    test.assertIsNotNone(panel._parameterNode, "the panel has no settings")
    for name, widget in vars(panel.ui).items():
        if name.endswith("Button") and hasattr(widget, "click") and not value(widget, "enabled" if hasattr(
                widget, "enabled") else "isEnabled"):
            test.assertTrue(value(widget, "toolTip"), f"{name} does not say what it waits for")
    slicer.mrmlScene.Clear(0)
    test.assertIsNotNone(panel._parameterNode, "the panel does not go on after the scene was closed")
