"""The effect "Lumbar discs" in the Segment Editor; network and packages are loaded at its first use."""

from pathlib import Path


def register():
    """Offer the effect."""
    from qSlicerSegmentationsEditorEffectsPythonQt import qSlicerSegmentEditorScriptedEffect

    effect = qSlicerSegmentEditorScriptedEffect(None)
    effect.setPythonSource((Path(__file__).parent / "LumbarDiscsEffect.py").as_posix())
    effect.self().register()
