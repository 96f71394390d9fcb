"""Discs of an anatomical volume: segmented by a network, named, with confidence and flags."""

from .confidence import calibration, fit_temperature
from .engine import Model, load_engine, load_model
from .inference import normalize_signal, padded_slices, softmax, stack_indices
from .labelmaps import conventions, import_labels, project_labels, structure_for_name
from .local import disc_at
from .network import BACKGROUND, CANAL, CLASSES, DISC, DISC_L5S1, VERTEBRA, NetworkConfig, build_network
from .sagittal import plan_sagittal
from .segment import Segmentation, segment

__all__ = [
    "BACKGROUND", "build_network", "calibration", "CANAL", "CLASSES", "conventions", "DISC", "disc_at", "DISC_L5S1",
    "fit_temperature", "import_labels", "load_engine", "load_model", "Model", "NetworkConfig", "normalize_signal",
    "padded_slices", "plan_sagittal", "project_labels", "segment", "Segmentation", "softmax", "stack_indices",
    "structure_for_name", "VERTEBRA",
]
