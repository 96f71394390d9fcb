"""The effect "Lumbar discs" in the Segment Editor; network and packages are loaded at its first use."""

from pathlib import Path


def register():
    """Offer the effect."""
    from qSlicerSegmentationsEditorEffectsPythonQt import qSlicerSegmentEditorScriptedEffect

    effect = qSlicerSegmentEditorScriptedEffect(None)
    # Slicer puts the file into sys.modules under the name of its folder, which must therefore be no package.
    effect.setPythonSource((Path(__file__).parent / "LumbarDiscsEditor" / "LumbarDiscsEffect.py").as_posix())
    effect.self().register()
